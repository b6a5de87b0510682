/* The choice is the cheapest by the formula; what is measured of a codec and sampled of a source is what is
 * there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/plan.h"

#define MB 1e6

/* As limits of the design has them: raw, mask, lz4, zstd. */
static const struct cis_plan_codec four[] = {
	{ CIS_CODEC_RAW, 0, 1.0, 20e9, 20e9 },
	{ CIS_CODEC_MASK, 0, 1.43, 12e9, 15e9 },
	{ CIS_CODEC_LZ4, 0, 2.15, 0.7e9, 4e9 },
	{ CIS_CODEC_ZSTD, 3, 2.6, 0.2e9, 1.3e9 },
};

static enum cis_codec choice(double read_rate, unsigned workers)
{
	struct cis_plan_host host = { read_rate, 4e9, workers };

	return four[cis_plan_choose(four, 4, &host)].codec;
}

static void test_cost_is_the_formula(void **state)
{
	struct cis_plan_codec c = { CIS_CODEC_LZ4, 0, 2.0, 1, 1000 * MB };
	struct cis_plan_host host = { 100 * MB, 500 * MB, 2 };
	struct cis_plan_cost cost = cis_plan_cost(&c, &host, 1000 * MB);

	assert_float_equal(cost.read_s, 5.0, 1e-9);
	assert_float_equal(cost.decode_s, 0.5, 1e-9);
	assert_float_equal(cost.install_s, 1.0, 1e-9);
	assert_float_equal(cost.total_s, 6.0, 1e-9);
	host.read_rate = 10000 * MB;
	assert_float_equal(cis_plan_cost(&c, &host, 1000 * MB).total_s, 1.5, 1e-9);
}

static void test_slow_media_want_ratio_fast_ones_speed(void **state)
{
	assert_int_equal(choice(100 * MB, 1), CIS_CODEC_ZSTD);
	assert_int_equal(choice(1000 * MB, 1), CIS_CODEC_LZ4);
	assert_int_equal(choice(8000 * MB, 1), CIS_CODEC_MASK);
	assert_int_equal(choice(1e12, 1), CIS_CODEC_RAW);
	/* More workers decode more, so ratio counts for longer. */
	assert_int_equal(choice(1000 * MB, 4), CIS_CODEC_ZSTD);
}

static void test_of_equally_fast_the_smallest(void **state)
{
	struct cis_plan_codec c[] = { four[0], four[0], four[0] };
	struct cis_plan_host host = { 1e12, 4e9, 1 };
	char reason[200];

	c[1].ratio = 3;
	c[1].decode_rate = 19e9; /* within 5 % of the total */
	c[2].ratio = 3;
	c[2].decode_rate = 19e9;
	assert_int_equal(cis_plan_choose(c, 3, &host), 1);
	cis_plan_reason(c, 3, 1, &host, reason, sizeof(reason));
	assert_non_null(strstr(reason, "smallest"));
	cis_plan_reason(c, 3, 0, &host, reason, sizeof(reason));
	assert_non_null(strstr(reason, "the fastest restore"));
}

/* A source in memory: pages of text-like bytes between zero pages and one hole. */
#define PAGES 4096

struct fake {
	struct cis_image_source src;
	uint64_t reads;
};

static int fake_next(struct cis_image_source *src, uint64_t from, uint64_t *ret_start, uint64_t *ret_end,
		     struct cis_error *err)
{
	uint64_t half = src->guest_bytes / 2, hole_end = half + 64 * 4096;

	if (from >= src->guest_bytes)
		return -ENXIO;
	*ret_start = from < half ? from : from < hole_end ? hole_end : from;
	*ret_end = from < half ? half : src->guest_bytes;
	return 0;
}

static void fake_page(uint64_t pgno, uint8_t *page)
{
	memset(page, 0, 4096);
	if (pgno % 2)
		for (unsigned i = 0; i < 4096; i += 4)
			page[i] = (uint8_t)(pgno * 31 + i * i / 64);
}

static int fake_read(struct cis_image_source *src, uint64_t off, void *buf, size_t len, struct cis_error *err)
{
	struct fake *f = (struct fake *)src;
	uint64_t half = src->guest_bytes / 2;

	assert_true(off % 4096 == 0 && len % 4096 == 0 && off + len <= src->guest_bytes);
	assert_true(off + len <= half || off >= half + 64 * 4096); /* never in the hole */
	f->reads += len;
	for (size_t at = 0; at < len; at += 4096)
		fake_page((off + at) / 4096, (uint8_t *)buf + at);
	return 0;
}

static struct fake fake_source(void)
{
	return (struct fake){
		.src = { .guest_bytes = PAGES * 4096, .next_data = fake_next, .read = fake_read }
	};
}

static void test_sample_has_only_pages_that_count(void **state)
{
	struct fake f = fake_source();
	struct cis_plan_sample s;

	assert_int_equal(cis_plan_sample_take(&f.src, 65536, 1 << 20, &s, NULL), 0);
	assert_int_equal(s.len, 1 << 20);
	for (size_t at = 0; at < s.len; at += 4096) {
		uint64_t word;

		assert_false(cis_same_word(s.bytes + at, 4096, &word));
	}
	assert_true(f.reads <= 3 << 20);
	cis_plan_sample_fini(&s);
}

static void test_sample_of_little_is_all_of_it(void **state)
{
	struct fake f = fake_source();
	struct cis_plan_sample s;

	assert_int_equal(cis_plan_sample_take(&f.src, 4096, 64 << 20, &s, NULL), 0);
	assert_int_equal(s.len, (PAGES - 64) / 2 * 4096);
	cis_plan_sample_fini(&s);
}

static void test_hot_sample_is_in_their_order(void **state)
{
	const uint32_t hot[] = { 7, 3, 4, 5, 1000000000 }; /* page 4 is zero */
	struct fake f = fake_source();
	struct cis_plan_sample s;
	uint8_t page[4096];

	assert_int_equal(cis_plan_sample_hot(&f.src, hot, 5, 12, 65536, 1 << 20, &s, NULL), 0);
	assert_int_equal(s.len, 3 * 4096);
	for (unsigned i = 0; i < 3; i++) {
		fake_page((const uint32_t[]){ 7, 3, 5 }[i], page);
		assert_memory_equal(s.bytes + i * 4096, page, 4096);
	}
	cis_plan_sample_fini(&s);
	assert_int_equal(cis_plan_sample_hot(&f.src, hot + 2, 1, 12, 65536, 1 << 20, &s, NULL), -ENODATA);
	assert_int_equal(cis_plan_sample_hot(&f.src, &(const uint32_t){ 1 }, 1, 21, 65536, 1 << 20, &s, NULL), 0);
	assert_int_equal(s.len, 1 << 20);
	cis_plan_sample_fini(&s);
}

static int zero_read(struct cis_image_source *src, uint64_t off, void *buf, size_t len, struct cis_error *err)
{
	memset(buf, 0, len);
	return 0;
}

static void test_nothing_but_zeros_is_said(void **state)
{
	struct fake f = fake_source();
	struct cis_plan_sample s;

	f.src.read = zero_read;
	assert_int_equal(cis_plan_sample_take(&f.src, 65536, 1 << 20, &s, NULL), -ENODATA);
}

static void test_measures_every_candidate(void **state)
{
	static const size_t chunk_bytes[] = { 4096, 65536, 2 << 20 };
	struct cis_plan_codec c[CIS_PLAN_MAX];
	struct fake f = fake_source();
	struct cis_plan_sample s;
	struct cis_error err;

	for (size_t k = 0; k < 3; k++) {
		size_t nr = cis_plan_candidates(chunk_bytes[k], c);

		assert_true(nr <= CIS_PLAN_MAX);
		assert_int_equal(cis_plan_sample_take(&f.src, chunk_bytes[k], 4 << 20, &s, NULL), 0);
		for (size_t i = 0; i < nr; i++) {
			int r = cis_plan_measure_codec(&s, &c[i], &err);

			if (r)
				fail_msg("%s at %zu: %s", cis_codec_name(c[i].codec), chunk_bytes[k],
					 err.text);
			assert_true(c[i].ratio >= 1 && c[i].decode_rate > 0 && c[i].encode_rate > 0);
			if (c[i].codec ==
			    CIS_CODEC_MASK) /* a byte of four is not zero, and 8 of 64 bytes are masks */
				assert_true(c[i].ratio > 2 && c[i].ratio < 4);
		}
		cis_plan_sample_fini(&s);
	}
}

static void test_measures_the_host(void **state)
{
	uint8_t bytes[10000];
	double rate = 0;
	struct cis_error err;
	int r;

	memset(bytes, 7, sizeof(bytes));
	assert_int_equal(cis_plan_measure_read("/tmp", bytes, sizeof(bytes), &rate, &err), 0);
	assert_true(rate > 0);
	assert_int_equal(cis_plan_measure_read("/nonexistent", bytes, sizeof(bytes), &rate, &err), -ENOENT);
	r = cis_plan_measure_install(65536, &rate, &err);
	assert_true(r == 0 ? rate > 0 : r == -EPERM || r == -EACCES || r == -ENOSYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cost_is_the_formula),
		cmocka_unit_test(test_slow_media_want_ratio_fast_ones_speed),
		cmocka_unit_test(test_of_equally_fast_the_smallest),
		cmocka_unit_test(test_sample_has_only_pages_that_count),
		cmocka_unit_test(test_sample_of_little_is_all_of_it),
		cmocka_unit_test(test_hot_sample_is_in_their_order),
		cmocka_unit_test(test_nothing_but_zeros_is_said),
		cmocka_unit_test(test_measures_every_candidate),
		cmocka_unit_test(test_measures_the_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
