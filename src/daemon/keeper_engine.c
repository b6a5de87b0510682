/* The engine: starting it, telling it, doing what it asks for. */
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
#include "daemon/keeper_int.h"
#include "os/pidfd.h"

void engine_tell(struct cis_keeper *k, struct untold *u)
{
	if (u->queued || !has_engine(k))
		return;
	u->queued = true;
	u->next = NULL;
	*k->untold_end = u;
	k->untold_end = &u->next;
}

void engine_untell(struct cis_keeper *k, struct untold *u)
{
	struct untold **p = &k->untold;

	if (!u->queued)
		return;
	while (*p != u)
		p = &(*p)->next;
	*p = u->next;
	if (!*p)
		k->untold_end = p;
	u->queued = false;
}

int engine_send(struct cis_keeper *k, const struct cis_wire_msg *msg)
{
	return has_engine(k) ? cis_wire_send(k->wire.fd, msg) : -EPIPE;
}

/* Return: 0, -EAGAIN, ... */
static int tell_all(struct cis_keeper *k)
{
	int r = 0;

	while (k->untold && !r) {
		struct untold *u = k->untold;

		engine_untell(k, u);
		r = u->tell(k, u);
		if (r)
			engine_tell(k, u); /* goes on where it stopped */
	}
	if (!r && !k->replay_told) {
		r = engine_send(k, &(struct cis_wire_msg){ .type = CIS_WIRE_REPLAYED, .arg = k->generation });
		k->replay_told = !r;
	}
	if (!r && k->is_stopping && !k->stop_told) {
		r = engine_send(k, &(struct cis_wire_msg){ .type = CIS_WIRE_STOP });
		k->stop_told = !r;
	}
	return r;
}

static void do_listen(struct cis_keeper *k, const struct cis_wire_msg *msg)
{
	struct cis_wire_listen listen;

	if (!cis_wire_listen_get(msg->body, msg->body_len, &listen))
		listener_open(k, msg->id, &listen);
	else
		cis_log(CIS_LOG_ERROR,
			"keeper: the engine asked for a listener in a way that makes no sense; ignored");
}

/* A connection that is not known any more was released while the request was on its way. */
static void obey(struct cis_keeper *k, const struct cis_wire_msg *msg)
{
	struct conn *c = conn_find(k, msg->id);

	if (msg->type == CIS_WIRE_LISTEN)
		do_listen(k, msg);
	else if (msg->type == CIS_WIRE_UNLISTEN)
		listener_close(k, msg->id);
	else if (c && msg->type == CIS_WIRE_STATE)
		conn_make_state(c, msg->arg);
	else if (c && msg->type == CIS_WIRE_SAY)
		conn_say(c, msg->body, msg->body_len < CIS_WIRE_SAY_MAX ? msg->body_len : CIS_WIRE_SAY_MAX);
	else if (c && msg->type == CIS_WIRE_RELEASE)
		conn_release(k, c);
}

/* Return: false when nothing more has come. */
static bool take_message(struct cis_keeper *k)
{
	struct cis_wire_msg msg;
	int r = cis_wire_recv(k->wire.fd, &k->wire_buf, &msg);

	if (r == -EAGAIN)
		return false;
	if (r) {
		if (r != -EPIPE)
			cis_log(CIS_LOG_ERROR,
				"keeper: the engine cannot be understood: %s; its wire is closed",
				strerror(-r));
		engine_close(k);
		return false;
	}
	cis_fds_close(msg.fds, msg.nr_fds); /* it has none to give */
	obey(k, &msg);
	return true;
}

/* The engine is gone, but not what it said before. */
static void hear_out(struct cis_keeper *k)
{
	while (has_engine(k) && take_message(k))
		;
	engine_close(k);
}

void engine_flush(struct cis_keeper *k)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &k->wire };
	int r;

	if (!has_engine(k))
		return;
	r = tell_all(k);
	if (r && r != -EAGAIN) {
		hear_out(k);
		return;
	}
	if (k->wire_full == (r == -EAGAIN))
		return;
	k->wire_full = r == -EAGAIN;
	if (k->wire_full)
		ev.events |= EPOLLOUT;
	epoll_ctl(k->epoll, EPOLL_CTL_MOD, k->wire.fd, &ev);
}

/* When it is only writable, there is nothing to take, and the loop goes on telling. */
static void wire_ready(struct watch *w, uint32_t events)
{
	take_message(w->k);
}

void engine_close(struct cis_keeper *k)
{
	int fd = k->wire.fd;

	if (fd < 0)
		return;
	while (k->untold)
		engine_untell(k, k->untold);
	watch_remove(&k->wire);
	close(fd);
	conns_drop(k, conn_is_over);
}

int cis_keeper_attach(struct cis_keeper *k, int fd, struct cis_error *err)
{
	int flags = fcntl(fd, F_GETFL), r;

	if (has_engine(k))
		return cis_fail(err, EBUSY, "keeper: there is an engine already");
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return cis_fail(err, errno, "keeper: the wire: %s", strerror(errno));
	r = watch_add(k, &k->wire, fd, EPOLLIN, wire_ready);
	if (r)
		return cis_fail(err, -r, "keeper: the wire: %s", strerror(-r));
	k->generation++;
	k->replay_told = k->stop_told = k->wire_full = false;
	listeners_untell(k);
	conns_untell(k);
	return 0;
}

static void engine_ended(struct watch *w, uint32_t events)
{
	struct cis_keeper *k = w->k;
	int status = 0, fd = w->fd;
	char why[48];

	waitpid(k->engine_pid, &status, 0);
	watch_remove(w);
	close(fd);
	hear_out(k);
	k->engine_pid = 0;
	k->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	snprintf(why, sizeof(why), WIFEXITED(status) ? "ended with status %d" : "was ended by signal %d",
		 WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	if (k->nr_guests)
		cis_log(CIS_LOG_ERROR,
			"keeper: the engine %s; %zu guest(s) stall where a page is missing, their memory is held",
			why, k->nr_guests);
	else if (k->status)
		cis_log(CIS_LOG_ERROR, "keeper: the engine %s; no guest is held", why);
}

/* Between fork and exec: only calls that a child of a process with one thread may make. */
static void become_engine(struct cis_keeper *k, int wire, char *const argv[], char *const envp[])
{
	sigset_t none;

	oom_set(k->old_oom);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0); /* what a terminal sends to the keeper's group is the keeper's to pass on */
	if (wire == CIS_WIRE_FD ? fcntl(wire, F_SETFD, 0) : dup2(wire, CIS_WIRE_FD) < 0)
		_exit(127);
	/* What others left open in the keeper; its own close by themselves. */
	syscall(SYS_close_range, CIS_WIRE_FD + 1, ~0u, 0);
	execve(argv[0], argv, envp);
	_exit(127);
}

int cis_keeper_start(struct cis_keeper *k, char *const argv[], char *const envp[], struct cis_error *err)
{
	int pair[2], pidfd, r;
	pid_t pid;

	if (has_engine(k) || k->engine_pid)
		return cis_fail(err, EBUSY, "keeper: there is an engine already");
	r = cis_sock_pair(SOCK_SEQPACKET, pair);
	if (r)
		return cis_fail(err, -r, "keeper: the wire: %s", strerror(-r));
	pid = fork();
	if (!pid)
		become_engine(k, pair[1], argv, envp);
	close(pair[1]);
	if (pid < 0) {
		r = cis_fail(err, errno, "keeper: cannot start the engine: %s", strerror(errno));
		close(pair[0]);
		return r;
	}
	k->engine_pid = pid;
	r = cis_pidfd_open(pid, &pidfd);
	if (!r)
		r = watch_add(k, &k->engine, pidfd, EPOLLIN, engine_ended);
	if (!r)
		r = cis_keeper_attach(k, pair[0], err);
	return r;
}

void engine_stop(struct cis_keeper *k)
{
	if (k->is_stopping)
		return;
	k->is_stopping = true;
	listeners_close(k);
	conns_drop(k, conn_is_silent);
	if (!has_engine(k) && k->nr_guests)
		cis_log(CIS_LOG_WARN,
			"keeper: asked to stop, but %zu guest(s) are held for an engine to come; "
			"they would read zeros without it, so it stays until they end",
			k->nr_guests);
}
