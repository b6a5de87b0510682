/* What a process gave up it does not get again, and the rest it keeps.  Each case is a child, as nothing can be undone. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "os/sandbox.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FILTERS 0
#else
#define FILTERS 1
#endif

/* Return: the line of the child that did not hold, 0 when all did. */
static int in_child(int (*body)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(body());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#define HOLDS(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what))                                                                                           \
			return __LINE__ & 0xff;                                                                        \
	} while (0)

static int only_listed_calls(void)
{
	static const char *const names[] = { "write", "exit_group", "getpid", "no_such_call", NULL };
	struct cis_error err;

	HOLDS(!cis_caps_keep(NULL, 0, false, &err));
	HOLDS(!cis_syscalls_allow(names, &err));
	HOLDS(getpid() > 0);
	HOLDS(execl("/bin/true", "true", NULL) == -1 && errno == EPERM);
	HOLDS(open("/dev/null", O_RDONLY) == -1 && errno == EPERM);
	return 0;
}

static int all_but_the_denied(void)
{
	static const char *const names[] = { "ptrace", NULL };
	struct cis_error err;

	HOLDS(!cis_caps_keep(NULL, 0, false, &err));
	HOLDS(!cis_syscalls_deny(names, &err));
	HOLDS(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1 && errno == EPERM);
	HOLDS(open("/dev/null", O_RDONLY) >= 0);
	return 0;
}

static bool has(cap_value_t cap)
{
	cap_t now = cap_get_proc();
	cap_flag_value_t value = CAP_CLEAR;
	bool r = now && !cap_get_flag(now, cap, CAP_EFFECTIVE, &value) && value == CAP_SET;

	cap_free(now);
	return r;
}

static int only_listed_capabilities(void)
{
	static const int caps[] = { CAP_KILL };
	struct cis_error err;
	bool had = has(CAP_KILL);

	HOLDS(!cis_caps_keep(caps, 1, false, &err));
	HOLDS(has(CAP_KILL) == had);
	HOLDS(!has(CAP_SYS_ADMIN) && !has(CAP_CHOWN) && !has(CAP_SYS_PTRACE));
	HOLDS(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	HOLDS(sethostname("x", 1) == -1 && errno == EPERM);
	return 0;
}

static int another_user(void)
{
	static const int caps[] = { CAP_KILL };
	struct cis_error err;

	HOLDS(cis_user_become("no-such-user-at-all", &err) == -ENOENT);
	HOLDS(!cis_user_become("nobody", &err));
	HOLDS(!cis_caps_keep(caps, 1, false, &err));
	HOLDS(geteuid() && getuid() && has(CAP_KILL) && !has(CAP_SETUID));
	HOLDS(setuid(0) == -1);
	return 0;
}

static void calls_are_refused(void **state)
{
	if (!FILTERS) {
		print_message("a sanitizer needs calls that would be refused\n");
		skip();
	}
	assert_int_equal(in_child(only_listed_calls), 0);
	assert_int_equal(in_child(all_but_the_denied), 0);
}

static void capabilities_are_gone(void **state)
{
	assert_int_equal(in_child(only_listed_capabilities), 0);
	if (!geteuid())
		assert_int_equal(in_child(another_user), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_are_refused),
		cmocka_unit_test(capabilities_are_gone),
	};

	check_native(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
