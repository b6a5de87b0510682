#include "image/dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "image/format.h"

#define ID_PREFIX_MIN 8

static void entry_fini(struct cis_dir_entry *e)
{
	free(e->name);
	free(e->problem);
}

/* Is it no image of ours, when it cannot be opened?  Out of descriptors, or with a bad disk, nobody knows: it may be a child. */
static bool is_other(int error)
{
	return error == ENOENT || error == ELOOP || error == EACCES || error == EPERM || error == ENXIO || error == ENODEV;
}

/* Return: 1 when the file is an image (perhaps one with a problem), 0 when it is none of ours, -errno. */
static int entry_read(int dirfd, const char *name, struct cis_dir_entry *ret)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint8_t buf[CIS_HEADER_BYTES];
	struct cis_header h;
	struct cis_error err;
	struct stat st;
	ssize_t len;
	int r;

	if (fd < 0)
		return is_other(errno) ? 0 : -errno;
	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return 0;
	len = pread(fd, buf, sizeof(buf), 0);
	if (len < 0)
		return -errno;
	r = cis_header_decode(name, buf, (size_t)len, (uint64_t)st.st_size, &h, &err);
	if (r == -EMEDIUMTYPE)
		return 0;
	*ret = (struct cis_dir_entry){ .file_bytes = (uint64_t)st.st_size, .mtime_s = st.st_mtime };
	ret->name = strdup(name);
	if (r)
		ret->problem = strdup(err.text);
	if (!ret->name || (r && !ret->problem)) {
		entry_fini(ret);
		return -ENOMEM;
	}
	if (r)
		return 1;
	memcpy(ret->id, h.image_id, sizeof(ret->id));
	memcpy(ret->parent_id, h.parent_id, sizeof(ret->parent_id));
	ret->depth = h.depth;
	ret->page_shift = h.page_shift;
	ret->codec = h.codec;
	ret->guest_bytes = h.guest_bytes;
	ret->nr_pages = h.nr_pages;
	ret->nr_hot = h.nr_hot;
	return 1;
}

static int entry_add(struct cis_dir *dir, const struct cis_dir_entry *e)
{
	if ((dir->nr & (dir->nr - 1)) == 0) { /* full at every power of two */
		void *grown = realloc(dir->entry, (dir->nr ? 2 * dir->nr : 1) * sizeof(*dir->entry));

		if (!grown)
			return -ENOMEM;
		dir->entry = grown;
	}
	dir->entry[dir->nr++] = *e;
	dir->total_bytes += e->file_bytes;
	return 0;
}

static int read_quota(int dirfd, const char *path, uint64_t *ret_bytes, struct cis_error *err)
{
	_cleanup_close_ int fd = openat(dirfd, CIS_DIR_QUOTA, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char text[64];
	ssize_t len;

	if (fd < 0 && errno == ENOENT) {
		*ret_bytes = 0;
		return 0;
	}
	len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (len < 0)
		return cis_fail(err, errno, "%s/%s: %s", path, CIS_DIR_QUOTA, strerror(errno));
	text[len] = 0;
	text[strcspn(text, " \n")] = 0;
	if (cis_size_parse(text, ret_bytes))
		return cis_fail(err, EINVAL, "%s/%s: not a size: set it again by: cistern image quota SIZE",
				path, CIS_DIR_QUOTA);
	return 0;
}

static int scan_entries(struct cis_dir *dir, DIR *d, struct cis_error *err)
{
	struct dirent *de;

	while (errno = 0, (de = readdir(d))) {
		struct cis_dir_entry e;
		int r;

		if (de->d_name[0] == '.')
			continue;
		r = entry_read(dirfd(d), de->d_name, &e);
		if (r > 0) {
			r = entry_add(dir, &e);
			if (r)
				entry_fini(&e);
		}
		if (r < 0)
			return cis_fail(err, -r, "%s/%s: %s", dir->path, de->d_name, strerror(-r));
	}
	return errno ? cis_fail(err, errno, "%s: %s", dir->path, strerror(errno)) : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct cis_dir_entry *)a)->name, ((const struct cis_dir_entry *)b)->name);
}

int cis_dir_scan(const char *path, struct cis_dir *ret, struct cis_error *err)
{
	struct cis_dir dir = { .path = strdup(path) };
	DIR *d = opendir(path);
	int r;

	if (!dir.path)
		r = cis_fail(err, ENOMEM, "%s: no memory", path);
	else if (!d)
		r = cis_fail(err, errno, "%s: %s", path, strerror(errno));
	else
		r = read_quota(dirfd(d), path, &dir.quota_bytes, err);
	if (!r)
		r = scan_entries(&dir, d, err);
	if (d)
		closedir(d);
	if (r) {
		cis_dir_fini(&dir);
		return r;
	}
	if (dir.nr)
		qsort(dir.entry, dir.nr, sizeof(*dir.entry), by_name);
	*ret = dir;
	return 0;
}

void cis_dir_fini(struct cis_dir *dir)
{
	for (size_t i = 0; i < dir->nr; i++)
		entry_fini(&dir->entry[i]);
	free(dir->entry);
	free(dir->path);
	*dir = (struct cis_dir){ 0 };
}

static bool id_starts_with(const uint8_t *id, const char *prefix)
{
	char hex[2 * CIS_IMAGE_ID_BYTES + 1];

	cis_hex_print(id, CIS_IMAGE_ID_BYTES, hex);
	return strlen(prefix) >= ID_PREFIX_MIN && !strncmp(hex, prefix, strlen(prefix));
}

int cis_dir_find(const struct cis_dir *dir, const char *what, const struct cis_dir_entry **ret,
		 struct cis_error *err)
{
	const struct cis_dir_entry *found = NULL;

	for (size_t i = 0; i < dir->nr; i++) {
		const struct cis_dir_entry *e = &dir->entry[i];

		if (!strcmp(e->name, what)) {
			*ret = e;
			return 0;
		}
		if (e->problem || !id_starts_with(e->id, what))
			continue;
		if (found && memcmp(found->id, e->id, sizeof(e->id)))
			return cis_fail(err, EEXIST,
					"%s: both %s and %s have an id that starts so: give more digits",
					what, found->name, e->name);
		found = e;
	}
	if (!found)
		return cis_fail(err, ENOENT, "%s: no such image in %s", what, dir->path);
	*ret = found;
	return 0;
}

const struct cis_dir_entry *cis_dir_child(const struct cis_dir *dir, const uint8_t id[CIS_IMAGE_ID_BYTES],
					  const struct cis_dir_entry *after)
{
	for (size_t i = after ? (size_t)(after - dir->entry) + 1 : 0; i < dir->nr; i++) {
		const struct cis_dir_entry *e = &dir->entry[i];

		if (!e->problem && e->depth && !memcmp(e->parent_id, id, CIS_IMAGE_ID_BYTES))
			return e;
	}
	return NULL;
}

/* A parent may go when another file has the same content. */
static bool has_twin(const struct cis_dir *dir, const struct cis_dir_entry *entry)
{
	for (size_t i = 0; i < dir->nr; i++)
		if (&dir->entry[i] != entry && !dir->entry[i].problem &&
		    !memcmp(dir->entry[i].id, entry->id, sizeof(entry->id)))
			return true;
	return false;
}

int cis_dir_remove(const struct cis_dir *dir, const struct cis_dir_entry *entry, struct cis_error *err)
{
	const struct cis_dir_entry *child = entry->problem ? NULL : cis_dir_child(dir, entry->id, NULL);
	_cleanup_free_ char *path = NULL;

	if (child && !has_twin(dir, entry))
		return cis_fail(err, EBUSY, "%s: is the parent of %s", entry->name, child->name);
	if (asprintf(&path, "%s/%s", dir->path, entry->name) < 0) {
		path = NULL;
		return cis_fail(err, ENOMEM, "%s: no memory", entry->name);
	}
	if (unlink(path))
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	return 0;
}

int cis_dir_set_quota(const char *path, uint64_t bytes, struct cis_error *err)
{
	_cleanup_free_ char *file = NULL, *tmp = NULL;
	FILE *f;
	int r = 0;

	if (asprintf(&file, "%s/%s", path, CIS_DIR_QUOTA) < 0 ||
	    asprintf(&tmp, "%s/.%s", path, CIS_DIR_QUOTA) < 0)
		return cis_fail(err, ENOMEM, "%s: no memory", path);
	if (!bytes)
		return unlink(file) && errno != ENOENT ?
			       cis_fail(err, errno, "%s: %s", file, strerror(errno)) :
			       0;
	f = fopen(tmp, "we");
	if (!f)
		return cis_fail(err, errno, "%s: %s", tmp, strerror(errno));
	if (fprintf(f, "%llu\n", (unsigned long long)bytes) < 0 || fflush(f) || fsync(fileno(f)))
		r = cis_fail(err, errno, "%s: %s", tmp, strerror(errno));
	fclose(f);
	if (!r && rename(tmp, file))
		r = cis_fail(err, errno, "%s: %s", file, strerror(errno));
	if (r)
		unlink(tmp);
	return r;
}

void cis_dir_room(const struct cis_dir *dir, const char *name, uint64_t *ret_bytes)
{
	uint64_t others = dir->total_bytes;

	for (size_t i = 0; i < dir->nr; i++)
		if (!strcmp(dir->entry[i].name, name))
			others -= dir->entry[i].file_bytes;
	*ret_bytes = !dir->quota_bytes	       ? UINT64_MAX :
		     others < dir->quota_bytes ? dir->quota_bytes - others :
						 0;
}

static const struct cis_dir_entry *oldest_leaf(const struct cis_dir *dir, const char *not_this,
					       const struct cis_dir_entry *after)
{
	const struct cis_dir_entry *best = NULL;

	for (size_t i = 0; i < dir->nr; i++) {
		const struct cis_dir_entry *e = &dir->entry[i];
		bool later =
			!after || e->mtime_s > after->mtime_s || (e->mtime_s == after->mtime_s && e > after);

		if (!later || !strcmp(e->name, not_this) || (!e->problem && cis_dir_child(dir, e->id, NULL)))
			continue;
		if (!best || e->mtime_s < best->mtime_s)
			best = e;
	}
	return best;
}

int cis_dir_refuse(const struct cis_dir *dir, const char *name, uint64_t bytes, struct cis_error *err)
{
	const struct cis_dir_entry *e = NULL;
	char names[200] = "", quota[32], total[32];
	uint64_t room;

	cis_dir_room(dir, name, &room);
	while (room < bytes && (e = oldest_leaf(dir, name, e))) {
		size_t len = strlen(names);

		if (len + strlen(e->name) + 2 > sizeof(names) - 4) {
			strcat(names, " ...");
			break;
		}
		snprintf(names + len, sizeof(names) - len, " %s", e->name);
		room += e->file_bytes;
	}
	cis_size_print(dir->quota_bytes, quota, sizeof(quota));
	cis_size_print(dir->total_bytes, total, sizeof(total));
	return cis_fail(err, EDQUOT, "%s: the quota of %s is %s, of which %s are used; %s%s", name, dir->path,
			quota, total,
			!*names	     ? "no image there can be removed" :
			room < bytes ? "too little even without" :
				       "remove, oldest first:",
			names);
}
