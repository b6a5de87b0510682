#include "client/untouched.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_PAGES 16384

/*
 * Pages of the file that no mapping shows yet, as another process or write(2) leaves them.  hugetlbfs calls all of a file data, so only
 * an empty one is surely empty there.
 */
static int check_file(int fd, uint64_t fd_offset, uint64_t bytes, struct cis_error *err)
{
	struct stat st;

	if (fstat(fd, &st))
		return cis_fail(err, errno, "the file behind the memory: %s", strerror(errno));
	if (!st.st_blocks)
		return 0;
	off_t data = lseek(fd, (off_t)fd_offset, SEEK_DATA);

	if (data < 0 && errno == ENXIO)
		return 0;
	if (data < 0)
		return cis_fail(err, errno, "the file behind the memory: %s", strerror(errno));
	if ((uint64_t)data - fd_offset >= bytes)
		return 0;
	return cis_fail(err, EEXIST, "the file behind the memory is not empty: it has data at offset %lld", (long long)data);
}

int cis_untouched_check(void *addr, uint64_t bytes, int fd, uint64_t fd_offset, struct cis_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), step = STEP_PAGES * page;
	unsigned char present[STEP_PAGES];

	for (uint64_t at = 0; at < bytes; at += step) {
		uint64_t len = bytes - at < step ? bytes - at : step;

		if (mincore((char *)addr + at, len, present))
			return cis_fail(err, errno == ENOMEM ? EINVAL : errno, "%p: not all of the region is mapped", addr);
		for (uint64_t i = 0; i < len / page; i++)
			if (present[i] & 1)
				return cis_fail(err, EEXIST, "the memory is in use: a page is present at offset 0x%" PRIx64
						" of the region", at + i * page);
	}
	return fd >= 0 ? check_file(fd, fd_offset, bytes, err) : 0;
}
