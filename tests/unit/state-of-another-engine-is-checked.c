/* A state memfd that another engine has left is taken as it is, or refused; never believed. */
#include <errno.h>

#include "check.h"
#include "pager/state.h"

#define PAGES 100u

static struct cis_state st;

static int setup(void **state)
{
	*state = aligned_alloc(4096, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	assert_non_null(*state);
	memset(*state, 0, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	cis_state_init(*state, CIS_STATE_LAYOUT_MAX, PAGES, 3, &st);
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void refused(void *map, uint64_t bytes, int rc, const char *why)
{
	struct cis_state got;
	struct cis_error err;

	assert_int_equal(cis_state_adopt(map, bytes, &got, &err), rc);
	assert_non_null(strstr(err.text, why));
}

static void words_and_events_are_found_again(void **state)
{
	struct cis_state got;
	size_t max;

	st.words[7] = cis_word_make(CIS_PAGE_REMOVED, 5, 0);
	cis_ring_room(&st, &max)->event = UFFD_EVENT_REMOVE;
	assert_int_equal(max, CIS_RING_SLOTS);
	cis_ring_commit(&st, 1);
	assert_int_equal(cis_state_adopt(*state, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES), &got, NULL), 0);
	assert_int_equal(got.header->generation, 3);
	assert_int_equal(cis_word_state(got.words[7]), CIS_PAGE_REMOVED);
	assert_int_equal(cis_word_generation(got.words[7]), 5);
	assert_int_equal(cis_ring_used(&got), 1);
	assert_int_equal(cis_ring_at(&got, 0)->event, UFFD_EVENT_REMOVE);
}

static void what_no_engine_writes_is_refused(void **state)
{
	uint64_t bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES);

	refused(*state, 100, -EBADMSG, "only 100 bytes");
	refused(*state, bytes + 4096, -EBADMSG, "sizes");
	st.words[9] = CIS_PAGE_STATES;
	refused(*state, bytes, -EBADMSG, "page 9");
	st.header->ring_head = CIS_RING_SLOTS + 1;
	refused(*state, bytes, -EBADMSG, "ring");
	st.header->nr_pages++;
	refused(*state, bytes, -EBADMSG, "checksum");
	st.header->magic[0] = 'X';
	refused(*state, bytes, -EBADMSG, "magic");
	memset(st.header->magic, 0, 8);
	refused(*state, bytes, -ENODATA, "no engine");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(words_and_events_are_found_again, setup, teardown),
		cmocka_unit_test_setup_teardown(what_no_engine_writes_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
