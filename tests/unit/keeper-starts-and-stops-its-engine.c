/*
 * The engine gets its two descriptors and the environment it was given; its end, and a signal to the keeper, do
 * what is promised.
 */
#include "keeper-rig.h"

#include <sched.h>

static char self[4096], dir[64], path[96], control[96];
extern char **environ;

static struct {
	bool stop, lost, replayed;
} heard;

static void nop_listening(void *ctx, uint64_t id, const struct cis_wire_listen *listen, int error,
			  const char *why)
{
}

static void nop_connection(void *ctx, uint64_t conn, uint64_t id, const struct cis_peer *peer, int pidfd)
{
}

static void nop_bytes(void *ctx, uint64_t conn, uint64_t at, const void *bytes, size_t len, const int *fds,
		      size_t nr)
{
}

static void nop_broken(void *ctx, uint64_t conn, int error, const char *why)
{
}

static void nop_conn(void *ctx, uint64_t conn)
{
}

static void nop_state(void *ctx, uint64_t conn, int error, int memfd, uint64_t bytes)
{
}

static void note_replayed(void *ctx, uint64_t generation)
{
	heard.replayed = generation == 1;
}

static void note_stop(void *ctx)
{
	heard.stop = true;
}

static void note_lost(void *ctx)
{
	heard.lost = true;
}

static const struct cis_keeper_link_ops ops = {
	.listening = nop_listening, .connection = nop_connection, .bytes = nop_bytes, .broken = nop_broken, .eof = nop_conn,
	.exited = nop_conn, .state = nop_state, .replayed = note_replayed, .stop = note_stop, .lost = note_lost,
};

/* Runs in the executed engine: its status says what was wrong. */
static int engine_inspect(void)
{
	sigset_t set;

	int is_listening = 0;
	socklen_t len = sizeof(is_listening);

	if (getsockopt(CIS_WIRE_CONTROL_FD, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len) || !is_listening)
		return 14;
	if (check_open_fds() != 5) /* 0, 1, 2, the wire and the control socket */
		return 10;
	if (!environ[0] || strcmp(environ[0], "ONLY=this") || environ[1])
		return 11;
	if (sigprocmask(SIG_BLOCK, NULL, &set) || sigismember(&set, SIGTERM))
		return 12;
	if (getpgrp() != getpid())
		return 13;
	return 42;
}

static int run_until(struct cis_keeper_link *link, const bool *what)
{
	while (!*what) {
		struct pollfd p = { .fd = cis_keeper_link_fd(link), .events = POLLIN };

		poll(&p, 1, -1);
		cis_keeper_link_run(link, 1);
		if (heard.lost && what != &heard.lost)
			return 20;
	}
	return 0;
}

/* Listens on @path, ends as soon as it is told to stop. */
static int engine_serve(const char *at)
{
	struct cis_wire_listen listen = { .mode = 0600, .uid = UINT32_MAX, .gid = UINT32_MAX };
	struct cis_wire_hello hello = { .wire = CIS_WIRE_VERSION, .layout_min = 1, .layout_max = 1 };
	struct cis_keeper_link *link;
	int r = cis_keeper_link_create(CIS_WIRE_FD, &ops, NULL, &link);

	strcpy(listen.path, at);
	if (!r)
		r = cis_keeper_link_hello(link, &hello);
	if (!r)
		r = run_until(link, &heard.replayed);
	if (!r)
		r = cis_keeper_link_listen(link, 1, &listen);
	if (!r)
		r = run_until(link, &heard.stop);
	cis_keeper_link_destroy(link);
	return r;
}

/* A keeper in a child, with this program as its engine.  Return: its process. */
static pid_t start(const char *mode, const char *at)
{
	char *argv[] = { self, (char *)"--engine", (char *)mode, (char *)at, NULL };
	char *envp[] = { (char *)"ONLY=this", NULL };
	struct cis_keeper *k;
	int status = 0, r;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	r = cis_keeper_create(&k, NULL);
	if (!r)
		r = cis_keeper_control(k, control, NULL);
	if (!r)
		r = cis_keeper_start(k, argv, envp, NULL);
	if (!r)
		r = cis_keeper_run(k, &status);
	cis_keeper_destroy(k);
	_exit(r ? 98 : status);
}

static int ended(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_engine_gets_what_it_should(void **state)
{
	assert_int_equal(ended(start("inspect", "")), 42);
}

static void test_program_that_is_not_there(void **state)
{
	char saved[4096];

	strcpy(saved, self);
	strcpy(self, "/nonexistent/engine");
	assert_int_equal(ended(start("inspect", "")), 127);
	strcpy(self, saved);
}

static int make_dir(void **state)
{
	strcpy(dir, "/tmp/cis-keeper-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(control, sizeof(control), "%s/run/control", dir);
	return 0;
}

static int remove_dir(void **state)
{
	char run[80];

	snprintf(run, sizeof(run), "%s/run", dir);
	return rmdir(run) || rmdir(dir); /* fails when a socket was left */
}

static int connect_when_there(void)
{
	int fd;

	while (cis_sock_connect(path, SOCK_STREAM, &fd, NULL))
		sched_yield();
	return fd;
}

static void test_signal_without_guests_ends_it(void **state)
{
	pid_t keeper = start("serve", path);
	int silent = connect_when_there();
	char byte;

	kill(keeper, SIGTERM);
	assert_int_equal(ended(keeper), 0);
	assert_true(recv(silent, &byte, 1, 0) <= 0);
	close(silent);
}

/* Not so when a user-mode emulator runs this program: it hands the executed one to the kernel. */
static bool executes_itself(void)
{
	char *argv[] = { self, (char *)"--engine", (char *)"nothing", (char *)"", NULL }, *envp[] = { NULL };
	pid_t pid = fork();

	if (!pid) {
		execve(self, argv, envp);
		_exit(1);
	}
	return !ended(pid);
}

int main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
	const struct CMUnitTest tests[] = {
		TEST(test_engine_gets_what_it_should),
		TEST(test_program_that_is_not_there),
		TEST(test_signal_without_guests_ends_it),
	};

	if (argc == 4 && !strcmp(argv[2], "nothing"))
		return 0;
	if (argc == 4 && !strcmp(argv[2], "inspect"))
		return engine_inspect();
	if (argc == 4)
		return engine_serve(argv[3]);
	if (!realpath("/proc/self/exe", self))
		return 1;
	if (!executes_itself())
		check_skip("a program of this kind cannot execute another here: it is emulated");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
