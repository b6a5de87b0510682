/* Parameters of both trained codecs, from data that is always the same. */
#ifndef CIS_TESTS_CODEC_PARAMS_H
#define CIS_TESTS_CODEC_PARAMS_H

#include "check.h"
#include "codec-data.h"
#include "codec/codec.h"

static inline struct cis_codec_params *params_train(enum cis_codec codec)
{
	enum { NR = 400, LEN = 4096 };
	uint8_t *samples = malloc(NR * LEN);
	struct cis_codec_params *params;
	size_t sizes[NR];
	struct cis_error err;

	assert_non_null(samples);
	for (int i = 0; i < NR; i++) {
		data_make(DATA_SPARSE + i % 4, samples + i * LEN, LEN, (uint64_t)i);
		sizes[i] = LEN;
	}
	assert_int_equal(cis_codec_train(codec, samples, sizes, NR, 0, &params, &err), 0);
	free(samples);
	return params;
}

/* Both, by way of their stored form. */
static inline struct cis_codec_params *params_both(void)
{
	struct cis_codec_params *dict = params_train(CIS_CODEC_ZSTD_DICT), *both;
	struct cis_codec_params *canned = params_train(CIS_CODEC_DEFLATE_CANNED);
	const void *dict_bytes, *canned_bytes;
	size_t dict_len, canned_len;
	struct cis_error err;

	dict_bytes = cis_codec_params_bytes(dict, CIS_CODEC_ZSTD_DICT, &dict_len);
	canned_bytes = cis_codec_params_bytes(canned, CIS_CODEC_DEFLATE_CANNED, &canned_len);
	assert_int_equal(cis_codec_params_load(dict_bytes, dict_len, canned_bytes, canned_len, &both, &err), 0);
	cis_codec_params_unref(dict);
	cis_codec_params_unref(canned);
	return both;
}

#endif
