#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/open.h"
#include "image/source.h"

struct from_image {
	struct cis_image_source src;
	struct cis_image *img; /* owned by the reader */
	struct cis_image_reader *reader;
	uint8_t *page; /* for reads of part of one: mostly the next part is wanted next */
	uint64_t held; /* its number; UINT64_MAX: none */
};

static struct from_image *image_of(struct cis_image_source *src)
{
	return (struct from_image *)src;
}

static bool is_zero(const struct cis_image *img, uint64_t pgno)
{
	struct cis_page_loc loc;

	cis_image_locate(img, pgno, &loc);
	return loc.cls == CIS_CLASS_ZERO;
}

/* The first page from @pgno on that is not zeros; 64 that have no class bit are passed over at once. */
static uint64_t next_content(const struct cis_image *img, uint64_t pgno)
{
	const struct cis_meta *m = &img->meta;

	for (; pgno < img->h.nr_pages; pgno++) {
		uint64_t i = pgno / 64;

		if (pgno % 64 == 0 && !(m->hot[i] | m->cold[i] | m->same[i] | m->inherit[i]))
			pgno += 63;
		else if (!is_zero(img, pgno))
			return pgno;
	}
	return img->h.nr_pages;
}

static int image_next_data(struct cis_image_source *src, uint64_t from, uint64_t *ret_start,
			   uint64_t *ret_end, struct cis_error *err)
{
	const struct cis_image *img = image_of(src)->img;
	unsigned shift = img->h.page_shift;

	if (from >= src->guest_bytes)
		return -ENXIO;
	uint64_t first = next_content(img, from >> shift), end = first;

	if (first >= img->h.nr_pages)
		return -ENXIO;
	while (end < img->h.nr_pages && !is_zero(img, end))
		end++;
	*ret_start = from > first << shift ? from : first << shift;
	*ret_end = end << shift < src->guest_bytes ? end << shift : src->guest_bytes;
	return 0;
}

static int hold_page(struct from_image *f, uint64_t pgno, struct cis_error *err)
{
	int rc;

	if (f->held == pgno)
		return 0;
	f->held = UINT64_MAX;
	rc = cis_image_read_page(f->reader, pgno, f->page, err);
	if (!rc)
		f->held = pgno;
	return rc;
}

static int image_read(struct cis_image_source *src, uint64_t off, void *buf, size_t len,
		      struct cis_error *err)
{
	struct from_image *f = image_of(src);
	size_t page = (size_t)1 << f->img->h.page_shift;

	while (len) {
		size_t inside = (size_t)(off & (page - 1)), n = page - inside < len ? page - inside : len;
		uint64_t pgno = off >> f->img->h.page_shift;
		int rc = n == page ? cis_image_read_page(f->reader, pgno, buf, err) : hold_page(f, pgno, err);

		if (rc)
			return rc;
		if (n < page)
			memcpy(buf, f->page + inside, n);
		buf = (uint8_t *)buf + n;
		off += n;
		len -= n;
	}
	return 0;
}

static void image_close(struct cis_image_source *src)
{
	struct from_image *f = image_of(src);

	cis_image_reader_destroy(f->reader);
	free(f->page);
	free(f);
}

int cis_source_image(struct cis_image *img, struct cis_image_source **ret, struct cis_error *err)
{
	struct from_image *f = calloc(1, sizeof(*f));

	if (!f)
		return cis_fail(err, ENOMEM, "%s: no memory", img->path);
	*f = (struct from_image){
		.src = { .guest_bytes = img->h.guest_bytes, .regions = img->meta.regions,
			 .nr_regions = img->meta.nr_regions, .next_data = image_next_data, .read = image_read,
			 .close = image_close },
		.img = img,
		.page = malloc((size_t)1 << img->h.page_shift),
		.held = UINT64_MAX,
	};
	if (!f->page || cis_image_reader_create(img, &f->reader)) {
		image_close(&f->src);
		return cis_fail(err, ENOMEM, "%s: no memory for a reader", img->path);
	}
	*ret = &f->src;
	return 0;
}
