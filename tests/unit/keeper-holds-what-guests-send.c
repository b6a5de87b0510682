/* Bytes and descriptors reach the engine as they came, are held until it releases them, and nothing leaks. */
#include "keeper-rig.h"

#include <sys/mman.h>

static int make_file(void)
{
	int fd = memfd_create("from-guest", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void test_socket_has_mode_and_note(void **state)
{
	struct stat st;

	rig_listen(7, "a.sock");
	assert_int_equal(rig.listen_error, 0);
	assert_int_equal(rig.last_listener, 7);
	assert_string_equal(rig.last_note, "a.sock");
	assert_int_equal(stat(rig_path("a.sock"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	rig_listen(7, "b.sock");
	assert_int_equal(rig.listen_error, EEXIST);
	rig_listen(8, "a.sock");
	assert_int_equal(rig.listen_error, EADDRINUSE);
	assert_non_null(strstr(rig.listen_why, "another process listens there"));
	assert_int_equal(cis_keeper_link_unlisten(rig.link, 7), 0);
	rig_barrier();
	assert_int_equal(stat(rig_path("a.sock"), &st), -1);
}

static void test_cut_stream_arrives_whole(void **state)
{
	size_t held = rig_fds("memfd:from-guest"), all;
	int client, files[2] = { make_file(), make_file() };
	struct seen *s = &rig.conns[0];
	char byte;

	rig_listen(1, "g");
	all = rig_fds("");
	client = rig_connect("g");
	assert_int_equal(cis_sock_send_all(client, "[{\"a", 4, &files[0], 1), 0);
	rig_until(rig.nr_conns == 1 && s->len == 4 && s->nr_fds == 1);
	assert_int_equal(cis_sock_send_all(client, "\":1}", 4, &files[1], 1), 0);
	assert_int_equal(cis_sock_send_all(client, "]", 1, NULL, 0), 0);
	rig_until(s->len == 9);
	assert_memory_equal(s->bytes, "[{\"a\":1}]", 9);
	assert_int_equal(s->listener, 1);
	assert_int_equal(s->nr_fds, 2);
	assert_int_equal(s->peer.pid, getpid());
	assert_int_equal(s->peer.uid, geteuid());
	assert_true(s->pidfd >= 0);
	assert_int_equal(rig_fds("memfd:from-guest"), held + 2);

	assert_int_equal(cis_keeper_link_note(rig.link, s->id, "{}", true), 0);
	assert_int_equal(recv(client, &byte, 1, 0), 1);
	assert_int_equal(byte, 'k');
	shutdown(client, SHUT_WR);
	rig_until(s->eof);
	assert_int_equal(rig_fds("memfd:from-guest"), held + 2); /* a closed socket is no end of a guest */

	assert_int_equal(cis_keeper_link_release(rig.link, s->id), 0);
	assert_int_equal(recv(client, &byte, 1, 0), 0);
	rig_barrier();
	assert_int_equal(rig_fds(""), all);
	cis_fds_close(files, 2);
	cis_fds_close(s->fds, s->nr_fds);
	close(s->pidfd);
	close(client);
}

/* Else an engine to come could not serve its guest, and the last userfaultfd of it might be closed. */
static void test_who_is_served_loses_nothing_by_what_it_says(void **state)
{
	static char much[(128 << 10) + 1];
	size_t held = rig_fds("memfd:from-guest");
	int client, file = make_file();
	struct seen *s = &rig.conns[0];

	rig_listen(1, "g");
	client = rig_connect("g");
	assert_int_equal(cis_sock_send_all(client, "[]", 2, &file, 1), 0);
	rig_until(rig.nr_conns == 1 && s->len == 2 && s->nr_fds == 1);
	assert_int_equal(cis_keeper_link_note(rig.link, s->id, "{}", false), 0);
	rig_barrier();
	cis_sock_send_all(client, much, sizeof(much), NULL, 0);
	shutdown(client, SHUT_WR);
	for (int i = 0; i < 100; i++)
		rig_barrier();
	assert_int_equal(s->error, 0);
	assert_int_equal(rig_fds("memfd:from-guest"), held + 1);
	close(file);
	close(client);
	close(s->pidfd);
	cis_fds_close(s->fds, s->nr_fds);
}

static void test_refusal_reaches_the_client(void **state)
{
	char text[64] = "";
	int client;

	rig_listen(1, "g");
	client = rig_connect("g");
	assert_int_equal(cis_sock_send_all(client, "x", 1, NULL, 0), 0);
	rig_until(rig.nr_conns == 1);
	assert_int_equal(cis_keeper_link_refuse(rig.link, rig.conns[0].id, "no such image"), 0);
	assert_int_equal(recv(client, text, sizeof(text), MSG_WAITALL), 14);
	assert_string_equal(text, "eno such image");
	close(rig.conns[0].pidfd);
	close(client);
}

static void test_large_streams_are_cut_for_the_wire(void **state)
{
	size_t len = 128 << 10;
	char *text = malloc(len);
	struct seen *s = &rig.conns[0];
	int client;

	for (size_t i = 0; i < len; i++)
		text[i] = (char)(i * 7 + i / 251);
	rig_listen(1, "g");
	client = rig_connect("g");
	assert_int_equal(cis_sock_send_all(client, text, len, NULL, 0), 0);
	rig_until(rig.nr_conns == 1 && s->len == len);
	assert_memory_equal(s->bytes, text, len);
	assert_int_equal(s->error, 0);
	close(s->pidfd);
	close(client);
	free(text);
}

/* The process sends and ends at once: what it said is told before its end. */
static void test_end_of_a_process_is_told_after_its_words(void **state)
{
	struct seen *s = &rig.conns[0];
	pid_t child;

	rig_listen(1, "g");
	child = fork();
	if (!child)
		_exit(cis_sock_send_all(rig_connect("g"), "[]", 2, NULL, 0) ? 1 : 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	rig_until(rig.nr_conns == 1 && s->exited);
	assert_int_equal(s->len, 2);
	assert_true(s->eof);
	assert_int_equal(s->peer.pid, child);
	if (s->pidfd >= 0)
		close(s->pidfd);
}

static void test_state_memory_is_held_and_sealed(void **state)
{
	struct seen *s = &rig.conns[0];
	int client;

	rig_listen(1, "g");
	client = rig_connect("g");
	assert_int_equal(cis_sock_send_all(client, "x", 1, NULL, 0), 0);
	rig_until(rig.nr_conns == 1);
	assert_int_equal(cis_keeper_link_state(rig.link, s->id, CIS_WIRE_STATE_MAX + 1), 0);
	rig_until(s->nr_states == 1);
	assert_int_equal(s->state_error, EINVAL);
	assert_int_equal(cis_keeper_link_state(rig.link, s->id, 40960), 0);
	rig_until(s->nr_states == 2);
	assert_int_equal(s->state_error, 0);
	assert_int_equal(s->state_bytes, 40960);
	assert_int_equal(lseek(s->state_fd, 0, SEEK_END), 40960);
	assert_int_equal(ftruncate(s->state_fd, 0), -1);
	assert_int_equal(ftruncate(s->state_fd, 81920), -1);
	assert_int_equal(pwrite(s->state_fd, "mark", 4, 4096), 4);
	assert_int_equal(rig_fds("memfd:cistern-state-"), 1);
	assert_int_equal(cis_keeper_link_release(rig.link, s->id), 0);
	rig_barrier();
	assert_int_equal(rig_fds("memfd:cistern-state-"), 0);
	close(s->state_fd);
	close(s->pidfd);
	close(client);
}

static void test_requests_for_what_is_gone_do_nothing(void **state)
{
	assert_int_equal(cis_keeper_link_state(rig.link, 4711, 4096), 0);
	assert_int_equal(cis_keeper_link_note(rig.link, 4711, "{}", true), 0);
	assert_int_equal(cis_keeper_link_release(rig.link, 4711), 0);
	assert_int_equal(cis_keeper_link_unlisten(rig.link, 4711), 0);
	rig_barrier();
	assert_int_equal(rig.nr_conns, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_start, rig_end)
	const struct CMUnitTest tests[] = {
		TEST(test_socket_has_mode_and_note),
		TEST(test_cut_stream_arrives_whole),
		TEST(test_who_is_served_loses_nothing_by_what_it_says),
		TEST(test_refusal_reaches_the_client),
		TEST(test_large_streams_are_cut_for_the_wire),
		TEST(test_end_of_a_process_is_told_after_its_words),
		TEST(test_state_memory_is_held_and_sealed),
		TEST(test_requests_for_what_is_gone_do_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
