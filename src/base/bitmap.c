#include "base/bitmap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define BLOCK_BITS  512
#define BLOCK_WORDS (BLOCK_BITS / 64)

static unsigned popcount(uint64_t word)
{
	return (unsigned)__builtin_popcountll(word);
}

uint64_t cis_bitmap_count(const uint64_t *map, uint64_t bits)
{
	uint64_t n = 0;

	for (uint64_t w = 0; w < bits / 64; w++)
		n += popcount(map[w]);
	if (bits % 64)
		n += popcount(map[bits / 64] & (((uint64_t)1 << (bits % 64)) - 1));
	return n;
}

static uint64_t next(const uint64_t *map, uint64_t bits, uint64_t from, uint64_t flip)
{
	if (from >= bits)
		return bits;
	uint64_t w = from / 64, word = (map[w] ^ flip) & (~(uint64_t)0 << (from % 64));

	while (!word) {
		if (++w * 64 >= bits)
			return bits;
		word = map[w] ^ flip;
	}
	uint64_t i = w * 64 + (unsigned)__builtin_ctzll(word);

	return i < bits ? i : bits;
}

uint64_t cis_bitmap_next(const uint64_t *map, uint64_t bits, uint64_t from)
{
	return next(map, bits, from, 0);
}

uint64_t cis_bitmap_next_clear(const uint64_t *map, uint64_t bits, uint64_t from)
{
	return next(map, bits, from, ~(uint64_t)0);
}

int cis_rank_init(struct cis_rank *rank, const uint64_t *map, uint64_t bits)
{
	uint64_t blocks = bits / BLOCK_BITS + 1, words = cis_bitmap_words(bits), sum = 0;
	uint64_t *sums = malloc(blocks * sizeof(*sums));

	if (!sums)
		return -ENOMEM;
	for (uint64_t b = 0; b < blocks; b++) {
		sums[b] = sum;
		for (uint64_t w = b * BLOCK_WORDS; w < (b + 1) * BLOCK_WORDS && w < words; w++)
			sum += popcount(map[w]);
	}
	*rank = (struct cis_rank){ .map = map, .bits = bits, .total = sum, .sums = sums };
	return 0;
}

void cis_rank_fini(struct cis_rank *rank)
{
	free(rank->sums);
	rank->sums = NULL;
}

uint64_t cis_rank_before(const struct cis_rank *rank, uint64_t i)
{
	uint64_t n = rank->sums[i / BLOCK_BITS];

	for (uint64_t w = i / BLOCK_BITS * BLOCK_WORDS; w < i / 64; w++)
		n += popcount(rank->map[w]);
	if (i % 64)
		n += popcount(rank->map[i / 64] & (((uint64_t)1 << (i % 64)) - 1));
	return n;
}

uint64_t cis_rank_select(const struct cis_rank *rank, uint64_t n)
{
	uint64_t lo = 0, hi = rank->bits / BLOCK_BITS + 1;

	assert(n < rank->total);
	while (hi - lo > 1) { /* the last block whose sum is <= n */
		uint64_t mid = lo + (hi - lo) / 2;

		if (rank->sums[mid] <= n)
			lo = mid;
		else
			hi = mid;
	}
	n -= rank->sums[lo];
	for (uint64_t w = lo * BLOCK_WORDS;; w++) {
		uint64_t word = rank->map[w];

		if (n >= popcount(word)) {
			n -= popcount(word);
			continue;
		}
		while (n--)
			word &= word - 1;
		return w * 64 + (unsigned)__builtin_ctzll(word);
	}
}
