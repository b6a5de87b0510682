/*
 * A world for the pager in which everything is simulated and a seeded scheduler decides what happens next: vCPU threads
 * that touch pages, a balloon that gives them back, workers that fill, a store that answers late, wrongly or not at all.
 *
 * The kernel's part follows userfaultfd as measured: faults are read before events whatever their order; installs fail with
 * EAGAIN from a REMOVE's madvise() until its caller has run on, maybe half way; EEXIST on pages that are there; a fault that
 * was read is told again only after a wake.
 */
#ifndef TESTS_UNIT_PAGER_MODEL_H
#define TESTS_UNIT_PAGER_MODEL_H

#include <stdbool.h>

#include "pager/pager.h"
#include "pager-image.h"

#define PAGES	 96u
#define HVA	 0x7f0000000000ull
#define VCPUS	 4u
#define BALLOONS 2u
#define JOBS	 3u
#define EVENTS	 64u

enum touch { RUNS, WAITS_UNREAD, WAITS_READ };

struct vcpu {
	enum touch state;
	uint64_t pgno;
	bool minor;
	bool faulted; /* and has not got its page since */
};

/* madvise(MADV_DONTNEED or MADV_REMOVE) in flight */
struct balloon {
	enum { IDLE, EVENT_UNREAD, EVENT_READ, RUNS_ON } state;
	uint64_t first, nr;
};

struct world {
	uint64_t seed, rnd;
	bool alias;  /* shared memory that is filled in place */
	bool copied; /* shared memory that is copied to; neither: anonymous */
	uint64_t clock_ns;

	struct cis_image *img;
	uint8_t *ref;		/* what each page reads as */
	uint64_t split;		/* a page at which the kernel's mapping ends and another begins, without our knowing */
	uint8_t *mem;		/* the guest's memory; for alias the memfd too */
	bool present[PAGES];	/* mapped in the guest */
	bool cached[PAGES];	/* shared: in the memfd, and stays there when the host drops the mapping */
	bool poisoned[PAGES];
	struct vcpu vcpu[VCPUS];
	struct balloon balloon[BALLOONS];

	struct cis_scratch *scratch, *worker[JOBS];
	struct cis_pager *pager;
	void *state_map;
	struct cis_fill_job *job[JOBS];
	bool job_over[JOBS];

	struct cis_store store, job_store;
	struct cis_store_req *held[128];
	unsigned nr_held;
	unsigned trouble; /* one in so many reads fails; 0: none */
	bool late;	  /* the store answers later */
	uint64_t failed, touches, removes;
	const char *wrong; /* what was seen that must never be */
	uint64_t wrong_page;
};

void world_open(struct world *w, uint64_t seed, const char *dir);
/** world_step() - one random thing happens.  Return: false when something is wrong. */
bool world_step(struct world *w);
/** world_settle() - nothing new happens, all that is under way goes on.  Return: false when a thread waits for ever. */
bool world_settle(struct world *w);
void world_close(struct world *w);

#endif
