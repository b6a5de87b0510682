/* An image in the making.  Internal to this layer. */
#ifndef CIS_IMAGE_WRITER_H
#define CIS_IMAGE_WRITER_H

#include "image/file.h"
#include "image/format.h"
#include "image/meta.h"
#include "image/pipeline.h"
#include "image/write.h"

/** struct cis_array - grows by doubling; @items of @size bytes each */
struct cis_array {
	void *items;
	uint64_t nr, room;
	size_t size;
};

/**
 * struct cis_extent - the last answer of the source's next_data
 *
 * [from, start) is a hole, [start, end) is data; start is UINT64_MAX when only
 * a hole follows.
 */
struct cis_extent {
	uint64_t from, start, end;
};

/**
 * struct cis_writer - one call of cis_image_write(); one thread, but for the pipeline's workers
 * @classes:   the four bitmaps of section 6.1, one after the other, 8-byte words
 * @touched:   bitmap of section 6.8
 * @hot_order: uint32_t each
 * @same:      uint64_t each
 * @chunks:    struct cis_chunk_entry each
 * @part:      the section that is being written
 * @pending:   stored chunks on their way to the file, all of @part
 * @piece:     what is read at a time; @page is for a page put together, @other for the parent's
 */
struct cis_writer {
	struct cis_write_opts o;
	struct cis_image_source *src;
	struct cis_error *err;
	struct cis_newfile out;
	struct cis_header h;
	uint64_t parent_pages; /* 0 without a parent */
	struct cis_image_reader *parent;
	struct cis_codec_params *params;
	struct cis_pipeline *pipeline;
	uint64_t *classes, *hot, *cold, *same_map, *inherit;
	uint64_t *touched;
	struct cis_array hot_order, same, chunks;
	struct cis_part *part;
	uint8_t *pending;
	size_t nr_pending;
	struct cis_extent extent;
	uint8_t *piece, *page, *other;
	size_t piece_bytes;
	uint64_t hot_bytes, total_bytes; /* for progress: of the trace, and with the guest's */
};

/** cis_array_add() - room for one more, uninitialised.  Return: the item or NULL without memory. */
void *cis_array_add(struct cis_array *array);

/** cis_writer_next_data() - as the source's, and remembers.  Return: 0, -ENXIO or the source's. */
int cis_writer_next_data(struct cis_writer *w, uint64_t from, uint64_t *ret_start, uint64_t *ret_end);

/** cis_writer_train() - learn w->params, when needed.  Too little to learn from: the plain codec it is. */
int cis_writer_train(struct cis_writer *w, enum cis_codec *ret_codec);

/** cis_writer_hot() - put the hot section's pages into the pipeline, in the given order. */
int cis_writer_hot(struct cis_writer *w);

/** cis_writer_cold() - classify all other pages in address order; the cold ones go into the pipeline. */
int cis_writer_cold(struct cis_writer *w);

/**
 * cis_writer_metadata() - section 6, whole
 *
 * Sets the counts, feature bits and meta.bytes and meta.crc of w->h.
 * Return: 0, -ENOMEM, -EFBIG, -EINVAL (a region's or producer's text).
 */
int cis_writer_metadata(struct cis_writer *w, void **ret);

/** cis_writer_progress() - @done bytes of w->total_bytes are behind us. */
void cis_writer_progress(struct cis_writer *w, uint64_t done);

#endif
