/*
 * libcistern-preload gives a program that knows nothing of it the daemon's memory, in either mode, and ends it with a
 * message wherever it would run on other memory.
 */
#include "client-daemon.h"

#include <inttypes.h>
#include <sys/wait.h>

#define BLOCK_PAGES (16u << 8)
#define DEFAULT     "memfd:memory-backend-memfd"

static const char *program, *library;

struct outcome {
	int status;
	char said[2048];
	size_t nr_words, nr_wrong;
};

static void child(const char *const *args, const char *const *env, int out, int err)
{
	char *argv[12] = { (char *)program }, preload[4200];

	for (size_t i = 0; args[i]; i++)
		argv[i + 1] = (char *)args[i];
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", library);
	/* A sanitizer wants to be first in a process, but the library that is tested must be. */
	char *envp[8] = { preload, "ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0" };

	for (size_t i = 0; env[i]; i++)
		envp[i + 2] = (char *)env[i];
	dup2(out, 1);
	dup2(err, 2);
	execve(program, argv, envp);
	_exit(127);
}

static void run(const char *const *args, const char *const *env, struct outcome *ret)
{
	FILE *out = tmpfile(), *err = tmpfile();
	pid_t pid = fork();
	uint64_t word;
	int status;

	if (!pid)
		child(args, env, fileno(out), fileno(err));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	*ret = (struct outcome){ .status = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status) };
	rewind(err);
	ret->said[fread(ret->said, 1, sizeof(ret->said) - 1, err)] = 0;
	rewind(out);
	while (fscanf(out, "%" SCNx64, &word) == 1)
		ret->nr_wrong += word != daemon_word(ret->nr_words++, 0);
	fclose(out);
	fclose(err);
}

static char *variable(const char *name, const char *value)
{
	static char text[4][256];
	static unsigned next;
	char *at = text[next++ % 4];

	snprintf(at, sizeof(text[0]), "%s=%s", name, value);
	return at;
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void serve(const char *const *args, const char *mode, const char *ram, const char *kind, size_t nr_blocks)
{
	struct fake_daemon d = { .answer = "k", .serve = true };
	struct outcome o;

	daemon_start(&d);
	run(args, LIST(variable("CISTERN_SOCKET", d.path), mode, variable("CISTERN_RAM", ram)), &o);
	if (o.status)
		fail_msg("status %d: %s", o.status, o.said);
	daemon_wait(&d);
	assert_string_equal(o.said, "");
	assert_int_equal(o.nr_words, nr_blocks * BLOCK_PAGES);
	assert_int_equal(o.nr_wrong, 0);
	assert_true(d.served >= nr_blocks * BLOCK_PAGES);
	assert_string_equal(json_string_value(json_object_get(json_object_get(json_array_get(d.said, 0), "cistern"), "kind")),
			    kind);
	daemon_end(&d);
}

static void test_serves_each_mode(void **state)
{
	serve(LIST("shared", DEFAULT), "CISTERN_MODE=", "", "shared", 1);
	serve(LIST("private", DEFAULT), "CISTERN_MODE=", "", "anonymous", 1);
	serve(LIST("shared", "memfd:ram"), "CISTERN_MODE=anonymous", "memfd:ram", "anonymous", 1);
	serve(LIST("remove", "memfd:ram"), "CISTERN_MODE=anonymous", "memfd:ram", "anonymous", 1);
	serve(LIST("remove", "memfd:ram"), "CISTERN_MODE=shared", "memfd:ram", "shared", 1);
}

static void test_serves_several_blocks_in_the_order_named(void **state)
{
	serve(LIST("private", "memfd:one", "memfd:two"), "CISTERN_MODE=", "memfd:one,memfd:two", "anonymous", 2);
	serve(LIST("shared", DEFAULT, DEFAULT), "CISTERN_MODE=anonymous", DEFAULT "," DEFAULT, "anonymous", 2);
}

static void refuse(const char *const *args, const char *const *env, const char *text)
{
	struct outcome o;

	run(args, env, &o);
	assert_int_equal(o.status, 1);
	assert_int_equal(o.nr_words, 0);
	if (!strstr(o.said, text))
		fail_msg("'%s' is not in: %s", text, o.said);
}

static void test_refuses_what_it_cannot_fill(void **state)
{
	const char *socket = "CISTERN_SOCKET=/tmp/cistern-nobody/s";

	refuse(LIST("shared", DEFAULT), LIST(socket), "/tmp/cistern-nobody/s: cannot connect: No such file");
	refuse(LIST("shared", DEFAULT), LIST(socket, "CISTERN_MODE=fast"), "CISTERN_MODE is 'fast': use anonymous or shared");
	refuse(LIST("shared", DEFAULT), LIST(socket, "CISTERN_RAM=,"), "CISTERN_RAM names no block");
	refuse(LIST("shared", "memfd:other"), LIST(socket),
	       "16 MiB of /memfd:other (deleted) are mapped as memory, which CISTERN_RAM does not name");
	refuse(LIST("private", DEFAULT), LIST(socket, "CISTERN_MODE=shared"), "is mapped private: for shared memory start QEMU");
	refuse(LIST("shared", "memfd:a", "memfd:b"), LIST(socket, "CISTERN_RAM=memfd:a,memfd:b"),
	       "shared memory may have one RAM block only");
}

static void test_refuses_a_block_mapped_too_often(void **state)
{
	struct fake_daemon d = { .answer = "k", .serve = true };

	daemon_start(&d);
	refuse(LIST("shared", DEFAULT, DEFAULT), LIST(variable("CISTERN_SOCKET", d.path)),
	       "is mapped once more than CISTERN_RAM names it");
	daemon_wait(&d);
	daemon_end(&d);
}

static void test_ignores_what_it_is_told_to(void **state)
{
	struct fake_daemon d = { .answer = "k", .serve = true };
	struct outcome o;

	daemon_start(&d);
	run(LIST("shared", "memfd:ram", "memfd:disk"),
	    LIST(variable("CISTERN_SOCKET", d.path), "CISTERN_RAM=memfd:ram", "CISTERN_IGNORE=memfd:disk"), &o);
	assert_int_equal(o.status, 0);
	daemon_wait(&d);
	daemon_end(&d);
	assert_int_equal(o.nr_words, 2 * BLOCK_PAGES);
	assert_int_equal(o.nr_wrong, BLOCK_PAGES); /* the other one is its own, and empty */
}

static void test_does_nothing_without_a_socket(void **state)
{
	struct outcome o;

	run(LIST("shared", DEFAULT), LIST("CISTERN_RAM=x"), &o);
	assert_int_equal(o.status, 0);
	assert_int_equal(o.nr_words, BLOCK_PAGES);
	assert_string_equal(o.said, "");
}

static void test_a_refusal_ends_the_program(void **state)
{
	struct fake_daemon d = { .answer = "eno such image" };

	daemon_start(&d);
	refuse(LIST("shared", DEFAULT), LIST(variable("CISTERN_SOCKET", d.path)), "the daemon refused: no such image");
	daemon_wait(&d);
	daemon_end(&d);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_serves_each_mode),
		cmocka_unit_test(test_serves_several_blocks_in_the_order_named),
		cmocka_unit_test(test_refuses_what_it_cannot_fill),
		cmocka_unit_test(test_refuses_a_block_mapped_too_often),
		cmocka_unit_test(test_ignores_what_it_is_told_to),
		cmocka_unit_test(test_does_nothing_without_a_socket),
		cmocka_unit_test(test_a_refusal_ends_the_program),
	};

	if (argc != 3)
		return 2;
	program = argv[1];
	library = argv[2];
	daemon_check_uffd();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
