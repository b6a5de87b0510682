/*
 * Making images.  Streams: memory use does not depend on the guest's size, but for half a byte a page of
 * metadata.
 */
#ifndef CIS_IMAGE_WRITE_H
#define CIS_IMAGE_WRITE_H

#include "image/image.h"
#include "image/source.h"

/*
 * Each run of contiguous pages is one call to the kernel when it is installed, and real working sets sorted within
 * windows of 16 MiB have half as many runs or fewer.  What is touched early still comes early.
 */
#define CIS_HOT_WINDOW 4096u

/**
 * struct cis_write_opts - how to make an image; zeros are defaults
 * @size:        sizeof(struct cis_write_opts)
 * @page_shift:  12 (0 = 12) or 21
 * @chunk_shift: 12..21 (0 = 16)
 * @codec:       what to try on every chunk; ZSTD_DICT and DEFLATE_CANNED need a
 *               training pass over samples, which is made
 * @level:       0 = the codec's default
 * @hot:         page numbers in the order of first touch, or NULL; in units of
 *               @page_shift, duplicates and pages past the end are skipped, zero and
 *               same pages stay what they are
 * @nr_hot:      entries in @hot
 * @hot_window:  sort the hot order by page number within runs of so many pages of it
 *               (CIS_HOT_WINDOW is a good number); 0 = leave it as it is
 * @parent:      the image that this one is a child of, or NULL
 * @holes_inherit: a hole in the source is the parent's page (a diff snapshot),
 *               else it is zeros (a full one)
 * @compare:     pages that equal the parent's are inherited (reads the parent)
 * @state, @state_bytes: the VMM's state blob, or NULL
 * @producer:    who wrote the memory, or NULL
 * @workers:     encoding threads, 0 = 1
 * @progress:    called from the calling thread now and then; may be NULL
 * @max_bytes:   a longer image is given up with -EDQUOT as soon as it is known
 *               to be; 0 = any length
 */
struct cis_write_opts {
	size_t size;
	unsigned page_shift, chunk_shift;
	enum cis_codec codec;
	int level;
	const uint32_t *hot;
	uint64_t nr_hot, hot_window;
	struct cis_image *parent;
	int holes_inherit;
	int compare;
	const void *state;
	size_t state_bytes;
	const char *producer;
	unsigned workers;
	void (*progress)(uint64_t done_bytes, uint64_t total_bytes, void *ctx);
	void *progress_ctx;
	uint64_t max_bytes;
};

/**
 * cis_image_write() - make an image of a source and publish it
 * @path: replaced atomically; on failure the old file, if any, is untouched and
 *        nothing is left behind
 *
 * A child's hot section also gets the hot pages of @hot that it inherits, and
 * without @hot those that are hot in the parent.
 *
 * Return: 0; -ENOSPC, -EIO ... of the file; -EDQUOT (max_bytes); -EINVAL (options), -EFBIG (format
 * 3), -ERANGE (parent and source do not fit).
 */
int cis_image_write(const char *path, struct cis_image_source *src, const struct cis_write_opts *opts,
		    struct cis_error *err);

/**
 * cis_image_export() - back to a raw sparse memory file of guest_bytes
 *
 * Byte for byte what was imported.  Written beside, synced and renamed.
 */
int cis_image_export(struct cis_image *img, const char *path, void (*progress)(uint64_t, uint64_t, void *),
		     void *ctx, struct cis_error *err);

/**
 * cis_image_verify() - read and check every byte of an image: sections, chunks, fill bytes, state
 *
 * Header and metadata were checked when it was opened.  The parents are opened
 * but not verified.  Return: 0 or -EBADMSG, -EIO, with
 * the first place that is wrong.
 */
int cis_image_verify(struct cis_image *img, void (*progress)(uint64_t, uint64_t, void *), void *ctx,
		     struct cis_error *err);

#endif
