/* The layer corrupt: answers that are wrong, as a bad disk, a lost write or a confused cache gives them. */
#include <string.h>

#include "store/layer.h"

enum how { FLIP, STALE, ZEROS, TORN };

/* Bytes of another place in the same object that is there for certain.  Return: false when there is none. */
static bool elsewhere(struct cis_store_req *req)
{
	if (!req->off)
		return false;
	req->off = req->off > req->len ? req->off - req->len : 0;
	return true;
}

/* choice: 0, or a number for flip, its lowest bit set. */
static bool corrupt_enter(struct cis_layer *l, struct cis_held *h)
{
	struct cis_layer_opts *o = l->ctx;
	uint64_t random;

	if (h->req->op != CIS_STORE_GET || !h->req->len || !cis_when_now(&o->when, h->req, &random))
		return true;
	h->choice = random | 1;
	if (o->how == STALE)
		elsewhere(&h->inner);
	return true;
}

/* Only where the caller looks: a flaw that nobody reads is none. */
static void corrupt_leave(struct cis_layer *l, struct cis_held *h, uint64_t now)
{
	const struct cis_layer_opts *o = l->ctx;
	char *bytes;
	uint32_t len = cis_layer_wanted(h->req, &bytes);
	uint64_t bit;

	if (!h->choice || h->err)
		return;
	switch (o->how) {
	case FLIP:
		bit = (h->choice >> 1) % ((uint64_t)len * 8);
		bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << bit % 8));
		break;
	case ZEROS:
		memset(bytes, 0, len);
		break;
	case TORN: /* the first half came, the second is another's */
		memcpy(bytes + (len + 1) / 2, bytes, len / 2);
	}
}

static const struct cis_layer_key keys[] = {
	{ "how", CIS_KEY_WORD, offsetof(struct cis_layer_opts, how), "flip|stale|zeros|torn" },
	{ 0 },
};

static int corrupt_check(struct cis_layer_opts *o, struct cis_error *err)
{
	return 0;
}

const struct cis_layer_kind cis_layer_corrupt = {
	.name = "corrupt", .keys = keys, .check = corrupt_check, .ops = { .enter = corrupt_enter, .leave = corrupt_leave }
};
