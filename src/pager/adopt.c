/*
 * From one engine to the next: taking over the state of one that is gone, and standing still for one that takes over.
 *
 * What the dead engine was at between any two instructions is found in the words and in the ring (doc/design/002); all here
 * may be done twice, should this engine die too.
 */
#include <linux/userfaultfd.h>
#include <string.h>

#include "base/point.h"
#include "pager/internal.h"

/*
 * Every REMOVE in the ring: counted or not, its caller has been let go by the kernel, and no fault that came later was
 * answered before it was struck out.
 */
static void replay_removes(struct cis_pager *p)
{
	for (size_t i = 0; i < CIS_RING_SLOTS; i++) {
		struct uffd_msg *msg = &p->o.state.ring[i];

		if (msg->event != UFFD_EVENT_REMOVE)
			continue;
		cis_remove_mark(p, msg->arg.remove.start, msg->arg.remove.end);
		CIS_POINT(adopt_marked);
		__atomic_store_n(&msg->event, 0, __ATOMIC_RELEASE);
		CIS_POINT(adopt_struck);
	}
	CIS_POINT(adopt_replayed);
}

/* Whoever was installing BUSY ones is gone.  What was copied is there, and copying it again is refused. */
static void take_words(struct cis_pager *p)
{
	uint64_t nr[CIS_PAGE_STATES] = { 0 };

	for (uint64_t pgno = 0; pgno < p->nr_pages; pgno++) {
		enum cis_page_state state = cis_word_state(cis_word_load(p, pgno));

		if (state == CIS_PAGE_BUSY) {
			cis_page_set(p, pgno, CIS_PAGE_ABSENT, 0);
			state = CIS_PAGE_ABSENT;
			CIS_POINT(adopt_word);
		}
		nr[state]++;
	}
	memcpy(p->pages, nr, sizeof(p->pages));
	CIS_POINT(adopt_words);
}

int cis_adopt(struct cis_pager *p, struct cis_error *err)
{
	int rc;

	replay_removes(p);
	take_words(p);
	rc = cis_remote_adopt(p, err);
	if (rc)
		return rc;
	cis_ring_clear(&p->o.state); /* page faults: their threads fault again when they are woken */
	cis_state_set_generation(&p->o.state, p->generation);
	CIS_POINT(adopt_header);
	return 0;
}

void cis_pager_wake_all(struct cis_pager *p)
{
	for (size_t i = 0; i < p->nr_regions; i++) {
		p->o.os->wake(p->o.os_ctx, p->regions[i].hva, p->regions[i].bytes);
		CIS_POINT(adopt_woken);
	}
}

bool cis_pager_pause(struct cis_pager *p)
{
	__atomic_store_n(&p->paused, true, __ATOMIC_RELAXED); /* workers look at it */
	CIS_POINT(pause_asked);
	if (!(cis_remote_quiesce(p) & cis_fetch_quiesce(p)) || p->jobs_out || p->reclaim.jobs_out)
		return false;
	CIS_POINT(paused);
	return true;
}

void cis_pager_resume(struct cis_pager *p)
{
	if (!p->paused)
		return;
	__atomic_store_n(&p->paused, false, __ATOMIC_RELAXED);
	if (p->o.state.header->generation != p->generation) /* the other engine had begun to adopt it */
		cis_state_set_generation(&p->o.state, p->generation);
	cis_pager_wake_all(p);
	p->waiters_due = p->nr_deferred > 0;
	CIS_POINT(resumed);
}
