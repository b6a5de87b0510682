/* The pages of `cistern run`: none is given twice, and room is found while there is any. */
#include "check.h"

#include "client/run_region.h"

#define PAGES 300

static struct cis_run_region fresh(void)
{
	struct cis_run_region r;

	assert_int_equal(cis_run_region_init(&r, (void *)(uintptr_t)(1 << 20), PAGES * CIS_RUN_PAGE), 0);
	return r;
}

static uint64_t longest(const uint8_t *page)
{
	uint64_t best = 0, run = 0;

	for (unsigned i = 0; i < PAGES; i++) {
		run = page[i] == CIS_RUN_FREE ? run + 1 : 0;
		best = run > best ? run : best;
	}
	return best;
}

static void as_a_plain_table_does(void **state)
{
	struct cis_run_region r = fresh();
	uint8_t page[PAGES] = { 0 };
	uint64_t seed = 1;

	for (unsigned step = 0; step < 20000; step++) {
		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		uint64_t first = seed % PAGES, n = 1 + (seed >> 20) % (PAGES - first), kind = (seed >> 40) % 8;

		if (kind < 4) {
			n = 1 + n % 40;
			int64_t at = cis_run_region_take(&r, n);

			assert_int_equal(at >= 0, longest(page) >= n);
			for (uint64_t i = 0; at >= 0 && i < n; i++) {
				assert_int_equal(page[(uint64_t)at + i], CIS_RUN_FREE);
				page[(uint64_t)at + i] = CIS_RUN_USED;
			}
		} else {
			enum cis_run_page to = kind < 7 ? CIS_RUN_FREE : step % 50 ? CIS_RUN_USED : CIS_RUN_LOST;

			cis_run_region_set(&r, first, n, to);
			memset(page + first, to, n);
		}
		assert_memory_equal(r.page, page, PAGES);
		if (first + n <= PAGES)
			assert_int_equal(cis_run_region_is(&r, first, n, page[first]), cis_run_region_run(&r, first, first + n) == n);
	}
}

static void what_is_in_it(void **state)
{
	struct cis_run_region r = fresh();
	char *end = r.addr + PAGES * CIS_RUN_PAGE;

	assert_false(cis_run_region_has(&r, r.addr - 4096, 4096));
	assert_true(cis_run_region_has(&r, r.addr - 4096, 4097));
	assert_true(cis_run_region_has(&r, r.addr, 1));
	assert_true(cis_run_region_has(&r, end - 1, 1));
	assert_false(cis_run_region_has(&r, end, 4096));
	assert_true(cis_run_region_has(&r, NULL, SIZE_MAX / 2));
	assert_int_equal(cis_run_region_take(&r, PAGES + 1), -1);
	assert_int_equal(cis_run_region_take(&r, PAGES), 0);
	assert_int_equal(cis_run_region_take(&r, 1), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_a_plain_table_does),
		cmocka_unit_test(what_is_in_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
