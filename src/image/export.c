#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/le.h"
#include "image/file.h"
#include "image/open.h"
#include "image/write.h"

/* Every chunk is decoded once, in the order in which it is stored; its pages go to where they belong. */
struct export {
	struct cis_image *top;
	const struct cis_image *img; /* the one of the chain whose chunks are read now */
	struct cis_newfile out;
	struct cis_decoder *dec;
	uint8_t *stored, *raw;
	uint64_t done, total; /* bytes of the guest */
	void (*progress)(uint64_t, uint64_t, void *);
	void *ctx;
	struct cis_error *err;
};

/* Is this page of x->img what a guest sees, or does a child have its own? */
static bool visible(const struct export *x, uint64_t pgno)
{
	struct cis_page_loc loc;

	if (x->img == x->top)
		return true;
	cis_image_locate(x->top, pgno, &loc);
	return loc.img == x->img;
}

static int put(struct export *x, uint64_t off, const void *bytes, size_t len)
{
	uint64_t guest = x->top->h.guest_bytes;

	if (off >= guest)
		return 0;
	if (len > guest - off)
		len = (size_t)(guest - off);
	x->done += len;
	return cis_newfile_write(&x->out, bytes, len, off, x->err);
}

static int load(struct export *x, uint64_t chunk, const struct cis_chunk_loc *loc)
{
	int rc = cis_image_pread(x->img, x->stored, loc->stored_bytes, loc->off, x->err);

	return rc ? rc : cis_image_decode(x->img, x->dec, chunk, x->stored, x->raw, x->err);
}

/* The pages of a chunk, or the part of a page; the chunk is decoded when the first is wanted. */
static int export_chunk(struct export *x, uint64_t chunk)
{
	const struct cis_meta *m = &x->img->meta;
	bool hot = chunk < m->nr_hot_chunks, loaded = false;
	unsigned shift = x->img->h.page_shift;
	uint64_t at = (hot ? chunk : chunk - m->nr_hot_chunks) << x->img->h.chunk_shift, pgno = 0;
	struct cis_chunk_loc loc;

	cis_image_chunk(x->img, chunk, &loc);
	for (uint32_t done = 0, n; done < loc.raw_bytes; done += n) {
		uint64_t index = (at + done) >> shift, inside = (at + done) & (((uint64_t)1 << shift) - 1);
		uint64_t left = ((uint64_t)1 << shift) - inside;

		if (hot)
			pgno = m->hot_order[index];
		else if (!done)
			pgno = cis_rank_select(&m->cold_rank, index);
		else
			pgno = cis_bitmap_next(m->cold, x->img->h.nr_pages, pgno + 1);
		n = left < loc.raw_bytes - done ? (uint32_t)left : loc.raw_bytes - done;
		if (!visible(x, pgno))
			continue;
		int rc = loaded ? 0 : load(x, chunk, &loc);

		loaded = true;
		if (!rc)
			rc = put(x, (pgno << shift) + inside, x->raw + done, n);
		if (rc)
			return rc;
	}
	return 0;
}

static int export_same(struct export *x)
{
	const struct cis_meta *m = &x->img->meta;
	uint64_t nr = x->img->h.nr_pages, pgno = 0;
	size_t page = (size_t)1 << x->img->h.page_shift;
	uint64_t *buf = x->img->h.nr_same ? malloc(page) : NULL;
	int rc = 0;

	if (x->img->h.nr_same && !buf)
		return cis_fail(x->err, ENOMEM, "%s: no memory", x->img->path);
	for (uint64_t i = 0; i < x->img->h.nr_same && !rc; i++, pgno++) {
		pgno = cis_bitmap_next(m->same, nr, pgno);
		if (!visible(x, pgno))
			continue;
		for (size_t k = 0; k < page / 8; k++)
			buf[k] = htole64(m->same_words[i]);
		rc = put(x, pgno * page, buf, page);
	}
	free(buf);
	return rc;
}

static int export_level(struct export *x, const struct cis_image *img)
{
	size_t chunk = (size_t)1 << img->h.chunk_shift;
	int rc = 0;

	x->img = img;
	x->stored = malloc(chunk);
	x->raw = malloc(chunk);
	if (!x->stored || !x->raw || cis_decoder_create(chunk, img->meta.params, &x->dec))
		rc = cis_fail(x->err, ENOMEM, "%s: no memory for a decoder", img->path);
	for (uint64_t i = 0; i < img->meta.nr_chunks && !rc; i++) {
		rc = export_chunk(x, i);
		if (x->progress && i % 16 == 0)
			x->progress(x->done, x->total, x->ctx);
	}
	if (!rc)
		rc = export_same(x);
	cis_decoder_destroy(x->dec);
	free(x->stored);
	free(x->raw);
	x->dec = NULL;
	return rc;
}

int cis_image_export(struct cis_image *img, const char *path, void (*progress)(uint64_t, uint64_t, void *),
		     void *ctx, struct cis_error *err)
{
	struct export x = {
		.top = img, .total = img->h.guest_bytes, .progress = progress, .ctx = ctx, .err = err
	};
	int rc = cis_newfile_create(path, &x.out, err);

	if (rc)
		return rc;
	if (ftruncate(x.out.fd, (off_t)img->h.guest_bytes))
		rc = cis_fail(err, errno, "%s: to %llu bytes: %s", path,
			      (unsigned long long)img->h.guest_bytes, strerror(errno));
	for (const struct cis_image *up = img; up && !rc; up = up->parent)
		rc = export_level(&x, up);
	if (!rc)
		rc = cis_newfile_publish(&x.out, err);
	if (!rc && progress)
		progress(x.total, x.total, ctx);
	cis_newfile_close(&x.out);
	return rc;
}
