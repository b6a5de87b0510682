/*
 * Writing pages from the stash to the store: FluidMem's write list, in memory that outlives the engine.
 *
 * What was stashed first goes first, a segment of the stash at a time, straight out of it. A page that is asked for meanwhile is
 * installed from the stash, with no round trip ("steal"): its put then writes what nobody wants, and is deleted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/point.h"
#include "pager/internal.h"

#define PUTS_MAX     256u /* of a guest */
#define A_BATCH	     64u
#define FIRST_WAIT_NS 50000000u /* after a refusal; twice as long each time, up to ... */
#define MAX_WAIT_NS  5000000000u

void cis_writeback_orphan(struct cis_pager *p, uint32_t loc)
{
	for (struct cis_put *put = p->reclaim.puts; put; put = put->next)
		if (put->loc == loc) {
			put->orphan = true;
			return;
		}
	cis_stash_free(&p->reclaim.stash, loc); /* of an engine before this one */
}

/* A store that says where it has a page takes no harm: what has not been claimed is nobody's there. */
void cis_writeback_undo(struct cis_pager *p, uint64_t pgno, uint32_t generation)
{
	struct cis_reclaim *r = &p->reclaim;

	if (!cis_bit_test(r->unsure, pgno))
		return;
	cis_bit_clear(r->unsure, pgno);
	if (r->o.pages && !r->o.pages->ops->claim)
		cis_far_delete(p, pgno, generation, 0);
}

static void unlink_put(struct cis_put *put)
{
	struct cis_put **at = &put->p->reclaim.puts;

	while (*at != put)
		at = &(*at)->next;
	*at = put->next;
	put->p->reclaim.nr_puts--;
	put->p->reclaim.put_bytes -= put->req.len;
}

static void refused(struct cis_put *put, int code)
{
	struct cis_pager *p = put->p;
	struct cis_reclaim *r = &p->reclaim;
	struct cis_error err;

	if (!put->orphan) {
		cis_word_store(p, put->pgno, cis_word_make(CIS_PAGE_STASHED, cis_word_generation(put->word), put->loc));
		cis_bit_set(r->unsure, put->pgno);
	}
	cis_stash_requeue(&r->stash, put->loc);
	if (code == -ECANCELED)
		return;
	p->stats->errors_put++;
	cis_fail(&err, -code, "pages cannot be written to the store: %s",
		 code == -EPERM ? "it might lose them ('cistern store check' says why)" : strerror(-code));
	cis_pager_now(p);
	cis_trouble_tell(p, CIS_TROUBLE_PUT, &err);
	r->put_pause_ns = !r->put_pause_ns ? FIRST_WAIT_NS : r->put_pause_ns < MAX_WAIT_NS / 2 ? 2 * r->put_pause_ns : MAX_WAIT_NS;
	r->put_ns = p->now_ns + r->put_pause_ns;
}

static void done(struct cis_store_req *req, int code)
{
	struct cis_put *put = req->ctx;
	struct cis_pager *p = put->p;
	uint32_t generation = cis_word_generation(put->word);

	unlink_put(put);
	if (code) {
		refused(put, code);
	} else {
		p->stats->puts++;
		p->stats->bytes_put += req->len;
		p->reclaim.put_pause_ns = 0;
	}
	if (!code && !put->orphan) {
		cis_bit_clear(p->reclaim.unsure, put->pgno);
		cis_word_store(p, put->pgno, cis_word_make(CIS_PAGE_FAR, generation, req->loc));
		CIS_POINT(put_far);
	}
	if (!code || put->orphan)
		cis_stash_free(&p->reclaim.stash, put->loc);
	/* One that failed may lie there all the same; but by its key it may be found when it is put again. */
	if (put->orphan || (code && req->loc))
		cis_far_delete(p, put->pgno, generation, req->loc);
	free(put);
	p->reclaim.full_ns = 0;
	if (!p->running && p->o.stirred)
		p->o.stirred(p->o.ctx);
}

static const struct cis_value *next_value(struct cis_pager *p, uint64_t *ret_word)
{
	struct cis_reclaim *r = &p->reclaim;
	const struct cis_value *v;

	while ((v = cis_remote_next(p, &r->cursor, r->cursor_end, ret_word))) {
		r->held |= cis_word_flags(*ret_word) != 0; /* reclaim is at it still */
		if (cis_word_state(*ret_word) == CIS_PAGE_STASHED && !cis_word_flags(*ret_word))
			return v;
	}
	return NULL;
}

static bool next_segment(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;

	r->cursor = cis_stash_oldest(&r->stash);
	r->cursor_end = (r->cursor & ~(uint64_t)(CIS_STASH_SEGMENT - 1)) + CIS_STASH_SEGMENT;
	return r->cursor;
}

/* One that reclaim is at in part comes up again later.  Return: whether there is another one to look at now. */
static bool end_segment(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;
	bool held = r->held;

	if (held)
		cis_stash_requeue(&r->stash, (uint32_t)((r->cursor_end - CIS_LOG_UNIT) / CIS_LOG_UNIT));
	r->held = false;
	r->cursor = 0;
	return !held;
}

static struct cis_put *next_put(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;
	const struct cis_value *v = NULL;
	struct cis_put *put;
	uint64_t word;

	while ((r->cursor || next_segment(p)) && !(v = next_value(p, &word)))
		if (!end_segment(p))
			return NULL;
	put = v ? malloc(sizeof(*put)) : NULL;
	if (!put)
		return NULL;
	*put = (struct cis_put){ .p = p, .pgno = v->id >> 24, .word = word, .loc = cis_word_cookie(word), .next = r->puts };
	put->req = (struct cis_store_req){
		.op = CIS_STORE_PUT, .key = cis_page_key(p, put->pgno, cis_word_generation(word)), .buf = (void *)v,
		.len = cis_value_bytes(v), .deadline_ns = cis_read_deadline(p, p->now_ns), .done = done, .ctx = put,
	};
	r->puts = put;
	r->nr_puts++;
	r->put_bytes += put->req.len;
	cis_word_store(p, put->pgno, cis_word_make(CIS_PAGE_INFLIGHT, cis_word_generation(word), put->loc));
	CIS_POINT(put_inflight);
	return put;
}

/* Is there more in the stash than may stay? */
static bool is_wanted(const struct cis_pager *p)
{
	const struct cis_reclaim *r = &p->reclaim;

	return r->on && r->o.pages && !p->paused && !p->is_gone && r->nr_puts + A_BATCH <= PUTS_MAX &&
	       cis_stash_live((struct cis_stash *)&r->stash) > r->o.keep_bytes + r->put_bytes;
}

void cis_writeback_step(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;
	struct cis_store_req *reqs[A_BATCH];
	size_t n = 0;

	if (!is_wanted(p))
		return;
	cis_pager_now(p);
	if (r->put_ns > p->now_ns)
		return;
	r->put_ns = 0;
	if (!r->cursor && r->stash.head == r->stash.tail)
		cis_stash_seal(&r->stash);
	while (n < A_BATCH && r->o.keep_bytes + r->put_bytes < cis_stash_live(&r->stash)) {
		struct cis_put *put = next_put(p);

		if (!put)
			break;
		reqs[n++] = &put->req;
	}
	r->idle = !n;
	if (n)
		cis_store_submit(r->o.pages, reqs, n);
}

uint64_t cis_writeback_deadline(const struct cis_pager *p)
{
	const struct cis_reclaim *r = &p->reclaim;

	if (!is_wanted(p) || r->idle)
		return UINT64_MAX;
	return r->put_ns;
}

bool cis_writeback_quiesce(struct cis_pager *p)
{
	struct cis_put *put = p->reclaim.puts;

	while (put) {
		bool had = put->cancelled;

		put->cancelled = true;
		if (!had)
			cis_store_cancel(p->reclaim.o.pages, &put->req);
		put = had ? put->next : p->reclaim.puts; /* any may have ended */
	}
	return !p->reclaim.puts;
}
