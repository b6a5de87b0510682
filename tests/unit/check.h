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

#endif
