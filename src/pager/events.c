/* Reading userfault events, in the order that keeps removed pages removed. */
#include <errno.h>
#include <string.h>

#include "base/point.h"
#include "pager/internal.h"

#define BATCH	 256u	/* events read at once */
#define SLICE_NS 40000u /* of faults a run, and then the one at hand: what other guests of the shard may have to wait */

/* Return: 0, or 1 when the gate stays shut until the REMOVEs are marked, or -errno; @ret_full: there may be more. */
static int read_batch(struct cis_pager *p, size_t *ret_n, bool *ret_full)
{
	size_t max;
	struct uffd_msg *room = cis_ring_room(&p->o.state, &max);
	bool shut = p->jobs_out > 0;
	int rc;

	if (cis_ring_used(&p->o.state) >= BATCH)
		return -EAGAIN; /* the last slices have left enough to do */
	if (max > BATCH)
		max = BATCH;
	if (shut)
		pthread_rwlock_wrlock(&p->gate);
	rc = p->o.os->read(p->o.os_ctx, room, max, ret_n);
	if (rc) {
		if (shut)
			pthread_rwlock_unlock(&p->gate);
		return rc;
	}
	CIS_POINT(ring_read);
	cis_ring_commit(&p->o.state, *ret_n);
	CIS_POINT(ring_committed);
	*ret_full = *ret_n == max;
	return shut;
}

static void remove_page(struct cis_pager *p, uint64_t pgno)
{
	uint64_t word = cis_word_load(p, pgno);

	/* A worker that is at it may have the hole punched late, so the page stays HELD until it has let go. */
	unsigned held = cis_word_flags(word) & CIS_WORD_HELD;

	cis_word_store(p, pgno, cis_word_make(CIS_PAGE_REMOVED | held, cis_word_generation(word) + 1, 0));
	p->stats->pages_removed++;
	CIS_POINT(remove_page);
	cis_remote_forget(p, pgno, word);
}

/* The part of [start, end) in each region; whole pages only, as the kernel gives them back. */
void cis_remove_mark(struct cis_pager *p, uint64_t start, uint64_t end)
{
	p->stats->removes++;
	for (size_t i = 0; i < p->nr_regions; i++) {
		const struct cis_region *r = &p->regions[i];
		uint64_t from = start > r->hva ? start : r->hva;
		uint64_t to = end < r->hva + r->bytes ? end : r->hva + r->bytes;

		if (from >= to)
			continue;
		uint64_t first = (from - r->hva + r->offset + cis_page_bytes(p) - 1) >> p->page_shift;
		uint64_t last = (to - r->hva + r->offset) >> p->page_shift;

		for (uint64_t pgno = first; pgno < last; pgno++)
			remove_page(p, pgno);
	}
}

/* A thread that waits for a page whose content is now another has to fault again. */
static void wake(struct cis_pager *p, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < p->nr_regions; i++) {
		const struct cis_region *r = &p->regions[i];
		uint64_t from = start > r->hva ? start : r->hva;
		uint64_t to = end < r->hva + r->bytes ? end : r->hva + r->bytes;

		if (from < to)
			p->o.os->wake(p->o.os_ctx, from, to - from);
	}
}

/*
 * read() hands out page faults before REMOVE events whatever their real order (hazard 3b), so all REMOVEs of the ring are
 * acted on before any fault.  Each is struck out at once: replayed after a fault that came later, it would be wrong.
 */
static void act_on_removes(struct cis_pager *p)
{
	for (uint64_t i = 0; i < cis_ring_used(&p->o.state); i++) {
		struct uffd_msg *msg = cis_ring_at(&p->o.state, i);

		if (msg->event != UFFD_EVENT_REMOVE)
			continue;
		cis_remove_mark(p, msg->arg.remove.start, msg->arg.remove.end);
		CIS_POINT(remove_marked);
		wake(p, msg->arg.remove.start, msg->arg.remove.end);
		CIS_POINT(remove_woken);
		__atomic_store_n(&msg->event, 0, __ATOMIC_RELEASE);
		CIS_POINT(remove_struck);
	}
}

/*
 * As many as a slice has time for; the rest stays in the ring for the next run.  A REMOVE that is read meanwhile is acted on
 * before them, which is right: its page is then another for them too.
 */
static void act_on_faults(struct cis_pager *p, uint64_t start_ns)
{
	uint64_t n = cis_ring_used(&p->o.state), i;

	if (!p->nr_left)
		p->left_ns = start_ns;
	for (i = 0; i < n && !p->is_gone && p->now_ns - start_ns < SLICE_NS; i++) {
		const struct uffd_msg *msg = cis_ring_at(&p->o.state, i);
		struct cis_fault f = { .since_ns = i < p->nr_left ? p->left_ns : start_ns };

		if (msg->event != UFFD_EVENT_PAGEFAULT)
			continue;
		if (!cis_region_of_hva(p, msg->arg.pagefault.address, &f.pgno))
			continue; /* not ours: nothing is registered there by the handshake */
		if (p->is_detached) { /* it began to wait while the kernel took the region away, which wakes before it does so */
			p->o.os->wake(p->o.os_ctx, msg->arg.pagefault.address & ~(cis_page_bytes(p) - 1), cis_page_bytes(p));
			continue;
		}
		f.minor = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR;
		f.write = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
		f.protected = msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP;
		cis_fault(p, &f);
		CIS_POINT(fault_acted);
	}
	cis_ring_drop(&p->o.state, p->is_gone ? n : i);
	p->slice_events = (unsigned)i;
	if (i)
		p->faulted_ns = start_ns;
	if (i >= p->nr_left)
		p->left_ns = start_ns;
	p->nr_left = p->is_gone ? 0 : n - i;
}

static bool run(struct cis_pager *p)
{
	bool full = false;
	size_t n = 0;
	uint64_t start;
	int rc;

	p->slice_events = 0;
	p->slice_ns = 0;
	rc = read_batch(p, &n, &full);
	p->blocked_ns = 0;
	start = rc >= 0 || p->nr_left ? cis_pager_now(p) : p->now_ns;
	if (rc >= 0)
		act_on_removes(p);
	if (rc == 1)
		pthread_rwlock_unlock(&p->gate);
	if (rc >= 0 || p->nr_left)
		act_on_faults(p, start);
	if (rc < 0 && rc != -EAGAIN && rc != -EINTR) {
		cis_pager_set_gone(p);
		return false;
	}
	cis_fault_retry(p, false);
	cis_fetch_retry(p);
	cis_fill_sweep(p);
	cis_reclaim_step(p);
	cis_far_retry(p);
	cis_writeback_step(p);
	cis_far_flush(p);
	if (p->now_ns != start)
		p->slice_ns = cis_pager_now(p) - start;
	return full || p->nr_left || (p->waiters_due && !p->blocked_ns);
}

void cis_pager_slice(const struct cis_pager *p, uint64_t *ret_ns, unsigned *ret_events)
{
	*ret_ns = p->slice_ns;
	*ret_events = p->slice_events;
}

bool cis_pager_run(struct cis_pager *p)
{
	bool more = false;

	p->running = true;
	if (!p->is_gone && !p->paused)
		more = run(p);
	p->running = false;
	return more;
}

uint64_t cis_pager_deadline(const struct cis_pager *p)
{
	uint64_t at = cis_fault_deadline(p), fetch = cis_fetch_deadline(p), fill = cis_fill_deadline(p);
	uint64_t reclaim = cis_reclaim_deadline(p);

	if (p->paused)
		return UINT64_MAX;
	if (p->waiters_due && p->blocked_ns < at)
		at = p->blocked_ns; /* 0: at once */
	if (fetch < at)
		at = fetch;
	if (reclaim < at)
		at = reclaim;
	reclaim = cis_far_deadline(p);
	if (reclaim < at)
		at = reclaim;
	reclaim = cis_writeback_deadline(p);
	if (reclaim < at)
		at = reclaim;
	return fill < at ? fill : at;
}
