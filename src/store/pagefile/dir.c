#include "store/pagefile/dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"

#define SPARE	 2u		     /* segments kept for moving values into */
#define SIZE_MIN (8u * CIS_SEGMENT)
#define SIZE_MAX_FILE (262143ull * CIS_SEGMENT) /* what 32 bits of units of 64 bytes reach */

static struct cis_pagedir *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all, and of the counts of references */

/** struct place - what a name says; @size: 0: nothing */
struct place {
	char *path;
	uint64_t size;
};

static int parse_size(const char *option, uint64_t *ret, struct cis_error *err)
{
	const char *text = option + strlen("size=");

	if (strncmp(option, "size=", strlen("size=")))
		return cis_fail(err, EINVAL, "store file: '%s' is not an option; there is size=SIZE alone", option);
	if (cis_size_parse(text, ret))
		return cis_fail(err, EINVAL, "store file: size: '%s' is not a size, as 20G", text);
	if (*ret < SIZE_MIN)
		return cis_fail(err, EINVAL, "store file: size: '%s' is less than %uM", text, SIZE_MIN >> 20);
	return 0;
}

/* @ret->path is to be freed. */
static int parse(const char *name, struct place *ret, struct cis_error *err)
{
	const char *option = strchrnul(name, '?');
	struct place place = { 0 };
	int rc;

	if (*name != '/')
		return cis_fail(err, EINVAL, "store file: '%s' is not an absolute path", name);
	rc = *option ? parse_size(option + 1, &place.size, err) : 0;
	if (rc)
		return rc;
	place.path = strndup(name, (size_t)(option - name));
	if (!place.path)
		return cis_fail(err, ENOMEM, "store file: out of memory");
	*ret = place;
	return 0;
}

int cis_pagedir_check(const char *name, struct cis_error *err)
{
	struct place place = { 0 };
	int rc = parse(name, &place, err);

	if (!rc)
		free(place.path);
	return rc;
}

static int open_dir(const char *name, struct place *place, int *ret_fd, struct cis_error *err)
{
	int rc = parse(name, place, err), fd;

	if (rc)
		return rc;
	fd = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		rc = cis_fail(err, errno, "store file: %s: %s", place->path, strerror(errno));
		free(place->path);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

void cis_pagedir_file(const struct cis_pagedir *dir, const uint64_t ns[2], char ret[CIS_PAGEDIR_FILE])
{
	snprintf(ret, CIS_PAGEDIR_FILE, "%016llx%016llx.%s", (unsigned long long)ns[0], (unsigned long long)ns[1], dir->boot);
}

#define NS_DIGITS 32u

/* Guests do not outlive the machine that they run on: whatever another start of it has left, and nobody has locked, is nobody's. */
static bool is_left_over(const struct cis_pagedir *dir, const char *file)
{
	return strspn(file, "0123456789abcdef") == NS_DIGITS && file[NS_DIGITS] == '.' &&
	       strlen(file + NS_DIGITS + 1) == strlen(dir->boot) &&
	       strspn(file + NS_DIGITS + 1, "0123456789abcdef-") == strlen(dir->boot) && strcmp(file + NS_DIGITS + 1, dir->boot);
}

static void sweep_file(const struct cis_pagedir *dir, const char *file)
{
	_cleanup_close_ int fd = openat(dir->fd, file, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB))
		unlinkat(dir->fd, file, 0);
}

static void sweep(const struct cis_pagedir *dir)
{
	int fd = openat(dir->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	for (struct dirent *e; d && (e = readdir(d));)
		if (is_left_over(dir, e->d_name))
			sweep_file(dir, e->d_name);
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
}

/* Without a size the disk is the limit, and says so by itself. */
static int measure(struct cis_pagedir *dir, uint64_t size, struct cis_error *err)
{
	struct statvfs fs;

	if (!size) {
		if (fstatvfs(dir->fd, &fs))
			return cis_fail(err, errno, "store file: %s: %s", dir->name, strerror(errno));
		size = (uint64_t)fs.f_blocks * fs.f_frsize;
		size = size < SIZE_MIN ? SIZE_MIN : size;
	}
	dir->limit = size / CIS_SEGMENT < UINT32_MAX ? (uint32_t)(size / CIS_SEGMENT) : UINT32_MAX;
	dir->bytes = (uint64_t)dir->limit * CIS_SEGMENT;
	if (dir->bytes > SIZE_MAX_FILE)
		dir->bytes = SIZE_MAX_FILE;
	return 0;
}

static void destroy(struct cis_pagedir *dir)
{
	close(dir->fd);
	free(dir->name);
	free(dir);
}

static int create(const char *name, struct cis_pagedir **ret, struct cis_error *err)
{
	struct cis_pagedir *dir;
	struct place place = { 0 };
	int fd = -1, rc = open_dir(name, &place, &fd, err);

	if (rc)
		return rc;
	free(place.path);
	dir = calloc(1, sizeof(*dir));
	if (!dir) {
		close(fd);
		return cis_fail(err, ENOMEM, "store file: out of memory");
	}
	dir->fd = fd;
	dir->refs = 1;
	dir->name = strdup(name);
	rc = dir->name ? cis_proc_boot(dir->boot) : -ENOMEM;
	rc = rc ? cis_fail(err, -rc, "store file: %s", strerror(-rc)) : measure(dir, place.size, err);
	if (rc) {
		destroy(dir);
		return rc;
	}
	sweep(dir);
	*ret = dir;
	return 0;
}

int cis_pagedir_get(const char *name, struct cis_pagedir **ret, struct cis_error *err)
{
	struct cis_pagedir *dir;
	int rc = 0;

	pthread_mutex_lock(&lock);
	for (dir = all; dir && strcmp(dir->name, name); dir = dir->next)
		;
	if (dir) {
		dir->refs++;
	} else {
		rc = create(name, &dir, err);
		if (!rc) {
			dir->next = all;
			all = dir;
		}
	}
	pthread_mutex_unlock(&lock);
	if (!rc)
		*ret = dir;
	return rc;
}

void cis_pagedir_put(struct cis_pagedir *dir)
{
	pthread_mutex_lock(&lock);
	if (!--dir->refs) {
		struct cis_pagedir **p = &all;

		while (*p != dir)
			p = &(*p)->next;
		*p = dir->next;
		destroy(dir);
	}
	pthread_mutex_unlock(&lock);
}

static int probe(const struct cis_pagedir *dir)
{
	static const char page[4096];
	char file[CIS_PAGEDIR_FILE];
	uint64_t ns[2];
	int fd, rc;

	if (getrandom(ns, sizeof(ns), 0) != sizeof(ns))
		return -errno;
	cis_pagedir_file(dir, ns, file);
	fd = openat(dir->fd, file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	rc = pwrite(fd, page, sizeof(page), 0) < 0 ? -errno : 0;
	unlinkat(dir->fd, file, 0);
	close(fd);
	return rc;
}

int cis_pagedir_probe(const char *name, struct cis_error *err)
{
	struct cis_pagedir *dir;
	int rc = cis_pagedir_get(name, &dir, err);

	if (rc)
		return rc;
	rc = probe(dir);
	if (rc)
		cis_fail(err, -rc, "store file: %s: %s", name, strerror(-rc));
	cis_pagedir_put(dir);
	return rc;
}

enum cis_pagedir_taken cis_pagedir_take(struct cis_pagedir *dir, bool spare)
{
	unsigned before = atomic_fetch_add(&dir->used, 1);

	if (before < dir->limit - SPARE)
		return CIS_TAKEN;
	if (spare && before < dir->limit)
		return CIS_TAKEN_SPARE;
	atomic_fetch_sub(&dir->used, 1);
	return CIS_TAKEN_NOT;
}
