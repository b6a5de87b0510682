/* What every unit test needs: cmocka, and a few helpers. */
#ifndef TESTS_UNIT_CHECK_H
#define TESTS_UNIT_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/** check_open_fds() - descriptors that this process has open. */
static inline size_t check_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t nr = 0;

	assert_non_null(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr - 3; /* ".", ".." and the folder itself */
}

/** check_skip() - end the whole test as skipped, with a reason that is true of the machine. */
static inline void check_skip(const char *reason)
{
	printf("%s\n", reason);
	fflush(stdout);
	_Exit(77);
}

/**
 * check_native() - end the whole test as skipped where a user-mode emulator runs it: that hands a program which is executed to the kernel,
 * hides what a thread waits for, and knows no filters of system calls.  To be called first in main().
 */
static inline void check_native(int argc, char **argv)
{
	int status;
	pid_t pid;

	if (argc == 2 && !strcmp(argv[1], "--nothing"))
		_Exit(0);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", argv[0], "--nothing", NULL);
		_Exit(1);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		check_skip("a program of this kind cannot execute another here: it is emulated");
}

#endif
