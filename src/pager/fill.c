/*
 * Filling: bulk work in jobs that workers run, settled by the shard.
 *
 * First the hot section, in the order of the file, which is the recorded order of first touches; then, if all is wanted, the
 * cold sections of the image and what is inherited from its parents; then a sweep over the page words, which finds what jobs
 * could not do.
 *
 * The shard claims pages (BUSY, with the job's id), a worker installs those that are still the job's, under the gate, and
 * makes their words RESIDENT; the shard gives the others back when the job is over.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/point.h"
#include "pager/job.h"

#define HOT_JOBS    12u /* of a small hot section: several workers begin early and end together */
#define HOT_LEAST   ((uint64_t)128 << 10)
#define HOT_BYTES   ((uint64_t)1 << 20)	  /* raw bytes a job before the guest runs: few messages */
#define COLD_BYTES  ((uint64_t)256 << 10) /* and beside it: a fault that waits for a job does not wait long */
#define SCAN_PAGES  4096u /* looked at in a turn, where there is nothing to fill */
#define TOUCH_PAGES 128u  /* installed in a turn, with no job */
#define SWEEP_PAGES 4096u
#define BACK_PAGES  32u   /* out of the stash in a turn: 4 us each, 2 us of a run */
#define BACK_BESIDE 2u    /* while faults come: who was woken soon asks for another page */
#define BESIDE_NS   200000u
#define BUSY_NS	    1000000u	/* too many reads are under way for one more */
#define SWEEP_NS    10000000u	/* before the next pass, twice as long each time, up to ... */
#define SWEEP_MAX_NS 1000000000u
#define TROUBLE_NS  50000000u	/* likewise, after a read that failed */

static const char *const fill_names[] = { "none", "hot", "all" };

const char *cis_fill_name(enum cis_fill fill)
{
	return fill_names[fill];
}

int cis_fill_parse(const char *text)
{
	for (int i = CIS_FILL_NONE; i <= CIS_FILL_ALL; i++)
		if (!strcmp(text, fill_names[i]))
			return i;
	return -EINVAL;
}

static uint64_t nr_chunks_of(const struct cis_image *img)
{
	return cis_image_info(img)->nr_hot_chunks + cis_image_info(img)->nr_cold_chunks;
}

static bool claimable(const struct cis_pager *p, const struct cis_image *img, uint64_t pgno)
{
	struct cis_page_loc loc;

	if (pgno >= p->nr_pages || cis_page_state_at(p, pgno) != CIS_PAGE_ABSENT || !cis_region_of_page(p, pgno))
		return false;
	if (img == p->image && !cis_image_info(img)->depth)
		return true;
	cis_image_locate(p->image, pgno, &loc);
	return loc.img == img && loc.cls != CIS_CLASS_ZERO && loc.cls != CIS_CLASS_SAME;
}

/* Add the pages of one unit of chunks to the job.  Return: whether any of them is claimed. */
static bool claim_unit(struct cis_pager *p, struct cis_fill_job *job, uint64_t chunk)
{
	size_t n = cis_image_chunk_pages(job->img, chunk, CIS_JOB_PAGES - job->nr_pages, job->pgno + job->nr_pages);
	bool any = false;

	for (size_t i = job->nr_pages; i < job->nr_pages + n; i++)
		if (claimable(p, job->img, job->pgno[i])) {
			cis_bit_set(job->claimed, i);
			cis_page_claim(p, job->pgno[i], job->id);
			any = true;
		}
	if (any || job->nr_chunks)
		job->nr_pages += n;
	p->fill_done += n;
	return any;
}

static bool in_hot_section(const struct cis_pager *p)
{
	return p->fill_img == p->image && p->fill_chunk < cis_image_info(p->image)->nr_hot_chunks;
}

/* The next image and range of chunks of the level asked for.  Return: false when all are handed out. */
static bool next_range(struct cis_pager *p, uint64_t *ret_end)
{
	const struct cis_image_info *top = cis_image_info(p->image);

	if (p->have >= p->want)
		return false;
	if (in_hot_section(p)) {
		*ret_end = top->nr_hot_chunks;
		return true;
	}
	if (p->want == CIS_FILL_HOT)
		return false;
	while (p->fill_img && p->fill_chunk >= nr_chunks_of(p->fill_img)) {
		p->fill_img = cis_image_info(p->fill_img)->parent;
		p->fill_chunk = 0;
	}
	if (!p->fill_img)
		return false;
	*ret_end = nr_chunks_of(p->fill_img);
	return true;
}

/* Consecutive chunks of one section, from the first one with a page to claim on; none if that is not before page @stop. */
static void gather(struct cis_pager *p, struct cis_fill_job *job, uint64_t end, uint64_t max_bytes, uint64_t stop)
{
	const struct cis_image_info *info = cis_image_info(job->img);
	unsigned unit = cis_unit_chunks(p, job->img);
	uint64_t bytes = 0;

	while (p->fill_chunk < end && bytes < max_bytes && job->nr_pages < CIS_JOB_PAGES &&
	       (job->nr_chunks || p->fill_done < stop)) {
		bool any, section_ends = p->fill_chunk + unit == info->nr_hot_chunks;

		any = claim_unit(p, job, p->fill_chunk);
		if (any || job->nr_chunks) {
			if (!job->nr_chunks)
				job->chunk = p->fill_chunk;
			job->nr_chunks += unit;
			bytes += (uint64_t)unit << info->chunk_shift;
		}
		p->fill_chunk += unit;
		if (section_ends && job->nr_chunks)
			break;
	}
}

/* Raw bytes of a job in the hot section. */
static uint64_t hot_job_bytes(const struct cis_pager *p)
{
	uint64_t bytes = (cis_image_info(p->image)->nr_hot << p->page_shift) / HOT_JOBS;

	return bytes < HOT_LEAST ? HOT_LEAST : bytes < HOT_BYTES ? bytes : HOT_BYTES;
}

struct cis_fill_job *cis_pager_next_job(struct cis_pager *p)
{
	struct cis_fill_job *job;
	uint64_t end, stop = p->fill_done + SCAN_PAGES, spare = cis_reclaim_spare(p), room;

	p->scan_more = false;
	if (p->is_gone || p->paused || p->seen || p->trouble_ns || (p->trouble_pause_ns && p->jobs_out) || !spare ||
	    !next_range(p, &end))
		return NULL;
	job = calloc(1, sizeof(*job));
	if (!job) {
		cis_pager_fill_later(p);
		return NULL;
	}
	job->p = p;
	job->id = cis_pager_new_id(p);
	while (next_range(p, &end) && !job->nr_chunks && p->fill_done < stop) {
		job->hot = in_hot_section(p);
		job->img = p->fill_img;
		room = job->hot ? hot_job_bytes(p) : COLD_BYTES;
		gather(p, job, end, room >> p->page_shift < spare ? room : spare << p->page_shift, stop);
	}
	if (!job->nr_chunks) {
		p->scan_more = next_range(p, &end);
		free(job);
		return NULL;
	}
	p->jobs_out++;
	p->hot_jobs_out += job->hot;
	CIS_POINT(job_claimed);
	return job;
}

bool cis_pager_scans(const struct cis_pager *p)
{
	return p->scan_more;
}

void cis_pager_job_done(struct cis_pager *p, struct cis_fill_job *job)
{
	for (size_t i = 0; i < job->nr_pages; i++)
		if (cis_bit_test(job->claimed, i)) /* removed meanwhile, it is no longer the job's */
			cis_page_give_back(p, job->pgno[i], job->id);
	for (size_t i = 0; i < job->nr_pages; i++)
		if (cis_bit_test(job->claimed, i))
			cis_reclaim_list(p, job->pgno[i], 1);
	CIS_POINT(job_settled);
	p->stats->pages_filled += job->installed;
	if (job->read_rc) {
		cis_read_trouble(p, job->read_rc);
		cis_fill_trouble(p, &job->err);
	} else {
		p->stats->reads++;
		p->stats->bytes_read += job->bytes_read;
		p->stats->errors_damaged += job->rc == -EBADMSG;
		p->trouble_pause_ns = 0;
	}
	p->jobs_out--;
	p->hot_jobs_out -= job->hot;
	if (job->gone)
		cis_pager_set_gone(p);
	free(job);
	cis_fault_retry(p, true);
	cis_fill_sweep(p);
}

void cis_pager_fill_later(struct cis_pager *p)
{
	if (!p->trouble_ns)
		p->trouble_ns = cis_pager_now(p) + TROUBLE_NS;
}

void cis_pager_fill(struct cis_pager *p, enum cis_fill what)
{
	const struct cis_image_info *info = cis_image_info(p->image);

	if (what <= p->want)
		return;
	if (p->want == CIS_FILL_NONE) {
		p->fill_img = p->image;
		if (p->have >= CIS_FILL_HOT) { /* under an engine before this one */
			p->fill_chunk = info->nr_hot_chunks;
			p->fill_done = info->nr_hot;
		}
	}
	p->want = what;
	p->fill_total = what == CIS_FILL_HOT ? info->nr_hot : info->nr_hot + info->nr_cold;
	if (what == CIS_FILL_ALL)
		for (const struct cis_image *img = info->parent; img; img = cis_image_info(img)->parent)
			p->fill_total += cis_image_info(img)->nr_hot + cis_image_info(img)->nr_cold;
}

enum cis_fill cis_pager_filled(const struct cis_pager *p)
{
	return p->have;
}

void cis_pager_progress(const struct cis_pager *p, uint64_t *ret_done, uint64_t *ret_total)
{
	bool all = p->have >= p->want || p->fill_done > p->fill_total;

	*ret_done = all ? p->fill_total : p->fill_done;
	*ret_total = p->fill_total;
}

/* The final pass. */

static bool make_dirty(struct cis_pager *p, uint64_t pgno)
{
	if (cis_page_unprotect(p, cis_region_of_page(p, pgno), pgno))
		p->sweep_missed++;
	return true;
}

/* Return: whether the page was reclaimed. */
static bool sweep_page(struct cis_pager *p, uint64_t pgno)
{
	struct cis_page_loc loc;
	struct cis_fault f = { .pgno = pgno };
	bool reclaimed = false;

	switch (cis_page_state_at(p, pgno)) {
	case CIS_PAGE_BUSY:
		p->sweep_missed++;
		return false;
	case CIS_PAGE_ABSENT:
		break;
	case CIS_PAGE_CLEAN:
		if (p->reclaim.budget == UINT64_MAX) /* the kernel, which it may be given to, knows of no copy in a store */
			return make_dirty(p, pgno);
		return false;
	case CIS_PAGE_STASHED:
	case CIS_PAGE_INFLIGHT:
	case CIS_PAGE_FAR:
		reclaimed = true;
		break;
	default:
		return false;
	}
	if (!cis_region_of_page(p, pgno))
		return false;
	if (cis_fault_waits(p, pgno)) {
		p->sweep_missed++;
		return false;
	}
	cis_image_locate(p->image, pgno, &loc);
	if (loc.cls == CIS_CLASS_ZERO && !reclaimed)
		return false; /* a hole that reads as zeros once the region is unregistered */
	cis_fault(p, &f);
	if (!cis_word_resident(cis_word_load(p, pgno)) && cis_page_state_at(p, pgno) != CIS_PAGE_POISONED)
		p->sweep_missed++;
	return reclaimed;
}

/* Pages in a row that are in the stash, and for which nobody waits. */
static uint64_t stashed_run(const struct cis_pager *p, uint64_t pgno, uint64_t most)
{
	const struct cis_region *r = cis_region_of_page(p, pgno);
	uint64_t nr = 0;

	while (nr < most && pgno + nr < p->nr_pages && cis_region_of_page(p, pgno + nr) == r &&
	       (cis_page_state_at(p, pgno + nr) == CIS_PAGE_STASHED || cis_page_state_at(p, pgno + nr) == CIS_PAGE_INFLIGHT) &&
	       !cis_fault_waits(p, pgno + nr))
		nr++;
	return nr;
}

/* From where the sweep is: a run by one call, and the page at which that ends as a fault is answered, which knows what to do.  Return: pages brought. */
static uint64_t sweep_on(struct cis_pager *p, uint64_t end, uint64_t most)
{
	uint64_t done = 0, spare = cis_reclaim_spare(p), nr = end - p->sweep;
	struct cis_error err;

	nr = nr < most ? nr : most;
	nr = stashed_run(p, p->sweep, nr < spare ? nr : spare);
	if (nr > 1) {
		cis_stash_bring(p, cis_region_of_page(p, p->sweep), p->sweep, nr, &done, &err);
		p->sweep += done;
	}
	return done == nr && nr > 1 ? done : done + sweep_page(p, p->sweep++);
}

/* Zero pages from @pgno on, as many as the working set has there in a row, up to its entry @end. */
static void touch_zeros(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t end)
{
	uint64_t done = 0, n = 1;

	while (p->fill_touched < end && cis_image_touched(p->image, p->fill_touched) == pgno + n &&
	       cis_page_is_zero(p, r, pgno + n)) {
		p->fill_touched++;
		n++;
	}
	if (cis_zeros_bring(p, r, pgno, n, &done) == -ESRCH)
		cis_pager_set_gone(p);
}

/*
 * What the working set has beside the hot section (format 6.8): zero pages in runs, pages of one repeated word one by one.
 *
 * Return: whether that was all.
 */
static bool fill_touched(struct cis_pager *p)
{
	uint64_t nr = cis_image_info(p->image)->nr_touched, spare = cis_reclaim_spare(p);
	uint64_t most = spare < TOUCH_PAGES ? spare : TOUCH_PAGES;
	uint64_t end = nr - p->fill_touched < most ? nr : p->fill_touched + most;

	while (p->fill_touched < end && !p->is_gone) {
		struct cis_fault f = { .pgno = cis_image_touched(p->image, p->fill_touched++) };
		const struct cis_region *r = cis_region_of_page(p, f.pgno);

		if (!r || cis_page_state_at(p, f.pgno) != CIS_PAGE_ABSENT)
			continue;
		if (cis_page_is_zero(p, r, f.pgno))
			touch_zeros(p, r, f.pgno, end);
		else
			cis_fault(p, &f);
	}
	p->touch_more = end < nr;
	return !p->touch_more;
}

static void complete(struct cis_pager *p, enum cis_fill level)
{
	p->have = level;
	if (p->o.state.header->layout > 1)
		__atomic_store_n(&p->o.state.header->filled, level, __ATOMIC_RELEASE);
	CIS_POINT(fill_level);
}

void cis_fill_trouble(struct cis_pager *p, const struct cis_error *err)
{
	cis_pager_now(p);
	cis_trouble_tell(p, CIS_TROUBLE_FILL, err);
	if (p->trouble_ns)
		return; /* several at once are one */
	p->trouble_pause_ns = !p->trouble_pause_ns ? TROUBLE_NS
			      : p->trouble_pause_ns < SWEEP_MAX_NS / 2 ? 2 * p->trouble_pause_ns : SWEEP_MAX_NS;
	p->trouble_ns = p->now_ns + p->trouble_pause_ns;
}

static bool in_trouble(struct cis_pager *p)
{
	if (p->trouble_ns && cis_pager_now(p) >= p->trouble_ns)
		p->trouble_ns = 0;
	return p->trouble_ns;
}

void cis_fill_again(struct cis_pager *p)
{
	if (p->is_detached)
		return;
	if (p->have == CIS_FILL_ALL)
		complete(p, CIS_FILL_HOT);
	p->sweep = p->sweep_missed = 0;
	p->again_ns = p->pause_ns = 0;
}

/* As much of it as there is room for. */
static bool hot_is_in(struct cis_pager *p)
{
	if (p->hot_jobs_out)
		return false;
	return !cis_reclaim_spare(p) || (!in_hot_section(p) && fill_touched(p));
}

void cis_fill_sweep(struct cis_pager *p)
{
	uint64_t end, back = 0, most;

	if (p->have >= p->want || p->seen || p->paused || in_trouble(p))
		return;
	if (p->have < CIS_FILL_HOT && hot_is_in(p))
		complete(p, CIS_FILL_HOT);
	if (p->want < CIS_FILL_ALL || p->jobs_out || next_range(p, &end) || cis_pager_now(p) < p->again_ns)
		return;
	most = p->now_ns - p->faulted_ns < BESIDE_NS ? BACK_BESIDE : BACK_PAGES;
	end = p->sweep + SWEEP_PAGES < p->nr_pages ? p->sweep + SWEEP_PAGES : p->nr_pages;
	p->fill_busy = false;
	while (p->sweep < end && !p->is_gone && !p->blocked_ns && !p->trouble_ns && !p->fill_busy && back < most && cis_reclaim_spare(p))
		back += sweep_on(p, end, most - back);
	if (p->fill_busy)
		p->again_ns = p->now_ns + BUSY_NS;
	if (p->blocked_ns) {
		p->again_ns = p->blocked_ns;
		return;
	}
	if (p->sweep < p->nr_pages)
		return;
	if (p->reclaim.budget != UINT64_MAX) { /* it never depends on itself alone; what is not there comes when it is touched */
		p->again_ns = UINT64_MAX;
		return;
	}
	if (!p->sweep_missed) {
		complete(p, CIS_FILL_ALL);
		return;
	}
	p->sweep = p->sweep_missed = 0;
	p->pause_ns = !p->pause_ns ? SWEEP_NS : p->pause_ns < SWEEP_MAX_NS / 2 ? 2 * p->pause_ns : SWEEP_MAX_NS;
	p->again_ns = cis_pager_now(p) + p->pause_ns;
}

uint64_t cis_fill_deadline(const struct cis_pager *p)
{
	if (p->is_gone || p->have >= p->want || p->seen)
		return UINT64_MAX;
	if (p->trouble_ns)
		return p->trouble_ns;
	if (!cis_reclaim_spare(p))
		return UINT64_MAX; /* who makes room comes by */
	if (p->scan_more || p->touch_more)
		return 0;
	if (p->jobs_out || in_hot_section(p))
		return UINT64_MAX; /* the next job that is done brings it on */
	return p->again_ns; /* 0: at once */
}
