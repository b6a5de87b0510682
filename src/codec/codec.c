#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "codec/codec.h"
#include "codec/mask.h"
#include "codec/ops.h"

#define CHUNK_MIN  4096u
#define CHUNK_MAX  (2u << 20)
#define SAME_BYTES 8

struct cis_encoder {
	enum cis_codec codec;
	size_t chunk_max;
	struct cis_codec_params *params;
	void *state;
};

struct cis_decoder {
	size_t chunk_max;
	struct cis_codec_params *params;
	void *state[CIS_CODEC_COUNT];
};

static size_t raw_encode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t cap)
{
	return 0;
}

static int raw_decode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	if (src_len != dst_len)
		return -EBADMSG;
	memcpy(dst, src, dst_len);
	return 0;
}

static int same_decode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	uint64_t word;

	if (src_len != SAME_BYTES)
		return -EBADMSG;
	memcpy(&word, src, SAME_BYTES);
	for (size_t i = 0; i < dst_len; i += SAME_BYTES)
		memcpy(dst + i, &word, SAME_BYTES);
	return 0;
}

static size_t mask_encode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t cap)
{
	return cis_mask_best()->encode(src, src_len, dst);
}

static int mask_decode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	return cis_mask_best()->decode(src, src_len, dst, dst_len);
}

static const struct cis_codec_ops raw_ops = {.name = "raw", .encode = raw_encode, .decode = raw_decode};
static const struct cis_codec_ops same_ops = {.name = "same", .encode = raw_encode, .decode = same_decode};
static const struct cis_codec_ops mask_ops = {.name = "mask", .encode = mask_encode, .decode = mask_decode};

static const struct cis_codec_ops *const codecs[CIS_CODEC_COUNT] = {
	[CIS_CODEC_RAW] = &raw_ops,
	[CIS_CODEC_SAME] = &same_ops,
	[CIS_CODEC_MASK] = &mask_ops,
	[CIS_CODEC_LZ4] = &cis_lz4_ops,
	[CIS_CODEC_ZSTD] = &cis_zstd_ops,
	[CIS_CODEC_ZSTD_DICT] = &cis_zstd_dict_ops,
	[CIS_CODEC_DEFLATE] = &cis_deflate_ops,
	[CIS_CODEC_DEFLATE_CANNED] = &cis_canned_ops,
};

const char *cis_codec_name(unsigned codec)
{
	return codec < CIS_CODEC_COUNT ? codecs[codec]->name : "unknown";
}

int cis_same_word(const void *buf, size_t len, uint64_t *ret_word)
{
	assert(len >= 8 && len % 8 == 0);
	if (memcmp(buf, (const uint8_t *)buf + 8, len - 8))
		return 0;
	*ret_word = cis_le64(buf);
	return 1;
}

int cis_encoder_create(enum cis_codec codec, int level, size_t chunk_max, struct cis_codec_params *params,
		       struct cis_encoder **ret, struct cis_error *err)
{
	struct cis_encoder *enc;
	int rc = 0;

	if ((unsigned)codec >= CIS_CODEC_COUNT || codec == CIS_CODEC_SAME)
		return cis_fail(err, EINVAL, "codec %u cannot be asked for", (unsigned)codec);
	if (chunk_max < CHUNK_MIN || chunk_max > CHUNK_MAX)
		return cis_fail(err, EINVAL, "chunks of %zu bytes: must be 4096 to 2097152", chunk_max);
	enc = calloc(1, sizeof(*enc));
	if (!enc)
		return cis_fail(err, ENOMEM, "encoder %s: out of memory", cis_codec_name(codec));
	enc->codec = codec;
	enc->chunk_max = chunk_max;
	if (codecs[codec]->encoder_open)
		rc = codecs[codec]->encoder_open(level, chunk_max, params, &enc->state, err);
	if (rc) {
		free(enc);
		return rc;
	}
	enc->params = params ? cis_codec_params_ref(params) : NULL;
	*ret = enc;
	return 0;
}

void cis_encoder_destroy(struct cis_encoder *enc)
{
	if (!enc)
		return;
	if (codecs[enc->codec]->encoder_close)
		codecs[enc->codec]->encoder_close(enc->state);
	cis_codec_params_unref(enc->params);
	free(enc);
}

size_t cis_encode(struct cis_encoder *enc, const void *src, size_t src_len, void *dst, enum cis_codec *ret_codec)
{
	uint64_t word;
	size_t len;

	assert(src_len >= CHUNK_MIN && src_len <= enc->chunk_max && src_len % CHUNK_MIN == 0);
	if (cis_same_word(src, src_len, &word)) {
		cis_put_le64(dst, word);
		*ret_codec = CIS_CODEC_SAME;
		return SAME_BYTES;
	}
	len = codecs[enc->codec]->encode(enc->state, src, src_len, dst, src_len - 1);
	if (len) {
		*ret_codec = enc->codec;
		return len;
	}
	memcpy(dst, src, src_len);
	*ret_codec = CIS_CODEC_RAW;
	return src_len;
}

int cis_decoder_create(size_t chunk_max, struct cis_codec_params *params, struct cis_decoder **ret)
{
	struct cis_decoder *dec = calloc(1, sizeof(*dec));

	if (!dec)
		return -ENOMEM;
	dec->chunk_max = chunk_max;
	dec->params = params ? cis_codec_params_ref(params) : NULL;
	for (unsigned i = 0; i < CIS_CODEC_COUNT; i++) {
		if (codecs[i]->decoder_open && codecs[i]->decoder_open(params, &dec->state[i])) {
			cis_decoder_destroy(dec);
			return -ENOMEM;
		}
	}
	*ret = dec;
	return 0;
}

void cis_decoder_destroy(struct cis_decoder *dec)
{
	if (!dec)
		return;
	for (unsigned i = 0; i < CIS_CODEC_COUNT; i++)
		if (dec->state[i])
			codecs[i]->decoder_close(dec->state[i]);
	cis_codec_params_unref(dec->params);
	free(dec);
}

int cis_decode(struct cis_decoder *dec, unsigned codec, const void *src, size_t src_len, void *dst, size_t dst_len)
{
	if (codec >= CIS_CODEC_COUNT || (codecs[codec]->needs_state && !dec->state[codec]))
		return -EOPNOTSUPP;
	if (!dst_len || dst_len % CHUNK_MIN || dst_len > dec->chunk_max)
		return -EBADMSG;
	if (!src_len || src_len > dst_len) /* format 5: a stored chunk is never longer than its raw bytes */
		return -EBADMSG;
	return codecs[codec]->decode(dec->state[codec], src, src_len, dst, dst_len);
}
