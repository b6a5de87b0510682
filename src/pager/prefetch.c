/*
 * Prefetching pages that were reclaimed: by the trend of faults, after Leap (Maruf and Chowdhury, ATC 2020).
 *
 * Leap looks for a majority among the steps between the last accesses of a process, in a window that grows until it finds one, and fetches as
 * many pages ahead as paid lately. Two things are different here. A guest has many threads, and faults do not say whose they are: so each fault belongs to
 * the trend whose last page is nearest. And Leap sees each access, as pages wait in a cache where they fault; ours are
 * installed and are not seen again. So the last page ahead is left out, as a probe: if it is asked for the trend was right, and twice as many come; if another one is due
 * before, half as many, down to none but the probe itself.
 */
#include <errno.h>

#include "pager/internal.h"

#define STEPS	   32u
#define LEAST	   4u /* steps of the first window */
#define WINDOW_MAX 64u
#define TRENDS	   8u
#define NEAR	   256u /* pages: further away another trend begins */

/* Boyer and Moore's vote among the last @n steps.  Return: the majority's, or 0. */
static int64_t majority(const struct cis_trend *t, unsigned n)
{
	int64_t is = 0;
	unsigned votes = 0, count = 0;

	for (unsigned i = 1; i <= n; i++) {
		int64_t step = t->step[(t->nr - i) % STEPS];

		if (!votes)
			is = step;
		votes += step == is ? 1 : -1u;
	}
	for (unsigned i = 1; i <= n; i++)
		count += t->step[(t->nr - i) % STEPS] == is;
	return count > n / 2 ? is : 0;
}

static int64_t trend_of(const struct cis_trend *t)
{
	unsigned most = t->nr < STEPS ? t->nr : STEPS;
	int64_t step = 0;

	for (unsigned n = LEAST; n <= most && !step; n *= 2)
		step = majority(t, n);
	return step;
}

static uint64_t distance(const struct cis_trend *t, uint64_t pgno)
{
	return pgno > t->last ? pgno - t->last : t->last - pgno;
}

/* The one that it belongs to; or the one that was used longest ago begins anew. */
static struct cis_trend *trend_at(struct cis_reclaim *r, uint64_t pgno)
{
	struct cis_trend *near = NULL, *old = r->trend;

	for (unsigned i = 0; i < TRENDS; i++) {
		struct cis_trend *t = &r->trend[i];

		if (t->used && distance(t, pgno) <= NEAR && (!near || distance(t, pgno) < distance(near, pgno)))
			near = t;
		if (t->used < old->used)
			old = t;
	}
	if (!near) {
		near = old;
		*near = (struct cis_trend){ .window = 1, .last = pgno };
	}
	near->used = ++r->trend_uses;
	return near;
}

/* What the fault tells: with what lies ahead brought, the step to a probe is the trend's own. */
static void learn(struct cis_pager *p, struct cis_trend *t, uint64_t pgno)
{
	int64_t step = (int64_t)(pgno - t->last);

	if (t->probe == pgno + 1) {
		t->probe = 0;
		p->stats->probe_hits++;
		t->window = t->window < WINDOW_MAX ? 2 * t->window : WINDOW_MAX;
		step = trend_of(t);
	}
	if (!step)
		return; /* the first one, or the same page again */
	t->step[t->nr++ % STEPS] = step;
	t->last = pgno;
}

static void leave_probe(struct cis_pager *p, struct cis_trend *t, uint64_t pgno)
{
	if (t->probe && t->window > 1) /* nobody came for it */
		t->window /= 2;
	t->probe = pgno + 1;
	p->stats->probes++;
}

static bool is_candidate(const struct cis_pager *p, const struct cis_region *r, uint64_t pgno)
{
	enum cis_page_state s = pgno < p->nr_pages && cis_region_of_page(p, pgno) == r ? cis_page_state_at(p, pgno) : CIS_PAGE_BUSY;

	return s == CIS_PAGE_STASHED || s == CIS_PAGE_INFLIGHT || s == CIS_PAGE_FAR;
}

/* Neighbours that are stashed come by one call. */
static uint64_t bring_run(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr)
{
	struct cis_error err;
	uint64_t n = 1, done;

	if (cis_page_state_at(p, pgno) == CIS_PAGE_FAR) {
		cis_fault_far(p, &(struct cis_fault){ .pgno = pgno });
		return 1;
	}
	while (n < nr && is_candidate(p, r, pgno + n) && cis_page_state_at(p, pgno + n) != CIS_PAGE_FAR)
		n++;
	if (cis_stash_bring(p, r, pgno, n, &done, &err) == -ESRCH)
		cis_pager_set_gone(p);
	p->stats->pages_prefetched += done;
	return done < n ? nr : n; /* something is in the way: enough */
}

void cis_prefetch(struct cis_pager *p, const struct cis_region *r, uint64_t pgno)
{
	uint64_t room, n = 0, at;
	struct cis_trend *t;
	int64_t step;

	if (!p->reclaim.o.prefetch || p->reclaim.o.sync)
		return;
	t = trend_at(&p->reclaim, pgno);
	learn(p, t, pgno);
	step = trend_of(t);
	room = cis_reclaim_room(p);
	if (!step || p->blocked_ns)
		return;
	while (n < t->window && n < room + 1 && is_candidate(p, r, pgno + (n + 1) * (uint64_t)step))
		n++;
	if (!n)
		return;
	leave_probe(p, t, pgno + n * (uint64_t)step);
	at = pgno + (uint64_t)step;
	for (uint64_t i = 1, did; i < n && !p->is_gone && !p->blocked_ns; i += did, at += did * (uint64_t)step)
		did = bring_run(p, r, at, step == 1 ? n - i : 1);
}
