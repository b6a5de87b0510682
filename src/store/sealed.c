/* A store around another one, whose values are sealed there. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "store/seal.h"

#define A_BATCH 64u

struct sealed {
	struct cis_store store;
	struct cis_store_ops ops; /* it can what the store below can */
	struct cis_store *inner;
	struct cis_seal *seal;
	TAILQ_HEAD(, held) all;
};

/** struct held - @buf: the value as the store below has it */
struct held {
	TAILQ_ENTRY(held) all;
	struct sealed *store;
	struct cis_store_req *req, inner;
	uint8_t buf[CIS_VALUE_MAX];
};

static struct sealed *of(struct cis_store *store)
{
	return (struct sealed *)store;
}

static int unseal(struct held *h)
{
	uint32_t len = h->inner.got;

	if (len < CIS_SEAL_BYTES)
		return -EBADMSG;
	if (len - CIS_SEAL_BYTES > h->req->len)
		return -EMSGSIZE;
	h->req->got = len - CIS_SEAL_BYTES;
	return cis_unseal_value(h->store->seal, &h->req->key, h->buf, len, h->req->buf);
}

static void finish(struct held *h, int err)
{
	struct cis_store_req *req = h->req;

	TAILQ_REMOVE(&h->store->all, h, all);
	free(h);
	req->done(req, err);
}

static void inner_done(struct cis_store_req *inner, int err)
{
	struct held *h = inner->ctx;

	if (h->req->op == CIS_STORE_PUT)
		h->req->loc = inner->loc;
	else if (h->req->op == CIS_STORE_GET && !err)
		err = unseal(h);
	finish(h, err);
}

static int prepare(struct held *h)
{
	const struct cis_store_req *req = h->req;

	h->inner = *req;
	h->inner.done = inner_done;
	h->inner.ctx = h;
	h->inner.buf = h->buf;
	if (req->op == CIS_STORE_GET) {
		h->inner.off = 0;
		h->inner.skip = h->inner.want = 0;
		h->inner.len = CIS_VALUE_MAX;
	}
	if (req->op != CIS_STORE_PUT)
		return 0;
	if (!req->len || req->len > CIS_VALUE_MAX - CIS_SEAL_BYTES)
		return req->len ? -EMSGSIZE : -EINVAL;
	h->inner.len = req->len + CIS_SEAL_BYTES;
	return cis_seal_value(h->store->seal, &req->key, req->buf, req->len, h->buf);
}

/* Return: what the store below is asked; NULL: done was called. */
static struct cis_store_req *take(struct sealed *s, struct cis_store_req *req)
{
	struct held *h = malloc(sizeof(*h));
	int rc;

	if (!h) {
		req->done(req, -ENOMEM);
		return NULL;
	}
	h->store = s;
	h->req = req;
	TAILQ_INSERT_TAIL(&s->all, h, all);
	rc = prepare(h);
	if (!rc)
		return &h->inner;
	finish(h, rc);
	return NULL;
}

static void sealed_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct cis_store_req *some[A_BATCH];
	size_t k = 0;

	for (size_t i = 0; i < n; i++) {
		some[k] = take(of(store), reqs[i]);
		k += some[k] != NULL;
		if (k == A_BATCH) {
			cis_store_submit(of(store)->inner, some, k);
			k = 0;
		}
	}
	if (k)
		cis_store_submit(of(store)->inner, some, k);
}

static int sealed_fd(struct cis_store *store)
{
	return cis_store_fd(of(store)->inner);
}

static void sealed_reap(struct cis_store *store)
{
	cis_store_reap(of(store)->inner);
}

static void sealed_wait(struct cis_store *store, uint64_t deadline_ns)
{
	cis_store_wait(of(store)->inner, deadline_ns);
}

static void sealed_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct held *h;

	TAILQ_FOREACH(h, &of(store)->all, all)
		if (h->req == req) {
			cis_store_cancel(of(store)->inner, &h->inner);
			return;
		}
}

static void sealed_close(struct cis_store *store)
{
	struct sealed *s = of(store);

	assert(TAILQ_EMPTY(&s->all));
	cis_seal_destroy(s->seal);
	free(s);
}

static int sealed_claim(struct cis_store *store, const struct cis_key *key, uint32_t loc)
{
	return cis_store_claim(of(store)->inner, key, loc);
}

static void sealed_drop(struct cis_store *store, const uint64_t ns[2])
{
	struct cis_store *inner = of(store)->inner;

	inner->ops->drop(inner, ns);
}

static const struct cis_store_ops sealed_ops = {
	.ops_size = sizeof(struct cis_store_ops),
	.name = "sealed",
	.submit = sealed_submit,
	.fd = sealed_fd,
	.reap = sealed_reap,
	.wait = sealed_wait,
	.cancel = sealed_cancel,
	.close = sealed_close,
	.claim = sealed_claim,
	.drop = sealed_drop,
};

int cis_sealed_open(struct cis_store *inner, const uint8_t key[CIS_SEAL_KEY_BYTES], struct cis_store **ret, struct cis_error *err)
{
	struct sealed *s = calloc(1, sizeof(*s));
	int rc = s ? cis_seal_create(key, &s->seal) : -ENOMEM;

	if (rc) {
		free(s);
		return cis_fail(err, -rc, "values cannot be sealed: %s", strerror(-rc));
	}
	s->ops = sealed_ops;
	if (!inner->ops->drop)
		s->ops.drop = NULL;
	if (!inner->ops->claim)
		s->ops.claim = NULL;
	s->ops.drops = inner->ops->drops;
	s->store.ops = &s->ops;
	s->inner = inner;
	TAILQ_INIT(&s->all);
	*ret = &s->store;
	return 0;
}
