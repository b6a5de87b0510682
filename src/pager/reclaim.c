/*
 * Budgets: how many pages of a guest may be resident, and which of them go.
 *
 * Pages go in the order in which they came.  That is what FluidMem's list does too (systems.md 4.b): nothing outside of a guest sees which
 * pages it reads.
 *
 * What is seen is which pages come back, and how many others went meanwhile.  A page that comes back sooner than all that is resident
 * could go would have stayed, had something else gone instead: that is the refault distance of Linux's workingset.c (Johannes Weiner), by which it makes pages
 * active.  Here such a page stays in the list for one turn more each time that this happens to it, up to CHANCES.  So the cost of finding out is
 * a fault once in several turns, and a scan, whose pages never come back, does not push the others out.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/point.h"
#include "pager/internal.h"

#define FULL_NS	      100000000u /* the stash had no room */
#define TAKEN_NS      500000000u /* after a guest was taken back from the kernel */
#define SCAN_PAGES    65536u	 /* looked at in one step, 50 us */
#define DROP_PAGES    1024u	 /* given back in one, up to 1 ms */
#define FIFO_CHUNK    4096u	 /* slots */
#define JOBS_MAX      2u
#define DIRECT	      16u   /* pages beyond what is needed, when workers were not fast enough: not each fault shall wait */
#define AHEAD_SHARE   64u   /* of the budget is kept free ahead of faults */
#define AHEAD_MAX     1024u
#define CHANCES	      7u
#define SPARED_MAX    64u   /* in a row: whoever waits does not wait for a tour of the list */

static void *lazy(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int cis_reclaim_init(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;
	int rc;

	r->budget = UINT64_MAX;
	r->claimed = !p->o.adopt;
	if (!p->o.state.stash || p->page_shift != 12)
		return 0;
	rc = cis_stash_init(&r->stash, p->o.state.stash, p->o.state.stash_bytes, p->o.state.stash_bytes);
	r->fifo_slots = (p->nr_pages + 2 * FIFO_CHUNK - 1) & ~(uint64_t)(FIFO_CHUNK - 1);
	r->fifo = lazy(r->fifo_slots * sizeof(*r->fifo));
	r->listed = lazy(cis_bitmap_words(p->nr_pages) * sizeof(*r->listed));
	r->unsure = lazy(cis_bitmap_words(p->nr_pages) * sizeof(*r->unsure));
	r->chances = lazy(p->nr_pages);
	return rc || !r->fifo || !r->listed || !r->unsure || !r->chances ? -ENOMEM : 0;
}

void cis_reclaim_fini(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;

	if (r->fifo)
		munmap(r->fifo, r->fifo_slots * sizeof(*r->fifo));
	if (r->listed)
		munmap(r->listed, cis_bitmap_words(p->nr_pages) * sizeof(*r->listed));
	if (r->unsure)
		munmap(r->unsure, cis_bitmap_words(p->nr_pages) * sizeof(*r->unsure));
	if (r->chances)
		munmap(r->chances, p->nr_pages);
	cis_stash_fini(&r->stash);
}

size_t cis_reclaim_memory(const struct cis_pager *p)
{
	const struct cis_reclaim *r = &p->reclaim;
	uint64_t slots = r->tail - (r->head & ~(uint64_t)(FIFO_CHUNK - 1));

	return r->on ? slots * (sizeof(*r->fifo) + sizeof(*r->chances)) + 2 * cis_bitmap_words(p->nr_pages) * 8 + cis_log_memory(r->stash.log) : 0;
}

uint64_t cis_pager_resident(const struct cis_pager *p)
{
	uint64_t pages[CIS_PAGE_STATES];

	cis_pager_pages(p, pages);
	return pages[CIS_PAGE_RESIDENT] + pages[CIS_PAGE_CLEAN];
}

uint64_t cis_pager_remote(const struct cis_pager *p)
{
	uint64_t pages[CIS_PAGE_STATES];

	cis_pager_pages(p, pages);
	return pages[CIS_PAGE_STASHED] + pages[CIS_PAGE_INFLIGHT] + pages[CIS_PAGE_FAR];
}

uint64_t cis_pager_far(const struct cis_pager *p)
{
	uint64_t pages[CIS_PAGE_STATES];

	cis_pager_pages(p, pages);
	return pages[CIS_PAGE_INFLIGHT] + pages[CIS_PAGE_FAR] + pages[CIS_PAGE_CLEAN];
}

uint64_t cis_pager_refaults(const struct cis_pager *p)
{
	return __atomic_load_n(&p->refaults, __ATOMIC_RELAXED);
}

uint64_t cis_pager_stash_bytes(struct cis_pager *p)
{
	return p->reclaim.stash.area ? cis_stash_used(&p->reclaim.stash) : 0;
}

int cis_pager_reclaim(struct cis_pager *p, const struct cis_reclaim_opts *opts, struct cis_error *err)
{
	struct cis_reclaim *r = &p->reclaim;
	bool any = false, claim_far, limited = opts->budget_pages != UINT64_MAX, taken_back = limited && p->is_detached;
	int rc;

	for (size_t i = 0; i < p->nr_regions; i++)
		any |= p->regions[i].view != NULL;
	if (!any)
		return cis_fail(err, EOPNOTSUPP, "none of its memory can be reclaimed: only shared memory with pages of 4 KiB can");
	if (!r->fifo)
		return cis_fail(err, EOPNOTSUPP, "its state memfd is of layout %u, which has no stash", p->o.state.header->layout);
	if (r->o.pages && r->o.pages != opts->pages && cis_pager_remote(p))
		return cis_fail(err, EBUSY, "pages of it are in another store: bring them back first");
	if (opts->pages && memcmp(r->o.ns, opts->ns, sizeof(r->o.ns)) && r->o.pages)
		return cis_fail(err, EBUSY, "its namespace cannot change");
	claim_far = opts->pages && !r->o.pages;
	if (limited && (!r->on || p->is_detached)) {
		rc = cis_attach(p, err);
		if (rc)
			return rc;
		r->scanned = 0;
	}
	r->o = *opts;
	rc = claim_far ? cis_far_claim(p, err) : 0;
	if (rc) {
		r->o.pages = NULL;
		return rc;
	}
	r->budget = opts->budget_pages;
	/*
	 * A thread that is giving pages back, and found them not registered before it came to the hole, tells nobody: what it finds reclaimed it
	 * cannot give back any more, and it would come back.  No call waits for such a thread, so it gets time.
	 */
	r->full_ns = taken_back ? cis_pager_now(p) + TAKEN_NS : 0;
	r->on |= limited;
	cis_stash_limit(&r->stash, opts->stash_bytes);
	if (r->on)
		cis_fill_again(p);
	return 0;
}

/* The list. */

void cis_reclaim_list(struct cis_pager *p, uint64_t pgno, uint64_t nr)
{
	struct cis_reclaim *r = &p->reclaim;

	if (!r->on)
		return;
	for (; nr; nr--, pgno++) {
		if (cis_bit_test(r->listed, pgno) || !cis_word_resident(cis_word_load(p, pgno)))
			continue;
		cis_bit_set(r->listed, pgno);
		r->fifo[r->tail++ % r->fifo_slots] = (uint32_t)pgno;
	}
}

/* A page that its monitor has allocated and nobody has filled: it is not counted, and takes memory all the same. */
static bool is_idle(const struct cis_pager *p, const struct cis_region *r, uint64_t pgno)
{
	return cis_region_of_page(p, pgno) == r && cis_page_state_at(p, pgno) == CIS_PAGE_ABSENT;
}

/* Return: how many pages from @pgno on were given back. */
static uint64_t drop_idle(struct cis_pager *p, uint64_t pgno, uint64_t most)
{
	const struct cis_region *r = cis_region_of_page(p, pgno);
	uint64_t nr = 0;

	if (!r || !r->alias || !r->view)
		return 0;
	while (nr < most && is_idle(p, r, pgno + nr))
		nr++;
	if (nr)
		p->o.os->punch(p->o.os_ctx, r->view + ((pgno << p->page_shift) - r->offset), nr << p->page_shift);
	return nr;
}

/* Those that were there before there was a budget, or came under another engine. */
static void scan(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;
	uint64_t end = p->nr_pages - r->scanned < SCAN_PAGES ? p->nr_pages : r->scanned + SCAN_PAGES, dropped = 0, nr;

	while (r->scanned < end && dropped < DROP_PAGES) {
		cis_reclaim_list(p, r->scanned, 1);
		nr = drop_idle(p, r->scanned, end - r->scanned < DROP_PAGES ? end - r->scanned : DROP_PAGES);
		dropped += nr;
		r->scanned += nr ? nr : 1;
	}
}

/* The oldest of the list.  What is behind it takes no memory: there are few resident pages and many that were. */
static uint32_t pop(struct cis_reclaim *r)
{
	uint64_t slot = r->head++ % r->fifo_slots;
	uint32_t pgno = r->fifo[slot];

	if (slot % FIFO_CHUNK == FIFO_CHUNK - 1)
		madvise(&r->fifo[slot + 1 - FIFO_CHUNK], FIFO_CHUNK * sizeof(*r->fifo), MADV_DONTNEED);
	return pgno;
}

void cis_reclaim_came_back(struct cis_pager *p, uint64_t pgno, uint32_t seq)
{
	struct cis_reclaim *r = &p->reclaim;
	uint8_t given = r->chances[pgno] >> 4;

	if (r->seq - seq > r->budget)
		given = 0;
	else if (given < CHANCES)
		given++;
	r->chances[pgno] = (uint8_t)(given << 4 | given);
}

/* Its turn has come: does it stay in the list, as its last? */
static bool is_spared(struct cis_pager *p, uint64_t pgno, unsigned *spared)
{
	struct cis_reclaim *r = &p->reclaim;

	if (r->o.sync || !(r->chances[pgno] & 15) || *spared == SPARED_MAX)
		return false;
	++*spared;
	r->chances[pgno]--;
	p->stats->spared++;
	cis_bit_set(r->listed, pgno);
	r->fifo[r->tail++ % r->fifo_slots] = (uint32_t)pgno;
	return true;
}

/* Return: false when there is none. */
static bool next_page(struct cis_pager *p, uint64_t *ret, unsigned *spared)
{
	struct cis_reclaim *r = &p->reclaim;

	while (r->head < r->tail) {
		uint64_t pgno = pop(r);
		const struct cis_region *region = cis_region_of_page(p, pgno);
		uint64_t word = cis_word_load(p, pgno);

		cis_bit_clear(r->listed, pgno);
		if (!cis_word_resident(word) || cis_word_flags(word) || !region->view || is_spared(p, pgno, spared))
			continue;
		*ret = pgno;
		return true;
	}
	return false;
}

/* Jobs. */

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void claim(struct cis_pager *p, struct cis_evict_job *job, uint64_t nr)
{
	unsigned spared = 0;

	job->p = p;
	job->codec = p->reclaim.o.codec;
	job->seq = p->reclaim.seq;
	job->nr = job->at = job->nr_zero = job->nr_clean = 0;
	job->copied = job->no_room = false;
	if (nr > CIS_EVICT_PAGES)
		nr = CIS_EVICT_PAGES;
	while (job->nr < nr && next_page(p, &job->pgno[job->nr], &spared))
		job->nr++;
	qsort(job->pgno, job->nr, sizeof(job->pgno[0]), by_number);
	for (size_t i = 0; i < job->nr; i++) {
		job->how[i] = CIS_EVICT_KEPT;
		job->was[i] = job->word[i] = cis_word_load(p, job->pgno[i]) | CIS_WORD_HELD;
		cis_word_store(p, job->pgno[i], job->word[i]);
	}
	CIS_POINT(evict_claimed);
}

/* The end of the run from @from on that one call can wake. */
static size_t run_end(const struct cis_pager *p, const struct cis_evict_job *job, size_t from)
{
	const struct cis_region *r = cis_region_of_page(p, job->pgno[from]);
	size_t i = from + 1;

	while (i < job->nr && job->pgno[i] == job->pgno[from] + (i - from) && cis_region_of_page(p, job->pgno[i]) == r)
		i++;
	return i;
}

/* A page that stays may be written to again, but for one that is as its store has it. */
static void keep(struct cis_pager *p, const struct cis_evict_job *job, size_t i)
{
	const struct cis_region *r = cis_region_of_page(p, job->pgno[i]);

	if (job->how[i] == CIS_EVICT_PROTECTED && cis_word_state(cis_word_load(p, job->pgno[i])) != CIS_PAGE_CLEAN)
		p->o.os->protect(p->o.os_ctx, cis_hva_of_page(p, r, job->pgno[i]), cis_page_bytes(p), false);
	p->stats->evictions_given_up++;
	cis_reclaim_list(p, job->pgno[i], 1);
}

/*
 * Whoever waits there asks again: pages that went are to be brought, those that stay may have been asked for for another reason, or
 * could not be let go of.
 */
static void wake_all(struct cis_pager *p, const struct cis_evict_job *job)
{
	for (size_t from = 0, to; from < job->nr; from = to) {
		const struct cis_region *r = cis_region_of_page(p, job->pgno[from]);

		to = run_end(p, job, from);
		p->o.os->wake(p->o.os_ctx, cis_hva_of_page(p, r, job->pgno[from]), (to - from) << p->page_shift);
	}
}

static void settle(struct cis_pager *p, struct cis_evict_job *job)
{
	struct cis_reclaim *r = &p->reclaim;

	for (size_t i = 0; i < job->nr; i++) {
		bool out = job->how[i] == CIS_EVICT_OUT;

		cis_word_counted(p, job->was[i], job->word[i]);
		cis_word_store(p, job->pgno[i], cis_word_load(p, job->pgno[i]) & ~(uint64_t)CIS_WORD_HELD);
		CIS_POINT(evict_settled);
		p->stats->evictions += out;
		r->seq += out;
		if (!out)
			keep(p, job, i);
	}
	wake_all(p, job);
	p->stats->evicted_zero += job->nr_zero;
	p->stats->evicted_clean += job->nr_clean;
	r->idle = false;
	if (job->no_room && !cis_clean(p)) {
		p->stats->stash_full++;
		r->full_ns = cis_pager_now(p) + FULL_NS;
	}
	CIS_POINT(evict_done);
}

/* On the shard, while somebody waits. */
static void evict_now(struct cis_pager *p, uint64_t nr)
{
	struct cis_evict_job job;

	claim(p, &job, nr);
	if (!job.nr)
		return;
	while (cis_evict_job_step(&job, p->o.scratch))
		;
	settle(p, &job);
}

static bool is_full(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;

	if (r->full_ns && cis_pager_now(p) >= r->full_ns)
		r->full_ns = 0;
	return r->full_ns;
}

void cis_reclaim_make_room(struct cis_pager *p, unsigned nr)
{
	struct cis_reclaim *r = &p->reclaim;
	uint64_t will_be = cis_pager_resident(p) + nr;

	if (!r->on || will_be <= r->budget || is_full(p))
		return;
	evict_now(p, will_be - r->budget + (r->o.sync ? 0 : r->budget < 16 * DIRECT ? r->budget / 16 : DIRECT));
}

uint64_t cis_reclaim_room(const struct cis_pager *p)
{
	uint64_t resident = cis_pager_resident(p);

	return resident < p->reclaim.budget ? p->reclaim.budget - resident : 0;
}

/* Reclaim stops there: some room is left for the next faults. */
static uint64_t low_mark(const struct cis_reclaim *r)
{
	uint64_t ahead = r->o.sync ? 0 : r->budget / AHEAD_SHARE;

	if (ahead < DIRECT && !r->o.sync)
		ahead = DIRECT < r->budget / 2 ? DIRECT : r->budget / 2;
	return r->budget - (ahead < AHEAD_MAX ? ahead : AHEAD_MAX);
}

/* Reclaim begins half way between that and the budget: workers get batches, rather than a job a fault. */
static bool is_above_high_mark(const struct cis_pager *p)
{
	uint64_t low = low_mark(&p->reclaim);

	return cis_pager_resident(p) > low + (p->reclaim.budget - low) / 2;
}

static uint64_t surplus(const struct cis_pager *p)
{
	const struct cis_reclaim *r = &p->reclaim;
	uint64_t resident = cis_pager_resident(p), low = low_mark(r);

	return r->on && resident > low ? resident - low : 0;
}

uint64_t cis_reclaim_spare(const struct cis_pager *p)
{
	uint64_t pages[CIS_PAGE_STATES], taken, low = low_mark(&p->reclaim);

	cis_pager_pages(p, pages);
	taken = pages[CIS_PAGE_RESIDENT] + pages[CIS_PAGE_CLEAN] + pages[CIS_PAGE_BUSY];
	return taken < low ? low - taken : 0;
}

bool cis_reclaim_wants(const struct cis_pager *p)
{
	const struct cis_reclaim *r = &p->reclaim;

	return !p->paused && !p->is_gone && r->jobs_out < JOBS_MAX && !r->full_ns && r->head < r->tail &&
	       surplus(p) > r->jobs_out * CIS_EVICT_PAGES && (r->jobs_out || is_above_high_mark(p));
}

void cis_reclaim_step(struct cis_pager *p)
{
	struct cis_reclaim *r = &p->reclaim;

	if (!r->on || p->paused || p->is_gone)
		return;
	is_full(p);
	if (r->scanned < p->nr_pages)
		scan(p);
	cis_clean(p);
	if (r->o.sync && !r->full_ns && surplus(p)) /* the budget was cut */
		evict_now(p, surplus(p));
}

uint64_t cis_reclaim_deadline(const struct cis_pager *p)
{
	const struct cis_reclaim *r = &p->reclaim;

	if (!r->on)
		return UINT64_MAX;
	if (r->full_ns && surplus(p))
		return r->full_ns;
	return r->scanned < p->nr_pages || (r->o.sync && surplus(p) && r->head < r->tail) ? 0 : UINT64_MAX;
}

struct cis_evict_job *cis_pager_next_evict(struct cis_pager *p)
{
	struct cis_evict_job *job = cis_reclaim_wants(p) ? malloc(sizeof(*job)) : NULL;

	if (!job)
		return NULL;
	claim(p, job, surplus(p) - p->reclaim.jobs_out * CIS_EVICT_PAGES);
	if (!job->nr) {
		free(job);
		return NULL;
	}
	p->reclaim.jobs_out++;
	return job;
}

void cis_pager_evict_done(struct cis_pager *p, struct cis_evict_job *job)
{
	settle(p, job);
	p->reclaim.jobs_out--;
	free(job);
	cis_fault_retry(p, true);
}
