/* Bitmaps of 64-bit words, bit i of word w is element 64 w + i; and rank over them. */
#ifndef CIS_BASE_BITMAP_H
#define CIS_BASE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t cis_bitmap_words(uint64_t bits)
{
	return (size_t)((bits + 63) / 64);
}

static inline bool cis_bit_test(const uint64_t *map, uint64_t i)
{
	return (map[i / 64] >> (i % 64)) & 1;
}

static inline void cis_bit_set(uint64_t *map, uint64_t i)
{
	map[i / 64] |= (uint64_t)1 << (i % 64);
}

static inline void cis_bit_clear(uint64_t *map, uint64_t i)
{
	map[i / 64] &= ~((uint64_t)1 << (i % 64));
}

/** cis_bitmap_count() - set bits among the first @bits. */
uint64_t cis_bitmap_count(const uint64_t *map, uint64_t bits);

/** cis_bitmap_next() - first set bit at or after @from, or @bits if there is none. */
uint64_t cis_bitmap_next(const uint64_t *map, uint64_t bits, uint64_t from);

/** cis_bitmap_next_clear() - first clear bit at or after @from, or @bits if there is none. */
uint64_t cis_bitmap_next_clear(const uint64_t *map, uint64_t bits, uint64_t from);

/**
 * struct cis_rank - a bitmap that answers "how many before?" and "where is the n-th?"
 * @map:   the bitmap, owned by the caller, which must outlive this and not change
 * @bits:  its length
 * @total: set bits
 * @sums:  set bits before each block of 512, bits / 512 + 1 entries
 *
 * One 8-byte sum for 64 bytes of bitmap, as in Jacobson's rank with one level
 * (we take blocks of a cache line).  Read-only after init: any thread.
 */
struct cis_rank {
	const uint64_t *map;
	uint64_t bits;
	uint64_t total;
	uint64_t *sums;
};

/** cis_rank_init() - Return: 0 or -ENOMEM. */
int cis_rank_init(struct cis_rank *rank, const uint64_t *map, uint64_t bits);
void cis_rank_fini(struct cis_rank *rank);

/** cis_rank_before() - set bits at positions below @i (i <= bits). */
uint64_t cis_rank_before(const struct cis_rank *rank, uint64_t i);

/** cis_rank_select() - position of the set bit number @n, counted from 0 (n < total). */
uint64_t cis_rank_select(const struct cis_rank *rank, uint64_t n);

#endif
