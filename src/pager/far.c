/*
 * Pages that are in the store: read for faults, deleted when nobody wants them any more.
 *
 * A page that is read for a read comes write-protected, CLEAN: while it is, the store's copy stays right, and to reclaim it again costs no copy
 * and no put.  The first write ends that (cis_fault_protected()).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/point.h"
#include "pager/internal.h"

#define GETS_MAX	64u
#define FIRST_RETRY_NS	10000000u /* then 2, 4, ... up to 64 times as long */
#define BUSY_NS		1000000u
#define DELETE_NS	5000000000u
#define DELETES_A_BATCH 64u
#define DELETES_MAX	1024u /* of those under way; what comes beyond waits */

static void stirred(struct cis_pager *p)
{
	if (!p->running && p->o.stirred)
		p->o.stirred(p->o.ctx);
}

/* Gets. */

static void unlink_get(struct cis_get *g)
{
	struct cis_get **at = &g->p->reclaim.gets;

	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	g->p->reclaim.nr_gets--;
}

static bool is_wanted(const struct cis_get *g)
{
	return cis_word_load(g->p, g->pgno) == (g->word | CIS_WORD_COMING);
}

static void end(struct cis_get *g)
{
	struct cis_pager *p = g->p;

	if (is_wanted(g)) /* it has not come */
		cis_word_store(p, g->pgno, g->word);
	unlink_get(g);
	free(g);
	cis_fault_retry(p, true);
}

static void fail(struct cis_get *g, const struct cis_error *err)
{
	struct cis_fault f = { .pgno = g->pgno, .since_ns = g->since_ns, .tries = g->tries };
	struct cis_pager *p = g->p;

	cis_word_store(p, g->pgno, g->word);
	cis_fault_fail(p, &f, err);
	end(g);
}

/* The store may be away for a while; that it has lost the page, or has another in its place, is for ever. */
static void trouble(struct cis_get *g, int code, const struct cis_error *err)
{
	struct cis_pager *p = g->p;

	if (p->is_gone || code == -ECANCELED || !is_wanted(g)) {
		end(g);
		return;
	}
	p->stats->errors_get++;
	cis_pager_now(p);
	if (code == -ENOENT || (code == -EBADMSG && g->tries + 1 >= p->o.tries) ||
	    p->now_ns - g->begun_ns >= p->o.store_deadline_ns) {
		fail(g, err);
		return;
	}
	cis_trouble_tell(p, CIS_TROUBLE_FAULT, err);
	p->stats->retries++;
	g->retry_ns = p->now_ns + ((uint64_t)FIRST_RETRY_NS << (g->tries < 6 ? g->tries : 6));
	g->tries++;
}

static void install(struct cis_get *g, const char *raw)
{
	struct cis_pager *p = g->p;
	const struct cis_region *r = cis_region_of_page(p, g->pgno);
	struct cis_fault f = { .pgno = g->pgno, .since_ns = g->since_ns, .tries = g->tries };
	bool clean = !g->write && !r->alias;
	uint64_t done = 0;
	int rc;

	rc = clean ? cis_install_clean(p, r, g->pgno, raw, &done)
		   : cis_install_run(p, r, g->pgno, 1, raw, cis_word_cookie(g->word), &done);
	CIS_POINT(far_come);
	if (rc == -EEXIST) { /* the guest has it, however that came: whatever protection it has */
		cis_page_set(p, g->pgno, CIS_PAGE_RESIDENT, 0);
		p->o.os->wake(p->o.os_ctx, cis_hva_of_page(p, r, g->pgno), cis_page_bytes(p));
		done = 1;
	}
	if (cis_word_state(cis_word_load(p, g->pgno)) == CIS_PAGE_RESIDENT)
		cis_remote_forget(p, g->pgno, g->word);
	cis_reclaim_list(p, g->pgno, 1);
	if (done && g->since_ns)
		cis_reclaim_came_back(p, g->pgno, ((const struct cis_value *)g->value)->seq);
	if (done) {
		cis_fault_answered(p, &f, &p->stats->faults_far);
		p->stats->pages_prefetched += !g->since_ns;
		return;
	}
	if (is_wanted(g))
		cis_word_store(p, g->pgno, g->word);
	cis_fault_trouble(p, &f, rc);
}

static int unpack(struct cis_get *g, struct cis_error *err)
{
	struct cis_pager *p = g->p;
	const struct cis_value *v = (const struct cis_value *)g->value;
	struct cis_decoder *dec = cis_scratch_decoder(p->o.scratch, NULL);

	if (!dec)
		return cis_fail(err, ENOMEM, "page %llu: no memory for a decoder", (unsigned long long)g->pgno);
	if (cis_value_check(v, g->req.key.id, g->req.got) || cis_value_unpack(v, dec, p->o.scratch->raw))
		return cis_fail(err, EBADMSG, "page %llu: what the store has is not what was stored", (unsigned long long)g->pgno);
	return 0;
}

static void arrived(struct cis_get *g, int code)
{
	struct cis_pager *p = g->p;
	struct cis_error err;

	if (code)
		cis_fail(&err, -code, "page %llu: %s", (unsigned long long)g->pgno,
			 code == -ENOENT     ? "the store has lost it"
			 : code == -ENOTCONN ? "the store cannot be opened"
					     : strerror(-code));
	else
		code = unpack(g, &err);
	if (code) {
		trouble(g, code, &err);
		return;
	}
	p->stats->gets++;
	p->stats->bytes_got += g->req.got;
	if (!p->is_gone && is_wanted(g))
		install(g, p->o.scratch->raw);
	end(g);
}

static void got(struct cis_store_req *req, int code)
{
	struct cis_get *g = req->ctx;
	struct cis_pager *p = g->p;

	arrived(g, code);
	stirred(p);
}

static void submit(struct cis_get *g)
{
	struct cis_pager *p = g->p;
	struct cis_store_req *req = &g->req;

	g->retry_ns = 0;
	g->req = (struct cis_store_req){
		.op = CIS_STORE_GET, .key = cis_page_key(p, g->pgno, cis_word_generation(g->word)), .loc = cis_word_cookie(g->word),
		.buf = g->value, .len = sizeof(g->value), .deadline_ns = cis_read_deadline(p, p->now_ns), .done = got, .ctx = g,
	};
	if (p->reclaim.o.pages)
		cis_store_submit(p->reclaim.o.pages, &req, 1);
	else
		got(req, -ENOTCONN);
}

void cis_fault_far(struct cis_pager *p, const struct cis_fault *f)
{
	struct cis_reclaim *r = &p->reclaim;
	struct cis_get *g = r->nr_gets < GETS_MAX ? malloc(sizeof(*g)) : NULL;

	if (!g) {
		cis_fault_busy(p, f, r->nr_gets ? UINT64_MAX : cis_pager_now(p) + BUSY_NS);
		return;
	}
	g->p = p;
	g->pgno = f->pgno;
	g->word = cis_word_load(p, f->pgno);
	g->since_ns = f->since_ns;
	g->begun_ns = p->now_ns;
	g->tries = f->tries;
	g->write = f->write;
	g->cancelled = false;
	g->next = r->gets;
	r->gets = g;
	r->nr_gets++;
	cis_word_store(p, f->pgno, g->word | CIS_WORD_COMING);
	CIS_POINT(far_coming);
	submit(g);
	if (f->since_ns && !f->tries)
		cis_prefetch(p, cis_region_of_page(p, f->pgno), f->pgno);
}

void cis_far_retry(struct cis_pager *p)
{
	struct cis_get *g = p->reclaim.gets;

	if (!g || p->paused)
		return;
	cis_pager_now(p);
	while (g) {
		bool due = g->retry_ns && g->retry_ns <= p->now_ns;

		if (due)
			submit(g);
		g = due ? p->reclaim.gets : g->next; /* any may have ended */
	}
}

uint64_t cis_far_deadline(const struct cis_pager *p)
{
	uint64_t at = UINT64_MAX;

	for (const struct cis_get *g = p->reclaim.gets; g; g = g->next)
		if (g->retry_ns && g->retry_ns < at)
			at = g->retry_ns;
	return at;
}

/* Deletes. */

static void deleted(struct cis_store_req *req, int code)
{
	struct cis_delete *d = req->ctx;
	struct cis_pager *p = d->p;

	p->stats->deletes += !code;
	p->reclaim.nr_deleting--;
	p->reclaim.forget_failed |= code && code != -ENOENT && p->reclaim.forget_at;
	free(d);
	stirred(p);
}

static void submit_deletes(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;
	struct cis_store_req *reqs[DELETES_A_BATCH];
	size_t n = 0;

	while (r->dels && n < DELETES_A_BATCH) {
		struct cis_delete *d = r->dels;

		r->dels = d->next;
		r->nr_dels--;
		r->nr_deleting++;
		d->req.deadline_ns = cis_pager_now(p) + DELETE_NS;
		reqs[n++] = &d->req;
	}
	if (!n)
		return;
	CIS_POINT(far_deleting);
	cis_store_submit(r->o.pages, reqs, n);
}

void cis_far_flush(struct cis_pager *p)
{
	while (p->reclaim.dels && p->reclaim.nr_deleting < DELETES_MAX)
		submit_deletes(p);
}

/* Return: false: there is no memory for it, or no store at hand. */
static bool push_delete(struct cis_pager *p, enum cis_store_op op, struct cis_key key, uint32_t loc)
{
	struct cis_reclaim *r = &p->reclaim;
	struct cis_delete *d = r->o.pages ? malloc(sizeof(*d)) : NULL;

	if (!d)
		return false;
	d->p = p;
	d->req = (struct cis_store_req){ .op = op, .key = key, .loc = loc, .done = deleted, .ctx = d };
	d->next = r->dels;
	r->dels = d;
	r->nr_dels++;
	return true;
}

/* A copy that cannot be deleted stays until its namespace goes. */
void cis_far_delete(struct cis_pager *p, uint64_t pgno, uint32_t generation, uint32_t loc)
{
	push_delete(p, CIS_STORE_DELETE, cis_page_key(p, pgno, generation), loc);
}

/* Beginnings and ends. */

bool cis_pager_part(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;

	if (r->gets || r->puts || r->dels || r->nr_deleting)
		return false;
	r->o.pages = NULL;
	return true;
}

int cis_far_claim(struct cis_pager *p, struct cis_error *err)
{
	for (uint64_t pgno = 0; pgno < p->nr_pages; pgno++) {
		uint64_t word = cis_word_load(p, pgno);
		struct cis_key key = cis_page_key(p, pgno, cis_word_generation(word));
		int rc;

		if (cis_word_state(word) != CIS_PAGE_FAR && cis_word_state(word) != CIS_PAGE_CLEAN)
			continue;
		rc = cis_store_claim(p->reclaim.o.pages, &key, cis_word_cookie(word));
		if (rc && rc != -ENOENT) /* lost ones are told of when they are touched */
			return cis_fail(err, -rc, "page %llu: is in the store, which cannot be looked at: %s", (unsigned long long)pgno,
					strerror(-rc));
	}
	return 0;
}

bool cis_far_quiesce(struct cis_pager *p)
{
	struct cis_get *g = p->reclaim.gets;

	while (g) {
		bool had = g->cancelled;

		g->cancelled = true;
		if (!had && g->retry_ns)
			end(g);
		else if (!had)
			cis_store_cancel(p->reclaim.o.pages, &g->req);
		g = had ? g->next : p->reclaim.gets; /* any may have ended */
	}
	cis_far_flush(p);
	return !p->reclaim.gets && !p->reclaim.dels && !p->reclaim.nr_deleting;
}

bool cis_pager_moved(struct cis_pager *p, const struct cis_key *key, uint32_t from, uint32_t to)
{
	uint64_t pgno = key->id >> 24, word = pgno < p->nr_pages ? cis_word_load(p, pgno) : 0;
	enum cis_page_state state = cis_word_state(word);

	if ((state != CIS_PAGE_FAR && state != CIS_PAGE_CLEAN) || cis_word_flags(word) || cis_word_cookie(word) != from ||
	    cis_word_generation(word) != (key->id & 0xffffff))
		return false;
	cis_page_set(p, pgno, state, to);
	return true;
}

static void drop_deletes(struct cis_reclaim *r)
{
	while (r->dels) {
		struct cis_delete *d = r->dels;

		r->dels = d->next;
		r->nr_dels--;
		free(d);
	}
}

static void forget_page(struct cis_pager *p, uint64_t pgno)
{
	uint64_t word = cis_word_load(p, pgno);

	if (cis_word_state(word) == CIS_PAGE_FAR || cis_word_state(word) == CIS_PAGE_CLEAN)
		cis_remote_forget(p, pgno, word);
	else if (cis_word_state(word) == CIS_PAGE_STASHED)
		cis_writeback_undo(p, pgno, cis_word_generation(word));
}

static void forget_part(struct cis_pager *p, uint64_t part)
{
	struct cis_reclaim *r = &p->reclaim;

	if (!push_delete(p, CIS_STORE_DROP, (struct cis_key){ { r->o.ns[0], r->o.ns[1] }, part }, 0))
		r->forget_failed = true;
}

/* Return: whether any is under way. */
static bool delete_all(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;
	unsigned parts = r->o.pages->ops->drops;
	uint64_t end = parts ? parts : p->nr_pages;

	while (r->forget_at < end && r->nr_dels + r->nr_deleting < DELETES_MAX) {
		uint64_t at = r->forget_at++;

		if (parts)
			forget_part(p, at);
		else
			forget_page(p, at);
	}
	cis_far_flush(p);
	return r->forget_at < end || r->nr_dels || r->nr_deleting;
}

int cis_pager_forget_far(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;

	if (!r->o.pages)
		return cis_pager_far(p) ? -ENOTCONN : 0;
	if (r->o.pages->ops->drop) {
		if (!r->forget_at)
			r->o.pages->ops->drop(r->o.pages, r->o.ns);
		r->forget_at = 1;
		return 0;
	}
	if (!r->forget_failed)
		return delete_all(p) ? -EAGAIN : 0;
	drop_deletes(r);
	return r->nr_deleting ? -EAGAIN : -EIO;
}
