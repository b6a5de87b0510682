/*
 * A plain model of a store of pages, and requests at random against it: what was acknowledged comes back byte for byte, what
 * was not there or is deleted does not, whatever happens to the servers meanwhile.
 */
#ifndef TESTS_UNIT_PAGES_LOAD_H
#define TESTS_UNIT_PAGES_LOAD_H

#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "check.h"
#include "store/layer.h"
#include "store/store.h"

#define LOAD_PAGES  600
#define LOAD_WINDOW 48

enum load_state { LOAD_ABSENT, LOAD_STORED, LOAD_UNKNOWN /* a put or a delete of it failed */ };

struct load_page {
	enum load_state state;
	uint32_t generation;
	uint32_t loc;
	bool busy;
};

struct load_op {
	struct cis_store_req req;
	struct load *load;
	struct load_page *page;
	bool flying;
	uint8_t buf[CIS_VALUE_MAX];
};

struct load {
	struct cis_store *store;
	uint64_t seed;
	uint64_t deadline_ns; /* from the submit on */
	uint64_t ns[2];
	struct load_page page[LOAD_PAGES];
	struct load_op op[LOAD_WINDOW];
	unsigned flying;
	unsigned done, failed, puts, gets, deletes;
	unsigned lost, revived;			   /* acknowledged, and not there; deleted, and there again */
	int put_err;				   /* what puts end with, where that is a refusal; 0: none */
};

static inline uint64_t load_random(struct load *l)
{
	return l->seed = cis_layer_random(l->seed);
}

static inline struct cis_key load_key(const struct load *l, const struct load_page *page)
{
	return (struct cis_key){ { l->ns[0], l->ns[1] }, (uint64_t)(page - l->page) << 30 | page->generation }; /* each in a hash of its own */
}

/* The bytes of a key: their number and each of them follow from it. */
static inline uint32_t load_value(const struct cis_key *key, uint8_t *buf)
{
	uint64_t x = cis_layer_random(key->id ^ key->ns[0]);
	uint32_t len = x % 8 ? 1 + (uint32_t)(x >> 8) % CIS_VALUE_MAX : CIS_VALUE_MAX;

	for (uint32_t i = 0; i < len; i++) {
		if (i % 8 == 0)
			x = cis_layer_random(x);
		buf[i] = (uint8_t)(x >> i % 8 * 8);
	}
	return len;
}

static inline void load_check_get(struct load *l, struct load_op *op, int err)
{
	uint8_t expected[CIS_VALUE_MAX];
	uint32_t len = load_value(&op->req.key, expected);

	if (!err) {
		l->revived += op->page->state == LOAD_ABSENT;
		assert_int_equal(op->req.got, len);
		assert_memory_equal(op->buf, expected, len);
	} else if (err == -ENOENT && op->page->state == LOAD_STORED) {
		op->page->state = LOAD_ABSENT;
		l->lost++;
	}
}

static inline void load_done(struct cis_store_req *req, int err)
{
	struct load_op *op = req->ctx;
	struct load *l = op->load;

	assert_true(op->flying);
	op->flying = op->page->busy = false;
	l->flying--;
	l->done++;
	if (err && err != -ENOENT && !(l->put_err && err == l->put_err)) {
		if (err != -ETIMEDOUT && err != -EIO && err != -ECANCELED)
			fail_msg("a request ended with %s", strerror(-err));
		l->failed++;
	}
	if (req->op == CIS_STORE_GET) {
		l->gets++;
		load_check_get(l, op, err);
		return;
	}
	op->page->state = err ? LOAD_UNKNOWN : req->op == CIS_STORE_PUT ? LOAD_STORED : LOAD_ABSENT;
	op->page->loc = req->loc;
	l->puts += req->op == CIS_STORE_PUT && !err;
	l->deletes += req->op == CIS_STORE_DELETE && !err;
}

static inline struct load_op *load_free_op(struct load *l)
{
	for (size_t i = 0; i < LOAD_WINDOW; i++)
		if (!l->op[i].flying)
			return &l->op[i];
	return NULL;
}

static inline void load_begin(struct load *l, struct load_op *op, struct load_page *page, enum cis_store_op what)
{
	op->load = l;
	op->page = page;
	if (what == CIS_STORE_PUT)
		page->generation++;
	op->req = (struct cis_store_req){
		.op = what, .key = load_key(l, page), .buf = op->buf, .loc = page->loc, .done = load_done, .ctx = op,
		.len = CIS_VALUE_MAX, .deadline_ns = l->deadline_ns ? cis_now_ns(NULL) + l->deadline_ns : 0,
	};
	if (what == CIS_STORE_PUT)
		op->req.len = load_value(&op->req.key, op->buf);
	op->flying = page->busy = true;
	l->flying++;
}

/* A page that is stored is read, mostly, or deleted; another one is written, or read to see that it is not there. */
static inline struct cis_store_req *load_next(struct load *l)
{
	struct load_op *op = load_free_op(l);
	struct load_page *page = &l->page[load_random(l) % LOAD_PAGES];
	unsigned dice = load_random(l) % 8;

	if (!op || page->busy)
		return NULL;
	if (page->state == LOAD_STORED)
		load_begin(l, op, page, dice < 6 ? CIS_STORE_GET : CIS_STORE_DELETE);
	else
		load_begin(l, op, page, dice < 7 || page->state == LOAD_UNKNOWN ? CIS_STORE_PUT : CIS_STORE_GET);
	return &op->req;
}

static inline void load_reap(struct load *l)
{
	struct pollfd p = { .fd = cis_store_fd(l->store), .events = POLLIN };

	assert_int_equal(poll(&p, 1, 20000), 1);
	cis_store_reap(l->store);
}

static inline void load_drain(struct load *l)
{
	while (l->flying)
		load_reap(l);
}

/* Until @n more are done, in batches of 1 to 16. */
static inline void load_run(struct load *l, unsigned n)
{
	unsigned until = l->done + n;

	while (l->done < until) {
		struct cis_store_req *reqs[16];
		size_t nr = 0, batch = 1 + load_random(l) % 16;

		for (size_t i = 0; i < batch; i++)
			if ((reqs[nr] = load_next(l)))
				nr++;
		cis_store_submit(l->store, reqs, nr);
		if (l->flying)
			load_reap(l);
	}
}

/* Reads whatever was acknowledged. */
static inline void load_verify(struct load *l)
{
	for (size_t i = 0; i < LOAD_PAGES; i++) {
		struct cis_store_req *req;
		struct load_op *op;

		while (!(op = load_free_op(l)))
			load_reap(l);
		if (l->page[i].busy || l->page[i].state != LOAD_STORED)
			continue;
		load_begin(l, op, &l->page[i], CIS_STORE_GET);
		req = &op->req;
		cis_store_submit(l->store, &req, 1);
	}
	load_drain(l);
}

static inline unsigned load_stored(const struct load *l)
{
	unsigned nr = 0;

	for (size_t i = 0; i < LOAD_PAGES; i++)
		nr += l->page[i].state == LOAD_STORED;
	return nr;
}

/* @l keeps the pages that it has from before. */
static inline void load_open(struct load *l, const char *url)
{
	struct cis_pages_opts opts = { .size = sizeof(opts) };
	struct cis_error err;

	if (cis_pages_open(url, &opts, &l->store, &err))
		fail_msg("%s", err.text);
}

static inline struct load *load_new(const char *url, uint64_t seed)
{
	struct load *l = calloc(1, sizeof(*l));

	assert_non_null(l);
	l->seed = seed;
	l->ns[0] = load_random(l);
	l->ns[1] = load_random(l);
	l->deadline_ns = 15000000000ull;
	load_open(l, url);
	return l;
}

static inline void load_free(struct load *l)
{
	load_drain(l);
	cis_store_close(l->store);
	free(l);
}

/* One request, waited for. */

struct load_one {
	int over, err;
};

static inline void load_one_done(struct cis_store_req *req, int err)
{
	struct load_one *one = req->ctx;

	one->err = err;
	one->over++;
}

static inline int load_one(struct cis_store *store, enum cis_store_op what, struct cis_key key, void *buf, uint32_t len,
			   uint64_t deadline_ns, uint32_t *ret_got)
{
	struct load_one one = { 0 };
	struct cis_store_req req = { .op = what, .key = key, .buf = buf, .len = len, .deadline_ns = deadline_ns,
				     .done = load_one_done, .ctx = &one }, *reqs = &req;

	cis_store_submit(store, &reqs, 1);
	while (!one.over)
		cis_store_wait(store, 0);
	assert_int_equal(one.over, 1);
	if (ret_got)
		*ret_got = req.got;
	return one.err;
}

#endif
