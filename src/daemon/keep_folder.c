/* The keep folder: records and states as files, which outlive every process of ours. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "base/log.h"
#include "daemon/keep.h"
#include "daemon/keeper_int.h"
#include "os/pidfd.h"

#define LOCK	     "lock"
#define LOCK_BYTES   160
#define LOCK_WAIT_MS 2000 /* for processes that are being killed */

/* States are mapped, and records written at each change: only memory will do. */
static int open_folder(const char *path, int *ret, struct cis_error *err)
{
	struct statfs fs;
	struct stat st;
	int fd;

	if (mkdir(path, 0700) && errno != EEXIST)
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	if (fstatfs(fd, &fs) || fstat(fd, &st)) {
		int r = cis_fail(err, errno, "%s: %s", path, strerror(errno));

		close(fd);
		return r;
	}
	if (fs.f_type != TMPFS_MAGIC || st.st_uid != geteuid() || st.st_mode & 077) {
		close(fd);
		return cis_fail(err, fs.f_type != TMPFS_MAGIC ? EXDEV : EPERM, "%s: %s", path,
				fs.f_type != TMPFS_MAGIC ? "is not on a tmpfs" :
							   "belongs to another user, or others may look into it");
	}
	*ret = fd;
	return 0;
}

/* Engines have the lock too: as long as one lives, whoever it serves is not to be served by another. */
static void read_holders(int lock, char *text, size_t room)
{
	ssize_t n = pread(lock, text, room - 1, 0);

	text[n > 0 ? n : 0] = 0;
	text[strcspn(text, "\n")] = 0;
}

static void wait_for_end(int pid)
{
	struct pollfd p = { .events = POLLIN };

	if (pid <= 0 || cis_pidfd_open(pid, &p.fd))
		return;
	poll(&p, 1, LOCK_WAIT_MS);
	close(p.fd);
}

/* "keeper 12 engine 34 engine 56" */
static void wait_for_holders(const char *text)
{
	const char *at = text;

	while ((at = strchr(at, ' '))) {
		wait_for_end(atoi(++at));
		at += strcspn(at, " ");
		at += *at == ' ';
	}
}

static int take_lock(struct keep *keep, struct cis_error *err)
{
	int fd = openat(keep->dir, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), high;
	char holders[LOCK_BYTES];

	if (fd < 0)
		return cis_fail(err, errno, "%s/" LOCK ": %s", keep->path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		read_holders(fd, holders, sizeof(holders));
		wait_for_holders(holders);
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			close(fd);
			return cis_fail(err, EBUSY,
					"%s: another daemon is at work: %s; if only an engine is left, end it (its guests wait then), and "
					"start again", keep->path, holders);
		}
	}
	high = fcntl(fd, F_DUPFD_CLOEXEC, KEEP_FREE_FROM);
	close(fd);
	if (high < 0)
		return cis_fail(err, errno, "%s/" LOCK ": %s", keep->path, strerror(errno));
	keep->lock = high;
	return 0;
}

void keep_lock_note(struct cis_keeper *k)
{
	char text[LOCK_BYTES];
	int n = snprintf(text, sizeof(text), "keeper %d", (int)getpid());

	if (k->keep.lock < 0)
		return;
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		if (k->engines[i].pid)
			n += snprintf(text + n, sizeof(text) - (size_t)n, " engine %d", (int)k->engines[i].pid);
	text[n++] = '\n';
	if (pwrite(k->keep.lock, text, (size_t)n, 0) != n || ftruncate(k->keep.lock, n))
		cis_log(CIS_LOG_WARN, "keeper: %s/" LOCK ": %s", k->keep.path, strerror(errno));
}

int keep_folder_open(struct keep *keep, const char *path, bool is_wish, struct cis_error *err)
{
	int r;

	keep->path = strdup(path);
	if (!keep->path)
		return cis_fail(err, ENOMEM, "keeper: no memory");
	r = keeper_folder(path);
	if (r)
		return cis_fail(err, -r, "%s: folder: %s", path, strerror(-r));
	r = open_folder(path, &keep->dir, err);
	if (r && is_wish) {
		cis_log(CIS_LOG_DEBUG, "keeper: nothing is kept in files: %s", err->text);
		rmdir(path);
		return 0;
	}
	if (!r && keep->lock < 0)
		r = take_lock(keep, err);
	return r;
}

/* "c12.r", "c12.m", "l3.r" and the like, and "ledger". */
static bool is_ours(const char *name)
{
	const char *at = name + 1;

	if (!strcmp(name, KEEP_LEDGER))
		return true;
	if (*name != 'c' && *name != 'l')
		return false;
	while (isdigit((unsigned char)*at))
		at++;
	return at > name + 1 && at - name < KEEP_NAME_BYTES - 3 && *at == '.' && strchr("rmn", at[1]) && at[1] && !at[2];
}

void keep_folder_names(struct keep *keep, struct keep_names *n)
{
	DIR *dir = keep->dir < 0 ? NULL : fdopendir(fcntl(keep->dir, F_DUPFD_CLOEXEC, 0));
	struct dirent *e;

	names_sort(n);
	while (dir && (e = readdir(dir))) {
		int fd = is_ours(e->d_name) && !names_find(n, e->d_name) ?
				 openat(keep->dir, e->d_name, O_RDWR | O_NOFOLLOW | O_CLOEXEC) : -1;

		if (fd >= 0 && names_add(&keep->found, e->d_name, fd, KEEP_IS_FILED))
			cis_log(CIS_LOG_ERROR, "keeper: %s/%s: no memory for it", keep->path, e->d_name);
	}
	if (dir)
		closedir(dir);
	for (size_t i = 0; i < keep->found.nr; i++)
		names_add(n, keep->found.names[i].name, keep->found.names[i].fd, KEEP_IS_FILED);
	free(keep->found.names);
	keep->found = (struct keep_names){ 0 };
	names_sort(n);
}
