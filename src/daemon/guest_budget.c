/* A guest's budget: whether it can have one, and how it changes while the guest runs. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "daemon/guest_int.h"
#include "os/uffd.h"

uint64_t cis_guest_limit(const struct cis_guest *g)
{
	uint64_t limit = cis_budget_limit(&g->budget);

	return limit < g->share ? limit : g->share;
}

bool cis_guest_is_limited(const struct cis_guest *g)
{
	return cis_guest_limit(g) != UINT64_MAX;
}

struct cis_reclaim_opts cis_guest_reclaim_opts(const struct cis_guest *g)
{
	struct cis_reclaim_opts opts = cis_budget_opts(&g->budget);

	if (g->draining)
		opts.budget_pages = UINT64_MAX;
	else if (g->share != UINT64_MAX && g->share >> 12 < opts.budget_pages)
		opts.budget_pages = g->share >> 12;
	memcpy(opts.ns, g->ns, sizeof(opts.ns));
	return opts;
}

bool cis_guest_may_be_away(const struct cis_guest *g)
{
	return cis_guest_is_limited(g) || (*g->budget.pages && g->state_map.stash && cis_guest_may_be_reclaimed(g));
}

/* Why nothing of its memory can be reclaimed; NULL: it can, or nobody has connected yet. */
static const char *obstacle(const struct cis_guest *g)
{
	if (g->pinned)
		return "it is pinned: pages that a device or another process reaches must stay where they are";
	if (g->memory.uffd < 0)
		return NULL;
	if (g->memory.kind == CIS_KIND_ANONYMOUS)
		return "its memory is anonymous, and only shared memory can be reclaimed (a memfd that its monitor maps MAP_SHARED); of anonymous "
		       "memory the host's own swap can take pages, within a limit of its cgroup";
	if (g->memory.kind == CIS_KIND_PRIVATE)
		return "its memory is private, and only shared memory can be reclaimed (a memfd that its monitor maps MAP_SHARED)";
	if (g->page_shift != 12)
		return "its memory has pages of 2 MiB, and only pages of 4 KiB can be reclaimed";
	if (g->memory.can_shrink)
		return "its memfd cannot be sealed against shrinking, so the daemon cannot read from it";
	if (g->memory.features & UFFD_FEATURE_WP_ASYNC)
		return "its userfaultfd was opened for asynchronous write protection, with which a write could be lost";
	return NULL;
}

bool cis_guest_can_be_limited(const struct cis_guest *g)
{
	return g->memory.uffd >= 0 && !obstacle(g);
}

int cis_guest_check_budget(const struct cis_guest *g, struct cis_error *err)
{
	const char *why = cis_budget_limit(&g->budget) != UINT64_MAX ? obstacle(g) : NULL;

	return why ? cis_fail(err, EINVAL, "guest %s cannot have a budget: %s", g->id, why) : 0;
}

static int check_running(const struct cis_guest *g, struct cis_error *err)
{
	if (g->state == CIS_GUEST_GONE || g->leaving)
		return cis_fail(err, EINVAL, "guest %s is gone", g->id);
	if (!g->seat)
		return cis_fail(err, EINVAL, "guest %s is %s: its budget changes when it runs", g->id, cis_guest_shown_state(g));
	return g->draining ? cis_fail(err, EBUSY, "guest %s is being drained", g->id) : 0;
}

/* Tell its pager, if it has to know. */
static int apply(struct cis_guest *g, bool had, struct cis_error *err)
{
	struct cis_reclaim_opts opts = cis_guest_reclaim_opts(g);

	return had || cis_guest_may_be_away(g) ? cis_seat_reclaim(g->seat, &opts, g->budget.pages, err) : 0;
}

static void take(struct cis_guest *g, const struct cis_budget *budget, bool pinned)
{
	g->budget = *budget;
	g->pinned = pinned;
}

int cis_guest_change_budget(struct cis_guest *g, const struct cis_budget *budget, bool pinned, struct cis_error *err)
{
	struct cis_budget was = g->budget;
	uint64_t was_share = g->share;
	bool was_pinned = g->pinned, had = cis_guest_may_be_away(g);
	int rc = check_running(g, err);

	if (rc)
		return rc;
	take(g, budget, pinned);
	if (pinned)
		g->share = UINT64_MAX; /* it takes no part any more */
	rc = cis_guest_check_budget(g, err);
	if (!rc) {
		cis_guest_note_changed(g); /* before a page goes where an engine that follows would not look */
		rc = apply(g, had, err);
		if (rc) {
			take(g, &was, was_pinned);
			cis_guest_note_changed(g);
		}
	} else {
		take(g, &was, was_pinned);
	}
	if (rc) {
		g->share = was_share;
		return rc;
	}
	if (cis_guest_is_limited(g))
		cis_guest_depends(g);
	return 0;
}

int cis_guest_hold_to(struct cis_guest *g, uint64_t share, struct cis_error *err)
{
	bool had = cis_guest_may_be_away(g);
	uint64_t was = g->share;
	int rc;

	g->share = share;
	rc = apply(g, had, err);
	if (rc)
		g->share = was;
	else if (cis_guest_is_limited(g))
		cis_guest_depends(g);
	return rc;
}

void cis_guest_drains(struct cis_guest *g, bool yes)
{
	struct cis_error err;

	g->draining = yes;
	if (!g->seat || g->leaving || !cis_guest_is_limited(g))
		return;
	if (apply(g, true, &err))
		cis_log(CIS_LOG_ERROR, "guest=%s %s: %s", g->id, yes ? "keeps its budget" : "has no budget any more", err.text);
	else if (!yes)
		cis_guest_depends(g);
}
