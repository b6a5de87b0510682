/*
 * The engine is killed: guests stall and never read zeros, and another engine gets everything and serves
 * them.
 */
#include "keeper-rig.h"

#include <sys/mman.h>

#include "os/uffd.h"

#define PATTERN 0x5a

/* A guest that gives its userfaultfd away; the page that it touches then is there or it waits. */
static int be_guest(const char *path, int go)
{
	int uffd, sock;
	char *page, byte;

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || cis_uffd_open(0, &uffd) ||
	    cis_uffd_register(uffd, (uintptr_t)page, 4096, UFFDIO_REGISTER_MODE_MISSING))
		return 2;
	if (cis_sock_connect(path, SOCK_STREAM, &sock, NULL) ||
	    cis_sock_send_all(sock, &page, sizeof(page), &uffd, 1))
		return 3;
	close(uffd);
	if (read(go, &byte, 1) != 1)
		return 4;
	return *(volatile char *)page == PATTERN ? 0 : 1;
}

/* An engine that takes what comes and says so. */
static void be_engine(int say)
{
	rig_until(rig.nr_conns == 1 && rig.conns[0].nr_fds == 1);
	cis_keeper_link_state(rig.link, rig.conns[0].id, 8192);
	rig_until(rig.conns[0].nr_states == 1);
	if (pwrite(rig.conns[0].state_fd, "state of page 0", 16, 4096) != 16 || write(say, "k", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static void serve_page(int uffd, uint64_t page)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	char content[4096];
	struct uffd_msg msg;
	uint64_t done;
	size_t n;

	memset(content, PATTERN, sizeof(content));
	assert_int_equal(poll(&p, 1, 20000), 1);
	assert_int_equal(cis_uffd_read(uffd, &msg, 1, &n), 0);
	assert_int_equal(msg.event, UFFD_EVENT_PAGEFAULT);
	assert_int_equal(msg.arg.pagefault.address & ~4095ull, page);
	assert_int_equal(cis_uffd_copy(uffd, page, content, 4096, &done), 0);
}

static void test_killed_engine_is_succeeded(void **state)
{
	int go[2], said[2], status;
	pid_t engine, guest;
	struct seen *s = &rig.conns[0];
	char byte, text[16];
	uint64_t page;

	rig_listen(5, "guest");
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(said), 0);
	engine = fork();
	if (!engine)
		be_engine(said[1]);
	close(cis_keeper_link_fd(rig.link)); /* the child's alone from now on */
	guest = fork();
	if (!guest)
		_exit(be_guest(rig_path("guest"), go[0]));
	assert_int_equal(read(said[0], &byte, 1), 1);
	kill(engine, SIGKILL);
	assert_int_equal(waitpid(engine, NULL, 0), engine);
	assert_int_equal(rig_fds("[userfaultfd]"), 1);
	assert_int_equal(write(go[1], "g", 1), 1); /* from now on the guest touches, and nobody serves */

	rig_next_engine();
	assert_int_equal(rig.nr_listening, 1);
	assert_int_equal(rig.last_listener, 5);
	assert_string_equal(rig.last_note, "guest");
	assert_string_equal(rig.last_listen.path, rig_path("guest"));
	assert_int_equal(rig.nr_conns, 1);
	assert_int_equal(s->listener, 5);
	assert_int_equal(s->peer.pid, guest);
	assert_int_equal(s->len, sizeof(page));
	assert_int_equal(s->nr_fds, 1);
	assert_int_equal(s->state_bytes, 8192);
	assert_int_equal(pread(s->state_fd, text, 16, 4096), 16);
	assert_string_equal(text, "state of page 0");

	memcpy(&page, s->bytes, sizeof(page));
	serve_page(s->fds[0], page);
	assert_int_equal(waitpid(guest, &status, 0), guest);
	assert_int_equal(status, 0);
	rig_until(s->exited);
	assert_int_equal(cis_keeper_link_release(rig.link, s->id), 0);
	rig_barrier();
	assert_int_equal(rig_fds("[userfaultfd]"), 0);
	assert_int_equal(rig_fds("cistern-state"), 0);
	cis_fds_close((int[]){ go[0], go[1], said[0], said[1], s->fds[0], s->state_fd, s->pidfd }, 7);
	s->nr_fds = 0;
}

/* Whoever connects while there is no engine is held for the next one; whoever ends is let go. */
static void test_guests_between_engines(void **state)
{
	int client, go[2];
	pid_t ended;
	char byte;

	rig_listen(1, "g");
	assert_int_equal(pipe(go), 0);
	ended = fork();
	if (!ended) {
		client = rig_connect("g");
		if (cis_sock_send_all(client, "old", 3, NULL, 0))
			_exit(1);
		close(go[1]);
		_exit(read(go[0], &byte, 1) ? 1 : 0);
	}
	rig_until(rig.nr_conns == 1 && rig.conns[0].len == 3);
	shutdown(cis_keeper_link_fd(rig.link), SHUT_RDWR); /* this engine is gone */
	rig_next_engine();
	assert_int_equal(rig.nr_conns, 1);
	close(go[0]);
	close(go[1]);
	assert_int_equal(waitpid(ended, NULL, 0), ended);
	rig_until(rig.conns[0].exited);
	close(rig.conns[0].pidfd);
}

static void test_much_is_replayed_without_loss(void **state)
{
	enum { NR = 40, LEN = 100000 };
	static char text[LEN];
	int clients[NR];

	rig_listen(1, "g");
	for (size_t i = 0; i < NR; i++) {
		memset(text, 'a' + (int)(i % 26), LEN);
		clients[i] = rig_connect("g");
		assert_int_equal(cis_sock_send_all(clients[i], text, LEN, &clients[i], 1), 0);
	}
	rig_until(rig.nr_conns == NR && rig.conns[NR - 1].len == LEN);
	for (size_t i = 0; i < NR; i++) /* what was on the way when the engine was lost */
		assert_int_equal(cis_keeper_link_state(rig.link, rig.conns[i].id, 4096), 0);
	rig_next_engine();
	assert_int_equal(rig.nr_conns, NR);
	for (size_t i = 0; i < NR; i++) {
		struct seen *s = &rig.conns[i];

		assert_int_equal(s->len, LEN);
		assert_int_equal(s->nr_fds, 1);
		assert_int_equal(s->bytes[0], s->bytes[LEN - 1]);
		cis_fds_close(s->fds, 1);
		close(s->pidfd);
		if (s->state_fd >= 0)
			close(s->state_fd);
	}
	cis_fds_close(clients, NR);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_start, rig_end)
	const struct CMUnitTest tests[] = {
		TEST(test_killed_engine_is_succeeded),
		TEST(test_guests_between_engines),
		TEST(test_much_is_replayed_without_loss),
	};
	int uffd = -1, r = cis_uffd_open(0, &uffd);

	if (r)
		check_skip("no userfaultfd for this user or in this kernel");
	close(uffd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
