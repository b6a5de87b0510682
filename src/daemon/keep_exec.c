#include "daemon/keep_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/keeper_int.h"

extern char **environ;

/* Writing the table. */

static void put_fd(FILE *f, const struct keep_mark *m, unsigned bit, const char *name, int fd)
{
	unsigned where = !m ? 0 : (m->stored & 1u << bit ? KEEP_IS_STORED : 0) | (m->filed & 1u << bit ? KEEP_IS_FILED : 0);

	if (fd >= 0)
		fprintf(f, "fd %s %d %u\n", name, fd, where);
}

static void put_conn(FILE *f, const struct conn *c)
{
	const struct keep_mark *m = &c->keep;
	char name[KEEP_NAME_BYTES];

	keep_conn_name(name, c->id, 'r');
	put_fd(f, m, KEEP_BIT_RECORD, name, m->fd);
	keep_conn_name(name, c->id, 's');
	put_fd(f, m, KEEP_BIT_SOCK, name, c->sock_fd);
	keep_conn_name(name, c->id, m->state == 'n' ? 'n' : 'm');
	put_fd(f, m, m->state == 'n' ? KEEP_BIT_STATE_N : KEEP_BIT_STATE, name, c->state_fd);
	keep_conn_name(name, c->id, 'p');
	put_fd(f, NULL, 0, name, c->pidfd);
	for (unsigned i = 0; i < c->nr_fds; i++) {
		keep_conn_name(name, c->id, (char)('0' + i));
		put_fd(f, m, i, name, c->fds[i]);
	}
}

static void put_listener(FILE *f, const struct listener *l)
{
	char name[KEEP_NAME_BYTES];

	keep_listener_name(name, l->id, true);
	put_fd(f, &l->keep, KEEP_BIT_RECORD, name, l->keep.fd);
	keep_listener_name(name, l->id, false);
	put_fd(f, &l->keep, KEEP_BIT_SOCK, name, l->watch.fd);
}

static void put_engine(FILE *f, const struct engine *e)
{
	uint8_t hello[CIS_WIRE_HELLO_BYTES];

	cis_wire_hello_put(&e->hello, hello);
	fprintf(f, "engine %d %d %" PRIu64 " ", (int)e->pid, e->wire.fd, e->generation);
	for (size_t i = 0; i < sizeof(hello); i++)
		fprintf(f, "%02x", hello[i]);
	fputc('\n', f);
}

static void put_all(FILE *f, struct cis_keeper *k)
{
	fprintf(f, "keeper %d %d %d %" PRIu64 " %" PRIu64 "\n", k->old_oom, k->was_ready, k->is_stopping, k->next_conn,
		k->generation);
	put_fd(f, &k->keep.control, KEEP_BIT_SOCK, "ctl", k->control_fd);
	put_fd(f, &k->keep.ledger, KEEP_BIT_RECORD, KEEP_LEDGER, k->keep.ledger.fd);
	put_fd(f, NULL, 0, KEEP_HEIR, k->heir.fd);
	put_fd(f, NULL, 0, "lock", k->keep.lock);
	for (struct listener *l = k->listeners; l; l = l->next)
		put_listener(f, l);
	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i]; c; c = c->next)
			put_conn(f, c);
	if (k->serving)
		put_engine(f, k->serving);
}

/* Descriptors of the table stay open over an exec, or they do not. */
static void let_through(FILE *f, bool open)
{
	int flags = open ? 0 : FD_CLOEXEC, fd;
	char line[256];

	rewind(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "fd %*s %d", &fd) == 1 || sscanf(line, "engine %*d %d", &fd) == 1)
			fcntl(fd, F_SETFD, flags);
	fcntl(fileno(f), F_SETFD, flags);
}

int keep_exec_arguments(char *buf, size_t room, const char *path, char **args)
{
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, room - 1);
	size_t nr = 0;

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return -EIO;
	if ((size_t)n == room - 1)
		return -E2BIG;
	buf[n] = 0;
	for (char *at = buf; at < buf + n; at += strlen(at) + 1) {
		if (nr == KEEP_ARGS_MAX)
			return -E2BIG;
		args[nr++] = at;
	}
	args[0] = (char *)path;
	args[nr] = NULL;
	return 0;
}

static int check(const struct cis_keeper *k, struct cis_error *err)
{
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		if (k->engines[i].role != ENGINE_NONE && &k->engines[i] != k->serving)
			return cis_fail(err, EBUSY, "keeper: another engine is there; it does not become another program now");
	if (k->serving && (!k->serving->has_hello || k->serving->untold || k->serving->due || k->serving->wire.fd < 0))
		return cis_fail(err, EAGAIN, "keeper: the engine has not been told all");
	for (struct listener *l = k->listeners; l; l = l->next)
		if (l->keep.fd < 0)
			return cis_fail(err, ENOSPC, "keeper: %s: has no record", l->listen.path);
	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i]; c; c = c->next)
			if (c->keep.fd < 0)
				return cis_fail(err, ENOSPC, "keeper: connection %" PRIu64 ": has no record", c->id);
	return 0;
}

static void record_silent(struct cis_keeper *k)
{
	k->keep.is_leaving = true;
	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i]; c; c = c->next)
			if (c->keep.fd < 0)
				keep_conn_changed(c, 0);
	k->keep.is_leaving = false;
}

int keep_exec(struct cis_keeper *k, const char *path, struct cis_error *err)
{
	char number[16], *args[KEEP_ARGS_MAX + 1];
	_cleanup_free_ char *text = malloc(KEEP_ARGS_BYTES);
	int fd, r;
	FILE *f;

	if (!text)
		return cis_fail(err, ENOMEM, "keeper: no memory");
	record_silent(k);
	r = check(k, err);
	if (!r && (r = keep_exec_arguments(text, KEEP_ARGS_BYTES, path, args)))
		cis_fail(err, -r, "keeper: its own arguments: %s", strerror(-r));
	if (r)
		return r;
	fd = memfd_create("cistern-kept", MFD_CLOEXEC);
	f = fd < 0 ? NULL : fdopen(fd, "w+");
	if (!f)
		return cis_fail(err, errno, "keeper: %s", strerror(errno));
	put_all(f, k);
	if (fflush(f) || ferror(f)) {
		fclose(f);
		return cis_fail(err, EIO, "keeper: the table of descriptors cannot be written");
	}
	snprintf(number, sizeof(number), "%d", fd);
	setenv(KEEP_TABLE_ENV, number, 1);
	keep_back_offer(text);
	let_through(f, true);
	execve(path, args, environ);
	r = cis_fail(err, errno, "%s: %s", path, strerror(errno));
	let_through(f, false);
	keep_back_withdraw();
	unsetenv(KEEP_TABLE_ENV);
	fclose(f);
	return r;
}

/* Reading it. */

static FILE *open_table(void)
{
	const char *at = getenv(KEEP_TABLE_ENV);
	int fd = at ? fcntl(atoi(at), F_DUPFD_CLOEXEC, 0) : -1;
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");

	if (f)
		rewind(f);
	else if (at)
		cis_log(CIS_LOG_ERROR, "keeper: the table of descriptors cannot be read: %s", strerror(errno));
	return f;
}

/* To be closed: descriptors of the table of which there are duplicates. */
static struct {
	int *fds;
	size_t nr, room;
} given;

/* Return: 0; or -ENOMEM, where there is a way back; without one it is closed at once. */
static int close_later(int fd)
{
	int *more = given.fds;

	if (given.nr == given.room) {
		more = realloc(more, (given.room * 2 + 64) * sizeof(*more));
		if (!more && keep_back_can())
			return -ENOMEM;
		if (!more) {
			close(fd);
			return 0;
		}
		given.fds = more;
		given.room = given.room * 2 + 64;
	}
	given.fds[given.nr++] = fd;
	return 0;
}

int keep_exec_names(struct keep_names *n)
{
	char line[256], name[KEEP_NAME_BYTES];
	FILE *f = open_table();
	unsigned where;
	int from, r = 0;

	while (f && !r && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "fd %31s %d %u", name, &from, &where) != 3)
			continue;
		r = names_inherit_one(n, name, from, where);
		if (!r)
			r = close_later(from);
		else if (!keep_back_can())
			r = 0; /* it stays open, and so is held at least */
	}
	if (f)
		fclose(f);
	return r;
}

void keep_exec_settle(void)
{
	const char *table = getenv(KEEP_TABLE_ENV);

	for (size_t i = 0; i < given.nr; i++)
		close(given.fds[i]);
	free(given.fds);
	memset(&given, 0, sizeof(given));
	if (table)
		close(atoi(table));
	unsetenv(KEEP_TABLE_ENV);
	keep_back_settle();
}

static void mark_told(struct cis_keeper *k, const struct engine *e)
{
	for (struct listener *l = k->listeners; l; l = l->next)
		l->told[e->slot] = true;
	for (size_t i = 0; i < KEEPER_BUCKETS; i++)
		for (struct conn *c = k->buckets[i]; c; c = c->next)
			if (!conn_is_silent(c) && !c->is_orphan)
				c->told[e->slot] = (struct told){ .connection = true, .note = c->note, .error = c->error,
								  .eof = c->is_eof, .exited = c->is_exited, .state = c->wants_state,
								  .bytes = c->len, .fds = c->nr_fds };
}

static int resume_engine(struct cis_keeper *k, pid_t pid, int from, uint64_t generation, const char *hex)
{
	int wire = fcntl(from, F_DUPFD_CLOEXEC, 16), r;
	uint8_t hello[CIS_WIRE_HELLO_BYTES];
	struct cis_wire_hello h;
	unsigned byte;

	for (size_t i = 0; i < sizeof(hello); i++) {
		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			return -EPROTO;
		hello[i] = (uint8_t)byte;
	}
	if (wire < 0)
		return -errno;
	r = close_later(from);
	if (!r)
		r = cis_wire_hello_get(hello, sizeof(hello), &h);
	if (!r)
		r = engine_adopt(k, wire, pid, -1, generation, &h);
	if (r)
		close(wire);
	else
		mark_told(k, k->serving);
	return r;
}

int keep_exec_resume(struct cis_keeper *k)
{
	int oom, ready, stopping, pid, wire, r = 0;
	uint64_t next_conn, generation;
	char line[256], hex[2 * CIS_WIRE_HELLO_BYTES + 1];
	FILE *f = open_table();

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "keeper %d %d %d %" SCNu64 " %" SCNu64, &oom, &ready, &stopping, &next_conn, &generation) == 5) {
			k->old_oom = oom;
			k->was_ready = ready;
			k->is_stopping = stopping;
			k->next_conn = next_conn;
			k->generation = generation;
		} else if (sscanf(line, "engine %d %d %" SCNu64 " %104s", &pid, &wire, &generation, hex) == 4) {
			r = resume_engine(k, pid, wire, generation, hex);
		}
	}
	if (!f)
		return 0;
	fclose(f);
	if (keep_back_why())
		cis_log(CIS_LOG_ERROR, "keeper: it is the program again that it was, the other one could not come up: %s", keep_back_why());
	else
		cis_log(CIS_LOG_INFO, "keeper: it has become another program in place; %zu guest(s) are held", k->nr_guests);
	engine_answer(k->serving, DUE_EXECED, keep_back_why() ? ECANCELED : 0, keep_back_why() ? keep_back_why() : "");
	return r;
}
