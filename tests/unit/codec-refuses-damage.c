/* Stored bytes are never trusted: what is cut, longer, flipped or of another codec is refused or decodes within bounds. */
#include <errno.h>
#include <zstd.h>

#include "codec-params.h"

#define CHUNK_MAX (64u << 10)

static struct fence stored, out;
static struct cis_codec_params *params;
static struct cis_decoder *dec;
static uint8_t raw[CHUNK_MAX], packed[CHUNK_MAX + 64];

static int setup(void **state)
{
	params = params_both();
	assert_int_equal(cis_decoder_create(CHUNK_MAX, params, &dec), 0);
	assert_int_equal(fence_init(&stored, CHUNK_MAX + 4096), 0);
	assert_int_equal(fence_init(&out, CHUNK_MAX), 0);
	return 0;
}

static int teardown(void **state)
{
	cis_decoder_destroy(dec);
	cis_codec_params_unref(params);
	fence_fini(&stored);
	fence_fini(&out);
	return 0;
}

static int decode(unsigned codec, const void *bytes, size_t n, size_t len)
{
	memcpy(fence_end(&stored, n), bytes, n);
	return cis_decode(dec, codec, fence_end(&stored, n), n, fence_end(&out, len), len);
}

/* A chunk of @codec in @packed; its length. */
static size_t make(enum cis_codec codec, enum data_kind kind, size_t len)
{
	struct cis_encoder *enc;
	enum cis_codec got;
	size_t n;

	data_make(kind, raw, len, 11);
	assert_int_equal(cis_encoder_create(codec, 0, CHUNK_MAX, params, &enc, NULL), 0);
	n = cis_encode(enc, raw, len, packed, &got);
	cis_encoder_destroy(enc);
	assert_int_equal(got, codec);
	return n;
}

static void check_damage(enum cis_codec codec, enum data_kind kind, size_t len)
{
	size_t n = make(codec, kind, len);
	uint64_t seed = 5;

	for (size_t cut = 1; cut < n; cut += n > 3000 ? 1 + data_random(&seed) % 16 : 1)
		assert_int_equal(decode(codec, packed, cut, len), -EBADMSG);
	for (int byte = 0; byte < 256 && n < len; byte++) {
		packed[n] = (uint8_t)byte;
		assert_int_equal(decode(codec, packed, n + 1, len), -EBADMSG);
	}
	assert_int_equal(decode(codec, packed, n, len + 4096), -EBADMSG);
	if (len > 4096 && n <= len - 4096)
		assert_int_equal(decode(codec, packed, n, len - 4096), -EBADMSG);
	for (int round = 0; round < 6000; round++) {
		size_t flips[3];

		for (int i = 0; i < 1 + round % 3; i++) {
			flips[i] = data_random(&seed) % (n * 8);
			packed[flips[i] / 8] ^= (uint8_t)(1u << (flips[i] % 8));
		}
		assert_true(decode(codec, packed, n, len) != -EOPNOTSUPP);
		for (int i = 0; i < 1 + round % 3; i++)
			packed[flips[i] / 8] ^= (uint8_t)(1u << (flips[i] % 8));
	}
	assert_int_equal(decode(codec, packed, n, len), 0); /* no damage outlives its chunk */
	assert_memory_equal(fence_end(&out, len), raw, len);
}

static void damage_stays_within_bounds(void **state)
{
	for (enum cis_codec codec = CIS_CODEC_MASK; codec < CIS_CODEC_COUNT; codec++) {
		check_damage(codec, DATA_SPARSE, 4096);
		check_damage(codec, DATA_POINTERS, 8192);
		check_damage(codec, DATA_RUNS, 32768);
		check_damage(codec, DATA_POINTERS, 57344);
	}
}

static void rubbish_stays_within_bounds(void **state)
{
	uint64_t seed = 9;

	for (unsigned codec = 0; codec <= CIS_CODEC_COUNT; codec++) {
		for (int round = 0; round < 3000; round++) {
			size_t n = 1 + data_random(&seed) % 600;

			data_make(round % 2 ? DATA_RANDOM : DATA_SPARSE, raw, 4096, (uint64_t)round);
			decode(codec, raw, n, 4096 << (round % 4));
		}
	}
}

static void lengths_are_checked_first(void **state)
{
	for (unsigned codec = 0; codec < CIS_CODEC_COUNT; codec++) {
		memset(packed, 0, sizeof(packed));
		assert_int_equal(decode(codec, packed, 0, 4096), -EBADMSG);
		assert_int_equal(decode(codec, packed, 4097, 4096), -EBADMSG);
		assert_int_equal(decode(codec, packed, 8, 0), -EBADMSG);
		assert_int_equal(decode(codec, packed, 8, 1000), -EBADMSG);
		assert_int_equal(cis_decode(dec, codec, packed, 8, raw, CHUNK_MAX + 4096), -EBADMSG);
	}
	assert_int_equal(decode(CIS_CODEC_RAW, packed, 4095, 4096), -EBADMSG);
	assert_int_equal(decode(CIS_CODEC_SAME, packed, 7, 4096), -EBADMSG);
	assert_int_equal(decode(CIS_CODEC_SAME, packed, 9, 4096), -EBADMSG);
}

static void unknown_codecs_and_missing_parameters_are_told(void **state)
{
	size_t n = make(CIS_CODEC_ZSTD_DICT, DATA_POINTERS, 4096);
	struct cis_decoder *bare;

	assert_int_equal(decode(CIS_CODEC_COUNT, packed, n, 4096), -EOPNOTSUPP);
	assert_int_equal(decode(~0u, packed, n, 4096), -EOPNOTSUPP);
	assert_int_equal(cis_decoder_create(CHUNK_MAX, NULL, &bare), 0);
	assert_int_equal(cis_decode(bare, CIS_CODEC_ZSTD_DICT, packed, n, raw, 4096), -EOPNOTSUPP);
	assert_int_equal(cis_decode(bare, CIS_CODEC_DEFLATE_CANNED, packed, n, raw, 4096), -EOPNOTSUPP);
	cis_decoder_destroy(bare);
}

/* zstd by itself would decode both frames, and skip the empty one. */
static void one_zstd_frame_only(void **state)
{
	static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0};
	uint8_t two[2048];
	size_t a, b, n;

	data_make(DATA_SPARSE, raw, 8192, 1);
	a = ZSTD_compress(two, sizeof(two), raw, 4096, 3);
	b = ZSTD_compress(two + a, sizeof(two) - a, raw + 4096, 4096, 3);
	assert_false(ZSTD_isError(a) || ZSTD_isError(b));
	assert_int_equal(decode(CIS_CODEC_ZSTD, two, a, 4096), 0);
	assert_int_equal(decode(CIS_CODEC_ZSTD, two, a + b, 8192), -EBADMSG);
	n = make(CIS_CODEC_ZSTD, DATA_SPARSE, 4096);
	memcpy(packed + n, skippable, sizeof(skippable));
	assert_int_equal(decode(CIS_CODEC_ZSTD, packed, n + sizeof(skippable), 4096), -EBADMSG);
	memmove(packed + sizeof(skippable), packed, n);
	memcpy(packed, skippable, sizeof(skippable));
	assert_int_equal(decode(CIS_CODEC_ZSTD, packed, n + sizeof(skippable), 4096), -EBADMSG);
}

/* The fill bits of DEFLATE's last byte are zero (format 5).  A stream that ends on a byte has none, so try several. */
static void deflate_fill_bits_are_zero(void **state)
{
	for (enum cis_codec codec = CIS_CODEC_DEFLATE; codec <= CIS_CODEC_DEFLATE_CANNED; codec++) {
		int refused = 0;

		for (size_t len = 4096; len <= 57344; len += 4096) {
			size_t n = make(codec, DATA_SPARSE, len);

			assert_int_equal(decode(codec, packed, n, len), 0);
			packed[n - 1] ^= 0x80;
			refused += decode(codec, packed, n, len) == -EBADMSG;
		}
		assert_true(refused >= 10);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(damage_stays_within_bounds),
		cmocka_unit_test(rubbish_stays_within_bounds),
		cmocka_unit_test(lengths_are_checked_first),
		cmocka_unit_test(unknown_codecs_and_missing_parameters_are_told),
		cmocka_unit_test(one_zstd_frame_only),
		cmocka_unit_test(deflate_fill_bits_are_zero),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
