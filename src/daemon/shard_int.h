/* What a shard and its seats share. */
#ifndef CIS_DAEMON_SHARD_INT_H
#define CIS_DAEMON_SHARD_INT_H

#include <stdatomic.h>

#include "daemon/page_stores.h"
#include "daemon/shard.h"
#include "daemon/stores.h"
#include "daemon/turns.h"

struct cis_shard {
	pthread_t thread;
	int epoll;
	struct cis_mailbox box;
	struct cis_mailbox *control;
	struct cis_awake *awake;
	struct cis_workers *workers;
	struct cis_scratch *scratch;
	struct cis_stores stores;
	struct cis_page_stores page_stores;
	struct cis_store no_store; /* stands for one that cannot be opened, for this reason: */
	int no_store_rc;
	struct cis_seat *timed; /* those with a deadline */
	struct cis_turns turns; /* of those that have something to do */
	bool stop;
	atomic_uint seats;
};

struct cis_seat {
	struct cis_turn turn; /* first: the seat is found by it */
	struct cis_shard *shard;
	struct cis_pager *pager;
	int uffd;
	struct cis_layers *layers;
	enum cis_fill fill, told;
	bool detach, adopted, leaving, left, pausing, paused, is_timed;
	unsigned jobs_out;
	uint64_t event_ns, burst, full_ns, held_ns; /* its rate, see hold_back(); held_ns: until then, 0: it is not */
	void (*notice)(void *notice);
	void *ctx;
	struct cis_seat *next_timed;

	/* seat_pages.c */
	struct cis_reclaim_opts reclaim;
	char *pages; /* the name, or NULL */
	struct cis_page_user page_user;
	struct cis_store *sealed; /* around the shard's handle, or NULL */
	struct cis_state_header *header; /* of its state */
	uint64_t pages_ns; /* when to try to open it again; 0: not to */
	bool pages_told;   /* that it cannot be opened */
};

/* Of the shard's thread. */

/** cis_seat_notify() - tell the control thread. */
void cis_seat_notify(struct cis_seat *seat, const struct cis_notice *what);

/** cis_seat_open_pages() - if it has a store of pages that is not open; trouble is told, and when to try again. */
void cis_seat_open_pages(struct cis_seat *seat);

/** cis_seat_part_pages() - nothing of it is in flight there. */
void cis_seat_part_pages(struct cis_seat *seat);

/** cis_seat_change_pages() - see cis_seat_reclaim(). */
int cis_seat_change_pages(struct cis_seat *seat, const struct cis_reclaim_opts *opts, const char *pages, struct cis_error *err);

/**
 * cis_seat_forget_pages() - the guest has ended: delete what its store has of it, and part from that
 * @err: code 0, or why it was left there
 *
 * Return: false: to be called again.
 */
bool cis_seat_forget_pages(struct cis_seat *seat, struct cis_error *err);

/** cis_seat_ready() - there is something to do for it: it gets a turn. */
void cis_seat_ready(struct cis_seat *seat);

/** cis_seat_event() - its userfaultfd has something to say: EPOLLIN, EPOLLERR. */
void cis_seat_event(struct cis_seat *seat, uint32_t events);

/** cis_seat_serve() - its turn.  It may be the last of the seat: another thread frees it when it has left. */
void cis_seat_serve(struct cis_seat *seat);

/** cis_seat_deadline() - when there will be something to do though nothing happens; UINT64_MAX: not by time. */
uint64_t cis_seat_deadline(const struct cis_seat *seat);

/** cis_seat_due() - that time has come. */
void cis_seat_due(struct cis_seat *seat, uint64_t now);

#endif
