/*
 * The pager: page states of one guest, and all that moves its pages.
 *
 * A pager is driven by one thread, its guest's shard: that thread alone reads the guest's userfaultfd and writes its page
 * words, so states need no locks.  Bulk work is handed out as fill jobs, which any worker thread may run: of the pages that the
 * shard has claimed for a job its worker makes those RESIDENT that it installs, and the shard gives back the others.
 *
 * What the world is made of comes in from outside (kernel calls, clock, stores), so that a model test can drive the pager
 * through any interleaving.  Nothing here logs, sleeps or exits.
 *
 *	ABSENT ──fault, zero page──▶ zero installed ─▶ RESIDENT
 *	ABSENT ──fault, chunk──▶ BUSY ─read, decode, verify, install─▶ RESIDENT
 *	ABSENT ──fill job──▶ BUSY ─▶ RESIDENT, or ABSENT again when the job could not
 *	any ──REMOVE──▶ REMOVED ──fault──▶ zero installed ─▶ RESIDENT
 *	RESIDENT/CLEAN ──reclaim──▶ held: write-protected, copied ─▶ punched ─▶ STASHED, REMOVED (all zero) or ABSENT (as in the image)
 *	STASHED/FAR ──fault──▶ verify, install ─▶ RESIDENT
 *	any ──cannot be produced──▶ POISONED, or the guest is killed, or it waits (and is tried again once a second)
 */
#ifndef CIS_PAGER_PAGER_H
#define CIS_PAGER_PAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/hist.h"
#include "image/image.h"
#include "pager/scratch.h"
#include "pager/state.h"
#include "store/store.h"

/**
 * enum cis_kind - kind of memory of a region
 * @CIS_KIND_ANONYMOUS: private anonymous; pages are copied in
 * @CIS_KIND_SHARED:    a memfd mapped MAP_SHARED by the guest
 * @CIS_KIND_PRIVATE:   MAP_PRIVATE of a base memfd that clones share: clean pages are
 *                      mapped from it, never copied
 */
enum cis_kind { CIS_KIND_ANONYMOUS, CIS_KIND_SHARED, CIS_KIND_PRIVATE };

const char *cis_kind_name(enum cis_kind kind);

/**
 * struct cis_region - one contiguous range of guest memory
 * @hva:       where it is in the guest's process
 * @bytes:     a multiple of the image's page size, as are @hva and @offset
 * @offset:    in the memory file
 * @alias:     the same memory mapped in this process, at @offset of its memfd, or NULL.  With it
 *             pages are decoded in place and mapped by CONTINUE: right for
 *             memory that is allocated already; without it they are copied
 * @huge:      backed by hugetlb pages
 * @view:      shared: the same memory mapped in this process, for reclaim to read and to punch; NULL: its pages stay
 */
struct cis_region {
	uint64_t hva, bytes, offset;
	enum cis_kind kind;
	bool huge;
	char *alias, *view;
};

/**
 * struct cis_pager_os - the kernel calls that a pager makes; see os/uffd.h for their meaning
 *
 * All but read may be called from worker threads.
 */
struct cis_pager_os {
	int (*read)(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n);
	int (*copy)(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done);
	int (*zero)(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done);
	int (*cont)(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done);
	int (*poison)(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done);
	int (*wake)(void *ctx, uint64_t dst, uint64_t len);
	int (*unregister)(void *ctx, uint64_t addr, uint64_t len);
	int (*watch)(void *ctx, uint64_t addr, uint64_t len, bool minor); /* register it for writes too, whatever it was before */
	int (*allocate)(void *ctx, void *addr, uint64_t len); /* of this process: -ENOMEM instead of SIGBUS */
	int (*copy_protected)(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done);
	int (*protect)(void *ctx, uint64_t addr, uint64_t len, bool on); /* against writes; off: wakes who waited */
	int (*punch)(void *ctx, void *addr, uint64_t len); /* of this process: the memory behind it is gone, everywhere */
	bool (*present)(void *ctx, void *addr); /* of this process: is there memory behind the page? */
};

/** cis_pager_os_uffd - the real ones; ctx points to the descriptor (int). */
extern const struct cis_pager_os cis_pager_os_uffd;

enum cis_policy { CIS_POLICY_POISON, CIS_POLICY_KILL, CIS_POLICY_STALL };

const char *cis_policy_name(enum cis_policy policy);
/** cis_policy_parse() - Return: the policy or -EINVAL. */
int cis_policy_parse(const char *text);

/**
 * struct cis_pager_stats - counters of one guest; written by the shard, read by anyone
 *
 * Faults count once each, by what answered them.  It lies in the state memfd, so that counting
 * goes on under the next engine: new fields only go to the end.
 */
struct cis_pager_stats {
	uint64_t faults_zero;	   /* a page that the image says is zero */
	uint64_t faults_demand;	   /* a chunk was read */
	uint64_t faults_same;	   /* a repeated word */
	uint64_t faults_removed;   /* a page that the guest gave back */
	uint64_t faults_resident;  /* was there already: late, or a second thread */
	uint64_t faults_deferred;  /* had to wait for the address space, a job or a read */
	uint64_t faults_failed;	   /* could not be produced */
	uint64_t pages_demand;	   /* installed for a fault */
	uint64_t pages_neighbour;  /* installed beside one */
	uint64_t pages_filled;	   /* installed by a fill */
	uint64_t pages_zero;	   /* zero pages installed, by fault or fill */
	uint64_t pages_removed;	   /* by REMOVE events */
	uint64_t removes;	   /* REMOVE events */
	uint64_t reads, bytes_read; /* chunk reads and stored bytes */
	uint64_t errors_read, errors_timeout, errors_damaged; /* reads that failed, took too long, or gave wrong bytes */
	uint64_t retries;	   /* reads tried again */
	uint64_t poisoned, stalled, recovered; /* pages that could not be produced, by what was done; recovered: came after all */
	uint64_t held_back;	   /* times that its rate was reached; counted by the shard */
	uint64_t killed;	   /* guests, 0 or 1; by the engine, which does it */
	uint64_t again;		   /* EAGAIN from the kernel */
	struct cis_hist fault_ns;  /* from reading the event to waking the guest */
	struct cis_hist queue_ns, read_ns, decode_ns, verify_ns, install_ns; /* by stage: of every eighth read */
	uint64_t faults_stashed;   /* a page that was reclaimed came from the stash */
	uint64_t faults_written;   /* a page that was protected was written to */
	uint64_t evictions;	   /* pages reclaimed, these among them: */
	uint64_t evicted_zero, evicted_clean;
	uint64_t evictions_given_up; /* removed meanwhile, no room, or the address space was changing */
	uint64_t stash_full;	   /* reclaim stopped since the stash had no room */
	uint64_t faults_stolen;	   /* of faults_stashed: while the page was being written to the store */
	uint64_t faults_far;	   /* a page came from the store */
	uint64_t gets, puts, deletes, bytes_got, bytes_put; /* that the store has answered rightly */
	uint64_t errors_get, errors_put;
	uint64_t pages_prefetched; /* brought back though nobody had asked for them yet */
	uint64_t probes, probe_hits; /* pages that would have been, but were left out to see whether they are asked for */
	uint64_t spared;	   /* pages that stayed when their turn to be reclaimed had come, since they come back soon */
};

/**
 * enum cis_outcome - what comes of a page that cannot be produced
 * @CIS_OUTCOME_KILL:  by policy, or where the kernel has no POISON; it stalls until the guest is dead
 * @CIS_OUTCOME_STALL: whoever touched it waits, and it is tried again once a second
 * @CIS_OUTCOME_LEFT:  only the fill wanted it; the policy comes when it is touched
 */
enum cis_outcome { CIS_OUTCOME_POISON, CIS_OUTCOME_KILL, CIS_OUTCOME_STALL, CIS_OUTCOME_LEFT };

struct cis_pager;

/** enum cis_trouble - what had to wait: somebody who touched a page, a fill, which pauses, or pages that are to go to their store */
enum cis_trouble { CIS_TROUBLE_FAULT, CIS_TROUBLE_FILL, CIS_TROUBLE_PUT };

/**
 * struct cis_pager_opts - what a pager is made of; all pointers must outlive it
 * @regions:    copied; sorted or not, not overlapping in hva or offset, within the image
 * @image:      referenced
 * @state:      of cis_state_init(); nr_pages is the image's
 * @scratch:    buffers of the shard, shared by its pagers
 * @store_of:   the shard's store handle for an image of the chain
 * @neighbours: install the rest of a chunk with the page that faulted
 * @policy:     when a page cannot be produced
 * @can_kill:   whoever runs the guest can be killed; else kill is stall
 * @tries:      reads of a chunk whose bytes turn out to be damaged, at least 1
 * @store_deadline_ns: for so long since the fault a read that fails is tried again;
 *              one that does not end by then is given up.  0: a read may take for
 *              ever, and fails once
 * @failed:     a page cannot be produced; called once a page, and once with
 *              CIS_OUTCOME_KILL, which the callee has to do
 * @recovered:  all of the pages that stalled somebody have come after all; may be NULL
 * @trouble:    something of a store has failed and will be tried again; called at most each TROUBLE_TOLD_NS; may be NULL
 * @gone:       the guest's address space is no more; called once
 * @adopt:      @state is of cis_state_adopt(): an engine that is gone has left it.  REMOVEs that it had read are
 *              acted on, its unfinished installs are given up; cis_pager_wake_all() is to follow, when
 *              the guest is being served
 * @generation: with @adopt, of this engine
 * @stirred:    a read has ended outside cis_pager_run(), which wants to be called
 *              again, or cis_pager_quiesce(); may be NULL
 */
struct cis_pager_opts {
	size_t size;
	const struct cis_region *regions;
	size_t nr_regions;
	struct cis_image *image;
	struct cis_state state;
	const struct cis_pager_os *os;
	void *os_ctx;
	cis_clock_fn clock;
	void *clock_ctx;
	struct cis_scratch *scratch;
	struct cis_store *(*store_of)(void *ctx, const struct cis_image *img);
	bool neighbours;
	enum cis_policy policy;
	bool can_kill;
	unsigned tries;
	uint64_t store_deadline_ns;
	bool adopt;
	uint64_t generation;
	void (*failed)(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err);
	void (*recovered)(void *ctx);
	void (*trouble)(void *ctx, enum cis_trouble what, const struct cis_error *err);
	void (*gone)(void *ctx);
	void (*stirred)(void *ctx);
	void *ctx;
};

/**
 * cis_pager_create() - make one for a guest that nobody serves yet, or with @adopt not any more
 *
 * Return: 0, -EINVAL (regions do not fit the image, or not the way in which the guest was
 * served before; the text says how), -EBADMSG (@state cannot be), -ENOMEM.
 */
int cis_pager_create(const struct cis_pager_opts *opts, struct cis_pager **ret, struct cis_error *err);

/** cis_pager_destroy() - no job or read is in flight (cis_pager_quiesce()).  NULL-safe. */
void cis_pager_destroy(struct cis_pager *p);

/** cis_pager_quiesce() - cancel reads.  Return: true when nothing is in flight any more. */
bool cis_pager_quiesce(struct cis_pager *p);

/**
 * cis_pager_run() - read and act on events, and on what was put off and is due
 *
 * Called when the userfaultfd is readable, when cis_pager_deadline() has come,
 * and after @stirred.  Bounded: some 40 us and the fault at hand, so that a storm
 * of events does not keep the shard from its other guests.
 *
 * Return: true when there may be more to do at once.
 */
bool cis_pager_run(struct cis_pager *p);

/** cis_pager_slice() - what the last cis_pager_run() took, and how many events it acted on. */
void cis_pager_slice(const struct cis_pager *p, uint64_t *ret_ns, unsigned *ret_events);

/** cis_pager_deadline() - when cis_pager_run() wants to be called again, on the clock; UINT64_MAX: not by time. */
uint64_t cis_pager_deadline(const struct cis_pager *p);

/**
 * cis_pager_wake_all() - let every thread that waits for a page fault again
 *
 * A fault that another engine had read is not delivered again otherwise (vmm-protocols.md
 * hazard 10).  A call a region, 0.5 us without waiters.
 */
void cis_pager_wake_all(struct cis_pager *p);

/**
 * cis_pager_pause() - stand still, so that another engine may take over
 *
 * From the first call on nothing new is begun: no events are read, no jobs handed
 * out, no reads tried again; those under way are cancelled.  To be called again
 * after @stirred and after cis_pager_job_done() until it is true.
 *
 * Return: true when nothing is in flight: no word changes and nothing is installed
 * any more until cis_pager_resume(); the pager may be destroyed then.
 */
bool cis_pager_pause(struct cis_pager *p);

/** cis_pager_resume() - go on as if nothing had happened; cis_pager_run() is to follow. */
void cis_pager_resume(struct cis_pager *p);

const struct cis_pager_stats *cis_pager_stats(const struct cis_pager *p);

/** cis_pager_held_back() - count that on the shard; cis_pager_killed() - and that, on any thread, which is always the same. */
void cis_pager_held_back(struct cis_pager *p);
void cis_pager_killed(struct cis_pager *p);

/** cis_pager_pages() - pages by state, counted as they change; @ret has CIS_PAGE_STATES entries.  Any thread. */
void cis_pager_pages(const struct cis_pager *p, uint64_t *ret);

/** cis_pager_state_of() - for tests and tools. */
enum cis_page_state cis_pager_state_of(const struct cis_pager *p, uint64_t pgno);

/** cis_pager_memory() - bytes that this guest costs the engine, the image and the state memfd counted apart. */
size_t cis_pager_memory(const struct cis_pager *p);

/* Reclaim. */

/**
 * struct cis_reclaim_opts - how much of a guest may be resident, and where the rest goes
 * @budget_pages: UINT64_MAX: all
 * @stash_bytes:  that the stash may take
 * @pages:  the shard's handle of the store that pages are written to from there, or NULL; as long as the pager has it.  What an engine
 *          before has there is claimed
 * @ns:     the guest's namespace in it: never another one, as long as pages are far
 * @keep_bytes: with a store, what may lie in the stash before pages are written out
 * @codec:  of pages in the stash
 * @prefetch: bring pages back that are likely to be asked for next
 * @sync:   evict one page right before another comes, on the shard: what FluidMem measures first, and exact.  Else in batches
 *          on workers, ahead of the faults
 */
struct cis_reclaim_opts {
	uint64_t budget_pages;
	uint64_t stash_bytes;
	struct cis_store *pages;
	uint64_t ns[2], keep_bytes;
	enum cis_codec codec;
	bool sync, prefetch;
};

/**
 * cis_pager_reclaim() - from now on
 *
 * A guest that was detached is watched again.  Pages go in the order in which they came (FluidMem's list, which it calls LRU;
 * nothing tells which pages are read, see doc/design/008); with @sync exactly so, else those that came back soon stay for some turns.
 *
 * A guest that is being filled gets as much as its budget has room for, and what was reclaimed comes back when the budget
 * rises, if all of it is wanted (cis_pager_fill()).  It is filled wholly only when there is no budget any more.
 *
 * Return: 0; -EOPNOTSUPP (no region has a view; a state memfd of an older layout; a kernel that cannot protect shared memory
 * against writes), -ENOMEM.
 */
int cis_pager_reclaim(struct cis_pager *p, const struct cis_reclaim_opts *opts, struct cis_error *err);

/** cis_pager_resident() - pages in the guest now; any thread. */
uint64_t cis_pager_resident(const struct cis_pager *p);

/** cis_pager_remote() - pages that were reclaimed and have content. */
uint64_t cis_pager_remote(const struct cis_pager *p);

/** cis_pager_far() - pages that the store has, or is about to have. */
uint64_t cis_pager_far(const struct cis_pager *p);

/**
 * cis_pager_part() - from the handle of the store, which is going to be closed; until cis_pager_reclaim() brings one
 *
 * Whoever touches a page that is there waits, as for a store that does not answer.
 *
 * Return: false: something is in flight, as never after cis_pager_pause().
 */
bool cis_pager_part(struct cis_pager *p);

/** cis_pager_refaults() - faults on pages that had been reclaimed, as long as this pager is; any thread. */
uint64_t cis_pager_refaults(const struct cis_pager *p);

/** cis_pager_stash_bytes() - memory that the stash takes; any thread. */
uint64_t cis_pager_stash_bytes(struct cis_pager *p);

/** cis_pager_moved() - see struct cis_pages_opts; the namespace is this pager's. */
bool cis_pager_moved(struct cis_pager *p, const struct cis_key *key, uint32_t from, uint32_t to);

/**
 * cis_pager_forget_far() - the guest has ended: delete what the store has of it
 *
 * Nothing else is in flight (cis_pager_quiesce()).
 *
 * Return: 0 when that is done; -EAGAIN: to be called again after @stirred; -EIO: the store does not delete, -ENOTCONN: there is no
 * handle of it, and what it has stays there.
 */
int cis_pager_forget_far(struct cis_pager *p);

struct cis_evict_job;

/** cis_pager_next_evict() - the next pages to reclaim, for a worker; NULL: none now.  Shard. */
struct cis_evict_job *cis_pager_next_evict(struct cis_pager *p);
/** cis_evict_job_step() - on a worker, until it is false. */
bool cis_evict_job_step(struct cis_evict_job *job, struct cis_scratch *scratch);
/** cis_pager_evict_done() - on the shard; frees it. */
void cis_pager_evict_done(struct cis_pager *p, struct cis_evict_job *job);

/* Recording of first touches. */

/**
 * cis_pager_record_start() - from now on each first touch is seen alone: no neighbours, and the fill pauses
 *
 * Return: 0, -EALREADY, -ENOMEM.
 */
int cis_pager_record_start(struct cis_pager *p);

/** cis_pager_record_stop() - @ret: malloc'ed page numbers in the order of their first touch.  Return: 0, -EINVAL, -ENOMEM. */
int cis_pager_record_stop(struct cis_pager *p, uint32_t **ret, uint64_t *ret_nr);
bool cis_pager_recording(const struct cis_pager *p);
/** cis_pager_recorded() - first touches so far. */
uint64_t cis_pager_recorded(const struct cis_pager *p);

/* Fill. */

enum cis_fill { CIS_FILL_NONE, CIS_FILL_HOT, CIS_FILL_ALL };

const char *cis_fill_name(enum cis_fill fill);
int cis_fill_parse(const char *text);

/** cis_pager_fill() - begin to fill; asks for more than before, never for less. */
void cis_pager_fill(struct cis_pager *p, enum cis_fill what);

/** cis_pager_filled() - the level that is complete now. */
enum cis_fill cis_pager_filled(const struct cis_pager *p);

/** cis_pager_progress() - pages that fill jobs have dealt with, and those that there are, for the level asked for. */
void cis_pager_progress(const struct cis_pager *p, uint64_t *ret_done, uint64_t *ret_total);

/**
 * cis_pager_detach() - unregister all regions of a guest that is filled wholly
 *
 * From then on the kernel serves it: what was never stored reads as zeros, and the
 * guest needs neither image nor daemon.  Return: 0, -EBUSY when pages are missing
 * or it can never be.
 */
int cis_pager_detach(struct cis_pager *p);

/**
 * cis_pager_can_detach() - would it, once the guest is filled?
 *
 * Not with private memory: what the guest gives back would read as its base again.
 */
bool cis_pager_can_detach(const struct cis_pager *p);

struct cis_fill_job;

/** cis_pager_next_job() - a job to hand to a worker, or NULL.  The caller bounds how many are out at once. */
struct cis_fill_job *cis_pager_next_job(struct cis_pager *p);

/** cis_pager_fill_later() - there is no memory to hand one out with: the fill pauses, and cis_pager_deadline() says until when. */
void cis_pager_fill_later(struct cis_pager *p);

/**
 * cis_pager_scans() - did cis_pager_next_job() break off after as many filled pages as a turn has time for?
 *
 * cis_pager_deadline() is now then, and the next call goes on from there.
 */
bool cis_pager_scans(const struct cis_pager *p);

/**
 * cis_fill_job_begin() - start to read, so that it goes on while other jobs are stepped; on the thread that steps it
 * @scratch: the worker's
 * @store:   the worker's handle for cis_fill_job_image(); one that is NULL fails the job
 *
 * A job that was begun must be stepped to its end.  Return: true when its bytes are here already.
 */
bool cis_fill_job_begin(struct cis_fill_job *job, struct cis_scratch *scratch, struct cis_store *store);

/**
 * cis_fill_job_step() - begin if that was not done, wait for the bytes; then decode, verify and install one chunk a step
 *
 * Return: true while there is more to do.
 */
bool cis_fill_job_step(struct cis_fill_job *job, struct cis_scratch *scratch, struct cis_store *store);
const struct cis_image *cis_fill_job_image(const struct cis_fill_job *job);

/** cis_pager_job_done() - settle a job on the shard; frees it. */
void cis_pager_job_done(struct cis_pager *p, struct cis_fill_job *job);

#endif
