/* Giving a guest to the kernel, which serves it alone from then on, and taking it back when it is to be reclaimed. */
#include <errno.h>
#include <string.h>

#include "pager/internal.h"

bool cis_pager_can_detach(const struct cis_pager *p)
{
	for (size_t i = 0; i < p->nr_regions; i++)
		if (p->regions[i].kind == CIS_KIND_PRIVATE)
			return false;
	return p->reclaim.budget == UINT64_MAX && !cis_pager_remote(p) && !cis_pager_far(p);
}

int cis_pager_detach(struct cis_pager *p)
{
	if (p->have < CIS_FILL_ALL || !cis_pager_can_detach(p))
		return -EBUSY;
	/*
	 * What is a hole becomes the guest's alone, which nobody tells of what it does to it: whoever takes over, or takes the guest
	 * back, must take it neither for ABSENT nor for zeros.
	 */
	for (uint64_t pgno = 0; pgno < p->nr_pages; pgno++)
		if (cis_page_state_at(p, pgno) == CIS_PAGE_ABSENT || cis_page_state_at(p, pgno) == CIS_PAGE_REMOVED)
			cis_page_set(p, pgno, CIS_PAGE_RESIDENT, 0);
	for (size_t i = 0; i < p->nr_regions; i++)
		p->o.os->unregister(p->o.os_ctx, p->regions[i].hva, p->regions[i].bytes);
	/*
	 * Whoever waited goes on by itself, and may write: zeros for a fault that was read before would undo that.  Late ones
	 * are only woken from now on.
	 */
	p->is_detached = true;
	p->nr_deferred = 0;
	p->nr_left = 0;
	cis_ring_drop(&p->o.state, cis_ring_used(&p->o.state));
	cis_pager_wake_all(p);
	return 0;
}

/* The kernel looks at each region by itself: those before the one that it refuses are given back, if they were its own. */
static void undo(struct cis_pager *p, size_t nr)
{
	for (size_t i = 0; i < nr && p->is_detached; i++)
		if (p->regions[i].view)
			p->o.os->unregister(p->o.os_ctx, p->regions[i].hva, p->regions[i].bytes);
}

int cis_attach(struct cis_pager *p, struct cis_error *err)
{
	for (size_t i = 0; i < p->nr_regions; i++) {
		const struct cis_region *r = &p->regions[i];
		int rc = r->view ? p->o.os->watch(p->o.os_ctx, r->hva, r->bytes, r->alias) : 0;

		if (!rc)
			continue;
		undo(p, i);
		return cis_fail(err, rc == -EINVAL ? EOPNOTSUPP : -rc, "region at offset %llu cannot be protected against writes: %s",
				(unsigned long long)r->offset, rc == -EINVAL ? "this kernel does not do that for shared memory" : strerror(-rc));
	}
	p->is_detached = false;
	return 0;
}
