/* Codec lz4: one LZ4 block. */
#include <errno.h>
#include <lz4.h>
#include <lz4hc.h>
#include <stdlib.h>

#include "codec/ops.h"

struct lz4_encoder {
	int level; /* 0: fast, else that of HC */
	void *work;
};

static void lz4_encoder_close(void *state)
{
	struct lz4_encoder *enc = state;

	free(enc->work);
	free(enc);
}

static int lz4_encoder_open(int level, size_t chunk_max, struct cis_codec_params *params, void **ret_state,
			    struct cis_error *err)
{
	struct lz4_encoder *enc;

	if (level < 0 || level > LZ4HC_CLEVEL_MAX)
		return cis_fail(err, EINVAL, "lz4 has no level %d: use 0 (fast) or 1 to %d", level, LZ4HC_CLEVEL_MAX);
	enc = malloc(sizeof(*enc));
	if (!enc)
		return cis_fail(err, ENOMEM, "encoder lz4: out of memory");
	enc->level = level;
	enc->work = malloc((size_t)(level ? LZ4_sizeofStateHC() : LZ4_sizeofState()));
	if (!enc->work) {
		free(enc);
		return cis_fail(err, ENOMEM, "encoder lz4: out of memory");
	}
	*ret_state = enc;
	return 0;
}

static size_t lz4_encode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t cap)
{
	struct lz4_encoder *enc = state;
	const char *from = (const char *)src;
	int len;

	if (enc->level)
		len = LZ4_compress_HC_extStateHC(enc->work, from, (char *)dst, (int)src_len, (int)cap, enc->level);
	else
		len = LZ4_compress_fast_extState(enc->work, from, (char *)dst, (int)src_len, (int)cap, 1);
	return len > 0 ? (size_t)len : 0;
}

static int lz4_decode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	int len = LZ4_decompress_safe((const char *)src, (char *)dst, (int)src_len, (int)dst_len);

	return len >= 0 && (size_t)len == dst_len ? 0 : -EBADMSG;
}

const struct cis_codec_ops cis_lz4_ops = {
	.name = "lz4",
	.encoder_open = lz4_encoder_open,
	.encoder_close = lz4_encoder_close,
	.encode = lz4_encode,
	.decode = lz4_decode,
};
