/* A keeper that starts takes what the one before it left. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/keep_exec.h"
#include "daemon/keep_record.h"
#include "daemon/keeper_int.h"
#include "os/notify.h"
#include "os/pidfd.h"

static void note_where(struct keep_mark *m, unsigned bit, unsigned where)
{
	if (where & KEEP_IS_STORED)
		m->stored |= 1u << bit;
	if (where & KEEP_IS_FILED)
		m->filed |= 1u << bit;
}

/* The descriptor of that name, which is the caller's then; -1: there is none. */
static int take(struct keep_names *n, const char *name, struct keep_mark *m, unsigned bit)
{
	struct keep_name *at = names_find(n, name);
	int fd = at ? at->fd : -1;

	if (fd < 0)
		return -1;
	at->fd = -1;
	note_where(m, bit, at->where);
	return fd;
}

static int take_of(struct keep_names *n, struct conn *c, char what, unsigned bit)
{
	char name[KEEP_NAME_BYTES];

	keep_conn_name(name, c->id, what);
	return take(n, name, &c->keep, bit);
}

/* The engine is told the same: it lists the guest, which waits. */
static void lacks(struct conn *c, const char *what)
{
	c->is_orphan = true;
	c->error = CIS_WIRE_ORPHAN;
	c->why = "its descriptors were lost with the daemon before, so it waits until its monitor connects again";
	cis_log(CIS_LOG_ERROR, "keeper: connection %llu of pid %d: %s; what there is of it is held, and the guest waits",
		(unsigned long long)c->id, (int)c->peer.pid, what);
}

/*
 * What the program that this was had in its hands was good enough for it: if this one cannot take it, that one can go on. Everything
 * else is held as it is.
 */
static int unless_back(int r)
{
	return keep_back_can() ? r : 0;
}

/* Files are known by device and inode.  A userfaultfd has an inode of its own since Linux 5.13 only. */
static bool is_the_one(const struct keep_fd *is, const struct keep_fd *want)
{
	return is->kind == want->kind && (want->kind != KEEP_FD_FILE || (is->dev == want->dev && is->ino == want->ino));
}

static void let_go(struct conn *c, char what, unsigned bit, int fd)
{
	char name[KEEP_NAME_BYTES];

	close(fd);
	keep_conn_name(name, c->id, what);
	keep_remove(c->sock.k, &c->keep, bit, name);
}

/* Those that were stored, but not written down, are in the socket still, and will be found there. */
static void drop_unread_fds(struct conn *c, struct keep_names *n, size_t from)
{
	for (size_t i = from; i < CIS_WIRE_FDS_MAX && c->sock_fd >= 0; i++) {
		int fd = take_of(n, c, (char)('0' + i), (unsigned)i);

		if (fd >= 0)
			let_go(c, (char)('0' + i), (unsigned)i, fd);
	}
}

static int restore_fds(struct conn *c, struct keep_names *n, const struct keep_record *r)
{
	char why[64];
	int rc = 0;

	for (size_t i = 0; i < r->nr_fds; i++) {
		int fd = take_of(n, c, (char)('0' + i), (unsigned)i), look;
		struct keep_fd is;

		if (fd < 0 && !c->is_exited)
			fd = keep_recover_fd(c, &r->fds[i]);
		look = fd < 0 ? 0 : keep_fd_look(fd, &is);
		if (fd >= 0 && !look && is_the_one(&is, &r->fds[i])) {
			c->fds[c->nr_fds++] = fd;
			continue;
		}
		if (look && !rc)
			rc = unless_back(look);
		snprintf(why, sizeof(why), "descriptor %zu %s", i, fd < 0 ? "is missing" : "is not the one that it had");
		lacks(c, why);
		if (fd >= 0)
			c->fds[c->nr_fds++] = fd; /* whatever it is, we are not the one to close it */
	}
	c->keep.nr_fds = c->nr_fds;
	drop_unread_fds(c, n, r->nr_fds);
	return rc;
}

/* Beside the one that the record names there may be another: made, but not written down, so nobody has used it. */
static int restore_state(struct conn *c, struct keep_names *n, const struct keep_record *r)
{
	int m = take_of(n, c, 'm', KEEP_BIT_STATE), nn = take_of(n, c, 'n', KEEP_BIT_STATE_N);
	int fd = r->state_name == 'n' ? nn : r->state_bytes ? m : -1;
	struct stat st;

	if (m >= 0 && m != fd)
		let_go(c, 'm', KEEP_BIT_STATE, m);
	if (nn >= 0 && nn != fd)
		let_go(c, 'n', KEEP_BIT_STATE_N, nn);
	if (!r->state_bytes)
		return 0;
	c->keep.state = (char)r->state_name;
	if (fd < 0 || fstat(fd, &st) || (uint64_t)st.st_size != r->state_bytes) {
		lacks(c, fd < 0 ? "its state memfd is missing" : "its state memfd has another size");
		if (fd >= 0)
			close(fd);
		return fd < 0 ? 0 : unless_back(-EIO);
	}
	c->state_fd = fd;
	c->state_bytes = r->state_bytes;
	c->wants_state = true;
	return 0;
}

static int restore_bytes(struct conn *c, const struct keep_record *r)
{
	_cleanup_free_ void *bytes = NULL;
	struct cis_error err = { 0 };

	if (!r->bytes_len)
		return 0;
	if (keep_bytes_read(c->keep.fd, r, &bytes, &err) || conn_append(c, bytes, r->bytes_len)) {
		lacks(c, err.text);
		return unless_back(-ENOMEM);
	}
	c->keep.bytes = r->bytes_len;
	c->keep.crc = r->bytes_crc;
	return 0;
}

/*
 * Its last bytes were written down while they were in the socket.  If they are there still, they are taken out.  A
 * client that sends the same bytes twice in a row is the one case where this could be wrong: no handshake does.
 */
static void skip_unread(struct conn *c, size_t unread)
{
	uint8_t buf[KEEPER_READ_BYTES];
	int fds[CIS_WIRE_FDS_MAX];
	size_t nr_fds = 0, len = 0;

	if (!unread || unread > sizeof(buf) || c->is_orphan || c->sock_fd < 0)
		return;
	if (cis_sock_peek(c->sock_fd, buf, unread, fds, CIS_WIRE_FDS_MAX, &nr_fds, &len))
		return;
	cis_fds_close(fds, nr_fds);
	if (len == unread && !memcmp(buf, c->bytes + c->len - unread, unread))
		cis_sock_skip(c->sock_fd, buf, unread);
}

/* By the socket where it can say (Linux 6.5), else by number, if that process is as old as the record says. */
static void restore_peer(struct conn *c, struct keep_names *n, const struct keep_record *r)
{
	uint64_t start = 0;

	c->peer = r->peer;
	c->start = r->start;
	c->is_exited = r->flags & KEEP_EXITED;
	c->pidfd = take_of(n, c, 'p', 0); /* of ourselves before an exec: whose end the engine has not been told, if it has ended */
	if (c->is_exited || c->pidfd >= 0 || !r->peer.pid)
		return;
	if (strcmp(r->boot, c->sock.k->keep.boot) || cis_pidfd_open(r->peer.pid, &c->pidfd) == -ESRCH)
		c->is_exited = true;
	else if (!cis_proc_start(r->peer.pid, &start) && r->start && start != r->start)
		c->is_exited = true;
	if (c->is_exited && c->pidfd >= 0) {
		close(c->pidfd);
		c->pidfd = -1;
	}
}

static int restore_note(struct conn *c, const struct keep_record *r)
{
	if (!r->has_note)
		return 0;
	c->note = malloc(r->note_len + 1);
	if (!c->note)
		return -ENOMEM;
	memcpy(c->note, r->note, r->note_len);
	c->note_len = r->note_len;
	return 0;
}

/* All that was handed over under its names is let go. */
static void forget_conn(struct cis_keeper *k, struct keep_names *n, uint64_t id, int record, unsigned where)
{
	static const char what[] = "01234567smn";
	struct keep_mark m = { .fd = -1 };
	char name[KEEP_NAME_BYTES];

	for (size_t i = 0; i < sizeof(what) - 1; i++) {
		unsigned bit = i < 8 ? (unsigned)i : what[i] == 's' ? KEEP_BIT_SOCK : what[i] == 'm' ? KEEP_BIT_STATE : KEEP_BIT_STATE_N;
		int fd;

		keep_conn_name(name, id, what[i]);
		fd = take(n, name, &m, bit);
		if (fd >= 0) {
			close(fd);
			keep_remove(k, &m, bit, name);
		}
	}
	keep_conn_name(name, id, 'r');
	note_where(&m, KEEP_BIT_RECORD, where);
	keep_remove(k, &m, KEEP_BIT_RECORD, name);
	close(record);
}

/* Its client has seen the end, and may connect anew. */
static void lost_socket(struct conn *c)
{
	struct cis_keeper *k = c->sock.k;

	/* One that an engine has noted is served: that nobody else is expected there was on its way, and would keep it out. */
	if (c->note && !c->is_eof)
		listener_close(k, c->listener);
	if (!c->is_eof && !conn_is_silent(c) && !listener_find(k, c->listener))
		keep_wait_for(c);
	c->is_eof = true;
}

static int restore_conn(struct cis_keeper *k, struct keep_names *n, const struct keep_record *r, int fd, unsigned where)
{
	struct conn *c;
	int rc;

	if (r->flags & KEEP_RELEASED) {
		forget_conn(k, n, r->id, fd, where);
		return 0;
	}
	c = conn_find(k, r->id) ? NULL : conn_new(k, r->id, r->listener);
	if (!c || restore_note(c, r))
		return -ENOMEM;
	c->keep.fd = fd;
	c->keep.seq = r->seq;
	note_where(&c->keep, KEEP_BIT_RECORD, where);
	c->is_eof = r->flags & KEEP_EOF;
	if (r->listen)
		cis_wire_listen_get(r->listen, r->listen_len, &c->where);
	c->where.note = NULL;
	c->error = (int)r->error;
	c->why = c->error ? "it was broken off before this daemon started" : NULL;
	restore_peer(c, n, r);
	c->sock_fd = take_of(n, c, 's', KEEP_BIT_SOCK);
	rc = restore_bytes(c, r);
	if (!rc)
		rc = restore_fds(c, n, r);
	if (!rc)
		rc = restore_state(c, n, r);
	skip_unread(c, r->unread);
	if (listener_find(k, r->listener))
		listener_find(k, r->listener)->nr_conns++;
	if (c->sock_fd < 0)
		lost_socket(c);
	if (!rc)
		rc = conn_watch(c);
	conn_changed(c);
	return rc;
}

static int restore_listener(struct cis_keeper *k, struct keep_names *n, const struct keep_record *r, int fd, unsigned where)
{
	struct keep_mark m = { .fd = fd, .seq = r->seq };
	struct cis_wire_listen listen;
	char name[KEEP_NAME_BYTES];
	struct listener *l;
	bool is_released = r->flags & KEEP_RELEASED, is_known;
	struct stat st;
	int sock;

	note_where(&m, KEEP_BIT_RECORD, where);
	keep_listener_name(name, r->id, false);
	is_known = !is_released && !cis_wire_listen_get(r->listen, r->listen_len, &listen);
	if (!is_released && !is_known && keep_back_can())
		return -EPROTO;
	sock = take(n, name, &m, KEEP_BIT_SOCK);
	if (!is_known) {
		if (sock >= 0)
			close(sock);
		keep_drop(k, &m, KEEP_BIT_SOCK, name);
		keep_listener_name(name, r->id, true);
		keep_remove(k, &m, KEEP_BIT_RECORD, name);
		close(fd);
		return 0;
	}
	if (sock >= 0 && (lstat(listen.path, &st) || st.st_dev != r->dev || st.st_ino != r->ino)) {
		cis_log(CIS_LOG_WARN, "keeper: %s: the socket there is not ours any more: bound again", listen.path);
		close(sock);
		keep_drop(k, &m, KEEP_BIT_SOCK, name);
		sock = -1;
	}
	l = listener_adopt(k, r->id, &listen, sock);
	if (!l) {
		close(fd); /* that was said; its record stays */
		return sock >= 0 ? unless_back(-ENOMEM) : 0;
	}
	l->keep = m;
	if (sock >= 0) {
		l->dev = r->dev;
		l->ino = r->ino;
	}
	keep_listener_changed(l);
	return 0;
}

/* A socket whose keeper was killed before it wrote anything down: it is bound to the path where it came from. */
static void adopt_socket(struct cis_keeper *k, struct keep_names *n, uint64_t id)
{
	struct sockaddr_un addr = { 0 };
	socklen_t len = sizeof(addr) - 1;
	struct listener *l = NULL;
	struct conn *c;

	c = conn_find(k, id) ? NULL : conn_new(k, id, 0);
	if (!c)
		return;
	c->sock_fd = take_of(n, c, 's', KEEP_BIT_SOCK);
	if (!getsockname(c->sock_fd, (struct sockaddr *)&addr, &len))
		for (l = k->listeners; l && (l->waits_for || strcmp(l->listen.path, addr.sun_path)); l = l->next)
			;
	if (l) {
		c->listener = l->id;
		c->where = l->listen;
		c->where.note = NULL;
		c->where.note_len = 0;
		l->nr_conns++;
	}
	conn_identify(c);
	if (!l || conn_watch(c)) {
		conn_release(k, c);
		return;
	}
	conn_changed(c);
}

static void adopt_sockets(struct cis_keeper *k, struct keep_names *n)
{
	uint64_t id;
	char what;

	for (size_t i = 0; i < n->nr; i++)
		if (n->names[i].fd >= 0 && sscanf(n->names[i].name, "c%" SCNu64 ".%c", &id, &what) == 2 && what == 's') {
			if (k->next_conn < id)
				k->next_conn = id;
			adopt_socket(k, n, id);
		}
}

/* What is there without a record is held, and left in the store. */
static void hold_strays(struct keep_names *n)
{
	for (size_t i = 0; i < n->nr; i++) {
		if (n->names[i].fd < 0)
			continue;
		cis_log(CIS_LOG_ERROR, "keeper: '%s' was handed over, and no record says what it is: it is held", n->names[i].name);
		n->names[i].fd = -1;
	}
}

static bool is_record(const char *name, char kind)
{
	size_t len = strlen(name);

	return *name == kind && len > 2 && !strcmp(name + len - 2, ".r");
}

static int restore(struct cis_keeper *k, struct keep_names *n, struct keep_name *at)
{
	_cleanup_free_ void *buf = NULL;
	struct keep_record r;
	struct cis_error err;
	char name[KEEP_NAME_BYTES];
	int fd = at->fd, rc = keep_record_read(fd, &r, &buf, &err);

	if (rc) {
		cis_log(CIS_LOG_ERROR, "keeper: %s: %s", at->name, err.text);
		return unless_back(rc); /* a stray, like all that it is the record of */
	}
	snprintf(name, sizeof(name), "%c%llu.r", r.kind == KEEP_CONN ? 'c' : 'l', (unsigned long long)r.id);
	if (strcmp(name, at->name)) {
		cis_log(CIS_LOG_ERROR, "keeper: %s: is the record %s", at->name, name);
		return unless_back(-EPROTO);
	}
	at->fd = -1;
	if (k->next_conn < r.next_conn)
		k->next_conn = r.next_conn;
	if (k->generation < r.generation)
		k->generation = r.generation;
	return r.kind == KEEP_CONN ? restore_conn(k, n, &r, fd, at->where) : restore_listener(k, n, &r, fd, at->where);
}

/* Listeners first: connections count at them. */
static int restore_all(struct cis_keeper *k, struct keep_names *n)
{
	int rc = 0;

	for (const char *kind = "lc"; *kind && !rc; kind++)
		for (size_t i = 0; i < n->nr && !rc; i++)
			if (n->names[i].fd >= 0 && is_record(n->names[i].name, *kind))
				rc = restore(k, n, &n->names[i]);
	return rc;
}

static int open_manager(struct keep *keep, struct cis_error *err)
{
	const char *path = getenv("NOTIFY_SOCKET"), *max = getenv("FDSTORE");
	int r;

	if (!path)
		return 0;
	keep->manager = strdup(path);
	r = keep->manager ? cis_notify_open(&keep->notify) : -ENOMEM;
	if (r)
		return cis_fail(err, -r, "keeper: %s: %s", path, strerror(-r));
	if (max && strtoul(max, NULL, 10) < keep->max_stored)
		keep->max_stored = strtoul(max, NULL, 10);
	return 0;
}

int cis_keeper_gather(struct cis_keeper *k, const struct cis_keep_opts *opts, struct cis_error *err)
{
	struct keep_names names = { 0 };
	struct keep_mark none;
	int r = open_manager(&k->keep, err);

	if (r)
		return r;
	cis_proc_boot(k->keep.boot);
	r = names_inherit(&names);
	if (r)
		return cis_fail(err, -r, "keeper: what was handed over cannot be taken: %s", strerror(-r));
	names_sort(&names);
	k->keep.lock = take(&names, "lock", &none, 0);
	if (opts->folder)
		r = keep_folder_open(k, &names, opts->folder, opts->is_wish, err);
	if (r)
		return r; /* what was handed over stays open until this process ends */
	keep_folder_names(&k->keep, &names);
	for (size_t i = 0; i < names.nr; i++)
		k->keep.nr_stored += names.names[i].where & KEEP_IS_STORED;
	k->keep.control_fd = take(&names, "ctl", &k->keep.control, KEEP_BIT_SOCK);
	keep_heir_listen(k, take(&names, KEEP_HEIR, &none, 0));
	k->keep.ledger.fd = take(&names, KEEP_LEDGER, &k->keep.ledger, KEEP_BIT_RECORD);
	k->keep.is_gathering = true;
	r = restore_all(k, &names);
	adopt_sockets(k, &names);
	if (!r)
		r = keep_exec_resume(k);
	if (!r)
		r = keep_heir_resume(k);
	if (!r && !has_engine(k))
		conns_drop(k, conn_is_done);
	k->keep.is_gathering = false;
	if (r)
		r = cis_fail(err, -r, "keeper: what was handed over cannot be taken: %s", strerror(-r));
	hold_strays(&names);
	names_fini(&names);
	if (k->nr_guests)
		cis_log(CIS_LOG_INFO, "keeper: %zu guest(s) of the daemon before are held again", k->nr_guests);
	return r;
}
