/* The handle, and what it does for each call of its thread. */
#include "store/pagefile/pagefile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/pages.h"

#define REAPS	  16u
#define MEM_ALIGN (2ul << 20)
#define MEM_BYTES (CIS_WRITES * CIS_WRITE_BYTES + CIS_MOVE_BYTES + CIS_READS * CIS_READ_BYTES)

static struct cis_pagefile *of(struct cis_store *store)
{
	return (struct cis_pagefile *)store;
}

/* Namespaces are random bits. */
static struct cis_area **bucket(struct cis_pagefile *s, const uint64_t ns[2])
{
	return &s->area[ns[0] % CIS_AREA_BUCKETS];
}

struct cis_area *cis_pagefile_area(struct cis_pagefile *s, const uint64_t ns[2])
{
	struct cis_area *a = *bucket(s, ns);

	while (a && (a->ns[0] != ns[0] || a->ns[1] != ns[1]))
		a = a->next;
	return a;
}

static int open_area(struct cis_pagefile *s, const uint64_t ns[2], bool make, struct cis_area **ret)
{
	struct cis_area *a = cis_pagefile_area(s, ns), **b = bucket(s, ns);
	int rc = a ? 0 : cis_area_open(s->dir, &s->aio, ns, make, s->most, ret);

	if (a) {
		*ret = a;
	} else if (!rc) {
		(*ret)->next = *b;
		*b = *ret;
	}
	return rc;
}

void cis_pagefile_finish(struct cis_pagefile *s, struct cis_store_req *req, int err)
{
	req->progress = (uint32_t)-err;
	cis_reqs_push(&s->finished, req);
}

/* Done may submit, cancel and wait, and find nothing here half done. */
static void tell(struct cis_pagefile *s)
{
	while (s->finished.first) {
		struct cis_store_req *req = cis_reqs_pop(&s->finished);

		req->done(req, -(int)req->progress);
	}
}

static void set_alarm(struct cis_pagefile *s)
{
	uint64_t at = s->earliest_ns;

	if (s->retry_ns && s->retry_ns < at)
		at = s->retry_ns;
	if (at != UINT64_MAX)
		cis_aio_alarm(&s->aio, at);
}

/* Whatever can be done; without a ring that is everything. */
static void go(struct cis_pagefile *s)
{
	do {
		s->again = false;
		cis_move_go(s);
		cis_puts_go(s);
		cis_gets_go(s);
		cis_writes_go(s);
		set_alarm(s);
		cis_aio_flush(&s->aio);
	} while (s->again);
	tell(s);
}

static void delete(struct cis_pagefile *s, struct cis_area *a, struct cis_store_req *req)
{
	bool has = a && cis_area_has(a, req->loc);

	if (has) {
		cis_area_free(a, req->loc);
		cis_move_tidy(s, a);
	}
	cis_pagefile_finish(s, req, has ? 0 : -ENOENT);
}

static void take(struct cis_pagefile *s, struct cis_store_req *req)
{
	struct cis_area *a = cis_pagefile_area(s, req->key.ns);
	int rc = a || req->op != CIS_STORE_PUT ? 0 : open_area(s, req->key.ns, true, &a);

	if (rc)
		cis_pagefile_finish(s, req, rc);
	else if (req->op == CIS_STORE_PUT)
		cis_put(s, a, req);
	else if (req->op == CIS_STORE_DELETE)
		delete(s, a, req);
	else if (a)
		cis_get(s, a, req);
	else
		cis_pagefile_finish(s, req, -ENOENT);
}

static void pagefile_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct cis_pagefile *s = of(store);

	for (size_t i = 0; i < n; i++) {
		if (reqs[i]->deadline_ns && reqs[i]->deadline_ns < s->earliest_ns)
			s->earliest_ns = reqs[i]->deadline_ns;
		take(s, reqs[i]);
	}
	go(s);
}

/** struct stop - which requests end now: @only, or those whose deadline is not after @now; @earliest_ns: of the others */
struct stop {
	const struct cis_store_req *only;
	uint64_t now, earliest_ns;
	int why;
};

static bool stops(struct stop *st, const struct cis_store_req *req)
{
	if (st->only || !req->deadline_ns)
		return req == st->only;
	if (req->deadline_ns > st->now && req->deadline_ns < st->earliest_ns)
		st->earliest_ns = req->deadline_ns;
	return req->deadline_ns <= st->now;
}

/* Those of a list that stop, in a list of their own. */
static struct cis_reqs *take_out(struct cis_reqs *l, struct stop *st, struct cis_reqs *ret)
{
	struct cis_reqs stay;

	cis_reqs_init(&stay);
	cis_reqs_init(ret);
	while (l->first) {
		struct cis_store_req *req = cis_reqs_pop(l);

		cis_reqs_push(stops(st, req) ? ret : &stay, req);
	}
	if (stay.first)
		*l = stay;
	return ret;
}

static void stop_gets_of(struct cis_pagefile *s, struct cis_reqs *gets, struct stop *st)
{
	struct cis_reqs out;

	for (take_out(gets, st, &out); out.first;) {
		struct cis_store_req *req = cis_reqs_pop(&out);

		cis_get_withdraw(s, req);
		cis_pagefile_finish(s, req, st->why);
	}
}

static void stop_gets(struct cis_pagefile *s, struct stop *st)
{
	for (unsigned i = 0; i < CIS_READS; i++)
		stop_gets_of(s, &s->reading[i].gets, st);
	stop_gets_of(s, &s->gets, st);
}

static void stop_waiting_puts(struct cis_pagefile *s, struct cis_area *a, struct stop *st)
{
	struct cis_reqs out;

	for (take_out(&a->puts, st, &out); out.first; s->nr_waiting--)
		cis_pagefile_finish(s, cis_reqs_pop(&out), st->why);
}

static void stop_puts(struct cis_pagefile *s, struct stop *st)
{
	struct cis_reqs out;

	for (unsigned i = 0; i < CIS_WRITES; i++)
		for (take_out(&s->writing[i].puts, st, &out); out.first;) {
			struct cis_store_req *req = cis_reqs_pop(&out);

			cis_put_withdraw(s->writing[i].area, req);
			cis_pagefile_finish(s, req, st->why);
		}
	for (unsigned i = 0; s->nr_waiting && i < CIS_AREA_BUCKETS; i++)
		for (struct cis_area *a = s->area[i]; a; a = a->next)
			stop_waiting_puts(s, a, st);
}

static void expire(struct cis_pagefile *s)
{
	struct stop st = { .now = s->earliest_ns == UINT64_MAX ? 0 : cis_now_ns(NULL), .earliest_ns = UINT64_MAX, .why = -ETIMEDOUT };

	if (st.now < s->earliest_ns)
		return;
	stop_gets(s, &st);
	stop_puts(s, &st);
	s->earliest_ns = st.earliest_ns;
}

static void pagefile_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct cis_pagefile *s = of(store);
	struct stop st = { .only = req, .why = -ECANCELED };

	stop_gets(s, &st);
	stop_puts(s, &st);
	go(s);
}

static void pagefile_reap(struct cis_store *store)
{
	struct cis_pagefile *s = of(store);

	cis_aio_reap(&s->aio, REAPS);
	expire(s);
	go(s);
}

static void pagefile_wait(struct cis_store *store, uint64_t deadline_ns)
{
	cis_aio_wait(&of(store)->aio, deadline_ns);
	pagefile_reap(store);
}

static int pagefile_fd(struct cis_store *store)
{
	return of(store)->aio.event;
}

static int pagefile_claim(struct cis_store *store, const struct cis_key *key, uint32_t loc)
{
	struct cis_area *a;
	int rc = open_area(of(store), key->ns, false, &a);

	return rc ? rc : cis_area_claim(a, loc);
}

static void pagefile_drop(struct cis_store *store, const uint64_t ns[2])
{
	struct cis_pagefile *s = of(store);
	struct cis_area *a = cis_pagefile_area(s, ns), **p = bucket(s, ns);
	char file[CIS_PAGEDIR_FILE];

	cis_pagedir_file(s->dir, ns, file);
	unlinkat(s->dir->fd, file, 0);
	if (!a)
		return;
	while (*p != a)
		p = &(*p)->next;
	*p = a->next;
	cis_area_drop(a);
	go(s);
}

/* What the kernel has is waited for: it reads and writes our buffers, and keeps the files locked. */
static void drain(struct cis_pagefile *s)
{
	for (cis_aio_flush(&s->aio); cis_aio_busy(&s->aio); cis_aio_flush(&s->aio)) {
		cis_aio_wait(&s->aio, 0);
		cis_aio_reap(&s->aio, UINT32_MAX);
	}
}

/* Moves that had not got as far as the kernel. */
static void give_up_moves(struct cis_pagefile *s)
{
	for (unsigned i = 0; i < CIS_WRITES; i++)
		if (s->writing[i].area)
			cis_area_let_go(s->writing[i].area);
	if (s->moving.area)
		cis_area_let_go(s->moving.area);
}

static void pagefile_close(struct cis_store *store)
{
	struct cis_pagefile *s = of(store);

	drain(s);
	give_up_moves(s);
	for (unsigned i = 0; i < CIS_AREA_BUCKETS; i++)
		while (s->area[i]) {
			struct cis_area *a = s->area[i];

			s->area[i] = a->next;
			cis_area_destroy(a);
		}
	drain(s);
	cis_aio_fini(&s->aio);
	cis_pagedir_put(s->dir);
	free(s->mem);
	free(s);
}

static const struct cis_store_ops pagefile_ops = {
	.ops_size = sizeof(struct cis_store_ops),
	.name = "file",
	.submit = pagefile_submit,
	.fd = pagefile_fd,
	.reap = pagefile_reap,
	.wait = pagefile_wait,
	.cancel = pagefile_cancel,
	.close = pagefile_close,
	.claim = pagefile_claim,
	.drop = pagefile_drop,
};

static void share_out(struct cis_pagefile *s)
{
	uint8_t *at = s->mem;

	for (unsigned i = 0; i < CIS_WRITES; i++, at += CIS_WRITE_BYTES) {
		s->writing[i].store = s;
		s->writing[i].buf = at;
		cis_reqs_init(&s->writing[i].puts);
	}
	s->moving.store = s;
	s->moving.buf = at;
	at += CIS_MOVE_BYTES;
	for (unsigned i = 0; i < CIS_READS; i++, at += CIS_READ_BYTES) {
		s->reading[i].store = s;
		cis_reqs_init(&s->reading[i].gets);
		s->reading[i].buf = at;
	}
}

/* Large pages for the buffers that are written: a disk takes them in larger pieces. */
static int make(struct cis_pagefile *s, struct cis_error *err)
{
	int rc = cis_aio_init(&s->aio);

	if (rc)
		return cis_fail(err, -rc, "store file: eventfd: %s", strerror(-rc));
	s->mem = aligned_alloc(MEM_ALIGN, (MEM_BYTES + MEM_ALIGN - 1) & ~(MEM_ALIGN - 1));
	if (!s->mem) {
		cis_aio_fini(&s->aio);
		return cis_fail(err, ENOMEM, "store file: out of memory");
	}
	madvise(s->mem, CIS_WRITES * CIS_WRITE_BYTES, MADV_HUGEPAGE);
	share_out(s);
	return 0;
}

static int pagefile_open(const char *rest, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err)
{
	struct cis_pagefile *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return cis_fail(err, ENOMEM, "store file: out of memory");
	s->store.ops = &pagefile_ops;
	s->moved = opts ? opts->moved : NULL;
	s->ctx = opts ? opts->ctx : NULL;
	s->most = opts && opts->loc_bits ? (uint64_t)CIS_LOG_UNIT << opts->loc_bits : UINT64_MAX;
	s->earliest_ns = UINT64_MAX;
	cis_reqs_init(&s->gets);
	cis_reqs_init(&s->finished);
	rc = cis_pagedir_get(rest, &s->dir, err);
	if (!rc) {
		rc = make(s, err);
		if (rc)
			cis_pagedir_put(s->dir);
	}
	if (rc)
		free(s);
	else
		*ret = &s->store;
	return rc;
}

static int pagefile_probe(const char *rest, uint64_t timeout_ns, struct cis_error *err)
{
	int rc = cis_pagedir_probe(rest, err);

	if (!rc && err)
		*err = (struct cis_error){ 0 };
	return rc;
}

const struct cis_pages_kind cis_pages_file = {
	.scheme = "file:", .check = cis_pagedir_check, .open = pagefile_open, .probe = pagefile_probe
};
