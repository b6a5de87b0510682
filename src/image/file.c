#include "image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct cis_error *err, const char *path, const char *what)
{
	int code = errno;

	return cis_fail(err, code, "%s: %s: %s", path, what, strerror(code));
}

int cis_file_open(const char *path, int *ret_fd, uint64_t *ret_bytes, struct cis_error *err)
{
	/* O_NONBLOCK: a FIFO must be refused, not waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
	struct stat st;

	if (fd < 0)
		return fail(err, path, "open");
	if (fstat(fd, &st))
		rc = fail(err, path, "stat");
	else if (!S_ISREG(st.st_mode))
		rc = cis_fail(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, "%s: not a regular file", path);
	if (rc) {
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

int cis_file_read(int fd, const char *path, void *buf, size_t len, uint64_t off, struct cis_error *err)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (n > 0)
			done += (size_t)n;
		else if (!n)
			return cis_fail(err, EBADMSG, "%s: ends at byte %llu: it became shorter", path,
					(unsigned long long)(off + done));
		else if (errno != EINTR)
			return cis_fail(err, errno, "%s: read of %zu bytes at %llu: %s", path, len - done,
					(unsigned long long)(off + done), strerror(errno));
	}
	return 0;
}

/* A name that no other writer has, in this process or another. */
static char *temporary_name(const char *name)
{
	static atomic_uint counter;
	char *text;

	if (asprintf(&text, ".%.200s.%d.%u.tmp", name, (int)getpid(), atomic_fetch_add(&counter, 1)) < 0)
		return NULL;
	return text;
}

static int open_folder(struct cis_newfile *f, struct cis_error *err)
{
	const char *slash = strrchr(f->path, '/');
	char *folder = !slash		  ? strdup(".")
		       : slash == f->path ? strdup("/")
					  : strndup(f->path, slash - f->path);
	int rc = 0;

	f->name = slash ? slash + 1 : f->path;
	if (!folder)
		return cis_fail(err, ENOMEM, "%s: no memory", f->path);
	f->dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->dir < 0)
		rc = fail(err, folder, "open");
	free(folder);
	return rc;
}

static int check_target(const struct cis_newfile *f, struct cis_error *err)
{
	struct stat st;

	if (!*f->name || !strcmp(f->name, ".") || !strcmp(f->name, ".."))
		return cis_fail(err, EINVAL, "%s: not the name of a file", f->path);
	if (fstatat(f->dir, f->name, &st, 0))
		return errno == ENOENT ? 0 : fail(err, f->path, "stat");
	if (!S_ISREG(st.st_mode))
		return cis_fail(err, S_ISDIR(st.st_mode) ? EISDIR : EINVAL,
				"%s: is there and not a regular file: it is not replaced", f->path);
	return 0;
}

static int open_new(struct cis_newfile *f, struct cis_error *err)
{
	f->fd = openat(f->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (f->fd >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL)
		return fail(err, f->path, "create");
	f->temporary = temporary_name(f->name);
	if (!f->temporary)
		return cis_fail(err, ENOMEM, "%s: no memory", f->path);
	f->fd = openat(f->dir, f->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (f->fd >= 0)
		return 0;
	int rc = fail(err, f->path, "create");

	free(f->temporary);
	f->temporary = NULL;
	return rc;
}

int cis_newfile_create(const char *path, struct cis_newfile *ret, struct cis_error *err)
{
	struct cis_newfile f = { .fd = -1, .dir = -1, .path = strdup(path) };
	int rc = f.path ? open_folder(&f, err) : cis_fail(err, ENOMEM, "%s: no memory", path);

	if (!rc)
		rc = check_target(&f, err);
	if (!rc)
		rc = open_new(&f, err);
	if (rc)
		cis_newfile_close(&f);
	else
		*ret = f;
	return rc;
}

int cis_newfile_write(const struct cis_newfile *f, const void *buf, size_t len, uint64_t off,
		      struct cis_error *err)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(f->fd, (const char *)buf + done, len - done, (off_t)(off + done));

		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			return cis_fail(err, errno, "%s: write of %zu bytes at %llu: %s", f->path, len - done,
					(unsigned long long)(off + done), strerror(errno));
	}
	return 0;
}

/* A nameless file can only get a name that is free, so it gets a temporary one first. */
static int give_name(struct cis_newfile *f, struct cis_error *err)
{
	char self[40];
	char *name = temporary_name(f->name);

	if (!name)
		return cis_fail(err, ENOMEM, "%s: no memory", f->path);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
	if (linkat(AT_FDCWD, self, f->dir, name, AT_SYMLINK_FOLLOW)) {
		free(name);
		return fail(err, f->path, "link");
	}
	f->temporary = name;
	return 0;
}

int cis_newfile_publish(struct cis_newfile *f, struct cis_error *err)
{
	if (fsync(f->fd))
		return fail(err, f->path, "sync");
	int rc = f->temporary ? 0 : give_name(f, err);

	if (rc)
		return rc;
	if (renameat(f->dir, f->temporary, f->dir, f->name))
		return fail(err, f->path, "rename");
	free(f->temporary);
	f->temporary = NULL;
	return fsync(f->dir) ? fail(err, f->path, "sync of its folder") : 0;
}

void cis_newfile_close(struct cis_newfile *f)
{
	if (f->temporary)
		unlinkat(f->dir, f->temporary, 0);
	if (f->fd >= 0)
		close(f->fd);
	if (f->dir >= 0)
		close(f->dir);
	free(f->temporary);
	free(f->path);
	*f = (struct cis_newfile){ .fd = -1, .dir = -1 };
}
