/*
 * Moves: down, of what was not asked for lately, out of a level that is nearly full; up, of what was asked for.
 *
 *	          ┌─ read ─▶ write ─▶ ask the owner ─┬─ yes ─▶ delete it there ─▶ over
 *	oldest ───┘            ▲                     └─ no, or it is being deleted ─▶ delete the copy ─▶ over
 *	promotion ─────────────┘
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "store/tier/tier.h"

#define MOVE_NS	     10000000000ull /* for each of its requests */
#define PAUSE_NS     100000000ull   /* after one that failed */
#define ASK_AGAIN_NS 1000000ull
#define ASKS	     16u

struct tier_move *tier_move_of(struct tier *t, const struct tier_ns *ns, uint64_t id)
{
	for (unsigned i = 0; t->nr_moves && i < TIER_MOVES; i++)
		if (t->move[i].state != TIER_FREE && t->move[i].id == id && t->move[i].ns == ns)
			return &t->move[i];
	return NULL;
}

static struct tier_move *begin(struct tier *t, struct tier_ns *ns, uint64_t id, uint32_t loc)
{
	struct tier_move *m = t->move;

	while (m->state != TIER_FREE)
		m++;
	memset(m, 0, offsetof(struct tier_move, buf));
	m->tier = t;
	m->ns = ns;
	m->id = id;
	m->from = tier_level_of(t, loc);
	m->from_loc = loc;
	m->turn = t->turn;
	ns->in_flight++;
	t->nr_moves++;
	return m;
}

static void take_value(struct tier_move *m, uint32_t value)
{
	const struct tier_value *v = &m->tier->index.value[value];

	m->value = value;
	m->len = v->len;
	tier_unlist(m->tier, value);
	m->tier->level[m->from].leaving += tier_cost(m->len);
}

static void let_value_go(struct tier_move *m)
{
	if (!m->value)
		return;
	m->tier->level[m->from].leaving -= tier_cost(m->len);
	if (m->ns->gone)
		tier_remove(m->tier, m->value);
	else
		tier_list(m->tier, m->value);
	m->value = 0;
}

static void end(struct tier_move *m)
{
	struct tier_held *h = m->waiters, *next;
	struct tier *t = m->tier;

	let_value_go(m);
	m->state = TIER_FREE;
	t->nr_moves--;
	t->nr_promotions -= m->promoted;
	for (; h; h = next) {
		next = h->waits;
		tier_delete_goes_on(h);
	}
	tier_ns_let_go(t, m->ns);
}

static void send(struct tier_move *m, enum cis_store_op op, unsigned level, uint32_t loc,
		 void (*done)(struct cis_store_req *req, int err))
{
	m->req = (struct cis_store_req){
		.op = op, .key = tier_key(m->ns, m->id, level), .loc = loc ? tier_inner_loc(m->tier, loc) : 0, .buf = m->buf,
		.len = op == CIS_STORE_GET ? CIS_VALUE_MAX : m->len, .deadline_ns = cis_now_ns(NULL) + MOVE_NS, .done = done, .ctx = m,
	};
	m->under_way = true;
	tier_send(&m->tier->level[level], &m->req);
}

static void cleaned(struct cis_store_req *req, int err)
{
	struct tier_move *m = req->ctx;
	uint64_t other = (req->key.ns[1] ^ m->ns->ns[1]) >> 60;

	m->under_way = false;
	tier_delete_ended(m->tier, m->ns, (unsigned)other, err);
	end(m);
}

static void clean(struct tier_move *m, unsigned level, uint32_t loc)
{
	m->state = TIER_CLEAN;
	send(m, CIS_STORE_DELETE, level, loc, cleaned);
}

/*
 * No loc names the copy.  A level with keys is not told to delete what its owner still has, and which may come there again: such a delete
 * might be late.
 */
static void give_copy_up(struct tier_move *m)
{
	tier_count(m->tier, m->ns, m->to, -(int64_t)tier_cost(m->len));
	if (m->ns->gone || m->tier->closing || (m->tier->level[m->to].keyed && !m->aborted)) {
		m->ns->scattered = true;
		end(m);
	} else {
		clean(m, m->to, m->to_loc);
	}
}

static void moved_over(struct tier_move *m)
{
	struct tier *t = m->tier;
	uint32_t i = m->value;
	struct tier_value *v = &t->index.value[i];

	m->value = 0;
	if (i)
		t->level[m->from].leaving -= tier_cost(m->len);
	if (i && m->to + 1 < t->nr) {
		tier_count(t, m->ns, m->from, -(int64_t)tier_cost(m->len));
		v->level = (uint8_t)m->to;
		v->loc = m->to_loc;
		v->touched = m->promoted;
		tier_list(t, i);
	} else if (i) {
		tier_remove(t, i);
	} else if (!tier_add(t, m->to, m->ns, m->id, m->to_loc, m->len)) {
		tier_count(t, m->ns, m->to, -(int64_t)tier_cost(m->len));
	}
	clean(m, m->from, m->from_loc);
}

/* While somebody reads it, it stays where it is; and its owner may be at it. */
static void ask(struct tier_move *m, uint64_t now)
{
	struct cis_key key = tier_key(m->ns, m->id, 0);

	if (now < m->asked_ns + ASK_AGAIN_NS || tier_asked_for(m->tier, m->ns, m->id))
		return;
	m->asked_ns = now;
	if (m->tier->moved(m->tier->ctx, &key, m->from_loc, m->to_loc)) {
		moved_over(m);
	} else if (++m->asked == ASKS) {
		m->ns->still = true;
		give_copy_up(m);
	}
}

static void written(struct cis_store_req *req, int err)
{
	struct tier_move *m = req->ctx;
	struct tier *t = m->tier;

	m->under_way = false;
	tier_put_ended(t, m->ns, m->to, err);
	m->to_loc = err ? 0 : tier_outer_loc(t, m->to, req->loc, m->len);
	m->state = TIER_ASK;
	if (!err && !m->aborted)
		return;
	if (err && !m->aborted)
		tier_hurt(&t->level[m->to], err, MOVE_NS);
	if (!err || (m->aborted && t->level[m->to].keyed)) {
		give_copy_up(m);
		return;
	}
	tier_count(t, m->ns, m->to, -(int64_t)tier_cost(m->len));
	end(m);
}

static void write_to(struct tier_move *m, unsigned level)
{
	m->state = TIER_WRITE;
	m->to = level;
	tier_count(m->tier, m->ns, level, tier_cost(m->len));
	send(m, CIS_STORE_PUT, level, 0, written);
}

/* Return: the next level that takes it; the number of levels: none does at present. */
static unsigned taker(struct tier *t, unsigned from, uint32_t len)
{
	unsigned to = from + 1;

	while (to < t->nr && !tier_takes(&t->level[to], tier_cost(len)))
		to++;
	return to;
}

static void forget_lost(struct tier_move *m)
{
	m->tier->level[m->from].leaving -= tier_cost(m->len);
	tier_remove(m->tier, m->value);
	m->value = 0;
}

static void learn(struct tier_move *m, uint32_t len)
{
	m->tier->level[m->from].leaving += tier_cost(len) - (uint64_t)tier_cost(m->len);
	tier_learn(m->tier, m->value, len);
	m->len = len;
}

/* That it is lost its owner finds out when it is touched. */
static void was_read(struct cis_store_req *req, int err)
{
	struct tier_move *m = req->ctx;
	struct tier *t = m->tier;
	unsigned to;

	m->under_way = false;
	if (err == -ENOENT)
		forget_lost(m);
	else if (err && !m->aborted)
		t->pause_ns = cis_now_ns(NULL) + PAUSE_NS;
	if (err || m->aborted) {
		end(m);
		return;
	}
	learn(m, req->got);
	to = taker(t, m->from, m->len);
	if (to < t->nr)
		write_to(m, to);
	else
		end(m);
}

/* Up. */

void tier_promote(struct tier *t, const struct tier_held *h)
{
	uint32_t len = h->req->got, value = tier_find(t, h->ns, h->id);
	struct tier_move *m;

	if (!t->moved || t->closing || h->ns->gone || t->nr_promotions == TIER_PROMOTIONS || t->nr_moves == TIER_MOVES || !len ||
	    !tier_takes(&t->level[0], tier_cost(len)) || tier_move_of(t, h->ns, h->id))
		return;
	m = begin(t, h->ns, h->id, h->loc);
	m->state = TIER_PROMOTE;
	m->promoted = true;
	t->nr_promotions++;
	if (value)
		take_value(m, value);
	m->len = len;
	memcpy(m->buf, h->req->buf, len);
}

/* Whoever got it to write to it deletes it at once, which the turn after this one knows. */
static void go_up(struct tier_move *m)
{
	if (m->turn == m->tier->turn)
		return;
	if (tier_takes(&m->tier->level[0], tier_cost(m->len)))
		write_to(m, 0);
	else
		end(m);
}

/* Down. */

/* Return: whether there is more to look at. */
static bool go_down(struct tier *t, unsigned level)
{
	uint32_t i = tier_oldest(t, level);
	struct tier_value *v = &t->index.value[i];
	struct tier_move *m;

	if (!i || t->nr_moves == TIER_MOVES || taker(t, level, v->len) == t->nr)
		return false;
	if (v->ns->gone) {
		struct tier_ns *ns = v->ns;

		tier_remove(t, i);
		tier_ns_check(t, ns);
		return true;
	}
	if (v->ns->still || tier_move_of(t, v->ns, v->id)) {
		tier_unlist(t, i);
		tier_list(t, i);
		return true;
	}
	m = begin(t, v->ns, v->id, v->loc);
	take_value(m, i);
	m->state = TIER_READ;
	send(m, CIS_STORE_GET, level, m->from_loc, was_read);
	return true;
}

static void drain(struct tier *t, unsigned level)
{
	struct tier_level *l = &t->level[level];
	int tries = 64;

	if (l->drain_to == UINT64_MAX && l->used > l->capacity - l->capacity / 8)
		l->drain_to = l->capacity - l->capacity / 4;
	if (l->drain_to == UINT64_MAX)
		return;
	while (l->used > l->drain_to + l->leaving && tries-- && go_down(t, level))
		;
	if (l->used <= l->drain_to)
		l->drain_to = UINT64_MAX;
}

void tier_move_abort(struct tier_move *m)
{
	struct tier *t = m->tier;

	m->aborted = true;
	if (m->under_way && (m->state != TIER_CLEAN || m->ns->gone || t->closing))
		tier_cancel(&t->level[(m->req.key.ns[1] ^ m->ns->ns[1]) >> 60], &m->req);
	else if (m->state == TIER_PROMOTE)
		end(m);
	else if (m->state == TIER_ASK)
		give_copy_up(m);
}

void tier_moves_go(struct tier *t)
{
	uint64_t now;

	tier_sweep(t);
	if (!t->moved || t->closing)
		return;
	now = cis_now_ns(NULL);
	for (unsigned i = 0; t->nr_moves && i < TIER_MOVES; i++)
		if (t->move[i].state == TIER_ASK)
			ask(&t->move[i], now);
		else if (t->move[i].state == TIER_PROMOTE)
			go_up(&t->move[i]);
	for (unsigned l = 0; l + 1 < t->nr && now >= t->pause_ns; l++)
		drain(t, l);
}
