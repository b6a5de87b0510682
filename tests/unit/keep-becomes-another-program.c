/*
 * The keeper becomes another program in place, again and again: same process, same connections under the same numbers, the
 * engine hears nothing twice; and a program that cannot be executed leaves the old one at work.
 *
 * This program is the keeper too: it executes itself, and on SIGUSR1 executes what the file beside its sockets names.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/keep_exec.h"
#include "daemon/keeper.h"
#include "daemon/keeper_link.h"
#include "os/memfd.h"
#include "os/sock.h"
#include "os/uffd.h"

#define TIMES 20

static char self[4096], dir[64], path[108];
static volatile sig_atomic_t wanted;

static struct {
	struct cis_keeper_link *link;
	uint64_t conn, generation, state_bytes;
	size_t nr_listening, nr_conns, len, nr_fds, nr_states, nr_notes, nr_refused;
	int fds[8], state_fd;
	bool exited, lost;
} heard;

/* The keeper. */

static void want(int sig)
{
	wanted = 1;
}

static void become(struct cis_keeper *k, const char *folder)
{
	char name[200], program[4096] = "";
	struct cis_error err;
	int fd, r;

	snprintf(name, sizeof(name), "%s/program", folder);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, program, sizeof(program) - 1) <= 0)
		_exit(90);
	close(fd);
	wanted = 0;
	r = keep_exec(k, program, &err);
	if (r == -EAGAIN)
		wanted = 1;
	snprintf(name, sizeof(name), "%s/failed", folder);
	if (!wanted)
		close(open(name, O_CREAT | O_WRONLY, 0600));
}

static int be_keeper(const char *folder, int wire)
{
	const struct sigaction act = { .sa_handler = want };
	struct cis_keeper *k;
	bool again = getenv(KEEP_TABLE_ENV);

	if (cis_keeper_create(&k, NULL) || cis_keeper_gather(k, &(struct cis_keep_opts){ 0 }, NULL) ||
	    (!again && cis_keeper_attach(k, wire, NULL)) || sigaction(SIGUSR1, &act, NULL))
		return 91;
	cis_keeper_stay(k);
	while (!cis_keeper_step(k))
		if (wanted)
			become(k, folder);
	return 92;
}

/* Its engine. */

static void on_listening(void *ctx, uint64_t id, const struct cis_wire_listen *listen, int error, const char *why)
{
	heard.nr_listening += !error;
	heard.nr_refused += error == ENOENT;
}

static void on_connection(void *ctx, uint64_t conn, uint64_t listener, const struct cis_peer *peer, int pidfd)
{
	heard.conn = conn;
	heard.nr_conns++;
	heard.len = 0;
	close(pidfd);
}

static void on_bytes(void *ctx, uint64_t conn, uint64_t at, const void *bytes, size_t len, const int *fds, size_t nr)
{
	assert_int_equal(at, heard.len);
	heard.len += len;
	memcpy(heard.fds + heard.nr_fds, fds, nr * sizeof(int));
	heard.nr_fds += nr;
}

static void on_broken(void *ctx, uint64_t conn, int error, const char *why)
{
	fail_msg("broken: %s", why);
}

static void on_eof(void *ctx, uint64_t conn)
{
}

static void on_exited(void *ctx, uint64_t conn)
{
	assert_int_equal(conn, heard.conn);
	heard.exited = true;
}

static void on_state(void *ctx, uint64_t conn, int error, int memfd, uint64_t bytes)
{
	assert_int_equal(error, 0);
	heard.nr_states++;
	heard.state_bytes = bytes;
	heard.state_fd = memfd;
}

static void on_replayed(void *ctx, uint64_t generation)
{
	heard.generation = generation;
}

static void on_stop(void *ctx)
{
}

static void on_lost(void *ctx)
{
	heard.lost = true;
}

static void on_noted(void *ctx, uint64_t conn, const void *note, size_t len)
{
	heard.nr_notes++;
}

static const struct cis_keeper_link_ops ops = {
	.listening = on_listening, .connection = on_connection, .bytes = on_bytes, .broken = on_broken, .eof = on_eof,
	.exited = on_exited, .state = on_state, .replayed = on_replayed, .stop = on_stop, .lost = on_lost, .noted = on_noted,
};

#define until(cond)                                                                                  \
	do {                                                                                         \
		while (!(cond)) {                                                                    \
			struct pollfd p = { .fd = cis_keeper_link_fd(heard.link), .events = POLLIN }; \
			assert_false(heard.lost);                                                    \
			assert_int_equal(poll(&p, 1, 20000), 1);                                     \
			cis_keeper_link_run(heard.link, 1);                                          \
		}                                                                                    \
	} while (0)

/* All that was asked for is done: an impossible listener has been refused. */
static void barrier(void)
{
	struct cis_wire_listen listen = { .path = "/nonexistent/socket", .uid = UINT32_MAX, .gid = UINT32_MAX };
	size_t before = heard.nr_refused;

	assert_int_equal(cis_keeper_link_listen(heard.link, 999999, &listen), 0);
	until(heard.nr_refused > before);
}

static const char *in_dir(const char *name)
{
	static char full[128];

	snprintf(full, sizeof(full), "%s/%s", dir, name);
	return full;
}

static void name_program(const char *program)
{
	int fd = open(in_dir("program"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, program, strlen(program)), strlen(program));
	close(fd);
}

static pid_t start_keeper(int *ret_wire)
{
	char number[16];
	int pair[2];
	pid_t pid;

	assert_int_equal(cis_sock_pair(SOCK_SEQPACKET, pair), 0);
	snprintf(number, sizeof(number), "%d", pair[0]);
	fcntl(pair[0], F_SETFD, 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		execl(self, self, "--keeper", dir, number, (char *)NULL);
		_exit(99);
	}
	close(pair[0]);
	*ret_wire = pair[1];
	return pid;
}

/* What it executes now: copies of this program are other files. */
static ino_t image_of(pid_t pid)
{
	char link[64];
	struct stat st;

	snprintf(link, sizeof(link), "/proc/%d/exe", pid);
	assert_int_equal(stat(link, &st), 0);
	return st.st_ino;
}

static void copy_self(const char *to)
{
	char command[9000];

	snprintf(command, sizeof(command), "cp %s %s", self, to);
	assert_int_equal(system(command), 0);
}

static int wait_go(int go, int sock)
{
	char byte;

	return read(go, &byte, 1) < 0 || close(sock) ? 1 : 0;
}

static pid_t start_guest(int *ret_go)
{
	int go[2];
	pid_t pid;

	assert_int_equal(pipe(go), 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		int memfd, sock;

		close(go[1]);
		if (cis_memfd_create("of-the-guest", 4096, 4096, &memfd) || cis_sock_connect(path, SOCK_STREAM, &sock, NULL) ||
		    cis_sock_send_all(sock, "handshake", 9, &memfd, 1))
			_exit(1);
		_exit(wait_go(go[0], sock));
	}
	close(go[0]);
	*ret_go = go[1];
	return pid;
}

static void begin(int wire)
{
	struct cis_wire_hello hello = { .wire = CIS_WIRE_VERSION, .layout_min = 1, .layout_max = 1, .version = "test" };
	struct cis_wire_listen listen = { .mode = 0600, .uid = UINT32_MAX, .gid = UINT32_MAX, .note = "n", .note_len = 1 };

	strcpy(listen.path, path);
	assert_int_equal(cis_keeper_link_create(wire, &ops, NULL, &heard.link), 0);
	assert_int_equal(cis_keeper_link_hello(heard.link, &hello), 0);
	until(heard.generation == 1);
	assert_int_equal(cis_keeper_link_listen(heard.link, 3, &listen), 0);
	until(heard.nr_listening == 1);
}

static void test_becomes_another(void **state)
{
	const char *programs[2] = { strdup(in_dir("one")), strdup(in_dir("two")) };
	pid_t keeper, guest;
	int wire, go;
	uint64_t conn;

	copy_self(programs[0]);
	copy_self(programs[1]);
	keeper = start_keeper(&wire);
	begin(wire);
	guest = start_guest(&go);
	until(heard.len == 9 && heard.nr_fds == 1);
	conn = heard.conn;
	cis_keeper_link_note(heard.link, conn, "note", 4);
	cis_keeper_link_state(heard.link, conn, 8192);
	until(heard.nr_states == 1);
	for (int i = 0; i < TIMES; i++) {
		struct stat st;

		assert_int_equal(stat(programs[i % 2], &st), 0);
		name_program(programs[i % 2]);
		barrier();
		kill(keeper, SIGUSR1);
		while (image_of(keeper) != st.st_ino)
			barrier();
		barrier(); /* and the new one answers */
		assert_int_equal(heard.nr_conns, 1);
		assert_int_equal(heard.nr_listening, 1);
		assert_int_equal(heard.nr_states, 1);
		assert_int_equal(heard.nr_notes, 0);
	}
	name_program("/nonexistent/program");
	kill(keeper, SIGUSR1);
	while (access(in_dir("failed"), F_OK))
		barrier();
	barrier();
	close(go);
	assert_int_equal(waitpid(guest, NULL, 0), guest);
	until(heard.exited);
	assert_int_equal(cis_keeper_link_release(heard.link, conn), 0);
	guest = start_guest(&go); /* the listener listens, and numbers go on */
	until(heard.nr_conns == 2 && heard.len == 9);
	assert_int_equal(heard.conn, conn + 1);
	kill(keeper, SIGKILL);
	assert_int_equal(waitpid(keeper, NULL, 0), keeper);
	close(go);
	waitpid(guest, NULL, 0);
	cis_keeper_link_destroy(heard.link);
	cis_fds_close(heard.fds, heard.nr_fds);
	close(heard.state_fd);
	free((char *)programs[0]);
	free((char *)programs[1]);
}

static int set_up(void **state)
{
	strcpy(dir, "/tmp/cis-exec-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/guest", dir);
	return 0;
}

static int tear_down(void **state)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_becomes_another, set_up, tear_down) };

	if (argc == 4)
		return be_keeper(argv[2], atoi(argv[3]));
	check_native(argc, argv);
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
