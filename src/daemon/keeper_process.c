/* The processes of engines: starting them, seeing their end, starting the next. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/point.h"
#include "daemon/keeper_int.h"
#include "os/pidfd.h"

#define OOM_FILE     "/proc/self/oom_score_adj"
#define OOM_KEEPER   (-900)
#define STABLE_NS    500000000ull /* an engine that lived as long is not one that dies again and again */
#define PAUSE_MIN_NS 10000000ull
#define PAUSE_MAX_NS 100000000ull

static void oom_set(int score)
{
	int fd = open(OOM_FILE, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	dprintf(fd, "%d", score);
	close(fd);
}

void oom_lower(struct cis_keeper *k)
{
	FILE *f = fopen(OOM_FILE, "re");

	if (f && fscanf(f, "%d", &k->old_oom) != 1)
		k->old_oom = 0;
	if (f)
		fclose(f);
	oom_set(OOM_KEEPER);
}

/* Descriptor @to of a process that executes next. */
static bool place(int fd, int to)
{
	return (fd == to ? fcntl(fd, F_SETFD, 0) : dup2(fd, to)) >= 0;
}

/* Between fork and exec: only calls that a child of a process with one thread may make. */
static void become_engine(struct cis_keeper *k, int wire, const char *program)
{
	unsigned last = k->control_fd >= 0 ? CIS_WIRE_CONTROL_FD : CIS_WIRE_FD;
	int control = k->control_fd;
	sigset_t none;

	oom_set(k->old_oom);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0); /* what a terminal sends to the keeper's group is the keeper's to pass on */
	if (control == CIS_WIRE_FD)
		control = dup(control); /* before the wire takes its place */
	if (!place(wire, CIS_WIRE_FD) || (last == CIS_WIRE_CONTROL_FD && !place(control, CIS_WIRE_CONTROL_FD)))
		_exit(127);
	if (k->keep.lock >= 0 && place(k->keep.lock, (int)last + 1))
		last++;
	/* What others left open in the keeper; its own close by themselves. */
	syscall(SYS_close_range, last + 1, ~0u, 0);
	k->argv[0] = (char *)program;
	execve(program, k->argv, k->envp);
	_exit(127);
}

static void process_ended(struct watch *w, uint32_t events);

int engine_start(struct cis_keeper *k, struct engine *e, enum engine_role role, const char *program, struct cis_error *err)
{
	int pair[2], pidfd = -1, r = cis_sock_pair(SOCK_SEQPACKET, pair);
	pid_t pid;

	if (r)
		return cis_fail(err, -r, "keeper: the wire: %s", strerror(-r));
	CIS_POINT(keeper_starting);
	pid = fork();
	if (!pid)
		become_engine(k, pair[1], program);
	r = pid < 0 ? -errno : cis_pidfd_open(pid, &pidfd);
	close(pair[1]);
	if (!r)
		r = watch_add(k, &e->process, pidfd, EPOLLIN, process_ended);
	if (r) {
		close(pair[0]);
		goto fail;
	}
	e->pid = pid;
	keep_lock_note(k);
	e->kill_ns = 0;
	CIS_POINT(keeper_started);
	r = engine_connect(k, e, pair[0], role);
	if (!r)
		return 0;
	watch_remove(&e->process);
	e->pid = 0;
fail:
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	if (pidfd >= 0)
		close(pidfd);
	return cis_fail(err, -r, "keeper: cannot start the engine: %s", strerror(-r));
}

int engine_adopt(struct cis_keeper *k, int wire, pid_t pid, int pidfd, uint64_t generation, const struct cis_wire_hello *hello)
{
	struct engine *e = engine_free(k);
	bool is_child = pidfd < 0;
	int r = pid && is_child ? cis_pidfd_open(pid, &pidfd) : 0;

	if (r)
		return r;
	if (pid)
		r = watch_add(k, &e->process, pidfd, EPOLLIN, process_ended);
	if (!r)
		r = engine_resume(k, e, wire, generation, hello);
	if (!r)
		e->pid = pid;
	else if (is_child)
		watch_close(&e->process);
	else
		watch_remove(&e->process);
	keep_lock_note(k);
	return r;
}

void engine_kill(struct engine *e)
{
	e->kill_ns = 0;
	if (e->pid)
		cis_pidfd_kill(e->process.fd, SIGKILL);
	else
		engine_close(e);
}

/* Return: whether the engine that ended is to be followed by another. */
static bool wants_engine(const struct cis_keeper *k)
{
	return k->argv && (k->nr_guests || (k->was_ready && !k->is_stopping));
}

/* At once, but one that dies again and again is not to take all of a CPU, nor to fill the log. */
static void plan_restart(struct cis_keeper *k, uint64_t lived_ns)
{
	uint64_t wait = !k->pause_ns || lived_ns >= STABLE_NS ? 0 : k->pause_ns;

	k->pause_ns = wait ? 2 * wait : PAUSE_MIN_NS;
	if (k->pause_ns > PAUSE_MAX_NS)
		k->pause_ns = PAUSE_MAX_NS;
	k->restart_ns = keeper_now(k) + wait;
}

static void say_what_follows(const struct cis_keeper *k, const char *how)
{
	uint64_t now = keeper_now(k), wait_ms = k->restart_ns > now ? (k->restart_ns - now) / 1000000 : 0;
	const char *to_stop = k->is_stopping ? ", asked to stop" : "";

	if (!k->restart_ns && !k->nr_guests)
		cis_log(k->status ? CIS_LOG_ERROR : CIS_LOG_INFO, "keeper: the engine %s%s; no guest is held", how, to_stop);
	else if (!k->restart_ns)
		cis_log(CIS_LOG_ERROR, "keeper: the engine %s%s; %zu guest(s) wait where a page is missing, their memory is held",
			how, to_stop, k->nr_guests);
	else if (wait_ms)
		cis_log(CIS_LOG_ERROR, "keeper: the engine %s%s; %zu guest(s) wait; another is started in %llu ms", how, to_stop,
			k->nr_guests, (unsigned long long)wait_ms);
	else
		cis_log(CIS_LOG_ERROR, "keeper: the engine %s%s; %zu guest(s) wait; another is started", how, to_stop,
			k->nr_guests);
}

void engine_gone(struct engine *e, const char *how)
{
	struct cis_keeper *k = e->wire.k;
	uint64_t lived_ns = keeper_now(k) - e->started_ns;

	e->role = ENGINE_NONE;
	e->kill_ns = 0;
	handover_gone(e, how);
	if (e != k->serving)
		return;
	k->serving = NULL;
	if (wants_engine(k))
		plan_restart(k, lived_ns);
	say_what_follows(k, how);
}

/* The descriptor is readable when the last thread has ended: none of it is inside an ioctl on a guest's memory any more. */
static void process_ended(struct watch *w, uint32_t events)
{
	struct engine *e = (struct engine *)((char *)w - offsetof(struct engine, process));
	bool is_known;
	int status = 0;
	char how[48];

	is_known = waitpid(e->pid, &status, 0) == e->pid; /* not of one that was another keeper's child */
	watch_close(w);
	e->has_ended = true;
	CIS_POINT(keeper_engine_ended);
	engine_hear_out(e);
	e->pid = 0;
	keep_lock_note(w->k);
	CIS_POINT(keeper_heard_out);
	if (e == w->k->serving)
		w->k->status = !is_known ? 1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	snprintf(how, sizeof(how), !is_known ? "has ended" : WIFEXITED(status) ? "ended with status %d" : "was ended by signal %d",
		 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	engine_gone(e, how);
	CIS_POINT(keeper_engine_gone);
}

static void restart(struct cis_keeper *k)
{
	struct cis_error err;

	k->restart_ns = 0;
	if (!wants_engine(k)) /* the last guest has gone meanwhile */
		return;
	if (!engine_start(k, engine_free(k), ENGINE_SERVES, k->argv[0], &err))
		return;
	plan_restart(k, 0);
	cis_log(CIS_LOG_ERROR, "%s; tried again in %llu ms", err.text,
		(unsigned long long)(k->restart_ns - keeper_now(k)) / 1000000);
}

/* A standby has to be gone before another engine touches what it might have touched. */
static bool is_restart_due(const struct cis_keeper *k)
{
	return k->restart_ns && k->handover.step == HANDOVER_NONE;
}

uint64_t engines_deadline(const struct cis_keeper *k)
{
	uint64_t first = handover_deadline(k);

	if (exec_deadline(k) < first)
		first = exec_deadline(k);
	if (is_restart_due(k) && k->restart_ns < first)
		first = k->restart_ns;
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		if (k->engines[i].kill_ns && k->engines[i].kill_ns < first)
			first = k->engines[i].kill_ns;
	return first;
}

static void has_lingered(struct engine *e)
{
	if (e->role == ENGINE_STANDS_BY)
		handover_fail(e->wire.k, EPROTO, "the new engine has closed its wire");
	engine_kill(e);
}

void engines_tick(struct cis_keeper *k)
{
	uint64_t now = keeper_now(k);

	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		if (k->engines[i].kill_ns && k->engines[i].kill_ns <= now)
			has_lingered(&k->engines[i]);
	handover_tick(k);
	if (is_restart_due(k) && k->restart_ns <= now)
		restart(k);
}

void argv_free(char **argv)
{
	for (size_t i = 0; argv && argv[i]; i++)
		free(argv[i]);
	free(argv);
}

static char **argv_copy(char *const argv[])
{
	size_t nr = 0;
	char **copy;

	while (argv[nr])
		nr++;
	copy = calloc(nr + 1, sizeof(*copy));
	for (size_t i = 0; copy && i < nr; i++) {
		copy[i] = strdup(argv[i]);
		if (!copy[i]) {
			argv_free(copy);
			return NULL;
		}
	}
	return copy;
}

int cis_keeper_start(struct cis_keeper *k, char *const argv[], char *const envp[], struct cis_error *err)
{
	if (k->argv)
		return cis_fail(err, EBUSY, "keeper: there is an engine already");
	k->argv = argv_copy(argv);
	k->envp = argv_copy(envp);
	if (!k->argv || !k->envp)
		return cis_fail(err, ENOMEM, "keeper: no memory");
	return k->serving ? 0 : engine_start(k, engine_free(k), ENGINE_SERVES, k->argv[0], err);
}
