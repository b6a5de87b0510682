/*
 * Stores: backends that keep chunks or pages.  Asynchronous and batched from the first day.
 *
 * A store handle belongs to one thread (a shard or a worker): that thread submits, polls cis_store_fd() and reaps, and
 * every done call comes on it.  What threads share is behind the ops (a descriptor, a connection).
 */
#ifndef CIS_STORE_STORE_H
#define CIS_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum cis_store_op { CIS_STORE_GET, CIS_STORE_PUT, CIS_STORE_DELETE, CIS_STORE_DROP };

/**
 * struct cis_key - names an object in a store; an image file has one object and ignores it
 * @ns: a guest's namespace, 128 random bits
 * @id: in the namespace; of a page its number << 24 | generation
 */
struct cis_key {
	uint64_t ns[2];
	uint64_t id;
};

/**
 * struct cis_store_req - one request; the caller's until done is called
 * @op:   get, put, delete, or drop: a part of a namespace, see @drops of struct cis_store_ops
 * @key:  the object
 * @off:  get: first byte of the object
 * @len:  get: bytes wanted, all or an error, of a store of pages the room for the value;
 *        put: bytes to write
 * @buf:  the caller's; must stay until done.  A get whose @off, @len and @buf are
 *        multiples of 4096 may bypass the page cache
 * @skip, @want: get: only bytes [skip, skip + want) of it are needed; the rest may
 *        be left unread.  want 0: all.  So a request can be aligned for the disk
 *        and yet copy no more than it must from the page cache
 * @loc:  where a store of pages has it: set by put before done, given back by the caller
 *        with get and delete.  0 where the store finds by key.  A put that failed may
 *        have left its value there nevertheless, as when its deadline came while it was
 *        answered: whoever cannot wait for a drop deletes it, with the loc that put has set.
 *        A value is deleted once: a delete that failed or was given up may have been
 *        done, and its loc be another's
 * @got:  get from a store of pages: bytes of the value, set before done
 * @deadline_ns: on cis_now_ns(); 0 = none.  Past it done comes with -ETIMEDOUT
 * @done: called exactly once, maybe before cis_store_submit() returns; @err is 0
 *        or -errno (-ENOENT: no such object, -ENODATA: shorter than off + len, -EMSGSIZE:
 *        a value longer than @len, -ENOSPC: no room for one more)
 * @ctx:  the caller's
 */
struct cis_store_req {
	enum cis_store_op op;
	struct cis_key key;
	uint64_t off;
	uint32_t len;
	uint32_t skip, want;
	uint32_t loc, got;
	void *buf;
	uint64_t deadline_ns;
	void (*done)(struct cis_store_req *req, int err);
	void *ctx;

	/* the store's */
	struct cis_store_req *next;
	uint32_t progress;
	unsigned flags;
};

struct cis_store;

/**
 * struct cis_store_ops - a kind of store; NULL means that it cannot
 *
 * Stores of pages keep small values (a page, encoded, with a checksum; CIS_VALUE_MAX) under keys.  What a put has acknowledged, a
 * get gives back byte for byte until it is deleted or its namespace dropped; puts never replace: a page that is written again gets another
 * generation, and so another key.  All requests for one namespace go through one handle.
 *
 * @ops_size: sizeof, so that older stores keep loading
 * @submit:   takes @n requests
 * @fd:       readable when reap has something to do; -1 when it never has
 * @reap:     calls done for what is finished; never blocks
 * @wait:     blocks until something is finished, at most until @deadline_ns
 * @cancel:   makes done come soon, with -ECANCELED unless it was finished
 * @close:    no request is in flight; NULL-safe
 * @claim:    of a store of pages that says locs: a handle before had put this there,
 *            and it is wanted still; before the first put for its namespace.  Return: 0;
 *            -ENOENT: there can be none; -errno: it cannot be looked at
 * @drop:     forget a whole namespace, none of whose requests is in flight, at once; never blocks for long.  NULL:
 *            it takes requests
 * @drops:    so many CIS_STORE_DROP, with @id 0, 1, ..., together forget a whole namespace, whatever is there; 0: the
 *            caller deletes key by key
 */
struct cis_store_ops {
	size_t ops_size;
	const char *name;
	void (*submit)(struct cis_store *store, struct cis_store_req **reqs, size_t n);
	int (*fd)(struct cis_store *store);
	void (*reap)(struct cis_store *store);
	void (*wait)(struct cis_store *store, uint64_t deadline_ns);
	void (*cancel)(struct cis_store *store, struct cis_store_req *req);
	void (*close)(struct cis_store *store);
	int (*claim)(struct cis_store *store, const struct cis_key *key, uint32_t loc);
	void (*drop)(struct cis_store *store, const uint64_t ns[2]);
	unsigned drops;
};

/** struct cis_store - the head of every store's own struct */
struct cis_store {
	const struct cis_store_ops *ops;
};

static inline void cis_store_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	store->ops->submit(store, reqs, n);
}

static inline int cis_store_fd(struct cis_store *store)
{
	return store->ops->fd(store);
}

static inline void cis_store_reap(struct cis_store *store)
{
	store->ops->reap(store);
}

static inline void cis_store_wait(struct cis_store *store, uint64_t deadline_ns)
{
	store->ops->wait(store, deadline_ns);
}

static inline void cis_store_cancel(struct cis_store *store, struct cis_store_req *req)
{
	store->ops->cancel(store, req);
}

/** cis_store_claim() - 0 where the store says no locs. */
static inline int cis_store_claim(struct cis_store *store, const struct cis_key *key, uint32_t loc)
{
	return store->ops->claim ? store->ops->claim(store, key, loc) : 0;
}

void cis_store_close(struct cis_store *store);

#define CIS_VALUE_MAX (4096u + 256u) /* bytes of a page's value */

/**
 * struct cis_pages_opts - how a store of pages is opened
 * @moved: the store, which makes room, has copied a value from one loc to another; asked when the copy is complete, from
 *         submit, reap or wait, and must not call the store.  Return: true: it is at @to from now on; false: it stays
 *         at @from, where its delete comes or the next try finds it, or a request that is ready and not submitted yet.
 *         NULL: nothing is moved, room comes from deletes alone
 * @ctx:   of @moved
 * @loc_bits: of locs, the lower ones, that the store may use; 0: all 32
 */
struct cis_pages_opts {
	size_t size;
	bool (*moved)(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to);
	void *ctx;
	unsigned loc_bits;
};

/** cis_pages_check() - is this the name of a store of pages?  Return: 0 or -EINVAL, with what is wrong at which place. */
int cis_pages_check(const char *url, struct cis_error *err);

/** cis_pages_show() - its name without what is secret in it; cut off at @size. */
void cis_pages_show(const char *url, char *buf, size_t size);

/**
 * cis_pages_is_stash() - is it memory:, which cannot be opened?
 *
 * What is reclaimed stays in the stash then, the part of the state that is memory (pager/stash.h): no store is below it.
 */
bool cis_pages_is_stash(const char *url);

/** cis_pages_sealed_in() - of sealed:NAME, NAME: which store the sealed values go to, see cis_sealed_open(); else NULL. */
const char *cis_pages_sealed_in(const char *url);

/**
 * cis_pages_open() - a handle of a store of pages: file:DIR, memcached://..., valkey://..., tier:...; cistern-stores(7) has the syntax
 *
 * The handle is the calling thread's.  Whether the store can be reached and may be trusted to keep what it is given is
 * found out by the first requests, or by cis_pages_probe(): opening never waits.
 */
int cis_pages_open(const char *url, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err);

/**
 * cis_pages_probe() - waits, up to @timeout_ns, until it is known whether the store is there and safe for pages
 * @err: also written on success, with code 0: its text, unless empty, is what an operator should know nevertheless
 *
 * Return: 0 or -errno (-EPERM: it may lose what it is given, -EACCES: it refuses us, -ETIMEDOUT).
 */
int cis_pages_probe(const char *url, uint64_t timeout_ns, struct cis_error *err);

/** cis_store_get() - one get, waited for; for tools and workers.  Return: 0 or -errno. */
int cis_store_get(struct cis_store *store, struct cis_key key, uint64_t off, void *buf, uint32_t len);

/**
 * cis_store_file_open() - one read-only file, such as an image
 * @fd: duplicated
 *
 * What is in the page cache is read at once, in submit; the rest by io_uring,
 * past the page cache when the request allows it.
 */
int cis_store_file_open(int fd, struct cis_store **ret, struct cis_error *err);

/**
 * cis_store_throttle_open() - a wrapper that reads at a given rate, as a slower medium would
 * @inner:         taken over, also on failure
 * @bytes_per_sec: token rate
 *
 * One handle is one medium: requests queue behind each other.
 */
int cis_store_throttle_open(struct cis_store *inner, uint64_t bytes_per_sec, struct cis_store **ret,
			    struct cis_error *err);

#endif
