/* The metadata of an image in memory: doc/format.md section 6.  Internal to this layer. */
#ifndef CIS_IMAGE_META_H
#define CIS_IMAGE_META_H

#include "base/bitmap.h"
#include "image/format.h"

/** struct cis_chunk_entry - section 6.4, as stored */
struct cis_chunk_entry {
	uint64_t checksum;
	uint64_t word; /* offset within the section, codec in the top byte */
};

/**
 * struct cis_meta - checked metadata; immutable
 * @buf:       the stored metadata, which most other pointers point into
 * @hot_place: place in the hot order of the n-th hot page by page number
 * @names:     names of regions and provenance, each with its NUL
 */
struct cis_meta {
	void *buf;
	const uint64_t *hot, *cold, *same, *inherit;
	struct cis_rank hot_rank, cold_rank, same_rank;
	const uint32_t *hot_order;
	uint32_t *hot_place;
	const uint64_t *same_words;
	const uint32_t *touched;
	uint64_t nr_touched;
	const struct cis_chunk_entry *chunks;
	uint64_t nr_hot_chunks, nr_chunks;
	struct cis_region_entry *regions;
	size_t nr_regions;
	char *provenance;
	struct cis_codec_params *params;
	size_t memory_bytes;
};

/**
 * cis_meta_parse() - check every record
 * @path: for the text of errors
 * @buf:  malloc'ed, h->meta.bytes long, its checksum already compared; taken over, also on failure
 *
 * Return: 0, -EBADMSG, -EPROTONOSUPPORT, -ENOMEM.
 */
int cis_meta_parse(const char *path, const struct cis_header *h, void *buf, struct cis_meta *ret,
		   struct cis_error *err);
void cis_meta_fini(struct cis_meta *meta);

/**
 * cis_text_ok() - UTF-8 (no overlong forms, no surrogates) without control characters but those in @allowed?
 */
bool cis_text_ok(const char *text, size_t len, const char *allowed);

/** cis_text_sequence() - length of the UTF-8 sequence that @text begins with, 0: it is none; @left > 0. */
size_t cis_text_sequence(const char *text, size_t left);

#endif
