/* Reads and writes with their reasons, and files that appear whole or not at all.  Internal to this layer. */
#ifndef CIS_IMAGE_FILE_H
#define CIS_IMAGE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/** cis_file_open() - a regular file for reading; any other kind is refused.  Return: 0 or -errno. */
int cis_file_open(const char *path, int *ret_fd, uint64_t *ret_bytes, struct cis_error *err);

/** cis_file_read() - exactly @len bytes.  Return: 0, -EBADMSG at the end of the file, or -errno. */
int cis_file_read(int fd, const char *path, void *buf, size_t len, uint64_t off, struct cis_error *err);

/**
 * struct cis_newfile - a file that is not there until it is published
 *
 * Nameless where the file system can do that, else under a temporary name.
 * Readable by its owner only: it holds a guest's memory.
 */
struct cis_newfile {
	int fd;
	int dir;
	char *path;	  /* as the caller gave it, for texts */
	const char *name; /* within @path, relative to @dir */
	char *temporary;  /* NULL while the file has no name */
};

/** cis_newfile_create() - beside @path.  A @path that is there and not a regular file is refused. */
int cis_newfile_create(const char *path, struct cis_newfile *ret, struct cis_error *err);
int cis_newfile_write(const struct cis_newfile *f, const void *buf, size_t len, uint64_t off,
		      struct cis_error *err);

/** cis_newfile_publish() - sync, give it its name, sync the folder.  The file is still to be closed. */
int cis_newfile_publish(struct cis_newfile *f, struct cis_error *err);

/** cis_newfile_close() - what was not published is gone.  Takes one that is all zeros but for fd = -1. */
void cis_newfile_close(struct cis_newfile *f);

#endif
