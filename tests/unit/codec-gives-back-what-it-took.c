/* Every codec, level, kind of data and chunk size: what was encoded decodes to the same bytes, and within its buffers. */
#include "codec-params.h"

#define CHUNK_MAX (2u << 20)

static struct fence raw, stored, out;
static struct cis_codec_params *params;

static int setup(void **state)
{
	params = params_both();
	assert_int_equal(fence_init(&raw, CHUNK_MAX), 0);
	assert_int_equal(fence_init(&stored, CHUNK_MAX), 0);
	assert_int_equal(fence_init(&out, CHUNK_MAX), 0);
	return 0;
}

static int teardown(void **state)
{
	cis_codec_params_unref(params);
	fence_fini(&raw);
	fence_fini(&stored);
	fence_fini(&out);
	return 0;
}

static enum cis_codec round_trip(struct cis_encoder *enc, struct cis_decoder *dec, enum data_kind kind, size_t len)
{
	uint8_t *src = fence_end(&raw, len), *packed, *dst = fence_end(&out, len);
	uint8_t *room = fence_end(&stored, len);
	enum cis_codec codec;
	size_t n;

	data_make(kind, src, len, len);
	n = cis_encode(enc, src, len, room, &codec);
	assert_in_range(n, 1, len);
	packed = fence_end(&stored, n);
	memmove(packed, room, n);
	memset(dst, 0x5a, len);
	assert_int_equal(cis_decode(dec, codec, packed, n, dst, len), 0);
	assert_memory_equal(dst, src, len);
	/* And with the fences in front of the buffers. */
	memmove(fence_start(&stored), packed, n);
	assert_int_equal(cis_decode(dec, codec, fence_start(&stored), n, fence_start(&out), len), 0);
	assert_memory_equal(fence_start(&out), src, len);
	return codec;
}

static void check_codec(enum cis_codec codec, int level, size_t len_max)
{
	static const size_t sizes[] = {4096, 12288, 65536, 520192, CHUNK_MAX, SIZE_MAX};
	struct cis_encoder *enc;
	struct cis_decoder *dec;
	struct cis_error err;

	assert_int_equal(cis_encoder_create(codec, level, CHUNK_MAX, params, &enc, &err), 0);
	assert_int_equal(cis_decoder_create(CHUNK_MAX, params, &dec), 0);
	for (size_t i = 0; sizes[i] <= len_max; i++) {
		size_t len = sizes[i];

		for (enum data_kind kind = 0; kind < DATA_KINDS; kind++) {
			enum cis_codec got = round_trip(enc, dec, kind, len);

			if (kind == DATA_ZERO || kind == DATA_SAME)
				assert_int_equal(got, CIS_CODEC_SAME);
			else if (kind == DATA_RANDOM)
				assert_int_equal(got, CIS_CODEC_RAW);
			else if (kind == DATA_SPARSE || kind == DATA_POINTERS)
				assert_int_equal(got, codec);
		}
	}
	cis_encoder_destroy(enc);
	cis_decoder_destroy(dec);
}

static void raw_round_trips(void **state)
{
	check_codec(CIS_CODEC_RAW, 0, CHUNK_MAX);
}

static void mask_round_trips(void **state)
{
	check_codec(CIS_CODEC_MASK, 0, CHUNK_MAX);
}

static void lz4_round_trips(void **state)
{
	for (int level = 0; level <= 12; level += 3)
		check_codec(CIS_CODEC_LZ4, level, level ? 65536 : CHUNK_MAX);
}

static void zstd_round_trips(void **state)
{
	for (int level = 0; level <= 9; level += 3)
		check_codec(CIS_CODEC_ZSTD, level, level > 3 ? 65536 : CHUNK_MAX);
	check_codec(CIS_CODEC_ZSTD_DICT, 0, CHUNK_MAX);
	check_codec(CIS_CODEC_ZSTD_DICT, 9, 65536);
}

static void deflate_round_trips(void **state)
{
	for (int level = 0; level <= 3; level++)
		check_codec(CIS_CODEC_DEFLATE, level, CHUNK_MAX);
}

static void canned_round_trips(void **state)
{
	check_codec(CIS_CODEC_DEFLATE_CANNED, 0, CHUNK_MAX);
}

static void crc_is_crc64_xz(void **state)
{
	uint64_t crc = cis_crc64(0, "123456789", 9);
	uint8_t chunk[4096 + 8] = {7};

	assert_int_equal(crc, 0x995dc9bbdf1939fa);
	assert_int_equal(cis_crc64(cis_crc64(0, "1234", 4), "56789", 5), crc);
	memset(chunk + 8, 0x11, 4096);
	assert_int_equal(cis_chunk_checksum(7, chunk + 8, 4096), cis_crc64(0, chunk, sizeof(chunk)));
}

static void same_word_is_found(void **state)
{
	uint8_t *buf = fence_end(&raw, 4096);
	uint64_t word = 0;

	data_make(DATA_SAME, buf, 4096, 1);
	assert_int_equal(cis_same_word(buf, 4096, &word), 1);
	assert_int_equal(word, 0xa7a6a5a4a3a2a1a0);
	buf[4095]++;
	assert_int_equal(cis_same_word(buf, 4096, &word), 0);
	assert_int_equal(cis_same_word(buf, 8, &word), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(raw_round_trips),    cmocka_unit_test(mask_round_trips),
		cmocka_unit_test(lz4_round_trips),    cmocka_unit_test(zstd_round_trips),
		cmocka_unit_test(deflate_round_trips), cmocka_unit_test(canned_round_trips),
		cmocka_unit_test(crc_is_crc64_xz),    cmocka_unit_test(same_word_is_found),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
