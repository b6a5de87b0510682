/* How a pager of the model ends, and the next one begins: by death, or by standing still. */
#include "pager-model-int.h"

static void bury_far(struct cis_pager *p)
{
	struct cis_get *g;
	struct cis_put *put;
	struct cis_delete *d;

	while ((g = p->reclaim.gets)) {
		p->reclaim.gets = g->next;
		free(g);
	}
	while ((put = p->reclaim.puts)) {
		p->reclaim.puts = put->next;
		free(put);
	}
	while ((d = p->reclaim.dels)) {
		p->reclaim.dels = d->next;
		free(d);
	}
	p->reclaim.nr_deleting = 0; /* those are lost */
}

/* One thread is all there is, so whoever holds it is the dead one. */
static void let_go(pthread_rwlock_t *gate)
{
	while (pthread_rwlock_trywrlock(gate))
		pthread_rwlock_unlock(gate);
	pthread_rwlock_unlock(gate);
}

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
		free(w->evict[i]);
		w->job[i] = NULL;
		w->evict[i] = NULL;
	}
	while ((f = p->fetches)) {
		p->fetches = f->next;
		if (f->buf)
			cis_scratch_put(w->scratch, f->buf);
		free(f);
	}
	w->nr_held = 0;
	world_pages_orphaned(w);
	bury_far(p);
	p->jobs_out = p->reclaim.jobs_out = 0;
	let_go(&p->gate);
	cis_pager_destroy(p);
}

/* How far a decode in place had come is anybody's guess. */
static void scribble(struct world *w)
{
	for (uint64_t p = 0; p < PAGES; p++) {
		enum cis_page_state s = cis_word_state(w->state.words[p]);
		unsigned flags = cis_word_flags(w->state.words[p]);

		if (w->memory == ALIASED && flags == CIS_WORD_COMING) {
			if (w->present[p])
				world_see(w, "mapped before its word said so", p);
			test_fill_page(w->mem + p * TEST_PAGE, 2, test_random(&w->rnd));
		}
		if (w->present[p] && !flags && (s == CIS_PAGE_BUSY || s == CIS_PAGE_ABSENT || (s == CIS_PAGE_REMOVED && !world_removing(w, p)))) {
			if (w->memory == ALIASED && !w->poisoned[p])
				world_see(w, "mapped before its word said so", p);
			w->left[p] = true;
		}
		if (w->memory == ALIASED && s == CIS_PAGE_BUSY && !w->present[p])
			test_fill_page(w->mem + p * TEST_PAGE, 2, test_random(&w->rnd));
	}
}

void world_die(struct world *w)
{
	struct cis_pager *p = w->pager ? w->pager : w->adopting;

	w->crashes++;
	w->crash_in = 0;
	w->pager = w->adopting = NULL;
	w->pausing = w->waking = false;
	bury(w, p);
	scribble(w);
}

void world_open_pager(struct world *w, bool adopt)
{
	w->opts.state = w->state;
	w->opts.adopt = adopt;
	w->to_kill = 0;
	w->stalls = false; /* the new one finds out for itself */
	w->opts.generation = ++w->generation;
	struct cis_error err;

	if (cis_pager_create(&w->opts, &w->adopting, &err)) {
		fprintf(stderr, "%s\n", err.text);
		world_see(w, "no pager can be made", 0);
	}
}

/* The next engine writes another layout, or the same into another memfd. */
static void convert(struct world *w)
{
	unsigned layout = CIS_STATE_LAYOUT_MIN + (unsigned)world_dice(w, CIS_STATE_LAYOUT_MAX - CIS_STATE_LAYOUT_MIN + 1);
	void *map = calloc(1, cis_state_bytes(layout, PAGES));
	struct cis_state to;

	if (cis_state_convert(&w->state, map, layout, w->generation, &to, NULL)) {
		free(map); /* pages are out of the guest */
		return;
	}
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
		world_see(w, "the recording does not go on", 0);
	if (cis_pager_filled(p) != was->filled)
		world_see(w, "the fill is forgotten", 0);
	if (cis_pager_stats(p)->pages_zero != zeros)
		world_see(w, "statistics are forgotten", 0);
}

void world_adopt(struct world *w)
{
	struct cis_state_header was;
	struct cis_error err;
	uint64_t zeros;

	if (cis_state_adopt(w->state_map, cis_state_bytes(w->layout, PAGES), &w->state, &err)) {
		world_see(w, "what is left cannot be adopted", 0);
		return;
	}
	if (!world_dice(w, 4)) {
		convert(w);
		world_adopt(w);
		return;
	}
	was = *w->state.header;
	zeros = w->state.stats ? ((struct cis_pager_stats *)w->state.stats)->pages_zero : 0;
	world_open_pager(w, !w->crash_in);
	if (w->crash_in) { /* as cis_pager_create() does, but that it can be buried half way */
		w->adopting->generation = w->generation;
		w->adopting->reclaim.claimed = false;
		if (w->layout > 1)
			w->adopting->have = (enum cis_fill)was.filled;
		if (w->layout > 1 && cis_record_adopt(w->adopting, NULL))
			abort();
		if (cis_adopt(w->adopting, NULL))
			world_see(w, "what was reclaimed cannot be adopted", 0);
	}
	if (w->wrong)
		return;
	if (w->state.header->generation != w->generation)
		world_see(w, "adopted, but of another generation", 0);
	check_goes_on(w, &was, zeros);
	w->waking = true;
	cis_pager_wake_all(w->adopting);
	w->waking = false;
	w->pager = w->adopting;
	w->adopting = NULL;
	world_reclaim(w);
	cis_pager_fill(w->pager, (enum cis_fill)world_dice(w, 3));
}

/* Standing still: nothing changes but by the guest. */
static void stand(struct world *w)
{
	uint64_t words[PAGES];
	bool present[PAGES];

	memcpy(words, w->state.words, sizeof(words));
	for (unsigned i = (unsigned)world_dice(w, 20); i; i--) {
		world_balloon_step(w, &w->balloon[world_dice(w, BALLOONS)], false);
		world_vcpu_step(w, &w->vcpu[world_dice(w, VCPUS)], false);
		memcpy(present, w->present, sizeof(present));
		cis_pager_run(w->pager);
		if (cis_pager_next_job(w->pager) || cis_pager_next_evict(w->pager) || cis_pager_deadline(w->pager) != UINT64_MAX ||
		    memcmp(present, w->present, sizeof(present)))
			world_see(w, "a paused pager does something", 0);
	}
	if (memcmp(words, w->state.words, sizeof(words)))
		world_see(w, "a paused pager writes words", 0);
}

void world_resume(struct world *w)
{
	w->waking = true;
	cis_pager_resume(w->pager);
	w->waking = w->pausing = false;
}

void world_pause_step(struct world *w)
{
	w->pausing = !cis_pager_pause(w->pager);
	if (w->pausing)
		return;
	stand(w);
	w->handovers++;
	if (world_dice(w, 2)) {
		cis_state_set_generation(&w->state, ++w->generation); /* the other one came that far */
		world_resume(w);
	} else {
		cis_pager_destroy(w->pager);
		w->pager = NULL;
	}
}
