/* Every implementation of mask that this CPU runs stores the same bytes and refuses the same damage. */
#include <errno.h>

#include "check.h"
#include "codec-data.h"
#include "codec/mask.h"

#define CHUNK_MAX (256u << 10)

static struct fence raw, stored, out;
static uint8_t first[CHUNK_MAX];

static int setup(void **state)
{
	assert_int_equal(fence_init(&raw, CHUNK_MAX), 0);
	assert_int_equal(fence_init(&stored, CHUNK_MAX), 0);
	assert_int_equal(fence_init(&out, CHUNK_MAX), 0);
	return 0;
}

static int teardown(void **state)
{
	fence_fini(&raw);
	fence_fini(&stored);
	fence_fini(&out);
	return 0;
}

/* The one that plain C gives, in @first. */
static size_t encode_first(enum data_kind kind, size_t len, uint64_t seed)
{
	data_make(kind, fence_end(&raw, len), len, seed);
	return cis_mask_impl(0)->encode(fence_end(&raw, len), len, first);
}

static void decode_by_all(const uint8_t *bytes, size_t n, size_t len, int want)
{
	memcpy(fence_end(&stored, n), bytes, n);
	for (unsigned i = 0; cis_mask_impl(i); i++)
		assert_int_equal(cis_mask_impl(i)->decode(fence_end(&stored, n), n, fence_end(&out, len), len), want);
}

static void bytes_are_the_same(void **state)
{
	for (size_t len = 4096; len <= CHUNK_MAX; len += len < 32768 ? 4096 : 57344) {
		for (enum data_kind kind = 0; kind < DATA_KINDS; kind++) {
			size_t n = encode_first(kind, len, len);

			assert_true(n < len);
			if (kind == DATA_RANDOM || kind == DATA_SPARSE)
				assert_int_equal(n == 0, kind == DATA_RANDOM);
			for (unsigned i = 1; cis_mask_impl(i); i++) {
				uint8_t *dst = fence_end(&stored, len);

				assert_int_equal(cis_mask_impl(i)->encode(fence_end(&raw, len), len, dst), n);
				assert_memory_equal(dst, first, n);
			}
			if (n) {
				decode_by_all(first, n, len, 0);
				assert_memory_equal(fence_end(&out, len), fence_end(&raw, len), len);
			}
		}
	}
}

/* Sizes around that of the raw bytes: the last one that fits is src_len - 1. */
static void what_does_not_shrink_is_refused_alike(void **state)
{
	enum { LEN = 4096, HEAD = LEN / 512 + LEN / 8 };

	for (size_t zeros = HEAD - 70; zeros < HEAD + 70; zeros++) {
		size_t n;

		/* No byte is zero and none equals the one above it, so XOR never helps; but for the zeros in front. */
		for (size_t i = 0; i < LEN; i++)
			fence_end(&raw, LEN)[i] = (uint8_t)(1 + i % 100 + (i / 64 % 2) * 128);
		memset(fence_end(&raw, LEN), 0, zeros);
		n = cis_mask_impl(0)->encode(fence_end(&raw, LEN), LEN, first);
		assert_int_equal(n, zeros > HEAD ? LEN + HEAD - zeros : 0);
		for (unsigned i = 1; cis_mask_impl(i); i++)
			assert_int_equal(cis_mask_impl(i)->encode(fence_end(&raw, LEN), LEN, fence_end(&stored, LEN)), n);
	}
}

static void chooses_xor_only_when_better(void **state)
{
	uint8_t *buf = fence_end(&raw, 4096);
	size_t n;

	memset(buf, 0, 4096);
	memset(buf + 64, 1, 64);      /* line 1: 64 bytes, and so has its XOR with line 0: a tie */
	memset(buf + 128, 1, 64);     /* line 2: as line 1, the XOR is empty */
	memset(buf + 192, 1, 32);     /* line 3: 32 bytes and an XOR of 32: a tie */
	n = cis_mask_impl(0)->encode(buf, 4096, first);
	assert_int_equal(n, 8 + 512 + 64 + 0 + 32);
	assert_int_equal(first[0], 1 << 2);
	assert_int_equal(first[1], 0);
	for (unsigned i = 1; cis_mask_impl(i); i++) {
		assert_int_equal(cis_mask_impl(i)->encode(buf, 4096, fence_end(&stored, 4096)), n);
		assert_memory_equal(fence_end(&stored, 4096), first, n);
	}
}

static void refuses_every_other_length(void **state)
{
	size_t len = 8192, n = encode_first(DATA_POINTERS, len, 3);

	for (size_t cut = 0; cut < n; cut++)
		decode_by_all(first, cut, len, -EBADMSG);
	first[n] = 1;
	decode_by_all(first, n + 1, len, -EBADMSG);
	first[n] = 0;
	decode_by_all(first, n + 1, len, -EBADMSG);
}

static void refuses_a_zero_among_the_bytes(void **state)
{
	size_t len = 4096, n = encode_first(DATA_POINTERS, len, 5);

	for (size_t i = 8 + 512; i < n; i++) {
		uint8_t was = first[i];

		first[i] = 0;
		decode_by_all(first, n, len, -EBADMSG);
		first[i] = was;
	}
	decode_by_all(first, n, len, 0);
}

static void refuses_masks_that_do_not_add_up(void **state)
{
	size_t len = 4096, n = encode_first(DATA_SPARSE, len, 7);

	for (size_t bit = 8 * 8; bit < (8 + 512) * 8; bit++) {
		first[bit / 8] ^= (uint8_t)(1u << (bit % 8));
		decode_by_all(first, n, len, -EBADMSG);
		first[bit / 8] ^= (uint8_t)(1u << (bit % 8));
	}
}

/* A bit moved from one mask to another adds up, and decodes to other bytes: the same ones everywhere. */
static void moved_bits_decode_alike(void **state)
{
	size_t len = 4096, n = encode_first(DATA_SPARSE, len, 9);
	static uint8_t want[4096];
	uint64_t seed = 1;

	for (int round = 0; round < 2000; round++) {
		size_t a = 64 + data_random(&seed) % 4096, b = 64 + data_random(&seed) % 4096;
		unsigned bit_a = first[a / 8] >> (a % 8) & 1, bit_b = first[b / 8] >> (b % 8) & 1;

		first[data_random(&seed) % 8] ^= (uint8_t)(1u << data_random(&seed) % 8);
		if (bit_a != bit_b) {
			first[a / 8] ^= (uint8_t)(1u << (a % 8));
			first[b / 8] ^= (uint8_t)(1u << (b % 8));
		}
		memcpy(fence_end(&stored, n), first, n);
		assert_int_equal(cis_mask_impl(0)->decode(first, n, want, len), 0);
		for (unsigned i = 1; cis_mask_impl(i); i++) {
			assert_int_equal(cis_mask_impl(i)->decode(fence_end(&stored, n), n, fence_end(&out, len), len), 0);
			assert_memory_equal(fence_end(&out, len), want, len);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_are_the_same),
		cmocka_unit_test(what_does_not_shrink_is_refused_alike),
		cmocka_unit_test(chooses_xor_only_when_better),
		cmocka_unit_test(refuses_every_other_length),
		cmocka_unit_test(refuses_a_zero_among_the_bytes),
		cmocka_unit_test(refuses_masks_that_do_not_add_up),
		cmocka_unit_test(moved_bits_decode_alike),
	};

	for (unsigned i = 0; cis_mask_impl(i); i++)
		print_message("implementation: %s\n", cis_mask_impl(i)->name);
	return cmocka_run_group_tests(tests, setup, teardown);
}
