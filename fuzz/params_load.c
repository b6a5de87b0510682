/*
 * Codec parameters as an image has them: byte 0 says which of the two the rest is (both: cut in the middle).  What
 * loads must then decode without harm, and what an encoder takes must come back.
 */
#include <errno.h>

#include "codec_common.h"

static void decode_something(struct cis_codec_params *params, enum cis_codec codec)
{
	static struct fence src, dst;
	struct cis_decoder *dec;

	if (!src.map)
		FUZZ_CHECK(!fence_init(&src, 4096) && !fence_init(&dst, 4096));
	FUZZ_CHECK(!cis_decoder_create(FUZZ_CHUNK_MAX, params, &dec));
	for (uint64_t i = 0; i < 4; i++) {
		size_t n = 64 << i;

		data_make(i % 2 ? DATA_RANDOM : DATA_SPARSE, fence_end(&src, n), n, i);
		cis_decode(dec, codec, fence_end(&src, n), n, fence_end(&dst, 4096), 4096);
	}
	cis_decoder_destroy(dec);
}

static void round_trip(struct cis_codec_params *params, enum cis_codec codec)
{
	static uint8_t raw[8192], stored[8192], out[8192];
	struct cis_encoder *enc;
	struct cis_decoder *dec;
	enum cis_codec got;
	size_t n;

	if (cis_encoder_create(codec, 0, FUZZ_CHUNK_MAX, params, &enc, NULL))
		return;
	FUZZ_CHECK(!cis_decoder_create(FUZZ_CHUNK_MAX, params, &dec));
	data_make(DATA_TEXT, raw, sizeof(raw), 1);
	n = cis_encode(enc, raw, sizeof(raw), stored, &got);
	FUZZ_CHECK(!cis_decode(dec, got, stored, n, out, sizeof(out)));
	FUZZ_CHECK(!memcmp(raw, out, sizeof(raw)));
	cis_encoder_destroy(enc);
	cis_decoder_destroy(dec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const uint8_t *dict = NULL, *canned = NULL;
	size_t dict_len = 0, canned_len = 0;
	struct cis_codec_params *params;
	struct cis_error err;
	int rc;

	if (len < 1)
		return 0;
	if (data[0] % 3 != 1)
		dict = data + 1, dict_len = data[0] % 3 ? (len - 1) / 2 : len - 1;
	if (data[0] % 3 != 0)
		canned = data + 1 + dict_len, canned_len = len - 1 - dict_len;
	rc = cis_codec_params_load(dict, dict_len, canned, canned_len, &params, &err);
	FUZZ_CHECK(rc == 0 || rc == -EBADMSG);
	if (rc)
		return 0;
	for (enum cis_codec codec = CIS_CODEC_ZSTD_DICT; codec < CIS_CODEC_COUNT; codec++) {
		decode_something(params, codec);
		round_trip(params, codec);
	}
	cis_codec_params_unref(params);
	return 0;
}
