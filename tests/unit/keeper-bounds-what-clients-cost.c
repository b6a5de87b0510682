/* Clients that say nothing, too much, or come in crowds harm neither the keeper nor other guests. */
#include "keeper-rig.h"
#include "pager/state.h"
#include "vmm/handshake.h"

static void serve_one(const char *name)
{
	size_t before = rig.nr_conns;
	int client = rig_connect(name);

	assert_int_equal(cis_sock_send_all(client, "[1]", 3, &client, 1), 0);
	rig_until(rig.nr_conns > before && rig.conns[before].len == 3);
	assert_int_equal(rig.conns[before].nr_fds, 1);
	assert_int_equal(cis_keeper_link_release(rig.link, rig.conns[before].id), 0);
	close(rig.conns[before].fds[0]);
	close(rig.conns[before].pidfd);
	close(client);
}

/* Each round gives the keeper a turn: what it has to do before it can answer is done in the end. */
static void wait_for_fds(size_t nr)
{
	while (rig_fds("") != nr)
		rig_barrier();
}

static void test_a_thousand_silent_ones(void **state)
{
	static int clients[1000];
	size_t before;

	rig_listen(1, "silent");
	rig_listen(2, "other");
	before = rig_fds("");
	for (size_t i = 0; i < 1000; i++)
		clients[i] = rig_connect("silent");
	wait_for_fds(before + 2000); /* a socket and a pidfd each */
	assert_int_equal(rig.nr_conns, 0); /* the engine has not heard of them */
	serve_one("other");
	serve_one("silent");
	cis_fds_close(clients, 1000);
	wait_for_fds(before);
	assert_int_equal(rig.nr_conns, 2);
}

static void test_more_than_a_listener_may_have_are_closed(void **state)
{
	static int clients[1024];
	size_t before;
	int more;
	char byte;

	rig_listen(1, "silent");
	before = rig_fds("");
	for (size_t i = 0; i < 1024; i++)
		clients[i] = rig_connect("silent");
	more = rig_connect("silent");
	assert_int_equal(recv(more, &byte, 1, 0), 0);
	close(clients[0]);
	wait_for_fds(before + 2 * 1023);
	serve_one("silent");
	cis_fds_close(clients + 1, 1023);
	close(more);
}

static void test_too_many_bytes(void **state)
{
	struct seen *s = &rig.conns[0];
	static char text[(128 << 10) + 1];
	int client;

	memset(text, '[', sizeof(text));
	rig_listen(1, "g");
	client = rig_connect("g");
	assert_int_equal(cis_sock_send_all(client, text, sizeof(text), &client, 1), 0);
	rig_until(rig.nr_conns == 1 && s->error);
	assert_int_equal(s->error, EMSGSIZE);
	assert_string_equal(s->why, "sent more than 128 KiB");
	serve_one("g");
	assert_int_equal(cis_keeper_link_release(rig.link, s->id), 0);
	rig_barrier();
	cis_fds_close(s->fds, s->nr_fds);
	close(s->pidfd);
	close(client);
}

static void send_fds(int client, size_t nr)
{
	int fds[16];

	for (size_t i = 0; i < nr; i++)
		fds[i] = client;
	assert_int_equal(cis_sock_send_all(client, "x", 1, fds, nr), 0);
}

static void test_too_many_descriptors(void **state)
{
	size_t before;
	int client;

	rig_listen(1, "g");
	before = rig_fds("");
	client = rig_connect("g");
	send_fds(client, 9);
	rig_until(rig.nr_conns == 1 && rig.conns[0].error);
	assert_int_equal(rig.conns[0].error, E2BIG);
	assert_int_equal(rig.conns[0].nr_fds, 0);
	assert_int_equal(rig_fds(""), before + 3); /* socket, pidfd, record */
	close(rig.conns[0].pidfd);
	close(client);

	client = rig_connect("g");
	send_fds(client, 8);
	rig_until(rig.nr_conns == 2 && rig.conns[1].nr_fds == 8);
	send_fds(client, 1);
	rig_until(rig.conns[1].error == E2BIG);
	assert_int_equal(rig_fds(""), before + 6);
	cis_fds_close(rig.conns[1].fds, 8);
	close(rig.conns[1].pidfd);
	close(client);
}

static int start_poor(void **state)
{
	return rig_start_limited(64);
}

static void test_no_descriptor_left(void **state)
{
	size_t nr_closed = 0, before;
	int clients[100];
	char byte;

	rig_listen(1, "g");
	before = rig_fds("");
	for (size_t i = 0; i < 100; i++)
		clients[i] = rig_connect("g");
	/* The last in the queue: all before it have been decided on. */
	assert_int_equal(recv(clients[99], &byte, 1, 0), 0);
	for (size_t i = 0; i < 100; i++)
		nr_closed += recv(clients[i], &byte, 1, MSG_DONTWAIT) == 0;
	assert_in_range(nr_closed, 60, 99);
	cis_fds_close(clients, 100);
	wait_for_fds(before);
	serve_one("g");
}

/* One after the other, until the keeper has no room for another.  Return: how many it took. */
static size_t fill_up(const char *name, int *clients)
{
	for (size_t nr = 0;; nr++) {
		size_t before = rig.nr_conns;
		struct pollfd p[2] = { { .fd = cis_keeper_link_fd(rig.link), .events = POLLIN } };

		p[1] = (struct pollfd){ .fd = clients[nr] = rig_connect(name), .events = POLLRDHUP };
		(void)send(clients[nr], "x", 1, MSG_NOSIGNAL);
		while (rig.nr_conns == before && !p[1].revents) {
			assert_in_range(poll(p, 2, 20000), 1, 2);
			if (p[0].revents)
				cis_keeper_link_run(rig.link, 1);
		}
		if (rig.nr_conns > before)
			continue;
		close(clients[nr]);
		return nr;
	}
}

/*
 * A guest's descriptors and its state memfd need some, too: whoever asks for too much is refused, those before are
 * served, and the next engine is told all.
 */
static void test_no_descriptor_left_for_what_guests_send(void **state)
{
	int clients[100], one;
	size_t nr;

	rig_listen(1, "g");
	one = rig_connect("g");
	assert_int_equal(cis_sock_send_all(one, "x", 1, &one, 1), 0);
	rig_until(rig.nr_conns == 1 && rig.conns[0].nr_fds == 1);
	nr = fill_up("g", clients);
	assert_in_range(nr, 5, 30);
	send_fds(clients[0], 8);
	rig_until(rig.conns[1].error);
	assert_int_equal(rig.conns[1].error, ENOBUFS);
	for (size_t i = 2; i < 4; i++) /* a connection takes two, so one may be left */
		assert_int_equal(cis_keeper_link_state(rig.link, rig.conns[i].id, 4096), 0);
	rig_until(rig.conns[3].nr_states);
	assert_int_equal(rig.conns[3].state_error, EMFILE);
	close(clients[3]); /* its socket and process stay with the keeper until the engine lets it go */
	rig_until(rig.conns[4].eof);
	assert_int_equal(cis_keeper_link_release(rig.link, rig.conns[4].id), 0);
	assert_int_equal(cis_keeper_link_state(rig.link, rig.conns[0].id, 4096), 0);
	rig_until(rig.conns[0].nr_states);
	assert_int_equal(rig.conns[0].state_error, 0);
	rig_next_engine();
	assert_int_equal(rig.nr_conns, nr);
	for (size_t i = 0; i < rig.nr_conns; i++)
		cis_fds_close(&rig.conns[i].pidfd, 1);
	cis_fds_close(clients, 3);
	cis_fds_close(clients + 4, nr - 4);
	close(one);
}

/* Connect as another user and say something.  Return: whether the keeper hung up on it. */
static bool is_refused(const char *path, uid_t uid)
{
	pid_t pid = fork();
	int fd, status;
	char byte;

	if (!pid) {
		if (setgid(uid) || setuid(uid) || cis_sock_connect(path, SOCK_STREAM, &fd, NULL))
			_exit(2);
		(void)send(fd, "x", 1, MSG_NOSIGNAL);
		_exit(recv(fd, &byte, 1, 0) == 1 ? 0 : 1);
	}
	while (!waitpid(pid, &status, WNOHANG)) {
		struct pollfd p = { .fd = cis_keeper_link_fd(rig.link), .events = POLLIN };
		size_t before = rig.nr_conns;

		if (poll(&p, 1, 10) == 1)
			cis_keeper_link_run(rig.link, 1);
		if (rig.nr_conns > before)
			assert_int_equal(cis_keeper_link_note(rig.link, rig.conns[before].id, "{}", true), 0);
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 2);
	return WEXITSTATUS(status);
}

/* Not the mode of the socket, which somebody may change, but the user says who may speak. */
static void test_only_those_meant_may_speak(void **state)
{
	if (geteuid()) {
		print_message("other users: only root can be them\n");
		return;
	}
	rig_listen(1, "own");
	rig_listen_as(2, "theirs", 4711);
	assert_int_equal(chmod(rig.dir, 0711), 0);
	assert_int_equal(chmod(rig_path("own"), 0666), 0);
	assert_int_equal(chmod(rig_path("theirs"), 0666), 0);
	assert_true(is_refused(rig_path("own"), 4711));
	assert_false(is_refused(rig_path("theirs"), 4711));
	assert_true(is_refused(rig_path("theirs"), 4712));
	assert_false(is_refused(rig_path("theirs"), 0));
	assert_int_equal(rig.nr_conns, 2);
	serve_one("own");
}

/* What is asked for comes from what a guest says of itself. */
static void test_the_largest_guest_has_a_state(void **state)
{
	assert_true(cis_state_bytes(CIS_STATE_LAYOUT_MAX, CIS_HANDSHAKE_GUEST_MAX / 4096) <= CIS_WIRE_STATE_MAX);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_start, rig_end)
	const struct CMUnitTest tests[] = {
		TEST(test_a_thousand_silent_ones),
		TEST(test_more_than_a_listener_may_have_are_closed),
		TEST(test_too_many_bytes),
		TEST(test_too_many_descriptors),
		cmocka_unit_test_setup_teardown(test_no_descriptor_left, start_poor, rig_end),
		cmocka_unit_test_setup_teardown(test_no_descriptor_left_for_what_guests_send, start_poor, rig_end),
		TEST(test_only_those_meant_may_speak),
		cmocka_unit_test(test_the_largest_guest_has_a_state),
	};
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_max < 4096)
		check_skip("fewer than 4096 descriptors are permitted");
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
