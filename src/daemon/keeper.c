#include "daemon/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/point.h"
#include "daemon/keep_exec.h"
#include "daemon/keeper_int.h"

#define UPGRADE_NS 10000000000ull
#define REFUSAL_NS 1000000000ull

int watch_add(struct cis_keeper *k, struct watch *w, int fd, uint32_t events,
	      void (*ready)(struct watch *, uint32_t))
{
	struct epoll_event ev = { .events = events, .data.ptr = w };

	if (epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &ev))
		return -errno;
	w->k = k;
	w->fd = fd;
	w->ready = ready;
	return 0;
}

void watch_remove(struct watch *w)
{
	if (w->fd >= 0)
		epoll_ctl(w->k->epoll, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
}

void watch_close(struct watch *w)
{
	int fd = w->fd;

	watch_remove(w);
	if (fd >= 0)
		close(fd);
}

/* The kernel gives the lowest number that is free. */
bool keeper_is_short(int fd)
{
	struct rlimit files;

	return fd >= 0 && !getrlimit(RLIMIT_NOFILE, &files) && (rlim_t)fd + KEEPER_FDS_FREE >= files.rlim_cur;
}

void keeper_refused(struct cis_keeper *k, const char *fmt, ...)
{
	uint64_t now = keeper_now(k);
	char text[300];
	va_list ap;

	if (now < k->refusal_ns) {
		k->nr_refusals++;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cis_log(CIS_LOG_WARN, "keeper: %s; a connection was closed (and %zu more since the last such line)", text,
		k->nr_refusals);
	k->nr_refusals = 0;
	k->refusal_ns = now + REFUSAL_NS;
}

static void stop(struct cis_keeper *k)
{
	if (k->nr_guests)
		cis_log(CIS_LOG_INFO, "keeper: asked to stop; %zu guest(s) are held until they have gone, or depend on it no more",
			k->nr_guests);
	if (k->is_stopping)
		return;
	k->is_stopping = true;
	keep_say(k, "STOPPING=1\nSTATUS=stopping: no new guests are taken");
	listeners_close(k);
	conns_drop(k, conn_is_silent);
	if (k->serving)
		k->serving->due |= DUE_STOP;
}

static void signal_ready(struct watch *w, uint32_t events)
{
	struct signalfd_siginfo info;

	if (read(w->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP) /* of a terminal that was closed, or of somebody who wants a file to be read again */
		cis_log(CIS_LOG_INFO, "keeper: SIGHUP: nothing is read again; it goes on");
	else
		stop(w->k);
}

static int catch_signals(struct cis_keeper *k)
{
	sigset_t set;
	int fd, r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	r = watch_add(k, &k->signals, fd, EPOLLIN, signal_ready);
	if (r)
		close(fd);
	return r;
}

/* Everything here is a wish: a keeper that may not have it works too. */
static void ask_for_more(struct cis_keeper *k)
{
	struct rlimit files;

	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	oom_lower(k);
}

int cis_keeper_create(struct cis_keeper **ret, struct cis_error *err)
{
	struct cis_keeper *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return cis_fail(err, ENOMEM, "keeper: no memory");
	keep_init(&k->keep);
	k->clock = cis_now_ns;
	k->upgrade_ns = UPGRADE_NS;
	k->handover.sections = k->exec.out.fd = -1;
	k->exec.out.k = k;
	k->signals.fd = k->control_fd = k->heir.fd = -1;
	k->heir.k = k;
	k->will.wire = k->will.pidfd = -1;
	k->signals.k = k;
	for (unsigned i = 0; i < KEEPER_ENGINES; i++) {
		struct engine *e = &k->engines[i];

		e->slot = i;
		e->wire.fd = e->process.fd = -1;
		e->wire.k = e->process.k = k;
	}
	k->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	k->epoll = epoll_create1(EPOLL_CLOEXEC);
	r = k->epoll < 0 || k->spare < 0 ? -errno : catch_signals(k);
	if (r) {
		cis_keeper_destroy(k);
		return cis_fail(err, -r, "keeper: cannot wait for events: %s", strerror(-r));
	}
	ask_for_more(k);
	*ret = k;
	return 0;
}

void cis_keeper_destroy(struct cis_keeper *k)
{
	if (!k)
		return;
	k->serving = NULL; /* nothing follows */
	for (unsigned i = 0; i < KEEPER_ENGINES; i++) {
		engine_close(&k->engines[i]);
		watch_close(&k->engines[i].process);
	}
	listeners_close(k);
	conns_drop(k, conn_is_any);
	free(k->handover.program);
	if (k->handover.sections >= 0)
		close(k->handover.sections);
	exec_close(k);
	control_close(k);
	argv_free(k->argv);
	argv_free(k->envp);
	keep_ledger_end(k);
	keep_heir_end(k);
	keep_fini(&k->keep);
	watch_close(&k->signals);
	if (k->spare >= 0)
		close(k->spare);
	if (k->epoll >= 0)
		close(k->epoll);
	free(k);
}

void cis_keeper_set_clock(struct cis_keeper *k, cis_clock_fn clock, void *ctx)
{
	k->clock = clock;
	k->clock_ctx = ctx;
}

void cis_keeper_set_upgrade(struct cis_keeper *k, unsigned ms)
{
	k->upgrade_ns = ms * 1000000ull;
}

int cis_keeper_fd(const struct cis_keeper *k)
{
	return k->epoll;
}

bool cis_keeper_is_over(const struct cis_keeper *k)
{
	bool is_wanted = k->restart_ns && !k->is_stopping;

	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		is_wanted |= k->engines[i].role != ENGINE_NONE;
	return !is_wanted && !k->nr_guests;
}

/* For epoll_wait(), rounded up: until something has to be done that no descriptor announces. */
int cis_keeper_timeout_ms(const struct cis_keeper *k)
{
	uint64_t at = engines_deadline(k), now = keeper_now(k);

	if (at == UINT64_MAX)
		return -1;
	return at <= now ? 0 : (int)((at - now + 999999) / 1000000);
}

/* One event at a time: what it frees cannot be referred to by another one. */
int cis_keeper_step(struct cis_keeper *k)
{
	struct epoll_event ev;
	int n;

	n = epoll_wait(k->epoll, &ev, 1, cis_keeper_timeout_ms(k));
	if (n < 0 && errno != EINTR)
		return -errno;
	if (n == 1) {
		struct watch *w = ev.data.ptr;

		w->ready(w, ev.events);
	}
	engines_tick(k);
	engines_flush(k);
	exec_tick(k);
	return 0;
}

void cis_keeper_stay(struct cis_keeper *k)
{
	CIS_POINT(keeper_became);
	keep_exec_settle();
}

int cis_keeper_run(struct cis_keeper *k, int *ret_status)
{
	int r = 0;

	engines_flush(k);
	while (!r && !cis_keeper_is_over(k))
		r = cis_keeper_step(k);
	if (!r)
		*ret_status = k->is_stopping ? 0 : k->status;
	return r;
}
