#include "os/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIELDS_TO_START 20 /* proc(5): from the state, which is field 3, to field 22 */
#define FIELDS_TO_USER	12 /* and to fields 14 and 15, time in user and in kernel mode */

static int read_text(const char *path, char *buf, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, buf, room - 1);
	close(fd);
	if (n < 0)
		return -errno;
	buf[n] = 0;
	return 0;
}

/* The second field is the program's name in parentheses, which may have spaces and parentheses itself. */
static int read_stat(pid_t pid, int fields, char *text, size_t room, const char **ret)
{
	char path[40], *at;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = read_text(path, text, room);
	if (r)
		return r;
	at = strrchr(text, ')');
	for (int i = 0; at && i < fields; i++)
		at = strchr(at + 1, ' ');
	if (!at)
		return -EPROTO;
	*ret = at + 1;
	return 0;
}

int cis_proc_start(pid_t pid, uint64_t *ret)
{
	char text[1024];
	const char *at;
	int r = read_stat(pid, FIELDS_TO_START, text, sizeof(text), &at);

	if (!r)
		*ret = strtoull(at, NULL, 10);
	return r;
}

int cis_proc_cpu(pid_t pid, uint64_t *ret_ms)
{
	char text[1024];
	const char *at;
	unsigned long long user, kernel;
	int r = read_stat(pid, FIELDS_TO_USER, text, sizeof(text), &at);

	if (!r && sscanf(at, "%llu %llu", &user, &kernel) != 2)
		r = -EPROTO;
	if (!r)
		*ret_ms = (user + kernel) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
	return r;
}

int cis_proc_pressure(int fd, unsigned *ret)
{
	unsigned whole, hundredths;
	char text[256];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return -errno;
	text[n] = 0;
	if (sscanf(text, "some avg10=%u.%2u", &whole, &hundredths) != 2)
		return -EPROTO;
	*ret = whole * 100 + hundredths;
	return 0;
}

int cis_proc_boot(char ret[CIS_BOOT_BYTES])
{
	return read_text("/proc/sys/kernel/random/boot_id", ret, CIS_BOOT_BYTES);
}
