/* Finding images, and what the quota leaves. */
#include "cli/images.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

int cli_image_path(const char *image, char **ret, struct cis_error *err)
{
	const struct cis_dir_entry *e;
	struct cis_dir dir;
	int r;

	if (strchr(image, '/') || !access(image, F_OK)) {
		*ret = strdup(image);
		return *ret ? 0 : cis_fail(err, ENOMEM, "%s: no memory", image);
	}
	r = cis_dir_scan(cli_images, &dir, err);
	if (r == -ENOENT)
		return cis_fail(err, ENOENT, "%s: no such file, and there is no image directory %s", image,
				cli_images);
	if (r)
		return r;
	r = cis_dir_find(&dir, image, &e, err);
	if (!r && asprintf(ret, "%s/%s", dir.path, e->name) < 0)
		r = cis_fail(err, ENOMEM, "%s: no memory", image);
	cis_dir_fini(&dir);
	return r;
}

int cli_image_open(const char *image, struct cis_image **ret, struct cis_error *err)
{
	struct cis_image_dirs dirs = { &cli_images, 1, cli_store ? &cli_medium : NULL };
	_cleanup_free_ char *path = NULL;
	int r = cli_image_path(image, &path, err);

	return r ? r : cis_image_open(path, &dirs, ret, err);
}

/* Splits a path; returns whether it lies in the image directory itself. */
static bool in_images(const char *path, char **ret_name)
{
	_cleanup_free_ char *folder = strdup(path), *file = strdup(path);
	struct stat a, b;

	*ret_name = file ? strdup(basename(file)) : NULL;
	return folder && *ret_name && !stat(dirname(folder), &a) && !stat(cli_images, &b) &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int cli_quota_room(const char *path, uint64_t *ret_bytes, struct cis_error *err)
{
	_cleanup_free_ char *name = NULL;
	struct cis_dir dir;
	int r = 0;

	*ret_bytes = UINT64_MAX;
	if (in_images(path, &name)) {
		r = cis_dir_scan(cli_images, &dir, err);
		if (!r) {
			cis_dir_room(&dir, name, ret_bytes);
			cis_dir_fini(&dir);
		}
	}
	return r;
}

int cli_quota_refuse(const char *path, uint64_t room, const struct cli_progress *progress,
		     struct cis_error *err)
{
	double done = progress->total ? (double)progress->done / (double)progress->total : 1;
	uint64_t bytes = room + 1 + (done > 0 ? (uint64_t)((double)room * (1 - done) / done) : room);

	_cleanup_free_ char *name = NULL;
	struct cis_dir dir;
	int r;

	in_images(path, &name);
	r = cis_dir_scan(cli_images, &dir, err);
	if (r)
		return r;
	r = cis_dir_refuse(&dir, name ? name : path, bytes, err);
	cis_dir_fini(&dir);
	return r;
}
