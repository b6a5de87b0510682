/*
 * No call of the codec layer leaves the upper halves of the vector registers in use: all SSE code of the thread would run
 * slower from then on.  The CPU says which state is in use by XGETBV with ECX = 1.
 */
#include "codec-params.h"

#ifdef __x86_64__
#include <cpuid.h>

#define UPPER 0x44u /* upper halves of YMM and of ZMM 0 to 15 */

static uint32_t in_use(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
	return low & UPPER;
}

__attribute__((target("avx"))) static void clear(void)
{
	__asm__ volatile("vzeroupper");
}

/* In one piece, as compilers put a vzeroupper of their own behind whatever uses the upper halves. */
__attribute__((target("avx2"))) static uint32_t in_use_when_dirty(void)
{
	uint32_t low, high;

	__asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0; xgetbv" : "=a"(low), "=d"(high) : "c"(1) : "xmm0");
	return low & UPPER;
}

static void expect_cpu_tells(void)
{
	uint32_t a, b, c, d;
	uint32_t clean, used;

	if (!__builtin_cpu_supports("avx2") || !__get_cpuid_count(0xd, 1, &a, &b, &c, &d) || !(a & 4))
		check_skip("this CPU does not say which vector state is in use");
	used = in_use_when_dirty();
	clear();
	clean = in_use();
	if (!used || clean)
		check_skip("this CPU does not tell a cleared vector state from a used one");
}

static void encode_and_decode(enum cis_codec codec, int level, struct cis_codec_params *params)
{
	static uint8_t raw[65536], stored[65536];
	struct cis_encoder *enc;
	struct cis_decoder *dec;
	enum cis_codec got;
	size_t n;

	assert_int_equal(cis_encoder_create(codec, level, sizeof(raw), params, &enc, NULL), 0);
	assert_int_equal(cis_decoder_create(sizeof(raw), params, &dec), 0);
	data_make(DATA_POINTERS, raw, sizeof(raw), 1);
	clear();
	n = cis_encode(enc, raw, sizeof(raw), stored, &got);
	assert_int_equal(in_use(), 0);
	assert_int_equal(cis_decode(dec, got, stored, n, raw, sizeof(raw)), 0);
	assert_int_equal(in_use(), 0);
	cis_crc64(0, raw, sizeof(raw));
	assert_int_equal(in_use(), 0);
	cis_chunk_checksum(0, raw, sizeof(raw));
	assert_int_equal(in_use(), 0);
	cis_encoder_destroy(enc);
	cis_decoder_destroy(dec);
}

static void every_codec(void **state)
{
	struct cis_codec_params *params;

	clear();
	params = params_both();
	assert_int_equal(in_use(), 0);
	for (enum cis_codec codec = CIS_CODEC_MASK; codec < CIS_CODEC_COUNT; codec++)
		for (int level = 0; level <= 3; level++)
			encode_and_decode(codec, level, params);
	cis_codec_params_unref(params);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_codec)};

	expect_cpu_tells();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
	check_skip("only x86-64 has vector registers that share their lower halves with SSE");
	return 1;
}
#endif
