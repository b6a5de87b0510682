/*
 * Emptying segments of the stash of which little is left, when room is short: what is left moves together (Rosenblum and Ousterhout
 * 1991).  The stash has room for half as much again as all pages can take, so while no limit is set there is always a segment that is
 * worth it.
 */
#include "base/point.h"
#include "pager/internal.h"

/* At each instant the word names one of two copies that are the same. */
static bool move(struct cis_pager *p, uint64_t pgno, uint64_t word)
{
	uint32_t from = cis_word_cookie(word), to = cis_stash_copy(&p->reclaim.stash, from);

	if (!to)
		return false;
	CIS_POINT(stash_copied);
	cis_page_set(p, pgno, CIS_PAGE_STASHED, to);
	CIS_POINT(stash_moved);
	cis_stash_free(&p->reclaim.stash, from);
	return true;
}

bool cis_clean(struct cis_pager *p)
{
	const struct cis_value *v;
	uint64_t at, end, word;
	bool any = false;

	if (!cis_stash_victim(&p->reclaim.stash, &at, &end))
		return false;
	while ((v = cis_remote_next(p, &at, end, &word))) {
		if (cis_word_state(word) != CIS_PAGE_STASHED || cis_word_flags(word))
			continue; /* a worker or a store is at it */
		if (!move(p, v->id >> 24, word))
			break;
		any = true;
	}
	return any;
}
