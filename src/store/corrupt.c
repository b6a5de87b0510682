/* The layer corrupt: answers that are wrong, as a bad disk, a lost write or a confused cache gives them. */
#include <stdlib.h>
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

/** struct value - the one that was got last */
struct value {
	uint32_t len;
	char bytes[CIS_VALUE_MAX];
};

/* Of a store of pages: the value of a get before, as of a cache that confuses keys. */
static void swap_values(struct cis_layer *l, struct cis_held *h)
{
	struct value *last = l->mine, *now = h->req->got <= CIS_VALUE_MAX ? malloc(sizeof(*now)) : NULL;

	if (!now)
		return;
	now->len = h->req->got;
	memcpy(now->bytes, h->req->buf, now->len);
	if (h->choice && last) {
		h->req->got = last->len < h->req->len ? last->len : h->req->len;
		memcpy(h->req->buf, last->bytes, h->req->got);
	}
	free(last);
	l->mine = now;
}

/* Only where the caller looks: a flaw that nobody reads is none. */
static void spoil(unsigned how, uint64_t choice, char *bytes, uint32_t len)
{
	uint64_t bit = (choice >> 1) % ((uint64_t)len * 8);

	switch (how) {
	case FLIP:
		bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << bit % 8));
		break;
	case ZEROS:
		memset(bytes, 0, len);
		break;
	case TORN: /* the first half came, the second is another's */
		memcpy(bytes + (len + 1) / 2, bytes, len / 2);
	}
}

static void corrupt_leave(struct cis_layer *l, struct cis_held *h, uint64_t now)
{
	const struct cis_layer_opts *o = l->ctx;
	char *bytes;
	uint32_t len = cis_layer_wanted(h->req, &bytes);

	if (h->err || h->req->op != CIS_STORE_GET)
		return;
	if (o->how == STALE && h->req->got)
		swap_values(l, h);
	else if (h->choice)
		spoil(o->how, h->choice, bytes, len);
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
