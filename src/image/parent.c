#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"
#include "image/open.h"

struct search {
	const struct cis_image *child;
	const struct cis_image_dirs *dirs;
	struct cis_image *found;
	struct cis_error first; /* why the first file with the right id did not open */
};

/* A cheap look at the header; the whole check is cis_image_open()'s. */
static bool has_id(int dir, const char *name, const uint8_t *id)
{
	uint8_t buf[128];
	struct stat st;
	bool yes = false;
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return false;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode)) {
		ssize_t n = pread(fd, buf, sizeof(buf), 0);

		yes = n > 0 && cis_header_is_image(buf, (size_t)n, id);
	}
	close(fd);
	return yes;
}

static int try_file(struct search *s, const char *folder, const char *name)
{
	struct cis_error err = { 0 };
	struct cis_image *img;
	char *path;

	if (asprintf(&path, "%s/%s", folder, name) < 0)
		return -ENOMEM;
	int rc = cis_image_open_depth(path, s->dirs, (int)s->child->h.depth - 1, &img, &err);

	free(path);
	/* Compared again: the file may be another one since its header was looked at. */
	if (!rc && !memcmp(img->h.image_id, s->child->h.parent_id, CIS_IMAGE_ID_BYTES))
		s->found = img;
	else if (!rc)
		cis_image_unref(img);
	else if (!s->first.code)
		s->first = err;
	return rc == -ENOMEM ? rc : 0;
}

static int search_folder(struct search *s, const char *folder)
{
	DIR *d = opendir(folder);
	int rc = 0;

	if (!d)
		return 0; /* the other folders may have it */
	for (struct dirent *e; !rc && !s->found && (e = readdir(d));)
		if ((e->d_type == DT_REG || e->d_type == DT_LNK || e->d_type == DT_UNKNOWN) &&
		    has_id(dirfd(d), e->d_name, s->child->h.parent_id))
			rc = try_file(s, folder, e->d_name);
	closedir(d);
	return rc;
}

static int search_own_folder(struct search *s)
{
	const char *path = s->child->path, *slash = strrchr(path, '/');
	char *folder = !slash ? strdup(".") : slash == path ? strdup("/") : strndup(path, slash - path);

	if (!folder)
		return -ENOMEM;
	int rc = search_folder(s, folder);

	free(folder);
	return rc;
}

int cis_parent_open(const struct cis_image *img, const struct cis_image_dirs *dirs, struct cis_image **ret,
		    struct cis_error *err)
{
	struct search s = { .child = img, .dirs = dirs };
	char id[2 * CIS_IMAGE_ID_BYTES + 1];
	int rc = search_own_folder(&s);

	for (size_t i = 0; !rc && !s.found && dirs && i < dirs->nr; i++)
		rc = search_folder(&s, dirs->path[i]);
	if (s.found) {
		*ret = s.found;
		return 0;
	}
	if (rc)
		return cis_fail(err, -rc, "%s: looking for its parent: %s", img->path, strerror(-rc));
	cis_hex_print(img->h.parent_id, CIS_IMAGE_ID_BYTES, id);
	if (!s.first.code)
		return cis_fail(err, ENOLINK,
				"%s: its parent %s is not in its folder nor in the image directories",
				img->path, id);
	if (err)
		*err = s.first;
	return cis_fail_prefix(err, s.first.code, "%s: parent", img->path);
}
