#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "client/run_int.h"

struct maps {
	char *start, *end;
	int (*call)(char *start, char *end, int prot, void *ctx);
	void *ctx;
};

/* "7f0000000000-7f0000001000 rw-s ..." */
static int take_line(const struct maps *m, const char *line)
{
	char *rest;
	uintptr_t from = strtoul(line, &rest, 16), to = *rest == '-' ? strtoul(rest + 1, &rest, 16) : 0;
	int prot = PROT_NONE;

	if (to <= (uintptr_t)m->start || from >= (uintptr_t)m->end || *rest != ' ')
		return 0;
	prot |= rest[1] == 'r' ? PROT_READ : 0;
	prot |= rest[2] == 'w' ? PROT_WRITE : 0;
	prot |= rest[3] == 'x' ? PROT_EXEC : 0;
	return m->call(from > (uintptr_t)m->start ? (char *)from : m->start, to < (uintptr_t)m->end ? (char *)to : m->end, prot, m->ctx);
}

/* The lines that are whole; what is left of the last one goes to the front. */
static int take_lines(const struct maps *m, char *buf, size_t *len)
{
	char *at = buf, *newline;
	int rc = 0;

	while (!rc && (newline = memchr(at, '\n', *len - (size_t)(at - buf)))) {
		*newline = 0;
		rc = take_line(m, at);
		at = newline + 1;
	}
	*len -= (size_t)(at - buf);
	memmove(buf, at, *len);
	return rc;
}

int cis_run_each_mapping(char *start, char *end, int (*call)(char *start, char *end, int prot, void *ctx), void *ctx)
{
	const struct maps maps = { start, end, call, ctx };
	char buf[2 * 4096]; /* a line has a path of up to 4096 bytes */
	int rc = 0, fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = syscall(SYS_read, fd, buf + len, sizeof(buf) - len);
		if (n < 0 && errno != EINTR)
			rc = -errno;
		if (n > 0) {
			len += (size_t)n;
			rc = take_lines(&maps, buf, &len);
		}
		if (!rc && len == sizeof(buf))
			rc = -EFBIG;
	} while (!rc && n);
	syscall(SYS_close, fd);
	return rc;
}
