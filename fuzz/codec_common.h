/* Parameters and buffers for the harnesses of the codecs. */
#ifndef CIS_FUZZ_CODEC_COMMON_H
#define CIS_FUZZ_CODEC_COMMON_H

#include <stdio.h>
#include <stdlib.h>

#include "../tests/unit/codec-data.h"
#include "check.h"
#include "codec/codec.h"

#define FUZZ_CHUNK_MAX (64u << 10)

/* Both kinds of parameters, trained on data that is always the same. */
static inline struct cis_codec_params *fuzz_params(void)
{
	enum { NR = 256, LEN = 4096 };
	static uint8_t samples[NR * LEN];
	static size_t sizes[NR];
	struct cis_codec_params *dict, *canned, *both;
	const void *dict_bytes, *canned_bytes;
	size_t dict_len, canned_len;

	for (int i = 0; i < NR; i++) {
		data_make(DATA_SPARSE + i % 4, samples + i * LEN, LEN, (uint64_t)i);
		sizes[i] = LEN;
	}
	FUZZ_CHECK(!cis_codec_train(CIS_CODEC_ZSTD_DICT, samples, sizes, NR, 0, &dict, NULL));
	FUZZ_CHECK(!cis_codec_train(CIS_CODEC_DEFLATE_CANNED, samples, sizes, NR, 0, &canned, NULL));
	dict_bytes = cis_codec_params_bytes(dict, CIS_CODEC_ZSTD_DICT, &dict_len);
	canned_bytes = cis_codec_params_bytes(canned, CIS_CODEC_DEFLATE_CANNED, &canned_len);
	FUZZ_CHECK(!cis_codec_params_load(dict_bytes, dict_len, canned_bytes, canned_len, &both, NULL));
	cis_codec_params_unref(dict);
	cis_codec_params_unref(canned);
	return both;
}

#endif
