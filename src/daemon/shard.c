#include "daemon/shard.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "daemon/awake.h"
#include "daemon/stores.h"
#include "daemon/turns.h"

#define EVENTS	    64
#define JOBS_BESIDE 2u /* fill jobs out for a guest beside those that workers run: they never wait for the shard */

struct cis_shard {
	pthread_t thread;
	int epoll;
	struct cis_mailbox box;
	struct cis_mailbox *control;
	struct cis_awake *awake;
	struct cis_workers *workers;
	struct cis_scratch *scratch;
	struct cis_stores stores;
	struct cis_seat *timed; /* those with a deadline */
	struct cis_turns turns; /* of those that have something to do */
	bool stop;
	atomic_uint seats;
};

struct cis_seat {
	struct cis_turn turn; /* first: the seat is found by it */
	struct cis_shard *shard;
	struct cis_pager *pager;
	int uffd;
	struct cis_layers *layers;
	enum cis_fill fill, told;
	bool detach, record, adopted, sitting, leaving, pausing, paused, is_timed;
	unsigned jobs_out;
	uint64_t event_ns, burst, full_ns, held_ns, held_back; /* its rate, see hold_back(); held_ns: until then, 0: it is not */
	void (*notice)(void *notice);
	void *ctx;
	struct cis_seat *next_timed;
};

static void notify(struct cis_seat *seat, const struct cis_notice *what)
{
	struct cis_notice *n = malloc(sizeof(*n));

	if (!n)
		abort(); /* a failure that nobody hears of is worse */
	*n = *what;
	n->ctx = seat->ctx;
	cis_mailbox_post(seat->shard->control, seat->notice, n);
}

/* Callbacks of the pager. */

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	notify(ctx, &(struct cis_notice){ .type = CIS_NOTICE_FAILED, .pgno = pgno, .outcome = outcome, .err = *err });
}

static void store_trouble(void *ctx, bool fill, const struct cis_error *err)
{
	notify(ctx, &(struct cis_notice){ .type = CIS_NOTICE_TROUBLE, .fill = fill, .err = *err });
}

static void recovered(void *ctx)
{
	notify(ctx, &(struct cis_notice){ .type = CIS_NOTICE_RECOVERED });
}

static void guest_gone(void *ctx)
{
	notify(ctx, &(struct cis_notice){ .type = CIS_NOTICE_GONE });
}

static void make_ready(struct cis_seat *seat)
{
	if (!seat->held_ns)
		cis_turn_want(&seat->shard->turns, &seat->turn);
}

/* Its turn comes: the store that called may be in the middle of something. */
static void read_ended(void *ctx)
{
	make_ready(ctx);
}

/* A store that cannot be opened still has to answer: each read ends with the reason. */
static void refuse(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	(void)store;
	for (size_t i = 0; i < n; i++)
		reqs[i]->done(reqs[i], -EMFILE);
}

static struct cis_store no_store = {
	.ops = &(const struct cis_store_ops){ .ops_size = sizeof(struct cis_store_ops), .name = "none", .submit = refuse },
};

static void watch(struct cis_shard *shard, int fd, void *ptr)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = ptr };

	epoll_ctl(shard->epoll, EPOLL_CTL_ADD, fd, &ev);
}

static void poll_events(struct cis_seat *seat, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = seat };

	if (seat->sitting)
		epoll_ctl(seat->shard->epoll, EPOLL_CTL_MOD, seat->uffd, &ev);
}

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	struct cis_seat *seat = ctx;
	struct cis_shard *shard = seat->shard;
	size_t before = shard->stores.nr;
	struct cis_store *store = cis_stores_of(&shard->stores, img, seat->layers, NULL);

	if (!store)
		return &no_store;
	if (shard->stores.nr != before)
		watch(shard, cis_store_fd(store), &shard->stores);
	return store;
}

/* Fill. */

static void settle(struct cis_seat *seat);

static void job_done(void *arg)
{
	struct cis_work *work = arg;
	struct cis_seat *seat = work->ctx;

	cis_pager_job_done(seat->pager, work->job);
	free(work);
	seat->jobs_out--;
	settle(seat);
}

static void hand_out(struct cis_seat *seat)
{
	struct cis_shard *shard = seat->shard;
	/* Before the guest runs, so many that each worker can read ahead; then few, since faults may wait for them. */
	unsigned each = seat->told < CIS_FILL_HOT ? CIS_JOBS_A_WORKER : 1;

	while (seat->jobs_out < cis_workers_nr(shard->workers) * each + JOBS_BESIDE) {
		struct cis_work *work = malloc(sizeof(*work));
		enum cis_job_class class = seat->told < CIS_FILL_HOT ? CIS_JOB_FILL : CIS_JOB_BACKGROUND;

		if (!work)
			return;
		*work = (struct cis_work){ .job = cis_pager_next_job(seat->pager), .layers = seat->layers, .to = &shard->box,
					  .done = job_done, .ctx = seat };
		if (!work->job) {
			free(work);
			return;
		}
		seat->jobs_out++;
		cis_workers_submit(shard->workers, class, work);
	}
}

static void tell_filled(struct cis_seat *seat)
{
	enum cis_fill level = cis_pager_filled(seat->pager);

	if (level == CIS_FILL_ALL && !cis_pager_can_detach(seat->pager))
		level = CIS_FILL_HOT;
	if (seat->fill == CIS_FILL_NONE || level == seat->told)
		return;
	seat->told = level;
	if (level == CIS_FILL_ALL && seat->detach)
		cis_pager_detach(seat->pager);
	notify(seat, &(struct cis_notice){ .type = CIS_NOTICE_FILLED, .level = level });
}

/* Deadlines. */

static void untime(struct cis_seat *seat)
{
	struct cis_seat **at = &seat->shard->timed;

	if (!seat->is_timed)
		return;
	while (*at != seat)
		at = &(*at)->next_timed;
	*at = seat->next_timed;
	seat->is_timed = false;
}

static uint64_t deadline_of(const struct cis_seat *seat)
{
	return seat->held_ns ? seat->held_ns : cis_pager_deadline(seat->pager);
}

static void retime(struct cis_seat *seat)
{
	bool want = deadline_of(seat) != UINT64_MAX;

	if (want == seat->is_timed)
		return;
	if (!want) {
		untime(seat);
		return;
	}
	seat->next_timed = seat->shard->timed;
	seat->shard->timed = seat;
	seat->is_timed = true;
}

static void leave_now(struct cis_seat *seat)
{
	struct cis_shard *shard = seat->shard;

	if (!cis_pager_quiesce(seat->pager))
		return; /* a job or a read is still out, and comes back here */
	untime(seat);
	cis_turn_drop(&shard->turns, &seat->turn);
	if (seat->told == CIS_FILL_ALL)
		cis_pager_detach(seat->pager); /* its monitor may hold the userfaultfd and run on, with nobody to answer */
	if (seat->sitting)
		epoll_ctl(shard->epoll, EPOLL_CTL_DEL, seat->uffd, NULL);
	seat->sitting = seat->leaving = false;
	atomic_fetch_sub(&shard->seats, 1);
	notify(seat, &(struct cis_notice){ .type = CIS_NOTICE_LEFT });
}

static void pause_now(struct cis_seat *seat)
{
	if (seat->paused || !cis_pager_pause(seat->pager))
		return; /* or a job or a read is still out, and comes back here */
	if (seat->sitting)
		epoll_ctl(seat->shard->epoll, EPOLL_CTL_DEL, seat->uffd, NULL);
	seat->paused = true;
	notify(seat, &(struct cis_notice){ .type = CIS_NOTICE_PAUSED });
}

/* After anything that moved the pager. */
static void settle(struct cis_seat *seat)
{
	if (seat->leaving) {
		leave_now(seat);
		return;
	}
	if (seat->pausing) {
		pause_now(seat);
		return;
	}
	hand_out(seat);
	tell_filled(seat);
	retime(seat);
}

/* Turns. */

/* Its events wait in the kernel until its rate allows more (a bucket of tokens, kept as the time at which it is full again). */
static void hold_back(struct cis_seat *seat, unsigned events)
{
	uint64_t now, burst_ns = seat->burst * seat->event_ns;

	if (!seat->event_ns || !events)
		return;
	now = cis_now_ns(NULL);
	if (seat->full_ns < now)
		seat->full_ns = now;
	seat->full_ns += events * seat->event_ns;
	if (seat->full_ns <= now + burst_ns)
		return;
	seat->held_ns = seat->full_ns - burst_ns;
	seat->held_back++;
	poll_events(seat, 0);
}

/* It may be the last of the seat: another thread frees it when it has left. */
static void serve(struct cis_seat *seat)
{
	struct cis_turns *turns = &seat->shard->turns;
	unsigned events;
	uint64_t ns;
	bool more = false;

	cis_awake_touch(seat->shard->awake);
	if (!seat->pausing) {
		more = cis_pager_run(seat->pager);
		cis_pager_slice(seat->pager, &ns, &events);
		cis_turn_used(turns, &seat->turn, ns);
		hold_back(seat, events);
	}
	if (more && !seat->held_ns)
		cis_turn_again(turns, &seat->turn);
	settle(seat);
}

static void serve_round(struct cis_shard *shard)
{
	struct cis_turn *turn;

	cis_turns_round(&shard->turns);
	while ((turn = cis_turns_next(&shard->turns)))
		serve((struct cis_seat *)turn);
}

static void ready_due(struct cis_shard *shard)
{
	struct cis_seat *seat = shard->timed, *next;
	uint64_t now;

	if (!seat)
		return;
	now = cis_now_ns(NULL);
	for (; seat; seat = next) {
		next = seat->next_timed;
		if (deadline_of(seat) > now)
			continue;
		if (seat->held_ns) {
			seat->held_ns = 0;
			poll_events(seat, EPOLLIN);
		}
		make_ready(seat);
	}
}

/* How long to wait, or NULL for ever. */
static const struct timespec *timeout_of(const struct cis_shard *shard, struct timespec *ts)
{
	uint64_t at = cis_turns_any(&shard->turns) ? 0 : UINT64_MAX, now;

	for (const struct cis_seat *seat = shard->timed; seat && at; seat = seat->next_timed)
		if (deadline_of(seat) < at)
			at = deadline_of(seat);
	if (at == UINT64_MAX)
		return NULL;
	now = at ? cis_now_ns(NULL) : 0;
	at = at > now ? at - now : 0;
	ts->tv_sec = (time_t)(at / 1000000000u);
	ts->tv_nsec = (long)(at % 1000000000u);
	return ts;
}

static void reap_stores(struct cis_shard *shard)
{
	for (size_t i = 0; i < shard->stores.nr; i++)
		cis_store_reap(shard->stores.entry[i].store);
}

static void *shard_main(void *arg)
{
	struct cis_shard *shard = arg;
	struct epoll_event ev[EVENTS];

	while (!shard->stop) {
		struct timespec ts;
		int n = epoll_pwait2(shard->epoll, ev, EVENTS, timeout_of(shard, &ts), NULL);
		bool mail = false;

		for (int i = 0; i < n; i++) {
			if (ev[i].data.ptr == &shard->box)
				mail = true;
			else if (ev[i].data.ptr == &shard->stores)
				reap_stores(shard);
			else
				make_ready(ev[i].data.ptr);
		}
		ready_due(shard);
		if (mail)
			cis_mailbox_run(&shard->box); /* a seat that leaves is taken off the list */
		serve_round(shard);
	}
	return NULL;
}

int cis_shard_create(unsigned nr, struct cis_workers *workers, struct cis_mailbox *control,
		     struct cis_awake *awake, struct cis_shard **ret)
{
	struct cis_shard *shard = calloc(1, sizeof(*shard));
	char name[16];
	int rc;

	if (!shard)
		return -ENOMEM;
	shard->workers = workers;
	shard->control = control;
	shard->awake = awake;
	cis_turns_init(&shard->turns, cis_now_ns, NULL);
	rc = cis_scratch_create(&shard->scratch);
	if (rc)
		goto fail;
	rc = cis_mailbox_init(&shard->box);
	if (rc)
		goto fail_scratch;
	shard->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (shard->epoll < 0) {
		rc = -errno;
		goto fail_box;
	}
	watch(shard, shard->box.event, &shard->box);
	rc = -pthread_create(&shard->thread, NULL, shard_main, shard);
	if (rc)
		goto fail_epoll;
	snprintf(name, sizeof(name), "cis-shard-%u", nr);
	pthread_setname_np(shard->thread, name);
	*ret = shard;
	return 0;
fail_epoll:
	close(shard->epoll);
fail_box:
	cis_mailbox_fini(&shard->box);
fail_scratch:
	cis_scratch_destroy(shard->scratch);
fail:
	free(shard);
	return rc;
}

static void stop(void *arg)
{
	((struct cis_shard *)arg)->stop = true;
}

void cis_shard_destroy(struct cis_shard *shard)
{
	if (!shard)
		return;
	assert(!atomic_load(&shard->seats));
	cis_mailbox_post(&shard->box, stop, shard);
	pthread_join(shard->thread, NULL);
	cis_stores_fini(&shard->stores);
	close(shard->epoll);
	cis_mailbox_fini(&shard->box);
	cis_scratch_destroy(shard->scratch);
	free(shard);
}

struct forget {
	struct cis_shard *shard;
	const struct cis_image *img;
	const struct cis_layers *layers;
};

static void forget(void *arg)
{
	struct forget *f = arg;

	cis_stores_drop(&f->shard->stores, f->img, f->layers);
}

void cis_shard_forget(struct cis_shard *shard, const struct cis_image *img, const struct cis_layers *layers)
{
	struct forget f = { shard, img, layers };

	cis_mailbox_call(&shard->box, forget, &f);
}

unsigned cis_shard_seats(const struct cis_shard *shard)
{
	return atomic_load(&shard->seats);
}

/* Seats, from the control thread. */

int cis_seat_create(struct cis_shard *shard, const struct cis_seat_opts *opts, struct cis_seat **ret,
		    struct cis_error *err)
{
	struct cis_seat *seat = calloc(1, sizeof(*seat));
	struct cis_pager_opts pager = opts->pager;
	int rc;

	if (!seat)
		return cis_fail(err, ENOMEM, "out of memory for a guest");
	*seat = (struct cis_seat){
		.shard = shard, .uffd = opts->uffd, .layers = opts->layers, .fill = opts->fill, .detach = opts->detach,
		.event_ns = opts->fault_rate ? 1000000000u / opts->fault_rate : 0, .burst = opts->fault_burst,
		.record = opts->record, .adopted = opts->pager.adopt, .notice = opts->notice, .ctx = opts->ctx,
	};
	pager.size = sizeof(pager);
	pager.os = &cis_pager_os_uffd;
	pager.os_ctx = &seat->uffd;
	pager.clock = cis_now_ns;
	pager.scratch = shard->scratch;
	pager.store_of = store_of;
	pager.failed = page_failed;
	pager.trouble = store_trouble;
	pager.recovered = recovered;
	pager.gone = guest_gone;
	pager.stirred = read_ended;
	pager.ctx = seat;
	rc = cis_pager_create(&pager, &seat->pager, err);
	if (rc) {
		free(seat);
		return rc;
	}
	atomic_fetch_add(&shard->seats, 1);
	*ret = seat;
	return 0;
}

static void sit(void *arg)
{
	struct cis_seat *seat = arg;

	if (seat->record)
		cis_pager_record_start(seat->pager);
	if (seat->adopted)
		cis_pager_wake_all(seat->pager);
	watch(seat->shard, seat->uffd, seat);
	seat->sitting = true;
	cis_pager_fill(seat->pager, seat->fill);
	serve(seat);
}

void cis_seat_sit(struct cis_seat *seat)
{
	cis_mailbox_post(&seat->shard->box, sit, seat);
}

struct fill {
	struct cis_seat *seat;
	enum cis_fill fill;
};

static void fill(void *arg)
{
	struct fill *f = arg;

	f->seat->fill = f->fill;
	f->seat->detach |= f->fill == CIS_FILL_ALL;
	cis_pager_fill(f->seat->pager, f->fill);
	settle(f->seat);
}

void cis_seat_fill(struct cis_seat *seat, enum cis_fill level)
{
	struct fill f = { seat, level };

	cis_mailbox_call(&seat->shard->box, fill, &f);
}

static void leave(void *arg)
{
	struct cis_seat *seat = arg;

	seat->leaving = true;
	leave_now(seat);
}

void cis_seat_leave(struct cis_seat *seat)
{
	cis_mailbox_post(&seat->shard->box, leave, seat);
}

static void pause_seat(void *arg)
{
	struct cis_seat *seat = arg;

	seat->pausing = true;
	if (seat->held_ns)
		poll_events(seat, EPOLLIN);
	seat->held_ns = 0;
	cis_turn_drop(&seat->shard->turns, &seat->turn);
	untime(seat);
	settle(seat);
}

void cis_seat_pause(struct cis_seat *seat)
{
	cis_mailbox_post(&seat->shard->box, pause_seat, seat);
}

static void resume(void *arg)
{
	struct cis_seat *seat = arg;

	if (seat->leaving || !seat->pausing)
		return;
	if (seat->paused && seat->sitting)
		watch(seat->shard, seat->uffd, seat);
	seat->pausing = seat->paused = false;
	cis_pager_resume(seat->pager);
	serve(seat);
}

void cis_seat_resume(struct cis_seat *seat)
{
	cis_mailbox_post(&seat->shard->box, resume, seat);
}

void cis_seat_destroy(struct cis_seat *seat)
{
	if (!seat)
		return;
	cis_pager_destroy(seat->pager);
	free(seat);
}

struct ask {
	struct cis_seat *seat;
	struct cis_seat_report *report;
	int rc;
	uint32_t *trace;
	uint64_t nr;
};

static void report(void *arg)
{
	struct ask *ask = arg;
	struct cis_pager *p = ask->seat->pager;

	ask->report->stats = *cis_pager_stats(p);
	ask->report->stats.held_back = ask->seat->held_back;
	ask->report->recording = cis_pager_recording(p);
	ask->report->recorded = cis_pager_recorded(p);
	ask->report->memory_bytes = cis_pager_memory(p);
	cis_pager_progress(p, &ask->report->fill_done, &ask->report->fill_total);
}

void cis_seat_report(struct cis_seat *seat, struct cis_seat_report *ret)
{
	struct ask ask = { .seat = seat, .report = ret };

	cis_mailbox_call(&seat->shard->box, report, &ask);
}

static void record_start(void *arg)
{
	struct ask *ask = arg;

	ask->rc = cis_pager_record_start(ask->seat->pager);
}

int cis_seat_record_start(struct cis_seat *seat)
{
	struct ask ask = { .seat = seat };

	cis_mailbox_call(&seat->shard->box, record_start, &ask);
	return ask.rc;
}

static void record_stop(void *arg)
{
	struct ask *ask = arg;

	ask->rc = cis_pager_record_stop(ask->seat->pager, &ask->trace, &ask->nr);
	settle(ask->seat); /* the fill goes on */
}

int cis_seat_record_stop(struct cis_seat *seat, uint32_t **ret, uint64_t *ret_nr)
{
	struct ask ask = { .seat = seat };

	cis_mailbox_call(&seat->shard->box, record_stop, &ask);
	if (!ask.rc) {
		*ret = ask.trace;
		*ret_nr = ask.nr;
	}
	return ask.rc;
}
