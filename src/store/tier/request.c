/* Requests of the caller: to which levels they go, and what their ends mean. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/tier/tier.h"

static struct tier_requests *list_of(struct tier *t, enum cis_store_op op)
{
	return op == CIS_STORE_GET ? &t->gets : &t->others;
}

static void finish(struct tier_held *h, int err)
{
	struct cis_store_req *req = h->req;
	struct tier *t = h->tier;

	TAILQ_REMOVE(list_of(t, req ? req->op : CIS_STORE_DELETE), h, all);
	tier_ns_let_go(t, h->ns);
	free(h);
	if (!req)
		return;
	t->nr_done++;
	req->done(req, err);
}

static struct cis_store_req *part_of(struct tier_held *h, unsigned level, void (*done)(struct cis_store_req *req, int err))
{
	h->part[level] = (struct cis_store_req){
		.op = h->req ? h->req->op : CIS_STORE_DELETE, .key = tier_key(h->ns, h->id, level),
		.deadline_ns = h->req ? h->req->deadline_ns : 0, .done = done, .ctx = h,
	};
	h->under_way[level] = true;
	h->parts++;
	return &h->part[level];
}

static unsigned ended(struct tier_held *h, const struct cis_store_req *part)
{
	unsigned level = (unsigned)(part - h->part);

	h->under_way[level] = false;
	h->parts--;
	return level;
}

/* Puts. */

static void put_to(struct tier_held *h, unsigned level);

/* Whatever is wrong with a level that is not the last one, a page has a place elsewhere; not so if it is the request that is wrong, or late. */
static bool goes_on(const struct tier *t, unsigned level, int err)
{
	return level + 1 < t->nr && err != -ECANCELED && err != -ETIMEDOUT && err != -EMSGSIZE && err != -EINVAL;
}

static void put_done(struct cis_store_req *part, int err)
{
	struct tier_held *h = part->ctx;
	struct tier *t = h->tier;
	unsigned level = ended(h, part);
	uint32_t loc = tier_outer_loc(t, level, part->loc, part->len);

	tier_put_ended(t, h->ns, level, err);
	if (level + 1 < t->nr && (err || !tier_add(t, level, h->ns, h->id, loc, part->len)))
		tier_count(t, h->ns, level, -(int64_t)tier_cost(part->len));
	if (err)
		tier_hurt(&t->level[level], err, cis_now_ns(NULL) - h->since_ns);
	if (err && goes_on(t, level, err)) {
		put_to(h, level + 1);
		return;
	}
	if (!err) {
		h->req->loc = loc;
		h->ns->live++;
	}
	finish(h, err);
}

static void put_to(struct tier_held *h, unsigned level)
{
	struct tier *t = h->tier;
	struct cis_store_req *part;

	while (level + 1 < t->nr && !tier_takes(&t->level[level], tier_cost(h->req->len)))
		level++;
	tier_count(t, h->ns, level, tier_cost(h->req->len));
	h->since_ns = cis_now_ns(NULL);
	part = part_of(h, level, put_done);
	part->buf = h->req->buf;
	part->len = h->req->len;
	tier_send(&t->level[level], part);
}

/* Gets. */

static void get_done(struct cis_store_req *part, int err)
{
	struct tier_held *h = part->ctx;
	struct tier *t = h->tier;
	unsigned level = ended(h, part);
	uint32_t value = tier_find(t, h->ns, h->id);

	h->req->got = part->got;
	if (!err && value) {
		tier_learn(t, value, part->got);
		t->index.value[value].touched = true;
	}
	if (!err && level && !h->stale)
		tier_promote(t, h);
	finish(h, err);
}

static void get(struct tier_held *h)
{
	struct tier *t = h->tier;
	unsigned level = tier_level_of(t, h->loc);
	struct cis_store_req *part;

	if (level >= t->nr) {
		finish(h, -ENOENT);
		return;
	}
	part = part_of(h, level, get_done);
	part->loc = tier_inner_loc(t, h->loc);
	part->buf = h->req->buf;
	part->len = h->req->len;
	part->off = h->req->off;
	part->skip = h->req->skip;
	part->want = h->req->want;
	tier_send(&t->level[level], part);
}

/* Deletes. */

/* What was not done somewhere was not done; if it was there, it is not any more. */
static int both(int a, int b)
{
	if (a == 1 || (b && b != -ENOENT))
		return b;
	return a == -ENOENT ? b : a;
}

static void delete_ended(struct tier_held *h)
{
	if (!h->err && h->loc && h->ns->live)
		h->ns->live--;
	finish(h, h->err);
}

static void delete_done(struct cis_store_req *part, int err)
{
	struct tier_held *h = part->ctx;
	unsigned level = ended(h, part);

	tier_delete_ended(h->tier, h->ns, level, err);
	h->err = both(h->err, err);
	if (!h->parts)
		delete_ended(h);
}

/* A put that failed has no loc, and may be wherever keys are. */
static bool may_have(const struct tier_held *h, unsigned level)
{
	const struct tier *t = h->tier;

	return (h->loc && level == tier_level_of(t, h->loc)) || (t->level[level].keyed && (!h->loc || h->ns->scattered));
}

void tier_delete_goes_on(struct tier_held *h)
{
	struct tier *t = h->tier;
	uint32_t value = tier_find(t, h->ns, h->id);

	h->waiting = false;
	h->err = 1;
	if (value && t->index.value[value].loc == h->loc)
		tier_remove(t, value);
	for (unsigned l = 0; l < t->nr; l++)
		if (may_have(h, l)) {
			struct cis_store_req *part = part_of(h, l, delete_done);

			part->loc = h->loc && l == tier_level_of(t, h->loc) ? tier_inner_loc(t, h->loc) : 0;
			tier_send(&t->level[l], part);
		}
	if (!h->parts)
		finish(h, -ENOENT);
}

static void delete(struct tier_held *h)
{
	struct tier_move *m = tier_move_of(h->tier, h->ns, h->id);
	struct tier_held *get;

	TAILQ_FOREACH(get, &h->tier->gets, all)
		get->stale |= get->ns == h->ns && get->id == h->id;
	if (!m) {
		tier_delete_goes_on(h);
		return;
	}
	h->waiting = true;
	h->waits = m->waiters;
	m->waiters = h;
	tier_move_abort(m);
}

/* Drops. */

static void drop_done(struct cis_store_req *part, int err)
{
	struct tier_held *h = part->ctx;

	ended(h, part);
	finish(h, err);
}

/* The parts of the first level that has some, then of the next one.  The first of all ends what is no request. */
static void drop(struct tier_held *h)
{
	struct tier *t = h->tier;
	unsigned level = 0;
	struct cis_store_req *part;

	while (level < t->nr && h->id >= t->level[level].store->ops->drops)
		h->id -= t->level[level++].store->ops->drops;
	if (level == t->nr) {
		finish(h, -EINVAL);
		return;
	}
	part = part_of(h, level, drop_done);
	tier_send(&t->level[level], part);
}

/* All of them. */

static void take(struct tier *t, struct tier_held *h, struct cis_store_req *req)
{
	h->tier = t;
	h->req = req;
	h->id = req->key.id;
	h->loc = req->op == CIS_STORE_PUT ? 0 : req->loc;
	h->ns->in_flight++;
	h->ns->still = false;
	TAILQ_INSERT_TAIL(list_of(t, req->op), h, all);
	switch (req->op) {
	case CIS_STORE_PUT:
		req->loc = 0;
		put_to(h, 0);
		break;
	case CIS_STORE_GET:
		get(h);
		break;
	case CIS_STORE_DELETE:
		delete(h);
		break;
	case CIS_STORE_DROP:
		drop(h);
	}
}

void tier_take(struct tier *t, struct cis_store_req *req)
{
	struct tier_held *h = calloc(1, sizeof(*h));
	struct tier_ns *ns;

	if (h && req->op == CIS_STORE_DROP && !req->key.id)
		tier_ns_drop(t, req->key.ns);
	ns = h ? tier_ns_of(t, req->key.ns, true) : NULL;
	if (!ns) {
		free(h);
		req->done(req, -ENOMEM);
		return;
	}
	h->ns = ns;
	take(t, h, req);
}

static void give_up_delete(struct tier_held *h)
{
	struct cis_store_req *req = h->req;

	if (h->waiting) { /* and is done nevertheless */
		h->req = NULL;
		h->tier->nr_done++;
		req->done(req, -ECANCELED);
		return;
	}
	h->parts++; /* as long as it is looked at here */
	for (unsigned l = 0; l < h->tier->nr; l++)
		if (h->under_way[l])
			tier_cancel(&h->tier->level[l], &h->part[l]);
	if (!--h->parts)
		delete_ended(h);
}

void tier_give_up(struct tier *t, struct cis_store_req *req)
{
	struct tier_held *h;
	unsigned l = 0;

	TAILQ_FOREACH(h, list_of(t, req->op), all)
		if (h->req == req)
			break;
	if (!h)
		return;
	if (req->op == CIS_STORE_DELETE) {
		give_up_delete(h);
		return;
	}
	while (l < t->nr && !h->under_way[l])
		l++;
	if (l < t->nr)
		tier_cancel(&t->level[l], &h->part[l]);
}

bool tier_asked_for(const struct tier *t, const struct tier_ns *ns, uint64_t id)
{
	const struct tier_held *h;

	TAILQ_FOREACH(h, &t->gets, all)
		if (h->ns == ns && h->id == id)
			return true;
	return false;
}
