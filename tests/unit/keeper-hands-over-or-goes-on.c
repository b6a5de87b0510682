/*
 * A hand-over: the new engine serves when it has said twice that it can; whatever else happens, the old one goes on
 * as before, nothing of the new one is left, and the reason is told.
 */
#include "keeper-puppets.h"

static struct puppet *old, *new;
static int guest;
static uint64_t conn;
static ino_t state_file;
static size_t nr_fds;

static int open_with_guest(void **state)
{
	if (show_open(state))
		return -1;
	old = show_start(show.self);
	guest = show_guest(old, 1);
	conn = word(old, CIS_WIRE_CONNECTION)->msg.id;
	say(old, .type = CIS_WIRE_READY);
	say(old, .type = CIS_WIRE_STATE, .id = conn, .arg = 4096);
	say(old, .type = CIS_WIRE_NOTE, .id = conn, .body = "note", .body_len = 4);
	until(heard(old, CIS_WIRE_STATE_MADE));
	state_file = word(old, CIS_WIRE_STATE_MADE)->file;
	quiet();
	nr_fds = check_open_fds();
	return 0;
}

static int close_with_guest(void **state)
{
	close(guest);
	return show_close(state);
}

static void ask(const char *path)
{
	size_t before = heard(old, CIS_WIRE_UPGRADING);

	say(old, .type = CIS_WIRE_UPGRADE, .body = path, .body_len = strlen(path));
	until(heard(old, CIS_WIRE_UPGRADING) > before);
}

static void say_with_memfd(struct puppet *p, enum cis_wire_type type, uint64_t id, uint64_t bytes, ino_t *ret)
{
	struct stat st;
	int fd;

	assert_int_equal(cis_memfd_create("cistern-test", 4096, 4096, &fd), 0);
	assert_int_equal(fstat(fd, &st), 0);
	*ret = st.st_ino;
	say(p, .type = type, .id = id, .arg = bytes, .fds = &fd, .nr_fds = 1);
	close(fd);
}

enum step { STARTED, SAID_HELLO, READY_1, QUIESCED, SWAPPED, HANDED_OVER, TAKEN, STEPS };

static ino_t swapped, sections;

/* Up to and including @last; after QUIESCED the old engine has been told to pause. */
static void go_to(enum step last)
{
	size_t before = show.nr_puppets;

	show.is_mute = true;
	ask("");
	assert_int_equal(word(old, CIS_WIRE_UPGRADING)->msg.error, 0);
	until(show.nr_puppets > before);
	new = &show.puppets[before];
	until(heard(new, CIS_WIRE_ROLE));
	show.is_mute = false;
	if (last >= SAID_HELLO) {
		assert_int_equal(new->nr_words, 1); /* nothing of a guest's before it is known what it is */
		puppet_hello(new);
		until(heard(new, CIS_WIRE_REPLAYED));
	}
	if (last >= READY_1)
		say(new, .type = CIS_WIRE_READY, .arg = 1);
	if (last >= QUIESCED)
		until(heard(old, CIS_WIRE_QUIESCE) > heard(old, CIS_WIRE_RESUME));
	if (last >= SWAPPED)
		say_with_memfd(old, CIS_WIRE_SWAP, conn, 4096, &swapped);
	if (last >= HANDED_OVER)
		say_with_memfd(old, CIS_WIRE_HANDOVER, 0, 0, &sections);
	if (last >= TAKEN)
		until(heard(new, CIS_WIRE_TAKE));
	else
		quiet();
}

static bool has_file(ino_t file)
{
	struct stat st;

	for (int fd = 0; fd < 256; fd++)
		if (!fstat(fd, &st) && st.st_ino == file)
			return true;
	return false;
}

/* The test's own descriptors of the puppet are not the keeper's. */
static void drop_puppet(struct puppet *p)
{
	until(puppet_is_gone(p) && p->wire < 0);
	cis_fds_close((int[]){ p->sock, p->control }, 2);
	p->sock = p->control = -1;
}

/* The old engine has been told @why; the new one and all that it cost is gone; and the next hand-over works. */
static void assert_goes_on(enum step at, int error, const char *why)
{
	bool was_paused = at >= QUIESCED;
	const struct word *said;

	if (was_paused)
		until(heard(old, CIS_WIRE_RESUME));
	else
		until(word(old, CIS_WIRE_UPGRADING)->msg.error);
	said = word(old, was_paused ? CIS_WIRE_RESUME : CIS_WIRE_UPGRADING);
	assert_int_equal(said->msg.error, error);
	assert_non_null(strstr(said->text, why));
	assert_true(puppet_is_gone(new)); /* before the old one was told to go on */
	drop_puppet(new);
	quiet();
	assert_int_equal(check_open_fds(), nr_fds);
	assert_false(has_file(swapped));
	assert_true(has_file(state_file));
	say(old, .type = CIS_WIRE_STATE, .id = conn, .arg = 4096);
	until(heard(old, CIS_WIRE_STATE_MADE) == 2);
	assert_int_equal(word(old, CIS_WIRE_STATE_MADE)->file, state_file);
	assert_int_equal(heard(old, CIS_WIRE_LET_GO), 0);
	assert_int_equal(heard(old, CIS_WIRE_NOTED), 0);
	go_to(TAKEN);
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	until(heard(old, CIS_WIRE_LET_GO) && heard(new, CIS_WIRE_GO));
}

static void test_all_goes_well(void **state)
{
	go_to(QUIESCED);
	assert_int_equal(word(new, CIS_WIRE_ROLE)->msg.arg, CIS_WIRE_STANDBY);
	assert_int_equal(word(new, CIS_WIRE_REPLAYED)->msg.arg, 2);
	assert_string_equal(word(new, CIS_WIRE_NOTED)->text, "note");
	assert_int_equal(word(new, CIS_WIRE_STATE_MADE)->file, state_file);
	assert_int_equal(word(old, CIS_WIRE_QUIESCE)->msg.body_len, CIS_WIRE_HELLO_BYTES);
	say_with_memfd(old, CIS_WIRE_SWAP, conn, 4096, &swapped);
	say_with_memfd(old, CIS_WIRE_HANDOVER, 0, 0, &sections);
	until(heard(new, CIS_WIRE_TAKE));
	assert_int_equal(word(new, CIS_WIRE_TAKE)->file, sections);
	assert_int_equal(word(new, CIS_WIRE_STATE_MADE)->file, swapped);
	assert_true(word(new, CIS_WIRE_STATE_MADE) < word(new, CIS_WIRE_TAKE));
	show.now += 7 * MS;
	assert_int_equal(heard(new, CIS_WIRE_GO), 0);
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	until(heard(old, CIS_WIRE_LET_GO) && heard(new, CIS_WIRE_GO));
	assert_int_equal(word(new, CIS_WIRE_GO)->msg.arg, 7 * MS);

	/* What the old one says now is not heard; what the new one says is. */
	say(old, .type = CIS_WIRE_RELEASE, .id = conn);
	say(new, .type = CIS_WIRE_STATE, .id = conn, .arg = 4096);
	until(heard(new, CIS_WIRE_STATE_MADE) == 3);
	assert_int_equal(word(new, CIS_WIRE_STATE_MADE)->file, swapped);
	puppet_ends(old, 0);
	drop_puppet(old);
	assert_false(has_file(state_file));
	assert_false(has_file(sections));
	quiet();
	assert_int_equal(check_open_fds(), nr_fds);
	assert_int_equal(show.nr_puppets, 2); /* an old one that ends is not followed */

	/* Later engines are as the new one. */
	puppet_ends(new, 128 + SIGKILL);
	until(show.nr_puppets == 3 && heard(&show.puppets[2], CIS_WIRE_REPLAYED));
	assert_int_equal(word(&show.puppets[2], CIS_WIRE_ROLE)->msg.arg, CIS_WIRE_SERVE);
	assert_int_equal(word(&show.puppets[2], CIS_WIRE_STATE_MADE)->file, swapped);
}

static void test_another_program(void **state)
{
	char path[108];

	strcpy(path, show_path("program"));
	assert_int_equal(symlink(show.self, path), 0);
	ask(path);
	until(show.nr_puppets == 2);
	new = &show.puppets[1];
	until(heard(new, CIS_WIRE_REPLAYED));
	assert_string_equal(new->program, path);
	say(new, .type = CIS_WIRE_READY, .arg = 1);
	until(heard(old, CIS_WIRE_QUIESCE));
	say_with_memfd(old, CIS_WIRE_HANDOVER, 0, 0, &sections);
	until(heard(new, CIS_WIRE_TAKE));
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	until(heard(new, CIS_WIRE_GO));
	puppet_ends(new, 128 + SIGKILL);
	until(show.nr_puppets == 3);
	assert_string_equal(show.puppets[2].program, path);
}

static void test_programs_that_are_none(void **state)
{
	char path[108];
	static const struct {
		const char *path, *why;
		int error;
	} bad[] = {
		{ "cisternd", "not an absolute path", EINVAL }, { "/nonexistent/cisternd", "No such file", ENOENT },
		{ "/etc", "is not a file", EINVAL },		  { "/etc/passwd", "cannot be executed", EACCES },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ask(bad[i].path);
		assert_int_equal(word(old, CIS_WIRE_UPGRADING)->msg.error, bad[i].error);
		assert_non_null(strstr(word(old, CIS_WIRE_UPGRADING)->text, bad[i].why));
	}
	say(old, .type = CIS_WIRE_UPGRADE, .body = "/bin/true\0x", .body_len = 11);
	until(heard(old, CIS_WIRE_UPGRADING) == 5);
	assert_int_equal(word(old, CIS_WIRE_UPGRADING)->msg.error, EINVAL);
	assert_int_equal(show.nr_puppets, 1);

	strcpy(path, show_path("script"));
	assert_int_equal(symlink("/bin/true", path), 0); /* ends at once, and well */
	ask(path);
	until(word(old, CIS_WIRE_UPGRADING)->msg.error);
	assert_int_equal(word(old, CIS_WIRE_UPGRADING)->msg.error, ECHILD);
	assert_non_null(strstr(word(old, CIS_WIRE_UPGRADING)->text, "ended with status 0 before it was ready"));
	quiet();
	assert_int_equal(check_open_fds(), nr_fds);
}

static void test_only_one_at_a_time(void **state)
{
	go_to(TAKEN);
	ask("");
	assert_int_equal(word(old, CIS_WIRE_UPGRADING)->msg.error, EBUSY);
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	until(heard(new, CIS_WIRE_GO));
}

/* Old engines that do not end are ended after five seconds. */
static void test_old_one_does_not_go(void **state)
{
	go_to(TAKEN);
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	until(heard(old, CIS_WIRE_LET_GO));
	pass(4999);
	assert_false(puppet_is_gone(old));
	pass(1);
	until(puppet_is_gone(old));
	assert_int_equal(show.nr_puppets, 2);
}

static void test_new_one_crashes(void **state)
{
	enum step at = (enum step)(uintptr_t)*state;

	go_to(at);
	puppet_ends(new, 128 + SIGKILL);
	assert_goes_on(at, ECHILD, "the new engine was ended by signal 9 before it was ready");
}

/* It says that it is ready, and is dead: its end counts. */
static void test_new_one_crashes_at_the_last_moment(void **state)
{
	go_to(TAKEN);
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	puppet_ends(new, 128 + SIGKILL);
	for (siginfo_t info; waitid(P_PID, (id_t)new->pid, &info, WEXITED | WNOWAIT) || info.si_pid != new->pid;)
		;
	assert_goes_on(TAKEN, ECHILD, "the new engine was ended by signal 9");
}

/* More than a wire takes. */
static void fill_wires(int *guests, size_t nr)
{
	static char text[100000];

	for (size_t i = 0; i < nr; i++) {
		guests[i] = show_guest(old, 10 + i);
		old->is_deaf = i == nr - 1;
		assert_int_equal(cis_sock_send_all(guests[i], text, sizeof(text), NULL, 0), 0);
		quiet();
	}
}

/* It was not told to pause, though it was about to be: it is told that nothing comes of it, and not to pause any more. */
static void test_old_one_does_not_hear(void **state)
{
	int guests[6];

	fill_wires(guests, 6);
	for (size_t i = 0; i < 6; i++) {
		static char more[20000];

		(void)send(guests[i], more, sizeof(more), 0);
	}
	say(old, .type = CIS_WIRE_UPGRADE);
	until(show.nr_puppets == 2 && heard(&show.puppets[1], CIS_WIRE_REPLAYED));
	new = &show.puppets[1];
	say(new, .type = CIS_WIRE_READY, .arg = 1);
	quiet();
	puppet_ends(new, 128 + SIGKILL);
	until(puppet_is_gone(new));
	assert_int_equal(heard(old, CIS_WIRE_UPGRADING), 0);
	old->is_deaf = false;
	quiet();
	assert_int_equal(word(old, CIS_WIRE_UPGRADING)->msg.error, ECHILD);
	assert_int_equal(heard(old, CIS_WIRE_QUIESCE), 0);
	assert_int_equal(heard(old, CIS_WIRE_RESUME), 0);
	cis_fds_close(guests, 6);
}

/* It cannot know that everything is valid. */
static void test_ready_without_listening(void **state)
{
	int guests[6];

	fill_wires(guests, 6);
	old->is_deaf = false;
	show.is_mute = true;
	say(old, .type = CIS_WIRE_UPGRADE);
	until(show.nr_puppets == 2);
	new = &show.puppets[1];
	new->is_deaf = true;
	puppet_hello(new);
	quiet();
	say(new, .type = CIS_WIRE_READY, .arg = 1);
	quiet();
	until(word(old, CIS_WIRE_UPGRADING)->msg.error);
	assert_non_null(strstr(word(old, CIS_WIRE_UPGRADING)->text, "ready before it can be"));
	cis_fds_close(guests, 6);
}

/* What is to be the new one's state is not shown to the old one. */
static void test_state_is_asked_for_in_the_middle(void **state)
{
	go_to(SWAPPED);
	say(old, .type = CIS_WIRE_STATE, .id = conn, .arg = 4096);
	until(heard(old, CIS_WIRE_STATE_MADE) == 2);
	assert_int_equal(word(old, CIS_WIRE_STATE_MADE)->file, state_file);
	assert_int_equal(word(new, CIS_WIRE_STATE_MADE)->file, swapped);
}

static void test_new_one_refuses(void **state)
{
	enum step at = (enum step)(uintptr_t)*state;

	go_to(at);
	say(new, .type = CIS_WIRE_REFUSE, .error = EBADMSG, .body = "guest x: bad state", .body_len = 18);
	puppet_ends(new, 1); /* it may be gone before its words are heard */
	if (at == STARTED)
		assert_goes_on(at, EPROTO, "its first word is not HELLO");
	else
		assert_goes_on(at, EBADMSG, "the new engine refuses: guest x: bad state");
}

static void test_silence(void **state)
{
	static const char *const why[STEPS] = {
		[STARTED] = "the new engine did not say what it is within 10000 ms",
		[SAID_HELLO] = "the new engine was not ready within 10000 ms",
		[QUIESCED] = "the engine that serves did not pause within 10000 ms",
		[SWAPPED] = "the engine that serves did not pause within 10000 ms",
		[TAKEN] = "the new engine did not take over within 10000 ms",
	};
	enum step at = (enum step)(uintptr_t)*state;

	if (!why[at])
		return;
	go_to(at);
	pass(9999);
	assert_false(puppet_is_gone(new));
	pass(1);
	assert_goes_on(at, ETIMEDOUT, why[at]);
}

static void test_garbage(void **state)
{
	enum step at = (enum step)(uintptr_t)*state;

	go_to(at);
	assert_int_equal(send(new->wire, "garbage", 7, 0), 7);
	assert_goes_on(at, EPROTO, "the new engine cannot be understood");
}

static void test_wire_is_closed(void **state)
{
	enum step at = (enum step)(uintptr_t)*state;

	go_to(at);
	close(new->wire);
	new->wire = -1;
	quiet();
	pass(99);
	assert_false(puppet_is_gone(new));
	pass(1);
	assert_goes_on(at, EPROTO, "the new engine has closed its wire");
}

static void test_requests_before_its_turn(void **state)
{
	enum step at = (enum step)(uintptr_t)*state;

	go_to(at);
	say(new, .type = CIS_WIRE_RELEASE, .id = conn);
	assert_goes_on(at, EPROTO, at == STARTED ? "its first word is not HELLO" : "asked for something");
}

static void test_ready_before_it_can_be(void **state)
{
	enum step at = (enum step)(uintptr_t)*state;

	go_to(at);
	say(new, .type = CIS_WIRE_READY, .arg = at == TAKEN ? 1 : 2);
	assert_goes_on(at, EPROTO, at == STARTED ? "its first word is not HELLO" : "said that it is ready before it can be");
}

/* Without one to serve, the standby is ended first, and then another is started, which is told everything. */
static void test_old_one_dies(void **state)
{
	enum step at = (enum step)(uintptr_t)*state;

	go_to(at);
	puppet_ends(old, 128 + SIGKILL);
	until(show.nr_puppets == 3);
	assert_true(puppet_is_gone(new));
	new = &show.puppets[2];
	until(heard(new, CIS_WIRE_REPLAYED));
	assert_int_equal(word(new, CIS_WIRE_ROLE)->msg.arg, CIS_WIRE_SERVE);
	assert_int_equal(word(new, CIS_WIRE_STATE_MADE)->file, state_file);
	assert_string_equal(word(new, CIS_WIRE_NOTED)->text, "note");
	drop_puppet(old);
	drop_puppet(&show.puppets[1]);
	quiet();
	assert_int_equal(check_open_fds(), nr_fds);
	assert_false(has_file(swapped));
}

static void test_old_one_cannot_pause(void **state)
{
	go_to(QUIESCED);
	say(old, .type = CIS_WIRE_HANDOVER, .error = EDEADLK, .body = "a worker is stuck", .body_len = 17);
	assert_goes_on(QUIESCED, EDEADLK, "the engine that serves cannot pause: a worker is stuck");
}

static void test_handover_of_nothing(void **state)
{
	go_to(QUIESCED);
	say(old, .type = CIS_WIRE_HANDOVER);
	assert_goes_on(QUIESCED, EPROTO, "handed over 0 descriptors");
}

/* HANDOVER and SWAP that nobody asked for are dropped. */
static void test_handover_unasked(void **state)
{
	ino_t file;

	say_with_memfd(old, CIS_WIRE_SWAP, conn, 4096, &file);
	say_with_memfd(old, CIS_WIRE_HANDOVER, 0, 0, &file);
	quiet();
	assert_int_equal(check_open_fds(), nr_fds);
	go_to(TAKEN);
	say_with_memfd(old, CIS_WIRE_SWAP, conn, 4096, &file);
	say_with_memfd(old, CIS_WIRE_HANDOVER, 0, 0, &file);
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	until(heard(new, CIS_WIRE_GO));
	assert_false(has_file(file));
}

static void test_other_wire(void **state)
{
	uint8_t packet[CIS_WIRE_HEAD_BYTES] = { CIS_WIRE_HELLO, 0, 0, 0, CIS_WIRE_VERSION + 1 };

	go_to(STARTED);
	assert_int_equal(send(new->wire, packet, sizeof(packet), 0), sizeof(packet));
	assert_goes_on(STARTED, EPROTO, "speaks another version of what keeper and engine say");
}

static void test_other_layouts(void **state)
{
	go_to(STARTED);
	show.layout_min = 2;
	show.layout_max = 3;
	puppet_hello(new);
	show.layout_min = show.layout_max = 1;
	assert_goes_on(STARTED, EPROTONOSUPPORT, "knows states of layout 2 to 3, and version puppet, which serves, 1 to 1");
}

/* Guests come, speak, are noted, and go in the middle: the new one hears of all of it. */
static void test_guests_come_and_go(void **state)
{
	int others[3];
	uint64_t ids[3];

	others[0] = show_guest(old, 2);
	ids[0] = word(old, CIS_WIRE_CONNECTION)->msg.id;
	go_to(READY_1);
	until(heard(old, CIS_WIRE_QUIESCE));
	assert_int_equal(heard(new, CIS_WIRE_CONNECTION), 2);
	others[1] = show_guest(old, 3);
	ids[1] = word(old, CIS_WIRE_CONNECTION)->msg.id;
	say(old, .type = CIS_WIRE_NOTE, .id = ids[1], .body = "new", .body_len = 3);
	say(old, .type = CIS_WIRE_RELEASE, .id = ids[0]);
	say(old, .type = CIS_WIRE_UNLISTEN, .id = 2);
	say_with_memfd(old, CIS_WIRE_HANDOVER, 0, 0, &sections);
	until(heard(new, CIS_WIRE_TAKE));
	assert_int_equal(word(new, CIS_WIRE_LISTENING)->msg.id, 3);
	assert_int_equal(word(new, CIS_WIRE_CONNECTION)->msg.id, ids[1]);
	assert_int_equal(word(new, CIS_WIRE_NOTED)->msg.id, ids[1]);
	assert_string_equal(word(new, CIS_WIRE_NOTED)->text, "new");
	assert_int_equal(word(new, CIS_WIRE_RELEASED)->msg.id, ids[0]);
	assert_int_equal(word(new, CIS_WIRE_UNLISTENED)->msg.id, 2);
	assert_true(word(new, CIS_WIRE_RELEASED) < word(new, CIS_WIRE_TAKE));
	others[2] = show_guest(old, 4); /* the old one should not, but may have asked before */
	until(heard(new, CIS_WIRE_CONNECTION) == 4);
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	until(heard(new, CIS_WIRE_GO));
	assert_int_equal(send(others[1], "more", 4, 0), 4);
	until(!strcmp(word(new, CIS_WIRE_BYTES)->text, "more"));
	assert_int_equal(word(new, CIS_WIRE_BYTES)->msg.arg, 2);
	cis_fds_close(others, 3);
}

/* A guest that is released while its new state waits: the state goes with it. */
static void test_swapped_guest_goes(void **state)
{
	go_to(SWAPPED);
	say(old, .type = CIS_WIRE_RELEASE, .id = conn);
	say_with_memfd(old, CIS_WIRE_HANDOVER, 0, 0, &sections);
	until(heard(new, CIS_WIRE_TAKE));
	assert_false(has_file(swapped));
	assert_false(has_file(state_file));
	assert_int_equal(word(new, CIS_WIRE_RELEASED)->msg.id, conn);
}

static void test_stop_in_the_middle(void **state)
{
	go_to(QUIESCED);
	kill(getpid(), SIGTERM);
	until(heard(old, CIS_WIRE_STOP));
	say_with_memfd(old, CIS_WIRE_HANDOVER, 0, 0, &sections);
	until(heard(new, CIS_WIRE_TAKE));
	assert_int_equal(heard(new, CIS_WIRE_STOP), 0);
	say(new, .type = CIS_WIRE_READY, .arg = 2);
	until(heard(new, CIS_WIRE_STOP));
	assert_true(word(new, CIS_WIRE_GO) < word(new, CIS_WIRE_STOP));
	say(new, .type = CIS_WIRE_RELEASE, .id = conn);
	puppet_ends(new, 0);
	puppet_ends(old, 0);
	until(cis_keeper_is_over(show.k));
}

static int run(void)
{
#define TEST(f)                                                                      \
	{ #f, f, open_with_guest, close_with_guest, NULL }
#define AT(f, step)                                                                                    \
	{ #f " at " #step, f, open_with_guest, close_with_guest, (void *)(uintptr_t)step }
#define AT_EACH(f)                                                                                                \
	AT(f, STARTED), AT(f, SAID_HELLO), AT(f, QUIESCED), AT(f, SWAPPED), AT(f, TAKEN)
	const struct CMUnitTest tests[] = {
		TEST(test_all_goes_well), TEST(test_another_program), TEST(test_programs_that_are_none),
		TEST(test_only_one_at_a_time), TEST(test_old_one_does_not_go), AT_EACH(test_new_one_crashes),
		TEST(test_new_one_crashes_at_the_last_moment), TEST(test_old_one_does_not_hear),
		TEST(test_ready_without_listening), TEST(test_state_is_asked_for_in_the_middle), AT_EACH(test_new_one_refuses), AT_EACH(test_silence),
		AT_EACH(test_garbage), AT_EACH(test_wire_is_closed), AT_EACH(test_requests_before_its_turn),
		AT_EACH(test_ready_before_it_can_be), AT_EACH(test_old_one_dies), TEST(test_old_one_cannot_pause),
		TEST(test_handover_of_nothing), TEST(test_handover_unasked), TEST(test_other_wire), TEST(test_other_layouts),
		TEST(test_guests_come_and_go), TEST(test_swapped_guest_goes), TEST(test_stop_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	return show_main(argc, argv, run);
}
