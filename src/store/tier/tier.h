/*
 * tier:, stores of pages one behind the other: one handle.
 *
 *	put ─▶ the first level that has room, the last one if none has
 *	get ─▶ the level that loc says; what was not in the first one is promoted to it, unless it is deleted at once
 *	moves: what has been longest in a level that is nearly full, and was not asked for meanwhile, goes to the next one
 *
 * A value is in one level, and loc says in which: its upper bits are the level, the others what that level says, or the length of the value
 * where the level finds by key, so that whoever claims it knows how much of the level is used.  A move is a get there, a put here, and
 * the owner's word (cis_pages_opts.moved); only then is the one there deleted.  Of an engine that dies within a move nothing is left but a copy that no loc
 * names: in a level with places it is free room then; in one with keys each delete of the namespace goes to such levels too (@scattered).
 *
 * Each level has namespaces of its own, so that two levels may be one server, by two names, and do each other no harm.
 *
 * While a value is being moved its delete waits until that has been given up: so no late put or delete of a key meets another one.
 *
 * Everything here belongs to the handle's thread.
 */
#ifndef CIS_STORE_TIER_TIER_H
#define CIS_STORE_TIER_TIER_H

#include <stdbool.h>
#include <sys/queue.h>

#include "store/store.h"

#define TIER_LEVELS	4u
#define TIER_MOVES	32u
#define TIER_PROMOTIONS 16u /* of these: making room goes on */
#define TIER_LEAST	256u /* bytes that a value counts for at least, so that there cannot be too many */
#define TIER_GUESS	2048u /* of one that an engine before has put, whose length loc does not say */
#define TIER_HURT_NS	1000000000ull /* so long a level that failed gets no puts */

struct tier;

/** struct tier_name - @level: their names and sizes, malloc'ed; the last one's size is 0 */
struct tier_name {
	unsigned nr;
	struct {
		char *name;
		uint64_t bytes;
	} level[TIER_LEVELS];
};

/** tier_name_parse() - what follows the scheme.  Return: 0 or -errno; tier_name_fini() is wanted either way. */
int tier_name_parse(const char *rest, struct tier_name *ret, struct cis_error *err);
void tier_name_fini(struct tier_name *name);

/**
 * struct tier_ns - a namespace
 * @nr:        by level: values that may be there, where that level can drop it
 * @live:      values that its owner may have somewhere
 * @in_flight: requests and moves
 * @entries:   of the index
 * @used:      by level: bytes of these
 * @had:       there is something to be dropped in levels that can
 * @scattered: levels with keys may have copies that no loc names
 * @still:     its owner did not let values be moved, and has not asked for anything since
 * @gone:      it was dropped, and may have begun anew in another struct
 * @listed:    in tier.idle
 */
struct tier_ns {
	struct tier_ns *next, *next_idle;
	uint64_t ns[2];
	uint64_t nr[TIER_LEVELS], used[TIER_LEVELS], live, entries;
	unsigned in_flight;
	bool had, scattered, still, gone, listed;
};

/** struct tier_value - a value in a level that is not the last one; others are in no table.  @older, @newer: of its level's list */
struct tier_value {
	uint64_t id;
	struct tier_ns *ns;
	uint32_t loc; /* its owner's */
	uint32_t chain, older, newer;
	uint16_t len;
	uint8_t level;
	bool touched : 1, guessed : 1, moving : 1; /* moving: in no list */
};

/** struct tier_index - values by key; number 0 is none, and one that is free has no ns */
struct tier_index {
	struct tier_value *value;
	uint32_t *bucket;
	uint64_t size, bucket_mask;
	uint32_t top, free;
	uint32_t sweep_at, sweep_left; /* values that may be of namespaces that are gone */
};

/**
 * struct tier_level - a level
 * @keyed:    it says no locs
 * @used:     bytes of values, with those that are on their way to it; @leaving: of these, those that are being moved from it
 * @drain_to: so much may stay, until that is reached; UINT64_MAX: nothing has to leave
 * @hurt_ns:  until then it gets no puts
 * @out:      requests that wait to be submitted, linked by next
 */
struct tier_level {
	struct tier *tier;
	struct cis_store *store;
	bool keyed;
	uint64_t capacity, used, leaving, drain_to, hurt_ns;
	uint32_t oldest, newest;
	struct cis_store_req *out, **out_end;
};

/** struct tier_held - a request of the caller, or NULL: it was given up; @part: for each level, of which @parts are under way */
struct tier_held {
	TAILQ_ENTRY(tier_held) all;
	struct tier *tier;
	struct cis_store_req *req;
	struct tier_ns *ns;
	struct cis_store_req part[TIER_LEVELS];
	bool under_way[TIER_LEVELS];
	uint64_t id, since_ns;
	uint32_t loc;
	unsigned level, parts;
	int err; /* of a delete, so far; 1: nobody has said anything */
	struct tier_held *waits; /* deletes: the next one that waits for the same move */
	bool waiting;
	bool stale; /* a get: its value has been deleted meanwhile */
};

/* PROMOTE: nothing is done yet.  ASK: the copy is there.  CLEAN: one of the two is being deleted. */
enum tier_moving { TIER_FREE, TIER_PROMOTE, TIER_READ, TIER_WRITE, TIER_ASK, TIER_CLEAN };

/**
 * struct tier_move - a value on its way to another level
 * @value:   in the index, or 0
 * @turn:    in which a promotion began
 * @aborted: its delete has come, or the whole namespace goes
 * @asked:   so often whether it may move
 */
struct tier_move {
	struct tier *tier;
	enum tier_moving state;
	struct tier_ns *ns;
	uint64_t id, turn, asked_ns;
	uint32_t value, from_loc, to_loc, len;
	unsigned from, to, asked;
	bool promoted, under_way, aborted;
	struct tier_held *waiters;
	struct cis_store_req req;
	uint8_t buf[CIS_VALUE_MAX];
};

#define TIER_BUCKETS 256u

struct tier {
	struct cis_store store;
	struct cis_store_ops ops; /* it can drop namespaces where all levels can, by a call or by requests */
	struct tier_level level[TIER_LEVELS];
	unsigned nr, shift; /* of levels; of the level in a loc */
	bool (*moved)(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to);
	void *ctx;
	int epoll;
	struct tier_index index;
	struct tier_ns *bucket[TIER_BUCKETS], *idle;
	TAILQ_HEAD(tier_requests, tier_held) gets, others;
	struct tier_move *move;
	unsigned nr_moves, nr_promotions;
	uint64_t turn, nr_done;
	uint64_t pause_ns; /* no moves until then: one has failed */
	bool driving, closing;
};

static inline unsigned tier_level_of(const struct tier *t, uint32_t loc)
{
	return loc >> t->shift;
}

/* What the level itself calls it. */
static inline uint32_t tier_inner_loc(const struct tier *t, uint32_t loc)
{
	return t->level[tier_level_of(t, loc)].keyed ? 0 : loc & ((1u << t->shift) - 1);
}

static inline uint32_t tier_outer_loc(const struct tier *t, unsigned level, uint32_t inner, uint32_t len)
{
	return level << t->shift | (t->level[level].keyed ? len : inner);
}

static inline uint32_t tier_cost(uint32_t len)
{
	return len < TIER_LEAST ? TIER_LEAST : len;
}

/* index.c */
int tier_index_init(struct tier_index *x, uint64_t capacity);
void tier_index_fini(struct tier_index *x);
uint32_t tier_find(const struct tier *t, const struct tier_ns *ns, uint64_t id);
/** tier_add() - the newest value of @level, where its cost is counted already.  Return: false: there is no place for it in the table. */
bool tier_add(struct tier *t, unsigned level, struct tier_ns *ns, uint64_t id, uint32_t loc, uint32_t len);
/** tier_count() - bytes of values of the namespace that come to a level, or leave it. */
void tier_count(struct tier *t, struct tier_ns *ns, unsigned level, int64_t bytes);
/** tier_remove() - and what it costs its level. */
void tier_remove(struct tier *t, uint32_t value);
void tier_list(struct tier *t, uint32_t value);
void tier_unlist(struct tier *t, uint32_t value);
/** tier_oldest() - which was not asked for lately, and is not being moved; or 0. */
uint32_t tier_oldest(struct tier *t, unsigned level);
/** tier_learn() - the length of a value that was claimed. */
void tier_learn(struct tier *t, uint32_t value, uint32_t len);
/** tier_sweep() - some more of what dropped namespaces have left in the table. */
void tier_sweep(struct tier *t);

/* ns.c */
/** tier_ns_of() - the namespace; NULL where it is not known, and not @make or no memory. */
struct tier_ns *tier_ns_of(struct tier *t, const uint64_t ns[2], bool make);
struct cis_key tier_key(const struct tier_ns *ns, uint64_t id, unsigned level);
/** tier_ns_let_go() - one less in flight; it ends when there is nothing of it. */
void tier_ns_let_go(struct tier *t, struct tier_ns *ns);
/** tier_ns_check() - something of it has ended: it may be empty. */
void tier_ns_check(struct tier *t, struct tier_ns *ns);
/** tier_ns_end_idle() - drop those that are. */
void tier_ns_end_idle(struct tier *t);
/** tier_ns_drop() - as far as that is a call to the levels. */
void tier_ns_drop(struct tier *t, const uint64_t ns[2]);
void tier_ns_fini(struct tier *t);
/** tier_put_ended(), tier_delete_ended() - of a level, with @err: what may be in it. */
void tier_put_ended(struct tier *t, struct tier_ns *ns, unsigned level, int err);
void tier_delete_ended(struct tier *t, struct tier_ns *ns, unsigned level, int err);

/* request.c */
void tier_take(struct tier *t, struct cis_store_req *req);
void tier_give_up(struct tier *t, struct cis_store_req *req);
/** tier_delete_goes_on() - one that may have waited for a move. */
void tier_delete_goes_on(struct tier_held *h);
/** tier_asked_for() - is a get of it under way? */
bool tier_asked_for(const struct tier *t, const struct tier_ns *ns, uint64_t id);

/* move.c */
struct tier_move *tier_move_of(struct tier *t, const struct tier_ns *ns, uint64_t id);
/** tier_promote() - a value that a get has brought from a level behind the first. */
void tier_promote(struct tier *t, const struct tier_held *h);
/** tier_move_abort() - its copy goes, and then whatever waits goes on. */
void tier_move_abort(struct tier_move *m);
void tier_moves_go(struct tier *t);

/* tier.c */
/** tier_send() - to be submitted, when whoever called the store returns. */
void tier_send(struct tier_level *l, struct cis_store_req *req);
/** tier_cancel() - done comes soon, or already. */
void tier_cancel(struct tier_level *l, struct cis_store_req *req);
/** tier_takes() - has the level room for it, and is it well? */
bool tier_takes(struct tier_level *l, uint32_t cost);
/** tier_hurt() - a put there has failed, after @ns. */
void tier_hurt(struct tier_level *l, int err, uint64_t ns);

#endif
