/* Seats: a guest on its shard, from sitting down to leaving.  What the control thread asks for comes as mail. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "daemon/awake.h"
#include "daemon/log.h"
#include "daemon/shard_int.h"
#include "os/uffd.h"

#define JOBS_BESIDE 2u /* fill jobs out for a guest beside those that workers run: they never wait for the shard */

void cis_seat_notify(struct cis_seat *seat, const struct cis_notice *what)
{
	struct cis_notice *n = malloc(sizeof(*n));

	if (!n)
		cis_give_up("no memory to tell what became of a guest");
	*n = *what;
	n->ctx = seat->ctx;
	cis_mailbox_post(seat->shard->control, seat->notice, n);
}

/* Callbacks of the pager. */

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	cis_seat_notify(ctx, &(struct cis_notice){ .type = CIS_NOTICE_FAILED, .pgno = pgno, .outcome = outcome, .err = *err });
}

static void store_trouble(void *ctx, enum cis_trouble what, const struct cis_error *err)
{
	cis_seat_notify(ctx, &(struct cis_notice){ .type = CIS_NOTICE_TROUBLE, .what = what, .err = *err });
}

static void recovered(void *ctx)
{
	cis_seat_notify(ctx, &(struct cis_notice){ .type = CIS_NOTICE_RECOVERED });
}

static void guest_gone(void *ctx)
{
	cis_seat_notify(ctx, &(struct cis_notice){ .type = CIS_NOTICE_GONE });
}

/*
 * Its userfaultfd is watched for as long as the seat is one, heard or not: to begin may fail, for want of memory or of
 * max_user_watches, and does so before the guest is served; the rest never does.  Not heard, the kernel tells of errors all the
 * same, so then it names no seat, and is edge-triggered.
 */
static int watch(struct cis_seat *seat, int op, bool hears)
{
	struct epoll_event ev = { .events = hears ? EPOLLIN : EPOLLET, .data.ptr = hears ? seat : NULL };

	return epoll_ctl(seat->shard->epoll, op, seat->uffd, &ev) ? -errno : 0;
}

static void hear(struct cis_seat *seat, bool hears)
{
	int rc = watch(seat, EPOLL_CTL_MOD, hears);

	assert(!rc);
}

/* The last that its shard hears of it. */
static void unseat(struct cis_seat *seat)
{
	int rc = watch(seat, EPOLL_CTL_DEL, false);

	assert(!rc);
	seat->left = true;
	atomic_fetch_sub(&seat->shard->seats, 1);
}

void cis_seat_ready(struct cis_seat *seat)
{
	if (!seat->held_ns)
		cis_turn_want(&seat->shard->turns, &seat->turn);
}

/* EPOLLERR: it would block, as its monitor wants it, and would wake this thread for ever. */
void cis_seat_event(struct cis_seat *seat, uint32_t events)
{
	if (events & EPOLLERR)
		cis_uffd_unblock(seat->uffd);
	cis_seat_ready(seat);
}

void cis_seat_due(struct cis_seat *seat, uint64_t now)
{
	if (seat->pages_ns && seat->pages_ns <= now)
		cis_seat_open_pages(seat);
	if (seat->held_ns && seat->held_ns <= now) {
		seat->held_ns = 0;
		hear(seat, true);
	}
	cis_seat_ready(seat);
}

/* Its turn comes: the store that called may be in the middle of something. */
static void read_ended(void *ctx)
{
	cis_seat_ready(ctx);
}

/* A store that cannot be opened still has to answer: each read ends with the reason. */
static void refuse(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	int rc = ((struct cis_shard *)((char *)store - offsetof(struct cis_shard, no_store)))->no_store_rc;

	for (size_t i = 0; i < n; i++)
		reqs[i]->done(reqs[i], rc);
}

static const struct cis_store_ops no_store_ops = { .ops_size = sizeof(struct cis_store_ops), .name = "none", .submit = refuse };

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	struct cis_seat *seat = ctx;
	struct cis_shard *shard = seat->shard;
	struct cis_error err;
	struct cis_store *store = cis_stores_of(&shard->stores, img, seat->layers, &err);

	if (store)
		return store;
	shard->no_store.ops = &no_store_ops;
	shard->no_store_rc = -err.code;
	return &shard->no_store;
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

static void evict_done(void *arg)
{
	struct cis_work *work = arg;
	struct cis_seat *seat = work->ctx;

	cis_pager_evict_done(seat->pager, work->evict);
	free(work);
	settle(seat);
}

/* The pager bounds how many are out. */
static void hand_out_evictions(struct cis_seat *seat)
{
	struct cis_shard *shard = seat->shard;
	struct cis_work *work;

	while ((work = malloc(sizeof(*work)))) {
		*work = (struct cis_work){ .evict = cis_pager_next_evict(seat->pager), .to = &shard->box, .done = evict_done, .ctx = seat };
		if (!work->evict)
			break;
		cis_workers_submit(shard->workers, CIS_JOB_RECLAIM, work);
	}
	free(work);
}

static void hand_out(struct cis_seat *seat)
{
	struct cis_shard *shard = seat->shard;
	/* Before the guest runs, so many that each worker can read ahead; then few, since faults may wait for them. */
	unsigned each = seat->told < CIS_FILL_HOT ? CIS_JOBS_A_WORKER : 1;

	while (seat->jobs_out < cis_workers_nr(shard->workers) * each + JOBS_BESIDE) {
		struct cis_work *work = malloc(sizeof(*work));
		enum cis_job_class class = seat->told < CIS_FILL_HOT ? CIS_JOB_FILL : CIS_JOB_BACKGROUND;

		if (!work) {
			cis_pager_fill_later(seat->pager);
			return;
		}
		*work = (struct cis_work){ .job = cis_pager_next_job(seat->pager), .layers = seat->layers, .to = &shard->box,
					  .done = job_done, .ctx = seat };
		if (!work->job) {
			free(work);
			if (cis_pager_scans(seat->pager))
				cis_turn_used(&shard->turns, &seat->turn, CIS_QUANTUM_NS);
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
	__atomic_store_n(&seat->told, level, __ATOMIC_RELEASE);
	if (level == CIS_FILL_ALL && seat->detach)
		cis_pager_detach(seat->pager);
	cis_seat_notify(seat, &(struct cis_notice){ .type = CIS_NOTICE_FILLED, .level = level });
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

uint64_t cis_seat_deadline(const struct cis_seat *seat)
{
	uint64_t at = seat->held_ns ? seat->held_ns : cis_pager_deadline(seat->pager);

	return seat->pages_ns && seat->pages_ns < at ? seat->pages_ns : at;
}

static void retime(struct cis_seat *seat)
{
	bool want = cis_seat_deadline(seat) != UINT64_MAX;

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
	struct cis_error err = { 0 };

	if (!cis_pager_quiesce(seat->pager) || !cis_seat_forget_pages(seat, &err))
		return; /* a job, a read or a delete is still out, and comes back here */
	untime(seat);
	cis_turn_drop(&seat->shard->turns, &seat->turn);
	if (seat->told == CIS_FILL_ALL)
		cis_pager_detach(seat->pager); /* its monitor may hold the userfaultfd and run on, with nobody to answer */
	seat->leaving = false;
	unseat(seat);
	cis_seat_notify(seat, &(struct cis_notice){ .type = CIS_NOTICE_LEFT, .err = err });
}

static void pause_now(struct cis_seat *seat)
{
	if (seat->paused || !cis_pager_pause(seat->pager))
		return; /* or a job or a read is still out, and comes back here */
	seat->paused = true;
	cis_seat_part_pages(seat); /* another engine may have to lock what it wrote to */
	cis_seat_notify(seat, &(struct cis_notice){ .type = CIS_NOTICE_PAUSED });
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
	hand_out_evictions(seat);
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
	cis_pager_held_back(seat->pager);
	hear(seat, false);
}

void cis_seat_serve(struct cis_seat *seat)
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

/* Seats, from the control thread. */

static int record(struct cis_seat *seat, struct cis_error *err)
{
	int rc = cis_pager_record_start(seat->pager);

	return rc && rc != -EALREADY ? cis_fail(err, -rc, "its first touches cannot be recorded: %s", strerror(-rc)) : 0;
}

static int reclaim_of(struct cis_seat *seat, const struct cis_seat_opts *opts, struct cis_error *err)
{
	seat->reclaim = *opts->reclaim;
	seat->header = opts->pager.state.header;
	if (opts->pages && *opts->pages && !(seat->pages = strdup(opts->pages)))
		return cis_fail(err, ENOMEM, "out of memory for a guest");
	return cis_pager_reclaim(seat->pager, &seat->reclaim, err);
}

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
		.adopted = opts->pager.adopt, .notice = opts->notice, .ctx = opts->ctx,
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
	rc = watch(seat, EPOLL_CTL_ADD, false);
	if (rc) {
		free(seat);
		return cis_fail(err, -rc, "its userfaultfd cannot be watched: epoll: %s", strerror(-rc));
	}
	atomic_fetch_add(&shard->seats, 1);
	rc = cis_pager_create(&pager, &seat->pager, err);
	if (!rc && opts->reclaim)
		rc = reclaim_of(seat, opts, err);
	if (!rc && opts->record)
		rc = record(seat, err);
	if (rc)
		cis_seat_destroy(seat);
	else
		*ret = seat;
	return rc;
}

static void sit(void *arg)
{
	struct cis_seat *seat = arg;

	if (seat->adopted)
		cis_pager_wake_all(seat->pager);
	hear(seat, true);
	cis_seat_open_pages(seat);
	cis_pager_fill(seat->pager, seat->fill);
	cis_seat_serve(seat);
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

struct reclaim {
	struct cis_seat *seat;
	const struct cis_reclaim_opts *opts;
	const char *pages;
	struct cis_error *err;
	int rc;
};

static void reclaim(void *arg)
{
	struct reclaim *r = arg;

	r->rc = cis_seat_change_pages(r->seat, r->opts, r->pages, r->err);
	settle(r->seat);
}

int cis_seat_reclaim(struct cis_seat *seat, const struct cis_reclaim_opts *opts, const char *pages, struct cis_error *err)
{
	struct reclaim r = { seat, opts, pages, err, 0 };

	cis_mailbox_call(&seat->shard->box, reclaim, &r);
	return r.rc;
}

bool cis_seat_is_filled(const struct cis_seat *seat)
{
	return __atomic_load_n(&seat->told, __ATOMIC_ACQUIRE) == CIS_FILL_ALL;
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
	hear(seat, false);
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
	hear(seat, true);
	seat->pausing = seat->paused = false;
	cis_pager_resume(seat->pager);
	cis_seat_open_pages(seat);
	cis_seat_serve(seat);
}

void cis_seat_resume(struct cis_seat *seat)
{
	cis_mailbox_post(&seat->shard->box, resume, seat);
}

void cis_seat_destroy(struct cis_seat *seat)
{
	if (!seat)
		return;
	if (!seat->left)
		unseat(seat);
	assert(!seat->page_user.of);
	cis_pager_destroy(seat->pager);
	free(seat->pages);
	free(seat);
}

void cis_seat_killed(struct cis_seat *seat)
{
	cis_pager_killed(seat->pager);
}

void cis_seat_pages(const struct cis_seat *seat, uint64_t *ret)
{
	cis_pager_pages(seat->pager, ret);
}

void cis_seat_memory(struct cis_seat *seat, uint64_t *ret_refaults, uint64_t *ret_stash_bytes)
{
	*ret_refaults = cis_pager_refaults(seat->pager);
	*ret_stash_bytes = cis_pager_stash_bytes(seat->pager);
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
	ask->report->recording = cis_pager_recording(p);
	ask->report->recorded = cis_pager_recorded(p);
	ask->report->memory_bytes = cis_pager_memory(p);
	ask->report->stash_bytes = cis_pager_stash_bytes(p);
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
