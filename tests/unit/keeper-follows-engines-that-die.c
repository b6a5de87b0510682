/* Whenever an engine dies, and whatever it was doing, the next is started and told everything. */
#include "keeper-puppets.h"

#include <sys/resource.h>

/* Each engine dies on hearing a message of one type; the last is told all that the first was, and what came of its requests. */
static void test_death_at_every_message(void **state)
{
	static const enum cis_wire_type deaths[] = {
		CIS_WIRE_ROLE, CIS_WIRE_LISTENING, CIS_WIRE_CONNECTION, CIS_WIRE_NOTED, CIS_WIRE_BYTES,
		CIS_WIRE_STATE_MADE, CIS_WIRE_EOF, CIS_WIRE_REPLAYED, CIS_WIRE_STOP,
	};
	struct puppet *p = show_start(show.self);
	int guest = show_guest(p, 7);
	uint64_t conn = word(p, CIS_WIRE_CONNECTION)->msg.id;
	ino_t memfd;

	say(p, .type = CIS_WIRE_READY);
	say(p, .type = CIS_WIRE_NOTE, .id = conn, .body = "first", .body_len = 5);
	say(p, .type = CIS_WIRE_STATE, .id = conn, .arg = 8192);
	until(heard(p, CIS_WIRE_STATE_MADE));
	memfd = word(p, CIS_WIRE_STATE_MADE)->file;
	shutdown(guest, SHUT_WR);
	until(heard(p, CIS_WIRE_EOF));
	assert_int_equal(heard(p, CIS_WIRE_NOTED), 0); /* it knows */
	say(p, .type = CIS_WIRE_NOTE, .id = conn, .body = "second", .body_len = 6); /* its last words are obeyed */
	kill(getpid(), SIGTERM);
	for (size_t i = 0; i < sizeof(deaths) / sizeof(deaths[0]); i++) {
		puppet_ends(p, i % 2 ? 3 : 128 + SIGKILL);
		until(puppet_is_gone(p));
		show.now += 2000 * MS;
		until(show.nr_puppets == i + 2);
		p = &show.puppets[i + 1];
		if (deaths[i] != CIS_WIRE_LISTENING) /* which SIGTERM has closed */
			until(heard(p, deaths[i]));
	}
	until(heard(p, CIS_WIRE_STOP));
	assert_int_equal(word(p, CIS_WIRE_ROLE)->msg.arg, CIS_WIRE_SERVE);
	assert_int_equal(word(p, CIS_WIRE_CONNECTION)->msg.id, conn);
	assert_int_equal(word(p, CIS_WIRE_CONNECTION)->msg.arg, 7);
	assert_string_equal(word(p, CIS_WIRE_NOTED)->text, "second");
	assert_true(word(p, CIS_WIRE_NOTED) < word(p, CIS_WIRE_BYTES));
	assert_string_equal(word(p, CIS_WIRE_BYTES)->text, "hi");
	assert_int_equal(word(p, CIS_WIRE_BYTES)->msg.nr_fds, 1);
	assert_int_equal(word(p, CIS_WIRE_STATE_MADE)->file, memfd);
	assert_int_equal(word(p, CIS_WIRE_REPLAYED)->msg.arg, 10);
	for (enum cis_wire_type t = CIS_WIRE_CONNECTION; t <= CIS_WIRE_NOTED; t++)
		assert_true(heard(p, t) <= 1);
	say(p, .type = CIS_WIRE_RELEASE, .id = conn);
	puppet_ends(p, 0);
	until(cis_keeper_is_over(show.k));
	close(guest);
}

/* Without a guest: the daemon goes on when it has served, and ends when it never did. */
static void test_no_guest(void **state)
{
	struct puppet *p = show_start(show.self);

	say(p, .type = CIS_WIRE_READY);
	until(heard(p, CIS_WIRE_REPLAYED));
	quiet();
	puppet_ends(p, 128 + SIGKILL);
	until(show.nr_puppets == 2); /* at once: no time has passed */
	kill(getpid(), SIGTERM);
	puppet_ends(&show.puppets[1], 0);
	until(cis_keeper_is_over(show.k));
}

static void test_never_ready(void **state)
{
	struct puppet *p = show_start(show.self);
	int status;

	puppet_ends(p, 5);
	assert_int_equal(cis_keeper_run(show.k, &status), 0);
	assert_int_equal(status, 5);
}

/* While a guest is held, it goes on for ever, ready or not; the pauses double, up to 100 ms, and begin anew after a long life. */
static void test_pauses(void **state)
{
	static const unsigned pauses[] = { 0, 10, 20, 40, 80, 100, 100, 100, 100, 100 };
	struct puppet *p = show_start(show.self);
	int guest = show_guest(p, 1);

	for (size_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
		puppet_ends(&show.puppets[i], 128 + SIGKILL);
		until(puppet_is_gone(&show.puppets[i]));
		if (pauses[i]) {
			pass(pauses[i] - 1);
			assert_int_equal(cis_keeper_timeout_ms(show.k), 1);
			pass(1);
		}
		until(show.nr_puppets == i + 2);
	}
	pass(10000);
	puppet_ends(&show.puppets[10], 128 + SIGKILL);
	until(show.nr_puppets == 12);
	puppet_ends(&show.puppets[11], 128 + SIGKILL);
	until(puppet_is_gone(&show.puppets[11]));
	assert_int_equal(cis_keeper_timeout_ms(show.k), 10);
	close(guest);
}

/* The guest ends, and the signal comes, while there is no engine: nothing is left to be started for. */
static void test_guest_ends_between_engines(void **state)
{
	struct puppet *p = show_start(show.self);
	int go[2], guest = show_guest(p, 1);
	char byte;
	pid_t pid;

	assert_int_equal(pipe(go), 0);
	pid = fork();
	if (!pid) {
		close(go[1]);
		close(guest);
		if (cis_sock_connect(show_path("g1"), SOCK_STREAM, &guest, NULL) || cis_sock_send_all(guest, "yo", 2, NULL, 0))
			_exit(1);
		_exit(read(go[0], &byte, 1) ? 2 : 0);
	}
	until(heard(p, CIS_WIRE_BYTES) == 2);
	say(p, .type = CIS_WIRE_RELEASE, .id = p->words[1].msg.id);
	for (size_t i = 0; i < p->nr_words; i++)
		if (p->words[i].msg.type == CIS_WIRE_BYTES && !strcmp(p->words[i].text, "hi"))
			say(p, .type = CIS_WIRE_RELEASE, .id = p->words[i].msg.id);
	quiet();
	for (size_t i = 0; i < 2; i++) { /* the second one's successor has to wait */
		puppet_ends(&show.puppets[i], 128 + SIGKILL);
		until(puppet_is_gone(&show.puppets[i]));
		if (!i)
			until(show.nr_puppets == 2);
	}
	kill(getpid(), SIGTERM);
	quiet();
	assert_false(cis_keeper_is_over(show.k));
	close(go[1]);
	until(cis_keeper_is_over(show.k));
	assert_int_equal(waitpid(pid, &show.status, 0), pid);
	assert_int_equal(show.status, 0);
	assert_int_equal(show.nr_puppets, 2);
	cis_fds_close((int[]){ go[0], guest }, 2);
}

/* An engine is started to let guests go, also when the signal came while there was none. */
/* A process that hands over and ends by the byte that is written to @ret_go. */
static pid_t start_guest(const char *path, int *ret_go)
{
	int go[2], sock;
	char byte;
	pid_t pid;

	assert_int_equal(pipe(go), 0);
	pid = fork();
	if (!pid) {
		close(go[1]);
		if (cis_sock_connect(path, SOCK_STREAM, &sock, NULL) || cis_sock_send_all(sock, "yo", 2, NULL, 0))
			_exit(1);
		_exit(read(go[0], &byte, 1) == 1 ? 0 : 2);
	}
	close(go[0]);
	*ret_go = go[1];
	return pid;
}

/* One that was served and has ended is left to the next engine, which knows what it has counted; but not for ever. */
static void test_who_was_served_is_left_to_an_engine(void **state)
{
	struct puppet *p = show_start(show.self);
	int go, guest = show_guest(p, 1);
	pid_t pid = start_guest(show_path("g1"), &go);
	uint64_t conn;
	size_t nr = 1;

	until(heard(p, CIS_WIRE_BYTES) == 2);
	conn = word(p, CIS_WIRE_BYTES)->msg.id;
	say(p, .type = CIS_WIRE_NOTE, .id = conn, .body = "served", .body_len = 6);
	say(p, .type = CIS_WIRE_RELEASE, .id = conn - 1);
	quiet();
	puppet_ends(p, 128 + SIGKILL);
	until(puppet_is_gone(p));
	assert_int_equal(write(go, "g", 1), 1);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	for (; nr <= 16; nr++) {
		pass(1000);
		until(show.nr_puppets == nr + 1 && heard(&show.puppets[nr], CIS_WIRE_REPLAYED));
		p = &show.puppets[nr];
		assert_int_equal(word(p, CIS_WIRE_EXITED)->msg.id, conn);
		assert_string_equal(word(p, CIS_WIRE_NOTED)->text, "served");
		assert_false(cis_keeper_is_over(show.k));
		puppet_ends(p, 128 + SIGKILL);
		until(puppet_is_gone(p));
	}
	quiet();
	assert_true(cis_keeper_is_over(show.k));
	close(go);
	close(guest);
}

static void test_stop_between_engines(void **state)
{
	struct puppet *p = show_start(show.self);
	int guest = show_guest(p, 1);

	for (size_t i = 0; i < 2; i++) {
		puppet_ends(&show.puppets[i], 128 + SIGKILL);
		until(puppet_is_gone(&show.puppets[i]));
		if (!i)
			until(show.nr_puppets == 2);
	}
	kill(getpid(), SIGTERM);
	kill(getpid(), SIGTERM); /* again */
	quiet();
	assert_int_equal(show.nr_puppets, 2);
	pass(10);
	until(show.nr_puppets == 3);
	p = &show.puppets[2];
	until(heard(p, CIS_WIRE_STOP));
	assert_true(word(p, CIS_WIRE_STOP) > word(p, CIS_WIRE_REPLAYED));
	say(p, .type = CIS_WIRE_RELEASE, .id = word(p, CIS_WIRE_CONNECTION)->msg.id);
	puppet_ends(p, 0);
	until(cis_keeper_is_over(show.k));
	close(guest);
}

/* An engine that cannot be understood, or does not say what it is, gets nothing and is ended; the next is told. */
static void test_no_engine_at_all(void **state)
{
	struct puppet *p = show_start(show.self);
	int guest = show_guest(p, 1);
	struct cis_wire_hello old = { .wire = CIS_WIRE_VERSION + 1, .layout_max = 1 };
	uint8_t body[CIS_WIRE_HELLO_BYTES];

	show.is_mute = true;
	assert_int_equal(send(p->wire, "garbage", 7, 0), 7);
	until(puppet_is_gone(p));
	until(show.nr_puppets == 2);
	say(&show.puppets[1], .type = CIS_WIRE_READY);
	until(puppet_is_gone(&show.puppets[1]));
	pass(10);
	until(show.nr_puppets == 3);
	cis_wire_hello_put(&old, body);
	say(&show.puppets[2], .type = CIS_WIRE_HELLO, .body = body, .body_len = sizeof(body));
	until(puppet_is_gone(&show.puppets[2]));
	for (size_t i = 1; i < 3; i++)
		assert_int_equal(heard(&show.puppets[i], CIS_WIRE_CONNECTION), 0);
	show.is_mute = false;
	pass(20);
	until(show.nr_puppets == 4 && heard(&show.puppets[3], CIS_WIRE_REPLAYED));
	assert_int_equal(heard(&show.puppets[3], CIS_WIRE_BYTES), 1);
	close(guest);
}

/* One that has closed its wire cannot be told anything; it has five seconds to end. */
static void test_wire_is_closed(void **state)
{
	struct puppet *p = show_start(show.self);
	int guest = show_guest(p, 1);

	close(p->wire);
	p->wire = -1;
	until(cis_keeper_timeout_ms(show.k) == 5000);
	assert_false(puppet_is_gone(p));
	show.now += 5000 * MS;
	until(show.nr_puppets == 2);
	assert_true(puppet_is_gone(p));
	until(heard(&show.puppets[1], CIS_WIRE_BYTES));
	close(guest);
}

/* Clients have taken every descriptor that they can: the next engine is started all the same. */
static void test_no_descriptor_left(void **state)
{
	struct rlimit files, few;
	struct puppet *p = show_start(show.self);
	int guest = show_guest(p, 1), clients[40];
	char byte;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	few = files;
	for (size_t i = 0; i < 40; i++) {
		assert_int_equal(cis_sock_connect(show_path("g1"), SOCK_STREAM, &clients[i], NULL), 0);
		few.rlim_cur = (rlim_t)clients[i] + 24;
	}
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	quiet();
	assert_int_equal(recv(clients[39], &byte, 1, MSG_DONTWAIT), 0); /* it was one too many */
	puppet_ends(p, 128 + SIGKILL);
	until(show.nr_puppets == 2 && heard(&show.puppets[1], CIS_WIRE_BYTES));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	cis_fds_close(clients, 40);
	close(guest);
}

/* A terminal that is closed does not take the daemon with it. */
static void test_hangup(void **state)
{
	struct puppet *p = show_start(show.self);

	until(heard(p, CIS_WIRE_REPLAYED));
	kill(getpid(), SIGHUP);
	quiet();
	assert_int_equal(heard(p, CIS_WIRE_STOP), 0);
	kill(getpid(), SIGINT);
	until(heard(p, CIS_WIRE_STOP));
}

/* A listener is as the dead engine left it; one that could not be bound is of no interest to the next. */
static void test_listeners(void **state)
{
	struct cis_wire_listen listen = { .uid = UINT32_MAX, .gid = UINT32_MAX, .path = "/nonexistent/socket" };
	struct puppet *p = show_start(show.self);
	int guests[] = { show_guest(p, 1), show_guest(p, 2) };
	uint8_t body[CIS_WIRE_BODY_MAX];
	size_t len;

	cis_wire_listen_put(&listen, body, &len);
	say(p, .type = CIS_WIRE_LISTEN, .id = 3, .body = body, .body_len = len);
	say(p, .type = CIS_WIRE_UNLISTEN, .id = 1);
	puppet_ends(p, 128 + SIGKILL);
	until(show.nr_puppets == 2 && heard(&show.puppets[1], CIS_WIRE_REPLAYED));
	p = &show.puppets[1];
	assert_int_equal(heard(p, CIS_WIRE_LISTENING), 1);
	assert_int_equal(word(p, CIS_WIRE_LISTENING)->msg.id, 2);
	assert_int_equal(heard(p, CIS_WIRE_BYTES), 2); /* connections outlive their listener */
	cis_fds_close(guests, 2);
}

/* Who connects to the control socket while there is no engine waits for the next one. */
static void test_control_socket_is_there(void **state)
{
	struct puppet *p = show_start(show.self);
	int client, taken;
	char text[3] = "";

	say(p, .type = CIS_WIRE_READY);
	quiet();
	puppet_ends(p, 128 + SIGKILL);
	until(puppet_is_gone(p));
	assert_int_equal(cis_sock_connect(show_path("control"), SOCK_STREAM, &client, NULL), 0);
	assert_int_equal(send(client, "yo", 2, 0), 2);
	until(show.nr_puppets == 2);
	assert_int_equal(cis_sock_accept(show.puppets[1].control, &taken), 0);
	assert_int_equal(recv(taken, text, 2, 0), 2);
	assert_string_equal(text, "yo");
	cis_fds_close((int[]){ client, taken }, 2);
}

static int run(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, show_open, show_close)
	const struct CMUnitTest tests[] = {
		TEST(test_death_at_every_message), TEST(test_no_guest), TEST(test_never_ready), TEST(test_pauses),
		TEST(test_guest_ends_between_engines), TEST(test_stop_between_engines), TEST(test_no_engine_at_all),
		TEST(test_wire_is_closed), TEST(test_listeners), TEST(test_control_socket_is_there),
		TEST(test_no_descriptor_left), TEST(test_hangup), TEST(test_who_was_served_is_left_to_an_engine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	return show_main(argc, argv, run);
}
