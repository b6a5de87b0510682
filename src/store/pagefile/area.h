/*
 * An area: one namespace's file, and what of it is taken.
 *
 *	 ┌─────────────────────── segment, 1 MiB ───────────────────────┬──
 *	 │ write ───────────────────────────┐ write ──────────┐         │
 *	 │ record record record ... (zeros) │ record (zeros)  │   ...   │
 *	 └──────────────────────────────────┴─────────────────┴─────────┴──
 *	 record:  id 8 bytes, length 4, check 4, value; then zeros to the next unit of 64 bytes
 *
 * A write begins at a sector of its own, and no sector is written twice until its segment was given back: what was acknowledged is never
 * under a pen again.  A segment is
 *
 *	free ─▶ open (the log allocates there) ─▶ full ─▶ empty, and still read or written ─▶ being punched ─▶ free
 *
 * While it is empty and not yet free its last bytes are held: dead for us, alive for the log, so that it is not given out.
 */
#ifndef CIS_STORE_PAGEFILE_AREA_H
#define CIS_STORE_PAGEFILE_AREA_H

#include "store/aio.h"
#include "store/log.h"
#include "store/pagefile/dir.h"
#include "store/pagefile/map.h"
#include "store/store.h"

#define CIS_SECTOR     4096u
#define CIS_RECORD_HEAD 16u
#define CIS_RECORD_MAX (CIS_RECORD_HEAD + CIS_VALUE_MAX + CIS_LOG_UNIT) /* and what is passed over to the next unit */

/** cis_record_bytes() - that a value of @len takes. */
static inline uint32_t cis_record_bytes(uint32_t len)
{
	uint32_t bytes = (CIS_RECORD_HEAD + len + CIS_LOG_UNIT - 1) & ~(CIS_LOG_UNIT - 1);

	return bytes < 2 * CIS_LOG_UNIT ? 2 * CIS_LOG_UNIT : bytes; /* map.h */
}

/** cis_record_write() - all of its bytes. */
void cis_record_write(uint8_t *at, const struct cis_key *key, const void *value, uint32_t len);

/** cis_record_read() - Return: 0 or -ENOENT: no value of this namespace is at @at. */
int cis_record_read(const uint8_t *at, const uint64_t ns[2], uint64_t *ret_id, uint32_t *ret_len);

/** struct cis_reqs - requests, in order */
struct cis_reqs {
	struct cis_store_req *first, **end;
};

static inline void cis_reqs_init(struct cis_reqs *l)
{
	l->first = NULL;
	l->end = &l->first;
}

static inline void cis_reqs_push(struct cis_reqs *l, struct cis_store_req *req)
{
	req->next = NULL;
	*l->end = req;
	l->end = &req->next;
}

static inline struct cis_store_req *cis_reqs_pop(struct cis_reqs *l)
{
	struct cis_store_req *req = l->first;

	l->first = req->next;
	if (!l->first)
		l->end = &l->first;
	return req;
}

/**
 * struct cis_segment - @held: bytes, as above; @pins: reads and writes there that are on their way
 * @claimed: some of its values are of an engine before, and the map has only their first two units
 */
struct cis_segment {
	uint32_t held, pins;
	uint32_t prev, next; /* of those that are listed, or CIS_LOG_NONE */
	bool listed, claimed;
};

/** struct cis_punch - segments that are being given back; @nr 0: none are */
struct cis_punch {
	struct cis_aio_op op;
	struct cis_area *area;
	uint32_t first, nr;
};

struct cis_area {
	struct cis_area *next; /* the store's */
	struct cis_pagedir *dir;
	struct cis_aio *aio;
	uint64_t ns[2];
	int fd;
	bool locked;  /* nobody else writes, and the kernel is through with what the one before wrote */
	bool dropped; /* and goes when its last op is done */
	bool tired;   /* nothing was gained by moving; until the next delete */
	unsigned ops; /* on their way in the kernel, or waiting for it */
	uint32_t nr_claimed; /* segments */
	struct cis_log *log;
	uint64_t *map;
	struct cis_segment *segment;
	uint32_t nr;	  /* segments */
	uint32_t open;	  /* the log's, or CIS_LOG_NONE */
	uint32_t counted; /* segments that are in dir->used */
	uint32_t spare;	  /* taken of those that are kept for moves, and not returned yet: puts wait */
	uint32_t empty;	  /* the first segment of the list of those that are to be given back, or CIS_LOG_NONE */
	struct cis_punch punch;
	struct cis_reqs puts;	    /* waiting for room, for a buffer, or for the lock */
	struct cis_writing *gather; /* where records are being put; not on its way yet */
	unsigned writes;	    /* on their way */
};

/**
 * cis_area_open() - the file of a namespace
 * @make: if it is not there
 * @most: bytes that locs may reach
 *
 * Return: 0, -ENOENT, -errno.
 */
int cis_area_open(struct cis_pagedir *dir, struct cis_aio *aio, const uint64_t ns[2], bool make, uint64_t most, struct cis_area **ret);

/** cis_area_drop() - the file has no name any more: forget it when its last op is done. */
void cis_area_drop(struct cis_area *a);

/** cis_area_destroy() - leave the file to whoever comes next. */
void cis_area_destroy(struct cis_area *a);

/** cis_area_hold(), cis_area_let_go() - an op; the last one of a dropped area ends it. */
void cis_area_hold(struct cis_area *a);
void cis_area_let_go(struct cis_area *a);

/**
 * cis_area_lock() - from now on this is the only one who writes
 *
 * The kernel has the file open for as long as a write is on its way, even of a process that is dead, and so the lock too.
 *
 * Return: whether it is locked; what an engine before has left, and nobody claimed, is being given back then.
 */
bool cis_area_lock(struct cis_area *a);

/** cis_area_go_buffered() - an op came back with -EINVAL; @tried: its own.  Return: whether it is to be tried through the page cache. */
bool cis_area_go_buffered(struct cis_area *a, bool *tried);

/** cis_area_take() - room for a record of @bytes; @spare: as in cis_pagedir_take().  Return: its loc or 0. */
uint32_t cis_area_take(struct cis_area *a, uint32_t bytes, bool spare);

/** cis_area_has() - is there a value at @loc? */
bool cis_area_has(const struct cis_area *a, uint32_t loc);

void cis_area_free(struct cis_area *a, uint32_t loc);

int cis_area_claim(struct cis_area *a, uint32_t loc);

/** cis_area_learn() - a claimed value at @loc takes @bytes.  Return: whether that can be. */
bool cis_area_learn(struct cis_area *a, uint32_t loc, uint32_t bytes);

/** cis_area_learnt() - all values of a segment are. */
void cis_area_learnt(struct cis_area *a, uint32_t segment);

/** cis_area_pin(), cis_area_unpin() - bytes of a segment are being read or written. */
void cis_area_pin(struct cis_area *a, uint32_t segment);
void cis_area_unpin(struct cis_area *a, uint32_t segment);

/** cis_area_gives_back() - is some segment about to be free? */
static inline bool cis_area_gives_back(const struct cis_area *a)
{
	return a->punch.nr || (a->locked && a->empty != CIS_LOG_NONE);
}

static inline uint32_t cis_segment_of(uint32_t loc)
{
	return (uint32_t)(cis_log_off(loc) / CIS_SEGMENT);
}

#endif
