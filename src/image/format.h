/* The fixed part of the format: doc/format.md sections 2, 3 and 6.  Internal to this layer. */
#ifndef CIS_IMAGE_FORMAT_H
#define CIS_IMAGE_FORMAT_H

#include <stdint.h>

#include "base/error.h"
#include "image/image.h"

#define CIS_HEADER_BYTES     4096
#define CIS_PART_ALIGN	     4096
#define CIS_GUEST_BYTES_MAX  ((uint64_t)1 << 44)
#define CIS_STATE_BYTES_MAX  ((uint64_t)1 << 30)
#define CIS_META_BYTES_MAX   ((uint64_t)1 << 32)
#define CIS_PARAMS_BYTES_MAX ((uint64_t)1 << 20)
#define CIS_PROVENANCE_MAX   ((uint64_t)64 << 10)
#define CIS_REGION_NAME_MAX  255

#define CIS_MUST_KNOW_PARENT   ((uint64_t)1 << 0)
#define CIS_MUST_KNOW_DICT     ((uint64_t)1 << 1)
#define CIS_MUST_KNOW_ALL      (CIS_MUST_KNOW_PARENT | CIS_MUST_KNOW_DICT)
#define CIS_IGNORABLE_REGIONS  ((uint64_t)1 << 0)
#define CIS_IGNORABLE_TRACED   ((uint64_t)1 << 1)
#define CIS_RECORD_MUST_KNOW   1
#define CIS_CHUNK_OFFSET_MASK  (((uint64_t)1 << 56) - 1)
#define CIS_CHUNK_CODEC_SHIFT  56

enum cis_tag {
	CIS_TAG_CLASSES = 1,
	CIS_TAG_HOT_ORDER,
	CIS_TAG_SAME_WORDS,
	CIS_TAG_CHUNKS,
	CIS_TAG_REGIONS,
	CIS_TAG_PARAMS,
	CIS_TAG_PROVENANCE,
	CIS_TAG_TOUCHED,
	CIS_TAG_COUNT
};

/** struct cis_part - one of the four parts of section 2, offsets from the start of the file */
struct cis_part {
	uint64_t off;
	uint64_t bytes;
	uint64_t crc;
};

/** struct cis_header - section 3 */
struct cis_header {
	uint64_t must_know, ignorable;
	uint8_t image_id[CIS_IMAGE_ID_BYTES];
	uint64_t guest_bytes;
	uint32_t page_shift, chunk_shift;
	uint64_t nr_pages, nr_hot, nr_cold, nr_same, nr_inherit;
	struct cis_part hot, cold, state, meta;
	uint8_t parent_id[CIS_IMAGE_ID_BYTES];
	uint32_t depth;
	uint32_t codec;
	uint32_t minor;
};

static inline uint64_t cis_align(uint64_t bytes, uint64_t to)
{
	return (bytes + to - 1) / to * to;
}

/** cis_header_parts() - give the four parts their offsets (section 2).  Return: the length of the file. */
uint64_t cis_header_parts(struct cis_header *h);

/** cis_header_chunks() - chunks that @nr_pages pages of a section make. */
uint64_t cis_header_chunks(const struct cis_header *h, uint64_t nr_pages);

/**
 * cis_header_decode() - check what a file says
 * @path:       for the text of errors
 * @buf:        the first @len bytes of the file, at most CIS_HEADER_BYTES
 * @file_bytes: length of the file
 *
 * Return: 0, -EMEDIUMTYPE, -EBADMSG, -EPROTONOSUPPORT.  The id is not compared
 * yet: that takes the metadata.
 */
int cis_header_decode(const char *path, const uint8_t *buf, size_t len, uint64_t file_bytes,
		      struct cis_header *ret, struct cis_error *err);

/**
 * cis_header_encode() - the stored form, with the id of header and metadata
 * @meta: h->meta.bytes long
 *
 * Sets h->image_id.  Return: 0 or -ENOMEM.
 */
int cis_header_encode(struct cis_header *h, const void *meta, uint8_t buf[CIS_HEADER_BYTES]);

/** cis_header_id() - section 3.2; the id that @buf has already does not count.  Return: 0 or -ENOMEM. */
int cis_header_id(const uint8_t buf[CIS_HEADER_BYTES], const void *meta, uint64_t meta_bytes,
		  uint8_t ret_id[CIS_IMAGE_ID_BYTES]);

/** cis_header_is_image() - do these first @len bytes have our magic and this id?  For looking parents up. */
int cis_header_is_image(const uint8_t *buf, size_t len, const uint8_t id[CIS_IMAGE_ID_BYTES]);

#endif
