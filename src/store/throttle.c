/* The wrapper throttle: a medium of a given rate before any store; for benchmarks and for trying policies. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/layer.h"

struct throttle {
	uint64_t bytes_per_sec;
	uint64_t free_ns; /* when the medium has sent all that was asked of it so far */
};

static bool throttle_enter(struct cis_layer *l, struct cis_held *h)
{
	struct throttle *t = l->ctx;
	uint64_t now = cis_now_ns(NULL);

	if (t->free_ns < now)
		t->free_ns = now;
	t->free_ns += (uint64_t)((double)h->req->len * 1e9 / (double)t->bytes_per_sec);
	h->due_ns = t->free_ns;
	return true;
}

static void throttle_fini(struct cis_layer *l)
{
	free(l->ctx);
}

static const struct cis_layer_ops throttle_ops = { .enter = throttle_enter, .fini = throttle_fini };

int cis_store_throttle_open(struct cis_store *inner, uint64_t bytes_per_sec, struct cis_store **ret,
			    struct cis_error *err)
{
	struct throttle *t = calloc(1, sizeof(*t));

	if (!t || !bytes_per_sec) {
		cis_store_close(inner);
		free(t);
		return t ? cis_fail(err, EINVAL, "store throttle: a rate of 0 bytes/s never ends")
			 : cis_fail(err, ENOMEM, "store throttle: out of memory");
	}
	t->bytes_per_sec = bytes_per_sec;
	return cis_layer_open(&throttle_ops, "throttle", t, inner, ret, err);
}
