/*
 * A world for the pager in which everything is simulated and a seeded scheduler decides what happens next: vCPU threads
 * that touch pages, a balloon that gives them back, workers that fill, a store that answers late, wrongly or not at all; and a
 * kill -9 between any two steps that the pager takes, after which another one adopts what is left.
 *
 * The kernel's part follows userfaultfd as measured: faults are read before events whatever their order; installs fail with
 * EAGAIN from a REMOVE's madvise() until its caller has run on, maybe half way; EEXIST on pages that are there; a fault that
 * was read is told again only after a wake.
 */
#ifndef TESTS_UNIT_PAGER_MODEL_H
#define TESTS_UNIT_PAGER_MODEL_H

#include <setjmp.h>
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
	bool minor, protected;
	bool writes;  /* what it is about to do */
	bool faulted; /* and has not got its page since */
};

/* madvise(MADV_DONTNEED or MADV_REMOVE) in flight */
struct balloon {
	enum { IDLE, EVENT_UNREAD, EVENT_READ, RUNS_ON } state;
	uint64_t first, nr;
};

#define FAR_MAX	  512u
#define PAGE_REQS 256u

/* a value in the store of pages */
struct far {
	uint64_t id;
	uint32_t loc, len;
	_Alignas(8) uint8_t value[CIS_VALUE_MAX];
};

struct world {
	uint64_t seed, rnd;
	enum memory {
		ANONYMOUS,
		COPIED,	 /* shared memory that is copied to */
		ALIASED, /* shared memory that is filled in place */
		PRIVATE, /* mapped from a base that clones share */
	} memory;
	uint64_t clock_ns;

	struct cis_image *img;
	uint8_t *content;	/* the image's */
	uint8_t *ref;		/* what each page reads as */
	uint64_t split;		/* a page at which the kernel's mapping ends and another begins, without our knowing */
	uint8_t *mem;		/* the guest's memory; ALIASED: the memfd too */
	uint8_t *base;		/* PRIVATE: what the clones share */
	bool own[PAGES];	/* PRIVATE: the guest has a page of its own, and does not see the base's */
	bool present[PAGES];	/* mapped in the guest */
	bool cached[PAGES];	/* shared: in the memfd, and stays there when the host drops the mapping */
	bool poisoned[PAGES];
	bool watched[PAGES];	/* registered for that */
	bool wp[PAGES];		/* protected against writes */
	struct vcpu vcpu[VCPUS];
	struct balloon balloon[BALLOONS];

	struct cis_scratch *scratch, *worker[JOBS];
	struct cis_region regions[2];
	struct cis_pager_opts opts;
	struct cis_pager *pager; /* NULL: dead */
	void *state_map;
	struct cis_state state;
	struct cis_fill_job *job[JOBS];
	bool job_over[JOBS];
	struct cis_evict_job *evict[JOBS];
	bool evict_over[JOBS];
	struct cis_reclaim_opts reclaim;

	struct cis_store pages;
	struct far far[FAR_MAX];
	unsigned nr_far;
	bool says_locs;
	uint32_t next_loc;
	struct cis_store_req *page_req[PAGE_REQS];
	unsigned nr_page_reqs;

	struct cis_store store, job_store;
	struct cis_store_req *held[128];
	unsigned nr_held;
	unsigned trouble; /* one in so many reads fails; 0: none */
	bool late;	  /* the store answers later */
	enum cis_policy policy;
	bool can_kill;
	unsigned to_kill; /* times that it was told to; nobody dies of it here */
	bool stalls;	  /* somebody waits for a page that could not be produced */
	uint64_t failed, touches, removes;
	uint64_t prefetched;
	uint64_t evictions, returns, far_returns; /* pages reclaimed, back from the stash, from the store */

	/* death */
	bool mortal, moves; /* it may be killed; it may be asked to stand still */
	unsigned walks;	    /* its threads go on by so many pages, for the most part */
	bool aside;	    /* the guest runs on while the pager is at something */
	unsigned crash_in; /* at that many chances from now; 0: not */
	jmp_buf crashed;
	bool in_claim;	     /* in cis_pager_next_job(), which would leak */
	bool left[PAGES];    /* installed by one that died before its word could say so */
	struct cis_fill_job *settling;
	unsigned jobs_before;
	struct cis_pager *adopting;
	unsigned layout;
	uint64_t generation, crashes, handovers;
	bool pausing, waking;

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
