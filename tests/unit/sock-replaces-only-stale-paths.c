/* A path is bound with its mode and owner; only a socket that nobody listens on is replaced. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/pidfd.h"
#include "os/sock.h"

static char dir[64], path[96];

static int make_dir(void **state)
{
	strcpy(dir, "/tmp/cis-sock-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/s", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static void test_mode_is_set(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	struct stat st;
	int fd;

	opts.mode = 0627;
	assert_int_equal(cis_sock_listen(path, &opts, &fd, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0627);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

static void test_owner_is_set(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	struct cis_error err;
	struct stat st;
	int fd, r;

	opts.uid = 12345;
	opts.gid = 54321;
	r = cis_sock_listen(path, &opts, &fd, &err);
	if (geteuid()) {
		assert_int_equal(r, -EPERM);
		assert_non_null(strstr(err.text, "owner"));
		assert_int_equal(access(path, F_OK), -1);
		return;
	}
	assert_int_equal(r, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, 12345);
	assert_int_equal(st.st_gid, 54321);
	close(fd);
}

static void test_stale_socket_is_replaced(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	int fd, client, server;

	assert_int_equal(cis_sock_listen(path, &opts, &fd, NULL), 0);
	close(fd);
	assert_int_equal(cis_sock_listen(path, &opts, &fd, NULL), 0);
	assert_int_equal(cis_sock_accept(fd, &server), -EAGAIN);
	assert_int_equal(cis_sock_connect(path, SOCK_STREAM, &client, NULL), 0);
	assert_int_equal(cis_sock_accept(fd, &server), 0);
	assert_true(fcntl(server, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(server, F_GETFL) & O_NONBLOCK);
	cis_fds_close((int[]){ fd, client, server }, 3);
}

static void test_live_socket_is_kept(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	struct cis_error err;
	int fd, other = -7;

	assert_int_equal(cis_sock_listen(path, &opts, &fd, NULL), 0);
	assert_int_equal(cis_sock_listen(path, &opts, &other, &err), -EADDRINUSE);
	assert_int_equal(other, -7);
	assert_non_null(strstr(err.text, "another process listens there"));
	opts.type = SOCK_SEQPACKET;
	assert_int_equal(cis_sock_listen(path, &opts, &other, &err), -EADDRINUSE);
	close(fd);
}

static void test_other_files_are_kept(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	struct cis_error err;
	int fd, other;

	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(cis_sock_listen(path, &opts, &other, &err), -EEXIST);
	assert_non_null(strstr(err.text, "not a socket"));
	assert_int_equal(access(path, F_OK), 0);
	close(fd);
}

static void test_links_are_not_followed(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	int other;

	assert_int_equal(symlink("/nonexistent/target", path), 0);
	assert_int_equal(cis_sock_listen(path, &opts, &other, NULL), -EEXIST);
}

static void test_long_path_is_a_clear_error(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	struct cis_error err;
	char longest[109];
	int fd;

	memset(longest, 'a', sizeof(longest) - 1);
	longest[108] = 0;
	assert_int_equal(cis_sock_listen(longest, &opts, &fd, &err), -ENAMETOOLONG);
	assert_non_null(strstr(err.text, "108 bytes, a socket's at most 107"));
	assert_int_equal(cis_sock_connect(longest, SOCK_STREAM, &fd, &err), -ENAMETOOLONG);
	assert_int_equal(cis_sock_listen("", &opts, &fd, &err), -EINVAL);
	assert_int_equal(cis_sock_connect("/nonexistent/s", SOCK_STREAM, &fd, &err), -ENOENT);
}

/* A child connects, then ends when told so: its pidfd must become readable. */
static void test_peer_is_known_and_its_end_seen(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	int fd, server, pidfd, tell[2];
	struct cis_peer peer;
	pid_t child;
	char byte;

	assert_int_equal(cis_sock_listen(path, &opts, &fd, NULL), 0);
	assert_int_equal(pipe(tell), 0);
	child = fork();
	if (!child) {
		close(tell[1]);
		cis_sock_connect(path, SOCK_STREAM, &server, NULL);
		_exit(read(tell[0], &byte, 1) ? 1 : 0);
	}
	close(tell[0]);
	while (cis_sock_accept(fd, &server) == -EAGAIN)
		;
	assert_int_equal(cis_sock_peer(server, &peer), 0);
	assert_int_equal(peer.pid, child);
	assert_int_equal(peer.uid, geteuid());
	assert_int_equal(cis_pidfd_peer(server, &pidfd), 0);
	assert_false(cis_pidfd_has_exited(pidfd));
	assert_int_equal(cis_pidfd_kill(pidfd, 0), 0);
	close(tell[1]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_true(cis_pidfd_has_exited(pidfd));
	assert_int_equal(cis_pidfd_kill(pidfd, SIGTERM), -ESRCH);
	cis_fds_close((int[]){ fd, server, pidfd }, 3);
}

static void test_peer_that_ended_before_is_not_another(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;
	int fd, server, pidfd, r;
	pid_t child;

	assert_int_equal(cis_sock_listen(path, &opts, &fd, NULL), 0);
	child = fork();
	if (!child)
		_exit(cis_sock_connect(path, SOCK_STREAM, &server, NULL) ? 1 : 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_int_equal(cis_sock_accept(fd, &server), 0);
	r = cis_pidfd_peer(server, &pidfd); /* newer kernels give a descriptor of the dead process */
	if (r)
		assert_int_equal(r, -ESRCH);
	else
		assert_true(cis_pidfd_has_exited(pidfd));
	if (!r)
		close(pidfd);
	cis_fds_close((int[]){ fd, server }, 2);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
	const struct CMUnitTest tests[] = {
		TEST(test_mode_is_set),
		TEST(test_owner_is_set),
		TEST(test_stale_socket_is_replaced),
		TEST(test_live_socket_is_kept),
		TEST(test_other_files_are_kept),
		TEST(test_links_are_not_followed),
		TEST(test_long_path_is_a_clear_error),
		TEST(test_peer_is_known_and_its_end_seen),
		TEST(test_peer_that_ended_before_is_not_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
