/* The log against a plain model: a map of the units that are taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>


#include <stdlib.h>
#include <string.h>

#include "store/log.h"
#include "store/store.h"

#define SEGMENT 16384u
#define AREA	(64u * SEGMENT)
#define UNITS	(AREA / CIS_LOG_UNIT)
#define VALUES	4096

struct value {
	uint32_t loc, bytes;
};

struct model {
	struct cis_log *log;
	uint8_t taken[UNITS];
	struct value value[VALUES];
	size_t nr;
	uint64_t seed;
	bool aligns;
};

static uint64_t pick(struct model *m, uint64_t below)
{
	m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
	return (m->seed >> 33) % below;
}

static uint32_t units(uint32_t bytes)
{
	return (bytes + CIS_LOG_UNIT - 1) / CIS_LOG_UNIT;
}

static uint32_t live_of(const struct model *m, uint32_t segment)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SEGMENT / CIS_LOG_UNIT; i++)
		n += m->taken[segment * (SEGMENT / CIS_LOG_UNIT) + i];
	return n * CIS_LOG_UNIT;
}

static bool add(struct model *m, bool spare)
{
	uint32_t bytes = 1 + (uint32_t)pick(m, CIS_VALUE_MAX), align, room, loc;

	align = m->aligns && !pick(m, 16) ? 4096 : CIS_LOG_UNIT;
	cis_log_align(m->log, align);
	room = cis_log_room(m->log);
	loc = m->nr < VALUES ? cis_log_alloc(m->log, bytes, spare) : 0;
	if (!loc)
		return false;
	if (room >= bytes) {
		assert_int_equal(cis_log_off(loc) % align, 0);
		assert_int_equal(cis_log_room(m->log), room - units(bytes) * CIS_LOG_UNIT);
	}
	assert_true(loc + units(bytes) <= UNITS);
	assert_int_equal(cis_log_off(loc) / SEGMENT, (cis_log_off(loc) + bytes - 1) / SEGMENT);
	for (uint32_t i = 0; i < units(bytes); i++)
		assert_int_equal(m->taken[loc + i]++, 0);
	m->value[m->nr++] = (struct value){ loc, bytes };
	return true;
}

static void take_away(struct model *m, size_t at)
{
	struct value v = m->value[at];
	uint32_t segment = (uint32_t)(cis_log_off(v.loc) / SEGMENT), emptied;

	m->value[at] = m->value[--m->nr];
	memset(m->taken + v.loc, 0, units(v.bytes));
	emptied = cis_log_free(m->log, v.loc, v.bytes);
	assert_int_equal(cis_log_segment_live(m->log, segment), live_of(m, segment));
	if (emptied != CIS_LOG_NONE) {
		assert_int_equal(emptied, segment);
		assert_int_equal(live_of(m, segment), 0);
	}
}

static void random_operations_agree(void **state)
{
	(void)state;
	struct model m = { .seed = 1, .aligns = true };
	uint64_t live = 0;

	assert_int_equal(cis_log_create(AREA, SEGMENT, AREA, &m.log), 0);
	for (int i = 0; i < 200000; i++)
		if (pick(&m, 100) < (i / 20000 % 2 ? 48 : 52) || !m.nr)
			add(&m, pick(&m, 8) == 0);
		else
			take_away(&m, pick(&m, m.nr));
	for (size_t i = 0; i < m.nr; i++)
		live += units(m.value[i].bytes) * CIS_LOG_UNIT;
	assert_int_equal(cis_log_live(m.log), live);
	while (m.nr)
		take_away(&m, 0);
	assert_int_equal(cis_log_live(m.log), 0);
	assert_true(cis_log_used(m.log) <= SEGMENT);
	cis_log_destroy(m.log);
}

static void the_limit_holds_and_can_be_changed(void **state)
{
	(void)state;
	struct model m = { .seed = 2 };

	assert_int_equal(cis_log_create(AREA, SEGMENT, 8 * SEGMENT, &m.log), 0);
	while (add(&m, false))
		;
	assert_int_equal(cis_log_used(m.log), 6 * SEGMENT); /* two are kept for moves */
	while (add(&m, true))
		;
	assert_int_equal(cis_log_used(m.log), 8 * SEGMENT);
	cis_log_limit(m.log, 16 * SEGMENT);
	assert_true(add(&m, false));
	cis_log_limit(m.log, 4 * SEGMENT);
	cis_log_seal(m.log); /* which could take some more */
	while (cis_log_used(m.log) > 2 * SEGMENT) {
		take_away(&m, pick(&m, m.nr));
		assert_false(cis_log_used(m.log) > 4 * SEGMENT && add(&m, true));
	}
	cis_log_destroy(m.log);
}

/* What a log gave out, another one is told, in any order; it gives out nothing that overlaps. */
static void claims_bring_a_log_back(void **state)
{
	(void)state;
	struct model m = { .seed = 3 };
	struct cis_log *other;

	assert_int_equal(cis_log_create(AREA, SEGMENT, AREA, &m.log), 0);
	while (add(&m, false))
		;
	for (int i = 0; i < 100; i++)
		take_away(&m, pick(&m, m.nr));
	assert_int_equal(cis_log_create(AREA, SEGMENT, AREA, &other), 0);
	for (size_t i = m.nr; i--;)
		assert_true(cis_log_claim(other, m.value[i].loc, m.value[i].bytes));
	assert_false(cis_log_claim(other, 0, 64));
	assert_false(cis_log_claim(other, UNITS, 64));
	assert_false(cis_log_claim(other, SEGMENT / CIS_LOG_UNIT - 1, 65));
	assert_int_equal(cis_log_live(other), cis_log_live(m.log));
	cis_log_destroy(m.log);
	m.log = other;
	while (add(&m, true))
		;
	while (m.nr)
		take_away(&m, pick(&m, m.nr));
	assert_int_equal(cis_log_live(other), 0);
	cis_log_destroy(other);
}

static void the_emptiest_segment_is_the_victim(void **state)
{
	(void)state;
	struct model m = { .seed = 4 };
	uint32_t victim, least = SEGMENT;

	assert_int_equal(cis_log_create(AREA, SEGMENT, AREA, &m.log), 0);
	while (add(&m, false))
		;
	assert_int_equal(cis_log_victim(m.log), CIS_LOG_NONE); /* all are full */
	for (int i = 0; i < 60; i++)
		take_away(&m, pick(&m, m.nr));
	victim = cis_log_victim(m.log);
	for (uint32_t i = 0; i < AREA / SEGMENT; i++)
		if (live_of(&m, i) && live_of(&m, i) < least)
			least = live_of(&m, i);
	assert_true(victim != CIS_LOG_NONE);
	assert_int_equal(live_of(&m, victim), least);
	cis_log_destroy(m.log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_operations_agree),
		cmocka_unit_test(the_limit_holds_and_can_be_changed),
		cmocka_unit_test(claims_bring_a_log_back),
		cmocka_unit_test(the_emptiest_segment_is_the_victim),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
