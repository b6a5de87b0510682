/*
 * file:DIR, a log-structured store of pages: one handle.
 *
 *	submit ─▶ put: a record in the area's buffer (writing) ──── full, or nothing else of the area is being written ──▶ disk ─▶ done
 *	      ├─▶ get: from such a buffer, or the sectors around the record ─▶ done
 *	      └─▶ delete: bookkeeping ─▶ done
 *	          moving: what is left in a segment that is worth emptying goes the way of puts
 *
 * What is through is put on a list and told last of all (cis_pagefile_go()), so that nothing here is half done when done calls back.
 * The kernel reads and writes buffers of ours alone: a request that is late or cancelled ends at once.
 */
#ifndef CIS_STORE_PAGEFILE_PAGEFILE_H
#define CIS_STORE_PAGEFILE_PAGEFILE_H

#include "store/pagefile/area.h"

#define CIS_WRITE_BYTES (512u << 10)
#define CIS_WRITES	4u
#define CIS_READ_BYTES	(32u << 10) /* around a record takes three sectors at most; of neighbours that are asked for together, more */
#define CIS_READS	32u
#define CIS_MOVE_BYTES	(128u << 10) /* of a segment, looked at in one go; gets queue behind it at the disk */
#define CIS_MOVES_MAX	(CIS_MOVE_BYTES / (2 * CIS_LOG_UNIT))

/** struct cis_writing - a buffer of records: @area NULL: free; @going: on its way.  What it has for moves is @nr_moves from @move on */
struct cis_writing {
	struct cis_aio_op op;
	struct cis_pagefile *store;
	struct cis_area *area;
	bool going, buffered;
	uint8_t *buf;
	uint32_t fill;
	uint64_t off; /* in the file */
	struct cis_reqs puts;
	uint32_t move, nr_moves;
};

/** struct cis_reading - @area NULL: free; @gets: who waits for it still */
struct cis_reading {
	struct cis_aio_op op;
	struct cis_pagefile *store;
	struct cis_area *area;
	struct cis_reqs gets;
	bool buffered;
	uint8_t *buf;
};

enum cis_moving_state { CIS_MOVE_IDLE, CIS_MOVE_READING, CIS_MOVE_COPYING, CIS_MOVE_WRITING };

/** struct cis_move - a value on its way; @err: of its write */
struct cis_move {
	uint64_t id;
	uint32_t from, to;
	int err;
};

/**
 * struct cis_moving - the segment that is being emptied, one at a time
 * @learns: only looked at, for the map: it is of an engine before
 * @failed: no room for copies, or the disk fails: leave it
 * @unit:   where looking goes on, up to @end
 * @move:   of this go, copied; @nr_written of them are on the disk
 */
struct cis_moving {
	struct cis_aio_op op;
	struct cis_pagefile *store;
	struct cis_area *area;
	enum cis_moving_state state;
	bool learns, failed, buffered;
	uint32_t segment, unit, end;
	uint8_t *buf;
	struct cis_move move[CIS_MOVES_MAX];
	uint32_t nr, nr_written;
};

#define CIS_AREA_BUCKETS 64u

struct cis_pagefile {
	struct cis_store store;
	struct cis_aio aio;
	struct cis_pagedir *dir;
	bool (*moved)(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to);
	void *ctx;
	uint64_t most; /* bytes of a file that locs may reach */
	struct cis_area *area[CIS_AREA_BUCKETS];
	struct cis_writing writing[CIS_WRITES];
	struct cis_reading reading[CIS_READS];
	struct cis_moving moving;
	struct cis_reqs gets;	  /* waiting for a reading */
	struct cis_reqs finished; /* with their ends, to be told */
	unsigned nr_waiting;	  /* puts, of all areas */
	uint64_t earliest_ns;	  /* no deadline is before it */
	uint64_t retry_ns;	  /* when a lock is tried again; 0: none is waited for */
	bool again;		  /* something was finished that others may have waited for */
	void *mem;
};

/** cis_pagefile_area() - of a namespace that was used here; or NULL. */
struct cis_area *cis_pagefile_area(struct cis_pagefile *s, const uint64_t ns[2]);

/** cis_pagefile_finish() - the request is in no list; it is going to be told @err. */
void cis_pagefile_finish(struct cis_pagefile *s, struct cis_store_req *req, int err);

/** cis_put() - a put has come.  cis_puts_go(): what waits, where that can be; then what is gathered is written. */
void cis_put(struct cis_pagefile *s, struct cis_area *a, struct cis_store_req *req);
void cis_puts_go(struct cis_pagefile *s);
void cis_writes_go(struct cis_pagefile *s);

/** cis_put_withdraw() - a put that has a place is in no list any more. */
void cis_put_withdraw(struct cis_area *a, struct cis_store_req *req);

/**
 * cis_place() - room for a record in a buffer of the area
 * @spare: as in cis_pagedir_take()
 *
 * Return: 0; -EAGAIN: when a buffer has been written; -ENOSPC.
 */
int cis_place(struct cis_pagefile *s, struct cis_area *a, uint32_t bytes, bool spare, uint32_t *ret_loc, uint8_t **ret_at);

/** cis_get() - a get has come.  cis_gets_go(): what waits for a reading. */
void cis_get(struct cis_pagefile *s, struct cis_area *a, struct cis_store_req *req);
void cis_gets_go(struct cis_pagefile *s);

/** cis_get_withdraw() - a get is in no list any more. */
void cis_get_withdraw(struct cis_pagefile *s, const struct cis_store_req *req);

/** cis_move_want() - the area wants more room.  Return: whether it may get it without anybody's doing. */
bool cis_move_want(struct cis_pagefile *s, struct cis_area *a);

/** cis_move_tidy() - a value of the area is gone; disks are not endless, even where there is room. */
void cis_move_tidy(struct cis_pagefile *s, struct cis_area *a);
void cis_move_go(struct cis_pagefile *s);

/** cis_move_written() - moves from @first on. */
void cis_move_written(struct cis_pagefile *s, uint32_t first, uint32_t nr, int err);

#endif
