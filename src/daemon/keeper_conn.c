/* Connections: what clients sent is held as it came. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/keeper_int.h"
#include "os/pidfd.h"
#include "os/proc.h"

#define ENGINES_MAX 16u /* that may end before a guest that has ended is let go without one */

static struct conn **bucket(struct cis_keeper *k, uint64_t id)
{
	return &k->buckets[id % KEEPER_BUCKETS];
}

struct conn *conn_find(struct cis_keeper *k, uint64_t id)
{
	struct conn *c = *bucket(k, id);

	while (c && c->id != id)
		c = c->next;
	return c;
}

bool conn_is_silent(const struct conn *c)
{
	return !c->len && !c->error;
}

/* Whoever said nothing may hang up unnoticed; whoever said something may close its socket and live on. */
bool conn_is_over(const struct conn *c)
{
	return c->is_exited || (c->is_eof && conn_is_silent(c));
}

/*
 * A guest that was served and ends while there is no engine is let go by the next one, which knows what it has counted.  But
 * one that engines die of is not to keep them coming.
 */
static bool is_left_to_engine(const struct conn *c)
{
	const struct cis_keeper *k = c->sock.k;

	return c->note && (k->argv || k->keep.is_gathering) && c->nr_engines < ENGINES_MAX;
}

bool conn_is_done(const struct conn *c)
{
	return conn_is_over(c) && !is_left_to_engine(c);
}

static void say_if_lost(struct conn *c)
{
	if (c->nr_engines == ENGINES_MAX && c->note)
		cis_log(CIS_LOG_ERROR, "keeper: connection %llu, pid %d, has ended, and %u engines since: it is let go without one",
			(unsigned long long)c->id, (int)c->peer.pid, ENGINES_MAX);
}

void conns_engine_gone(struct cis_keeper *k)
{
	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i]; c; c = c->next)
			c->nr_engines += conn_is_over(c);
	conns_each(k, say_if_lost);
	conns_drop(k, conn_is_done);
}

bool conn_is_any(const struct conn *c)
{
	return true;
}

void conn_changed(struct conn *c)
{
	struct cis_keeper *k = c->sock.k;

	if (!c->is_guest && !conn_is_silent(c) && !c->waits_for) {
		c->is_guest = true;
		k->nr_guests++;
	}
	if (conn_is_over(c) &&
	    (conn_is_silent(c) || c->waits_for || (conn_is_done(c) && !has_engine(k) && !k->keep.is_gathering))) {
		conn_release(k, c);
		return;
	}
	if (c->waits_for) {
		if (!conn_is_silent(c))
			keep_came_again(c);
		return;
	}
	keep_conn_changed(c, 0);
	if (!conn_is_silent(c))
		engines_tell(k, &c->untold);
}

/*
 * The stream cannot be understood any more: what came is dropped, the end of the process is still of
 * interest.
 */
static void break_off(struct conn *c, int error, const char *why)
{
	watch_remove(&c->sock);
	if (c->note && error != ETOOMANYREFS)
		return; /* its guest is served: what it says more is of no interest, what it gave is held as long as it lives */
	cis_fds_close(c->fds, c->nr_fds);
	free(c->bytes);
	c->sock.k->nr_bytes -= c->room;
	c->bytes = NULL;
	c->len = c->room = c->nr_fds = 0;
	for (size_t i = 0; i < KEEPER_ENGINES; i++)
		c->told[i].bytes = c->told[i].fds = 0;
	c->error = error;
	c->why = why;
}

int conn_append(struct conn *c, const void *bytes, size_t len)
{
	struct cis_keeper *k = c->sock.k;
	size_t room = c->room ? c->room : 256;
	uint8_t *p;

	if (len > KEEPER_BYTES_MAX - c->len)
		return -EMSGSIZE;
	while (room < c->len + len)
		room *= 2;
	if (room > c->room) {
		if (room - c->room > KEEPER_BYTES_ALL - k->nr_bytes)
			return -ENOMEM;
		p = realloc(c->bytes, room);
		if (!p)
			return -ENOMEM;
		c->bytes = p;
		k->nr_bytes += room - c->room;
		c->room = room;
	}
	memcpy(c->bytes + c->len, bytes, len);
	c->len += len;
	return 0;
}

static void read_failed(struct conn *c, int r)
{
	if (r == -EMSGSIZE)
		break_off(c, EMSGSIZE, "sent more than 128 KiB");
	else if (r == -E2BIG)
		break_off(c, E2BIG, "sent more than 8 descriptors");
	else if (r == -ENOBUFS)
		break_off(c, ENOBUFS,
			  "its descriptors could not be received: the daemon has no descriptor left");
	else if (r == -EPROTO)
		break_off(c, EPROTO, "sent control data that is no descriptor");
	else if (r == -ENOMEM)
		break_off(c, ENOMEM, "no memory for what it sent");
	else
		c->is_eof = true;
}

/* Its descriptors are not to take those that others need. */
static int keep_fds(struct conn *c, size_t nr)
{
	const int *fds = c->fds + c->nr_fds;

	for (size_t i = 0; i < nr; i++)
		if (keeper_is_short(fds[i])) {
			cis_fds_close(fds, nr);
			return -ENOBUFS;
		}
	c->nr_fds += nr;
	return 0;
}

/*
 * What comes stays in the socket until it is written down: whoever is killed in between leaves it there.
 * Return: false when there was nothing to read.
 */
static bool take_some(struct conn *c)
{
	struct cis_keeper *k = c->sock.k;
	size_t len = 0, nr_fds = 0;
	int r = cis_sock_peek(c->sock_fd, k->read_buf, sizeof(k->read_buf), c->fds + c->nr_fds,
			      CIS_WIRE_FDS_MAX - c->nr_fds, &nr_fds, &len);

	if (r == -EAGAIN)
		return false;
	if (!r) {
		c->is_eof = !len;
		r = keep_fds(c, nr_fds);
	}
	if (!r)
		r = conn_append(c, k->read_buf, len);
	if (!r && len) {
		if (!c->waits_for)
			keep_conn_changed(c, len);
		cis_sock_skip(c->sock_fd, k->read_buf, len);
	}
	if (r)
		read_failed(c, r);
	if (c->is_eof)
		watch_remove(&c->sock);
	return true;
}

static void sock_ready(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)((char *)w - offsetof(struct conn, sock));

	if (take_some(c))
		conn_changed(c);
}

/* What a process said before it ended still counts. */
static void pid_ready(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)((char *)w - offsetof(struct conn, pid));

	watch_remove(w);
	while (c->sock.fd >= 0 && take_some(c))
		;
	c->is_exited = true;
	conn_changed(c);
}

static int tell_connection(struct engine *e, struct conn *c)
{
	struct cis_wire_msg msg = { .type = CIS_WIRE_CONNECTION, .id = c->id, .arg = c->listener };
	uint8_t body[CIS_WIRE_PEER_BYTES];
	int r;

	if (c->told[e->slot].connection)
		return 0;
	cis_wire_peer_put(&c->peer, body);
	msg.body = body;
	msg.body_len = sizeof(body);
	msg.fds = &c->pidfd;
	msg.nr_fds = c->pidfd >= 0;
	r = engine_send(e, &msg);
	c->told[e->slot].connection = !r;
	return r;
}

static int tell_bytes(struct engine *e, struct conn *c)
{
	struct told *told = &c->told[e->slot];

	while (told->bytes < c->len) {
		size_t len = c->len - told->bytes < CIS_WIRE_BODY_MAX ? c->len - told->bytes : CIS_WIRE_BODY_MAX;
		struct cis_wire_msg msg = { .type = CIS_WIRE_BYTES, .id = c->id, .arg = told->bytes,
					    .body = c->bytes + told->bytes, .body_len = len,
					    .fds = c->fds + told->fds, .nr_fds = c->nr_fds - told->fds };
		int r = engine_send(e, &msg);

		/*
		 * Descriptors of sockets that hold descriptors of sockets ...: the kernel passes them on only
		 * so often.
		 */
		if (r == -ETOOMANYREFS) {
			break_off(c, ETOOMANYREFS, "sent descriptors that cannot be passed on");
			engines_tell(e->wire.k, &c->untold);
			return 0;
		}
		if (r)
			return r;
		told->bytes += len;
		told->fds = c->nr_fds;
	}
	return 0;
}

static int tell_flag(struct engine *e, struct conn *c, enum cis_wire_type type, bool is_so, bool *told)
{
	struct cis_wire_msg msg = { .type = type, .id = c->id };
	int r;

	if (!is_so || *told)
		return 0;
	if (type == CIS_WIRE_BROKEN) {
		msg.error = (uint32_t)c->error;
		msg.body = c->why;
		msg.body_len = strlen(c->why);
	} else if (type == CIS_WIRE_STATE_MADE) {
		bool is_swapped = c->swap_fd >= 0 && e->role == ENGINE_STANDS_BY;

		msg.error = is_swapped ? 0 : (uint32_t)c->state_error;
		msg.arg = is_swapped ? c->swap_bytes : c->state_bytes;
		msg.fds = is_swapped ? &c->swap_fd : &c->state_fd;
		msg.nr_fds = !msg.error;
	} else if (type == CIS_WIRE_NOTED) {
		msg.body = c->note;
		msg.body_len = c->note_len;
	}
	r = engine_send(e, &msg);
	*told = !r;
	return r;
}

static int tell_conn(struct engine *e, struct untold *u)
{
	struct conn *c = (struct conn *)((char *)u - offsetof(struct conn, untold));
	struct told *told = &c->told[e->slot];
	int r;

	r = tell_connection(e, c);
	if (!r)
		r = tell_flag(e, c, CIS_WIRE_NOTED, c->note, &told->note);
	if (!r && !c->is_orphan)
		r = tell_bytes(e, c);
	if (!r && !c->is_orphan)
		r = tell_flag(e, c, CIS_WIRE_STATE_MADE, c->wants_state, &told->state);
	if (!r)
		r = tell_flag(e, c, CIS_WIRE_BROKEN, c->error, &told->error);
	if (!r && !c->is_orphan)
		r = tell_flag(e, c, CIS_WIRE_EOF, c->is_eof, &told->eof);
	return r ? r : tell_flag(e, c, CIS_WIRE_EXITED, c->is_exited, &told->exited);
}

struct conn *conn_new(struct cis_keeper *k, uint64_t id, uint64_t listener)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->id = id;
	c->listener = listener;
	c->sock_fd = c->pidfd = c->state_fd = c->swap_fd = c->sock.fd = c->pid.fd = c->keep.fd = -1;
	c->sock.k = c->pid.k = k;
	c->untold.tell = tell_conn;
	c->next = *bucket(k, c->id);
	*bucket(k, c->id) = c;
	k->nr_conns++;
	return c;
}

int conn_watch_sock(struct conn *c)
{
	return watch_add(c->sock.k, &c->sock, c->sock_fd, EPOLLIN | EPOLLRDHUP, sock_ready);
}

int conn_watch(struct conn *c)
{
	struct cis_keeper *k = c->sock.k;
	int r = c->sock_fd >= 0 && !c->is_eof && !c->error ? conn_watch_sock(c) : 0;

	if (!r && c->pidfd >= 0 && !c->is_exited)
		r = watch_add(k, &c->pid, c->pidfd, EPOLLIN, pid_ready);
	return r;
}

void conn_identify(struct conn *c)
{
	cis_sock_peer(c->sock_fd, &c->peer);
	c->is_exited = cis_pidfd_peer(c->sock_fd, &c->pidfd) == -ESRCH;
	if (c->pidfd >= 0 && cis_proc_start(c->peer.pid, &c->start))
		c->start = 0;
}

int conn_open(struct cis_keeper *k, const struct listener *l, int fd)
{
	struct conn *c = conn_new(k, k->next_conn + 1, l->id);
	int r;

	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	k->next_conn++;
	c->waits_for = l->waits_for;
	c->where = l->listen;
	c->where.note = NULL;
	c->where.note_len = 0;
	c->sock_fd = fd;
	if (!c->waits_for)
		keep_conn_opened(c);
	conn_identify(c);
	r = keeper_is_short(c->pidfd) ? -EMFILE : 0;
	if (!r) {
		if (!c->waits_for)
			keep_conn_changed(c, 0);
		r = conn_watch(c);
	}
	if (r)
		conn_release(k, c);
	return r;
}

static int make_state(struct conn *c, uint64_t bytes)
{
	int fd, r = !bytes || bytes > CIS_WIRE_STATE_MAX ? -EINVAL : keep_conn_state(c, bytes, &fd);

	if (!r && keeper_is_short(fd)) {
		close(fd);
		keep_conn_stateless(c);
		r = -EMFILE;
	}
	if (!r)
		c->state_fd = fd;
	return r;
}

/* A second request for the same memory is answered as the first was. */
void conn_make_state(struct conn *c, uint64_t bytes)
{
	if (!c->wants_state || c->state_error) {
		c->state_error = -make_state(c, bytes);
		c->state_bytes = c->state_error ? 0 : bytes;
		keep_conn_changed(c, 0);
	}
	c->wants_state = true;
	for (size_t i = 0; i < KEEPER_ENGINES; i++)
		c->told[i].state = false;
	engines_tell(c->sock.k, &c->untold);
}

void conn_note(struct conn *c, const struct engine *by, const void *note, size_t len)
{
	void *copy = malloc(len + 1);

	if (!copy || len > CIS_WIRE_NOTE_MAX) {
		cis_log(CIS_LOG_ERROR, "keeper: connection %llu: a note of %zu bytes cannot be kept; the one before stays",
			(unsigned long long)c->id, len);
		free(copy);
		return;
	}
	memcpy(copy, note, len);
	free(c->note);
	c->note = copy;
	c->note_len = len;
	keep_conn_changed(c, 0);
	for (size_t i = 0; i < KEEPER_ENGINES; i++)
		c->told[i].note = i == by->slot;
	engines_tell(c->sock.k, &c->untold);
}

/* A client that does not read what it asked for goes without; one that reads must not wait for what could not be sent. */
void conn_say(struct conn *c, const void *text, size_t len)
{
	size_t sent;
	int r = len ? cis_sock_send(c->sock_fd, text, len, NULL, 0, &sent) : 0;

	if (r != -ENOBUFS && r != -ENOMEM)
		return;
	cis_log(CIS_LOG_ERROR, "keeper: connection %llu: it cannot be answered, and is hung up on: %s", (unsigned long long)c->id,
		strerror(-r));
	shutdown(c->sock_fd, SHUT_RDWR);
}

void conn_release(struct cis_keeper *k, struct conn *c)
{
	const struct engine *standby = k->handover.standby;
	struct conn **p = bucket(k, c->id);

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	if (standby && c->told[standby->slot].connection)
		engine_tell_gone(k->handover.standby, CIS_WIRE_RELEASED, c->id);
	k->nr_guests -= c->is_guest;
	k->nr_conns--;
	k->nr_bytes -= c->room;
	engines_untell(k, &c->untold);
	watch_remove(&c->sock);
	watch_remove(&c->pid);
	keep_conn_released(c);
	listener_end(c->waits_for ? NULL : listener_waiting(k, c->id));
	listener_left(k, c->listener);
	if (c->sock_fd >= 0)
		close(c->sock_fd);
	if (c->pidfd >= 0)
		close(c->pidfd);
	if (c->state_fd >= 0)
		close(c->state_fd);
	if (c->swap_fd >= 0)
		close(c->swap_fd);
	cis_fds_close(c->fds, c->nr_fds);
	free(c->bytes);
	free(c->note);
	free(c);
}

void conns_untell(struct engine *e)
{
	struct cis_keeper *k = e->wire.k;

	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i]; c; c = c->next) {
			memset(&c->told[e->slot], 0, sizeof(c->told[e->slot]));
			if (!conn_is_silent(c) && !c->waits_for)
				engine_tell(e, &c->untold);
		}
}

void conns_each(struct cis_keeper *k, void (*fn)(struct conn *c))
{
	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i]; c; c = c->next)
			fn(c);
}

void conns_drop(struct cis_keeper *k, bool (*match)(const struct conn *c))
{
	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i], *next; c; c = next) {
			next = c->next;
			if (match(c))
				conn_release(k, c);
		}
}
