/* cis_copy_past_cache(): what arrives is what was there, and nothing beside it is touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/copy.h"

#define ROOM 8192u

static void all_lengths_and_sources(void **state)
{
	uint8_t *src = aligned_alloc(64, ROOM + 64), *dst = aligned_alloc(64, ROOM + 64), *want = malloc(ROOM + 32);

	(void)state;
	for (size_t i = 0; i < ROOM + 64; i++)
		src[i] = (uint8_t)(i * 167 + (i >> 8));
	for (size_t len = 0; len <= ROOM; len += len < 256 ? 16 : 1328)
		for (size_t shift = 0; shift < 64; shift += 7) {
			memset(dst, 0xa5, ROOM + 32);
			memset(want, 0xa5, ROOM + 32);
			memcpy(want + 16, src + shift, len);
			cis_copy_past_cache(dst + 16, src + shift, len);
			assert_memory_equal(dst, want, ROOM + 32);
		}
	free(src);
	free(dst);
	free(want);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(all_lengths_and_sources) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
