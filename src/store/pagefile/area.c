/* The file of an area: opened, locked, dropped. */
#include "store/pagefile/area.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Our own, as we make them: a file that somebody else put there is not written to. */
static int check_file(int fd, uint64_t *ret_bytes)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1)
		return -EPERM;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

/* Without O_DIRECT where the file system has none, as tmpfs before Linux 6.6. */
static int open_file(const struct cis_pagedir *dir, const char *file, int flags)
{
	int fd = openat(dir->fd, file, flags | O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_DIRECT, 0600);

	if (fd < 0 && errno == EINVAL)
		fd = openat(dir->fd, file, flags | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

static int find_file(struct cis_area *a, bool make)
{
	char file[CIS_PAGEDIR_FILE];

	cis_pagedir_file(a->dir, a->ns, file);
	a->fd = make ? open_file(a->dir, file, O_CREAT | O_EXCL) : -EEXIST;
	if (a->fd == -EEXIST)
		a->fd = open_file(a->dir, file, 0);
	else if (a->fd >= 0)
		a->locked = !flock(a->fd, LOCK_EX | LOCK_NB);
	return a->fd < 0 ? a->fd : 0;
}

static void *map_zeros(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static uint64_t map_bytes(const struct cis_area *a)
{
	return (uint64_t)a->nr * (CIS_SEGMENT / CIS_LOG_UNIT / 8) + sizeof(uint64_t); /* one unit more is looked at */
}

/* An engine before may have had a larger one: its values may be anywhere in it. */
static int make_space(struct cis_area *a, uint64_t found_bytes, uint64_t most)
{
	uint64_t bytes = found_bytes - found_bytes % CIS_SEGMENT;

	if (bytes < a->dir->bytes)
		bytes = a->dir->bytes;
	if (bytes > most)
		bytes = most;
	a->nr = (uint32_t)(bytes / CIS_SEGMENT);
	a->map = map_zeros(map_bytes(a));
	a->segment = map_zeros(a->nr * sizeof(*a->segment));
	if (!a->map || !a->segment)
		return -ENOMEM;
	if (bytes > found_bytes && ftruncate(a->fd, (off_t)bytes))
		return -errno;
	return cis_log_create(bytes, CIS_SEGMENT, bytes, &a->log);
}

int cis_area_open(struct cis_pagedir *dir, struct cis_aio *aio, const uint64_t ns[2], bool make, uint64_t most, struct cis_area **ret)
{
	struct cis_area *a = calloc(1, sizeof(*a));
	uint64_t bytes = 0;
	int rc;

	if (!a)
		return -ENOMEM;
	*a = (struct cis_area){ .dir = dir, .aio = aio, .ns = { ns[0], ns[1] }, .fd = -1, .open = CIS_LOG_NONE, .empty = CIS_LOG_NONE };
	cis_reqs_init(&a->puts);
	rc = find_file(a, make);
	if (!rc)
		rc = check_file(a->fd, &bytes);
	if (!rc)
		rc = make_space(a, bytes, most);
	if (rc) {
		cis_area_destroy(a);
		return rc;
	}
	*ret = a;
	return 0;
}

static void closed(struct cis_aio_op *op, int res)
{
	free(op);
}

/* That of a dropped file frees its blocks, which takes its time. */
static void close_aside(struct cis_area *a)
{
	struct cis_aio_op *op = a->dropped ? calloc(1, sizeof(*op)) : NULL;

	if (!op) {
		close(a->fd);
		return;
	}
	*op = (struct cis_aio_op){ .what = CIS_AIO_CLOSE, .fd = a->fd, .done = closed };
	cis_aio_push(a->aio, op);
}

void cis_area_destroy(struct cis_area *a)
{
	atomic_fetch_sub(&a->dir->used, a->counted);
	cis_log_destroy(a->log);
	if (a->map)
		munmap(a->map, map_bytes(a));
	if (a->segment)
		munmap(a->segment, a->nr * sizeof(*a->segment));
	if (a->fd >= 0)
		close_aside(a);
	free(a);
}

void cis_area_drop(struct cis_area *a)
{
	a->dropped = true;
	if (!a->ops)
		cis_area_destroy(a);
}

void cis_area_hold(struct cis_area *a)
{
	a->ops++;
}

void cis_area_let_go(struct cis_area *a)
{
	if (!--a->ops && a->dropped)
		cis_area_destroy(a);
}

bool cis_area_go_buffered(struct cis_area *a, bool *tried)
{
	int flags = fcntl(a->fd, F_GETFL);

	if (*tried || flags < 0)
		return false;
	*tried = true;
	return !fcntl(a->fd, F_SETFL, flags & ~O_DIRECT);
}
