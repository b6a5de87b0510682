/*
 * Deficit round robin (Shreedhar and Varghese, 1996) with the two lists of FQ-CoDel (RFC 8290, 4.2).  We differ: what is shared is
 * time, known only afterwards, so that a turn may overdraw; and a debt is also paid by staying away for as long.
 */
#include "daemon/turns.h"

#include <stddef.h>

#define DEBT_MAX_NS 5000000 /* more than a turn ever costs: its thread was not running, and no guest's fault is that */

static void push(struct cis_turn_list *list, struct cis_turn *turn)
{
	turn->next = NULL;
	turn->in = list;
	*list->end = turn;
	list->end = &turn->next;
	list->nr++;
}

static struct cis_turn *pop(struct cis_turn_list *list)
{
	struct cis_turn *turn = list->first;

	list->first = turn->next;
	if (!list->first)
		list->end = &list->first;
	list->nr--;
	turn->in = NULL;
	return turn;
}

void cis_turns_init(struct cis_turns *t, cis_clock_fn clock, void *clock_ctx)
{
	*t = (struct cis_turns){ .clock = clock, .clock_ctx = clock_ctx };
	t->fresh.end = &t->fresh.first;
	t->old.end = &t->old.first;
}

static bool in_credit(struct cis_turns *t, struct cis_turn *turn)
{
	if (turn->credit_ns <= 0 && t->clock(t->clock_ctx) - turn->since_ns >= (uint64_t)-turn->credit_ns)
		turn->credit_ns = CIS_QUANTUM_NS;
	return turn->credit_ns > 0;
}

void cis_turn_want(struct cis_turns *t, struct cis_turn *turn)
{
	if (!turn->in)
		push(in_credit(t, turn) ? &t->fresh : &t->old, turn);
}

void cis_turn_again(struct cis_turns *t, struct cis_turn *turn)
{
	if (!turn->in)
		push(&t->old, turn);
}

void cis_turn_drop(struct cis_turns *t, struct cis_turn *turn)
{
	struct cis_turn_list *list = turn->in;
	struct cis_turn **at;

	if (!list)
		return;
	for (at = &list->first; *at != turn; at = &(*at)->next)
		;
	*at = turn->next;
	if (!*at)
		list->end = at;
	list->nr--;
	turn->in = NULL;
}

void cis_turn_used(struct cis_turns *t, struct cis_turn *turn, uint64_t ns)
{
	turn->credit_ns -= (int64_t)ns;
	if (turn->credit_ns < -DEBT_MAX_NS)
		turn->credit_ns = -DEBT_MAX_NS;
	if (turn->credit_ns <= 0)
		turn->since_ns = t->clock(t->clock_ctx);
}

void cis_turns_round(struct cis_turns *t)
{
	t->fresh_left = t->fresh.nr;
	t->old_left = t->old.nr;
}

struct cis_turn *cis_turns_next(struct cis_turns *t)
{
	if (t->fresh_left && t->fresh.first) {
		t->fresh_left--;
		return pop(&t->fresh);
	}
	for (; t->old_left && t->old.first; t->old_left--) {
		struct cis_turn *turn = pop(&t->old);

		turn->credit_ns += CIS_QUANTUM_NS;
		if (turn->credit_ns > CIS_QUANTUM_NS)
			turn->credit_ns = CIS_QUANTUM_NS;
		if (turn->credit_ns > 0) {
			t->old_left = 0;
			return turn;
		}
		push(&t->old, turn);
	}
	return NULL;
}
