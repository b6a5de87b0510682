/*
 * The image directory: what lies there, who is whose parent, and how much of it there may be.
 *
 * A scan is a snapshot of one moment, of one thread.  Only headers are read, and nothing that a file says is
 * believed beyond what its own checksum proves: whoever uses an image opens it by cis_image_open().
 */
#ifndef CIS_IMAGE_DIR_H
#define CIS_IMAGE_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/image.h"

#define CIS_DIR_DEFAULT "/var/lib/cistern/images"
#define CIS_DIR_QUOTA	"quota" /* file in the directory: one size, as cis_size_parse() reads it */

/**
 * struct cis_dir_entry - one image file
 * @problem:  why its header cannot be used, or NULL; then only @name, @file_bytes and @mtime_s count
 */
struct cis_dir_entry {
	char *name;
	char *problem;
	uint64_t file_bytes;
	int64_t mtime_s;
	uint8_t id[CIS_IMAGE_ID_BYTES];
	uint8_t parent_id[CIS_IMAGE_ID_BYTES];
	unsigned depth; /* 0: no parent */
	unsigned page_shift, codec;
	uint64_t guest_bytes, nr_pages, nr_hot;
};

/** struct cis_dir - entries by name; @quota_bytes 0 = none */
struct cis_dir {
	char *path;
	struct cis_dir_entry *entry;
	size_t nr;
	uint64_t total_bytes;
	uint64_t quota_bytes;
};

/**
 * cis_dir_scan() - read the headers of all images in a directory
 *
 * Files without our magic, hidden ones (a writer's) and whatever is not a
 * regular file are passed over, as are those that the caller may not read.
 * Return: 0, -ENOENT, -EACCES, -ENOMEM, -EINVAL (the quota file holds no size),
 * of a file that cannot be read.
 */
int cis_dir_scan(const char *path, struct cis_dir *ret, struct cis_error *err);
void cis_dir_fini(struct cis_dir *dir);

/**
 * cis_dir_find() - by file name, or by the first 8 or more digits of the id
 *
 * Return: 0, -ENOENT, or -EEXIST when more than one image matches.
 */
int cis_dir_find(const struct cis_dir *dir, const char *what, const struct cis_dir_entry **ret,
		 struct cis_error *err);

/** cis_dir_child() - the first image after @after (NULL: from the start) whose parent is @id; NULL when none
 * is left. */
const struct cis_dir_entry *cis_dir_child(const struct cis_dir *dir, const uint8_t id[CIS_IMAGE_ID_BYTES],
					  const struct cis_dir_entry *after);

/** cis_dir_remove() - delete an image.  Return: 0, -EBUSY when it is a parent (the text names a child), or of
 * unlink. */
int cis_dir_remove(const struct cis_dir *dir, const struct cis_dir_entry *entry, struct cis_error *err);

/** cis_dir_set_quota() - 0 takes it away. */
int cis_dir_set_quota(const char *path, uint64_t bytes, struct cis_error *err);

/**
 * cis_dir_room() - how long may a new image be?
 * @name:      the file that it will be, or replace
 * @ret_bytes: UINT64_MAX without a quota
 */
void cis_dir_room(const struct cis_dir *dir, const char *name, uint64_t *ret_bytes);

/**
 * cis_dir_refuse() - the refusal of an image that the quota has no room for
 *
 * Its text names the oldest images that are nobody's parent, as many as would
 * make room for about @bytes.  Return: -EDQUOT.
 */
int cis_dir_refuse(const struct cis_dir *dir, const char *name, uint64_t bytes, struct cis_error *err);

#endif
