/* What is asked of an encoder, what is trained and what an image holds as parameters: refused with the reason, or it works. */
#include <errno.h>

#include "codec-params.h"

#define CHUNK_MAX (64u << 10)

static void expect_load(const void *dict, size_t dict_len, const void *canned, size_t canned_len, const char *reason)
{
	struct cis_codec_params *params = NULL;
	struct cis_error err = {0};

	assert_int_equal(cis_codec_params_load(dict, dict_len, canned, canned_len, &params, &err), -EBADMSG);
	assert_null(params);
	assert_int_equal(err.code, EBADMSG);
	assert_non_null(strstr(err.text, reason));
}

static void dictionaries_from_files_are_checked(void **state)
{
	struct cis_codec_params *trained = params_train(CIS_CODEC_ZSTD_DICT);
	uint8_t *huge = calloc(1, (1 << 20) + 1);
	const uint8_t *good;
	uint8_t bad[256];
	size_t len;

	good = cis_codec_params_bytes(trained, CIS_CODEC_ZSTD_DICT, &len);
	data_make(DATA_RANDOM, bad, sizeof(bad), 1);
	expect_load(bad, sizeof(bad), NULL, 0, "not a Zstandard dictionary");
	expect_load(bad, 0, NULL, 0, "not a Zstandard dictionary");
	expect_load(good, 7, NULL, 0, "not a Zstandard dictionary");
	expect_load(good, 9, NULL, 0, "does not load");
	expect_load(good, 40, NULL, 0, "does not load");
	expect_load(huge, (1 << 20) + 1, NULL, 0, "over 1048576 bytes");
	expect_load(NULL, 0, huge, (1 << 20) + 1, "over 1048576 bytes");
	free(huge);
	cis_codec_params_unref(trained);
}

static void headers_from_files_are_checked(void **state)
{
	struct cis_codec_params *trained = params_train(CIS_CODEC_DEFLATE_CANNED);
	uint8_t header[1024] = {0};
	const void *good;
	size_t len;

	good = cis_codec_params_bytes(trained, CIS_CODEC_DEFLATE_CANNED, &len);
	memcpy(header, good, len);
	for (size_t cut = 0; cut < len; cut++)
		expect_load(NULL, 0, header, cut, "ends on a byte");
	expect_load(NULL, 0, header, len + 1, "ends on a byte"); /* a symbol, or part of one, behind it */
	header[len] = 0xff;
	expect_load(NULL, 0, header, len + 1, "ends on a byte");
	header[3] ^= 0x40; /* the block is not the final one */
	expect_load(NULL, 0, header, len, "ends on a byte");
	header[3] ^= 0x40;
	header[13] ^= 0xff; /* codes that are not a code */
	expect_load(NULL, 0, header, len, "ends on a byte");
	expect_load(NULL, 0, "\x03\x00", 2, "ends on a byte"); /* a whole stream without a byte of output */
	expect_load(NULL, 0, "\x00\x01\x00\xfe\xff" "x", 6, "ends on a byte"); /* output, then no header */
	cis_codec_params_unref(trained);
}

/* Four more empty blocks in front, 40 bits: a header of another writer, for the same chunks. */
static void headers_of_another_form_can_be_read(void **state)
{
	static const uint8_t blocks[5] = {0x02, 0x08, 0x20, 0x80, 0x00};
	struct cis_codec_params *trained = params_train(CIS_CODEC_DEFLATE_CANNED), *other;
	static uint8_t raw[8192], packed[8192], out[8192];
	struct cis_encoder *enc;
	struct cis_decoder *dec;
	uint8_t header[1024];
	struct cis_error err;
	enum cis_codec codec;
	const void *good;
	size_t len, n;

	good = cis_codec_params_bytes(trained, CIS_CODEC_DEFLATE_CANNED, &len);
	memcpy(header, blocks, 5);
	memcpy(header + 5, good, len);
	assert_int_equal(cis_codec_params_load(NULL, 0, header, len + 5, &other, &err), 0);
	assert_int_equal(cis_encoder_create(CIS_CODEC_DEFLATE_CANNED, 0, CHUNK_MAX, other, &enc, &err), -EINVAL);
	assert_non_null(strstr(err.text, "only be read"));
	assert_int_equal(cis_encoder_create(CIS_CODEC_DEFLATE_CANNED, 0, CHUNK_MAX, trained, &enc, &err), 0);
	assert_int_equal(cis_decoder_create(CHUNK_MAX, other, &dec), 0);
	data_make(DATA_POINTERS, raw, sizeof(raw), 1);
	n = cis_encode(enc, raw, sizeof(raw), packed, &codec);
	assert_int_equal(codec, CIS_CODEC_DEFLATE_CANNED);
	assert_int_equal(cis_decode(dec, codec, packed, n, out, sizeof(out)), 0);
	assert_memory_equal(out, raw, sizeof(raw));
	cis_encoder_destroy(enc);
	cis_decoder_destroy(dec);
	cis_codec_params_unref(other);
	cis_codec_params_unref(trained);
}

static void stored_form_is_exact(void **state)
{
	struct cis_codec_params *both = params_both(), *canned = params_train(CIS_CODEC_DEFLATE_CANNED);
	const void *a, *b;
	size_t a_len, b_len;

	a = cis_codec_params_bytes(both, CIS_CODEC_DEFLATE_CANNED, &a_len);
	b = cis_codec_params_bytes(canned, CIS_CODEC_DEFLATE_CANNED, &b_len);
	assert_int_equal(a_len, b_len);
	assert_memory_equal(a, b, a_len); /* and equal input trains equal tables */
	assert_null(cis_codec_params_bytes(canned, CIS_CODEC_ZSTD_DICT, &b_len));
	assert_int_equal(b_len, 0);
	assert_null(cis_codec_params_bytes(both, CIS_CODEC_LZ4, &b_len));
	cis_codec_params_unref(both);
	cis_codec_params_unref(canned);
}

static void training_needs_data(void **state)
{
	static uint8_t little[1024];
	size_t sizes[2] = {512, 512};
	struct cis_codec_params *params;
	struct cis_error err;

	assert_int_equal(cis_codec_train(CIS_CODEC_ZSTD_DICT, little, sizes, 2, 0, &params, &err), -ENODATA);
	assert_int_equal(cis_codec_train(CIS_CODEC_DEFLATE_CANNED, little, sizes, 2, 0, &params, &err), -ENODATA);
	assert_int_equal(cis_codec_train(CIS_CODEC_DEFLATE_CANNED, little, sizes, 0, 0, &params, &err), -ENODATA);
	assert_int_equal(cis_codec_train(CIS_CODEC_LZ4, little, sizes, 2, 0, &params, &err), -EINVAL);
}

static void tables_learn_from_data_of_one_kind(void **state)
{
	static uint8_t samples[64 * 4096];
	size_t sizes[64];

	for (enum data_kind kind = 0; kind < DATA_KINDS; kind++) {
		struct cis_codec_params *params;
		struct cis_encoder *enc;
		struct cis_error err;

		for (int i = 0; i < 64; i++) {
			data_make(kind, samples + i * 4096, 4096, (uint64_t)i);
			sizes[i] = 4096;
		}
		assert_int_equal(cis_codec_train(CIS_CODEC_DEFLATE_CANNED, samples, sizes, 64, 0, &params, &err), 0);
		assert_int_equal(cis_encoder_create(CIS_CODEC_DEFLATE_CANNED, 0, CHUNK_MAX, params, &enc, &err), 0);
		cis_encoder_destroy(enc);
		cis_codec_params_unref(params);
	}
}

static void expect_refusal(enum cis_codec codec, int level, size_t chunk_max)
{
	struct cis_encoder *enc = NULL;
	struct cis_error err = {0};

	assert_int_equal(cis_encoder_create(codec, level, chunk_max, NULL, &enc, &err), -EINVAL);
	assert_null(enc);
	assert_true(err.text[0]);
}

static void encoders_refuse_what_they_have_not(void **state)
{
	expect_refusal(CIS_CODEC_LZ4, 13, CHUNK_MAX);
	expect_refusal(CIS_CODEC_LZ4, -1, CHUNK_MAX);
	expect_refusal(CIS_CODEC_ZSTD, 23, CHUNK_MAX);
	expect_refusal(CIS_CODEC_DEFLATE, 4, CHUNK_MAX);
	expect_refusal(CIS_CODEC_DEFLATE, -1, CHUNK_MAX);
	expect_refusal(CIS_CODEC_ZSTD_DICT, 3, CHUNK_MAX);
	expect_refusal(CIS_CODEC_DEFLATE_CANNED, 0, CHUNK_MAX);
	expect_refusal(CIS_CODEC_SAME, 0, CHUNK_MAX);
	expect_refusal(CIS_CODEC_COUNT, 0, CHUNK_MAX);
	expect_refusal(CIS_CODEC_RAW, 0, 2048);
	expect_refusal(CIS_CODEC_RAW, 0, (2 << 20) + 4096);
}

static void names_are_those_of_the_format(void **state)
{
	static const char *const names[] = {"raw", "same", "mask", "lz4", "zstd", "zstd-dict", "deflate", "deflate-canned"};

	for (unsigned i = 0; i < CIS_CODEC_COUNT; i++)
		assert_string_equal(cis_codec_name(i), names[i]);
	assert_string_equal(cis_codec_name(CIS_CODEC_COUNT), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dictionaries_from_files_are_checked),
		cmocka_unit_test(headers_from_files_are_checked),
		cmocka_unit_test(headers_of_another_form_can_be_read),
		cmocka_unit_test(stored_form_is_exact),
		cmocka_unit_test(training_needs_data),
		cmocka_unit_test(tables_learn_from_data_of_one_kind),
		cmocka_unit_test(encoders_refuse_what_they_have_not),
		cmocka_unit_test(names_are_those_of_the_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
