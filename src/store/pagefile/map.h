/*
 * Which units of an area are whose: one bit each, that the unit goes on with the value of the one before.  A value takes at least two
 * units, so a unit begins one when its bit is 0 and the next one's is 1; a unit of nobody has 0 and is not followed by 1, and memory that
 * was never touched says that nothing is there.  One bit in 512, and no list of values.
 */
#ifndef CIS_STORE_PAGEFILE_MAP_H
#define CIS_STORE_PAGEFILE_MAP_H

#include <stdbool.h>
#include <stdint.h>

static inline bool cis_map_bit(const uint64_t *map, uint32_t unit)
{
	return map[unit / 64] >> unit % 64 & 1;
}

/** cis_map_is_value() - does a value begin at @unit?  The map has at least one unit behind it. */
static inline bool cis_map_is_value(const uint64_t *map, uint32_t unit)
{
	return !cis_map_bit(map, unit) && cis_map_bit(map, unit + 1);
}

/** cis_map_units() - of the value that begins at @unit. */
static inline uint32_t cis_map_units(const uint64_t *map, uint32_t unit)
{
	uint32_t n = 1;

	while (cis_map_bit(map, unit + n))
		n++;
	return n;
}

static inline void cis_map_set(uint64_t *map, uint32_t unit, uint32_t units)
{
	for (uint32_t i = unit + 1; i < unit + units; i++)
		map[i / 64] |= 1ull << i % 64;
}

static inline void cis_map_clear(uint64_t *map, uint32_t unit)
{
	for (uint32_t i = unit + 1; cis_map_bit(map, i); i++)
		map[i / 64] &= ~(1ull << i % 64);
}

/** cis_map_next() - the first unit from @unit on and before @end at which a value begins, or @end. */
static inline uint32_t cis_map_next(const uint64_t *map, uint32_t unit, uint32_t end)
{
	for (; unit < end; unit++) {
		if (!(map[unit / 64] >> unit % 64) && (unit | 63) < end)
			unit |= 63; /* whether one begins at the last unit of a word, the next word says */
		if (cis_map_is_value(map, unit))
			return unit;
	}
	return end;
}

#endif
