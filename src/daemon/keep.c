#include "daemon/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/keep_record.h"
#include "daemon/keeper_int.h"
#include "os/memfd.h"
#include "os/notify.h"

#define KEEP_WHERE_BYTES 160 /* path, mode, owner */

void keep_init(struct keep *keep)
{
	*keep = (struct keep){ .notify = -1, .dir = -1, .lock = -1, .control_fd = -1, .ledger.fd = -1,
				.max_stored = KEEP_STORE_MAX };
}

void keep_fini(struct keep *keep)
{
	if (keep->notify >= 0)
		close(keep->notify);
	if (keep->dir >= 0)
		close(keep->dir);
	if (keep->lock >= 0)
		close(keep->lock);
	if (keep->control_fd >= 0)
		close(keep->control_fd);
	if (keep->ledger.fd >= 0)
		close(keep->ledger.fd);
	free(keep->manager);
	free(keep->path);
	keep_init(keep);
}

/* The service manager's store. */

static int notify(struct keep *keep, const char *text, const int *fds, size_t nr_fds)
{
	int r = cis_notify_send(keep->notify, keep->manager, text, fds, nr_fds);

	if (r)
		cis_log(CIS_LOG_ERROR, "keeper: the service manager was not told '%.*s': %s", (int)strcspn(text, "\n"), text,
			strerror(-r));
	return r;
}

void keep_say(struct cis_keeper *k, const char *text)
{
	if (k->keep.notify >= 0)
		notify(&k->keep, text, NULL, 0);
}

/* The manager drops what is too much in silence, and must not be given more names than it can give back. */
static bool has_room(struct keep *keep)
{
	if (keep->nr_stored < keep->max_stored)
		return true;
	if (!keep->is_full)
		cis_log(CIS_LOG_ERROR,
			"keeper: %zu descriptors are in the service manager's store, and it takes no more: guests that come "
			"now are lost to the daemon if this process is killed",
			keep->nr_stored);
	keep->is_full = true;
	return false;
}

void keep_put(struct cis_keeper *k, struct keep_mark *m, unsigned bit, const char *name, int fd)
{
	char text[80 + KEEP_NAME_BYTES];

	if (k->keep.notify < 0 || (m->stored | m->filed) & 1u << bit || !has_room(&k->keep))
		return;
	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
	if (notify(&k->keep, text, &fd, 1))
		return;
	k->keep.nr_stored++;
	m->stored |= 1u << bit;
}

void keep_drop(struct cis_keeper *k, struct keep_mark *m, unsigned bit, const char *name)
{
	char text[80 + KEEP_NAME_BYTES];

	if (!(m->stored & 1u << bit))
		return;
	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	if (notify(&k->keep, text, NULL, 0))
		return;
	m->stored &= ~(1u << bit);
	k->keep.nr_stored--;
	k->keep.is_full = false;
}

/* Files. */

void keep_conn_name(char name[KEEP_NAME_BYTES], uint64_t id, char what)
{
	snprintf(name, KEEP_NAME_BYTES, "c%llu.%c", (unsigned long long)id, what);
}

void keep_listener_name(char name[KEEP_NAME_BYTES], uint64_t id, bool is_record)
{
	snprintf(name, KEEP_NAME_BYTES, "l%llu%s", (unsigned long long)id, is_record ? ".r" : "");
}

/* Of a state every page is there from the start: a tmpfs that is full later would kill the engine that maps it. */
static int file_in_folder(int dir, const char *name, uint64_t bytes)
{
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600), r = 0;

	if (fd < 0)
		return -errno;
	if (bytes)
		r = -posix_fallocate(fd, 0, (off_t)bytes);
	if (!r)
		return fd;
	close(fd);
	unlinkat(dir, name, 0);
	return r;
}

int keep_file(struct cis_keeper *k, struct keep_mark *m, unsigned bit, const char *name, uint64_t bytes, int *ret_fd)
{
	char label[KEEP_NAME_BYTES + 24];
	int fd = k->keep.dir < 0 ? -ENOENT : file_in_folder(k->keep.dir, name, bytes), r = 0;

	if (fd < 0) {
		if (k->keep.dir >= 0)
			cis_log(CIS_LOG_WARN, "keeper: %s/%s: %s: held in memory instead", k->keep.path, name, strerror(-fd));
		snprintf(label, sizeof(label), "cistern-%s-%s", bit == KEEP_BIT_RECORD ? "record" : "state", name);
		if (bytes)
			r = cis_memfd_create(label, bytes, 4096, &fd);
		else if ((fd = memfd_create(label, MFD_CLOEXEC)) < 0)
			r = -errno;
		if (r)
			return r;
	} else {
		m->filed |= 1u << bit;
	}
	*ret_fd = fd;
	return 0;
}

void keep_remove(struct cis_keeper *k, struct keep_mark *m, unsigned bit, const char *name)
{
	if (m->filed & 1u << bit)
		unlinkat(k->keep.dir, name, 0);
	m->filed &= ~(1u << bit);
	keep_drop(k, m, bit, name);
}

/* Records. */

static int ensure_record(struct cis_keeper *k, struct keep_mark *m, const char *name)
{
	int r;

	if (m->fd >= 0)
		return 0;
	r = keep_file(k, m, KEEP_BIT_RECORD, name, 0, &m->fd);
	if (r && !m->is_failed)
		cis_log(CIS_LOG_ERROR, "keeper: %s: cannot be kept: %s", name, strerror(-r));
	m->is_failed = r;
	return r;
}

/* Into the store once it says something. */
static void write_record(struct cis_keeper *k, struct keep_mark *m, const char *name, const struct keep_record *record)
{
	int r = keep_record_write(m->fd, &m->seq, record);

	if (r)
		cis_log(CIS_LOG_ERROR, "keeper: %s: cannot be written, what it said before stays: %s", name, strerror(-r));
	else
		keep_put(k, m, KEEP_BIT_RECORD, name, m->fd);
}

void keep_conn_opened(struct conn *c)
{
	char name[KEEP_NAME_BYTES];

	keep_conn_name(name, c->id, 's');
	if (c->sock_fd >= 0)
		keep_put(c->sock.k, &c->keep, KEEP_BIT_SOCK, name, c->sock_fd);
}

static void store_descriptors(struct cis_keeper *k, struct conn *c)
{
	struct keep_mark *m = &c->keep;
	char name[KEEP_NAME_BYTES];

	keep_conn_opened(c);
	for (; m->nr_fds < c->nr_fds; m->nr_fds++) {
		keep_conn_name(name, c->id, (char)('0' + m->nr_fds));
		keep_put(k, m, (unsigned)m->nr_fds, name, c->fds[m->nr_fds]);
	}
}

static void drop_descriptors(struct cis_keeper *k, struct conn *c)
{
	struct keep_mark *m = &c->keep;
	char name[KEEP_NAME_BYTES];

	while (m->nr_fds > c->nr_fds) {
		keep_conn_name(name, c->id, (char)('0' + --m->nr_fds));
		keep_drop(k, m, (unsigned)m->nr_fds, name);
	}
}

static int store_bytes(struct conn *c)
{
	struct keep_mark *m = &c->keep;
	int r;

	if (m->bytes > c->len)
		m->bytes = m->crc = 0;
	if (m->bytes == c->len)
		return 0;
	r = keep_bytes_write(m->fd, m->bytes, c->bytes + m->bytes, c->len - m->bytes, &m->crc);
	if (!r)
		m->bytes = c->len;
	return r;
}

/* @listen has room for what it says of where the connection came from.  Return: 0 or -errno. */
static int record_of(const struct conn *c, struct keep_record *r, uint8_t listen[KEEP_WHERE_BYTES])
{
	const struct cis_keeper *k = c->sock.k;

	*r = (struct keep_record){
		.kind = KEEP_CONN, .id = c->id, .listener = c->listener, .peer = c->peer, .start = c->start,
		.bytes_len = c->keep.bytes, .bytes_crc = c->keep.crc, .has_note = c->note, .note = c->note,
		.note_len = c->note_len, .flags = (c->is_eof ? KEEP_EOF : 0) | (c->is_exited ? KEEP_EXITED : 0),
		.error = (uint32_t)c->error, .state_bytes = c->state_fd >= 0 ? c->state_bytes : 0,
		.state_name = (uint64_t)c->keep.state, .nr_fds = c->nr_fds,
		.next_conn = k->next_conn, .generation = k->generation,
	};
	if (!cis_wire_listen_put(&c->where, listen, &r->listen_len))
		r->listen = listen;
	memcpy(r->boot, k->keep.boot, sizeof(r->boot));
	for (size_t i = 0; i < c->nr_fds; i++) {
		int rc = keep_fd_look(c->fds[i], &r->fds[i]);

		if (rc)
			return rc;
	}
	return 0;
}

void keep_conn_changed(struct conn *c, size_t unread)
{
	struct cis_keeper *k = c->sock.k;
	char name[KEEP_NAME_BYTES];
	struct keep_record r;
	uint8_t listen[KEEP_WHERE_BYTES];
	int rc;

	if (c->is_orphan)
		return; /* its record is what it had */
	if (conn_is_silent(c) && k->keep.notify < 0 && c->keep.fd < 0 && !k->keep.is_leaving)
		return; /* nobody could be given its socket again */
	keep_conn_name(name, c->id, 'r');
	if (ensure_record(k, &c->keep, name))
		return;
	store_descriptors(k, c);
	if (store_bytes(c))
		cis_log(CIS_LOG_ERROR, "keeper: %s: what the client sent cannot be kept", name);
	rc = record_of(c, &r, listen);
	if (rc) {
		cis_log(CIS_LOG_ERROR, "keeper: %s: its descriptors cannot be looked at, what it said before stays: %s", name, strerror(-rc));
		return;
	}
	r.unread = unread;
	write_record(k, &c->keep, name, &r);
	drop_descriptors(k, c);
}

static unsigned state_bit(char name)
{
	return name == 'n' ? KEEP_BIT_STATE_N : KEEP_BIT_STATE;
}

static char other_state(const struct conn *c)
{
	return c->keep.state == 'm' ? 'n' : 'm';
}

static void remove_state(struct conn *c, char which)
{
	char name[KEEP_NAME_BYTES];

	keep_conn_name(name, c->id, which);
	keep_remove(c->sock.k, &c->keep, state_bit(which), name);
}

int keep_conn_state(struct conn *c, uint64_t bytes, int *ret_fd)
{
	char name[KEEP_NAME_BYTES], which = other_state(c);
	int r;

	keep_conn_name(name, c->id, which);
	r = keep_file(c->sock.k, &c->keep, state_bit(which), name, bytes, ret_fd);
	if (r)
		return r;
	keep_put(c->sock.k, &c->keep, state_bit(which), name, *ret_fd);
	c->keep.state = which;
	return 0;
}

void keep_conn_stateless(struct conn *c)
{
	remove_state(c, c->keep.state);
	c->keep.state = 0;
}

static int copy_file(int from, int to, uint64_t bytes)
{
	off_t at = 0;

	while ((uint64_t)at < bytes) {
		ssize_t n = sendfile(to, from, &at, bytes - (uint64_t)at);

		if (n <= 0)
			return n ? -errno : -ENODATA;
	}
	return 0;
}

int keep_conn_swap(struct conn *c, uint64_t bytes, int *fd)
{
	struct cis_keeper *k = c->sock.k;
	char name[KEEP_NAME_BYTES], which = other_state(c);
	int copy, r;

	if (k->keep.dir < 0)
		return 0;
	keep_conn_name(name, c->id, which);
	remove_state(c, which); /* of a hand-over that failed */
	r = keep_file(k, &c->keep, state_bit(which), name, bytes, &copy);
	if (r)
		return r;
	r = copy_file(*fd, copy, bytes);
	if (r) {
		close(copy);
		remove_state(c, which);
		return r;
	}
	close(*fd);
	*fd = copy;
	return 0;
}

/* Nobody writes to either of them now: it does not matter which one is found. */
void keep_conn_swapped(struct conn *c)
{
	char name[KEEP_NAME_BYTES], which = other_state(c);

	keep_conn_name(name, c->id, which);
	keep_put(c->sock.k, &c->keep, state_bit(which), name, c->state_fd);
	c->keep.state = which;
	keep_conn_changed(c, 0);
	remove_state(c, other_state(c));
}

/* The record says first that nothing is wanted any more: then it does not matter how far the rest comes. */
void keep_conn_released(struct conn *c)
{
	struct cis_keeper *k = c->sock.k;
	char name[KEEP_NAME_BYTES];
	struct keep_record r;
	uint8_t listen[KEEP_WHERE_BYTES];

	keep_conn_name(name, c->id, 'r');
	if (c->keep.fd >= 0) {
		(void)record_of(c, &r, listen); /* nothing of it counts any more */
		r.flags |= KEEP_RELEASED;
		write_record(k, &c->keep, name, &r);
	}
	for (unsigned i = 0; i < c->keep.nr_fds; i++) {
		keep_conn_name(name, c->id, (char)('0' + i));
		keep_drop(k, &c->keep, i, name);
	}
	keep_conn_name(name, c->id, 's');
	keep_drop(k, &c->keep, KEEP_BIT_SOCK, name);
	remove_state(c, 'm');
	remove_state(c, 'n');
	keep_conn_name(name, c->id, 'r');
	keep_remove(k, &c->keep, KEEP_BIT_RECORD, name);
	if (c->keep.fd >= 0)
		close(c->keep.fd);
	c->keep.fd = -1;
}

void keep_listener_changed(struct listener *l)
{
	struct cis_keeper *k = l->watch.k;
	uint8_t body[CIS_WIRE_BODY_MAX];
	char name[KEEP_NAME_BYTES];
	struct keep_record r = { .kind = KEEP_LISTENER, .id = l->id, .listen = body, .dev = l->dev, .ino = l->ino,
				 .next_conn = k->next_conn, .generation = k->generation };

	keep_listener_name(name, l->id, true);
	if (cis_wire_listen_put(&l->listen, body, &r.listen_len) || ensure_record(k, &l->keep, name))
		return;
	write_record(k, &l->keep, name, &r);
	keep_listener_name(name, l->id, false);
	keep_put(k, &l->keep, KEEP_BIT_SOCK, name, l->watch.fd);
}

void keep_listener_closed(struct listener *l)
{
	struct cis_keeper *k = l->watch.k;
	struct keep_record r = { .kind = KEEP_LISTENER, .id = l->id, .flags = KEEP_RELEASED,
				 .next_conn = k->next_conn, .generation = k->generation };
	char name[KEEP_NAME_BYTES];

	if (l->keep.fd < 0)
		return;
	keep_listener_name(name, l->id, true);
	write_record(k, &l->keep, name, &r);
	keep_listener_name(name, l->id, false);
	keep_drop(k, &l->keep, KEEP_BIT_SOCK, name);
	keep_listener_name(name, l->id, true);
	keep_remove(k, &l->keep, KEEP_BIT_RECORD, name);
	close(l->keep.fd);
	l->keep.fd = -1;
}

/* Where it is bound stands in the socket. */
int keep_control(struct cis_keeper *k, const char *path)
{
	struct sockaddr_un addr = { 0 };
	socklen_t len = sizeof(addr) - 1;
	int fd = k->keep.control_fd;

	k->keep.control_fd = -1;
	if (fd < 0 || (!getsockname(fd, (struct sockaddr *)&addr, &len) && !strcmp(addr.sun_path, path) && !access(path, F_OK)))
		return fd;
	cis_log(CIS_LOG_WARN, "keeper: the control socket that was handed over is not bound to %s: another is made", path);
	keep_drop(k, &k->keep.control, KEEP_BIT_SOCK, "ctl");
	close(fd);
	return -1;
}

void keep_control_changed(struct cis_keeper *k)
{
	keep_put(k, &k->keep.control, KEEP_BIT_SOCK, "ctl", k->control_fd);
}

int keep_ledger(struct cis_keeper *k)
{
	struct keep_mark *m = &k->keep.ledger;

	if (!ensure_record(k, m, KEEP_LEDGER))
		keep_put(k, m, KEEP_BIT_RECORD, KEEP_LEDGER, m->fd);
	return m->fd;
}

void keep_ledger_end(struct cis_keeper *k)
{
	keep_remove(k, &k->keep.ledger, KEEP_BIT_RECORD, KEEP_LEDGER);
}
