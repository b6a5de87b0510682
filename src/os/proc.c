#include "os/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIELDS_TO_START 20 /* proc(5): from the state, which is field 3, to field 22 */

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
int cis_proc_start(pid_t pid, uint64_t *ret)
{
	char path[40], text[1024], *at;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = read_text(path, text, sizeof(text));
	if (r)
		return r;
	at = strrchr(text, ')');
	for (int i = 0; at && i < FIELDS_TO_START; i++)
		at = strchr(at + 1, ' ');
	if (!at)
		return -EPROTO;
	*ret = strtoull(at + 1, NULL, 10);
	return 0;
}

int cis_proc_boot(char ret[CIS_BOOT_BYTES])
{
	return read_text("/proc/sys/kernel/random/boot_id", ret, CIS_BOOT_BYTES);
}
