#include "store/store.h"

#include <errno.h>

void cis_store_close(struct cis_store *store)
{
	if (store)
		store->ops->close(store);
}

struct waited {
	int finished;
	int err;
};

static void waited_done(struct cis_store_req *req, int err)
{
	struct waited *w = req->ctx;

	w->err = err;
	w->finished = 1;
}

int cis_store_get(struct cis_store *store, struct cis_key key, uint64_t off, void *buf, uint32_t len)
{
	struct waited w = { 0 };
	struct cis_store_req req = {
		.op = CIS_STORE_GET, .key = key, .off = off, .buf = buf, .len = len, .done = waited_done, .ctx = &w,
	}, *reqs[] = { &req };

	cis_store_submit(store, reqs, 1);
	while (!w.finished)
		cis_store_wait(store, 0);
	return w.err;
}
