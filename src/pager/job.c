/*
 * What a worker does with a fill job: read its chunks, then a unit of chunks a step: decode, verify, install the pages that
 * are still the job's.
 */
#include <errno.h>
#include <string.h>

#include "base/point.h"
#include "pager/job.h"

const struct cis_image *cis_fill_job_image(const struct cis_fill_job *job)
{
	return job->img;
}

static bool still_ours(const struct cis_fill_job *job, size_t i)
{
	uint64_t word;

	if (!cis_bit_test(job->claimed, i))
		return false;
	word = cis_word_load(job->p, job->pgno[i]);
	return cis_word_state(word) == CIS_PAGE_BUSY && cis_word_cookie(word) == job->id;
}

static void read_done(struct cis_store_req *req, int err)
{
	struct cis_fill_job *job = req->ctx;

	job->reading = false;
	job->read_rc = err;
	if (err)
		job->rc = cis_fail(&job->err, -err, "%s: chunks %llu..%llu: read: %s", cis_image_info(job->img)->path,
				   (unsigned long long)job->chunk,
				   (unsigned long long)job->chunk + job->nr_chunks - 1, strerror(-err));
	else
		job->bytes_read += job->span.len;
}

bool cis_fill_job_begin(struct cis_fill_job *job, struct cis_scratch *scratch, struct cis_store *store)
{
	unsigned chunk_shift = cis_image_info(job->img)->chunk_shift;
	struct cis_store_req *req = &job->req;

	if (job->begun)
		return !job->reading;
	job->begun = true;
	if (!store) {
		job->rc = job->read_rc = cis_fail(&job->err, EMFILE, "%s: no store to read it by", cis_image_info(job->img)->path);
		return true;
	}
	cis_span_of(job->img, job->chunk, job->nr_chunks, &job->span);
	job->buf = cis_scratch_get(scratch, (size_t)job->nr_chunks << chunk_shift);
	if (!job->buf) {
		job->rc = job->read_rc = cis_fail(&job->err, ENOMEM, "%s: no memory to read into", cis_image_info(job->img)->path);
		return true;
	}
	*req = (struct cis_store_req){ .op = CIS_STORE_GET, .off = job->span.off, .len = job->span.len,
				       .buf = job->buf->data, .done = read_done, .ctx = job,
				       .deadline_ns = cis_read_deadline(job->p, job->p->o.clock(job->p->o.clock_ctx)) };
	job->reading = true;
	cis_store_submit(store, &req, 1);
	CIS_POINT(job_begun);
	return !job->reading;
}

/* The end of the run of pages from @from on that are contiguous, in one region and still the job's. */
static size_t run_end(const struct cis_fill_job *job, size_t from, size_t end, const struct cis_region *r)
{
	size_t i = from + 1;

	while (i < end && job->pgno[i] == job->pgno[from] + (i - from) && still_ours(job, i) &&
	       cis_region_of_page(job->p, job->pgno[i]) == r)
		i++;
	return i;
}

/* Pages [from, end) of the job, whose bytes start at @raw.  Under the gate. */
static int install_pages(struct cis_fill_job *job, size_t from, size_t end, const char *raw)
{
	struct cis_pager *p = job->p;
	int rc = 0;

	for (size_t i = from, to; i < end && !rc; i = to) {
		const struct cis_region *r;
		uint64_t done = 0;

		to = i + 1;
		if (!still_ours(job, i))
			continue;
		r = cis_region_of_page(p, job->pgno[i]);
		to = run_end(job, i, end, r);
		rc = cis_install_run(p, r, job->pgno[i], to - i, raw + ((i - from) << p->page_shift), job->id, &done);
		job->installed += done;
		if (rc == -EAGAIN || rc == -ENOENT)
			rc = 0; /* the sweep or a fault comes back to them */
	}
	return rc;
}

/*
 * Where the unit's pages lie in this process, when they are one run of memory that can be decoded into; else NULL.  Never a
 * private region's base: other clones have its pages mapped, and a decoder's output is not right until it is whole.
 */
static char *in_place(const struct cis_fill_job *job, size_t from, size_t end)
{
	struct cis_pager *p = job->p;
	const struct cis_region *r;

	if (from == end || !still_ours(job, from))
		return NULL;
	r = cis_region_of_page(p, job->pgno[from]);
	if (!r->alias || r->kind != CIS_KIND_SHARED || run_end(job, from, end, r) != end)
		return NULL;
	return r->alias + ((job->pgno[from] << p->page_shift) - r->offset);
}

/* @in_place: where to, or NULL. */
static int produce(struct cis_fill_job *job, struct cis_scratch *scratch, unsigned nr, char *in_place, const char **ret_raw)
{
	struct cis_unit unit = { job->img, job->chunk + job->at, nr, job->buf->data, job->span.off };
	int rc = cis_unit_unpack(&unit, scratch, in_place, ret_raw, &job->err);

	return rc ? rc : cis_unit_check(&unit, *ret_raw, &job->err);
}

static bool any_ours(const struct cis_fill_job *job, size_t from, size_t end)
{
	for (size_t i = from; i < end; i++)
		if (still_ours(job, i))
			return true;
	return false;
}

/*
 * One unit.  Copied pages are decoded outside the gate, which is then held for the copying alone; pages decoded in place are
 * written under it, since a REMOVE in between would otherwise find its zeros overwritten.
 */
static int do_unit(struct cis_fill_job *job, struct cis_scratch *scratch, unsigned nr_chunks, size_t from, size_t end)
{
	struct cis_pager *p = job->p;
	const char *raw;
	char *place;
	int rc = 0;

	if (!any_ours(job, from, end))
		return 0;
	pthread_rwlock_rdlock(&p->gate);
	place = in_place(job, from, end);
	if (place)
		rc = cis_install_room(p, cis_region_of_page(p, job->pgno[from]), job->pgno[from], end - from);
	if (place && !rc)
		rc = produce(job, scratch, nr_chunks, place, &raw);
	CIS_POINT(job_decoded);
	if (place && !rc)
		rc = install_pages(job, from, end, raw);
	pthread_rwlock_unlock(&p->gate);
	if (place)
		return rc;
	rc = produce(job, scratch, nr_chunks, NULL, &raw);
	CIS_POINT(job_decoded);
	if (rc)
		return rc;
	pthread_rwlock_rdlock(&p->gate);
	rc = install_pages(job, from, end, raw);
	pthread_rwlock_unlock(&p->gate);
	CIS_POINT(job_unit);
	return rc;
}

bool cis_fill_job_step(struct cis_fill_job *job, struct cis_scratch *scratch, struct cis_store *store)
{
	unsigned unit = cis_unit_chunks(job->p, job->img), chunk_shift = cis_image_info(job->img)->chunk_shift;
	size_t pages = unit > 1 ? 1 : (size_t)1 << (chunk_shift - job->p->page_shift), end = job->page_at + pages;

	cis_fill_job_begin(job, scratch, store);
	while (job->reading)
		cis_store_wait(store, 0);
	if (end > job->nr_pages)
		end = job->nr_pages;
	if (!job->rc && __atomic_load_n(&job->p->paused, __ATOMIC_RELAXED))
		job->rc = -ECANCELED; /* guests wait for this: the sweep comes back to its pages, or another engine does */
	if (!job->rc)
		job->rc = do_unit(job, scratch, unit, job->page_at, end);
	job->gone = job->rc == -ESRCH;
	job->at += unit;
	job->page_at = end;
	if (!job->rc && job->at < job->nr_chunks)
		return true;
	if (job->buf)
		cis_scratch_put(scratch, job->buf);
	return false;
}
