/*
 * A keeper that starts beside an engine that has outlived the keeper before (heir.h) takes it over as it is: the engine says
 * what it holds of each guest, records are files in the folder, and the connection becomes its wire.
 *
 * Whose engine it is, is not believed of a number: the kernel says who listens on the socket, and holds that process.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/keeper_int.h"
#include "os/pidfd.h"

#define SOCK	 "engine.sock"
#define REPLY_MS 2000
#define ATTEMPTS 5 /* who asks between the death of the keeper and its engine's notice is heard, but told of the wrong process */

static bool path_of(const struct keep *keep, char *buf, size_t room)
{
	return snprintf(buf, room, "%s/" SOCK, keep->path) < (int)room;
}

/* Whoever asks hears that this keeper lives: its end of the connection is closed. */
static void asked(struct watch *w, uint32_t events)
{
	int fd;

	if (!cis_sock_accept(w->fd, &fd))
		close(fd);
}

void keep_heir_listen(struct cis_keeper *k, int fd)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	char path[108];
	struct cis_error err = { 0 };

	opts.type = SOCK_SEQPACKET;
	if (fd < 0 && k->keep.lock >= 0 && path_of(&k->keep, path, sizeof(path)))
		cis_sock_listen(path, &opts, &fd, &err);
	if (fd < 0 || !watch_add(k, &k->heir, fd, EPOLLIN, asked))
		return;
	close(fd);
	cis_log(CIS_LOG_WARN, "keeper: an engine that outlives it cannot be found by the next: %s", err.text);
}

void keep_heir_end(struct cis_keeper *k)
{
	if (k->heir.fd >= 0)
		unlinkat(k->keep.dir, SOCK, 0);
	watch_close(&k->heir);
}

/* What an engine has left. */

static int add_conn(struct will *will, uint64_t id)
{
	uint64_t *more;

	if (will->nr == will->room) {
		more = realloc(will->conns, (will->room * 2 + 64) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		will->conns = more;
		will->room = will->room * 2 + 64;
	}
	will->conns[will->nr++] = id;
	return 0;
}

static int take_name(struct keep_names *n, uint64_t conn, char what, int fd)
{
	char name[KEEP_NAME_BYTES];

	keep_conn_name(name, conn, what);
	return names_add(n, name, fd, 0);
}

/* A state that is a file is found as such.  Else it is one of two names: which one stands in the record. */
static int take_state(const struct keep *keep, struct keep_names *n, uint64_t conn, int fd)
{
	char m[KEEP_NAME_BYTES], name_n[KEEP_NAME_BYTES];
	int copy, r;

	keep_conn_name(m, conn, 'm');
	keep_conn_name(name_n, conn, 'n');
	if (!faccessat(keep->dir, m, F_OK, 0) || !faccessat(keep->dir, name_n, F_OK, 0)) {
		close(fd);
		return 0;
	}
	copy = fcntl(fd, F_DUPFD_CLOEXEC, KEEP_FREE_FROM);
	if (copy < 0) {
		close(fd);
		return -errno;
	}
	r = names_add(n, m, fd, 0);
	return names_add(n, name_n, copy, 0) || r ? -ENOMEM : 0;
}

/* Takes the descriptors. */
static int take(const struct keep *keep, struct will *will, struct keep_names *n, struct cis_wire_msg *msg)
{
	size_t nr = msg->nr_fds;
	int r = 0;

	msg->nr_fds = 0;
	switch (msg->arg) {
	case CIS_HELD_CONN:
		r = add_conn(will, msg->id);
		break;
	case CIS_HELD_CLIENT:
		for (size_t i = 0; i < nr; i++)
			r |= take_name(n, msg->id, (char)('0' + i), msg->fds[i]);
		return r;
	case CIS_HELD_STATE:
		return nr ? take_state(keep, n, msg->id, msg->fds[0]) : 0;
	case CIS_HELD_PROCESS:
		return nr ? take_name(n, msg->id, 'p', msg->fds[0]) : 0;
	case CIS_HELD_CONTROL:
		return nr ? names_add(n, "ctl", msg->fds[0], 0) : 0;
	case CIS_HELD_LOCK:
		return nr ? names_add(n, "lock", msg->fds[0], 0) : 0;
	case CIS_HELD_SOCK:
		return nr ? names_add(n, KEEP_HEIR, msg->fds[0], 0) : 0;
	}
	cis_fds_close(msg->fds, nr);
	return r;
}

static int receive(int fd, struct cis_wire_buf *buf, struct cis_wire_msg *msg)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int r;

	while ((r = cis_wire_recv(fd, buf, msg)) == -EAGAIN) {
		if (poll(&p, 1, REPLY_MS) == 0)
			return -ETIMEDOUT;
	}
	return r;
}

/* Return: 0; -EPIPE (whoever listens there wants no heir), -ETIMEDOUT (it does not answer), ... */
static int hear(struct cis_keeper *k, struct will *will, struct keep_names *n)
{
	struct cis_wire_msg msg;
	int r;

	while (!(r = receive(will->wire, &k->wire_buf, &msg))) {
		if (msg.fds_lost)
			r = -EMFILE;
		else if (msg.type == CIS_WIRE_HELLO)
			r = cis_wire_hello_get(msg.body, msg.body_len, &will->hello);
		else if (msg.type == CIS_WIRE_HELD)
			r = take(&k->keep, will, n, &msg);
		cis_fds_close(msg.fds, msg.nr_fds);
		if (r || msg.type == CIS_WIRE_READY)
			break;
		if (msg.type == CIS_WIRE_HELLO) {
			will->pid = (pid_t)msg.id;
			will->generation = msg.arg;
		}
	}
	return r ? r : will->hello.wire == CIS_WIRE_VERSION ? 0 : -EPROTONOSUPPORT;
}

void keep_will_fini(struct will *will)
{
	if (will->wire >= 0)
		close(will->wire);
	if (will->pidfd >= 0)
		close(will->pidfd);
	free(will->conns);
	*will = (struct will){ .wire = -1, .pidfd = -1 };
}

static int ask(struct cis_keeper *k, struct will *will, struct keep_names *n, const char *path)
{
	struct cis_peer peer;
	int r = cis_sock_connect(path, SOCK_SEQPACKET, &will->wire, NULL);

	if (!r)
		r = fcntl(will->wire, F_SETFL, O_NONBLOCK) ? -errno : hear(k, will, n);
	if (!r)
		r = cis_sock_peer(will->wire, &peer);
	if (!r)
		r = cis_pidfd_peer(will->wire, &will->pidfd);
	if (!r && peer.pid != will->pid)
		r = -ESRCH;
	return r;
}

int keep_heir_ask(struct cis_keeper *k, struct keep_names *n)
{
	struct keep_names got = { 0 };
	char path[108];
	int r = -ESRCH;

	if (!path_of(&k->keep, path, sizeof(path)))
		return -ENAMETOOLONG;
	for (unsigned i = 0; i < ATTEMPTS && r == -ESRCH; i++) {
		names_fini(&got);
		keep_will_fini(&k->will);
		r = ask(k, &k->will, &got, path);
	}
	if (r) {
		names_fini(&got);
		keep_will_fini(&k->will);
		return r;
	}
	names_sort(n);
	names_join(n, &got);
	return 0;
}

/* Once all is restored. */

static int by_id(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* It knows what it holds.  Of the others it has not heard, or let go of them when nobody could be told: it says so. */
static void tell_conn(struct engine *e, struct conn *c)
{
	const struct cis_keeper *k = e->wire.k;

	if (conn_is_silent(c))
		return;
	if (k->will.nr && bsearch(&c->id, k->will.conns, k->will.nr, sizeof(c->id), by_id))
		c->told[e->slot] = (struct told){ .connection = true, .note = true, .error = c->error, .state = c->wants_state,
						  .bytes = c->len, .fds = c->nr_fds };
	engine_tell(e, &c->untold);
}

int keep_heir_resume(struct cis_keeper *k)
{
	struct will *will = &k->will;
	int r;

	if (will->wire < 0)
		return 0;
	r = engine_adopt(k, will->wire, will->pid, will->pidfd, will->generation, &will->hello);
	if (r)
		return r;
	will->wire = will->pidfd = -1;
	if (k->generation < will->generation)
		k->generation = will->generation;
	for (size_t i = 0; i < will->nr; i++)
		if (k->next_conn < will->conns[i])
			k->next_conn = will->conns[i];
	if (will->nr)
		qsort(will->conns, will->nr, sizeof(*will->conns), by_id);
	k->serving->due |= DUE_ROLE | DUE_REPLAYED;
	listeners_untell(k->serving);
	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i]; c; c = c->next)
			tell_conn(k->serving, c);
	cis_log(CIS_LOG_WARN, "keeper: engine %d has outlived its keeper, and is taken over as it is with %zu guest(s)", (int)will->pid,
		k->nr_guests);
	keep_will_fini(will);
	return 0;
}
