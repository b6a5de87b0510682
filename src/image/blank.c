/* An image without content, made of its name alone: the memory of a guest that begins with nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "image/file.h"
#include "image/open.h"
#include "image/writer.h"
#include "os/memfd.h"

#define PAGE_SHIFT  12
#define CHUNK_SHIFT 16

bool cis_image_name_is_blank(const char *name)
{
	return !strncmp(name, CIS_IMAGE_BLANK, strlen(CIS_IMAGE_BLANK));
}

int cis_image_blank_bytes(const char *name, uint64_t *ret_bytes, struct cis_error *err)
{
	uint64_t page = (uint64_t)1 << PAGE_SHIFT;

	if (!cis_image_name_is_blank(name) || cis_size_parse(name + strlen(CIS_IMAGE_BLANK), ret_bytes))
		return cis_fail(err, EINVAL, "%s: not " CIS_IMAGE_BLANK " and a size, like " CIS_IMAGE_BLANK "4G", name);
	if (!*ret_bytes || *ret_bytes % page || *ret_bytes > CIS_IMAGE_BLANK_MAX)
		return cis_fail(err, EINVAL, "%s: not a multiple of %llu bytes up to 1T", name, (unsigned long long)page);
	return 0;
}

/* A file as the writer would have made it of a hole: whoever reads an image may read this one too. */
static int put(int fd, const char *name, struct cis_header *h, const void *meta, struct cis_error *err)
{
	uint8_t header[CIS_HEADER_BYTES];
	struct cis_newfile f = { .fd = fd, .dir = -1, .path = (char *)name };
	int rc = cis_header_encode(h, meta, header) ? cis_fail(err, ENOMEM, "%s: no memory", name) : 0;

	if (!rc)
		rc = cis_newfile_write(&f, header, sizeof(header), 0, err);
	return rc ? rc : cis_newfile_write(&f, meta, h->meta.bytes, h->meta.off, err);
}

static int make(struct cis_writer *w, const char *name, int *ret_fd)
{
	void *meta = NULL;
	int fd, rc = cis_writer_metadata(w, &meta);

	if (rc)
		return rc;
	rc = cis_memfd_create("cistern-blank", cis_header_parts(&w->h), 1u << PAGE_SHIFT, &fd);
	if (rc) {
		free(meta);
		return cis_fail(w->err, -rc, "%s: %s", name, strerror(-rc));
	}
	rc = put(fd, name, &w->h, meta, w->err);
	free(meta);
	if (rc)
		close(fd);
	else
		*ret_fd = fd;
	return rc;
}

int cis_image_blank(const char *name, struct cis_image **ret, struct cis_error *err)
{
	struct cis_image_source nothing = { 0 };
	struct cis_writer w = { .o = { .codec = CIS_CODEC_RAW }, .src = &nothing, .err = err, .out = { .fd = -1, .dir = -1, .path = (char *)name } };
	uint64_t bytes;
	int fd = -1, rc = cis_image_blank_bytes(name, &bytes, err);

	if (rc)
		return rc;
	w.h = (struct cis_header){ .guest_bytes = bytes, .page_shift = PAGE_SHIFT, .chunk_shift = CHUNK_SHIFT,
				   .nr_pages = bytes >> PAGE_SHIFT, .codec = CIS_CODEC_RAW };
	uint64_t words = cis_bitmap_words(w.h.nr_pages);

	w.classes = calloc(5 * words, 8);
	if (!w.classes)
		return cis_fail(err, ENOMEM, "%s: no memory", name);
	w.hot = w.classes;
	w.cold = w.classes + words;
	w.same_map = w.classes + 2 * words;
	w.inherit = w.classes + 3 * words;
	w.touched = w.classes + 4 * words;
	rc = make(&w, name, &fd);
	free(w.classes);
	return rc ? rc : cis_image_open_fd(fd, name, ret, err);
}
