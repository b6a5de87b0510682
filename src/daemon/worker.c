#include "daemon/worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/stores.h"

#define SLOTS	8u	/* jobs that a worker has begun and whose bytes it waits for */
#define LOOK_NS 5000000u

struct cis_workers {
	pthread_mutex_t lock; /* of all below */
	pthread_cond_t wake;
	struct cis_work *first[CIS_JOB_CLASSES], **end[CIS_JOB_CLASSES];
	uint64_t forget; /* raised by cis_workers_forget() */
	bool stop;
	unsigned nr;
	struct thread *threads;
};

/** struct thread - what a worker has of its own; @job is in the order in which they were begun */
struct thread {
	pthread_t id;
	struct cis_workers *workers;
	struct cis_scratch *scratch;
	struct cis_stores stores;
	struct begun {
		struct cis_work *work;
		struct cis_store *store;
	} job[SLOTS];
	unsigned nr;
	bool must_wait; /* the last one's bytes were not at hand */
};

static unsigned held_for(const struct thread *t, const void *ctx)
{
	unsigned n = 0;

	for (unsigned i = 0; i < t->nr; i++)
		n += t->job[i].work->ctx == ctx;
	return n;
}

/* Bytes that are at hand are better decoded while they are in the cache than put behind others. */
static bool is_waiting(const struct thread *t)
{
	return !t->nr || t->must_wait;
}

/* No more fills of one guest than its share: its store may hang.  Reclaim waits for nothing, so there is always room for it. */
static bool may_take(const struct thread *t, const struct cis_work *work)
{
	return work->evict || (t->nr < SLOTS && held_for(t, work->ctx) < CIS_JOBS_A_WORKER);
}

/* The first of the most urgent class. */
static struct cis_work *take(struct cis_workers *w, const struct thread *t)
{
	for (int c = 0; c < CIS_JOB_CLASSES; c++)
		for (struct cis_work **at = &w->first[c]; *at; at = &(*at)->next) {
			struct cis_work *work = *at;

			if (!may_take(t, work))
				continue;
			*at = work->next;
			if (!work->next)
				w->end[c] = at;
			return work;
		}
	return NULL;
}

static void begin(struct thread *t, struct cis_work *work)
{
	/* Without a store the job fails and its pages go back to be asked for by faults, which report why. */
	struct begun b = { work, cis_stores_of(&t->stores, cis_fill_job_image(work->job), work->layers, NULL) };

	t->must_wait = !cis_fill_job_begin(work->job, t->scratch, b.store);
	t->job[t->nr++] = b;
}

static void run(struct thread *t, unsigned i)
{
	struct begun b = t->job[i];

	while (cis_fill_job_step(b.work->job, t->scratch, b.store))
		;
	memmove(&t->job[i], &t->job[i + 1], (--t->nr - i) * sizeof(b));
	cis_mailbox_post(b.work->to, b.work->done, b.work);
}

/* The first one whose bytes are here.  Return: false: there is none. */
static bool run_ready(struct thread *t)
{
	for (unsigned i = 0; i < t->nr; i++) {
		if (t->job[i].store)
			cis_store_reap(t->job[i].store);
		if (cis_fill_job_begin(t->job[i].work->job, t->scratch, t->job[i].store)) {
			run(t, i);
			return true;
		}
	}
	return false;
}

/* Else a look a while later, as work of other guests may have come. */
static void run_one(struct thread *t)
{
	if (run_ready(t))
		return;
	cis_store_wait(t->job[0].store, cis_now_ns(NULL) + LOOK_NS);
	t->must_wait = true;
}

/*
 * At most 64 pages, half a millisecond: who faults on one of them waits for the end of it, so it is done in one go.  Then fills in hand go
 * on whose bytes have come, however many more of these there are.
 */
static void evict(struct thread *t, struct cis_work *work)
{
	while (cis_evict_job_step(work->evict, t->scratch))
		;
	cis_mailbox_post(work->to, work->done, work);
	run_ready(t);
}

/* Handles that no job in hand reads by. */
static void drop_idle(struct thread *t)
{
	struct cis_store *keep[SLOTS];

	for (unsigned i = 0; i < t->nr; i++)
		keep[i] = t->job[i].store;
	cis_stores_keep(&t->stores, keep, t->nr);
}

static void *worker_main(void *arg)
{
	struct thread *t = arg;
	struct cis_workers *w = t->workers;
	uint64_t forgot = 0;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		bool forget = forgot != w->forget;
		struct cis_work *work = is_waiting(t) ? take(w, t) : NULL;

		if (!work && !t->nr && !forget && w->stop)
			break;
		if (!work && !t->nr && !forget) {
			pthread_cond_wait(&w->wake, &w->lock);
			continue;
		}
		forgot = w->forget;
		pthread_mutex_unlock(&w->lock);
		if (forget)
			drop_idle(t);
		if (work && work->evict)
			evict(t, work);
		else if (work)
			begin(t, work);
		else if (t->nr)
			run_one(t);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
	cis_stores_fini(&t->stores);
	cis_scratch_destroy(t->scratch);
	return NULL;
}

/* With its 4 MiB of scratch: better now than when guests wait. */
static int start(struct cis_workers *w, unsigned nr)
{
	struct thread *t = &w->threads[nr];
	char name[24];
	int rc = cis_scratch_create(&t->scratch);

	if (rc)
		return rc;
	t->workers = w;
	rc = -pthread_create(&t->id, NULL, worker_main, t);
	if (rc) {
		cis_scratch_destroy(t->scratch);
		return rc;
	}
	snprintf(name, sizeof(name), "cis-worker-%u", nr);
	pthread_setname_np(t->id, name);
	return 0;
}

int cis_workers_create(unsigned nr, struct cis_workers **ret)
{
	struct cis_workers *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->threads = calloc(nr, sizeof(*w->threads));
	if (!w->threads) {
		free(w);
		return -ENOMEM;
	}
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	for (int c = 0; c < CIS_JOB_CLASSES; c++)
		w->end[c] = &w->first[c];
	for (; w->nr < nr; w->nr++) {
		int rc = start(w, w->nr);

		if (rc) {
			cis_workers_destroy(w);
			return rc;
		}
	}
	*ret = w;
	return 0;
}

void cis_workers_destroy(struct cis_workers *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->nr; i++)
		pthread_join(w->threads[i].id, NULL);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w->threads);
	free(w);
}

void cis_workers_submit(struct cis_workers *w, enum cis_job_class class, struct cis_work *work)
{
	pthread_mutex_lock(&w->lock);
	work->next = NULL;
	*w->end[class] = work;
	w->end[class] = &work->next;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

void cis_workers_forget(struct cis_workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->forget++;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

unsigned cis_workers_nr(const struct cis_workers *w)
{
	return w->nr;
}
