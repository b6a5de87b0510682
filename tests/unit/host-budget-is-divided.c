/*
 * The host's budget is divided by weight, within the limits of each guest, and no further than it goes; who needs more weighs more, and who does
 * nothing gets its least.
 */
#include <stdio.h>
#include <unistd.h>

#include "check.h"
#include "daemon/host_budget.h"
#include "os/proc.h"

#define MIB	  ((uint64_t)1 << 20)
#define PAGE	  4096u
#define GUESTS	  40u
#define ROUNDS	  3000
#define SECOND_MS 1000u

static uint64_t seed = 11;

static uint64_t dice(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % n;
}

static uint64_t some_bytes(void)
{
	return dice(PAGE * 1000) << dice(20);
}

static size_t make_shares(struct cis_share *s)
{
	size_t nr = dice(GUESTS + 1);

	for (size_t i = 0; i < nr; i++) {
		s[i] = (struct cis_share){ .min_bytes = dice(4) ? MIB : some_bytes(), .max_bytes = some_bytes(), .weight = 1 + dice(80000) };
		if (s[i].max_bytes < s[i].min_bytes)
			s[i].max_bytes = s[i].min_bytes;
	}
	return nr;
}

static uint64_t sum(const struct cis_share *s, size_t nr, size_t at)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < nr; i++)
		bytes += *(const uint64_t *)((const char *)&s[i] + at);
	return bytes;
}

/* Whatever there is goes out, and not more, but for the mins. */
static void check_sum(const struct cis_share *s, size_t nr, uint64_t total)
{
	uint64_t mins = sum(s, nr, offsetof(struct cis_share, min_bytes)), maxs = sum(s, nr, offsetof(struct cis_share, max_bytes));
	uint64_t out = sum(s, nr, offsetof(struct cis_share, bytes));

	if (mins >= total)
		assert_int_equal(out, mins);
	else if (maxs <= total)
		assert_int_equal(out, maxs);
	else
		assert_in_range(out, total - (total < nr ? total : nr), total);
}

/* Of two that are at none of their limits, each has its weight's part: by so much as a byte is. */
static void check_fair(const struct cis_share *a, const struct cis_share *b)
{
	unsigned __int128 of_a = (unsigned __int128)(a->bytes + 1) * b->weight, of_b = (unsigned __int128)b->bytes * a->weight;

	if (a->bytes < a->max_bytes && b->bytes > b->min_bytes)
		assert_true(of_a >= of_b); /* b has no more than its part of what a has */
}

static void sums_limits_and_weights_are_kept_to(void **state)
{
	struct cis_share s[GUESTS];

	for (int round = 0; round < ROUNDS; round++) {
		size_t nr = make_shares(s);
		uint64_t total = some_bytes() * (1 + dice(8));

		cis_host_divide(total, s, nr);
		check_sum(s, nr, total);
		for (size_t i = 0; i < nr; i++) {
			assert_in_range(s[i].bytes, s[i].min_bytes, s[i].max_bytes);
			for (size_t k = 0; k < nr; k++)
				check_fair(&s[i], &s[k]);
		}
	}
}

/* Who weighs more gets no less, and takes it from the others; more to divide is less for nobody. By the page, as it is acted on. */
static void more_is_never_less(void **state)
{
	struct cis_share was[GUESTS], is[GUESTS];

	for (int round = 0; round < ROUNDS; round++) {
		size_t nr = make_shares(was), who;
		uint64_t total = some_bytes() * (1 + dice(8));

		if (!nr)
			continue;
		who = dice(nr);
		cis_host_divide(total, was, nr);
		memcpy(is, was, sizeof(is));
		is[who].weight += 1 + dice(100000);
		cis_host_divide(total, is, nr);
		for (size_t i = 0; i < nr; i++) {
			if (i == who)
				assert_true(is[i].bytes + PAGE >= was[i].bytes);
			else
				assert_true(is[i].bytes <= was[i].bytes);
			is[i].weight = was[i].weight;
		}
		cis_host_divide(total + some_bytes(), is, nr);
		for (size_t i = 0; i < nr; i++)
			assert_true(is[i].bytes >= was[i].bytes);
	}
}

static void examples(void **state)
{
	struct cis_share s[3] = { { MIB, 100 * MIB, 100, 0 }, { MIB, 100 * MIB, 300, 0 }, { MIB, 10 * MIB, 100, 0 } };

	cis_host_divide(50 * MIB, s, 3);
	assert_in_range(s[0].bytes, 10 * MIB - 2, 10 * MIB);
	assert_in_range(s[1].bytes, 30 * MIB - 2, 30 * MIB);
	assert_in_range(s[2].bytes, 10 * MIB - 2, 10 * MIB);
	s[2].max_bytes = 2 * MIB; /* what it may not have the others get */
	cis_host_divide(50 * MIB, s, 3);
	assert_in_range(s[0].bytes, 12 * MIB - 2, 12 * MIB);
	assert_in_range(s[1].bytes, 36 * MIB - 2, 36 * MIB);
	assert_int_equal(s[2].bytes, 2 * MIB);
	cis_host_divide(MIB, s, 3); /* rather more than there is than a guest that cannot go on */
	assert_int_equal(s[0].bytes + s[1].bytes + s[2].bytes, 3 * MIB);
	cis_host_divide(UINT64_MAX, s, 3);
	assert_int_equal(s[0].bytes + s[1].bytes + s[2].bytes, 202 * MIB);
	cis_host_divide(0, s, 0);
}

static void who_refaults_weighs_more(void **state)
{
	struct cis_need n = { 0 };
	uint64_t heavy;

	assert_int_equal(cis_need_weight(&n, 100), 100);
	for (int s = 0; s < 60; s++)
		cis_need_look(&n, SECOND_MS, 500, 1000, 0);
	assert_int_equal(cis_need_weight(&n, 100), 200);
	for (int s = 0; s < 60; s++)
		cis_need_look(&n, SECOND_MS, 500, 1000000, 0);
	assert_int_equal(cis_need_weight(&n, 100), 800);
	assert_int_equal(cis_need_weight(&n, 10000), 80000);
	for (int s = 0; s < 300; s++) {
		heavy = cis_need_weight(&n, 100);
		cis_need_look(&n, SECOND_MS, 500, 0, 0);
		assert_true(cis_need_weight(&n, 100) <= heavy);
		assert_true(s > 0 || cis_need_weight(&n, 100) == 800); /* slowly */
	}
	assert_int_equal(cis_need_weight(&n, 100), 100);
	cis_need_look(&n, 0, 0, 5, 0); /* two looks at once */
	assert_false(n.is_idle);
}

static void who_does_nothing_is_idle(void **state)
{
	struct cis_need n = { 0 };

	for (int s = 0; s < 9; s++)
		cis_need_look(&n, SECOND_MS, 10, 3, 10000);
	assert_false(n.is_idle);
	cis_need_look(&n, SECOND_MS, 30, 3, 10000); /* it ran for a moment */
	for (int s = 0; s < 9; s++)
		cis_need_look(&n, SECOND_MS, 0, 0, 10000);
	assert_false(n.is_idle);
	cis_need_look(&n, SECOND_MS, 0, 0, 10000);
	assert_true(n.is_idle);
	cis_need_look(&n, SECOND_MS, 40, 500, 10000); /* timers of its kernel, which cost it faults now */
	assert_true(n.is_idle);
	cis_need_look(&n, SECOND_MS, 60, 0, 10000);
	assert_false(n.is_idle);
	for (int s = 0; s < 10; s++)
		cis_need_look(&n, SECOND_MS, 0, 0, 10000);
	assert_true(n.is_idle);
	cis_need_look(&n, SECOND_MS, 0, 2000, 10000);
	assert_false(n.is_idle);
	for (int s = 0; s < 100; s++)
		cis_need_look(&n, SECOND_MS, UINT64_MAX, 0, 10000); /* nobody knows */
	assert_false(n.is_idle);
	for (int s = 0; s < 100; s++)
		cis_need_look(&n, SECOND_MS, 0, 0, 0); /* nobody wants to know */
	assert_false(n.is_idle);
}

static void pressure_cuts_it_and_its_end_gives_it_back(void **state)
{
	unsigned eased = 0;

	for (int s = 0; s < 100; s++)
		eased = cis_host_ease(eased, 1000);
	assert_int_equal(eased, CIS_EASE_MAX);
	assert_int_equal(cis_host_ease(eased, 999), eased);
	assert_int_equal(cis_host_ease(eased, 100), eased);
	for (unsigned s = 0; s < CIS_EASE_MAX; s++)
		eased = cis_host_ease(eased, 99);
	assert_int_equal(eased, 0);
	assert_int_equal(cis_host_ease(0, 0), 0);
}

static int pressure_of(const char *text, unsigned *ret)
{
	FILE *f = tmpfile();
	int rc;

	fputs(text, f);
	fflush(f);
	rc = cis_proc_pressure(fileno(f), ret);
	fclose(f);
	return rc;
}

static void what_proc_says_is_read(void **state)
{
	uint64_t cpu_ms = 0, more = 0;
	unsigned p = 0;

	assert_int_equal(pressure_of("some avg10=12.34 avg60=1.00 avg300=0.00 total=5\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n", &p), 0);
	assert_int_equal(p, 1234);
	assert_int_equal(pressure_of("some avg10=0.07 avg60", &p), 0);
	assert_int_equal(p, 7);
	assert_true(pressure_of("", &p) < 0);
	assert_true(pressure_of("full avg10=1.00", &p) < 0);
	assert_int_equal(p, 7);
	assert_int_equal(cis_proc_cpu(getpid(), &cpu_ms), 0);
	while (more < cpu_ms + 50)
		assert_int_equal(cis_proc_cpu(getpid(), &more), 0);
	assert_true(cis_proc_cpu(0x7fffffff, &more) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_limits_and_weights_are_kept_to),
		cmocka_unit_test(more_is_never_less),
		cmocka_unit_test(examples),
		cmocka_unit_test(who_refaults_weighs_more),
		cmocka_unit_test(who_does_nothing_is_idle),
		cmocka_unit_test(pressure_cuts_it_and_its_end_gives_it_back),
		cmocka_unit_test(what_proc_says_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
