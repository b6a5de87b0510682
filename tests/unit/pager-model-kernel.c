/* The kernel of the model, and the threads of its guest. */
#include <errno.h>

#include "pager-model-int.h"

uint64_t world_dice(struct world *w, uint64_t n)
{
	return test_random(&w->rnd) % n;
}

void world_see(struct world *w, const char *wrong, uint64_t pgno)
{
	if (w->wrong)
		return;
	w->wrong = wrong;
	w->wrong_page = pgno;
}

/* Between any two steps of the pager the guest may do something, and a chance to die. */
void world_chance(struct world *w)
{
	if (w->aside && !world_dice(w, 6))
		world_vcpu_step(w, &w->vcpu[world_dice(w, VCPUS)], true);
	if (w->aside && !world_dice(w, 6))
		world_balloon_step(w, &w->balloon[world_dice(w, BALLOONS)], true);
	if (!w->crash_in || w->in_claim)
		return;
	if (!--w->crash_in)
		longjmp(w->crashed, 1);
}

static struct world *now; /* one at a time, for the points */

static void at_point(enum cis_point point)
{
	(void)point;
	world_chance(now);
}

void world_watch(struct world *w)
{
	now = w;
	cis_point_hook = w ? at_point : NULL;
}

/* What the guest sees where it is mapped. */
static uint8_t *page_at(struct world *w, uint64_t pgno)
{
	return (w->memory == PRIVATE && !w->own[pgno] ? w->base : w->mem) + pgno * TEST_PAGE;
}

/* Is it in the file, so that it faults as minor? */
bool world_in_file(struct world *w, uint64_t pgno)
{
	if (w->memory == PRIVATE)
		return !world_is_zero(w->base + pgno * TEST_PAGE);
	return w->memory != ANONYMOUS && w->cached[pgno];
}

/* The kernel. */

static bool changing(const struct world *w)
{
	for (unsigned i = 0; i < BALLOONS; i++)
		if (w->balloon[i].state == EVENT_UNREAD || w->balloon[i].state == EVENT_READ)
			return true;
	return false;
}

bool world_removing(const struct world *w, uint64_t pgno)
{
	for (unsigned i = 0; i < BALLOONS; i++)
		if (w->balloon[i].state != IDLE && pgno - w->balloon[i].first < w->balloon[i].nr)
			return true;
	return false;
}

static void wake(struct world *w, uint64_t first, uint64_t nr)
{
	for (unsigned i = 0; i < VCPUS; i++)
		if (w->vcpu[i].state != RUNS && w->vcpu[i].pgno - first < nr)
			w->vcpu[i].state = RUNS;
}

static int k_read(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	struct world *w = ctx;
	size_t n = 0;

	world_chance(w);
	for (unsigned i = 0; i < VCPUS && n < max; i++) {
		struct vcpu *v = &w->vcpu[i];

		if (v->state != WAITS_UNREAD)
			continue;
		v->state = WAITS_READ;
		msgs[n].event = UFFD_EVENT_PAGEFAULT;
		msgs[n].arg.pagefault.address = HVA + v->pgno * TEST_PAGE;
		msgs[n++].arg.pagefault.flags = v->protected ? UFFD_PAGEFAULT_FLAG_WP : v->minor ? UFFD_PAGEFAULT_FLAG_MINOR : 0;
	}
	for (unsigned i = 0; i < BALLOONS && n < max; i++) {
		struct balloon *b = &w->balloon[i];

		if (b->state != EVENT_UNREAD)
			continue;
		b->state = EVENT_READ;
		msgs[n].event = UFFD_EVENT_REMOVE;
		msgs[n].arg.remove.start = HVA + b->first * TEST_PAGE;
		msgs[n++].arg.remove.end = HVA + (b->first + b->nr) * TEST_PAGE;
	}
	world_chance(w);
	*ret_n = n;
	return n ? 0 : -EAGAIN;
}

static int put_copy(struct world *w, uint64_t pgno, const uint8_t *src)
{
	memcpy(w->mem + pgno * TEST_PAGE, src, TEST_PAGE);
	w->cached[pgno] = w->own[pgno] = true;
	return 0;
}

static int put_protected(struct world *w, uint64_t pgno, const uint8_t *src)
{
	return put_copy(w, pgno, src);
}

static int put_zero(struct world *w, uint64_t pgno, const uint8_t *src)
{
	(void)src;
	memset(w->mem + pgno * TEST_PAGE, 0, TEST_PAGE);
	w->cached[pgno] = w->own[pgno] = true;
	return 0;
}

static int put_map(struct world *w, uint64_t pgno, const uint8_t *src)
{
	(void)src;
	if (w->memory == ANONYMOUS)
		world_see(w, "CONTINUE on anonymous memory", pgno);
	if (w->memory != ALIASED && !world_in_file(w, pgno))
		return -EFAULT;
	w->cached[pgno] = true; /* the pager wrote through its mapping before, which allocates */
	w->own[pgno] = false;
	return 0;
}

/* Pages [dst, dst + len) one by one by @put, with the kernel's rules about stopping. */
static int each(struct world *w, uint64_t dst, uint64_t len, uint64_t *ret_done,
		int (*put)(struct world *w, uint64_t pgno, const uint8_t *src), const uint8_t *src)
{
	uint64_t first = (dst - HVA) / TEST_PAGE, nr = len / TEST_PAGE, i = 0;
	bool fills = put == put_copy || put == put_protected || put == put_zero;
	int rc = 0;

	world_chance(w);
	if (changing(w)) {
		*ret_done = 0;
		return -EAGAIN;
	}
	if (first < w->split && first + nr > w->split) {
		*ret_done = 0;
		return -ENOENT;
	}
	for (; i < nr && !rc; i++) {
		rc = w->present[first + i] || (fills && w->memory == COPIED && w->cached[first + i]) ?
			     -EEXIST : put(w, first + i, src ? src + i * TEST_PAGE : NULL);
		if (rc)
			break;
		w->present[first + i] = true;
		if (put != put_map) /* the mark of a page that was protected goes with the page that comes */
			w->wp[first + i] = put == put_protected;
	}
	world_chance(w); /* the kernel wakes at the end, and maybe has not */
	wake(w, first, i);
	*ret_done = i * TEST_PAGE;
	return rc && i ? -EAGAIN : rc; /* progress hides the reason */
}

static int k_copy(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	return each(ctx, dst, len, ret_done, put_copy, src);
}

static int k_copy_protected(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	return each(ctx, dst, len, ret_done, put_protected, src);
}

static int k_zero(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	return each(ctx, dst, len, ret_done, put_zero, NULL);
}

static int k_cont(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	return each(ctx, dst, len, ret_done, put_map, NULL);
}

static int put_poison(struct world *w, uint64_t pgno, const uint8_t *src)
{
	(void)src;
	w->poisoned[pgno] = true;
	return 0;
}

static int k_poison(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	return each(ctx, dst, len, ret_done, put_poison, NULL);
}

/*
 * Who waits there would fault again, be woken again, and so for ever; but once for a REMOVE that was marked, or a page that was
 * reclaimed while it was asked for, or that a job let go that had not got far.
 */
static bool woken_in_vain(struct world *w, uint64_t pgno)
{
	enum cis_page_state s = cis_word_state(w->state.words[pgno]);

	return !w->present[pgno] && s != CIS_PAGE_REMOVED && s != CIS_PAGE_STASHED &&
	       !(s == CIS_PAGE_RESIDENT && w->reclaim.budget_pages) &&
	       !world_in_file(w, pgno) && !world_removing(w, pgno);
}

static int k_wake(void *ctx, uint64_t dst, uint64_t len)
{
	struct world *w = ctx;
	uint64_t first = (dst - HVA) / TEST_PAGE, nr = len / TEST_PAGE;

	world_chance(w);
	for (unsigned i = 0; i < VCPUS && !w->waking; i++)
		if (w->vcpu[i].state == WAITS_READ && !w->vcpu[i].protected && w->vcpu[i].pgno - first < nr &&
		    woken_in_vain(w, w->vcpu[i].pgno))
			world_see(w, "woken without its page", w->vcpu[i].pgno);
	wake(w, first, nr);
	return 0;
}

static int k_unregister(void *ctx, uint64_t addr, uint64_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return 0;
}

static int k_watch(void *ctx, uint64_t addr, uint64_t len, bool minor)
{
	struct world *w = ctx;

	world_chance(w);
	if (minor != (w->memory == ALIASED))
		world_see(w, "watched for other faults than its memory has", (addr - HVA) / TEST_PAGE);
	for (uint64_t p = (addr - HVA) / TEST_PAGE; p < (addr + len - HVA) / TEST_PAGE; p++)
		w->watched[p] = true;
	return 0;
}

static int k_protect(void *ctx, uint64_t addr, uint64_t len, bool on)
{
	struct world *w = ctx;
	uint64_t first = (addr - HVA) / TEST_PAGE, nr = len / TEST_PAGE;

	world_chance(w);
	if (changing(w))
		return -EAGAIN;
	if (first < w->split && first + nr > w->split)
		return -ENOENT;
	for (uint64_t i = first; i < first + nr; i++) {
		if (!w->watched[i])
			world_see(w, "protected, but not watched", i);
		w->wp[i] = on;
	}
	if (!on)
		wake(w, first, nr);
	return 0;
}

static int k_punch(void *ctx, void *addr, uint64_t len)
{
	struct world *w = ctx;
	uint64_t first = (uint64_t)((uint8_t *)addr - w->mem) / TEST_PAGE;

	world_chance(w);
	if (!world_dice(w, 50))
		return -ENOMEM;
	for (uint64_t p = first; p < first + len / TEST_PAGE; p++) {
		if (cis_word_state(w->state.words[p]) == CIS_PAGE_RESIDENT)
			world_see(w, "punched, but resident by its word", p);
		w->present[p] = w->cached[p] = w->own[p] = false;
		memset(w->mem + p * TEST_PAGE, 0, TEST_PAGE);
		world_chance(w);
	}
	return 0;
}

static bool k_present(void *ctx, void *addr)
{
	struct world *w = ctx;

	return w->cached[((uint8_t *)addr - w->mem) / TEST_PAGE];
}

const struct cis_pager_os world_kernel = {
	.read = k_read, .copy = k_copy, .zero = k_zero, .cont = k_cont, .poison = k_poison, .wake = k_wake,
	.unregister = k_unregister, .watch = k_watch, .copy_protected = k_copy_protected, .protect = k_protect, .punch = k_punch,
	.present = k_present,
};

/* Threads of the guest. */

/* Return: false when it has to wait. */
static bool use_page(struct world *w, struct vcpu *v)
{
	uint64_t pgno = v->pgno;
	uint8_t *is = page_at(w, pgno), *should = w->ref + pgno * TEST_PAGE;

	w->touches++;
	if (w->poisoned[pgno]) {
		if (!w->trouble)
			world_see(w, "poisoned without trouble", pgno);
		return true;
	}
	if (memcmp(is, should, TEST_PAGE) && !(world_removing(w, pgno) && world_is_zero(is))) {
		world_see(w, "wrong bytes", pgno);
		return true;
	}
	if (world_removing(w, pgno) || !v->writes)
		return true; /* a write to what is being given back is lost or not: not worth modelling */
	if (w->wp[pgno])
		return false;
	w->own[pgno] = true;
	is = page_at(w, pgno);
	test_fill_page(is, 2, test_random(&w->rnd));
	memcpy(should, is, TEST_PAGE);
	return true;
}

void world_vcpu_step(struct world *w, struct vcpu *v, bool quiet)
{
	if (v->state != RUNS)
		return;
	if (!quiet && !v->faulted) {
		/* Else again the page it faulted on. */
		v->pgno = w->walks && world_dice(w, 12) ? (v->pgno + w->walks) % PAGES : world_dice(w, PAGES);
		v->writes = !world_dice(w, 3);
	}
	v->protected = w->present[v->pgno];
	if (w->present[v->pgno] && use_page(w, v)) {
		v->faulted = false;
		return;
	}
	v->faulted = true;
	v->minor = world_in_file(w, v->pgno);
	v->state = WAITS_UNREAD;
}

void world_balloon_step(struct world *w, struct balloon *b, bool quiet)
{
	switch (b->state) {
	case IDLE:
		if (quiet)
			return;
		b->first = world_dice(w, PAGES);
		b->nr = 1 + world_dice(w, 12);
		if (b->first + b->nr > PAGES)
			b->nr = PAGES - b->first;
		for (uint64_t i = 0; i < b->nr; i++)
			if (world_removing(w, b->first + i))
				return; /* two at once on one page: whose zap comes last is not worth modelling */
		b->state = EVENT_UNREAD;
		w->removes++;
		break;
	case EVENT_UNREAD:
		break;
	case EVENT_READ: /* its thread is woken, and runs on some time later */
		b->state = RUNS_ON;
		break;
	case RUNS_ON:
		for (uint64_t p = b->first; p < b->first + b->nr; p++) {
			w->present[p] = w->poisoned[p] = w->cached[p] = w->own[p] = false;
			if (w->memory != PRIVATE)
				memset(w->mem + p * TEST_PAGE, 0, TEST_PAGE);
			memset(w->ref + p * TEST_PAGE, 0, TEST_PAGE);
		}
		b->state = IDLE;
	}
}
