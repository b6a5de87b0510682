/* Inside the codec mask: its implementations, and what they share. */
#ifndef CIS_CODEC_MASK_IMPL_H
#define CIS_CODEC_MASK_IMPL_H

#include "codec/mask.h"

#define MASK_LINE 64u

extern const struct cis_mask_impl cis_mask_c;
#ifdef __x86_64__
extern const struct cis_mask_impl cis_mask_avx2;
extern const struct cis_mask_impl cis_mask_avx512;
#endif

/*
 * struct mask_view - the parts of a stored chunk (format 5.1)
 * @kinds: one bit a line
 * @masks: one word a line, at any alignment
 * @bytes: the bytes that are not zero, @nr_bytes of them
 */
struct mask_view {
	const uint8_t *kinds;
	const uint8_t *masks;
	const uint8_t *bytes;
	size_t nr_bytes;
};

/* Bytes that kinds and masks of @raw_len bytes take. */
static inline size_t mask_head(size_t raw_len)
{
	size_t lines = raw_len / MASK_LINE;

	return lines / 8 + lines * 8;
}

/* 0 when the chunk is too short for its kinds and masks. */
static inline int mask_view_init(struct mask_view *view, const uint8_t *src, size_t src_len, size_t raw_len)
{
	size_t head = mask_head(raw_len);

	if (src_len < head)
		return 0;
	view->kinds = src;
	view->masks = src + raw_len / MASK_LINE / 8;
	view->bytes = src + head;
	view->nr_bytes = src_len - head;
	return 1;
}

#endif
