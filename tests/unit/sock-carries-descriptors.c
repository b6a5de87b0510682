/* Descriptors arrive with their bytes, close-on-exec, all or none; whatever does not fit is closed. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/sock.h"

static int ends[2];

static int make_pair(void **state)
{
	return cis_sock_pair(SOCK_STREAM, ends);
}

static int close_pair(void **state)
{
	close(ends[0]);
	close(ends[1]);
	return 0;
}

static void send_copies(size_t nr)
{
	int fds[CIS_SOCK_FDS_MAX];

	for (size_t i = 0; i < nr; i++)
		fds[i] = ends[0];
	assert_int_equal(cis_sock_send_all(ends[0], "x", 1, fds, nr), 0);
}

static void test_as_many_as_the_kernel_takes(void **state)
{
	int fds[CIS_SOCK_FDS_MAX];
	size_t before = check_open_fds(), nr = 0, len = 0;
	char byte;

	send_copies(CIS_SOCK_FDS_MAX);
	assert_int_equal(cis_sock_recv(ends[1], &byte, 1, fds, CIS_SOCK_FDS_MAX, &nr, &len), 0);
	assert_int_equal(nr, CIS_SOCK_FDS_MAX);
	assert_int_equal(len, 1);
	for (size_t i = 0; i < nr; i++)
		assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
	cis_fds_close(fds, nr);
	assert_int_equal(check_open_fds(), before);
}

static void test_too_many_are_all_closed(void **state)
{
	size_t before = check_open_fds(), nr = 77, len = 77;
	int fds[2];
	char byte;

	send_copies(3);
	assert_int_equal(cis_sock_recv(ends[1], &byte, 1, fds, 2, &nr, &len), -E2BIG);
	assert_int_equal(nr, 77);
	assert_int_equal(check_open_fds(), before);
}

static void test_truncated_are_all_closed(void **state)
{
	size_t before = check_open_fds(), nr, len;
	struct rlimit old, low;
	int fds[8], probe = dup(0);
	char byte;

	close(probe);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)probe + 2; /* room for two of the three */
	send_copies(3);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_int_equal(cis_sock_recv(ends[1], &byte, 1, fds, 8, &nr, &len), -ENOBUFS);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(check_open_fds(), before);
}

static void test_other_control_data_is_refused(void **state)
{
	size_t before = check_open_fds(), nr, len;
	int one = 1, fds[8];
	char byte;

	assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)), 0);
	send_copies(1);
	assert_int_equal(cis_sock_recv(ends[1], &byte, 1, fds, 8, &nr, &len), -EPROTO);
	assert_int_equal(check_open_fds(), before);
}

static void test_long_packet_is_refused(void **state)
{
	int pair[2], fds[1];
	size_t nr, len, before;
	char buf[2];

	assert_int_equal(cis_sock_pair(SOCK_SEQPACKET, pair), 0);
	before = check_open_fds();
	assert_int_equal(cis_sock_send_all(pair[0], "abc", 3, pair, 1), 0);
	assert_int_equal(cis_sock_recv(pair[1], buf, 2, fds, 1, &nr, &len), -EMSGSIZE);
	assert_int_equal(check_open_fds(), before);
	cis_fds_close(pair, 2);
}

static void test_nothing_is_eagain_and_the_end_is_zero(void **state)
{
	size_t nr, len = 77;
	int fds[1];
	char byte;

	assert_int_equal(cis_sock_recv(ends[1], &byte, 1, fds, 1, &nr, &len), -EAGAIN);
	shutdown(ends[0], SHUT_WR);
	assert_int_equal(cis_sock_recv(ends[1], &byte, 1, fds, 1, &nr, &len), 0);
	assert_int_equal(len, 0);
	assert_int_equal(nr, 0);
}

static void test_words_before_a_rude_end_are_heard(void **state)
{
	int pair[2], fds[1];
	size_t nr, len;
	char byte;

	assert_int_equal(cis_sock_pair(SOCK_SEQPACKET, pair), 0);
	assert_int_equal(cis_sock_send_all(pair[1], "unread", 6, NULL, 0), 0);
	assert_int_equal(cis_sock_send_all(pair[0], "x", 1, NULL, 0), 0);
	close(pair[0]);
	assert_int_equal(cis_sock_recv(pair[1], &byte, 1, fds, 1, &nr, &len), 0);
	assert_int_equal(len, 1);
	assert_int_equal(cis_sock_recv(pair[1], &byte, 1, fds, 1, &nr, &len), 0);
	assert_int_equal(len, 0);
	close(pair[1]);
}

static void test_closed_reader_is_an_error_not_a_signal(void **state)
{
	int pair[2];
	size_t sent;

	assert_int_equal(cis_sock_pair(SOCK_STREAM, pair), 0);
	close(pair[1]);
	assert_int_equal(cis_sock_send(pair[0], "x", 1, NULL, 0, &sent), -EPIPE);
	close(pair[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_as_many_as_the_kernel_takes, make_pair, close_pair),
		cmocka_unit_test_setup_teardown(test_too_many_are_all_closed, make_pair, close_pair),
		cmocka_unit_test_setup_teardown(test_truncated_are_all_closed, make_pair, close_pair),
		cmocka_unit_test_setup_teardown(test_other_control_data_is_refused, make_pair, close_pair),
		cmocka_unit_test(test_long_packet_is_refused),
		cmocka_unit_test_setup_teardown(test_nothing_is_eagain_and_the_end_is_zero, make_pair,
						close_pair),
		cmocka_unit_test(test_words_before_a_rude_end_are_heard),
		cmocka_unit_test(test_closed_reader_is_an_error_not_a_signal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
