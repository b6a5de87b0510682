/*
 * Inside the codec layer: one chunk through ISA-L's inflate.
 *
 * Not by isal_inflate_stateless(), which forgets the bits left in the last byte; and format 5 wants them to be zero.
 */
#ifndef CIS_CODEC_INFLATE_H
#define CIS_CODEC_INFLATE_H

#include <errno.h>
#include <isa-l.h>

/* At the start of a stream; the tables stay, for the caller that sets block_state to ISAL_BLOCK_CODED. */
static inline void inflate_rewind(struct inflate_state *inflate)
{
	isal_inflate_reset(inflate);
	/* Its buffer of earlier output full and delivered: so ISA-L decodes into ours, not by way of its own. */
	inflate->tmp_out_valid = 2 * ISAL_DEF_HIST_SIZE;
	inflate->tmp_out_processed = 2 * ISAL_DEF_HIST_SIZE;
}

/* After inflate_rewind(): 0 when the stream ends exactly at the end of @src, and its output at that of @dst. */
static inline int inflate_chunk(struct inflate_state *inflate, const uint8_t *src, size_t src_len, uint8_t *dst,
				size_t dst_len)
{
	inflate->next_in = (uint8_t *)src;
	inflate->avail_in = (uint32_t)src_len;
	inflate->next_out = dst;
	inflate->avail_out = (uint32_t)dst_len;
	if (isal_inflate(inflate) != ISAL_DECOMP_OK || inflate->block_state != ISAL_BLOCK_FINISH ||
	    inflate->avail_out || inflate->avail_in || inflate->read_in_length >= 8)
		return -EBADMSG;
	return inflate->read_in & ((UINT64_C(1) << inflate->read_in_length) - 1) ? -EBADMSG : 0;
}

#endif
