/* Answering page faults from the page states. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/point.h"
#include "pager/internal.h"

#define AGAIN_NS      50000u	   /* the address space is changing: usually over at once; doubled up to 32 times */
#define MEMORY_NS     1000000u	   /* no memory now */
#define MEMORY_TRIES  2000u
#define STALL_NS      1000000000u

/* Somebody waited for it, and it came after all. */
static void unstall(struct cis_pager *p, uint64_t pgno)
{
	cis_bit_clear(p->stalled, pgno);
	if (p->reported)
		cis_bit_clear(p->reported, pgno);
	p->stats->recovered++;
	if (!--p->nr_stalled && p->o.recovered)
		p->o.recovered(p->o.ctx);
}

void cis_fault_answered(struct cis_pager *p, const struct cis_fault *f, uint64_t *class)
{
	if (!f->since_ns)
		return;
	if (p->stalled && cis_bit_test(p->stalled, f->pgno))
		unstall(p, f->pgno);
	++*class;
	if (class == &p->stats->faults_stashed || class == &p->stats->faults_far)
		__atomic_store_n(&p->refaults, p->refaults + 1, __ATOMIC_RELAXED);
	cis_hist_add(&p->stats->fault_ns, cis_pager_now(p) - f->since_ns);
}

bool cis_fault_waits(const struct cis_pager *p, uint64_t pgno)
{
	for (size_t i = 0; i < p->nr_deferred; i++)
		if (p->deferred[i].pgno == pgno)
			return true;
	return false;
}

static void defer(struct cis_pager *p, const struct cis_fault *f, uint64_t due_ns)
{
	p->stats->faults_deferred++;
	for (size_t i = 0; i < p->nr_deferred; i++)
		if (p->deferred[i].pgno == f->pgno) {
			if (due_ns < p->deferred[i].due_ns)
				p->deferred[i].due_ns = due_ns;
			if (!p->deferred[i].since_ns) /* the fill's until now */
				p->deferred[i].since_ns = f->since_ns;
			return;
		}
	if (p->nr_deferred == p->max_deferred) {
		size_t max = p->max_deferred ? 2 * p->max_deferred : 16;
		struct cis_deferred *more = realloc(p->deferred, max * sizeof(*more));

		if (!more) {
			/* Woken, the thread faults again and so comes back by itself. */
			p->o.os->wake(p->o.os_ctx, cis_hva_of_page(p, cis_region_of_page(p, f->pgno), f->pgno),
				    cis_page_bytes(p));
			return;
		}
		p->deferred = more;
		p->max_deferred = max;
	}
	p->deferred[p->nr_deferred++] = (struct cis_deferred){ f->pgno, f->since_ns, due_ns, f->tries };
}

void cis_fault_retry(struct cis_pager *p, bool job_over)
{
	size_t n = p->nr_deferred, i = 0;
	uint64_t now;

	/* A retry may read a chunk at once, whose end is one more reason to retry; but never from within. */
	p->waiters_due |= job_over;
	if (!n)
		p->waiters_due = false;
	if (!n || p->retrying || p->blocked_ns || p->paused)
		return;
	job_over = p->waiters_due;
	p->waiters_due = false;
	p->retrying = true;
	now = cis_pager_now(p);
	while (n-- && i < p->nr_deferred && !p->is_gone && !p->blocked_ns) {
		struct cis_deferred d = p->deferred[i];
		struct cis_fault f = { .pgno = d.pgno, .since_ns = d.since_ns, .tries = d.tries + 1 };

		if (d.due_ns > now && !(job_over && d.due_ns == UINT64_MAX)) {
			i++;
			continue;
		}
		memmove(&p->deferred[i], &p->deferred[i + 1], (--p->nr_deferred - i) * sizeof(d));
		if (d.due_ns == UINT64_MAX && cis_page_state_at(p, d.pgno) == CIS_PAGE_RESIDENT &&
		    !cis_region_of_page(p, d.pgno)->alias) /* where there is one, RESIDENT does not say mapped */
			cis_fault_answered(p, &f, &p->stats->faults_resident); /* installing it woke the thread */
		else
			cis_fault(p, &f); /* may put it off again, at the end of the list */
	}
	p->waiters_due |= job_over && p->blocked_ns;
	p->retrying = false;
}

uint64_t cis_fault_deadline(const struct cis_pager *p)
{
	uint64_t at = UINT64_MAX;

	for (size_t i = 0; i < p->nr_deferred; i++)
		if (p->deferred[i].due_ns < at)
			at = p->deferred[i].due_ns;
	return at;
}

/* Was poisoned before, so whoever decides knows; the marker has gone if the guest gave the range back unseen. */
static void poison_again(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r)
{
	uint64_t done, hva = cis_hva_of_page(p, r, f->pgno);

	p->o.os->poison(p->o.os_ctx, hva, cis_page_bytes(p), &done);
	p->o.os->wake(p->o.os_ctx, hva, cis_page_bytes(p));
}

/*
 * A page that fails again and again (stall, or a fill that comes back to it) is told once; without memory, each time.  That
 * somebody waits for it, or the guest is to be killed, is told though a fill may have told of the page before.
 */
static void report(struct cis_pager *p, const struct cis_fault *f, enum cis_outcome what, const struct cis_error *err)
{
	bool kill = what == CIS_OUTCOME_KILL && !p->kill_told;
	bool stalls = what == CIS_OUTCOME_STALL && (!p->stalled || !cis_bit_test(p->stalled, f->pgno));

	if (!p->reported)
		p->reported = calloc(cis_bitmap_words(p->nr_pages), sizeof(uint64_t));
	if (!p->reported || !cis_bit_test(p->reported, f->pgno))
		p->stats->faults_failed++;
	else if (!kill && !stalls)
		return;
	if (p->reported)
		cis_bit_set(p->reported, f->pgno);
	p->kill_told |= kill;
	p->o.failed(p->o.ctx, f->pgno, what == CIS_OUTCOME_KILL && !kill ? CIS_OUTCOME_STALL : what, err);
}

/* Until it can be produced, or the guest is gone: asked again once a second.  Without memory it is not counted. */
static void stall(struct cis_pager *p, const struct cis_fault *f)
{
	if (!p->stalled)
		p->stalled = calloc(cis_bitmap_words(p->nr_pages), sizeof(uint64_t));
	if (p->stalled && !cis_bit_test(p->stalled, f->pgno)) {
		cis_bit_set(p->stalled, f->pgno);
		p->nr_stalled++;
		p->stats->stalled++;
	}
	defer(p, f, cis_pager_now(p) + STALL_NS);
}

/* Nothing dies for a page that only the fill wants; whoever kills may fail to, and so it is tried again there too. */
static void kill_or_stall(struct cis_pager *p, const struct cis_fault *f, bool kill, const struct cis_error *err)
{
	bool dies = kill && p->o.can_kill && f->since_ns;

	report(p, f, dies ? CIS_OUTCOME_KILL : f->since_ns ? CIS_OUTCOME_STALL : CIS_OUTCOME_LEFT, err);
	if (dies)
		defer(p, f, cis_pager_now(p) + STALL_NS);
	else if (f->since_ns)
		stall(p, f);
}

static void poison(struct cis_pager *p, const struct cis_fault *f, const struct cis_error *err)
{
	const struct cis_region *r = cis_region_of_page(p, f->pgno);
	uint64_t word = cis_word_load(p, f->pgno), done;
	int rc = p->o.os->poison(p->o.os_ctx, cis_hva_of_page(p, r, f->pgno), cis_page_bytes(p), &done);

	CIS_POINT(page_poisoned);
	switch (rc) {
	case 0:
		cis_page_set(p, f->pgno, CIS_PAGE_POISONED, 0);
		cis_remote_forget(p, f->pgno, word);
		p->stats->poisoned++;
		report(p, f, CIS_OUTCOME_POISON, err);
		break;
	case -EEXIST: /* the guest has it, however that came */
		cis_page_set(p, f->pgno, CIS_PAGE_RESIDENT, 0);
		cis_remote_forget(p, f->pgno, word);
		p->o.os->wake(p->o.os_ctx, cis_hva_of_page(p, r, f->pgno), cis_page_bytes(p));
		break;
	case -EAGAIN:
	case -ESRCH:
	case -ENOENT:
		cis_fault_trouble(p, f, rc);
		break;
	default: /* this kernel has no UFFDIO_POISON */
		kill_or_stall(p, f, true, err);
	}
}

/* What the guest may never touch is not worth its life: the fill comes back to it later, and a touch decides. */
void cis_fault_fail(struct cis_pager *p, const struct cis_fault *f, const struct cis_error *err)
{
	if (p->o.policy == CIS_POLICY_POISON) {
		poison(p, f, err);
		return;
	}
	kill_or_stall(p, f, p->o.policy == CIS_POLICY_KILL, err);
}

void cis_fault_busy(struct cis_pager *p, const struct cis_fault *f, uint64_t due_ns)
{
	if (f->since_ns)
		defer(p, f, due_ns);
	else
		p->fill_busy = true;
}

void cis_fault_trouble(struct cis_pager *p, const struct cis_fault *f, int rc)
{
	const struct cis_region *r = cis_region_of_page(p, f->pgno);
	struct cis_error err;

	switch (rc) {
	case -EAGAIN: /* hazards 1 and 2: no further event may come, so time must bring it back, and not in a tight loop */
		p->stats->again++;
		p->blocked_ns = cis_pager_now(p) + AGAIN_NS;
		defer(p, f, cis_pager_now(p) + ((uint64_t)AGAIN_NS << (f->tries < 5 ? f->tries : 5)));
		return;
	case -ESRCH:
		cis_pager_set_gone(p);
		return;
	case -ENOENT: /* unmapped or unregistered meanwhile: nobody can wait there for us */
		p->o.os->wake(p->o.os_ctx, cis_hva_of_page(p, r, f->pgno), cis_page_bytes(p));
		return;
	case -EFAULT:
		/*
		 * A hole was punched between writing in place and mapping, by a thread whose REMOVE was read before: the kernel
		 * lets it go on at once, and it may be slow.  Who waits faults again, and gets zeros.
		 */
		if (r->alias) {
			p->o.os->wake(p->o.os_ctx, cis_hva_of_page(p, r, f->pgno), cis_page_bytes(p));
			return;
		}
		break;
	case -ENOMEM:
		if (f->tries < MEMORY_TRIES) {
			defer(p, f, cis_pager_now(p) + MEMORY_NS);
			return;
		}
	}
	cis_fail(&err, -rc, "page %llu: install: %s", (unsigned long long)f->pgno, strerror(-rc));
	cis_fault_fail(p, f, &err);
}

static void settle(struct cis_pager *p, const struct cis_fault *f, uint64_t done, int rc, uint64_t *class)
{
	if (done)
		cis_fault_answered(p, f, class);
	else
		cis_fault_trouble(p, f, rc);
}

/* Never BUSY meanwhile: after a crash that would mean ABSENT, and the image's content would come back. */
static void fault_removed(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r)
{
	uint64_t done = 0;
	int rc = cis_install_zero(p, r, f->pgno, 1, p->o.scratch->zero, &done);

	p->stats->pages_zero += done;
	cis_reclaim_list(p, f->pgno, 1);
	settle(p, f, done, rc, &p->stats->faults_removed);
}

/* Should the page be gone after all, its copy in the store is not what the guest has any more. */
static void fault_clean(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r)
{
	uint64_t word = cis_word_load(p, f->pgno), hva = cis_hva_of_page(p, r, f->pgno), done;
	int rc = p->o.os->zero(p->o.os_ctx, hva, cis_page_bytes(p), &done);

	if (rc == -EEXIST) {
		p->o.os->wake(p->o.os_ctx, hva, cis_page_bytes(p));
		rc = 0;
	} else if (!rc) {
		cis_page_set(p, f->pgno, CIS_PAGE_RESIDENT, 0);
		CIS_POINT(page_dirty);
		cis_remote_forget(p, f->pgno, word);
	}
	settle(p, f, !rc, rc, &p->stats->faults_resident);
}

/*
 * The page is there as far as we know.  Either the fault is late (another thread's was answered first), or the page was
 * dropped without an event, by a VMM that asks for none (hazard 7) or a hole punched into the memfd (hazard 8).  A wake alone
 * would loop for ever in the second case, so zeros are offered: if the page is there the kernel refuses them.
 *
 * A page that is in the memfd but not in the page table (its host reclaimed the mapping, the guest dropped that alone, or it was
 * not mapped yet) faults as minor, and is mapped as it is.  But never a private region's base where the guest had zeros.
 */
static void fault_resident(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r)
{
	bool zero = r->kind == CIS_KIND_PRIVATE && cis_word_cookie(cis_word_load(p, f->pgno)) == CIS_RESIDENT_ZERO;
	uint64_t done = 0;
	int rc = -EFAULT;

	if (!zero && (r->alias || f->minor))
		rc = cis_install_map(p, r, f->pgno, 1, &done);
	if (rc == -EFAULT) /* not in the memfd either */
		rc = cis_install_zero(p, r, f->pgno, 1, p->o.scratch->zero, &done);
	else if (done && cis_page_state_at(p, f->pgno) == CIS_PAGE_REMOVED)
		cis_page_set(p, f->pgno, CIS_PAGE_RESIDENT, 0);
	cis_reclaim_list(p, f->pgno, 1);
	settle(p, f, done, rc, &p->stats->faults_resident);
}

bool cis_page_is_zero(const struct cis_pager *p, const struct cis_region *r, uint64_t pgno)
{
	struct cis_page_loc loc;

	if (pgno << p->page_shift < r->offset || pgno << p->page_shift >= r->offset + r->bytes)
		return false;
	if (cis_page_state_at(p, pgno) != CIS_PAGE_ABSENT)
		return false;
	cis_image_locate(p->image, pgno, &loc);
	return loc.cls == CIS_CLASS_ZERO;
}

/* Zero pages cost almost nothing in a run, and a fault saved is worth many of them; but only where they take no memory. */
static void zero_run(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t *ret_first,
		     uint64_t *ret_nr)
{
	uint64_t window = pgno & ~(uint64_t)(CIS_NEIGHBOUR_ZEROS - 1), first = pgno, end = pgno + 1;

	if (p->o.neighbours && !p->seen && !r->huge && !(r->kind == CIS_KIND_SHARED)) { /* so none that a budget counts */
		while (first > window && cis_page_is_zero(p, r, first - 1))
			first--;
		while (end < window + CIS_NEIGHBOUR_ZEROS && cis_page_is_zero(p, r, end))
			end++;
	}
	*ret_first = first;
	*ret_nr = end - first;
}

int cis_zeros_bring(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, uint64_t *ret_done)
{
	int rc;

	for (uint64_t i = 0; i < nr; i++)
		cis_page_claim(p, pgno + i, 0);
	rc = cis_install_zero(p, r, pgno, nr, p->o.scratch->zero, ret_done);
	for (uint64_t i = 0; i < nr; i++)
		cis_page_give_back(p, pgno + i, 0);
	p->stats->pages_zero += *ret_done;
	cis_reclaim_list(p, pgno, nr);
	return rc;
}

static void fault_zero(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r)
{
	uint64_t first, nr, done = 0;
	int rc;

	zero_run(p, r, f->pgno, &first, &nr);
	rc = cis_zeros_bring(p, r, first, nr, &done);
	if (rc == -ENOENT && f->pgno >= first + done && nr > 1) { /* a neighbour that is not registered any more */
		first = f->pgno;
		rc = cis_zeros_bring(p, r, first, 1, &done);
	}
	settle(p, f, f->pgno < first + done, rc, &p->stats->faults_zero);
}

static void fault_same(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r, uint64_t word)
{
	uint64_t *raw = (uint64_t *)p->o.scratch->raw, done = 0;
	int rc;

	for (size_t i = 0; i < cis_page_bytes(p) / sizeof(word); i++)
		raw[i] = word;
	cis_page_claim(p, f->pgno, 0);
	rc = cis_install_run(p, r, f->pgno, 1, p->o.scratch->raw, 0, &done);
	cis_page_give_back(p, f->pgno, 0);
	*(f->since_ns ? &p->stats->pages_demand : &p->stats->pages_filled) += done;
	cis_reclaim_list(p, f->pgno, 1);
	settle(p, f, done, rc, &p->stats->faults_same);
}

/*
 * A page of a private region's base that is in the memfd already, brought in for another clone, is read, verified and written
 * all the same: that it is there says neither that all of it is, nor that its checksum was right.  The bytes are the same,
 * so clones that have it mapped see no change.
 */
static void fault_absent(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r)
{
	struct cis_page_loc loc;

	cis_image_locate(p->image, f->pgno, &loc);
	if (loc.cls == CIS_CLASS_ZERO)
		fault_zero(p, f, r);
	else if (loc.cls == CIS_CLASS_SAME)
		fault_same(p, f, r, loc.word);
	else
		cis_fetch_start(p, f, &loc);
}

void cis_fault(struct cis_pager *p, const struct cis_fault *f)
{
	const struct cis_region *r = cis_region_of_page(p, f->pgno);

	if (f->since_ns)
		cis_record_touch(p, f->pgno);
	if (f->since_ns && !f->tries)
		cis_hist_add(&p->stats->queue_ns, p->now_ns - f->since_ns);
	if (p->blocked_ns && cis_page_state_at(p, f->pgno) != CIS_PAGE_BUSY) {
		defer(p, f, p->blocked_ns);
		return;
	}
	if (!cis_word_resident(cis_word_load(p, f->pgno)) && cis_page_state_at(p, f->pgno) != CIS_PAGE_FAR)
		cis_reclaim_make_room(p, 1);
	switch (cis_page_state_at(p, f->pgno)) {
	case CIS_PAGE_ABSENT:
		fault_absent(p, f, r);
		break;
	case CIS_PAGE_STASHED:
	case CIS_PAGE_INFLIGHT:
		cis_fault_stashed(p, f, r);
		break;
	case CIS_PAGE_FAR:
		cis_fault_far(p, f);
		/* While it is on its way (FluidMem's ASYNCREAD), should it be. */
		cis_reclaim_make_room(p, cis_word_flags(cis_word_load(p, f->pgno)) == CIS_WORD_COMING);
		break;
	case CIS_PAGE_BUSY: /* whoever has it wakes this thread too; should the page be given up instead, we are asked again */
		defer(p, f, UINT64_MAX);
		break;
	case CIS_PAGE_RESIDENT:
	case CIS_PAGE_CLEAN:
		if (f->protected)
			cis_fault_protected(p, f, r);
		else if (cis_page_state_at(p, f->pgno) == CIS_PAGE_CLEAN)
			fault_clean(p, f, r);
		else
			fault_resident(p, f, r);
		break;
	case CIS_PAGE_REMOVED:
		/* Copied memory that is in its memfd still was dropped from the page table alone: it stays what it is. */
		if (f->minor && !r->alias)
			fault_resident(p, f, r);
		else
			fault_removed(p, f, r);
		break;
	case CIS_PAGE_POISONED:
	case CIS_PAGE_STATES:
		poison_again(p, f, r);
	}
}
