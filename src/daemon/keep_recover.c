/* Descriptors that nobody handed over are taken out of the monitor, which has them too. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/keep_record.h"
#include "daemon/keeper_int.h"
#include "os/pidfd.h"

/*
 * A userfaultfd is known by its inode, as a memfd is: it has one of its own since Linux 5.13.  Before, all such files share
 * one, as eventfds still do, and it names nothing.
 */
static bool is_named(const struct keep_fd *want)
{
	int fd = want->kind == KEEP_FD_UFFD ? eventfd(0, EFD_CLOEXEC) : -1;
	struct stat st = { 0 };

	if (fd < 0)
		return want->kind == KEEP_FD_FILE;
	if (fstat(fd, &st))
		st.st_ino = want->ino;
	close(fd);
	return st.st_ino != want->ino;
}

static bool is_same(const struct keep_fd *a, const struct keep_fd *b)
{
	return a->kind == b->kind && a->dev == b->dev && a->ino == b->ino;
}

/* What is looked at is not what is taken if the monitor closes it in between: so it is looked at again. */
static int take_if_same(int pidfd, int number, const struct keep_fd *want)
{
	struct keep_fd is;
	int fd;

	if (cis_pidfd_getfd(pidfd, number, &fd))
		return -1;
	if (!keep_fd_look(fd, &is) && is_same(&is, want))
		return fd;
	close(fd);
	return -1;
}

static int find_in(pid_t pid, int pidfd, const struct keep_fd *want)
{
	char path[300];
	struct dirent *e;
	struct stat st;
	int fd = -1;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && fd < 0 && (e = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, e->d_name);
		if (!stat(path, &st) && st.st_dev == want->dev && st.st_ino == want->ino)
			fd = take_if_same(pidfd, atoi(e->d_name), want);
	}
	if (dir)
		closedir(dir);
	return fd;
}

int keep_recover_fd(const struct conn *c, const struct keep_fd *want)
{
	return c->pidfd < 0 || !is_named(want) ? -1 : find_in(c->peer.pid, c->pidfd, want);
}
