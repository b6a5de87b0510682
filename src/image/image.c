#include "image/image.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"
#include "image/file.h"
#include "image/open.h"

const char *cis_class_name(enum cis_class cls)
{
	static const char *const names[] = { "zero", "same", "hot", "cold", "inherit" };

	return (unsigned)cls < sizeof(names) / sizeof(names[0]) ? names[cls] : "unknown";
}

#define PIECE ((size_t)16 << 20) /* of a read by a medium, whose lengths have 32 bits */

int cis_image_pread(const struct cis_image *img, void *buf, size_t len, uint64_t off, struct cis_error *err)
{
	if (!img->medium)
		return cis_file_read(img->fd, img->path, buf, len, off, err);
	for (size_t done = 0, n; done < len; done += n) {
		n = len - done < PIECE ? len - done : PIECE;

		int rc = img->medium->read(img->handle, (char *)buf + done, (uint32_t)n, off + done);

		if (rc)
			return cis_fail(err, -rc, "%s: read of %zu bytes at %llu: %s", img->path, n,
					(unsigned long long)(off + done), strerror(-rc));
	}
	return 0;
}

static int open_file(struct cis_image *img, const char *path, const struct cis_image_medium *medium,
		     uint64_t *ret_bytes, struct cis_error *err)
{
	int rc = cis_file_open(path, &img->fd, ret_bytes, err);

	if (!rc && medium)
		rc = medium->open(medium, img->fd, &img->handle, err);
	if (!rc)
		img->medium = medium;
	return rc;
}

static int read_header(struct cis_image *img, uint64_t file_bytes, uint8_t buf[CIS_HEADER_BYTES],
		       struct cis_error *err)
{
	size_t len = file_bytes < CIS_HEADER_BYTES ? (size_t)file_bytes : CIS_HEADER_BYTES;
	int rc = cis_image_pread(img, buf, len, 0, err);

	return rc ? rc : cis_header_decode(img->path, buf, len, file_bytes, &img->h, err);
}

/* The id covers the metadata, so a file that passes is the one that its children and its lease name. */
static int check_id(const struct cis_image *img, const uint8_t *header, const void *buf,
		    struct cis_error *err)
{
	uint8_t id[CIS_IMAGE_ID_BYTES];

	if (cis_crc64(0, buf, img->h.meta.bytes) != img->h.meta.crc)
		return cis_fail(err, EBADMSG,
				"%s: bytes %llu .. %llu: the metadata is damaged: meta_crc (format 3)",
				img->path, (unsigned long long)img->h.meta.off,
				(unsigned long long)(img->h.meta.off + img->h.meta.bytes));
	if (cis_header_id(header, buf, img->h.meta.bytes, id))
		return cis_fail(err, ENOMEM, "%s: no memory for SHA-256", img->path);
	if (memcmp(id, img->h.image_id, sizeof(id)))
		return cis_fail(err, EBADMSG,
				"%s: header byte 32: image_id is not that of the content (format 3.2)",
				img->path);
	return 0;
}

/* Memory is taken only for what the file has: its length was compared with the header before. */
static int read_meta(struct cis_image *img, const uint8_t *header, struct cis_error *err)
{
	void *buf = malloc(img->h.meta.bytes ? img->h.meta.bytes : 1);

	if (!buf)
		return cis_fail(err, ENOMEM, "%s: no memory for %llu bytes of metadata", img->path,
				(unsigned long long)img->h.meta.bytes);
	int rc = cis_image_pread(img, buf, img->h.meta.bytes, img->h.meta.off, err);

	if (!rc)
		rc = check_id(img, header, buf, err);
	if (rc) {
		free(buf);
		return rc;
	}
	return cis_meta_parse(img->path, &img->h, buf, &img->meta, err);
}

/* Section 7: what only the pair can say. */
static int check_pair(const struct cis_image *img, struct cis_error *err)
{
	const struct cis_header *h = &img->h, *up = &img->parent->h;

	if (up->page_shift != h->page_shift)
		return cis_fail(err, EBADMSG, "%s: its page size is not that of its parent %s (format 7)",
				img->path, img->parent->path);
	if (up->guest_bytes > h->guest_bytes)
		return cis_fail(err, EBADMSG, "%s: smaller than its parent %s (format 7)", img->path,
				img->parent->path);
	if (cis_bitmap_next(img->meta.inherit, h->nr_pages, up->nr_pages) < h->nr_pages)
		return cis_fail(err, EBADMSG,
				"%s: inherits a page beyond the end of its parent %s (format 7)", img->path,
				img->parent->path);
	return 0;
}

static void set_info(struct cis_image *img)
{
	const struct cis_header *h = &img->h;
	struct cis_image_info *i = &img->info;

	*i = (struct cis_image_info){
		.path = img->path,
		.parent = img->parent,
		.depth = h->depth,
		.guest_bytes = h->guest_bytes,
		.page_shift = h->page_shift,
		.chunk_shift = h->chunk_shift,
		.nr_pages = h->nr_pages,
		.nr_zero = h->nr_pages - h->nr_hot - h->nr_cold - h->nr_same - h->nr_inherit,
		.nr_same = h->nr_same,
		.nr_hot = h->nr_hot,
		.nr_cold = h->nr_cold,
		.nr_inherit = h->nr_inherit,
		.nr_touched = img->meta.nr_touched,
		.nr_hot_chunks = img->meta.nr_hot_chunks,
		.nr_cold_chunks = img->meta.nr_chunks - img->meta.nr_hot_chunks,
		.hot_off = h->hot.off,
		.hot_bytes = h->hot.bytes,
		.cold_off = h->cold.off,
		.cold_bytes = h->cold.bytes,
		.state_off = h->state.off,
		.state_bytes = h->state.bytes,
		.file_bytes = cis_align(h->meta.off + h->meta.bytes, CIS_PART_ALIGN),
		.codec = h->codec,
		.ignorable = h->ignorable,
		.regions = img->meta.regions,
		.nr_regions = img->meta.nr_regions,
		.provenance = img->meta.provenance,
		.memory_bytes = sizeof(*img) + img->meta.memory_bytes,
	};
	memcpy(i->id, h->image_id, sizeof(i->id));
	memcpy(i->parent_id, h->parent_id, sizeof(i->parent_id));
}

static int read_all(struct cis_image *img, uint64_t file_bytes, const struct cis_image_dirs *dirs, int depth, struct cis_error *err)
{
	uint8_t header[CIS_HEADER_BYTES];
	int rc = read_header(img, file_bytes, header, err);

	if (!rc && depth >= 0 && img->h.depth != (uint32_t)depth)
		rc = cis_fail(err, ELOOP, "%s: depth %u, but its child says %d (format 7)", img->path,
			      img->h.depth, depth);
	if (!rc)
		rc = read_meta(img, header, err);
	if (!rc && img->h.depth)
		rc = cis_parent_open(img, dirs, &img->parent, err);
	if (!rc && img->parent)
		rc = check_pair(img, err);
	if (!rc)
		set_info(img);
	return rc;
}

/* Takes @fd, also on failure. */
static int create(const char *path, int fd, struct cis_image **ret, struct cis_error *err)
{
	struct cis_image *img = calloc(1, sizeof(*img));

	if (img)
		img->path = strdup(path);
	if (!img || !img->path) {
		free(img);
		if (fd >= 0)
			close(fd);
		return cis_fail(err, ENOMEM, "%s: no memory", path);
	}
	atomic_init(&img->refs, 1);
	img->fd = fd;
	*ret = img;
	return 0;
}

int cis_image_open_depth(const char *path, const struct cis_image_dirs *dirs, int depth,
			 struct cis_image **ret, struct cis_error *err)
{
	struct cis_image *img = NULL;
	uint64_t file_bytes;
	int rc = create(path, -1, &img, err);

	if (rc)
		return rc;
	rc = open_file(img, path, dirs ? dirs->medium : NULL, &file_bytes, err);
	if (!rc)
		rc = read_all(img, file_bytes, dirs, depth, err);
	if (rc)
		cis_image_unref(img);
	else
		*ret = img;
	return rc;
}

int cis_image_open_fd(int fd, const char *name, struct cis_image **ret, struct cis_error *err)
{
	struct cis_image *img = NULL;
	struct stat st;
	int rc = create(name, fd, &img, err);

	if (rc)
		return rc;
	rc = fstat(fd, &st) ? cis_fail(err, errno, "%s: %s", name, strerror(errno)) : 0;
	if (!rc)
		rc = read_all(img, (uint64_t)st.st_size, NULL, 0, err);
	if (rc)
		cis_image_unref(img);
	else
		*ret = img;
	return rc;
}

int cis_image_open(const char *path, const struct cis_image_dirs *dirs, struct cis_image **ret,
		   struct cis_error *err)
{
	return cis_image_open_depth(path, dirs, -1, ret, err);
}

struct cis_image *cis_image_ref(struct cis_image *img)
{
	atomic_fetch_add_explicit(&img->refs, 1, memory_order_relaxed);
	return img;
}

void cis_image_unref(struct cis_image *img)
{
	if (!img || atomic_fetch_sub_explicit(&img->refs, 1, memory_order_acq_rel) != 1)
		return;
	cis_image_unref(img->parent);
	cis_meta_fini(&img->meta);
	if (img->medium)
		img->medium->close(img->handle);
	if (img->fd >= 0)
		close(img->fd);
	free(img->path);
	free(img);
}

const struct cis_image_info *cis_image_info(const struct cis_image *img)
{
	return &img->info;
}

int cis_image_fd(const struct cis_image *img)
{
	return img->fd;
}

struct cis_codec_params *cis_image_params(const struct cis_image *img)
{
	return img->meta.params;
}

enum cis_class cis_image_class(const struct cis_image *img, uint64_t pgno)
{
	const struct cis_meta *m = &img->meta;

	assert(pgno < img->h.nr_pages);
	if (cis_bit_test(m->hot, pgno))
		return CIS_CLASS_HOT;
	if (cis_bit_test(m->cold, pgno))
		return CIS_CLASS_COLD;
	if (cis_bit_test(m->inherit, pgno))
		return CIS_CLASS_INHERIT;
	return cis_bit_test(m->same, pgno) ? CIS_CLASS_SAME : CIS_CLASS_ZERO;
}

void cis_image_locate(const struct cis_image *img, uint64_t pgno, struct cis_page_loc *ret)
{
	enum cis_class cls = cis_image_class(img, pgno);

	for (; cls == CIS_CLASS_INHERIT; cls = cis_image_class(img, pgno))
		img = img->parent;
	const struct cis_meta *m = &img->meta;
	uint64_t place = 0, first = 0;

	*ret = (struct cis_page_loc){ .img = img, .cls = cls };
	if (cls == CIS_CLASS_SAME)
		ret->word = m->same_words[cis_rank_before(&m->same_rank, pgno)];
	if (cls == CIS_CLASS_HOT) {
		place = m->hot_place[cis_rank_before(&m->hot_rank, pgno)];
	} else if (cls == CIS_CLASS_COLD) {
		place = cis_rank_before(&m->cold_rank, pgno);
		first = m->nr_hot_chunks;
	} else {
		return;
	}
	uint64_t at = place << img->h.page_shift;

	ret->chunk = first + (at >> img->h.chunk_shift);
	ret->at = (uint32_t)(at & (((uint64_t)1 << img->h.chunk_shift) - 1));
}

void cis_image_chunk(const struct cis_image *img, uint64_t chunk, struct cis_chunk_loc *ret)
{
	const struct cis_header *h = &img->h;
	const struct cis_chunk_entry *c = &img->meta.chunks[chunk];
	bool hot = chunk < img->meta.nr_hot_chunks;
	uint64_t i = hot ? chunk : chunk - img->meta.nr_hot_chunks;
	uint64_t last = hot ? img->meta.nr_hot_chunks - 1 : img->meta.nr_chunks - 1;
	uint64_t raw = (hot ? h->nr_hot : h->nr_cold) << h->page_shift, off = c->word & CIS_CHUNK_OFFSET_MASK;
	uint64_t end = chunk < last ? c[1].word & CIS_CHUNK_OFFSET_MASK : hot ? h->hot.bytes : h->cold.bytes;

	assert(chunk < img->meta.nr_chunks);
	*ret = (struct cis_chunk_loc){
		.off = (hot ? h->hot.off : h->cold.off) + off,
		.checksum = c->checksum,
		.stored_bytes = (uint32_t)(end - off),
		.raw_bytes = (uint32_t)(chunk < last ? (uint64_t)1 << h->chunk_shift
						     : raw - (i << h->chunk_shift)),
		.codec = (unsigned)(c->word >> CIS_CHUNK_CODEC_SHIFT),
	};
}

size_t cis_image_chunk_pages(const struct cis_image *img, uint64_t chunk, size_t max, uint64_t *ret_pgno)
{
	const struct cis_meta *m = &img->meta;
	bool hot = chunk < m->nr_hot_chunks;
	uint64_t i = hot ? chunk : chunk - m->nr_hot_chunks, page = (uint64_t)1 << img->h.page_shift;
	uint64_t first = cis_align(i << img->h.chunk_shift, page) >> img->h.page_shift;
	uint64_t end = cis_align((i + 1) << img->h.chunk_shift, page) >> img->h.page_shift;
	uint64_t nr = hot ? img->h.nr_hot : img->h.nr_cold;

	assert(chunk < m->nr_chunks);
	if (end > nr)
		end = nr;
	if (first >= end)
		return 0;
	size_t n = end - first < max ? (size_t)(end - first) : max;

	for (size_t k = 0; k < n; k++) {
		if (hot)
			ret_pgno[k] = m->hot_order[first + k];
		else if (!k)
			ret_pgno[k] = cis_rank_select(&m->cold_rank, first);
		else
			ret_pgno[k] = cis_bitmap_next(m->cold, img->h.nr_pages, ret_pgno[k - 1] + 1);
	}
	return n;
}

uint64_t cis_image_touched(const struct cis_image *img, uint64_t i)
{
	assert(i < img->meta.nr_touched);
	return img->meta.touched[i];
}

uint64_t cis_image_hot_page(const struct cis_image *img, uint64_t i)
{
	assert(i < img->h.nr_hot);
	return img->meta.hot_order[i];
}
