#include "image/write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/open.h"
#include "image/writer.h"

#define PENDING_BYTES ((size_t)1 << 20)
#define PIECE_BYTES   ((size_t)1 << 20) /* fits the second-level cache: memory is read once */
#define WORKERS_MAX   256

void *cis_array_add(struct cis_array *array)
{
	if (array->nr == array->room) {
		uint64_t room = array->room ? 2 * array->room : 1024;
		void *items = realloc(array->items, room * array->size);

		if (!items)
			return NULL;
		array->items = items;
		array->room = room;
	}
	return (uint8_t *)array->items + array->nr++ * array->size;
}

void cis_writer_progress(struct cis_writer *w, uint64_t done)
{
	if (done > w->total_bytes)
		done = w->total_bytes;
	if (w->o.progress)
		w->o.progress(done, w->total_bytes, w->o.progress_ctx);
}

static int no_memory(struct cis_writer *w)
{
	return cis_fail(w->err, ENOMEM, "%s: no memory", w->out.path);
}

static int flush_pending(struct cis_writer *w)
{
	int rc = cis_newfile_write(&w->out, w->pending, w->nr_pending,
				   w->part->off + w->part->bytes - w->nr_pending, w->err);

	w->nr_pending = 0;
	return rc;
}

static int check_length(struct cis_writer *w, uint64_t file_bytes)
{
	if (!w->o.max_bytes || file_bytes <= w->o.max_bytes)
		return 0;
	return cis_fail(w->err, EDQUOT, "%s: longer than the %llu bytes that it may have", w->out.path,
			(unsigned long long)w->o.max_bytes);
}

static int take_chunk(void *ctx, const struct cis_stored_chunk *chunk)
{
	struct cis_writer *w = ctx;
	struct cis_chunk_entry *entry = cis_array_add(&w->chunks);

	if (!entry)
		return no_memory(w);
	entry->checksum = chunk->checksum;
	entry->word = w->part->bytes | (uint64_t)chunk->codec << CIS_CHUNK_CODEC_SHIFT;
	w->part->crc = cis_crc64(w->part->crc, chunk->bytes, chunk->len);
	if (w->nr_pending + chunk->len > PENDING_BYTES) {
		int rc = flush_pending(w);

		if (rc)
			return rc;
	}
	if (chunk->len >= PENDING_BYTES / 2) { /* a copy would cost more than a call */
		int rc = flush_pending(w);

		if (!rc)
			rc = cis_newfile_write(&w->out, chunk->bytes, chunk->len,
					       w->part->off + w->part->bytes, w->err);
		w->part->bytes += chunk->len;
		return rc ? rc : check_length(w, w->part->off + w->part->bytes);
	}
	memcpy(w->pending + w->nr_pending, chunk->bytes, chunk->len);
	w->nr_pending += chunk->len;
	w->part->bytes += chunk->len;
	return check_length(w, w->part->off + w->part->bytes);
}

static int write_section(struct cis_writer *w, struct cis_part *part, int (*fill)(struct cis_writer *))
{
	cis_header_parts(&w->h);
	w->part = part;
	int rc = fill(w);

	if (!rc)
		rc = cis_pipeline_flush(w->pipeline);
	return rc ? rc : flush_pending(w);
}

static int write_rest(struct cis_writer *w)
{
	uint8_t header[CIS_HEADER_BYTES];
	void *meta;
	int rc;

	w->h.state.bytes = w->o.state_bytes;
	w->h.state.crc = cis_crc64(0, w->o.state, w->o.state_bytes);
	rc = cis_writer_metadata(w, &meta);
	if (rc)
		return rc;
	uint64_t file_bytes = cis_header_parts(&w->h);

	rc = check_length(w, file_bytes);
	if (!rc)
		rc = cis_newfile_write(&w->out, w->o.state, w->o.state_bytes, w->h.state.off, w->err);
	if (!rc)
		rc = cis_newfile_write(&w->out, meta, w->h.meta.bytes, w->h.meta.off, w->err);
	if (!rc && cis_header_encode(&w->h, meta, header))
		rc = no_memory(w);
	if (!rc)
		rc = cis_newfile_write(&w->out, header, sizeof(header), 0, w->err);
	if (!rc && ftruncate(w->out.fd, (off_t)file_bytes))
		rc = cis_fail(w->err, errno, "%s: to %llu bytes: %s", w->out.path,
			      (unsigned long long)file_bytes, strerror(errno));
	free(meta);
	return rc;
}

static int write_all(struct cis_writer *w)
{
	enum cis_codec codec;
	int rc = cis_writer_train(w, &codec);

	if (rc)
		return rc;
	struct cis_pipeline_opts opts = {
		.codec = codec,
		.level = w->o.level,
		.chunk_bytes = (size_t)1 << w->h.chunk_shift,
		.params = w->params,
		.workers = w->o.workers,
		.sink = take_chunk,
		.ctx = w,
	};

	rc = cis_pipeline_create(&opts, &w->pipeline, w->err);
	if (!rc)
		rc = write_section(w, &w->h.hot, cis_writer_hot);
	if (!rc)
		rc = write_section(w, &w->h.cold, cis_writer_cold);
	if (!rc)
		rc = write_rest(w);
	if (!rc)
		rc = cis_newfile_publish(&w->out, w->err);
	if (!rc)
		cis_writer_progress(w, w->total_bytes);
	return rc;
}

static int check_options(const struct cis_write_opts *o, uint64_t guest_bytes, struct cis_error *err)
{
	if (o->page_shift != 12 && o->page_shift != 21)
		return cis_fail(err, EINVAL, "page_shift %u: neither 12 nor 21", o->page_shift);
	if (o->chunk_shift < 12 || o->chunk_shift > 21)
		return cis_fail(err, EINVAL, "chunk_shift %u: not 12 .. 21", o->chunk_shift);
	if (o->codec >= CIS_CODEC_COUNT || o->codec == CIS_CODEC_SAME)
		return cis_fail(err, EINVAL, "codec %u: none that an image can be asked for", o->codec);
	if (o->workers > WORKERS_MAX)
		return cis_fail(err, EINVAL, "%u workers: more than %d", o->workers, WORKERS_MAX);
	if (!o->parent && (o->holes_inherit || o->compare))
		return cis_fail(err, EINVAL, "inherit or compare, but there is no parent");
	if (o->state_bytes > CIS_STATE_BYTES_MAX)
		return cis_fail(err, EFBIG, "a state of %zu bytes: more than 2^30 (format 3)",
				o->state_bytes);
	if (!guest_bytes || guest_bytes > CIS_GUEST_BYTES_MAX)
		return cis_fail(err, EFBIG, "a guest of %llu bytes: not 1 .. 2^44 (format 3)",
				(unsigned long long)guest_bytes);
	return 0;
}

static int check_parent(const struct cis_write_opts *o, uint64_t guest_bytes, const char *path,
			struct cis_error *err)
{
	struct stat parent, target;

	if (!o->parent)
		return 0;
	const struct cis_image_info *info = cis_image_info(o->parent);

	if (info->page_shift != o->page_shift)
		return cis_fail(err, ERANGE, "%s: pages of 2^%u bytes, but 2^%u asked for (format 7)",
				info->path, info->page_shift, o->page_shift);
	if (info->guest_bytes > guest_bytes)
		return cis_fail(err, ERANGE, "%s: the parent has %llu bytes, the source only %llu (format 7)",
				info->path, (unsigned long long)info->guest_bytes,
				(unsigned long long)guest_bytes);
	if (info->depth >= CIS_IMAGE_DEPTH_MAX)
		return cis_fail(err, ELOOP, "%s: has %u parents already: flatten it first (format 7)",
				info->path, info->depth);
	for (struct cis_image *up = o->parent; up; up = cis_image_info(up)->parent)
		if (!fstat(cis_image_fd(up), &parent) && !stat(path, &target) &&
		    parent.st_dev == target.st_dev && parent.st_ino == target.st_ino)
			return cis_fail(err, EINVAL, "%s: is a parent of what would replace it", path);
	return 0;
}

static void set_header(struct cis_writer *w)
{
	const struct cis_write_opts *o = &w->o;
	struct cis_header *h = &w->h;

	h->guest_bytes = w->src->guest_bytes;
	h->page_shift = o->page_shift;
	h->chunk_shift = o->chunk_shift;
	h->nr_pages = ((h->guest_bytes - 1) >> h->page_shift) + 1;
	h->codec = o->codec;
	if (o->hot)
		h->ignorable |= CIS_IGNORABLE_TRACED;
	if (!o->parent)
		return;
	const struct cis_image_info *info = cis_image_info(o->parent);

	h->must_know |= CIS_MUST_KNOW_PARENT;
	memcpy(h->parent_id, info->id, sizeof(h->parent_id));
	h->depth = info->depth + 1;
	if (!o->hot)
		h->ignorable |= info->ignorable & CIS_IGNORABLE_TRACED;
	w->parent_pages = info->nr_pages;
}

static int take_memory(struct cis_writer *w)
{
	size_t page = (size_t)1 << w->h.page_shift;
	uint64_t words = cis_bitmap_words(w->h.nr_pages);

	w->piece_bytes = page > PIECE_BYTES ? page : PIECE_BYTES;
	w->piece = aligned_alloc(4096, w->piece_bytes);
	w->page = aligned_alloc(4096, page);
	w->other = aligned_alloc(4096, page);
	w->pending = aligned_alloc(4096, PENDING_BYTES);
	w->classes = calloc(4 * words, 8);
	w->touched = calloc(words, 8);
	if (!w->piece || !w->page || !w->other || !w->pending || !w->classes || !w->touched)
		return no_memory(w);
	w->hot = w->classes;
	w->cold = w->classes + words;
	w->same_map = w->classes + 2 * words;
	w->inherit = w->classes + 3 * words;
	w->hot_order.size = sizeof(uint32_t);
	w->same.size = sizeof(uint64_t);
	w->chunks.size = sizeof(struct cis_chunk_entry);
	return w->o.parent && cis_image_reader_create(w->o.parent, &w->parent) ? no_memory(w) : 0;
}

static void writer_fini(struct cis_writer *w)
{
	cis_pipeline_destroy(w->pipeline);
	cis_image_reader_destroy(w->parent);
	cis_codec_params_unref(w->params);
	free(w->hot_order.items);
	free(w->same.items);
	free(w->chunks.items);
	free(w->touched);
	free(w->classes);
	free(w->pending);
	free(w->other);
	free(w->page);
	free(w->piece);
	cis_newfile_close(&w->out);
}

int cis_image_write(const char *path, struct cis_image_source *src, const struct cis_write_opts *opts,
		    struct cis_error *err)
{
	struct cis_writer w = { .src = src, .err = err, .out = { .fd = -1, .dir = -1 } };

	if (opts->size > sizeof(w.o))
		return cis_fail(err, EINVAL, "options of %zu bytes are of a newer caller", opts->size);
	memcpy(&w.o, opts, opts->size);
	w.o.page_shift = w.o.page_shift ? w.o.page_shift : 12;
	w.o.chunk_shift = w.o.chunk_shift ? w.o.chunk_shift : 16;
	w.o.workers = w.o.workers ? w.o.workers : 1;
	int rc = check_options(&w.o, src->guest_bytes, err);

	if (!rc)
		rc = check_parent(&w.o, src->guest_bytes, path, err);
	if (rc)
		return rc;
	set_header(&w);
	rc = cis_newfile_create(path, &w.out, err);
	if (!rc)
		rc = take_memory(&w);
	if (!rc)
		rc = write_all(&w);
	writer_fini(&w);
	return rc;
}
