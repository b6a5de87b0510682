#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/file.h"
#include "image/format.h"
#include "image/source.h"

struct raw {
	struct cis_image_source src;
	int fd;
	char *path;
};

static struct raw *raw_of(struct cis_image_source *src)
{
	return (struct raw *)src;
}

/* SEEK_DATA fails with ENXIO behind the last data; a file system without holes says that all is data. */
static int raw_next_data(struct cis_image_source *src, uint64_t from, uint64_t *ret_start, uint64_t *ret_end,
			 struct cis_error *err)
{
	struct raw *r = raw_of(src);

	if (from >= src->guest_bytes)
		return -ENXIO;
	off_t start = lseek(r->fd, (off_t)from, SEEK_DATA);

	if (start < 0 && errno == ENXIO)
		return -ENXIO;
	off_t end = start < 0 ? -1 : lseek(r->fd, start, SEEK_HOLE);

	if (end < 0 || end <= start)
		return cis_fail(err, errno ? errno : EIO, "%s: looking for data after byte %llu: %s", r->path,
				(unsigned long long)from, strerror(errno));
	if ((uint64_t)start >= src->guest_bytes) /* it grew meanwhile */
		return -ENXIO;
	*ret_start = (uint64_t)start;
	*ret_end = (uint64_t)end < src->guest_bytes ? (uint64_t)end : src->guest_bytes;
	return 0;
}

static int raw_read(struct cis_image_source *src, uint64_t off, void *buf, size_t len, struct cis_error *err)
{
	return cis_file_read(raw_of(src)->fd, raw_of(src)->path, buf, len, off, err);
}

static void raw_close(struct cis_image_source *src)
{
	struct raw *r = raw_of(src);

	if (r->fd >= 0)
		close(r->fd);
	free(r->path);
	free(r);
}

static int raw_open(struct raw *r, const char *path, struct cis_error *err)
{
	int rc = r->path ? cis_file_open(path, &r->fd, &r->src.guest_bytes, err)
			 : cis_fail(err, ENOMEM, "%s: no memory", path);

	if (!rc && !r->src.guest_bytes)
		rc = cis_fail(err, EINVAL, "%s: empty: no memory of a guest", path);
	if (!rc && r->src.guest_bytes > CIS_GUEST_BYTES_MAX)
		rc = cis_fail(err, EFBIG, "%s: larger than 2^44 bytes (format 3)", path);
	return rc;
}

int cis_source_raw(const char *path, struct cis_image_source **ret, struct cis_error *err)
{
	struct raw *r = calloc(1, sizeof(*r));

	if (!r)
		return cis_fail(err, ENOMEM, "%s: no memory", path);
	*r = (struct raw){ .src = { .next_data = raw_next_data, .read = raw_read, .close = raw_close },
			   .fd = -1, .path = strdup(path) };
	int rc = raw_open(r, path, err);

	if (rc)
		raw_close(&r->src);
	else
		*ret = &r->src;
	return rc;
}

void cis_source_close(struct cis_image_source *src)
{
	if (src)
		src->close(src);
}
