/*
 * Shards: threads that serve guests.  Each guest sits on exactly one, which reads its userfaultfd and writes its page words.
 *
 * The control thread makes a seat for a guest, lets it sit down, and hears of it by notices in its own mailbox.
 */
#ifndef CIS_DAEMON_SHARD_H
#define CIS_DAEMON_SHARD_H

#include "daemon/mailbox.h"
#include "daemon/worker.h"
#include "pager/pager.h"
#include "store/layers.h"

struct cis_awake;
struct cis_shard;
struct cis_seat;

/** cis_shard_create() - a thread.  @control: where notices go.  Return: 0 or -errno. */
int cis_shard_create(unsigned nr, struct cis_workers *workers, struct cis_mailbox *control,
		     struct cis_awake *awake, struct cis_shard **ret);

/** cis_shard_destroy() - no seat is left. */
void cis_shard_destroy(struct cis_shard *shard);

/** cis_shard_forget() - close store handles of an image, or through layers, that none of the shard's guests uses any more. */
void cis_shard_forget(struct cis_shard *shard, const struct cis_image *img, const struct cis_layers *layers);

/** cis_shard_seats() - guests that sit on it now; control thread. */
unsigned cis_shard_seats(const struct cis_shard *shard);

enum cis_notice_type {
	CIS_NOTICE_FILLED, /* level says how far */
	CIS_NOTICE_FAILED, /* a page cannot be produced; outcome says what comes of it, kill has to be done */
	CIS_NOTICE_TROUBLE, /* something of a store has failed, and is tried again */
	CIS_NOTICE_RECOVERED, /* all pages that somebody waited for have come */
	CIS_NOTICE_GONE,   /* its address space is no more */
	CIS_NOTICE_LEFT,   /* after cis_seat_leave(): the seat may be destroyed; err: why a store keeps pages of it, code 0: none does */
	CIS_NOTICE_PAUSED, /* after cis_seat_pause(): nothing of it is in flight */
};

/** struct cis_notice - for the control thread, which frees it */
struct cis_notice {
	enum cis_notice_type type;
	void *ctx;
	enum cis_fill level;
	uint64_t pgno;
	enum cis_outcome outcome;
	enum cis_trouble what;
	struct cis_error err;
};

/**
 * struct cis_seat_opts - a guest to be served
 * @pager:  opts of its pager; what the shard knows (os, clock, scratch, stores,
 *          callbacks) is filled in
 * @uffd:   borrowed until the seat is destroyed
 * @layers: that its images are read through, or NULL; as long as @uffd
 * @fault_rate, @fault_burst: events a second, and beyond that at once, that it is answered; 0: no limit
 * @fill:   how far to fill
 * @detach: let the kernel serve the guest alone once it is filled wholly
 * @record: from the first touch on
 * @reclaim: its budget, or NULL; no handle of a store
 * @pages:  name of the store that its pages may go to, or NULL; opened when it sits down, and tried again where that fails
 * @notice: called on the control thread, through its mailbox
 */
struct cis_seat_opts {
	struct cis_pager_opts pager;
	int uffd;
	struct cis_layers *layers;
	unsigned fault_rate, fault_burst;
	enum cis_fill fill;
	bool detach, record;
	const struct cis_reclaim_opts *reclaim;
	const char *pages;
	void (*notice)(void *notice);
	void *ctx;
};

/** cis_seat_create() - on the control thread.  Return: as cis_pager_create() and cis_pager_reclaim(). */
int cis_seat_create(struct cis_shard *shard, const struct cis_seat_opts *opts, struct cis_seat **ret,
		    struct cis_error *err);
/** cis_seat_sit() - serve from now on. */
void cis_seat_sit(struct cis_seat *seat);
/** cis_seat_fill() - further than it was asked to; wholly means that it is detached then. */
void cis_seat_fill(struct cis_seat *seat, enum cis_fill fill);
/**
 * cis_seat_reclaim() - another budget; waits for the shard
 * @pages: as in struct cis_seat_opts; another one than before only as long as none has pages of it
 *
 * Return: as cis_pager_reclaim(), -EBUSY (there are), -errno (it cannot be opened); nothing has changed then.
 */
int cis_seat_reclaim(struct cis_seat *seat, const struct cis_reclaim_opts *opts, const char *pages, struct cis_error *err);
/** cis_seat_is_filled() - is it filled wholly now?  Notices of that may be late; only cis_seat_reclaim() makes it untrue again. */
bool cis_seat_is_filled(const struct cis_seat *seat);
/** cis_seat_leave() - serve no more; CIS_NOTICE_LEFT follows when nothing is in flight. */
void cis_seat_leave(struct cis_seat *seat);
/**
 * cis_seat_pause() - stand still, so that another engine may take over; CIS_NOTICE_PAUSED follows
 *
 * The guest's state does not change then until cis_seat_resume().  It may leave meanwhile.
 */
void cis_seat_pause(struct cis_seat *seat);
void cis_seat_resume(struct cis_seat *seat);
/** cis_seat_destroy() - never sat down, or has left. */
void cis_seat_destroy(struct cis_seat *seat);

/** struct cis_seat_report - what the shard knows at one instant */
struct cis_seat_report {
	struct cis_pager_stats stats;
	uint64_t recorded;
	bool recording;
	uint64_t fill_done, fill_total;
	size_t memory_bytes;
	uint64_t stash_bytes;
};

/** cis_seat_report() - asks the shard and waits for it; control thread. */
void cis_seat_report(struct cis_seat *seat, struct cis_seat_report *ret);

/** cis_seat_killed() - whoever runs the guest was, by its policy; control thread. */
void cis_seat_killed(struct cis_seat *seat);

/** cis_seat_pages() - its pages by state, without asking the shard; @ret has CIS_PAGE_STATES entries. */
void cis_seat_pages(const struct cis_seat *seat, uint64_t *ret);

/** cis_seat_memory() - likewise: pages asked for after they were reclaimed, and what memory those take that are now. */
void cis_seat_memory(struct cis_seat *seat, uint64_t *ret_refaults, uint64_t *ret_stash_bytes);

/** cis_seat_record_start(), cis_seat_record_stop() - likewise; see cis_pager_record_start(). */
int cis_seat_record_start(struct cis_seat *seat);
int cis_seat_record_stop(struct cis_seat *seat, uint32_t **ret, uint64_t *ret_nr);

#endif
