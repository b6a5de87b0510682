#include "pager-model.h"

#include <errno.h>

#include "pager-model-int.h"

/* The store: the image's file, now or later, at times an error or damaged bytes. */

static void answer(struct world *w, struct cis_store_req *req)
{
	bool bad = w->trouble && !world_dice(w, w->trouble);
	int err = 0;

	if (bad && world_dice(w, 2))
		err = -EIO;
	else if (pread(cis_image_fd(w->img), req->buf, req->len, (off_t)req->off) != (ssize_t)req->len)
		err = -EIO;
	else if (bad)
		((uint8_t *)req->buf)[world_dice(w, req->len)] ^= (uint8_t)(1 << world_dice(w, 8));
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
		world_see(w, "a store for another image", 0);
	return &w->store;
}

/* Each look takes time, so that a run of the pager ends in the middle of what it has read. */
static uint64_t model_clock(void *ctx)
{
	return ((struct world *)ctx)->clock_ns += 9000;
}

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	struct world *w = ctx;

	(void)err;
	w->failed++;
	if (!w->trouble)
		world_see(w, "a page failed without trouble", pgno);
	if (outcome == CIS_OUTCOME_KILL && (w->policy != CIS_POLICY_KILL || !w->can_kill || w->to_kill++))
		world_see(w, "killed by another policy, or twice", pgno);
	if (outcome == CIS_OUTCOME_POISON && w->policy != CIS_POLICY_POISON)
		world_see(w, "poisoned by another policy", pgno);
	w->stalls |= outcome == CIS_OUTCOME_STALL;
}

static void recovered(void *ctx)
{
	struct world *w = ctx;

	if (!w->stalls)
		world_see(w, "recovered, but nothing stalled", 0);
	w->stalls = false;
}

static void guest_gone(void *ctx)
{
	world_see(ctx, "given up for gone", 0);
}

/* Workers. */

static void worker_step(struct world *w, unsigned i)
{
	if (!w->job[i]) {
		w->in_claim = true;
		w->job[i] = cis_pager_next_job(w->pager);
		w->in_claim = w->job_over[i] = false;
		world_chance(w);
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

static void evict_step(struct world *w, unsigned i)
{
	if (!w->evict[i]) {
		w->evict[i] = cis_pager_next_evict(w->pager);
		w->evict_over[i] = false;
	} else if (!w->evict_over[i]) {
		w->evict_over[i] = !cis_evict_job_step(w->evict[i], w->worker[i]);
	} else {
		struct cis_evict_job *job = w->evict[i];

		w->evict[i] = NULL; /* freed by it, or lost with it */
		cis_pager_evict_done(w->pager, job);
	}
}

void world_reclaim(struct world *w)
{
	if (w->layout < 3 || !w->regions[0].view || !w->reclaim.budget_pages)
		return;
	if (cis_pager_reclaim(w->pager, &w->reclaim, NULL))
		world_see(w, "cannot reclaim", 0);
}

static void budget_step(struct world *w)
{
	static const enum cis_codec codecs[] = { CIS_CODEC_RAW, CIS_CODEC_MASK, CIS_CODEC_LZ4 };

	w->reclaim = (struct cis_reclaim_opts){ .budget_pages = 4 + world_dice(w, world_dice(w, 2) ? PAGES : 20), .codec = codecs[world_dice(w, 3)],
						.stash_bytes = world_dice(w, 2) ? UINT64_MAX : 3 * CIS_STASH_SEGMENT, .sync = world_dice(w, 2), .prefetch = world_dice(w, 2) };
	if (!world_dice(w, 4))
		w->reclaim.budget_pages = UINT64_MAX;
	w->reclaim.pages = w->pages.ops ? &w->pages : NULL;
	w->reclaim.ns[0] = 7;
	w->reclaim.ns[1] = 9;
	w->reclaim.keep_bytes = world_dice(w, 2) ? 0 : world_dice(w, 100000);
	world_reclaim(w);
}

static void store_step(struct world *w)
{
	world_pages_step(w);
	if (!w->nr_held)
		return;
	unsigned i = (unsigned)world_dice(w, w->nr_held);
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
			world_see(w, "a trace names a page twice or none", trace[i]);
		else
			seen[trace[i]] = true;
	}
	free(trace);
}

/* What the stash has is what the page was. */
static void check_stashed(struct world *w, uint64_t p)
{
	uint64_t word = w->state.words[p];
	const struct cis_value *v = (const struct cis_value *)(w->state.stash + cis_log_off(cis_word_cookie(word)));
	static uint8_t raw[TEST_PAGE];

	if (cis_value_check(v, cis_value_id(p, cis_word_generation(word)), TEST_PAGE + sizeof(*v)) ||
	    cis_value_unpack(v, cis_scratch_decoder(w->scratch, NULL), raw) || memcmp(raw, w->ref + p * TEST_PAGE, TEST_PAGE))
		world_see(w, "not what is in the stash", p);
	if ((w->present[p] || w->cached[p]) && !cis_word_flags(word))
		world_see(w, "in the stash by its word, and in the guest", p);
}

/* Bytes that a stashed page takes in the stash. */
static uint64_t stash_room(struct world *w, uint64_t word)
{
	const struct cis_value *v = (const struct cis_value *)(w->state.stash + cis_log_off(cis_word_cookie(word)));

	return (cis_value_bytes(v) + CIS_LOG_UNIT - 1) & ~(uint64_t)(CIS_LOG_UNIT - 1);
}

/* Each resident page is in the list, or will be when the scan comes to it. */
static void check_listed(struct world *w, uint64_t p)
{
	const struct cis_reclaim *r = &w->pager->reclaim;

	if (r->on && p < r->scanned && cis_word_resident(w->state.words[p]) && !cis_word_flags(w->state.words[p]) &&
	    !cis_bit_test(r->listed, p) && !w->pager->jobs_out)
		world_see(w, "resident, but never to be reclaimed", p);
}

/* Pages are counted as they change, but those of an evict job when it is settled. */
static void check_counts(struct world *w)
{
	uint64_t nr[CIS_PAGE_STATES], stashed = 0;

	cis_pager_pages(w->pager, nr);
	for (uint64_t p = 0; p < PAGES; p++) {
		uint64_t word = w->state.words[p];

		nr[cis_word_state(word)]--;
		if (cis_word_stashed(word))
			stashed += stash_room(w, word);
		check_listed(w, p);
	}
	for (int s = 0; s < CIS_PAGE_STATES && !w->pager->reclaim.jobs_out; s++)
		if (nr[s])
			world_see(w, "pages are counted wrong", (uint64_t)s);
	if (w->state.stash && !w->pager->reclaim.nr_puts && stashed != cis_stash_live(&w->pager->reclaim.stash))
		world_see(w, "the stash keeps what nobody wants, or the other way round", 0);
}

/* A guest that is filled wholly has all that has content, so it may be given to the kernel. */
static void check_filled(struct world *w)
{
	if (cis_pager_filled(w->pager) != CIS_FILL_ALL)
		return;
	for (uint64_t p = 0; p < PAGES; p++) {
		enum cis_page_state s = cis_word_state(w->state.words[p]);

		if (cis_word_stashed(w->state.words[p]) || s == CIS_PAGE_FAR || (s == CIS_PAGE_ABSENT && !world_is_zero(w->content + p * TEST_PAGE)))
			world_see(w, "filled wholly, but not there", p);
	}
}

/* What the words say and what is mapped agree, but for what is under way. */
static void check_words(struct world *w)
{
	for (uint64_t p = 0; p < PAGES; p++) {
		enum cis_page_state s = cis_word_state(w->state.words[p]);
		const uint8_t *ref = w->ref + p * TEST_PAGE;
		bool own_zero = w->memory == PRIVATE && cis_word_cookie(w->state.words[p]) == CIS_RESIDENT_ZERO;
		bool moving = world_removing(w, p);

		if (cis_word_stashed(w->state.words[p]) && !moving && !cis_word_flags(w->state.words[p]))
			check_stashed(w, p);
		if ((s == CIS_PAGE_FAR || s == CIS_PAGE_CLEAN) && !moving && !cis_word_flags(w->state.words[p]))
			world_pages_check(w, p);
		if (s == CIS_PAGE_FAR && !moving && !cis_word_flags(w->state.words[p]) && (w->present[p] || w->cached[p]))
			world_see(w, "far by its word, and in the guest", p);
		if (cis_word_flags(w->state.words[p]))
			continue;
		w->left[p] &= w->present[p] && (s == CIS_PAGE_ABSENT || s == CIS_PAGE_BUSY || s == CIS_PAGE_REMOVED);
		if (s == CIS_PAGE_ABSENT && w->present[p] && !w->left[p])
			world_see(w, "mapped, but absent by its word", p);
		if (s == CIS_PAGE_REMOVED && w->present[p] && !moving && !w->left[p])
			world_see(w, "mapped, but removed by its word", p);
		if (s != CIS_PAGE_RESIDENT || w->present[p] || moving)
			continue;
		/* A page zapped after zeros were installed for a fault behind its REMOVE: it reads as zeros again. */
		if (w->memory == ANONYMOUS || w->memory == COPIED ? !w->cached[p] && !world_is_zero(ref) :
		    own_zero ? !world_is_zero(ref) : memcmp((w->memory == PRIVATE ? w->base : w->mem) + p * TEST_PAGE, ref, TEST_PAGE))
			world_see(w, "resident by its word, but neither mapped nor in the file", p);
	}
}

/* The host reclaims the mapping of a shared page: it faults again, as minor. */
static void unmap(struct world *w, uint64_t pgno)
{
	if (world_in_file(w, pgno) && !w->own[pgno] && !w->poisoned[pgno])
		w->present[pgno] = false;
}

/* A clone has the page brought into the base. */
static void other_clone(struct world *w, uint64_t pgno)
{
	if (w->memory == PRIVATE)
		memcpy(w->base + pgno * TEST_PAGE, w->content + pgno * TEST_PAGE, TEST_PAGE);
}

static void dead_step(struct world *w)
{
	switch (world_dice(w, 4)) {
	case 0:
		world_vcpu_step(w, &w->vcpu[world_dice(w, VCPUS)], false);
		break;
	case 1:
		world_balloon_step(w, &w->balloon[world_dice(w, BALLOONS)], false);
		break;
	case 2:
		unmap(w, world_dice(w, PAGES));
		break;
	case 3:
		w->crash_in = world_dice(w, 3) ? 0 : 1 + (unsigned)world_dice(w, 60);
		world_adopt(w);
	}
}

static void rare_step(struct world *w)
{
	unmap(w, world_dice(w, PAGES));
	world_pages_move(w);
	other_clone(w, world_dice(w, PAGES));
	if (!world_dice(w, 30) && w->reclaim.budget_pages)
		budget_step(w);
	if (!world_dice(w, 40))
		record_step(w);
	if (!world_dice(w, 60))
		cis_pager_fill(w->pager, (enum cis_fill)(1 + world_dice(w, 2)));
	if (w->mortal && !world_dice(w, 5) && !w->crash_in)
		w->crash_in = 1 + (unsigned)world_dice(w, 1 + world_dice(w, 400));
	if (w->moves && !world_dice(w, 6))
		w->pausing = true;
}

static void live_step(struct world *w)
{
	switch (world_dice(w, w->reclaim.budget_pages ? 22 : 16)) {
	case 0 ... 4:
		world_vcpu_step(w, &w->vcpu[world_dice(w, VCPUS)], false);
		break;
	case 5: case 6:
		world_balloon_step(w, &w->balloon[world_dice(w, BALLOONS)], false);
		break;
	case 7 ... 9:
		if (w->pausing)
			world_pause_step(w);
		else
			cis_pager_run(w->pager);
		break;
	case 10:
		worker_step(w, (unsigned)world_dice(w, JOBS));
		break;
	case 11:
		evict_step(w, (unsigned)world_dice(w, JOBS));
		break;
	case 12: case 13:
		store_step(w);
		break;
	case 14:
		w->clock_ns += world_dice(w, 4) ? world_dice(w, 100000) : world_dice(w, 400000000);
		break;
	case 15:
		rare_step(w);
		break;
	case 16 ... 18:
		evict_step(w, (unsigned)world_dice(w, JOBS));
		break;
	default:
		world_vcpu_step(w, &w->vcpu[world_dice(w, 2)], false);
	}
	check_words(w);
	if (w->pager) {
		check_counts(w);
		check_filled(w);
	}
}

bool world_step(struct world *w)
{
	if (setjmp(w->crashed))
		world_die(w);
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
		world_adopt(w);
	if (w->pausing)
		world_resume(w);
	for (unsigned round = 0; round < 400 && !w->wrong; round++) {
		for (unsigned i = 0; i < BALLOONS; i++)
			world_balloon_step(w, &w->balloon[i], true);
		for (unsigned i = 0; i < VCPUS; i++)
			world_vcpu_step(w, &w->vcpu[i], true);
		cis_pager_run(w->pager);
		store_step(w);
		for (unsigned i = 0; i < JOBS; i++)
			worker_step(w, i);
		for (unsigned i = 0; i < JOBS; i++)
			evict_step(w, i);
		w->clock_ns += 100000000;
		if (all_run(w))
			return true;
	}
	world_see(w, "a thread waits for ever", 0);
	return false;
}

/* Building a world. */

static void make_memory(struct world *w, struct test_memory *m)
{
	test_memory_init(m, PAGES);
	for (uint64_t p = 0; p < PAGES; p++) {
		bool at_split = w->split % 2 && p + 6 > w->split && p < w->split + 6;
		unsigned kind = at_split ? 0 : (unsigned)world_dice(w, 5); /* a run of zeros over it */

		test_fill_page(m->mem + p * TEST_PAGE, kind, test_random(&w->rnd));
	}
}

static struct cis_image *make_image(struct world *w, const char *dir)
{
	struct test_memory m;
	struct cis_write_opts opts = { .codec = world_dice(w, 2) ? CIS_CODEC_MASK : CIS_CODEC_RAW,
				       .chunk_shift = 12 + (unsigned)world_dice(w, 4) };
	struct cis_image *img;
	uint32_t hot[24];
	char path[200];

	make_memory(w, &m);
	for (unsigned i = 0; i < 24; i++)
		hot[i] = (uint32_t)world_dice(w, PAGES);
	if (world_dice(w, 4)) {
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
	w->memory = (enum memory)world_dice(w, 4);
	w->base = calloc(PAGES, TEST_PAGE);
	w->content = calloc(PAGES, TEST_PAGE);
	w->late = world_dice(w, 2);
	w->split = world_dice(w, PAGES);
	w->trouble = world_dice(w, 3) ? 0 : 20;
	w->mortal = world_dice(w, 2);
	w->moves = world_dice(w, 2);
	w->aside = world_dice(w, 2);
	w->walks = world_dice(w, 2) ? (unsigned)world_dice(w, 4) : 0;
	w->policy = (enum cis_policy)world_dice(w, 3);
	w->can_kill = world_dice(w, 2);
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
			.view = w->memory == ALIASED || w->memory == COPIED ? (char *)w->mem + (uint64_t)i * PAGES / 2 * TEST_PAGE : NULL,
		};
	w->opts = (struct cis_pager_opts){
		.size = sizeof(w->opts), .regions = w->regions, .nr_regions = 2, .image = w->img, .os = &world_kernel, .os_ctx = w,
		.clock = model_clock, .clock_ctx = w, .store_of = store_of, .neighbours = world_dice(w, 2),
		.policy = w->policy, .can_kill = w->can_kill, .tries = 2, .recovered = recovered,
		.store_deadline_ns = w->trouble ? 200000000 : 3600000000000u, .failed = page_failed, .gone = guest_gone, .ctx = w,
	};
	if (cis_scratch_create(&w->scratch))
		abort();
	for (unsigned i = 0; i < JOBS; i++)
		if (cis_scratch_create(&w->worker[i]))
			abort();
	w->opts.scratch = w->scratch;
	w->layout = world_dice(w, 3) ? CIS_STATE_LAYOUT_MAX : CIS_STATE_LAYOUT_MIN + (unsigned)world_dice(w, 2);
	w->state_map = calloc(1, cis_state_bytes(w->layout, PAGES));
	cis_state_init(w->state_map, w->layout, PAGES, 1, &w->state);
	world_open_pager(w, false);
	w->pager = w->adopting;
	w->adopting = NULL;
	w->reclaim.budget_pages = world_dice(w, 2);
	w->pages.ops = world_dice(w, 3) ? &world_pages : NULL;
	w->says_locs = world_dice(w, 2);
	if (w->reclaim.budget_pages)
		budget_step(w);
	world_watch(w);
}

void world_close(struct world *w)
{
	world_watch(NULL);
	w->crash_in = 0;
	if (!w->pager)
		world_adopt(w);
	for (unsigned i = 0; i < JOBS && w->pager; i++)
		while (w->job[i])
			worker_step(w, i);
	for (unsigned i = 0; i < JOBS && w->pager; i++)
		while (w->evict[i])
			evict_step(w, i);
	for (unsigned i = 0; w->pager && !cis_pager_quiesce(w->pager) && i < 2 * PAGE_REQS; i++)
		world_pages_step(w);
	if (w->pager && !cis_pager_quiesce(w->pager))
		world_see(w, "does not come to rest", 0);
	if (w->pager) {
		w->evictions = cis_pager_stats(w->pager)->evictions;
		w->prefetched = cis_pager_stats(w->pager)->pages_prefetched;
		w->returns = cis_pager_stats(w->pager)->faults_stashed;
		w->far_returns = cis_pager_stats(w->pager)->faults_far;
	}
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
