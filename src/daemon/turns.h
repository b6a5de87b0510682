/*
 * Whose turn it is: seats of a shard share its time.  One thread.
 *
 * Who has something to do now and then is fresh: it goes before all that could go on and on, of which one gets a turn each round.
 * A turn is a run of a pager, some 40 us.  So the fault of a guest that is not storming waits for one turn of those that are,
 * however many they are and however they do it; and among those that storm each gets the same share of time.
 */
#ifndef CIS_DAEMON_TURNS_H
#define CIS_DAEMON_TURNS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#define CIS_QUANTUM_NS 40000 /* that each gets a round */

struct cis_turn;

/** struct cis_turn_list - first come, first served */
struct cis_turn_list {
	struct cis_turn *first, **end;
	unsigned nr;
};

/** struct cis_turn - of a seat; zeros to begin with */
struct cis_turn {
	struct cis_turn *next;
	struct cis_turn_list *in; /* NULL: nothing to do */
	int64_t credit_ns;	  /* 0 and less: it has had its time, and more */
	uint64_t since_ns;	  /* when that was found */
};

struct cis_turns {
	struct cis_turn_list fresh, old;
	cis_clock_fn clock;
	void *clock_ctx;
	unsigned fresh_left, old_left; /* of the round */
};

void cis_turns_init(struct cis_turns *t, cis_clock_fn clock, void *clock_ctx);

/** cis_turn_want() - there is something to do. */
void cis_turn_want(struct cis_turns *t, struct cis_turn *turn);

/** cis_turn_again() - there is more to do than a turn has time for. */
void cis_turn_again(struct cis_turns *t, struct cis_turn *turn);

/** cis_turn_drop() - there is nothing to do any more, or it is no longer served. */
void cis_turn_drop(struct cis_turns *t, struct cis_turn *turn);

/** cis_turn_used() - its turn took so long. */
void cis_turn_used(struct cis_turns *t, struct cis_turn *turn, uint64_t ns);

static inline bool cis_turns_any(const struct cis_turns *t)
{
	return t->fresh.first || t->old.first;
}

/** cis_turns_round() - begin a round: all that are fresh now, and one that is not. */
void cis_turns_round(struct cis_turns *t);

/** cis_turns_next() - whose turn it is in this round, taken off its list; NULL: the round is over. */
struct cis_turn *cis_turns_next(struct cis_turns *t);

#endif
