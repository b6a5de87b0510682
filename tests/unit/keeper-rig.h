/* A keeper in a process of its own, and this process as its engine. */
#ifndef TESTS_UNIT_KEEPER_RIG_H
#define TESTS_UNIT_KEEPER_RIG_H

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/keeper.h"
#include "daemon/keeper_link.h"
#include "os/sock.h"

#define RIG_CONNS 64
#define RIG_ENGINES 2

/** struct seen - what the keeper told about one connection */
struct seen {
	uint64_t id, listener;
	struct cis_peer peer;
	int pidfd;
	uint8_t bytes[256 << 10];
	size_t len;
	int fds[16];
	size_t nr_fds;
	int error;
	char why[200];
	bool eof, exited;
	int state_fd, state_error, nr_states;
	uint64_t state_bytes;
	char note[64];
	int nr_notes;
};

struct rig {
	char dir[64];
	pid_t keeper;
	struct cis_keeper_link *link;
	int wires[RIG_ENGINES]; /* of engines to come */
	struct seen *conns;
	size_t nr_conns;
	uint64_t last_listener;
	struct cis_wire_listen last_listen;
	char last_note[64];
	int listen_error, nr_listening;
	char listen_why[400];
	uint64_t generation;
	int role; /* -1: not told */
	bool stop, lost, is_second;
};

static struct rig rig;

static inline struct seen *rig_conn(uint64_t id)
{
	for (size_t i = 0; i < rig.nr_conns; i++)
		if (rig.conns[i].id == id)
			return &rig.conns[i];
	fail_msg("connection %llu was not announced", (unsigned long long)id);
	return NULL;
}

static inline void on_listening(void *ctx, uint64_t listener, const struct cis_wire_listen *listen, int error,
				const char *why)
{
	rig.last_listener = listener;
	rig.listen_error = error;
	rig.nr_listening++;
	snprintf(rig.listen_why, sizeof(rig.listen_why), "%s", why);
	if (!listen)
		return;
	rig.last_listen = *listen;
	snprintf(rig.last_note, sizeof(rig.last_note), "%.*s", (int)listen->note_len,
		 (const char *)listen->note);
}

static inline void on_connection(void *ctx, uint64_t conn, uint64_t listener, const struct cis_peer *peer,
				 int pidfd)
{
	struct seen *s = &rig.conns[rig.nr_conns++];

	assert_true(rig.nr_conns <= RIG_CONNS);
	memset(s, 0, sizeof(*s));
	s->id = conn;
	s->listener = listener;
	s->peer = *peer;
	s->pidfd = pidfd;
	s->state_fd = -1;
}

static inline void on_bytes(void *ctx, uint64_t conn, uint64_t at, const void *bytes, size_t len,
			    const int *fds, size_t nr_fds)
{
	struct seen *s = rig_conn(conn);

	assert_int_equal(at, s->len);
	memcpy(s->bytes + s->len, bytes, len);
	s->len += len;
	memcpy(s->fds + s->nr_fds, fds, nr_fds * sizeof(int));
	s->nr_fds += nr_fds;
}

static inline void on_broken(void *ctx, uint64_t conn, int error, const char *why)
{
	rig_conn(conn)->error = error;
	snprintf(rig_conn(conn)->why, sizeof(rig_conn(conn)->why), "%s", why);
}

static inline void on_eof(void *ctx, uint64_t conn)
{
	rig_conn(conn)->eof = true;
}

static inline void on_exited(void *ctx, uint64_t conn)
{
	rig_conn(conn)->exited = true;
}

static inline void on_state(void *ctx, uint64_t conn, int error, int memfd, uint64_t bytes)
{
	struct seen *s = rig_conn(conn);

	if (s->state_fd >= 0)
		close(s->state_fd);
	s->state_fd = memfd;
	s->state_error = error;
	s->state_bytes = bytes;
	s->nr_states++;
}

static inline void on_replayed(void *ctx, uint64_t generation)
{
	rig.generation = generation;
}

static inline void on_stop(void *ctx)
{
	rig.stop = true;
}

static inline void on_lost(void *ctx)
{
	rig.lost = true;
}

static inline void on_role(void *ctx, enum cis_wire_role role)
{
	rig.role = (int)role;
}

static inline void on_noted(void *ctx, uint64_t conn, const void *note, size_t len)
{
	struct seen *s = rig_conn(conn);

	snprintf(s->note, sizeof(s->note), "%.*s", (int)len, (const char *)note);
	s->nr_notes++;
}

static const struct cis_keeper_link_ops rig_ops = {
	.listening = on_listening, .connection = on_connection, .bytes = on_bytes, .broken = on_broken, .eof = on_eof,
	.exited = on_exited, .state = on_state, .replayed = on_replayed, .stop = on_stop, .lost = on_lost,
	.role = on_role, .noted = on_noted,
};

/** rig_until() - run the link until @cond holds; the test's own time limit ends what never comes. */
#define rig_until(cond)                                                                           \
	do {                                                                                      \
		while (!(cond)) {                                                                 \
			struct pollfd p = { .fd = cis_keeper_link_fd(rig.link), .events = POLLIN }; \
			assert_false(rig.lost);                                                   \
			assert_int_equal(poll(&p, 1, 20000), 1);                                  \
			cis_keeper_link_run(rig.link, 1);                                         \
		}                                                                                 \
	} while (0)

/* The keeper's process: as one engine after the other goes, the next is attached. */
static inline void rig_keeper(const int *wires, rlim_t nofile)
{
	struct rlimit files = { nofile, nofile };
	struct cis_keeper *k;
	int next = 0;

	if (cis_keeper_create(&k, NULL))
		_exit(99);
	if (nofile && setrlimit(RLIMIT_NOFILE, &files))
		_exit(98);
	while (next < RIG_ENGINES || !cis_keeper_is_over(k)) {
		if (next < RIG_ENGINES && !cis_keeper_attach(k, wires[next], NULL))
			next++;
		if (cis_keeper_is_over(k))
			break;
		if (cis_keeper_step(k))
			_exit(97);
	}
	cis_keeper_destroy(k);
	_exit(0);
}

/** rig_be_engine() - take this end of a wire, and say what every engine says first. */
static inline int rig_be_engine(int wire)
{
	struct cis_wire_hello hello = { .wire = CIS_WIRE_VERSION, .layout_min = 1, .layout_max = 1, .version = "rig" };
	int r = cis_keeper_link_create(wire, &rig_ops, NULL, &rig.link);

	rig.role = -1;
	return r ? r : cis_keeper_link_hello(rig.link, &hello);
}

static inline int rig_start_limited(rlim_t nofile)
{
	int wires[RIG_ENGINES];

	memset(&rig, 0, sizeof(rig));
	rig.conns = calloc(RIG_CONNS, sizeof(*rig.conns));
	strcpy(rig.dir, "/tmp/cis-keeper-XXXXXX");
	if (!rig.conns || !mkdtemp(rig.dir))
		return -1;
	for (int i = 0; i < RIG_ENGINES; i++) {
		int pair[2];

		if (cis_sock_pair(SOCK_SEQPACKET, pair))
			return -1;
		wires[i] = pair[0];
		rig.wires[i] = pair[1];
	}
	fflush(NULL);
	rig.keeper = fork();
	if (!rig.keeper) {
		cis_fds_close(rig.wires, RIG_ENGINES);
		rig_keeper(wires, nofile);
	}
	cis_fds_close(wires, RIG_ENGINES);
	if (rig_be_engine(rig.wires[0]))
		return -1;
	rig_until(rig.generation == 1);
	return 0;
}

static inline int rig_start(void **state)
{
	return rig_start_limited(0);
}

/** rig_next_engine() - the first engine is gone; this process becomes the second. */
static inline void rig_next_engine(void)
{
	cis_keeper_link_destroy(rig.link);
	for (size_t i = 0; i < rig.nr_conns; i++) {
		cis_fds_close(rig.conns[i].fds, rig.conns[i].nr_fds);
		if (rig.conns[i].pidfd >= 0)
			close(rig.conns[i].pidfd);
		if (rig.conns[i].state_fd >= 0)
			close(rig.conns[i].state_fd);
	}
	rig.is_second = true;
	rig.nr_conns = 0;
	rig.nr_listening = 0;
	rig.generation = 0;
	assert_int_equal(rig_be_engine(rig.wires[1]), 0);
	rig_until(rig.generation == 2);
}

static inline int rig_end(void **state)
{
	int status;

	kill(rig.keeper, SIGKILL);
	if (waitpid(rig.keeper, &status, 0) != rig.keeper)
		return -1;
	cis_keeper_link_destroy(rig.link);
	if (!rig.is_second)
		close(rig.wires[1]);
	free(rig.conns);
	if (fork() == 0)
		execlp("rm", "rm", "-rf", rig.dir, (char *)NULL);
	return wait(&status) < 0 || status;
}

static inline const char *rig_path(const char *name)
{
	static char path[108];

	snprintf(path, sizeof(path), "%s/%s", rig.dir, name);
	return path;
}

static inline void rig_listen_as(uint64_t id, const char *name, uid_t uid)
{
	struct cis_wire_listen listen = { .mode = 0600, .uid = uid, .gid = UINT32_MAX, .note = name,
					  .note_len = strlen(name) };
	int before = rig.nr_listening;

	strcpy(listen.path, rig_path(name));
	assert_int_equal(cis_keeper_link_listen(rig.link, id, &listen), 0);
	rig_until(rig.nr_listening > before);
}

static inline void rig_listen(uint64_t id, const char *name)
{
	rig_listen_as(id, name, (uid_t)-1);
}

static inline int rig_connect(const char *name)
{
	int fd;

	assert_int_equal(cis_sock_connect(rig_path(name), SOCK_STREAM, &fd, NULL), 0);
	return fd;
}

/** rig_barrier() - all that was asked for is done: an impossible listener has been refused. */
static inline void rig_barrier(void)
{
	struct cis_wire_listen listen = { .path = "/nonexistent/socket",
					  .uid = UINT32_MAX,
					  .gid = UINT32_MAX };
	int before = rig.nr_listening;

	assert_int_equal(cis_keeper_link_listen(rig.link, 999999, &listen), 0);
	rig_until(rig.nr_listening > before);
	assert_int_equal(rig.listen_error, ENOENT);
}

/** rig_fds() - descriptors that the keeper has open, of those whose link has @part in it. */
static inline size_t rig_fds(const char *part)
{
	char path[300], link[200];
	struct dirent *e;
	size_t nr = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", rig.keeper);
	dir = opendir(path);
	assert_non_null(dir);
	while ((e = readdir(dir))) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%s", rig.keeper, e->d_name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n < 0)
			continue;
		link[n] = 0;
		nr += strstr(link, part) != NULL;
	}
	closedir(dir);
	return nr;
}

#endif
