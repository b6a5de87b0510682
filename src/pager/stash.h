/*
 * The stash: where pages lie that were reclaimed, encoded, until they come back or are in a store.  It is part of the
 * state memfd, so it outlives the engine; page words say what lies where, and nothing else does.
 */
#ifndef CIS_PAGER_STASH_H
#define CIS_PAGER_STASH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "codec/codec.h"
#include "store/log.h"

/**
 * struct cis_value - a page outside of its guest, as it lies in the stash and in stores; the stored bytes follow
 * @checksum: CRC64 of the raw page, seeded with @id
 * @id:       page number << 24 | generation
 * @seq:      evictions of the guest when its eviction began: how far away a refault is
 */
struct cis_value {
	uint64_t checksum, id;
	uint32_t stored_bytes, seq;
	uint8_t codec, zero[7];
};

static inline uint32_t cis_value_bytes(const struct cis_value *v)
{
	return (uint32_t)sizeof(*v) + v->stored_bytes;
}

static inline uint64_t cis_value_id(uint64_t pgno, uint32_t generation)
{
	return pgno << 24 | generation;
}

/** cis_value_check() - is it the value of @id, and may its header be believed?  @room: bytes that are there.  Return: 0 or -EBADMSG. */
int cis_value_check(const struct cis_value *v, uint64_t id, uint64_t room);

/** cis_value_unpack() - decode a page of 4 KiB and compare its checksum.  Return: 0 or -EBADMSG. */
int cis_value_unpack(const struct cis_value *v, struct cis_decoder *dec, void *raw);

/**
 * struct cis_stash - values come from workers and shard, and go by the shard
 */
struct cis_stash {
	char *area;
	uint64_t bytes;
	struct cis_log *log;
	pthread_mutex_t lock; /* of the log */
	uint32_t *queue;      /* of as many slots as there are segments: those that are full, in the order in which they became so */
	uint64_t head, tail;  /* of it */
	bool *queued;	      /* by segment: it is in the queue, once */
	uint32_t open;	      /* the segment that takes values */
	bool *backed;	      /* by segment: it may have memory */
	uint32_t nr_backed, end, look; /* of them; one past the last; where give_back() looks next, downwards */
};

int cis_stash_init(struct cis_stash *s, char *area, uint64_t bytes, uint64_t limit);
void cis_stash_fini(struct cis_stash *s);

/** cis_stash_put() - copy a value in.  Return: its loc; 0: the stash is full. */
uint32_t cis_stash_put(struct cis_stash *s, const struct cis_value *v, const void *stored);

static inline struct cis_value *cis_stash_at(const struct cis_stash *s, uint32_t loc)
{
	return (struct cis_value *)(s->area + cis_log_off(loc));
}

/** cis_stash_copy() - of the value at @loc, which stays; may use what is kept for that.  Return: the copy's loc; 0: the stash is full. */
uint32_t cis_stash_copy(struct cis_stash *s, uint32_t loc);

/** cis_stash_victim() - room is short: the bytes in which the segment lies that is worth emptying most.  Return: false: there is none. */
bool cis_stash_victim(struct cis_stash *s, uint64_t *ret_from, uint64_t *ret_end);

/** cis_stash_free() - the value has another authority, or none. */
void cis_stash_free(struct cis_stash *s, uint32_t loc);

/** cis_stash_claim() - another engine has put the value of @id there.  Return: 0 or -EBADMSG. */
int cis_stash_claim(struct cis_stash *s, uint32_t loc, uint64_t id);

/** cis_stash_seal() - what takes values is full, so that it comes up in its turn. */
void cis_stash_seal(struct cis_stash *s);

/**
 * cis_stash_oldest() - the full segment that has waited longest leaves the queue
 *
 * Return: the byte of the area at which its first value may be, or 0.
 */
uint64_t cis_stash_oldest(struct cis_stash *s);

/** cis_stash_requeue() - the segment of the value at @loc has values still, and comes up again. */
void cis_stash_requeue(struct cis_stash *s, uint32_t loc);

/** cis_stash_limit() - bytes of memory that it may take from now on. */
void cis_stash_limit(struct cis_stash *s, uint64_t limit);

/** cis_stash_used() - bytes of memory; cis_stash_live() - of these in values. */
uint64_t cis_stash_used(struct cis_stash *s);
uint64_t cis_stash_live(struct cis_stash *s);

#endif
