/*
 * What stores of pages share whose servers are reached by network: the requests that are under way, each of which ends by its
 * deadline whatever the servers do, and the descriptor and the timer that drive them.  Internal to this folder.
 *
 * A kind has a struct that begins with a struct cis_remote, and one a request that begins with a struct cis_remote_item.
 */
#ifndef CIS_STORE_REMOTE_H
#define CIS_STORE_REMOTE_H

#include <stdbool.h>
#include <sys/queue.h>

#include "store/store.h"

#define CIS_REMOTE_LAST_NS 30000000000ull /* a request without a deadline ends by then, with -EIO */
#define CIS_REMOTE_KEY_MAX 64

struct cis_remote;

/** struct cis_remote_item - a request under way */
struct cis_remote_item {
	TAILQ_ENTRY(cis_remote_item) all, at;
	TAILQ_HEAD(cis_remote_items, cis_remote_item) *in; /* the list that it is in by @at; NULL: none */
	struct cis_store_req *req;
	uint64_t end_ns;
	int err;
	unsigned key_len;
	char key[CIS_REMOTE_KEY_MAX]; /* its name in the server */
};

/**
 * struct cis_remote_kind - a kind of them
 * @item_bytes: of its struct for a request; zeros at first
 * @queue:  a new one
 * @let_go: nobody waits for an answer to it any more: it ends, or is going to be sent again
 * @event:  of what was given to epoll with @which
 * @drive:  do whatever can be done now.  Return: when it is to be called again
 */
struct cis_remote_kind {
	size_t item_bytes;
	void (*queue)(struct cis_remote *r, struct cis_remote_item *item);
	void (*let_go)(struct cis_remote_item *item);
	void (*event)(struct cis_remote *r, void *which, uint32_t events);
	uint64_t (*drive)(struct cis_remote *r, uint64_t now);
};

struct cis_remote {
	struct cis_store store;
	const struct cis_remote_kind *kind;
	int epoll, timer;
	uint64_t alarm_ns; /* when the timer is set to; UINT64_MAX: it is not */
	uint64_t end_ns;   /* none of the requests ends before */
	TAILQ_HEAD(, cis_remote_item) all;
	struct cis_remote_items finished;
	uint64_t nr_done;
	bool delivering;
};

/** cis_remote_init() - Return: 0 or -errno; cis_remote_fini() is wanted either way. */
int cis_remote_init(struct cis_remote *r, const struct cis_store_ops *ops, const struct cis_remote_kind *kind);
void cis_remote_fini(struct cis_remote *r);

/** cis_remote_place() - into @list, out of wherever it is; NULL: into none. */
void cis_remote_place(struct cis_remote *r, struct cis_remote_item *item, struct cis_remote_items *list);
/** cis_remote_finish() - done will come with @err, when whoever has called the store returns from @drive. */
void cis_remote_finish(struct cis_remote *r, struct cis_remote_item *item, int err);
void cis_remote_finish_all(struct cis_remote *r, struct cis_remote_items *items, int err);

/** cis_remote_pump() - drive it, and call done of what is finished. */
void cis_remote_pump(struct cis_remote *r);

/** cis_remote_backoff() - how long to wait after so many failures in a row: bounded, and not the same for all. */
uint64_t cis_remote_backoff(unsigned failures);

/* struct cis_store_ops. */
void cis_remote_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n);
int cis_remote_fd(struct cis_store *store);
void cis_remote_reap(struct cis_store *store);
void cis_remote_wait(struct cis_store *store, uint64_t deadline_ns);
void cis_remote_cancel(struct cis_store *store, struct cis_store_req *req);

#endif
