/* A fill job: made and settled by the shard (fill.c), run by a worker (job.c). */
#ifndef CIS_PAGER_JOB_H
#define CIS_PAGER_JOB_H

#include "pager/internal.h"

#define CIS_JOB_PAGES 512u

/**
 * struct cis_fill_job - consecutive chunks of one section, and the pages that start in them
 *
 * The shard fills it in and reads it when it is over; in between it is the
 * worker's.  Page i is the job's while @claimed says so and its word is BUSY
 * with @id.  The shard may take a page away, by changing its word, but not while
 * a worker holds the gate; a worker makes it RESIDENT, and holds the gate.
 */
struct cis_fill_job {
	struct cis_pager *p;
	const struct cis_image *img;
	uint32_t id;
	uint64_t chunk; /* the first one */
	unsigned nr_chunks;
	unsigned at; /* chunks done */
	size_t nr_pages, page_at;
	uint64_t pgno[CIS_JOB_PAGES]; /* in the order of the raw bytes */
	uint64_t claimed[CIS_JOB_PAGES / 64];
	uint64_t installed; /* pages */
	struct cis_iobuf *buf;
	struct cis_span span;
	struct cis_store_req req;
	bool begun, reading;
	bool hot; /* of the hot section of the guest's own image */
	bool gone;
	int rc; /* 0, or why the rest was not done */
	int read_rc; /* how its read ended */
	struct cis_error err;
	uint64_t bytes_read;
};

#endif
