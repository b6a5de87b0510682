/*
 * The codec mask: line masks, ours; doc/format.md section 5.1.
 *
 * It runs at the speed of memcpy, so it serves media that are faster than other codecs: near tier, write list, page cache.
 * Three implementations give the same bytes: portable C, AVX2, and AVX-512 with VBMI2.
 */
#ifndef CIS_CODEC_MASK_H
#define CIS_CODEC_MASK_H

#include <stddef.h>
#include <stdint.h>

struct cis_mask_impl {
	const char *name; /* "c", "avx2", "avx512" */
	/* Stored length, or 0 when it would be src_len or more; dst has room for src_len bytes. */
	size_t (*encode)(const uint8_t *src, size_t src_len, uint8_t *dst);
	/* 0 or -EBADMSG. */
	int (*decode)(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len);
};

/** cis_mask_best() - the fastest that this CPU runs; decided once, any thread. */
const struct cis_mask_impl *cis_mask_best(void);

/** cis_mask_impl() - number @i of those that this CPU runs, slowest first; NULL past the last. */
const struct cis_mask_impl *cis_mask_impl(unsigned i);

#endif
