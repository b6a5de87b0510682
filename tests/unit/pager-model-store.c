/* The model's store of pages: answers now or later, refuses, moves what it has, and outlives the pager. */
#include <errno.h>

#include "pager-model-int.h"

static struct world *world_of(struct cis_store *store)
{
	return (struct world *)((char *)store - offsetof(struct world, pages));
}

static struct far *find(struct world *w, uint64_t id, uint32_t loc)
{
	for (unsigned i = 0; i < w->nr_far; i++)
		if (w->far[i].id == id && w->far[i].loc == loc)
			return &w->far[i];
	return NULL;
}

static int put(struct world *w, struct cis_store_req *req)
{
	struct far *f = w->says_locs ? NULL : find(w, req->key.id, 0);

	if (!f && w->nr_far == FAR_MAX)
		return -ENOSPC;
	if (!f)
		f = &w->far[w->nr_far++];
	else if (f->len != req->len || memcmp(f->value, req->buf, req->len))
		world_see(w, "a put replaces another value", req->key.id >> 24);
	f->id = req->key.id;
	f->loc = req->loc = w->says_locs ? ++w->next_loc : 0;
	f->len = req->len;
	memcpy(f->value, req->buf, req->len);
	return 0;
}

static int get(struct world *w, struct cis_store_req *req)
{
	const struct far *f = find(w, req->key.id, req->loc);

	if (!f)
		return -ENOENT;
	memcpy(req->buf, f->value, f->len);
	req->got = f->len;
	return 0;
}

static int forget(struct world *w, struct cis_store_req *req)
{
	struct far *f = find(w, req->key.id, req->loc);

	if (!f)
		return -ENOENT;
	*f = w->far[--w->nr_far];
	return 0;
}

/* What it does, whether anybody hears of it or not. */
static int act(struct world *w, struct cis_store_req *req)
{
	if (req->key.ns[0] != 7 || req->key.ns[1] != 9)
		world_see(w, "another namespace", 0);
	switch (req->op) {
	case CIS_STORE_PUT:
		return put(w, req);
	case CIS_STORE_GET:
		return get(w, req);
	default:
		return forget(w, req);
	}
}

static void answer(struct world *w, struct cis_store_req *req)
{
	bool bad = w->trouble && !world_dice(w, w->trouble);
	int rc = bad && world_dice(w, 2) ? -EIO : act(w, req);

	if (bad && !rc && req->op == CIS_STORE_GET)
		((uint8_t *)req->buf)[world_dice(w, req->got)] ^= (uint8_t)(1 << world_dice(w, 8));
	else if (bad && !rc)
		rc = -ETIMEDOUT; /* done, but who asked does not hear so */
	req->done(req, rc);
}

static void p_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct world *w = world_of(store);

	for (size_t i = 0; i < n; i++)
		if (w->late && w->nr_page_reqs < PAGE_REQS)
			w->page_req[w->nr_page_reqs++] = reqs[i];
		else
			answer(w, reqs[i]);
}

static void p_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct world *w = world_of(store);

	for (unsigned i = 0; i < w->nr_page_reqs; i++)
		if (w->page_req[i] == req) {
			w->page_req[i] = w->page_req[--w->nr_page_reqs];
			if (world_dice(w, 2))
				act(w, req);
			req->done(req, -ECANCELED);
			return;
		}
}

static int p_claim(struct cis_store *store, const struct cis_key *key, uint32_t loc)
{
	struct world *w = world_of(store);

	if (!find(w, key->id, loc))
		world_see(w, "the store is said to have what it has not", key->id >> 24);
	return 0;
}

const struct cis_store_ops world_pages = {
	.ops_size = sizeof(world_pages), .submit = p_submit, .cancel = p_cancel, .claim = p_claim,
};

void world_pages_step(struct world *w)
{
	unsigned i;
	struct cis_store_req *req;

	if (!w->nr_page_reqs)
		return;
	i = (unsigned)world_dice(w, w->nr_page_reqs);
	req = w->page_req[i];
	w->page_req[i] = w->page_req[--w->nr_page_reqs];
	answer(w, req);
}

/* The pager is dead; what it had asked for may be done all the same. */
void world_pages_orphaned(struct world *w)
{
	for (unsigned i = 0; i < w->nr_page_reqs; i++)
		if (world_dice(w, 2))
			act(w, w->page_req[i]);
	w->nr_page_reqs = 0;
}

/* It makes room by moving what it has. */
void world_pages_move(struct world *w)
{
	struct far *f = w->nr_far && w->says_locs ? &w->far[world_dice(w, w->nr_far)] : NULL;
	struct cis_key key = { .ns = { 7, 9 }, .id = f ? f->id : 0 };

	if (f && cis_pager_moved(w->pager, &key, f->loc, w->next_loc + 1))
		f->loc = ++w->next_loc;
}

/* What a word says of the store is so. */
void world_pages_check(struct world *w, uint64_t p)
{
	uint64_t word = w->state.words[p];
	const struct far *f = find(w, cis_value_id(p, cis_word_generation(word)), cis_word_cookie(word));
	static uint8_t raw[TEST_PAGE];

	if (!f || cis_value_unpack((const struct cis_value *)f->value, cis_scratch_decoder(w->scratch, NULL), raw) ||
	    memcmp(raw, w->ref + p * TEST_PAGE, TEST_PAGE))
		world_see(w, "not what is in the store", p);
}
