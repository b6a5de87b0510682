/* Any raw chunk through any codec and back: byte 0 is the codec, byte 1 the level, the rest padded with zeros is the chunk. */
#include "codec/mask.h"
#include "codec_common.h"

static struct cis_encoder *encoder(unsigned codec, unsigned level, struct cis_codec_params *params)
{
	static struct cis_encoder *encoders[CIS_CODEC_COUNT][4];

	if (codec != CIS_CODEC_SAME && !encoders[codec][level])
		FUZZ_CHECK(!cis_encoder_create((enum cis_codec)codec, (int)level, FUZZ_CHUNK_MAX, params,
					       &encoders[codec][level], NULL));
	return encoders[codec][level];
}

/* One more implementation must not give other bytes. */
static void mask_impls(const uint8_t *raw, size_t len)
{
	static uint8_t first[FUZZ_CHUNK_MAX], other[FUZZ_CHUNK_MAX];
	size_t n = cis_mask_impl(0)->encode(raw, len, first);

	for (unsigned i = 1; cis_mask_impl(i); i++) {
		FUZZ_CHECK(cis_mask_impl(i)->encode(raw, len, other) == n);
		FUZZ_CHECK(!memcmp(first, other, n));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct cis_codec_params *params;
	static struct cis_decoder *dec;
	static struct fence raw, stored, out;
	size_t raw_len, n;
	struct cis_encoder *enc;
	enum cis_codec codec;

	if (!params) {
		params = fuzz_params();
		FUZZ_CHECK(!cis_decoder_create(FUZZ_CHUNK_MAX, params, &dec));
		FUZZ_CHECK(!fence_init(&raw, FUZZ_CHUNK_MAX) && !fence_init(&stored, FUZZ_CHUNK_MAX) &&
			   !fence_init(&out, FUZZ_CHUNK_MAX));
	}
	if (len < 3 || len - 2 > FUZZ_CHUNK_MAX)
		return 0;
	enc = encoder(data[0] % CIS_CODEC_COUNT, data[1] % 4, params);
	if (!enc)
		return 0;
	raw_len = (len - 2 + 4095) / 4096 * 4096;
	memset(fence_end(&raw, raw_len), 0, raw_len);
	memcpy(fence_end(&raw, raw_len), data + 2, len - 2);
	n = cis_encode(enc, fence_end(&raw, raw_len), raw_len, fence_end(&stored, raw_len), &codec);
	FUZZ_CHECK(n >= 1 && n <= raw_len);
	FUZZ_CHECK(!cis_decode(dec, codec, fence_end(&stored, raw_len), n, fence_end(&out, raw_len), raw_len));
	FUZZ_CHECK(!memcmp(fence_end(&raw, raw_len), fence_end(&out, raw_len), raw_len));
	mask_impls(fence_end(&raw, raw_len), raw_len);
	return 0;
}
