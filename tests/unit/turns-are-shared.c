/* Turns of a shard's seats: who storms gets its share and no more, and keeps nobody else waiting for more than one turn. */
#include "check.h"
#include "daemon/turns.h"

#define SEATS 8

struct seat {
	struct cis_turn turn;
	uint64_t cost_ns; /* of one turn */
	bool storms;
	uint64_t used_ns, turns;
};

struct shard {
	struct cis_turns turns;
	uint64_t now_ns;
	struct seat seat[SEATS];
};

static uint64_t clock_of(void *ctx)
{
	return ((struct shard *)ctx)->now_ns;
}

static void open_shard(struct shard *s)
{
	*s = (struct shard){ .now_ns = 1000000 };
	cis_turns_init(&s->turns, clock_of, s);
}

static void storm(struct shard *s, unsigned i, uint64_t cost_ns)
{
	s->seat[i].cost_ns = cost_ns;
	s->seat[i].storms = true;
	cis_turn_want(&s->turns, &s->seat[i].turn);
}

static void serve(struct shard *s, struct seat *seat)
{
	s->now_ns += seat->cost_ns;
	seat->used_ns += seat->cost_ns;
	seat->turns++;
	cis_turn_used(&s->turns, &seat->turn, seat->cost_ns);
	if (seat->storms)
		cis_turn_again(&s->turns, &seat->turn);
}

static void round_of(struct shard *s)
{
	struct cis_turn *turn;

	s->now_ns += 1000; /* looking for events */
	cis_turns_round(&s->turns);
	while ((turn = cis_turns_next(&s->turns)))
		serve(s, (struct seat *)turn);
}

/* Turns that cost little and turns that cost much: the same time in the end. */
static void stormers_share_time(void **state)
{
	static const uint64_t cost_ns[SEATS] = { 1000, 5000, 40000, 41000, 85000, 300000, 2000000, 39999 };
	struct shard s;

	open_shard(&s);
	for (unsigned i = 0; i < SEATS; i++)
		storm(&s, i, cost_ns[i]);
	for (unsigned i = 0; i < 2000000; i++)
		round_of(&s);
	for (unsigned i = 2; i < SEATS - 1; i++) /* the first two and the last use less than their quantum */
		assert_in_range(s.seat[i].used_ns, s.seat[2].used_ns * 95 / 100, s.seat[2].used_ns * 105 / 100);
	assert_true(s.seat[0].used_ns <= s.seat[2].used_ns);
	assert_true(s.seat[0].turns * 105 / 100 >= s.seat[2].turns);
}

/* However many storm, a fault now and then waits for the turn at hand alone. */
static void others_wait_for_one_turn(void **state)
{
	struct shard s;

	open_shard(&s);
	for (unsigned i = 1; i < SEATS; i++)
		storm(&s, i, 85000);
	s.seat[0].cost_ns = 20000;
	for (unsigned i = 0; i < 10000; i++) {
		uint64_t before = s.seat[0].turns;

		round_of(&s);
		assert_int_equal(s.seat[0].turns, before);
		round_of(&s); /* the fault comes during this one's turn */
		cis_turn_want(&s.turns, &s.seat[0].turn);
		cis_turns_round(&s.turns);
		assert_ptr_equal(cis_turns_next(&s.turns), &s.seat[0].turn);
		serve(&s, &s.seat[0]);
	}
}

/* Who is fresh each time that one looks, and takes much, is not fresh for long. */
static void freshness_is_not_a_loophole(void **state)
{
	struct shard s;

	open_shard(&s);
	storm(&s, 1, 40000);
	s.seat[0].cost_ns = 400000;
	for (unsigned i = 0; i < 100000; i++) {
		cis_turn_want(&s.turns, &s.seat[0].turn);
		round_of(&s);
	}
	assert_true(s.seat[0].used_ns <= s.seat[1].used_ns * 110 / 100);
	assert_true(s.seat[0].used_ns >= s.seat[1].used_ns * 80 / 100);
}

static void alone_it_gets_all(void **state)
{
	struct shard s;

	open_shard(&s);
	storm(&s, 0, 85000);
	for (unsigned i = 0; i < 30000; i++)
		round_of(&s);
	assert_true(s.seat[0].turns >= 10000);
}

static void who_leaves_has_no_turn(void **state)
{
	struct shard s;

	open_shard(&s);
	for (unsigned i = 0; i < SEATS; i++)
		storm(&s, i, 1000);
	round_of(&s);
	cis_turn_drop(&s.turns, &s.seat[3].turn);
	cis_turn_drop(&s.turns, &s.seat[SEATS - 1].turn);
	cis_turn_drop(&s.turns, &s.seat[3].turn);
	uint64_t had = s.seat[3].turns;

	for (unsigned i = 0; i < 100; i++)
		round_of(&s);
	assert_int_equal(s.seat[3].turns, had);
	for (unsigned i = 0; i < SEATS; i++)
		cis_turn_drop(&s.turns, &s.seat[i].turn);
	assert_false(cis_turns_any(&s.turns));
	storm(&s, 0, 1000);
	round_of(&s);
	assert_true(cis_turns_any(&s.turns));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stormers_share_time), cmocka_unit_test(others_wait_for_one_turn),
		cmocka_unit_test(freshness_is_not_a_loophole), cmocka_unit_test(alone_it_gets_all),
		cmocka_unit_test(who_leaves_has_no_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
