/*
 * Where values lie in an area that is written front to back, segment by segment: the allocator of the stash and of file:.
 *
 * A value never spans segments.  A segment whose values have all gone is free and can be given back to whoever lends the
 * memory; one of which little is left is emptied by moving that (cis_log_victim()), as in a log-structured file system
 * (Rosenblum and Ousterhout 1991).  No list of what lies where is kept: the page words are that list, and after a crash they say
 * what is live (cis_log_claim()).
 *
 * Pure bookkeeping: touches no byte of the area.  One thread at a time.
 */
#ifndef CIS_STORE_LOG_H
#define CIS_STORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#define CIS_LOG_UNIT 64u /* a loc counts these: 32 bits reach 256 GiB */

struct cis_log;

/**
 * cis_log_create() - @bytes: of the area, a multiple of @segment, which is a power of two; @limit: of those that may be in use
 *
 * Return: 0, -ENOMEM, -EINVAL (an area that 32 bits of units do not reach).
 */
int cis_log_create(uint64_t bytes, uint32_t segment, uint64_t limit, struct cis_log **ret);
void cis_log_destroy(struct cis_log *log);

/** cis_log_limit() - from now on; what is over it drains as values go. */
void cis_log_limit(struct cis_log *log, uint64_t limit);

/**
 * cis_log_alloc() - room for a value
 * @spare: may use the segments that are kept for moving values out of others
 *
 * Return: its loc, never 0; 0: there is no room.
 */
uint32_t cis_log_alloc(struct cis_log *log, uint32_t bytes, bool spare);

/** cis_log_room() - bytes that the open segment can still take. */
uint32_t cis_log_room(const struct cis_log *log);

/** cis_log_align() - the next value of the open segment begins at a multiple of @bytes, a power of two; what is passed over is lost. */
void cis_log_align(struct cis_log *log, uint32_t bytes);

/** cis_log_claim() - a value that another log had allocated; before the first alloc.  Return: false where none can be. */
bool cis_log_claim(struct cis_log *log, uint32_t loc, uint32_t bytes);

#define CIS_LOG_NONE UINT32_MAX

/** cis_log_free() - the value is gone.  Return: the segment that has become free by that, or CIS_LOG_NONE. */
uint32_t cis_log_free(struct cis_log *log, uint32_t loc, uint32_t bytes);

/**
 * cis_log_victim() - the segment that is worth emptying most: room is short and less than three quarters of it live
 * Return: its number or CIS_LOG_NONE.
 */
uint32_t cis_log_victim(const struct cis_log *log);

/** cis_log_seal() - the open segment takes no more values: the next one begins another.  Return: its number or CIS_LOG_NONE. */
uint32_t cis_log_seal(struct cis_log *log);

static inline uint64_t cis_log_off(uint32_t loc)
{
	return (uint64_t)loc * CIS_LOG_UNIT;
}

uint32_t cis_log_segment_bytes(const struct cis_log *log);
/** cis_log_live(), cis_log_used() - bytes of values; of the segments that they lie in. */
uint64_t cis_log_live(const struct cis_log *log);
uint64_t cis_log_used(const struct cis_log *log);
/** cis_log_segment_live() - bytes of values in one segment. */
uint32_t cis_log_segment_live(const struct cis_log *log, uint32_t segment);

/** cis_log_memory() - bytes that the bookkeeping takes. */
uint64_t cis_log_memory(const struct cis_log *log);

#endif
