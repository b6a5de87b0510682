#include "os/file.h"

#include <errno.h>
#include <unistd.h>

int cis_fd_write(int fd, uint64_t at, const void *bytes, size_t len)
{
	const char *p = bytes;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)at);

		if (n < 0)
			return -errno;
		p += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int cis_fd_read(int fd, uint64_t at, void *bytes, size_t len, size_t *ret)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)bytes + done, len - done, (off_t)(at + done));

		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += (size_t)n;
	}
	*ret = done;
	return 0;
}
