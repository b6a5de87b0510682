#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/writer.h"

int cis_writer_next_data(struct cis_writer *w, uint64_t from, uint64_t *ret_start, uint64_t *ret_end)
{
	struct cis_extent *x = &w->extent;

	if (from < x->from || from >= x->end) {
		int rc = w->src->next_data(w->src, from, &x->start, &x->end, w->err);

		if (rc && rc != -ENXIO) {
			*x = (struct cis_extent){ 0 };
			return rc;
		}
		if (rc)
			x->start = x->end = UINT64_MAX;
		x->from = from;
	}
	if (x->start == UINT64_MAX)
		return -ENXIO;
	*ret_start = from > x->start ? from : x->start;
	*ret_end = x->end;
	return 0;
}

static int read_source(struct cis_writer *w, uint64_t off, void *buf, size_t len)
{
	return w->src->read(w->src, off, buf, len, w->err);
}

/* A diff's holes are finer than the page: what they leave out is the parent's. */
static int overlay(struct cis_writer *w, uint64_t pgno, uint64_t off, size_t len, uint8_t *buf)
{
	uint64_t start, end, at = off;
	int rc = cis_image_read_page(w->parent, pgno, buf, w->err);

	while (!rc && at < off + len) {
		rc = cis_writer_next_data(w, at, &start, &end);
		if (rc == -ENXIO || (!rc && start >= off + len))
			return 0;
		if (rc)
			break;
		if (end > off + len)
			end = off + len;
		rc = read_source(w, start, buf + (start - off), (size_t)(end - start));
		at = end;
	}
	return rc;
}

/*
 * The whole content of one page into @buf, wherever it comes from.
 * Return: 1, 0 when it is zeros and @buf untouched, or -errno.
 */
static int compose(struct cis_writer *w, uint64_t pgno, uint8_t *buf)
{
	size_t page = (size_t)1 << w->h.page_shift;
	uint64_t off = pgno << w->h.page_shift, left = w->h.guest_bytes - off, start, end;
	size_t len = left < page ? (size_t)left : page;
	bool base = w->o.holes_inherit && pgno < w->parent_pages;
	int rc = cis_writer_next_data(w, off, &start, &end);

	if (rc && rc != -ENXIO)
		return rc;
	if (!base && (rc || start >= off + len))
		return 0;
	if (base && (rc || start > off || end < off + len)) {
		rc = overlay(w, pgno, off, len, buf);
	} else {
		rc = read_source(w, off, buf, len);
		memset(buf + len, 0, page - len);
	}
	return rc ? rc : 1;
}

static int no_hot_memory(struct cis_writer *w)
{
	return cis_fail(w->err, ENOMEM, "%s: no memory for the hot order", w->out.path);
}

static int add_hot(struct cis_writer *w, uint64_t pgno)
{
	uint64_t word;

	if (pgno >= w->h.nr_pages || cis_bit_test(w->hot, pgno))
		return 0;
	int rc = compose(w, pgno, w->page);

	if (rc < 0)
		return rc;
	if (!rc || cis_same_word(w->page, (size_t)1 << w->h.page_shift, &word)) {
		cis_bit_set(w->touched, pgno); /* the pass in address order finds its class */
		return 0;
	}
	uint32_t *place = cis_array_add(&w->hot_order);

	if (!place)
		return no_hot_memory(w);
	*place = (uint32_t)pgno;
	cis_bit_set(w->hot, pgno);
	return cis_pipeline_append(w->pipeline, w->page, (size_t)1 << w->h.page_shift);
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* The pages to make hot, in the order of the section. */
static int hot_list(struct cis_writer *w, uint32_t **ret, uint64_t *ret_nr)
{
	const struct cis_image_info *parent = w->o.parent ? cis_image_info(w->o.parent) : NULL;
	uint64_t nr = w->o.hot ? w->o.nr_hot : parent ? parent->nr_hot : 0;
	uint64_t window = w->o.hot_window;
	uint32_t *list = malloc((nr + 1) * sizeof(*list));

	if (!list)
		return no_hot_memory(w);
	for (uint64_t i = 0; i < nr; i++)
		list[i] = w->o.hot ? w->o.hot[i] : (uint32_t)cis_image_hot_page(w->o.parent, i);
	for (uint64_t i = 0; window && i < nr; i += window)
		qsort(list + i, nr - i < window ? nr - i : window, sizeof(*list), by_number);
	*ret = list;
	*ret_nr = nr;
	return 0;
}

int cis_writer_hot(struct cis_writer *w)
{
	uint64_t nr = 0, page = (uint64_t)1 << w->h.page_shift;
	bool from_parent = !w->o.hot && w->o.parent;
	_cleanup_free_ uint32_t *list = NULL;
	int rc = hot_list(w, &list, &nr);

	w->hot_bytes = nr * page;
	w->total_bytes = w->h.guest_bytes + w->hot_bytes;
	for (uint64_t i = 0; i < nr && !rc; i++) {
		rc = add_hot(w, list[i]);
		if (i % 256 == 255)
			cis_writer_progress(w, i * page);
	}
	for (uint64_t i = 0; from_parent && !rc && i < cis_image_info(w->o.parent)->nr_touched; i++)
		rc = add_hot(w, cis_image_touched(w->o.parent, i));
	return rc;
}

/* Return: 1 when the parent has the same bytes, 0 when not, or -errno. */
static int equals_parent(struct cis_writer *w, uint64_t pgno, const uint8_t *bytes)
{
	struct cis_page_loc loc;

	if (!w->o.compare || pgno >= w->parent_pages)
		return 0;
	cis_image_locate(w->o.parent, pgno, &loc);
	if (loc.cls == CIS_CLASS_ZERO || loc.cls == CIS_CLASS_SAME)
		return 0; /* these bytes are neither */
	int rc = cis_image_read_page(w->parent, pgno, w->other, w->err);

	return rc ? rc : !memcmp(w->other, bytes, (size_t)1 << w->h.page_shift);
}

/* Zero pages are explicit in a child too: that they are the parent's need not be known then. */
static int classify(struct cis_writer *w, uint64_t pgno, const uint8_t *bytes)
{
	size_t page = (size_t)1 << w->h.page_shift;
	uint64_t word;

	if (cis_same_word(bytes, page, &word)) {
		uint64_t *place = word ? cis_array_add(&w->same) : NULL;

		if (!word)
			return 0;
		if (!place)
			return cis_fail(w->err, ENOMEM, "%s: no memory for same pages", w->out.path);
		*place = word;
		cis_bit_set(w->same_map, pgno);
		return 0;
	}
	int rc = equals_parent(w, pgno, bytes);

	if (rc < 0)
		return rc;
	cis_bit_set(rc ? w->inherit : w->cold, pgno);
	return rc ? 0 : cis_pipeline_append(w->pipeline, bytes, page);
}

/* Pages [from, to) have no data: zeros, which need no bit, or the parent's. */
static void take_hole(struct cis_writer *w, uint64_t from, uint64_t to)
{
	if (w->o.holes_inherit)
		for (uint64_t i = from; i < to && i < w->parent_pages; i++)
			if (!cis_bit_test(w->hot, i))
				cis_bit_set(w->inherit, i);
}

static int take_one(struct cis_writer *w, uint64_t pgno)
{
	if (cis_bit_test(w->hot, pgno))
		return 0;
	int rc = compose(w, pgno, w->page);

	return rc <= 0 ? rc : classify(w, pgno, w->page);
}

/* Pages [from, to) are all data, the last one perhaps up to guest_bytes.  Hot ones are not read again. */
static int take_data(struct cis_writer *w, uint64_t from, uint64_t to)
{
	unsigned shift = w->h.page_shift;

	for (uint64_t at = from, n; at < to; at += n) {
		at = cis_bitmap_next_clear(w->hot, to, at);
		n = cis_bitmap_next(w->hot, to, at) - at;
		if (!n)
			break;
		if (n > w->piece_bytes >> shift)
			n = w->piece_bytes >> shift;
		uint64_t bytes = n << shift, left = w->h.guest_bytes - (at << shift);
		size_t len = left < bytes ? (size_t)left : (size_t)bytes;
		int rc = read_source(w, at << shift, w->piece, len);

		memset(w->piece + len, 0, bytes - len);
		for (uint64_t i = 0; i < n && !rc; i++)
			rc = classify(w, at + i, w->piece + (i << shift));
		if (rc)
			return rc;
		cis_writer_progress(w, w->hot_bytes + (at << shift));
	}
	return 0;
}

int cis_writer_cold(struct cis_writer *w)
{
	unsigned shift = w->h.page_shift;
	uint64_t start = 0, end = 0;

	for (uint64_t at = 0, next; at < w->h.nr_pages; at = next) {
		int rc = cis_writer_next_data(w, at << shift, &start, &end);

		if (rc && rc != -ENXIO)
			return rc;
		next = rc ? w->h.nr_pages : start >> shift;
		take_hole(w, at, next);
		if (next > at)
			continue;
		/* Whole pages in one go; one that is partly a hole by itself. */
		next = end == w->h.guest_bytes ? w->h.nr_pages : end >> shift;
		if (start > at << shift || next <= at) {
			next = at + 1;
			rc = take_one(w, at);
		} else {
			rc = take_data(w, at, next);
		}
		if (rc)
			return rc;
	}
	return 0;
}
