/* struct cis_image itself.  Internal to this layer. */
#ifndef CIS_IMAGE_OPEN_H
#define CIS_IMAGE_OPEN_H

#include <stdatomic.h>

#include "image/meta.h"

struct cis_image {
	atomic_uint refs;
	int fd;
	const struct cis_image_medium *medium; /* NULL: pread() */
	void *handle;			       /* the medium's */
	char *path;
	struct cis_header h;
	struct cis_meta meta;
	struct cis_image *parent; /* one reference */
	struct cis_image_info info;
};

/**
 * cis_image_open_depth() - cis_image_open() of an image that must have @depth parents above it
 *
 * -1: any number.  Compared before a parent is looked for, so a chain in a
 * hostile folder ends after 8.
 */
int cis_image_open_depth(const char *path, const struct cis_image_dirs *dirs, int depth,
			 struct cis_image **ret, struct cis_error *err);

/** cis_image_open_fd() - an image without parents that is open already.  Takes @fd, also on failure. */
int cis_image_open_fd(int fd, const char *name, struct cis_image **ret, struct cis_error *err);

/** cis_image_pread() - exactly @len bytes.  Return: as cis_file_read(). */
int cis_image_pread(const struct cis_image *img, void *buf, size_t len, uint64_t off, struct cis_error *err);

/**
 * cis_parent_open() - find the parent of @img by id and open it
 *
 * In the folder of @img, then in @dirs.  A file that has the id in its header
 * but does not open is passed over for another copy; without one its reason is
 * the one reported.
 */
int cis_parent_open(const struct cis_image *img, const struct cis_image_dirs *dirs, struct cis_image **ret,
		    struct cis_error *err);

#endif
