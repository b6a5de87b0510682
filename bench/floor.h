/*
 * What a restore cannot do without, and nothing else.
 *
 * The floor: the calls of userfaultfd alone; nothing is read, decoded or verified.  Anonymous memory: one ranged UFFDIO_COPY
 * a run of pages with content, from a buffer that stays in the cache, one UFFDIO_ZEROPAGE a run of zeros.  Allocated memory
 * (a memfd that holds the content already): one UFFDIO_CONTINUE a run.  Runs are those of the whole working set, sorted: no
 * restore has fewer.
 *
 * The bare loop: of an image in the page cache, 256 KiB a read, each chunk decoded (in place where it can be), verified and
 * installed by one call a run; without page states, jobs and faults between them.
 */
#ifndef CIS_BENCH_FLOOR_H
#define CIS_BENCH_FLOOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/codec.h"
#include "image/image.h"
#include "snapshots.h"

/** struct floor_run - pages one after the other; @same: of one repeated @word */
struct floor_run {
	uint32_t pgno, nr;
	bool same;
	uint64_t word;
};

/**
 * enum floor_on - the thread that installs
 * @HERE:      the caller's, which then touches
 * @ELSEWHERE: one on another CPU, as a daemon's usually is; the caller waits for it
 * @BOTH:      half each
 */
enum floor_on { FLOOR_HERE, FLOOR_ELSEWHERE, FLOOR_BOTH };

/** struct floor_part - of one thread: runs, and chunks of the image; */
struct floor_part {
	size_t run, run_end;
	uint64_t chunk, chunk_end;
	char *stored, *buf;
	struct cis_decoder *dec;
};

/**
 * struct floor - one guest's memory
 * @image: of the bare loop, else NULL; @run has no page then that is in a chunk of it
 * @mem:   where the guest has it, after floor_prepare()
 * @alias: the same memory, unregistered, when it is allocated
 */
struct floor {
	const struct bench_snapshot *guest;
	struct cis_image *image;
	bool allocated;
	enum floor_on on;
	char *mem, *alias;
	int memfd, uffd;
	struct floor_run *run;
	size_t nr;
	struct floor_part part[2];
	pthread_t thread;
	pthread_barrier_t turn;
	bool over;
};

/** floor_init() - @image: NULL for the floor */
void floor_init(struct floor *f, const struct bench_snapshot *guest, struct cis_image *image, bool allocated,
		enum floor_on on);
void floor_fini(struct floor *f);

/** floor_prepare() - empty memory, not registered yet. */
void floor_prepare(struct floor *f);

/** floor_restore() - register it and install the working set. */
void floor_restore(struct floor *f);

#endif
