/* Reading chunks for faults: at once when the store has them at hand, else asynchronously. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/point.h"
#include "codec/codec.h"
#include "pager/internal.h"

#define BLOCK	      4096u
#define FETCHES_MAX   64u	 /* of a guest */
#define FILLS_MAX     16u	 /* of these, for what only the fill wants */
#define BUSY_NS	      1000000u	 /* when others have all buffers */
#define FIRST_RETRY_NS 50000000u /* then 2, 4, 8, 16 times as long: a short trouble of a store must not kill a guest (hazard 11) */
#define TRIES_IN_TIME 4u	 /* a read that hangs leaves time for others */
#define OVERDUE_NS    1000000000u
#define TROUBLE_TOLD_NS 10000000000u
#define CHUNK_PAGES   512u
#define TIMED_EACH    8u /* reads of which one is timed by stage: reading the clock costs 40 ns, five times a fault */

void cis_span_of(const struct cis_image *img, uint64_t chunk, unsigned nr_chunks, struct cis_span *ret)
{
	struct cis_chunk_loc first, last;
	uint64_t end;

	cis_image_chunk(img, chunk, &first);
	cis_image_chunk(img, chunk + nr_chunks - 1, &last);
	end = (last.off + last.stored_bytes + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
	ret->off = first.off & ~(uint64_t)(BLOCK - 1);
	ret->skip = (uint32_t)(first.off - ret->off);
	ret->want = (uint32_t)(last.off + last.stored_bytes - first.off);
	ret->len = (uint32_t)(end - ret->off);
}

int cis_unit_unpack(const struct cis_unit *unit, struct cis_scratch *scratch, char *raw, const char **ret_raw,
		    struct cis_error *err)
{
	struct cis_decoder *dec = cis_scratch_decoder(scratch, unit->img);
	struct cis_chunk_loc loc;
	char *at = raw ? raw : scratch->raw;
	int rc = 0;

	cis_image_chunk(unit->img, unit->chunk, &loc);
	if (!raw && unit->nr_chunks == 1 && loc.codec == CIS_CODEC_RAW) {
		*ret_raw = unit->span + (loc.off - unit->span_off);
		return 0;
	}
	if (!dec)
		return cis_fail(err, ENOMEM, "decoder: out of memory");
	*ret_raw = at;
	for (unsigned i = 0; i < unit->nr_chunks && !rc; i++) {
		cis_image_chunk(unit->img, unit->chunk + i, &loc);
		rc = cis_image_unpack(unit->img, dec, unit->chunk + i, unit->span + (loc.off - unit->span_off), at, err);
		at += loc.raw_bytes;
	}
	return rc;
}

int cis_unit_check(const struct cis_unit *unit, const char *raw, struct cis_error *err)
{
	int rc = 0;

	for (unsigned i = 0; i < unit->nr_chunks && !rc; i++) {
		struct cis_chunk_loc loc;

		cis_image_chunk(unit->img, unit->chunk + i, &loc);
		rc = cis_image_check(unit->img, unit->chunk + i, raw, err);
		raw += loc.raw_bytes;
	}
	return rc;
}

static struct cis_fetch *find(struct cis_pager *p, const struct cis_image *img, uint64_t chunk)
{
	for (struct cis_fetch *f = p->fetches; f; f = f->next)
		if (f->img == img && f->chunk == chunk)
			return f;
	return NULL;
}

static void unlink_fetch(struct cis_fetch *f)
{
	struct cis_pager *p = f->p;
	struct cis_fetch **at = &p->fetches;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	p->nr_fetches--;
}

/* The pages of the fetch's chunks, in the order of its raw bytes. */
static size_t pages_of(const struct cis_fetch *f, uint64_t *ret_pgno)
{
	size_t n = cis_image_chunk_pages(f->img, f->chunk, CHUNK_PAGES, ret_pgno);

	assert(n <= CHUNK_PAGES);
	return n;
}

static bool is_ours(const struct cis_fetch *f, uint64_t word)
{
	return cis_word_state(word) == CIS_PAGE_BUSY && cis_word_cookie(word) == f->id;
}

/* Is the page one that this chunk is the authority for, wanted by nobody yet? */
static bool is_neighbour(const struct cis_fetch *f, uint64_t pgno)
{
	const struct cis_pager *p = f->p;
	struct cis_page_loc loc;

	if (pgno >= p->nr_pages || cis_page_state_at(p, pgno) != CIS_PAGE_ABSENT || !cis_region_of_page(p, pgno))
		return false;
	if (!cis_image_info(p->image)->depth)
		return true;
	cis_image_locate(p->image, pgno, &loc);
	return loc.img == f->img && loc.cls != CIS_CLASS_ZERO && loc.cls != CIS_CLASS_SAME;
}

/* First the pages that somebody waits for. */
static void install_wanted(struct cis_fetch *f, const uint64_t *pgno, size_t n, const char *raw)
{
	struct cis_pager *p = f->p;

	for (size_t i = 0; i < n; i++) {
		struct cis_fault fault = { .pgno = pgno[i], .since_ns = f->since_ns, .tries = f->fault_tries };
		uint64_t done = 0;
		int rc;

		if (pgno[i] >= p->nr_pages || !is_ours(f, cis_word_load(p, pgno[i])))
			continue; /* another's, or removed meanwhile: its content is no longer the image's */
		rc = cis_install_run(p, cis_region_of_page(p, pgno[i]), pgno[i], 1, raw + (i << p->page_shift), f->id, &done);
		cis_page_give_back(p, pgno[i], f->id);
		*(f->since_ns ? &p->stats->pages_demand : &p->stats->pages_filled) += done;
		cis_reclaim_list(p, pgno[i], 1);
		if (done)
			cis_fault_answered(p, &fault, &p->stats->faults_demand);
		else
			cis_fault_trouble(p, &fault, rc);
	}
}

/* Then the rest of the chunk, in runs that are contiguous in the guest. */
static void install_neighbours(struct cis_fetch *f, const uint64_t *pgno, size_t n, const char *raw)
{
	struct cis_pager *p = f->p;
	uint64_t room = cis_reclaim_room(p);
	size_t i = 0;

	while (i < n && !p->is_gone && room) {
		const struct cis_region *r;
		size_t len = 0;
		uint64_t done = 0;

		if (!is_neighbour(f, pgno[i])) {
			i++;
			continue;
		}
		r = cis_region_of_page(p, pgno[i]);
		do {
			cis_page_claim(p, pgno[i + len], f->id);
			len++;
		} while (i + len < n && len < room && pgno[i + len] == pgno[i] + len && is_neighbour(f, pgno[i + len]) &&
			 cis_region_of_page(p, pgno[i + len]) == r);
		if (cis_install_run(p, r, pgno[i], len, raw + (i << p->page_shift), f->id, &done) == -ESRCH)
			cis_pager_set_gone(p);
		for (size_t k = 0; k < len; k++)
			cis_page_give_back(p, pgno[i + k], f->id);
		p->stats->pages_neighbour += done;
		cis_reclaim_list(p, pgno[i], len);
		room -= done;
		i += len;
	}
}

/* The stage that ends here began where the clock was last read. */
static void stage(struct cis_fetch *f, struct cis_hist *hist)
{
	uint64_t start = f->p->now_ns;

	if (f->timed)
		cis_hist_add(hist, cis_pager_now(f->p) - start);
}

static int produce(struct cis_fetch *f, const char **ret_raw, struct cis_error *err)
{
	struct cis_pager *p = f->p;
	struct cis_unit unit = { f->img, f->chunk, f->nr_chunks, f->buf->data, f->span_off };
	int rc = cis_unit_unpack(&unit, p->o.scratch, NULL, ret_raw, err);

	if (rc)
		return rc;
	stage(f, &p->stats->decode_ns);
	rc = cis_unit_check(&unit, *ret_raw, err);
	stage(f, &p->stats->verify_ns);
	return rc;
}

static void install(struct cis_fetch *f, const char *raw)
{
	struct cis_pager *p = f->p;
	uint64_t pgno[CHUNK_PAGES], start = p->now_ns;
	size_t n = pages_of(f, pgno);

	install_wanted(f, pgno, n, raw);
	CIS_POINT(fetch_wanted);
	if (f->timed)
		cis_hist_add(&p->stats->install_ns, p->now_ns - start);
	if (p->o.neighbours && !p->seen && n > 1)
		install_neighbours(f, pgno, n, raw);
	CIS_POINT(fetch_installed);
}

static void end(struct cis_fetch *f)
{
	struct cis_pager *p = f->p;

	unlink_fetch(f);
	if (f->buf)
		cis_scratch_put(p->o.scratch, f->buf);
	free(p->spare);
	p->spare = f;
	cis_fault_retry(p, true);
}

/* The pages that wait for it fail; @later: not for good, and nobody waits for them but the fill. */
static void fail_pages(struct cis_fetch *f, bool later, const struct cis_error *err)
{
	struct cis_pager *p = f->p;
	uint64_t pgno[CHUNK_PAGES];
	size_t n = pages_of(f, pgno);
	bool any = false;

	for (size_t i = 0; i < n && !p->is_gone; i++) {
		struct cis_fault fault = { .pgno = pgno[i], .since_ns = f->since_ns, .tries = f->tries };

		if (pgno[i] >= p->nr_pages || !is_ours(f, cis_word_load(p, pgno[i])))
			continue;
		cis_page_give_back(p, pgno[i], f->id);
		any = true;
		if (!later)
			cis_fault_fail(p, &fault, err);
	}
	if (any && later)
		cis_fill_trouble(p, err);
}

void cis_read_trouble(struct cis_pager *p, int code)
{
	if (code == -EBADMSG)
		p->stats->errors_damaged++;
	else if (code == -ETIMEDOUT)
		p->stats->errors_timeout++;
	else
		p->stats->errors_read++;
}

void cis_trouble_tell(struct cis_pager *p, enum cis_trouble what, const struct cis_error *err)
{
	if (!p->o.trouble || (p->trouble_told_ns && p->now_ns - p->trouble_told_ns < TROUBLE_TOLD_NS))
		return;
	p->trouble_told_ns = p->now_ns;
	p->o.trouble(p->o.ctx, what, err);
}

uint64_t cis_read_deadline(const struct cis_pager *p, uint64_t now)
{
	return p->o.store_deadline_ns ? now + p->o.store_deadline_ns / TRIES_IN_TIME : 0;
}

/*
 * Bytes that are wrong are read again a few times: most often they are wrong on the disk.  A store that fails is asked for as
 * long as the deadline allows, since the guest can wait and cannot be mended.  What only the fill wants is given up at once:
 * it comes back to it, and a touch decides.
 */
static bool worth_a_try(struct cis_fetch *f, int code)
{
	const struct cis_pager *p = f->p;
	uint64_t since = f->since_ns ? f->since_ns : f->begun_ns;

	if (code == -EBADMSG && ++f->damaged >= p->o.tries)
		return false;
	if (code != -EBADMSG && !f->since_ns)
		return false;
	return p->now_ns - since < p->o.store_deadline_ns;
}

/* Cancelled, since the guest leaves or the pager pauses: who waits is woken later, or by somebody else. */
static void abandon(struct cis_fetch *f)
{
	uint64_t pgno[CHUNK_PAGES];
	size_t n = pages_of(f, pgno);

	for (size_t i = 0; i < n; i++)
		if (pgno[i] < f->p->nr_pages)
			cis_page_give_back(f->p, pgno[i], f->id);
	end(f);
}

static void trouble(struct cis_fetch *f, int code, const struct cis_error *err)
{
	struct cis_pager *p = f->p;
	uint64_t pause = (uint64_t)FIRST_RETRY_NS << (f->tries < 4 ? f->tries : 4);

	if (p->is_gone || code == -ECANCELED) {
		abandon(f);
		return;
	}
	cis_pager_now(p);
	cis_read_trouble(p, code);
	f->tries++;
	if (worth_a_try(f, code)) {
		cis_trouble_tell(p, CIS_TROUBLE_FAULT, err);
		p->stats->retries++;
		f->retry_ns = p->now_ns + (code == -EBADMSG && f->damaged == 1 ? 0 : pause); /* spoilt on the way, perhaps */
		return;
	}
	fail_pages(f, !f->since_ns && code != -EBADMSG, err);
	end(f);
}

/*
 * The store has not even said that it gave up: a disk that hangs in the kernel, which owns the buffer until it answers.  Who
 * waits is not kept waiting for that; whoever asks again joins, and if the bytes do come they are used.
 */
static void overdue(struct cis_fetch *f)
{
	struct cis_pager *p = f->p;
	struct cis_error err;

	cis_fail(&err, ETIMEDOUT, "%s: chunk %llu: read: has not ended after %llu ms", cis_image_info(f->img)->path,
		 (unsigned long long)f->chunk, (unsigned long long)((p->now_ns - f->start_ns) / 1000000u));
	cis_read_trouble(p, -ETIMEDOUT);
	f->overdue_ns = p->now_ns + OVERDUE_NS;
	fail_pages(f, !f->since_ns, &err);
	f->since_ns = 0;
}

static void arrived(struct cis_fetch *f, const struct cis_store_req *req, int code)
{
	struct cis_pager *p = f->p;
	struct cis_error err;
	const char *raw;
	int rc;

	f->in_flight = 0;
	CIS_POINT(fetch_arrived);
	f->overdue_ns = 0;
	if (code) {
		cis_fail(&err, -code, "%s: chunk %llu: read: %s", cis_image_info(f->img)->path,
			 (unsigned long long)f->chunk, strerror(-code));
		trouble(f, code, &err);
		return;
	}
	if (f->timed)
		cis_hist_add(&p->stats->read_ns, cis_pager_now(p) - f->start_ns);
	p->stats->reads++;
	p->stats->bytes_read += req->len;
	p->trouble_pause_ns = 0;
	rc = produce(f, &raw, &err);
	if (rc) {
		trouble(f, rc, &err);
		return;
	}
	if (!p->is_gone)
		install(f, raw);
	end(f);
}

static void fetched(struct cis_store_req *req, int code)
{
	struct cis_fetch *f = req->ctx;
	struct cis_pager *p = f->p;

	arrived(f, req, code);
	if (!p->running && p->o.stirred)
		p->o.stirred(p->o.ctx);
}

static void submit(struct cis_fetch *f)
{
	struct cis_pager *p = f->p;
	struct cis_span span;
	struct cis_store_req *req = &f->req;

	cis_span_of(f->img, f->chunk, f->nr_chunks, &span);
	f->span_off = span.off;
	f->retry_ns = 0;
	f->in_flight = 1;
	f->start_ns = p->now_ns;
	f->overdue_ns = cis_read_deadline(p, p->now_ns);
	f->req = (struct cis_store_req){
		.op = CIS_STORE_GET, .off = span.off, .len = span.len, .skip = span.skip, .want = span.want,
		.buf = f->buf->data, .deadline_ns = f->overdue_ns, .done = fetched, .ctx = f,
	};
	f->overdue_ns += f->overdue_ns ? OVERDUE_NS : 0;
	cis_store_submit(p->o.store_of(p->o.ctx, f->img), &req, 1);
}

/* Most often the one that has just ended. */
static struct cis_fetch *new_fetch(struct cis_pager *p)
{
	struct cis_fetch *f = p->spare ? p->spare : malloc(sizeof(*f));

	p->spare = NULL;
	if (f)
		*f = (struct cis_fetch){ .p = p, .timed = !(p->stats->reads % TIMED_EACH) };
	return f;
}

/*
 * Buffers are the shard's.  Each guest may have as many as are left, so that what comes free goes to who has few: dynamic
 * thresholds (Choudhury and Hahne, 1998).
 */
static bool may_fetch(const struct cis_pager *p, const struct cis_fault *fault, size_t bytes)
{
	return p->nr_fetches < (fault->since_ns ? FETCHES_MAX : FILLS_MAX) &&
	       p->nr_fetches < cis_scratch_left(p->o.scratch, bytes);
}

void cis_fetch_start(struct cis_pager *p, const struct cis_fault *fault, const struct cis_page_loc *loc)
{
	unsigned chunk_shift = cis_image_info(loc->img)->chunk_shift;
	struct cis_fetch *f = find(p, loc->img, loc->chunk);

	if (f) {
		cis_page_claim(p, fault->pgno, f->id);
		if (!f->since_ns) /* the fill's until now */
			f->since_ns = fault->since_ns;
		if (f->fault_tries < fault->tries)
			f->fault_tries = fault->tries;
		return;
	}
	f = may_fetch(p, fault, (size_t)cis_unit_chunks(p, loc->img) << chunk_shift) ? new_fetch(p) : NULL;
	if (f) {
		f->nr_chunks = cis_unit_chunks(p, loc->img);
		f->buf = cis_scratch_get(p->o.scratch, (size_t)f->nr_chunks << chunk_shift);
	}
	if (!f || !f->buf) {
		free(f);
		cis_fault_busy(p, fault, p->nr_fetches ? UINT64_MAX : cis_pager_now(p) + BUSY_NS);
		return;
	}
	f->id = cis_pager_new_id(p);
	f->img = loc->img;
	f->chunk = loc->chunk;
	f->since_ns = fault->since_ns;
	f->fault_tries = fault->tries;
	f->begun_ns = p->now_ns;
	f->next = p->fetches;
	p->fetches = f;
	p->nr_fetches++;
	cis_page_claim(p, fault->pgno, f->id);
	submit(f);
	CIS_POINT(fetch_submitted);
}

void cis_fetch_retry(struct cis_pager *p)
{
	uint64_t now;
	struct cis_fetch *f, *next;

	if (!p->fetches)
		return;
	now = cis_pager_now(p);
	for (f = p->fetches; f; f = next) {
		next = f->next; /* submitting may end it, and a retry may put new ones before it, never after */
		if (f->retry_ns && f->retry_ns <= now)
			submit(f);
		else if (f->overdue_ns && f->overdue_ns <= now)
			overdue(f);
	}
}

uint64_t cis_fetch_deadline(const struct cis_pager *p)
{
	uint64_t at = UINT64_MAX;

	for (const struct cis_fetch *f = p->fetches; f; f = f->next) {
		if (f->retry_ns && f->retry_ns < at)
			at = f->retry_ns;
		if (f->overdue_ns && f->overdue_ns < at)
			at = f->overdue_ns;
	}
	return at;
}

bool cis_fetch_quiesce(struct cis_pager *p)
{
	struct cis_fetch *f = p->fetches, *next;

	for (; f; f = next) {
		next = f->next;
		if (f->in_flight)
			cis_store_cancel(p->o.store_of(p->o.ctx, f->img), &f->req);
		else
			abandon(f);
	}
	return !p->fetches;
}
