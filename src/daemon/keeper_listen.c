/* Listeners: one socket for each guest that is expected. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/keeper_int.h"

struct listener *listener_find(struct cis_keeper *k, uint64_t id)
{
	struct listener *l = k->listeners;

	while (l && (l->id != id || l->error || l->waits_for))
		l = l->next;
	return l;
}

static void forget(struct cis_keeper *k, struct listener *l)
{
	const struct engine *standby = k->handover.standby;
	struct listener **p = &k->listeners;

	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	if (standby && l->told[standby->slot])
		engine_tell_gone(k->handover.standby, CIS_WIRE_UNLISTENED, l->id);
	engines_untell(k, &l->untold);
	free((void *)l->listen.note);
	free(l);
}

/* Of one that could not be bound only the engine that asked hears. */
static int tell_listener(struct engine *e, struct untold *u)
{
	struct listener *l = (struct listener *)((char *)u - offsetof(struct listener, untold));
	struct cis_wire_msg msg = { .type = CIS_WIRE_LISTENING, .id = l->id, .error = (uint32_t)l->error };
	uint8_t body[CIS_WIRE_BODY_MAX];
	int r;

	msg.body = l->error ? l->why : (const char *)body;
	if (l->error)
		msg.body_len = strlen(l->why);
	else
		cis_wire_listen_put(&l->listen, body, &msg.body_len);
	r = l->told[e->slot] ? 0 : engine_send(e, &msg);
	if (r)
		return r;
	l->told[e->slot] = true;
	if (l->error)
		forget(e->wire.k, l);
	return 0;
}

/*
 * Without a descriptor left, the connection at the head of the queue would keep the socket readable for ever:
 * the spare one is given up for a moment to take it and hang up.
 */
static void shed(struct cis_keeper *k, int listen_fd)
{
	int fd;

	if (k->spare >= 0)
		close(k->spare);
	if (!cis_sock_accept(listen_fd, &fd))
		close(fd);
	k->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	keeper_refused(k, "no descriptor left");
}

/* The socket's mode says the same, for as long as nobody changes it. */
static bool may_speak(const struct listener *l, int fd)
{
	struct cis_peer peer;

	if (cis_sock_peer(fd, &peer))
		return false;
	if (!peer.uid || peer.uid == geteuid() || (l->listen.uid != UINT32_MAX && peer.uid == l->listen.uid))
		return true;
	keeper_refused(l->watch.k, "%s: process %d of user %u has no business there", l->listen.path, (int)peer.pid,
		       (unsigned)peer.uid);
	return false;
}

/* Whoever is one too many is refused alone; what others have, and what an engine needs to be started, is not touched. */
static bool has_room(struct listener *l, int fd)
{
	struct cis_keeper *k = l->watch.k;

	if (keeper_is_short(fd))
		keeper_refused(k, "%s: no descriptor left", l->listen.path);
	else if (l->nr_conns >= KEEPER_CONNS_MAX)
		keeper_refused(k, "%s: has %u connections", l->listen.path, KEEPER_CONNS_MAX);
	else if (k->nr_conns >= KEEPER_CONNS_ALL)
		keeper_refused(k, "%s: there are %u connections in all", l->listen.path, KEEPER_CONNS_ALL);
	else
		return true;
	return false;
}

static void listener_ready(struct watch *w, uint32_t events)
{
	struct listener *l = (struct listener *)w;
	struct cis_keeper *k = w->k;
	int fd, r = cis_sock_accept(w->fd, &fd);

	if (r == -EMFILE || r == -ENFILE) {
		shed(k, w->fd);
		return;
	}
	if (r)
		return;
	if (!may_speak(l, fd) || !has_room(l, fd)) {
		close(fd);
		return;
	}
	l->nr_conns++;
	r = conn_open(k, l, fd);
	if (r)
		keeper_refused(k, "%s: %s", l->listen.path, strerror(-r));
}

void listener_left(struct cis_keeper *k, uint64_t id)
{
	struct listener *l = listener_find(k, id);

	if (l && l->nr_conns)
		l->nr_conns--;
}

static int listener_bind(struct cis_keeper *k, struct listener *l, struct cis_error *err)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	struct stat st;
	int fd, r;

	opts.mode = l->listen.mode;
	opts.uid = l->listen.uid;
	opts.gid = l->listen.gid;
	if (k->is_stopping)
		return cis_fail(err, ESHUTDOWN, "%s: the daemon is stopping", l->listen.path);
	r = cis_sock_listen(l->listen.path, &opts, &fd, err);
	if (r)
		return r;
	if (keeper_is_short(fd)) {
		close(fd);
		unlink(l->listen.path);
		return cis_fail(err, EMFILE, "%s: the daemon has no descriptor left", l->listen.path);
	}
	if (!lstat(l->listen.path, &st)) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	r = watch_add(k, &l->watch, fd, EPOLLIN, listener_ready);
	if (r) {
		close(fd);
		unlink(l->listen.path);
		return cis_fail(err, -r, "%s: cannot be watched: %s", l->listen.path, strerror(-r));
	}
	return 0;
}

/* Another process may have bound the path since: its socket stays. */
static void remove_path(const char *path, dev_t dev, ino_t ino)
{
	struct stat st;

	if (!lstat(path, &st) && st.st_dev == dev && st.st_ino == ino)
		unlink(path);
}

static void close_one(struct cis_keeper *k, struct listener *l)
{
	keep_listener_closed(l);
	if (l->watch.fd >= 0)
		remove_path(l->listen.path, l->dev, l->ino);
	watch_close(&l->watch);
	forget(k, l);
}

/* The path is wanted for a new guest: the one before was not a client that comes again. */
static void end_waiting_on(struct cis_keeper *k, const char *path)
{
	for (struct listener *l = k->listeners, *next; l; l = next) {
		next = l->next;
		if (l->waits_for && !strcmp(l->listen.path, path))
			close_one(k, l);
	}
}

static struct listener *listener_new(struct cis_keeper *k, uint64_t id, const struct cis_wire_listen *listen)
{
	struct listener *l = calloc(1, sizeof(*l));
	void *note = malloc(listen->note_len + 1);

	if (!l || !note) {
		free(l);
		free(note);
		return NULL;
	}
	if (listen->note_len)
		memcpy(note, listen->note, listen->note_len);
	l->watch.fd = l->keep.fd = -1;
	l->watch.k = k;
	l->untold.tell = tell_listener;
	l->id = id;
	l->listen = *listen;
	l->listen.note = note;
	l->next = k->listeners;
	k->listeners = l;
	return l;
}

void listener_open(struct cis_keeper *k, uint64_t id, const struct cis_wire_listen *listen)
{
	bool is_there = listener_find(k, id);
	struct listener *l;
	struct cis_error err = { 0 };

	end_waiting_on(k, listen->path);
	l = listener_new(k, id, listen);
	if (!l) {
		static const char why[] = "keeper: no memory for a socket";

		engine_send(k->serving, &(struct cis_wire_msg){ .type = CIS_WIRE_LISTENING, .id = id, .error = ENOMEM,
								.body = why, .body_len = sizeof(why) - 1 });
		return;
	}
	if (is_there)
		l->error = -cis_fail(&err, EEXIST, "listener %llu is there already", (unsigned long long)id);
	else
		l->error = -listener_bind(k, l, &err);
	snprintf(l->why, sizeof(l->why), "%s", err.text);
	if (l->error) {
		engine_tell(k->serving, &l->untold);
		return;
	}
	keep_listener_changed(l);
	engines_tell(k, &l->untold);
}

struct listener *listener_adopt(struct cis_keeper *k, uint64_t id, const struct cis_wire_listen *listen, int fd)
{
	struct listener *l = listener_new(k, id, listen);
	struct cis_error err = { 0 };
	int r;

	if (!l)
		return NULL;
	r = fd < 0 ? listener_bind(k, l, &err) : watch_add(k, &l->watch, fd, EPOLLIN, listener_ready);
	if (!r)
		return l;
	cis_log(CIS_LOG_ERROR, "keeper: %s: the guest that is expected there cannot connect: %s", listen->path,
		fd < 0 ? err.text : strerror(-r));
	if (fd >= 0)
		close(fd);
	forget(k, l);
	return NULL;
}

void listener_close(struct cis_keeper *k, uint64_t id)
{
	struct listener *l = listener_find(k, id);

	if (l)
		close_one(k, l);
}

struct listener *listener_waiting(struct cis_keeper *k, uint64_t conn)
{
	struct listener *l = k->listeners;

	while (l && l->waits_for != conn)
		l = l->next;
	return l;
}

void listener_end(struct listener *l)
{
	if (l)
		close_one(l->watch.k, l);
}

void listener_wait(struct cis_keeper *k, uint64_t conn, const struct cis_wire_listen *listen)
{
	struct listener *l = listener_new(k, 0, listen);
	struct cis_error err = { 0 };

	if (!l)
		return;
	l->waits_for = conn;
	if (!listener_bind(k, l, &err))
		return;
	cis_log(CIS_LOG_WARN, "keeper: %s: the guest that was served from there cannot connect again: %s", listen->path, err.text);
	forget(k, l);
}

void listeners_close(struct cis_keeper *k)
{
	while (k->listeners)
		close_one(k, k->listeners);
}

void listeners_drop_failed(struct cis_keeper *k)
{
	for (struct listener *l = k->listeners, *next; l; l = next) {
		next = l->next;
		if (l->error)
			forget(k, l);
	}
}

void listeners_untell(struct engine *e)
{
	for (struct listener *l = e->wire.k->listeners; l; l = l->next) {
		l->told[e->slot] = false;
		if (!l->error && !l->waits_for)
			engine_tell(e, &l->untold);
	}
}

/* The control socket: where nobody accepts, clients wait. */

int keeper_folder(const char *path)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
	int r = 0;

	if (slash && slash != copy) {
		*slash = 0;
		r = mkdir(copy, 0755) && errno != EEXIST ? -errno : 0;
	}
	free(copy);
	return r;
}

static void note_control(struct cis_keeper *k)
{
	struct stat st;

	if (lstat(k->control_path, &st))
		return;
	k->control_dev = st.st_dev;
	k->control_ino = st.st_ino;
}

/* Where there is no folder to find it by, an engine that is left listens still, and says that it is it. */
static int fail_taken(const char *path, struct cis_error *err)
{
	struct cis_peer peer = { 0 };
	int fd;

	if (cis_sock_connect(path, SOCK_STREAM, &fd, NULL))
		return -EADDRINUSE;
	cis_sock_peer(fd, &peer);
	close(fd);
	return cis_fail(err, EADDRINUSE, "%s: process %d listens there: another daemon, or an engine that has outlived its keeper and cannot be taken "
			"over, as there is no folder for it (keep); 'cistern drain' makes its guests independent and lets them go, 'kill %d' ends "
			"it", path, (int)peer.pid, (int)peer.pid);
}

int cis_keeper_control(struct cis_keeper *k, const char *path, struct cis_error *err)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	int r;

	k->control_path = strdup(path);
	if (!k->control_path)
		return cis_fail(err, ENOMEM, "keeper: no memory");
	k->control_fd = keep_control(k, path);
	if (k->control_fd < 0) {
		opts.backlog = CIS_WIRE_CONTROL_BACKLOG;
		r = keeper_folder(path);
		if (r)
			return cis_fail(err, -r, "%s: folder: %s", path, strerror(-r));
		r = cis_sock_listen(path, &opts, &k->control_fd, err);
		if (r)
			return r == -EADDRINUSE ? fail_taken(path, err) : r;
	}
	note_control(k);
	keep_control_changed(k);
	return 0;
}

void control_close(struct cis_keeper *k)
{
	if (k->control_fd >= 0) {
		keep_drop(k, &k->keep.control, KEEP_BIT_SOCK, "ctl");
		remove_path(k->control_path, k->control_dev, k->control_ino);
		close(k->control_fd);
	}
	free(k->control_path);
}
