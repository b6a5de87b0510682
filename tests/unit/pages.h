/*
 * What tests of stores of pages share: the stores, each with how its server is started, and values that say whose they are.
 *
 * A store is added by one line in pages_subjects[], and its start and stop.
 */
#ifndef TESTS_UNIT_PAGES_H
#define TESTS_UNIT_PAGES_H

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "memcached-server.h"
#include "store/layers.h"
#include "store/seal.h"
#include "valkey-server.h"

/** struct pages_place - where a store is while a test runs: @url is its name; the rest is for whoever started it */
struct pages_place {
	char url[400], folder[100], slow_folder[100];
	struct server server;
};

/**
 * struct pages_subject - a store, with or without layers around it
 * @start:  make a new and empty one, and @p->url.  Return: whether this machine has it; else the reason was printed
 * @stop:   and nothing is left of it
 * @small:  what is added to its name so that it holds a few MiB alone, or NULL
 * @layers: or NULL; PAGES_SEALED: its values are sealed
 */
#define PAGES_SEALED "sealed"

struct pages_subject {
	const char *name;
	bool (*start)(struct pages_place *p);
	void (*stop)(struct pages_place *p);
	const char *small, *layers;
};

static inline bool pages_start_file(struct pages_place *p)
{
	snprintf(p->folder, sizeof(p->folder), "/var/tmp/cistern-pages.XXXXXX");
	assert_non_null(mkdtemp(p->folder));
	snprintf(p->url, sizeof(p->url), "file:%s", p->folder);
	return true;
}

static inline void pages_remove(const char *folder)
{
	DIR *dir = opendir(folder);

	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));)
		if (*e->d_name != '.')
			assert_int_equal(unlinkat(dirfd(dir), e->d_name, 0), 0);
	closedir(dir);
	assert_int_equal(rmdir(folder), 0);
}

static inline void pages_stop_file(struct pages_place *p)
{
	pages_remove(p->folder);
}

static inline bool pages_start_valkey(struct pages_place *p)
{
	valkey_start(&p->server, true, false, NULL);
	strcpy(p->url, p->server.url);
	return true;
}

static inline bool pages_start_memcached(struct pages_place *p)
{
	static const char *const safe[] = { MEMCACHED_SAFE, NULL };

	memcached_start(&p->server, false, safe);
	strcpy(p->url, p->server.url);
	return true;
}

static inline void pages_stop_server(struct pages_place *p)
{
	server_remove(&p->server);
}

/* Fast ones that hold little, so that values go to and fro. */
static inline bool pages_start_files(struct pages_place *p)
{
	snprintf(p->folder, sizeof(p->folder), "/var/tmp/cistern-pages.XXXXXX");
	snprintf(p->slow_folder, sizeof(p->slow_folder), "/var/tmp/cistern-pages.XXXXXX");
	assert_non_null(mkdtemp(p->folder));
	assert_non_null(mkdtemp(p->slow_folder));
	snprintf(p->url, sizeof(p->url), "tier:bytes=2M,file:%s+file:%s", p->folder, p->slow_folder);
	return true;
}

static inline void pages_stop_files(struct pages_place *p)
{
	pages_remove(p->folder);
	pages_remove(p->slow_folder);
}

static inline bool pages_start_file_and_memcached(struct pages_place *p)
{
	pages_start_memcached(p);
	pages_start_file(p);
	snprintf(p->url, sizeof(p->url), "tier:bytes=1M,file:%s+%s", p->folder, p->server.url);
	return true;
}

static inline bool pages_start_memcached_and_file(struct pages_place *p)
{
	pages_start_memcached(p);
	pages_start_file(p);
	snprintf(p->url, sizeof(p->url), "tier:bytes=1M,%s+file:%s", p->server.url, p->folder);
	return true;
}

static inline void pages_stop_both(struct pages_place *p)
{
	server_remove(&p->server);
	pages_remove(p->folder);
}

static inline bool pages_start_file_and_valkey(struct pages_place *p)
{
	pages_start_valkey(p);
	pages_start_file(p);
	snprintf(p->url, sizeof(p->url), "tier:bytes=1M,file:%s+%s", p->folder, p->server.url);
	return true;
}

/* Of one server, which no level may notice. */
static inline bool pages_start_three(struct pages_place *p)
{
	pages_start_memcached(p);
	pages_start_file(p);
	snprintf(p->url, sizeof(p->url), "tier:bytes=1M,%s+bytes=1M,file:%s+memcached:///%s", p->server.url, p->folder, p->server.sock);
	return true;
}

static const struct pages_subject pages_subjects[] = {
	{ "file", pages_start_file, pages_stop_file, "?size=16M", NULL },
	{ "file, delayed", pages_start_file, pages_stop_file, "?size=16M", "delay:min=1us,max=400us" },
	{ "file, layers that do nothing", pages_start_file, pages_stop_file, "?size=16M",
	  "corrupt:trigger=/nonexistent,how=stale+fault:from=100000000+delay:time=1us,every=7" },
	{ "valkey", pages_start_valkey, pages_stop_server, NULL, NULL },
	{ "memcached", pages_start_memcached, pages_stop_server, NULL, NULL },
	{ "files, one before the other, delayed", pages_start_files, pages_stop_files, "?size=16M", "delay:min=1us,max=400us" },
	{ "a file before memcached", pages_start_file_and_memcached, pages_stop_both, NULL, NULL },
	{ "memcached, sealed", pages_start_memcached, pages_stop_server, NULL, PAGES_SEALED },
	{ "a file before memcached, sealed", pages_start_file_and_memcached, pages_stop_both, NULL, PAGES_SEALED },
	{ "a file before valkey", pages_start_file_and_valkey, pages_stop_both, NULL, NULL },
	{ "memcached before a file", pages_start_memcached_and_file, pages_stop_both, "?size=16M", NULL },
	{ "memcached, a file and memcached again", pages_start_three, pages_stop_both, NULL, NULL },
};

#define PAGES_SUBJECTS (sizeof(pages_subjects) / sizeof(pages_subjects[0]))

/* Numbers that are the same in each run. */
static inline uint64_t pages_random(uint64_t *seed)
{
	uint64_t x = *seed += 0x9e3779b97f4a7c15u;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static inline uint32_t pages_pick(uint64_t *seed, uint32_t below)
{
	return (uint32_t)(pages_random(seed) % below);
}

/** pages_fill() - the value of a key; its length is not in it. */
static inline void pages_fill(const struct cis_key *key, uint8_t *buf, uint32_t len)
{
	uint64_t seed = key->ns[0] ^ key->ns[1] * 3 ^ key->id * 5, word;

	for (uint32_t i = 0; i < len; i += 8) {
		word = pages_random(&seed);
		memcpy(buf + i, &word, len - i < 8 ? len - i : 8);
	}
}

static inline void pages_check(const struct cis_key *key, const uint8_t *buf, uint32_t len)
{
	uint8_t right[CIS_VALUE_MAX];

	assert_in_range(len, 1, CIS_VALUE_MAX);
	pages_fill(key, right, len);
	assert_memory_equal(buf, right, len);
}

static uint32_t pages_most; /* bytes of a value, in the store that was opened last */

/** struct pages_rig - a store that is open; @below: what it seals the values of */
struct pages_rig {
	struct cis_store *store, *below;
	struct cis_layers *layers;
	unsigned in_flight;
};

static inline void pages_open(struct pages_rig *r, const char *url, const char *layers, const struct cis_pages_opts *opts)
{
	struct cis_error err = { .text = "" };

	*r = (struct pages_rig){ 0 };
	if (cis_pages_check(url, &err) || cis_pages_open(url, opts, &r->store, &err))
		fail_msg("%s: %s", url, err.text);
	pages_most = CIS_VALUE_MAX;
	if (layers && !strcmp(layers, PAGES_SEALED)) {
		pages_most -= CIS_SEAL_BYTES;
		r->below = r->store;
		assert_int_equal(cis_sealed_open(r->below, (const uint8_t *)"a key that is the same each time", &r->store, &err), 0);
	} else if (layers) {
		assert_int_equal(cis_layers_parse(layers, &r->layers, &err), 0);
		assert_int_equal(cis_layers_open(r->layers, r->store, &r->store, &err), 0);
	}
}

static inline void pages_close(struct pages_rig *r)
{
	assert_int_equal(r->in_flight, 0);
	cis_store_close(r->store);
	cis_store_close(r->below);
	cis_layers_unref(r->layers);
}

/** struct pages_op - a request; @then: from done */
struct pages_op {
	struct cis_store_req req;
	struct pages_rig *rig;
	unsigned done;
	int err;
	void (*then)(struct pages_op *op);
	uint8_t buf[CIS_VALUE_MAX + 8];
};

static inline void pages_op_done(struct cis_store_req *req, int err)
{
	struct pages_op *op = req->ctx;

	op->done++;
	op->err = err;
	assert_int_equal(op->done, 1);
	assert_true(op->rig->in_flight-- > 0);
	if (op->then)
		op->then(op);
}

static inline void pages_op_init(struct pages_op *op, struct pages_rig *r, enum cis_store_op what, struct cis_key key, uint32_t len)
{
	*op = (struct pages_op){ .rig = r };
	op->req = (struct cis_store_req){ .op = what, .key = key, .len = len, .buf = op->buf, .done = pages_op_done, .ctx = op };
	if (what == CIS_STORE_PUT)
		pages_fill(&key, op->buf, len);
	else
		memset(op->buf, 0xee, sizeof(op->buf));
}

static inline void pages_submit(struct pages_op **ops, size_t n)
{
	struct cis_store_req *reqs[512];

	assert_in_range(n, 1, 512);
	for (size_t i = 0; i < n; i++)
		reqs[i] = &ops[i]->req;
	ops[0]->rig->in_flight += (unsigned)n;
	cis_store_submit(ops[0]->rig->store, reqs, n);
}

static inline void pages_submit_one(struct pages_op *op)
{
	pages_submit(&op, 1);
}

/** pages_drive() - as a shard does, until at most so many are in flight. */
static inline void pages_drive(struct pages_rig *r, unsigned until)
{
	while (r->in_flight > until) {
		struct pollfd p = { .fd = cis_store_fd(r->store), .events = POLLIN };

		assert_int_equal(poll(&p, 1, 60000), 1);
		cis_store_reap(r->store);
	}
}

/** pages_do() - one request, waited for as a worker does. */
static inline int pages_do(struct pages_op *op)
{
	pages_submit_one(op);
	while (!op->done)
		cis_store_wait(op->rig->store, 0);
	return op->err;
}

static inline int pages_put(struct pages_rig *r, struct cis_key key, uint32_t len, uint32_t *ret_loc)
{
	struct pages_op op;
	int err;

	pages_op_init(&op, r, CIS_STORE_PUT, key, len);
	err = pages_do(&op);
	*ret_loc = op.req.loc;
	return err;
}

/** pages_get() - and its bytes are right, @len of them. */
static inline int pages_get(struct pages_rig *r, struct cis_key key, uint32_t loc, uint32_t len)
{
	struct pages_op op;

	pages_op_init(&op, r, CIS_STORE_GET, key, CIS_VALUE_MAX);
	op.req.loc = loc;
	if (!pages_do(&op)) {
		assert_int_equal(op.req.got, len);
		pages_check(&key, op.buf, len);
	}
	return op.err;
}

static inline int pages_drop(struct pages_rig *r, struct cis_key part)
{
	struct pages_op op;

	pages_op_init(&op, r, CIS_STORE_DROP, part, 0);
	return pages_do(&op);
}

static inline int pages_delete(struct pages_rig *r, struct cis_key key, uint32_t loc)
{
	struct pages_op op;

	pages_op_init(&op, r, CIS_STORE_DELETE, key, 0);
	op.req.loc = loc;
	return pages_do(&op);
}

#endif
