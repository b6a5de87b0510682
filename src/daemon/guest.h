/*
 * A guest, from the moment it is expected until it is forgotten.  Control thread only.
 *
 *	EXPECTED ──handshake──▶ FILLING ──hot section in──▶ FILLED ──all in──▶ INDEPENDENT ──gets a budget──▶ FILLED
 *	    any of them ──monitor exits, or the guest is given up──▶ GONE
 *
 * A guest that another engine has served is in the state in which that one left it.  While it cannot be served (its image is
 * not there) it is stalled: it waits, and is tried again every second.
 */
#ifndef CIS_DAEMON_GUEST_H
#define CIS_DAEMON_GUEST_H

#include <jansson.h>

#include "daemon/budget.h"
#include "daemon/engine.h"
#include "daemon/host_budget.h"
#include "vmm/handshake.h"

enum cis_guest_state { CIS_GUEST_EXPECTED, CIS_GUEST_FILLING, CIS_GUEST_FILLED, CIS_GUEST_INDEPENDENT, CIS_GUEST_GONE };

const char *cis_guest_state_name(enum cis_guest_state state);
int cis_guest_state_parse(const char *text);

#define CIS_GUEST_ID_MAX 64
#define CIS_GONE_MAX	 1024u /* gone guests that stay listed */

/** struct cis_guest_opts - what PUT /v1/guests/{id} says; strings are copied */
struct cis_guest_opts {
	const char *image;
	const char *socket; /* NULL: beside the control socket */
	const char *kind;   /* "firecracker" or "client" */
	const char *store;  /* layers; NULL: the daemon's */
	enum cis_policy policy;
	enum cis_fill fill;
	bool record;
	struct cis_budget budget;
	bool pinned; /* its pages must stay where they are: it has no budget */
	const uint64_t *ns; /* NULL: a new one */
	uint32_t uid, gid; /* UINT32_MAX: the daemon's */
};

/** struct cis_guest_watch - somebody who waits for a guest's state to change */
struct cis_guest_watch {
	void (*changed)(struct cis_guest_watch *watch, struct cis_guest *guest); /* @guest NULL: deleted */
	struct cis_guest_watch *next;
};

struct cis_guest {
	struct cis_engine *engine;
	char id[CIS_GUEST_ID_MAX + 1];
	uint64_t serial; /* also the id of its listener */
	enum cis_guest_state state;
	bool listening;
	bool unbound; /* it was, with the keeper before */
	int listen_error; /* errno, when it is forgotten because of it */
	char *image_path, *socket, *kind, *store;
	struct cis_layers *layers; /* that its images are read through, or NULL */
	struct cis_image *image; /* NULL once gone, or not opened yet by an engine that follows */
	bool has_image_id;
	uint8_t image_id[CIS_IMAGE_ID_BYTES];
	uint64_t nr_pages;
	unsigned page_shift;
	enum cis_policy policy;
	enum cis_fill fill;
	bool record;
	struct cis_budget budget;
	bool pinned;
	uint64_t ns[2]; /* its namespace in stores of pages */
	uint64_t share; /* of the host's budget; UINT64_MAX: there is none, or it takes no part */
	struct cis_guest_host host;
	char error[sizeof(((struct cis_error *)0)->text)];

	/* the connection */
	struct cis_conn *conn;
	struct cis_peer peer; /* also when it has gone */
	bool accepted;	      /* its handshake is complete and fits */
	bool acked;	      /* it may run, and was told so if it asked */
	bool adopted;	      /* another engine has served it */
	bool in_place;	      /* its memfd is filled in place */
	bool begun;	      /* it is being served */
	bool stalled;	      /* it cannot be served now and waits; error says why */
	struct cis_guest_memory memory;
	struct cis_region *regions; /* as the pager has them; NULL before it could be served */
	size_t nr_regions;
	void *map; /* of the memfd, or NULL */
	uint64_t map_bytes;
	struct cis_state state_map;
	bool is_locked; /* it, in memory */
	struct cis_seat *seat;
	bool leaving, deleted, paused, draining, handed;
	unsigned nr_pages_named; /* that failed, in this second; and those that were only counted */
	uint64_t nr_pages_unnamed;
	unsigned ledger_slot; /* of one that has gone; 0: none */
	bool is_known; /* what it had counted when it could not be served */
	struct cis_seat_report last; /* of a guest that has gone, as its pages */
	uint64_t last_pages[CIS_PAGE_STATES];
	uint32_t *trace;	     /* recorded by a guest that went before it was stopped */
	uint64_t nr_trace;
	bool has_trace;

	struct cis_guest_watch *watches;
	struct cis_guest *next_serial; /* of its bucket */
};

/** cis_guest_shown_state() - "stalled", or the name of the state that it is in. */
const char *cis_guest_shown_state(const struct cis_guest *g);

/** cis_guest_id_ok() - is it an id that the API allows? */
bool cis_guest_id_ok(const char *id);

struct cis_guest *cis_guest_find(struct cis_engine *e, const char *id);

/**
 * cis_guest_put() - expect a guest
 * @ret: not listening yet: its watches are called when it is, or, with NULL, when that failed
 *
 * Return: 0; -EEXIST; -EBUSY (too many); -ENOTCONN (no keeper); as cis_image_open().
 */
int cis_guest_put(struct cis_engine *e, const char *id, const struct cis_guest_opts *opts, struct cis_guest **ret,
		  struct cis_error *err);

/** cis_guest_delete() - forget one; @force kills its monitor.  Return: 0, -EBUSY. */
int cis_guest_delete(struct cis_guest *g, bool force, struct cis_error *err);

/**
 * cis_guest_change_budget() - while it runs; it is noted, for the engines that follow
 *
 * Return: 0; -EINVAL (it does not run, or its memory cannot be reclaimed; the text says why), -EBUSY (it is being
 * drained); as cis_pager_reclaim().
 */
int cis_guest_change_budget(struct cis_guest *g, const struct cis_budget *budget, bool pinned, struct cis_error *err);

/** cis_guest_limit() - bytes of its memory that may be resident now; UINT64_MAX: all. */
uint64_t cis_guest_limit(const struct cis_guest *g);

/** cis_guest_is_limited() - does it have a budget? */
bool cis_guest_is_limited(const struct cis_guest *g);

/** cis_guest_record() - start, or stop and write the trace to @path.  Return: 0, -EALREADY, -EINVAL (wrong state), of the file. */
int cis_guest_record_start(struct cis_guest *g, struct cis_error *err);
int cis_guest_record_stop(struct cis_guest *g, const char *path, uint64_t *ret_pages, struct cis_error *err);

/** cis_guest_report() - figures, now or as they were when it went.  Return: false when it never connected. */
bool cis_guest_report(struct cis_guest *g, struct cis_seat_report *ret);

/** cis_guest_render() - as the API shows it; a new reference. */
json_t *cis_guest_render(struct cis_guest *g);

/** cis_guest_pages() - pages by state; @ret has CIS_PAGE_STATES entries. */
void cis_guest_pages(const struct cis_guest *g, uint64_t *ret);

/** cis_guest_resident(), cis_guest_stashed(), cis_guest_far() - bytes of its memory that are there; that were reclaimed and are in its stash; in a store. */
uint64_t cis_guest_resident(const struct cis_guest *g);
uint64_t cis_guest_stashed(const struct cis_guest *g);
uint64_t cis_guest_far(const struct cis_guest *g);

void cis_guest_watch(struct cis_guest *g, struct cis_guest_watch *watch);
void cis_guest_unwatch(struct cis_guest *g, struct cis_guest_watch *watch);

/** cis_guest_tick() - once a second: guests whose end nobody reports. */
void cis_guest_tick(struct cis_engine *e);

/** cis_guest_link_ops - what the engine does when the keeper speaks; ctx is the engine. */
extern const struct cis_keeper_link_ops cis_guest_link_ops;

#endif
