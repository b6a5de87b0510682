/* The handle. */
#include "store/tier/tier.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/pages.h"

#define A_BATCH	 64u
#define SHORT_NS 100000000ull /* a put that had less time than that says nothing of its level */

static struct tier *of(struct cis_store *store)
{
	return (struct tier *)store;
}

/* What goes to the levels. */

void tier_send(struct tier_level *l, struct cis_store_req *req)
{
	req->next = NULL;
	*l->out_end = req;
	l->out_end = &req->next;
}

static size_t take_out(struct tier_level *l, struct cis_store_req *ret[A_BATCH])
{
	size_t n = 0;

	while (l->out && n < A_BATCH) {
		ret[n++] = l->out;
		l->out = l->out->next;
	}
	if (!l->out)
		l->out_end = &l->out;
	return n;
}

/* Each may call done, and so whatever the caller likes. */
static void flush(struct tier *t)
{
	struct cis_store_req *reqs[A_BATCH];
	bool any = true;

	while (any) {
		any = false;
		for (unsigned l = 0; l < t->nr; l++) {
			size_t n = take_out(&t->level[l], reqs);

			any |= n;
			if (n)
				cis_store_submit(t->level[l].store, reqs, n);
		}
	}
}

void tier_cancel(struct tier_level *l, struct cis_store_req *req)
{
	struct cis_store_req **at = &l->out;

	while (*at && *at != req)
		at = &(*at)->next;
	if (!*at) {
		cis_store_cancel(l->store, req);
		return;
	}
	*at = req->next;
	if (!*at)
		l->out_end = at;
	req->done(req, -ECANCELED);
}

static void settle(struct tier *t)
{
	if (!t->driving) {
		t->driving = true;
		tier_moves_go(t);
		t->driving = false;
	}
	flush(t);
}

bool tier_takes(struct tier_level *l, uint32_t cost)
{
	if (l->hurt_ns && cis_now_ns(NULL) < l->hurt_ns)
		return false;
	l->hurt_ns = 0;
	return l->used + cost <= l->capacity;
}

void tier_hurt(struct tier_level *l, int err, uint64_t ns)
{
	if (err == -ECANCELED || err == -EMSGSIZE || err == -EINVAL || (err == -ETIMEDOUT && ns < SHORT_NS))
		return;
	if (err == -ENOSPC && l->drain_to == UINT64_MAX)
		l->drain_to = l->used - l->used / 8;
	l->hurt_ns = cis_now_ns(NULL) + (err == -ENOSPC ? TIER_HURT_NS / 100 : TIER_HURT_NS);
}

/* What a store does. */

static void tier_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct tier *t = of(store);

	t->turn++;
	for (size_t i = 0; i < n; i++)
		tier_take(t, reqs[i]);
	settle(t);
}

static int tier_fd(struct cis_store *store)
{
	return of(store)->epoll;
}

static void tier_reap(struct cis_store *store)
{
	struct tier *t = of(store);
	struct epoll_event ev[TIER_LEVELS];
	int n = epoll_wait(t->epoll, ev, TIER_LEVELS, 0);

	t->turn++;
	for (int i = 0; i < n; i++)
		cis_store_reap(t->level[ev[i].data.u32].store);
	settle(t);
	tier_ns_end_idle(t);
}

static void tier_wait(struct cis_store *store, uint64_t deadline_ns)
{
	struct tier *t = of(store);
	struct pollfd p = { .fd = t->epoll, .events = POLLIN };
	uint64_t before = t->nr_done, now = 0;

	while ((!TAILQ_EMPTY(&t->gets) || !TAILQ_EMPTY(&t->others)) && t->nr_done == before) {
		struct timespec ts;

		if (deadline_ns) {
			now = cis_now_ns(NULL);
			ts.tv_sec = (time_t)(deadline_ns > now ? (deadline_ns - now) / 1000000000u : 0);
			ts.tv_nsec = (long)(deadline_ns > now ? (deadline_ns - now) % 1000000000u : 0);
		}
		ppoll(&p, 1, deadline_ns ? &ts : NULL, NULL);
		tier_reap(store);
		if (deadline_ns && now >= deadline_ns)
			return;
	}
}

static void tier_do_cancel(struct cis_store *store, struct cis_store_req *req)
{
	tier_give_up(of(store), req);
	settle(of(store));
}

/* An engine before may have left copies anywhere. */
static int tier_claim(struct cis_store *store, const struct cis_key *key, uint32_t loc)
{
	struct tier *t = of(store);
	unsigned level = tier_level_of(t, loc);
	uint32_t len = loc & ((1u << t->shift) - 1);
	struct tier_level *l = &t->level[level < t->nr ? level : 0];
	struct tier_ns *ns;
	int rc = 0;

	if (level >= t->nr || !len || (l->keyed && len > CIS_VALUE_MAX))
		return -ENOENT;
	ns = tier_ns_of(t, key->ns, true);
	if (!ns)
		return -ENOMEM;
	if (!l->keyed) {
		struct cis_key inner = tier_key(ns, key->id, level);

		rc = cis_store_claim(l->store, &inner, tier_inner_loc(t, loc));
		len = TIER_GUESS;
	}
	if (rc) {
		tier_ns_check(t, ns);
		return rc;
	}
	ns->live++;
	ns->scattered = true;
	tier_put_ended(t, ns, level, 0);
	if (level + 1 == t->nr || tier_find(t, ns, key->id) || !tier_add(t, level, ns, key->id, loc, len))
		return 0;
	t->index.value[tier_find(t, ns, key->id)].guessed = !l->keyed;
	tier_count(t, ns, level, tier_cost(len));
	return 0;
}

static void tier_drop(struct cis_store *store, const uint64_t ns[2])
{
	tier_ns_drop(of(store), ns);
	settle(of(store));
}

/* What a level moves about by itself, while nothing else is done with it. */
static bool moved_within(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to)
{
	struct tier_level *l = ctx;
	struct tier *t = l->tier;
	unsigned level = (unsigned)(l - t->level);
	struct cis_key outer = { { key->ns[0], key->ns[1] ^ (uint64_t)level << 60 }, key->id };
	struct tier_ns *ns = tier_ns_of(t, outer.ns, false);
	uint32_t value = tier_find(t, ns, key->id);

	from = tier_outer_loc(t, level, from, 0);
	to = tier_outer_loc(t, level, to, 0);
	if (!ns || tier_move_of(t, ns, key->id) || !t->moved(t->ctx, &outer, from, to))
		return false;
	if (value && t->index.value[value].loc == from)
		t->index.value[value].loc = to;
	return true;
}

/* Beginnings and ends. */

static bool is_moving(const struct tier *t)
{
	for (unsigned i = 0; t->nr_moves && i < TIER_MOVES; i++)
		if (t->move[i].under_way)
			return true;
	return false;
}

/* What has been sent has our buffers. */
static void end_moves(struct tier *t)
{
	t->closing = true;
	for (unsigned i = 0; t->nr_moves && i < TIER_MOVES; i++)
		if (t->move[i].state != TIER_FREE)
			tier_move_abort(&t->move[i]);
	for (flush(t); is_moving(t); flush(t)) {
		poll(&(struct pollfd){ .fd = t->epoll, .events = POLLIN }, 1, -1);
		for (unsigned l = 0; l < t->nr; l++)
			cis_store_reap(t->level[l].store);
	}
}

static void tier_close(struct cis_store *store)
{
	struct tier *t = of(store);

	end_moves(t);
	tier_ns_end_idle(t);
	for (unsigned l = 0; l < t->nr; l++)
		cis_store_close(t->level[l].store);
	tier_ns_fini(t);
	tier_index_fini(&t->index);
	if (t->epoll >= 0)
		close(t->epoll);
	free(t->move);
	free(t);
}

static const struct cis_store_ops tier_ops = {
	.ops_size = sizeof(struct cis_store_ops),
	.name = "tier",
	.submit = tier_submit,
	.fd = tier_fd,
	.reap = tier_reap,
	.wait = tier_wait,
	.cancel = tier_do_cancel,
	.close = tier_close,
	.claim = tier_claim,
	.drop = tier_drop,
};

static int open_level(struct tier *t, unsigned level, const struct tier_name *name, struct cis_error *err)
{
	struct tier_level *l = &t->level[level];
	struct cis_pages_opts opts = { .size = sizeof(opts), .moved = t->moved ? moved_within : NULL, .ctx = l, .loc_bits = t->shift };
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = level };
	int rc;

	l->tier = t;
	l->capacity = level + 1 < name->nr ? name->level[level].bytes : UINT64_MAX;
	l->drain_to = UINT64_MAX;
	l->out_end = &l->out;
	rc = cis_pages_open(name->level[level].name, &opts, &l->store, err);
	if (rc)
		return cis_fail_prefix(err, -rc, "store tier: store %u", level + 1);
	t->nr++;
	l->keyed = !l->store->ops->claim;
	if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, cis_store_fd(l->store), &ev))
		return cis_fail(err, errno, "store tier: epoll: %s", strerror(errno));
	return 0;
}

/* Where one level is emptied key by key, so is all. */
static void can_drop(struct tier *t)
{
	bool each = true;

	for (unsigned l = 0; l < t->nr; l++) {
		const struct cis_store_ops *ops = t->level[l].store->ops;

		each &= ops->drop || ops->drops;
		t->ops.drops += ops->drops;
	}
	if (!each)
		t->ops.drops = 0;
	if (!each || t->ops.drops)
		t->ops.drop = NULL;
}

static int open_levels(struct tier *t, const struct tier_name *name, struct cis_error *err)
{
	uint64_t capacity = 0;
	int rc = 0;

	for (unsigned l = 0; l < name->nr && !rc; l++) {
		rc = open_level(t, l, name, err);
		capacity += name->level[l].bytes;
	}
	if (!rc)
		can_drop(t);
	if (!rc && tier_index_init(&t->index, capacity))
		rc = cis_fail(err, ENOMEM, "store tier: out of memory");
	return rc;
}

static struct tier *new_tier(const struct cis_pages_opts *opts, unsigned nr)
{
	struct tier *t = calloc(1, sizeof(*t));
	unsigned bits = opts && opts->loc_bits ? opts->loc_bits : 32;

	if (!t)
		return NULL;
	t->ops = tier_ops;
	t->store.ops = &t->ops;
	t->shift = bits - (nr > 2 ? 2 : 1);
	t->moved = opts ? opts->moved : NULL;
	t->ctx = opts ? opts->ctx : NULL;
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	t->move = calloc(TIER_MOVES, sizeof(*t->move));
	TAILQ_INIT(&t->gets);
	TAILQ_INIT(&t->others);
	if (t->move && t->epoll >= 0)
		return t;
	tier_close(&t->store);
	return NULL;
}

static int pages_open(const char *rest, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err)
{
	struct tier_name name;
	struct tier *t = NULL;
	int rc = tier_name_parse(rest, &name, err);

	if (!rc) {
		t = new_tier(opts, name.nr);
		rc = t ? open_levels(t, &name, err) : cis_fail(err, ENOMEM, "store tier: out of memory or descriptors");
	}
	tier_name_fini(&name);
	if (!rc)
		*ret = &t->store;
	else if (t)
		tier_close(&t->store);
	return rc;
}

static int pages_check(const char *rest, struct cis_error *err)
{
	struct tier_name name;
	int rc = tier_name_parse(rest, &name, err);

	tier_name_fini(&name);
	return rc;
}

/* Each has the whole time: who asks waits for the slowest, and the others have answered by then. */
static int pages_probe(const char *rest, uint64_t timeout_ns, struct cis_error *err)
{
	uint64_t end = cis_now_ns(NULL) + timeout_ns, now = end - timeout_ns;
	struct cis_error said = { 0 }, one = { 0 };
	struct tier_name name;
	int rc = tier_name_parse(rest, &name, &said);

	for (unsigned i = 0; i < name.nr && !rc; i++) {
		rc = cis_pages_probe(name.level[i].name, end > now ? end - now : 0, &one);
		if (rc || (*one.text && !*said.text)) {
			said = one;
			cis_fail_prefix(&said, one.code, "store tier: store %u", i + 1);
		}
		now = cis_now_ns(NULL);
	}
	tier_name_fini(&name);
	if (err)
		*err = said;
	return rc;
}

const struct cis_pages_kind cis_pages_tier = {
	.scheme = "tier:",
	.check = pages_check,
	.open = pages_open,
	.probe = pages_probe,
};
