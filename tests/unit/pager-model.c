#include "pager-model.h"

#include <errno.h>

#include "base/point.h"
#include "os/memfd.h"
#include "pager/job.h"

static struct world *now; /* one at a time, for the points */

static uint64_t dice(struct world *w, uint64_t n)
{
	return test_random(&w->rnd) % n;
}

static void see(struct world *w, const char *wrong, uint64_t pgno)
{
	if (w->wrong)
		return;
	w->wrong = wrong;
	w->wrong_page = pgno;
}

static void vcpu_step(struct world *w, struct vcpu *v, bool quiet);
static void balloon_step(struct world *w, struct balloon *b, bool quiet);

/* Between any two steps of the pager the guest may do something, and a chance to die. */
static void chance(struct world *w)
{
	if (w->aside && !dice(w, 6))
		vcpu_step(w, &w->vcpu[dice(w, VCPUS)], true);
	if (w->aside && !dice(w, 6))
		balloon_step(w, &w->balloon[dice(w, BALLOONS)], true);
	if (!w->crash_in || w->in_claim)
		return;
	if (!--w->crash_in)
		longjmp(w->crashed, 1);
}

static void at_point(enum cis_point point)
{
	(void)point;
	chance(now);
}

static bool is_zero(const uint8_t *page)
{
	static const uint8_t zeros[TEST_PAGE];

	return !memcmp(page, zeros, TEST_PAGE);
}

/* What the guest sees where it is mapped. */
static uint8_t *page_at(struct world *w, uint64_t pgno)
{
	return (w->memory == PRIVATE && !w->own[pgno] ? w->base : w->mem) + pgno * TEST_PAGE;
}

/* Is it in the file, so that it faults as minor? */
static bool in_file(struct world *w, uint64_t pgno)
{
	if (w->memory == PRIVATE)
		return !is_zero(w->base + pgno * TEST_PAGE);
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

static bool removing(const struct world *w, uint64_t pgno)
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

	chance(w);
	for (unsigned i = 0; i < VCPUS && n < max; i++) {
		struct vcpu *v = &w->vcpu[i];

		if (v->state != WAITS_UNREAD)
			continue;
		v->state = WAITS_READ;
		msgs[n].event = UFFD_EVENT_PAGEFAULT;
		msgs[n].arg.pagefault.address = HVA + v->pgno * TEST_PAGE;
		msgs[n++].arg.pagefault.flags = v->minor ? UFFD_PAGEFAULT_FLAG_MINOR : 0;
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
	chance(w);
	*ret_n = n;
	return n ? 0 : -EAGAIN;
}

static int put_copy(struct world *w, uint64_t pgno, const uint8_t *src)
{
	memcpy(w->mem + pgno * TEST_PAGE, src, TEST_PAGE);
	w->cached[pgno] = w->own[pgno] = true;
	return 0;
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
		see(w, "CONTINUE on anonymous memory", pgno);
	if (w->memory != ALIASED && !in_file(w, pgno))
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
	bool fills = put == put_copy || put == put_zero;
	int rc = 0;

	chance(w);
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
	}
	chance(w); /* the kernel wakes at the end, and maybe has not */
	wake(w, first, i);
	*ret_done = i * TEST_PAGE;
	return rc && i ? -EAGAIN : rc; /* progress hides the reason */
}

static int k_copy(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	return each(ctx, dst, len, ret_done, put_copy, src);
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

static int k_wake(void *ctx, uint64_t dst, uint64_t len)
{
	struct world *w = ctx;
	uint64_t first = (dst - HVA) / TEST_PAGE, nr = len / TEST_PAGE;

	/* It would fault again, be woken again, and so for ever; but once for a REMOVE that was marked. */
	chance(w);
	for (unsigned i = 0; i < VCPUS && !w->waking; i++)
		if (w->vcpu[i].state == WAITS_READ && w->vcpu[i].pgno - first < nr && !w->present[w->vcpu[i].pgno] &&
		    cis_word_state(w->state.words[w->vcpu[i].pgno]) != CIS_PAGE_REMOVED && !in_file(w, w->vcpu[i].pgno) && !removing(w, w->vcpu[i].pgno))
			see(w, "woken without its page", w->vcpu[i].pgno);
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

static const struct cis_pager_os kernel = {
	.read = k_read, .copy = k_copy, .zero = k_zero, .cont = k_cont, .poison = k_poison, .wake = k_wake,
	.unregister = k_unregister,
};

/* The store: the image's file, now or later, at times an error or damaged bytes. */

static void answer(struct world *w, struct cis_store_req *req)
{
	bool bad = w->trouble && !dice(w, w->trouble);
	int err = 0;

	if (bad && dice(w, 2))
		err = -EIO;
	else if (pread(cis_image_fd(w->img), req->buf, req->len, (off_t)req->off) != (ssize_t)req->len)
		err = -EIO;
	else if (bad)
		((uint8_t *)req->buf)[dice(w, req->len)] ^= (uint8_t)(1 << dice(w, 8));
	req->done(req, err);
}

static void s_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct world *w = (struct world *)((char *)store - offsetof(struct world, store));

	for (size_t i = 0; i < n; i++)
		if (w->late && w->nr_held < 128)
			w->held[w->nr_held++] = reqs[i];
		else
			answer(w, reqs[i]);
}

static void s_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct world *w = (struct world *)((char *)store - offsetof(struct world, store));

	for (unsigned i = 0; i < w->nr_held; i++)
		if (w->held[i] == req) {
			w->held[i] = w->held[--w->nr_held];
			req->done(req, -ECANCELED);
			return;
		}
}

static const struct cis_store_ops store_ops = { .ops_size = sizeof(store_ops), .submit = s_submit, .cancel = s_cancel };

static void j_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct world *w = (struct world *)((char *)store - offsetof(struct world, job_store));

	for (size_t i = 0; i < n; i++)
		answer(w, reqs[i]);
}

static const struct cis_store_ops job_ops = { .ops_size = sizeof(job_ops), .submit = j_submit };

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	struct world *w = ctx;

	if (img != w->img)
		see(w, "a store for another image", 0);
	return &w->store;
}

static uint64_t model_clock(void *ctx)
{
	return ((struct world *)ctx)->clock_ns;
}

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	struct world *w = ctx;

	(void)err;
	w->failed++;
	if (!w->trouble)
		see(w, "a page failed without trouble", pgno);
	if (outcome == CIS_OUTCOME_KILL && (w->policy != CIS_POLICY_KILL || !w->can_kill || w->to_kill++))
		see(w, "killed by another policy, or twice", pgno);
	if (outcome == CIS_OUTCOME_POISON && w->policy != CIS_POLICY_POISON)
		see(w, "poisoned by another policy", pgno);
	w->stalls |= outcome == CIS_OUTCOME_STALL;
}

static void recovered(void *ctx)
{
	struct world *w = ctx;

	if (!w->stalls)
		see(w, "recovered, but nothing stalled", 0);
	w->stalls = false;
}

static void guest_gone(void *ctx)
{
	see(ctx, "given up for gone", 0);
}

/* Threads of the guest. */

static void use_page(struct world *w, uint64_t pgno)
{
	uint8_t *is = page_at(w, pgno), *should = w->ref + pgno * TEST_PAGE;

	w->touches++;
	if (w->poisoned[pgno]) {
		if (!w->trouble)
			see(w, "poisoned without trouble", pgno);
		return;
	}
	if (memcmp(is, should, TEST_PAGE) && !(removing(w, pgno) && is_zero(is))) {
		see(w, "wrong bytes", pgno);
		return;
	}
	if (removing(w, pgno) || dice(w, 3))
		return; /* a write to what is being given back is lost or not: not worth modelling */
	w->own[pgno] = true;
	is = page_at(w, pgno);
	test_fill_page(is, 2, test_random(&w->rnd));
	memcpy(should, is, TEST_PAGE);
}

static void vcpu_step(struct world *w, struct vcpu *v, bool quiet)
{
	if (v->state != RUNS)
		return;
	if (!quiet && !v->faulted)
		v->pgno = dice(w, PAGES); /* else again the page it faulted on */
	if (w->present[v->pgno]) {
		use_page(w, v->pgno);
		v->faulted = false;
		return;
	}
	v->faulted = true;
	v->minor = in_file(w, v->pgno);
	v->state = WAITS_UNREAD;
}

static void balloon_step(struct world *w, struct balloon *b, bool quiet)
{
	switch (b->state) {
	case IDLE:
		if (quiet)
			return;
		b->first = dice(w, PAGES);
		b->nr = 1 + dice(w, 12);
		if (b->first + b->nr > PAGES)
			b->nr = PAGES - b->first;
		for (uint64_t i = 0; i < b->nr; i++)
			if (removing(w, b->first + i))
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

/* Workers. */

static void worker_step(struct world *w, unsigned i)
{
	if (!w->job[i]) {
		w->in_claim = true;
		w->job[i] = cis_pager_next_job(w->pager);
		w->in_claim = w->job_over[i] = false;
		chance(w);
	} else if (!w->job_over[i]) {
		w->job_over[i] = !cis_fill_job_step(w->job[i], w->worker[i], &w->job_store);
	} else {
		struct cis_fill_job *job = w->job[i];

		w->job[i] = NULL;
		w->settling = job;
		w->jobs_before = w->pager->jobs_out;
		cis_pager_job_done(w->pager, job);
		w->settling = NULL;
	}
}

static void store_step(struct world *w)
{
	if (!w->nr_held)
		return;
	unsigned i = (unsigned)dice(w, w->nr_held);
	struct cis_store_req *req = w->held[i];

	w->held[i] = w->held[--w->nr_held];
	answer(w, req);
}

static void record_step(struct world *w)
{
	uint32_t *trace;
	uint64_t nr;
	bool seen[PAGES] = { false };

	if (cis_pager_record_start(w->pager) != -EALREADY || cis_pager_record_stop(w->pager, &trace, &nr))
		return;
	for (uint64_t i = 0; i < nr; i++) {
		if (trace[i] >= PAGES || seen[trace[i]])
			see(w, "a trace names a page twice or none", trace[i]);
		else
			seen[trace[i]] = true;
	}
	free(trace);
}

/* What the words say and what is mapped agree, but for what is under way. */
static void check_words(struct world *w)
{
	for (uint64_t p = 0; p < PAGES; p++) {
		enum cis_page_state s = cis_word_state(w->state.words[p]);
		const uint8_t *ref = w->ref + p * TEST_PAGE;
		bool own_zero = w->memory == PRIVATE && cis_word_cookie(w->state.words[p]) == CIS_RESIDENT_ZERO;
		bool moving = removing(w, p);

		w->left[p] &= w->present[p] && (s == CIS_PAGE_ABSENT || s == CIS_PAGE_BUSY || s == CIS_PAGE_REMOVED);
		if (s == CIS_PAGE_ABSENT && w->present[p] && !w->left[p])
			see(w, "mapped, but absent by its word", p);
		if (s == CIS_PAGE_REMOVED && w->present[p] && !moving && !w->left[p])
			see(w, "mapped, but removed by its word", p);
		if (s != CIS_PAGE_RESIDENT || w->present[p] || moving)
			continue;
		/* A page zapped after zeros were installed for a fault behind its REMOVE: it reads as zeros again. */
		if (w->memory == ANONYMOUS || w->memory == COPIED ? !w->cached[p] && !is_zero(ref) :
		    own_zero ? !is_zero(ref) : memcmp((w->memory == PRIVATE ? w->base : w->mem) + p * TEST_PAGE, ref, TEST_PAGE))
			see(w, "resident by its word, but neither mapped nor in the file", p);
	}
}

/* The host reclaims the mapping of a shared page: it faults again, as minor. */
static void unmap(struct world *w, uint64_t pgno)
{
	if (in_file(w, pgno) && !w->own[pgno] && !w->poisoned[pgno])
		w->present[pgno] = false;
}

/* A clone has the page brought into the base. */
static void other_clone(struct world *w, uint64_t pgno)
{
	if (w->memory == PRIVATE)
		memcpy(w->base + pgno * TEST_PAGE, w->content + pgno * TEST_PAGE, TEST_PAGE);
}

/* Death, and the next one. */

/* What the kernel frees with a process. */
static void bury(struct world *w, struct cis_pager *p)
{
	struct cis_fetch *f;

	if (w->settling && p->jobs_out == w->jobs_before)
		free(w->settling);
	w->settling = NULL;
	for (unsigned i = 0; i < JOBS; i++) {
		if (w->job[i] && w->job[i]->buf && !w->job_over[i])
			cis_scratch_put(w->worker[i], w->job[i]->buf);
		free(w->job[i]);
		w->job[i] = NULL;
	}
	while ((f = p->fetches)) {
		p->fetches = f->next;
		if (f->buf)
			cis_scratch_put(w->scratch, f->buf);
		free(f);
	}
	w->nr_held = 0;
	p->jobs_out = 0;
	cis_pager_destroy(p);
}

/* How far a decode in place had come is anybody's guess. */
static void scribble(struct world *w)
{
	for (uint64_t p = 0; p < PAGES; p++) {
		enum cis_page_state s = cis_word_state(w->state.words[p]);

		if (w->present[p] && (s == CIS_PAGE_BUSY || s == CIS_PAGE_ABSENT || (s == CIS_PAGE_REMOVED && !removing(w, p)))) {
			if (w->memory == ALIASED && !w->poisoned[p])
				see(w, "mapped before its word said so", p);
			w->left[p] = true;
		}
		if (w->memory == ALIASED && s == CIS_PAGE_BUSY && !w->present[p])
			test_fill_page(w->mem + p * TEST_PAGE, 2, test_random(&w->rnd));
	}
}

static void die(struct world *w)
{
	struct cis_pager *p = w->pager ? w->pager : w->adopting;

	w->crashes++;
	w->crash_in = 0;
	w->pager = w->adopting = NULL;
	w->pausing = w->waking = false;
	bury(w, p);
	scribble(w);
}

static void open_pager(struct world *w, bool adopt)
{
	w->opts.state = w->state;
	w->opts.adopt = adopt;
	w->to_kill = 0;
	w->stalls = false; /* the new one finds out for itself */
	w->opts.generation = ++w->generation;
	if (cis_pager_create(&w->opts, &w->adopting, NULL))
		abort();
}

/* The next engine writes another layout, or the same into another memfd. */
static void convert(struct world *w)
{
	unsigned layout = CIS_STATE_LAYOUT_MIN + (unsigned)dice(w, CIS_STATE_LAYOUT_MAX - CIS_STATE_LAYOUT_MIN + 1);
	void *map = calloc(1, cis_state_bytes(layout, PAGES));
	struct cis_state to;

	if (cis_state_convert(&w->state, map, layout, w->generation, &to, NULL))
		abort();
	free(w->state_map);
	w->state_map = map;
	w->layout = layout;
}

/* Counting and recording go on where they were. */
static void check_goes_on(struct world *w, const struct cis_state_header *was, uint64_t zeros)
{
	const struct cis_pager *p = w->adopting;

	if (w->layout == 1)
		return;
	if (cis_pager_recording(p) != was->recording || cis_pager_recorded(p) != (was->recording ? was->nr_trace : 0))
		see(w, "the recording does not go on", 0);
	if (cis_pager_filled(p) != was->filled)
		see(w, "the fill is forgotten", 0);
	if (cis_pager_stats(p)->pages_zero != zeros)
		see(w, "statistics are forgotten", 0);
}

static void adopt(struct world *w)
{
	struct cis_state_header was;
	struct cis_error err;
	uint64_t zeros;

	if (cis_state_adopt(w->state_map, cis_state_bytes(w->layout, PAGES), &w->state, &err)) {
		see(w, "what is left cannot be adopted", 0);
		return;
	}
	if (!dice(w, 4)) {
		convert(w);
		adopt(w);
		return;
	}
	was = *w->state.header;
	zeros = w->state.stats ? ((struct cis_pager_stats *)w->state.stats)->pages_zero : 0;
	open_pager(w, !w->crash_in);
	if (w->crash_in) { /* as cis_pager_create() does, but that it can be buried half way */
		w->adopting->generation = w->generation;
		if (w->layout > 1)
			w->adopting->have = (enum cis_fill)was.filled;
		if (w->layout > 1 && cis_record_adopt(w->adopting, NULL))
			abort();
		cis_adopt(w->adopting);
	}
	if (w->state.header->generation != w->generation)
		see(w, "adopted, but of another generation", 0);
	check_goes_on(w, &was, zeros);
	w->waking = true;
	cis_pager_wake_all(w->adopting);
	w->waking = false;
	w->pager = w->adopting;
	w->adopting = NULL;
	cis_pager_fill(w->pager, (enum cis_fill)dice(w, 3));
}

/* Standing still: nothing changes but by the guest. */
static void stand(struct world *w)
{
	uint64_t words[PAGES];
	bool present[PAGES];

	memcpy(words, w->state.words, sizeof(words));
	for (unsigned i = (unsigned)dice(w, 20); i; i--) {
		balloon_step(w, &w->balloon[dice(w, BALLOONS)], false);
		vcpu_step(w, &w->vcpu[dice(w, VCPUS)], false);
		memcpy(present, w->present, sizeof(present));
		cis_pager_run(w->pager);
		if (cis_pager_next_job(w->pager) || cis_pager_deadline(w->pager) != UINT64_MAX ||
		    memcmp(present, w->present, sizeof(present)))
			see(w, "a paused pager does something", 0);
	}
	if (memcmp(words, w->state.words, sizeof(words)))
		see(w, "a paused pager writes words", 0);
}

static void resume(struct world *w)
{
	w->waking = true;
	cis_pager_resume(w->pager);
	w->waking = w->pausing = false;
}

static void pause_step(struct world *w)
{
	w->pausing = !cis_pager_pause(w->pager);
	if (w->pausing)
		return;
	stand(w);
	w->handovers++;
	if (dice(w, 2)) {
		cis_state_set_generation(&w->state, ++w->generation); /* the other one came that far */
		resume(w);
	} else {
		cis_pager_destroy(w->pager);
		w->pager = NULL;
	}
}

static void dead_step(struct world *w)
{
	switch (dice(w, 4)) {
	case 0:
		vcpu_step(w, &w->vcpu[dice(w, VCPUS)], false);
		break;
	case 1:
		balloon_step(w, &w->balloon[dice(w, BALLOONS)], false);
		break;
	case 2:
		unmap(w, dice(w, PAGES));
		break;
	case 3:
		w->crash_in = dice(w, 3) ? 0 : 1 + (unsigned)dice(w, 60);
		adopt(w);
	}
}

static void rare_step(struct world *w)
{
	unmap(w, dice(w, PAGES));
	other_clone(w, dice(w, PAGES));
	if (!dice(w, 40))
		record_step(w);
	if (!dice(w, 60))
		cis_pager_fill(w->pager, (enum cis_fill)(1 + dice(w, 2)));
	if (w->mortal && !dice(w, 5) && !w->crash_in)
		w->crash_in = 1 + (unsigned)dice(w, 1 + dice(w, 400));
	if (w->moves && !dice(w, 6))
		w->pausing = true;
}

static void live_step(struct world *w)
{
	switch (dice(w, 16)) {
	case 0 ... 4:
		vcpu_step(w, &w->vcpu[dice(w, VCPUS)], false);
		break;
	case 5: case 6:
		balloon_step(w, &w->balloon[dice(w, BALLOONS)], false);
		break;
	case 7 ... 9:
		if (w->pausing)
			pause_step(w);
		else
			cis_pager_run(w->pager);
		break;
	case 10: case 11:
		worker_step(w, (unsigned)dice(w, JOBS));
		break;
	case 12: case 13:
		store_step(w);
		break;
	case 14:
		w->clock_ns += dice(w, 4) ? dice(w, 100000) : dice(w, 400000000);
		break;
	case 15:
		rare_step(w);
	}
	check_words(w);
}

bool world_step(struct world *w)
{
	if (setjmp(w->crashed))
		die(w);
	else if (w->pager)
		live_step(w);
	else
		dead_step(w);
	return !w->wrong;
}

/* Each has what it touched last: a thread that is woken again and again without its page waits for ever too. */
static bool all_run(const struct world *w)
{
	for (unsigned i = 0; i < VCPUS; i++)
		if (w->vcpu[i].state != RUNS || !w->present[w->vcpu[i].pgno])
			return false;
	for (unsigned i = 0; i < BALLOONS; i++)
		if (w->balloon[i].state != IDLE)
			return false;
	return true;
}

bool world_settle(struct world *w)
{
	w->crash_in = 0;
	w->aside = false;
	if (!w->pager)
		adopt(w);
	if (w->pausing)
		resume(w);
	for (unsigned round = 0; round < 400 && !w->wrong; round++) {
		for (unsigned i = 0; i < BALLOONS; i++)
			balloon_step(w, &w->balloon[i], true);
		for (unsigned i = 0; i < VCPUS; i++)
			vcpu_step(w, &w->vcpu[i], true);
		cis_pager_run(w->pager);
		store_step(w);
		for (unsigned i = 0; i < JOBS; i++)
			worker_step(w, i);
		w->clock_ns += 100000000;
		if (all_run(w))
			return true;
	}
	see(w, "a thread waits for ever", 0);
	return false;
}

/* Building a world. */

static void make_memory(struct world *w, struct test_memory *m)
{
	test_memory_init(m, PAGES);
	for (uint64_t p = 0; p < PAGES; p++) {
		bool at_split = w->split % 2 && p + 6 > w->split && p < w->split + 6;
		unsigned kind = at_split ? 0 : (unsigned)dice(w, 5); /* a run of zeros over it */

		test_fill_page(m->mem + p * TEST_PAGE, kind, test_random(&w->rnd));
	}
}

static struct cis_image *make_image(struct world *w, const char *dir)
{
	struct test_memory m;
	struct cis_write_opts opts = { .codec = dice(w, 2) ? CIS_CODEC_MASK : CIS_CODEC_RAW,
				       .chunk_shift = 12 + (unsigned)dice(w, 4) };
	struct cis_image *img;
	uint32_t hot[24];
	char path[200];

	make_memory(w, &m);
	for (unsigned i = 0; i < 24; i++)
		hot[i] = (uint32_t)dice(w, PAGES);
	if (dice(w, 4)) {
		opts.hot = hot;
		opts.nr_hot = 24;
	}
	snprintf(path, sizeof(path), "%s/image", dir);
	img = test_write_image(path, &m, &opts);
	memcpy(w->ref, m.mem, PAGES * TEST_PAGE);
	memcpy(w->content, m.mem, PAGES * TEST_PAGE);
	test_memory_fini(&m);
	return img;
}

void world_open(struct world *w, uint64_t seed, const char *dir)
{
	*w = (struct world){ .seed = seed, .rnd = seed * 0x9e3779b97f4a7c15u + 1, .clock_ns = 1 };
	w->ref = calloc(PAGES, TEST_PAGE);
	w->mem = calloc(PAGES, TEST_PAGE);
	w->memory = (enum memory)dice(w, 4);
	w->base = calloc(PAGES, TEST_PAGE);
	w->content = calloc(PAGES, TEST_PAGE);
	w->late = dice(w, 2);
	w->split = dice(w, PAGES);
	w->trouble = dice(w, 3) ? 0 : 20;
	w->mortal = dice(w, 2);
	w->moves = dice(w, 2);
	w->aside = dice(w, 2);
	w->policy = (enum cis_policy)dice(w, 3);
	w->can_kill = dice(w, 2);
	w->store.ops = &store_ops;
	w->job_store.ops = &job_ops;
	w->img = make_image(w, dir);
	uint8_t *alias = w->memory == ALIASED ? w->mem : w->memory == PRIVATE ? w->base : NULL;

	for (int i = 0; i < 2; i++)
		w->regions[i] = (struct cis_region){
			.hva = HVA + (uint64_t)i * PAGES / 2 * TEST_PAGE, .bytes = PAGES / 2 * TEST_PAGE,
			.offset = (uint64_t)i * PAGES / 2 * TEST_PAGE,
			.kind = w->memory == PRIVATE ? CIS_KIND_PRIVATE : w->memory == ANONYMOUS ? CIS_KIND_ANONYMOUS : CIS_KIND_SHARED,
			.alias = alias ? (char *)alias + (uint64_t)i * PAGES / 2 * TEST_PAGE : NULL,
		};
	w->opts = (struct cis_pager_opts){
		.size = sizeof(w->opts), .regions = w->regions, .nr_regions = 2, .image = w->img, .os = &kernel, .os_ctx = w,
		.clock = model_clock, .clock_ctx = w, .store_of = store_of, .neighbours = dice(w, 2),
		.policy = w->policy, .can_kill = w->can_kill, .tries = 2, .recovered = recovered,
		.store_deadline_ns = w->trouble ? 200000000 : 3600000000000u, .failed = page_failed, .gone = guest_gone, .ctx = w,
	};
	if (cis_scratch_create(&w->scratch))
		abort();
	for (unsigned i = 0; i < JOBS; i++)
		if (cis_scratch_create(&w->worker[i]))
			abort();
	w->opts.scratch = w->scratch;
	w->layout = CIS_STATE_LAYOUT_MIN + (unsigned)dice(w, 2);
	w->state_map = calloc(1, cis_state_bytes(w->layout, PAGES));
	cis_state_init(w->state_map, w->layout, PAGES, 1, &w->state);
	open_pager(w, false);
	w->pager = w->adopting;
	w->adopting = NULL;
	now = w;
	cis_point_hook = at_point;
}

void world_close(struct world *w)
{
	cis_point_hook = NULL;
	w->crash_in = 0;
	if (!w->pager)
		adopt(w);
	for (unsigned i = 0; i < JOBS && w->pager; i++)
		while (w->job[i])
			worker_step(w, i);
	if (w->pager && !cis_pager_quiesce(w->pager))
		see(w, "does not come to rest", 0);
	cis_pager_destroy(w->pager);
	cis_scratch_destroy(w->scratch);
	for (unsigned i = 0; i < JOBS; i++)
		cis_scratch_destroy(w->worker[i]);
	cis_image_unref(w->img);
	free(w->state_map);
	free(w->mem);
	free(w->base);
	free(w->content);
	free(w->ref);
}
