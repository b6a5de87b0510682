/* The keep folder: records and states as files, which outlive every process of ours. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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
#include "os/proc.h"

#define LOCK	     "lock"
#define LOCK_BYTES   320
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

/*
 * Engines have the lock too: as long as one lives, whoever it serves is not to be served by another.  It says who has it:
 * "keeper 12:3456 engine 34:3789", numbers and start times of processes.
 */
struct holder {
	char what[8];
	pid_t pid;
	uint64_t start;
};

/* Return: false at the end. */
static bool next_holder(const char **at, struct holder *ret)
{
	int len = 0;

	*ret = (struct holder){ 0 };
	if (sscanf(*at, " %7[a-z] %d%n", ret->what, &ret->pid, &len) != 2 || ret->pid <= 0)
		return false;
	*at += len;
	if (sscanf(*at, ":%" SCNu64 "%n", &ret->start, &len) == 1)
		*at += len;
	return true;
}

static bool is_alive(const struct holder *h)
{
	uint64_t start;

	return !cis_proc_start(h->pid, &start) && (!h->start || h->start == start);
}

static void read_holders(int lock, char *text, size_t room)
{
	ssize_t n = pread(lock, text, room - 1, 0);

	text[n > 0 ? n : 0] = 0;
}

/* For those that are being killed. */
static void wait_for_holders(const char *text)
{
	struct pollfd p = { .events = POLLIN };
	struct holder h;

	while (next_holder(&text, &h)) {
		if (cis_pidfd_open(h.pid, &p.fd))
			continue;
		if (is_alive(&h))
			poll(&p, 1, LOCK_WAIT_MS);
		close(p.fd);
	}
}

static int fail_taken(const struct keep *keep, const char *text, int why, struct cis_error *err)
{
	struct holder h;

	while (next_holder(&text, &h)) {
		if (!is_alive(&h))
			continue;
		if (!strcmp(h.what, "keeper"))
			return cis_fail(err, EBUSY, "%s: another daemon is at work there, its keeper is process %d", keep->path, (int)h.pid);
		return cis_fail(err, EBUSY, "%s: engine %d has outlived its keeper and cannot be taken over: %s; 'kill -9 %d' ends it, its guests "
				"wait then, and a daemon that is started after that serves them", keep->path, (int)h.pid, strerror(-why),
				(int)h.pid);
	}
	return cis_fail(err, EBUSY, "%s/" LOCK ": is taken, and who has it is not visible from here", keep->path);
}

static int have_lock(struct keep *keep, int fd, struct cis_error *err)
{
	keep->lock = fcntl(fd, F_DUPFD_CLOEXEC, KEEP_FREE_FROM);
	close(fd);
	return keep->lock < 0 ? cis_fail(err, errno, "%s/" LOCK ": %s", keep->path, strerror(errno)) : 0;
}

/* Who has it is a living daemon, an engine alone, which is taken over, or somebody who is about to end. */
static int take_lock(struct cis_keeper *k, struct keep_names *n, struct cis_error *err)
{
	int fd = openat(k->keep.dir, LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), r;
	char holders[LOCK_BYTES];

	if (fd < 0)
		return cis_fail(err, errno, "%s/" LOCK ": %s", k->keep.path, strerror(errno));
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return have_lock(&k->keep, fd, err);
	r = keep_heir_ask(k, n);
	if (!r && names_find(n, "lock")) {
		close(fd);
		fd = names_find(n, "lock")->fd;
		names_find(n, "lock")->fd = -1;
		return have_lock(&k->keep, fd, err);
	}
	read_holders(fd, holders, sizeof(holders));
	wait_for_holders(holders);
	if (!flock(fd, LOCK_EX | LOCK_NB))
		return have_lock(&k->keep, fd, err);
	close(fd);
	return fail_taken(&k->keep, holders, r, err);
}

static int add_holder(char *text, size_t room, const char *what, pid_t pid)
{
	uint64_t start = 0;

	cis_proc_start(pid, &start);
	return snprintf(text, room, "%s %d:%" PRIu64 " ", what, (int)pid, start);
}

void keep_lock_note(struct cis_keeper *k)
{
	char text[LOCK_BYTES];
	int n;

	if (k->keep.lock < 0)
		return;
	n = add_holder(text, sizeof(text), "keeper", getpid());
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		if (k->engines[i].pid)
			n += add_holder(text + n, sizeof(text) - (size_t)n, "engine", k->engines[i].pid);
	text[n - 1] = '\n';
	if (pwrite(k->keep.lock, text, (size_t)n, 0) != n || ftruncate(k->keep.lock, n))
		cis_log(CIS_LOG_WARN, "keeper: %s/" LOCK ": %s", k->keep.path, strerror(errno));
}

int keep_folder_open(struct cis_keeper *k, struct keep_names *n, const char *path, bool is_wish, struct cis_error *err)
{
	struct keep *keep = &k->keep;
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
		r = take_lock(k, n, err);
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
	names_join(n, &keep->found);
}
