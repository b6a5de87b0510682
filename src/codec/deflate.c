/* Codec deflate: one raw DEFLATE stream a chunk, by ISA-L. */
#include <errno.h>
#include <stdlib.h>

#include "codec/inflate.h"
#include "codec/isal.h"
#include "codec/ops.h"

#define HIST_BITS     12 /* format 5.2: matches reach back 4 KiB at most */
/*
 * Not 1: ISA-L 2.30 there puts a hash of the address of its own state among those of the data, so that one
 * process in 130 finds another match, and the same memory gets another image id.  2 is as fast and as small, and does so
 * far less often (once in some hundred images of 6 MB); the stream is right either way.
 */
#define LEVEL_DEFAULT 2

struct deflate_encoder {
	uint32_t level;
	uint32_t work_bytes;
	uint8_t *work, *room;
	struct isal_zstream stream;
};

static uint32_t work_bytes(int level)
{
	switch (level) {
	case 1:
		return ISAL_DEF_LVL1_LARGE;
	case 2:
		return ISAL_DEF_LVL2_LARGE;
	default:
		return ISAL_DEF_LVL3_LARGE;
	}
}

static void deflate_encoder_close(void *state)
{
	struct deflate_encoder *enc = state;

	free(enc->work);
	free(enc);
}

static int deflate_encoder_open(int level, size_t chunk_max, struct cis_codec_params *params, void **ret_state,
				struct cis_error *err)
{
	struct deflate_encoder *enc;

	if (level < 0 || level > ISAL_DEF_MAX_LEVEL)
		return cis_fail(err, EINVAL, "deflate has no level %d: use 1 to %d", level, ISAL_DEF_MAX_LEVEL);
	if (!level)
		level = LEVEL_DEFAULT;
	enc = calloc(1, sizeof(*enc));
	if (!enc)
		return cis_fail(err, ENOMEM, "encoder deflate: out of memory");
	enc->level = (uint32_t)level;
	enc->work_bytes = work_bytes(level);
	enc->work = calloc(1, enc->work_bytes + isal_input_room(chunk_max));
	if (!enc->work) {
		free(enc);
		return cis_fail(err, ENOMEM, "encoder deflate: out of memory");
	}
	enc->room = enc->work + enc->work_bytes;
	*ret_state = enc;
	return 0;
}

static size_t deflate_encode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t cap)
{
	struct deflate_encoder *enc = state;
	struct isal_zstream *stream = &enc->stream;
	int rc;

	isal_deflate_stateless_init(stream);
	stream->level = enc->level;
	stream->level_buf = enc->work;
	stream->level_buf_size = enc->work_bytes;
	stream->hist_bits = HIST_BITS;
	stream->end_of_stream = 1;
	stream->next_in = isal_input(enc->room, src, src_len);
	stream->avail_in = (uint32_t)src_len;
	stream->next_out = dst;
	stream->avail_out = (uint32_t)cap;
	rc = isal_deflate_stateless(stream);
	isal_leave();
	return rc == COMP_OK ? stream->total_out : 0;
}

static int deflate_decoder_open(struct cis_codec_params *params, void **ret_state)
{
	struct inflate_state *inflate = malloc(sizeof(*inflate));

	if (!inflate)
		return -ENOMEM;
	isal_inflate_init(inflate);
	*ret_state = inflate;
	return 0;
}

static int deflate_decode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	inflate_rewind(state);
	return inflate_chunk(state, src, src_len, dst, dst_len);
}

const struct cis_codec_ops cis_deflate_ops = {
	.name = "deflate",
	.encoder_open = deflate_encoder_open,
	.encoder_close = deflate_encoder_close,
	.encode = deflate_encode,
	.decoder_open = deflate_decoder_open,
	.decoder_close = free,
	.decode = deflate_decode,
	.needs_state = 1,
};
