/* The layer fault: requests that fail, come short, or are never answered. */
#include <errno.h>

#include "store/layer.h"

enum how { ERROR, SHORT, HANG };

static bool fault_enter(struct cis_layer *l, struct cis_held *h)
{
	struct cis_layer_opts *o = l->ctx;

	if (!cis_when_now(&o->when, h->req, &h->choice)) {
		h->choice = 0;
		return true;
	}
	switch (o->how) {
	case SHORT:
		h->choice = 1;
		if (h->req->op != CIS_STORE_GET || h->req->len < 2) {
			h->err = -ENODATA;
			return false;
		}
		h->inner.len = h->req->len / 2; /* so many bytes do come */
		h->inner.skip = h->inner.want = 0;
		return true;
	case HANG:
		h->due_ns = CIS_HELD_FOREVER;
		return false;
	default:
		h->err = -o->error;
		return false;
	}
}

static void fault_leave(struct cis_layer *l, struct cis_held *h, uint64_t now)
{
	if (h->choice && (!h->err || h->err == -EMSGSIZE)) /* of a value that half of its room does not hold */
		h->err = -ENODATA;
}

static const struct cis_layer_key keys[] = {
	{ "how", CIS_KEY_WORD, offsetof(struct cis_layer_opts, how), "error|short|hang" },
	{ "errno", CIS_KEY_ERRNO, offsetof(struct cis_layer_opts, error), NULL },
	{ 0 },
};

static int fault_check(struct cis_layer_opts *o, struct cis_error *err)
{
	if (o->error && o->how != ERROR)
		return cis_fail(err, EINVAL, "errno goes with how=error alone");
	if (!o->error)
		o->error = EIO;
	return 0;
}

const struct cis_layer_kind cis_layer_fault = {
	.name = "fault", .keys = keys, .check = fault_check, .ops = { .enter = fault_enter, .leave = fault_leave }
};
