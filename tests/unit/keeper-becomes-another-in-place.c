/* EXEC: the keeper becomes another program, its engine and its guests notice nothing; or it says why not and goes on. */
#include "keeper-puppets.h"

#include <limits.h>

static struct puppet *engine;
static pid_t keeper;
static int guest;
static uint64_t conn;
static ino_t state_file;

/* The keeper's program, also the one that it becomes. */
static int keeper_main(const char *program, const char *dir)
{
	char rendezvous[128], control[128];
	char *argv[] = { (char *)program, (char *)"--engine", rendezvous, NULL }, *envp[] = { NULL };
	struct cis_keeper *k;
	int status = 0;

	snprintf(rendezvous, sizeof(rendezvous), "%s/rendezvous", dir);
	snprintf(control, sizeof(control), "%s/control", dir);
	if (cis_keeper_create(&k, NULL))
		return 80;
	cis_keeper_set_upgrade(k, strstr(program, "hasty") ? 50 : 10000);
	if (cis_keeper_gather(k, &(struct cis_keep_opts){ 0 }, NULL) || cis_keeper_control(k, control, NULL) ||
	    cis_keeper_start(k, argv, envp, NULL))
		return 81;
	cis_keeper_stay(k);
	if (cis_keeper_run(k, &status))
		return 81;
	cis_keeper_destroy(k);
	return status;
}

static void start_keeper(const char *name)
{
	char program[128];

	strcpy(program, show_path(name));
	assert_int_equal(symlink(show.self, program), 0);
	fflush(NULL);
	keeper = fork();
	if (!keeper) {
		execl(program, program, "--keeper", show.dir, (char *)NULL);
		_exit(1);
	}
	until(show.nr_puppets == 1);
	engine = &show.puppets[0];
	guest = show_guest(engine, 1);
	conn = word(engine, CIS_WIRE_CONNECTION)->msg.id;
	say(engine, .type = CIS_WIRE_READY);
	say(engine, .type = CIS_WIRE_NOTE, .id = conn, .body = "first", .body_len = 5);
	say(engine, .type = CIS_WIRE_STATE, .id = conn, .arg = 8192);
	until(heard(engine, CIS_WIRE_STATE_MADE));
	state_file = word(engine, CIS_WIRE_STATE_MADE)->file;
}

static int open_show(void **state)
{
	if (show_stage())
		return -1;
	start_keeper("keeper");
	return 0;
}

static int close_show(void **state)
{
	int status;

	for (size_t i = 0; i < show.nr_puppets; i++) {
		struct puppet *p = &show.puppets[i];

		cis_fds_close((int[]){ p->sock, p->control }, 2); /* which ends it */
		if (p->wire >= 0)
			close(p->wire);
	}
	kill(keeper, SIGKILL);
	if (waitpid(keeper, &status, 0) != keeper)
		return -1;
	close(guest);
	close(show.rendezvous);
	free(show.puppets);
	if (fork() == 0)
		execlp("rm", "rm", "-rf", show.dir, (char *)NULL);
	return wait(&status) < 0 || status;
}

static const char *another(const char *name)
{
	assert_int_equal(symlink(show.self, show_path(name)), 0);
	return show_path(name);
}

static void ask(const char *path)
{
	say(engine, .type = CIS_WIRE_EXEC, .body = path, .body_len = strlen(path));
}

static size_t fds_of(pid_t pid)
{
	char path[32];
	size_t nr = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

static void assert_is(const char *name)
{
	char path[64], line[PATH_MAX] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", keeper);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_true(fread(line, 1, sizeof(line) - 1, f) > 0);
	fclose(f);
	assert_string_equal(strrchr(line, '/') + 1, name);
}

/* Everything is as it was before, and goes on. */
static void assert_goes_on(void)
{
	size_t connections = heard(engine, CIS_WIRE_CONNECTION), states = heard(engine, CIS_WIRE_STATE_MADE);

	assert_int_equal(send(guest, "more", 4, 0), 4);
	until(!strcmp(word(engine, CIS_WIRE_BYTES)->text, "more"));
	assert_int_equal(word(engine, CIS_WIRE_BYTES)->msg.arg, 2);
	assert_int_equal(heard(engine, CIS_WIRE_CONNECTION), connections);
	say(engine, .type = CIS_WIRE_STATE, .id = conn, .arg = 8192);
	until(heard(engine, CIS_WIRE_STATE_MADE) > states);
	assert_int_equal(word(engine, CIS_WIRE_STATE_MADE)->file, state_file);
	close(show_guest(engine, 2));
	assert_true(word(engine, CIS_WIRE_CONNECTION)->msg.id > conn);
	assert_int_equal(show.nr_puppets, 1);

	puppet_ends(engine, 128 + SIGKILL); /* its end is seen, and the next one is told */
	until(show.nr_puppets == 2 && heard(&show.puppets[1], CIS_WIRE_REPLAYED));
	engine = &show.puppets[1];
	assert_int_equal(heard(engine, CIS_WIRE_LISTENING), 2);
	assert_int_equal(heard(engine, CIS_WIRE_CONNECTION), 2);
	assert_true(word(engine, CIS_WIRE_REPLAYED)->msg.arg >= 2);
}

static void test_it_becomes_another(void **state)
{
	size_t before = fds_of(keeper);

	/* What was said before and after is done, whichever of the two does it. */
	say(engine, .type = CIS_WIRE_NOTE, .id = conn, .body = "second", .body_len = 6);
	ask(another("next"));
	say(engine, .type = CIS_WIRE_STATE, .id = conn, .arg = 8192);
	until(heard(engine, CIS_WIRE_EXECED) && heard(engine, CIS_WIRE_STATE_MADE) == 2);
	assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, 0);
	assert_is("next");
	assert_int_equal(fds_of(keeper), before);
	assert_goes_on();
	for (size_t i = 0; i < engine->nr_words; i++)
		if (engine->words[i].msg.type == CIS_WIRE_NOTED)
			assert_string_equal(engine->words[i].text, "second");
	assert_int_equal(heard(engine, CIS_WIRE_NOTED), 1);
	assert_string_equal(strrchr(engine->program, '/') + 1, "next"); /* later engines are of the same program */
}

/* One that has said nothing yet, one that has spoken, one whose process ends: each at the moment when the program changes. */
static void test_clients_in_every_state(void **state)
{
	int silent, go[2];
	size_t before;
	char byte;
	pid_t pid;

	assert_int_equal(cis_sock_connect(show_path("g1"), SOCK_STREAM, &silent, NULL), 0);
	assert_int_equal(pipe(go), 0);
	pid = fork();
	if (!pid) {
		int fd;

		close(go[1]);
		if (cis_sock_connect(show_path("g1"), SOCK_STREAM, &fd, NULL) || cis_sock_send_all(fd, "ends", 4, NULL, 0))
			_exit(1);
		_exit(read(go[0], &byte, 1) ? 2 : 0);
	}
	until(!strcmp(word(engine, CIS_WIRE_BYTES)->text, "ends")); /* so the silent one, which came before, is accepted */
	before = fds_of(keeper);
	kill(keeper, SIGSTOP);
	ask(another("next"));
	close(go[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	kill(keeper, SIGCONT);
	until(heard(engine, CIS_WIRE_EXECED) && heard(engine, CIS_WIRE_EXITED));
	assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, 0);
	assert_int_equal(word(engine, CIS_WIRE_EXITED)->msg.id, word(engine, CIS_WIRE_CONNECTION)->msg.id);
	assert_in_range(fds_of(keeper), before, before + 1); /* a record for the one that said nothing */
	assert_int_equal(send(silent, "speaks", 6, 0), 6);
	until(!strcmp(word(engine, CIS_WIRE_BYTES)->text, "speaks"));
	assert_int_equal(heard(engine, CIS_WIRE_CONNECTION), 3);
	cis_fds_close((int[]){ silent, go[0] }, 2);
}

static void test_again_and_again(void **state)
{
	size_t before = fds_of(keeper);

	for (size_t i = 0; i < 20; i++) {
		ask("");
		until(heard(engine, CIS_WIRE_EXECED) == i + 1);
		assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, 0);
	}
	assert_int_equal(fds_of(keeper), before);
	assert_goes_on();
}

static void test_stop_in_the_middle(void **state)
{
	int status;

	ask(another("next"));
	kill(keeper, SIGTERM);
	until(heard(engine, CIS_WIRE_EXECED) && heard(engine, CIS_WIRE_STOP));
	say(engine, .type = CIS_WIRE_RELEASE, .id = conn);
	puppet_ends(engine, 0);
	assert_int_equal(waitpid(keeper, &status, 0), keeper);
	assert_int_equal(status, 0);
	keeper = fork(); /* for close_show() */
	if (!keeper)
		_exit(0);
}

static void test_programs_that_are_no_keeper(void **state)
{
	static const struct {
		const char *path, *why;
		int error;
	} bad[] = {
		{ "/bin/true", "does not say that it is a keeper", ENOEXEC },
		{ "/bin/echo", "does not say that it is a keeper", ENOEXEC },
		{ "/etc/passwd", "cannot be executed", EACCES },
		{ "next", "not an absolute path", EINVAL },
	};
	size_t nr = 0, before = fds_of(keeper);

	for (; nr < sizeof(bad) / sizeof(bad[0]); nr++) {
		ask(bad[nr].path);
		until(heard(engine, CIS_WIRE_EXECED) == nr + 1);
		assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, bad[nr].error);
		assert_non_null(strstr(word(engine, CIS_WIRE_EXECED)->text, bad[nr].why));
	}
	ask(another("other-wire"));
	nr++;
	until(heard(engine, CIS_WIRE_EXECED) == nr);
	assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, EPROTONOSUPPORT);
	ask(another("other-table"));
	nr++;
	until(heard(engine, CIS_WIRE_EXECED) == nr);
	assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, EPROTONOSUPPORT);
	ask(another("crash"));
	nr++;
	until(heard(engine, CIS_WIRE_EXECED) == nr);
	assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, ENOEXEC);
	assert_int_equal(fds_of(keeper), before);
	assert_is("keeper");
	assert_goes_on();
}

static int open_hasty(void **state)
{
	if (show_stage())
		return -1;
	start_keeper("hasty");
	return 0;
}

static void test_program_that_says_nothing(void **state)
{
	size_t before = fds_of(keeper);

	ask(another("silent"));
	until(heard(engine, CIS_WIRE_EXECED));
	assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, ETIMEDOUT);
	assert_int_equal(fds_of(keeper), before);
	assert_is("hasty");
	assert_goes_on();
}

static void test_not_with_a_hand_over(void **state)
{
	say(engine, .type = CIS_WIRE_UPGRADE);
	ask("");
	until(heard(engine, CIS_WIRE_EXECED));
	assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, EBUSY);
	until(show.nr_puppets == 2 && heard(&show.puppets[1], CIS_WIRE_REPLAYED));
	puppet_ends(&show.puppets[1], 1);
	until(word(engine, CIS_WIRE_UPGRADING)->msg.error);
	ask("");
	say(engine, .type = CIS_WIRE_UPGRADE);
	until(heard(engine, CIS_WIRE_EXECED) == 2 && heard(engine, CIS_WIRE_UPGRADING) == 3);
	assert_int_equal(word(engine, CIS_WIRE_EXECED)->msg.error, 0);
	if (word(engine, CIS_WIRE_UPGRADING)->msg.error) /* not read by the next keeper, which would begin with it */
		assert_int_equal(word(engine, CIS_WIRE_UPGRADING)->msg.error, EBUSY);
}

static int probe_main(const char *name)
{
	if (!strcmp(name, "other-wire"))
		return !printf("cisternd keeper wire 99 table 1-1\n");
	if (!strcmp(name, "other-table"))
		return !printf("cisternd keeper wire %u table 98-99\n", CIS_WIRE_VERSION);
	if (!strcmp(name, "crash"))
		raise(SIGKILL);
	if (!strcmp(name, "silent"))
		pause();
	cis_keeper_probe(stdout);
	return 0;
}

static int run(void)
{
#define TEST(f, open) cmocka_unit_test_setup_teardown(f, open, close_show)
	const struct CMUnitTest tests[] = {
		TEST(test_it_becomes_another, open_show), TEST(test_clients_in_every_state, open_show),
		TEST(test_again_and_again, open_show),
		TEST(test_stop_in_the_middle, open_show), TEST(test_programs_that_are_no_keeper, open_show),
		TEST(test_program_that_says_nothing, open_hasty), TEST(test_not_with_a_hand_over, open_show),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	if (!strcmp(argv[argc - 1], "--probe"))
		return probe_main(strrchr(argv[0], '/') + 1);
	if (argc == 3 && !strcmp(argv[1], "--keeper"))
		return keeper_main(argv[0], argv[2]);
	return show_main(argc, argv, run);
}
