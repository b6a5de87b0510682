/* Of several traces, pages that at least half touched are hot, by their mean position; page sizes are converted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/images.h"
#include "image/trace.h"

#define GUEST_BYTES ((uint64_t)64 << 20)

static char folder[] = "/tmp/cistern-hot-XXXXXX";
static char paths[4][64];

static int make_folder(void **state)
{
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static const char *put_trace(unsigned i, unsigned page_shift, const uint32_t *pgno, uint64_t nr)
{
	struct cis_trace trace = { .page_shift = page_shift, .guest_bytes = GUEST_BYTES, .nr = nr,
				   .pgno = (uint32_t *)pgno };

	snprintf(paths[i], sizeof(paths[i]), "%s/%u", folder, i);
	assert_int_equal(cis_trace_save(paths[i], &trace, NULL), 0);
	return paths[i];
}

static void check(const struct cli_list *traces, unsigned page_shift, const uint32_t *wanted, uint64_t nr)
{
	struct cis_error err;
	struct cli_hot hot;

	if (cli_hot_merge(traces, GUEST_BYTES, page_shift, &hot, &err))
		fail_msg("%s", err.text);
	assert_int_equal(hot.nr, nr);
	assert_memory_equal(hot.pgno, wanted, nr * sizeof(*wanted));
	free(hot.pgno);
}

#define PGNOS(...) (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4

static void test_one_trace_is_its_own_order(void **state)
{
	struct cli_list traces = { .item = { put_trace(0, 12, PGNOS(9, 2, 5000, 0)) }, .nr = 1 };

	check(&traces, 12, PGNOS(9, 2, 5000, 0));
}

static void test_half_of_the_traces_is_enough(void **state)
{
	struct cli_list two = { .item = { put_trace(0, 12, PGNOS(1, 2)), put_trace(1, 12, PGNOS(3)) }, .nr = 2 };
	struct cli_list three = { .item = { paths[0], paths[1], put_trace(2, 12, PGNOS(3, 4)) }, .nr = 3 };

	check(&two, 12, PGNOS(1, 3, 2)); /* each in one of two; 1 and 3 first, the lower first */
	check(&three, 12, PGNOS(3));
}

static void test_order_is_by_mean_position(void **state)
{
	struct cli_list traces = { .item = { put_trace(0, 12, PGNOS(10, 11, 12, 13)), put_trace(1, 12, PGNOS(13, 12)) },
				   .nr = 2 };

	/* Means: 10 is 0, 11 is 1, 12 is (2 + 1) / 2, 13 is (3 + 0) / 2. */
	check(&traces, 12, PGNOS(10, 11, 12, 13));
	put_trace(1, 12, PGNOS(13, 12, 10));
	check(&traces, 12, PGNOS(10, 11, 12, 13)); /* 10 is (0 + 2) / 2, as 11 */
	put_trace(0, 12, PGNOS(10, 12, 13));
	check(&traces, 12, PGNOS(10, 12, 13)); /* all 1: the lower first */
}

static void test_small_pages_become_large_ones(void **state)
{
	struct cli_list traces = { .item = { put_trace(0, 12, PGNOS(1500, 3, 1024, 4, 600)) }, .nr = 1 };

	check(&traces, 21, PGNOS(2, 0, 1));
}

static void test_large_pages_become_all_their_small_ones(void **state)
{
	struct cli_list traces = { .item = { put_trace(0, 21, PGNOS(7, 2)) }, .nr = 1 };
	uint32_t wanted[1024];

	for (uint32_t i = 0; i < 512; i++) {
		wanted[i] = 7 * 512 + i;
		wanted[512 + i] = 2 * 512 + i;
	}
	check(&traces, 12, wanted, 1024);
}

static void test_another_guest_is_refused(void **state)
{
	struct cli_list traces = { .item = { put_trace(0, 12, PGNOS(1)) }, .nr = 1 };
	struct cis_error err;
	struct cli_hot hot;

	assert_int_equal(cli_hot_merge(&traces, GUEST_BYTES / 2, 12, &hot, &err), -ERANGE);
	traces.item[0] = "/nonexistent/trace";
	assert_int_equal(cli_hot_merge(&traces, GUEST_BYTES, 12, &hot, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_trace_is_its_own_order),
		cmocka_unit_test(test_half_of_the_traces_is_enough),
		cmocka_unit_test(test_order_is_by_mean_position),
		cmocka_unit_test(test_small_pages_become_large_ones),
		cmocka_unit_test(test_large_pages_become_all_their_small_ones),
		cmocka_unit_test(test_another_guest_is_refused),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
