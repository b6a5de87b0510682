/*
 * A state that an engine of the previous layout has written is adopted, converted up and down again, and nothing of it is lost
 * but what the smaller layout has no room for.  The writer of layout 1 here stands on its own, and stays when there are others.
 */
#include <errno.h>
#include <linux/userfaultfd.h>

#include "check.h"
#include "codec/codec.h"
#include "pager/pager.h"

#define PAGES	 1500u
#define V1_WORDS 36864u
#define V1_BYTES (V1_WORDS + 12288u) /* 1500 words, to a whole page */
#define V2_WORDS 69632u
#define V2_TRACE (V2_WORDS + 12288u)
#define V2_BYTES (V2_TRACE + 8192u)
#define V3_STASH 262144u
#define V3_BYTES (V3_STASH + 39 * 262144u) /* 1500 x 6144 + 1 MiB, rounded down */

static void put32(uint8_t *at, uint32_t v)
{
	memcpy(at, &v, 4);
}

static void put64(uint8_t *at, uint64_t v)
{
	memcpy(at, &v, 8);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, 8);
	return v;
}

/* As in doc/state.md, layout 1. */
static uint8_t *write_layout_1(uint64_t generation)
{
	uint8_t *m = aligned_alloc(4096, V1_BYTES);

	memset(m, 0, V1_BYTES);
	memcpy(m, "CISSTATE", 8);
	put32(m + 8, 1);
	put32(m + 12, 1024);
	put64(m + 16, generation);
	put64(m + 24, PAGES);
	put64(m + 32, 4096);
	put64(m + 40, V1_WORDS);
	put64(m + 48, V1_BYTES);
	put64(m + 56, cis_crc64(0, m, 56));
	put64(m + 64, 2050); /* head: 3 events, over the end of the ring */
	put64(m + 72, 2047);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t *slot = m + 4096 + 32 * ((2047 + i) % 1024);

		slot[0] = i == 1 ? UFFD_EVENT_REMOVE : UFFD_EVENT_PAGEFAULT;
		put64(slot + 8, 0x7f0000000000 + 4096 * i);
		put64(slot + 16, i == 1 ? 0x7f0000005000 : 0);
	}
	m[4096 + 32 * 2] = UFFD_EVENT_REMOVE; /* read, not counted */
	for (uint64_t p = 0; p < PAGES; p++)
		put64(m + V1_WORDS + 8 * p, p % 6 | (p % 100) << 8 | (p % 6 == 1 ? p : 0) << 32);
	return m;
}

static void *fresh(uint64_t bytes)
{
	void *map = aligned_alloc(4096, bytes);

	assert_non_null(map);
	memset(map, 0, bytes);
	return map;
}

/* All that both have, but for generation and checksum. */
static void assert_same(const uint8_t *a, uint64_t a_words, const uint8_t *b, uint64_t b_words)
{
	assert_int_equal(get64(a + 64), get64(b + 64));
	assert_int_equal(get64(a + 72), get64(b + 72));
	assert_memory_equal(a + 4096, b + 4096, 32768);
	assert_memory_equal(a + a_words, b + b_words, 8 * PAGES);
}

static void layout_1_goes_up_and_down(void **state)
{
	uint8_t *one = write_layout_1(7), *two = fresh(V2_BYTES), *back = fresh(V1_BYTES), *untouched = write_layout_1(7);
	struct cis_state st, up, down;
	struct cis_error err;

	(void)state;
	assert_int_equal(cis_state_bytes(1, PAGES), V1_BYTES);
	assert_int_equal(cis_state_bytes(2, PAGES), V2_BYTES);
	assert_int_equal(cis_state_adopt(one, V1_BYTES, &st, &err), 0);
	assert_null(st.stats);
	assert_null(st.trace);
	assert_int_equal(cis_state_convert(&st, two, 2, 8, &up, &err), 0);
	assert_memory_equal(one, untouched, V1_BYTES);

	assert_int_equal(cis_state_adopt(two, V2_BYTES, &up, &err), 0);
	assert_int_equal(up.header->layout, 2);
	assert_int_equal(up.header->generation, 8);
	assert_ptr_equal(up.words, two + V2_WORDS);
	assert_ptr_equal(up.trace, two + V2_TRACE);
	assert_ptr_equal(up.stats, two + V1_WORDS);
	assert_int_equal(cis_ring_used(&up), 3);
	assert_int_equal(cis_ring_at(&up, 1)->event, UFFD_EVENT_REMOVE);
	assert_same(one, V1_WORDS, two, V2_WORDS);

	assert_int_equal(cis_state_convert(&up, back, 1, 7, &down, &err), 0);
	assert_memory_equal(one, back, V1_BYTES);
	free(one);
	free(two);
	free(back);
	free(untouched);
}

static void layout_2_keeps_what_only_it_has(void **state)
{
	uint8_t *a = fresh(V2_BYTES), *b = fresh(V2_BYTES), *c = fresh(V1_BYTES), *d = fresh(V2_BYTES);
	struct cis_state st, to;
	struct cis_error err;

	(void)state;
	cis_state_init(a, 2, PAGES, 3, &st);
	st.header->stats_bytes = sizeof(struct cis_pager_stats);
	((struct cis_pager_stats *)st.stats)->pages_zero = 99;
	st.trace[0] = 5;
	st.trace[1] = 1499;
	st.header->nr_trace = 2;
	st.header->recording = 1;
	st.header->filled = CIS_FILL_HOT;
	st.header->filled_by = CIS_FILLED_IN_PLACE;
	assert_int_equal(cis_state_convert(&st, b, 2, 3, &to, &err), 0);
	assert_memory_equal(a, b, V2_BYTES);

	assert_int_equal(cis_state_convert(&st, c, 1, 4, &to, &err), 0);
	assert_int_equal(cis_state_adopt(c, V1_BYTES, &to, &err), 0);
	assert_int_equal(to.header->filled_by, CIS_FILLED_IN_PLACE);
	assert_int_equal(cis_state_convert(&to, d, 2, 5, &to, &err), 0);
	assert_int_equal(to.header->nr_trace, 0);
	assert_int_equal(to.header->recording, 0);
	assert_int_equal(to.header->filled, CIS_FILL_NONE);
	assert_int_equal(to.header->stats_bytes, 0);
	free(a);
	free(b);
	free(c);
	free(d);
}

/* Pages that are out of the guest cannot be said in another memfd; states and flags that no engine writes are refused. */
static void layout_3_keeps_what_was_reclaimed(void **state)
{
	static const uint8_t good[] = { 6, 7, 8, 0x82, 0x83, 0x84, 0x86, 0x46, 0x48 }, bad[] = { 9, 0x40, 0x42, 0xc6, 0x81, 0x85, 0x26 };
	uint8_t *v1 = write_layout_1(7), *v3 = fresh(V3_BYTES), *to = fresh(V3_BYTES);
	struct cis_state st, up, out;
	struct cis_error err;

	(void)state;
	assert_int_equal(cis_state_bytes(3, PAGES), V3_BYTES);
	assert_int_equal(cis_state_adopt(v1, V1_BYTES, &st, &err), 0);
	assert_int_equal(cis_state_convert(&st, v3, 3, 8, &up, &err), 0);
	assert_ptr_equal(up.stash, v3 + V3_STASH);
	assert_int_equal(up.stash_bytes, V3_BYTES - V3_STASH);
	assert_memory_equal(v3 + V2_WORDS, v1 + V1_WORDS, PAGES * 8);
	assert_int_equal(cis_state_convert(&up, to, 2, 9, &out, &err), 0);
	memset(to, 0, V3_BYTES);
	for (size_t i = 0; i < sizeof(good); i++) {
		v3[V2_WORDS + 80] = good[i];
		assert_int_equal(cis_state_adopt(v3, V3_BYTES, &up, &err), 0);
		assert_int_equal(cis_state_convert(&up, to, 2, 9, &out, &err), -EBUSY);
		assert_int_equal(get64(to), 0);
	}
	for (size_t i = 0; i < sizeof(bad); i++) {
		v3[V2_WORDS + 80] = bad[i];
		assert_int_equal(cis_state_adopt(v3, V3_BYTES, &up, &err), -EBADMSG);
		assert_non_null(strstr(err.text, "page 10 has state"));
	}
	free(v1);
	free(v3);
	free(to);
}

static void other_layouts_are_refused_with_both_numbers(void **state)
{
	uint8_t *m = write_layout_1(7), *to = fresh(V2_BYTES);
	struct cis_state st, out;
	struct cis_error err;

	(void)state;
	assert_int_equal(cis_state_adopt(m, V1_BYTES, &st, &err), 0);
	assert_int_equal(cis_state_convert(&st, to, 4, 1, &out, &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.text, "layout 4 is asked for, this engine knows 1 to 3"));
	assert_int_equal(get64(to), 0);
	put32(m + 8, 9);
	put64(m + 56, cis_crc64(0, m, 56));
	assert_int_equal(cis_state_adopt(m, V1_BYTES, &st, &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.text, "layout 9, this engine knows 1 to 3"));
	free(m);
	free(to);
}

/* Cut off anywhere, the change of the generation leaves the old header or the new one. */
static void a_new_generation_is_all_or_nothing(void **state)
{
	uint8_t *m = write_layout_1(7), *done = write_layout_1(7), *cut = fresh(V1_BYTES);
	struct cis_state st;
	struct cis_error err;

	(void)state;
	assert_int_equal(cis_state_adopt(done, V1_BYTES, &st, &err), 0);
	cis_state_set_generation(&st, 8);
	for (unsigned bytes = 0; bytes <= 64 + 16; bytes++) { /* first the shadow, at 2048, then generation and checksum */
		memcpy(cut, m, V1_BYTES);
		memcpy(cut + 2048, done + 2048, bytes < 64 ? bytes : 64);
		if (bytes > 64)
			memcpy(cut + 16, done + 16, bytes < 72 ? bytes - 64 : 8);
		if (bytes > 72)
			memcpy(cut + 56, done + 56, bytes - 72);
		assert_int_equal(cis_state_adopt(cut, V1_BYTES, &st, &err), 0);
		assert_in_range(st.header->generation, 7, 8);
		assert_int_equal(st.header->checksum, cis_crc64(0, st.header, 56));
	}
	assert_int_equal(st.header->generation, 8);
	free(m);
	free(done);
	free(cut);
}

static void what_no_engine_writes_in_layout_2_is_refused(void **state)
{
	static const struct {
		unsigned at;
		uint32_t value;
		const char *why;
	} bad[] = {
		{ 80, 32769, "32769 bytes of statistics" }, { 88, PAGES + 1, "a trace of 1501 pages" },
		{ 96, 2, "recording 2" },		    { 100, 3, "filled to level 3" },
		{ 104, 3, "filled in way 3" },		    { V2_TRACE, PAGES, "the trace names page 1500 of 1500" },
	};
	struct cis_state st;
	struct cis_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint8_t *m = fresh(V2_BYTES);

		cis_state_init(m, 2, PAGES, 1, &st);
		st.header->nr_trace = 1;
		put32(m + bad[i].at, bad[i].value);
		assert_int_equal(cis_state_adopt(m, V2_BYTES, &st, &err), -EBADMSG);
		assert_non_null(strstr(err.text, bad[i].why));
		free(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout_1_goes_up_and_down),
		cmocka_unit_test(layout_2_keeps_what_only_it_has),
		cmocka_unit_test(layout_3_keeps_what_was_reclaimed),
		cmocka_unit_test(other_layouts_are_refused_with_both_numbers),
		cmocka_unit_test(a_new_generation_is_all_or_nothing),
		cmocka_unit_test(what_no_engine_writes_in_layout_2_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
