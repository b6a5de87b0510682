/* The note of a guest says what it was, and anything else that comes as one is refused with the reason. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest_int.h"

static char *make(void)
{
	struct cis_guest g = {
		.id = "web-1", .serial = 4294967299, .image_path = "/images/web.cis", .socket = "/run/web-1.sock", .kind = "client",
		.store = "", .state = CIS_GUEST_FILLED, .policy = CIS_POLICY_STALL, .fill = CIS_FILL_HOT, .record = true,
		.acked = true, .in_place = true, .image_id = { 1, 2, 3 }, .pinned = true,
		.budget = { .max_bytes = 64 << 20, .target_bytes = UINT64_MAX, .min_bytes = 2 << 20, .stash_bytes = 5 << 20,
			    .codec = CIS_CODEC_ZSTD, .sync = true, .parked = true, .weight = 77 },
	};
	struct cis_conn c = { .taken = 500, .nr_fds = 2 };
	char *text;

	g.conn = &c;
	text = cis_guest_note_text(&g);
	assert_non_null(text);
	return text;
}

static void test_what_is_written_is_read(void **state)
{
	struct cis_guest_note *n;
	char *text = make();

	(void)state;
	assert_int_equal(cis_guest_note_parse(text, strlen(text), &n, NULL), 0);
	assert_string_equal(n->id, "web-1");
	assert_int_equal(n->serial, 4294967299);
	assert_string_equal(n->image_path, "/images/web.cis");
	assert_string_equal(n->socket, "/run/web-1.sock");
	assert_string_equal(n->kind, "client");
	assert_string_equal(n->store, "");
	assert_int_equal(n->state, CIS_GUEST_FILLED);
	assert_int_equal(n->policy, CIS_POLICY_STALL);
	assert_int_equal(n->fill, CIS_FILL_HOT);
	assert_true(n->record && n->acked && n->in_place && !n->stalled);
	assert_int_equal(n->stream_bytes, 500);
	assert_int_equal(n->nr_fds, 2);
	assert_int_equal(n->image_id[2], 3);
	assert_true(n->pinned && n->budget.sync && n->budget.parked);
	assert_int_equal(n->budget.weight, 77);
	assert_int_equal(n->budget.max_bytes, 64 << 20);
	assert_true(n->budget.target_bytes == UINT64_MAX);
	assert_int_equal(n->budget.min_bytes, 2 << 20);
	assert_int_equal(n->budget.stash_bytes, 5 << 20);
	assert_int_equal(n->budget.codec, CIS_CODEC_ZSTD);
	cis_guest_note_destroy(n);
	free(text);
}

static void refuse(json_t *j, int rc, const char *word)
{
	char *text = json_dumps(j, 0);
	struct cis_guest_note *n;
	struct cis_error err;

	assert_int_equal(cis_guest_note_parse(text, strlen(text), &n, &err), rc);
	assert_non_null(strstr(err.text, word));
	free(text);
	json_decref(j);
}

static json_t *with(const char *key, json_t *value)
{
	char *text = make();
	json_t *j = json_loads(text, 0, NULL);

	free(text);
	json_object_set_new(j, key, value);
	return j;
}

static void test_each_key_is_needed(void **state)
{
	static const char *const keys[] = { "version", "id", "serial", "image", "image_id", "socket", "kind", "store", "state", "policy",
					    "fill", "record", "acked", "in_place", "stalled", "stream_bytes", "fds" };

	(void)state;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		json_t *j = with(keys[i], json_null());

		refuse(j, -EBADMSG, keys[i]);
		j = with("more", json_true());
		json_object_del(j, keys[i]);
		refuse(j, -EBADMSG, keys[i]);
	}
}

static void test_values_are_checked(void **state)
{
	(void)state;
	refuse(with("version", json_integer(2)), -EPROTONOSUPPORT, "version 2");
	refuse(with("id", json_string("../x")), -EBADMSG, "id");
	refuse(with("serial", json_integer(-1)), -EBADMSG, "serial");
	refuse(with("image_id", json_string("0102")), -EBADMSG, "image_id");
	refuse(with("state", json_string("asleep")), -EBADMSG, "state");
	refuse(with("record", json_integer(1)), -EBADMSG, "record");
	refuse(with("stream_bytes", json_integer(1 << 20)), -EBADMSG, "stream_bytes");
	refuse(with("fds", json_integer(9)), -EBADMSG, "fds");
	refuse(with("pinned", json_integer(1)), -EBADMSG, "pinned");
	refuse(with("budget", json_true()), -EBADMSG, "budget");
	refuse(with("budget", json_pack("{s:i}", "max_bytes", 4096)), -EBADMSG, "max_bytes");
	refuse(with("budget", json_pack("{s:s}", "codec", "gzip")), -EBADMSG, "codec");
	refuse(with("budget", json_pack("{s:i}", "weight", 0)), -EBADMSG, "weight");
	refuse(with("budget", json_pack("{s:i}", "parked", 1)), -EBADMSG, "parked");
}

static void test_what_is_no_note_is_refused(void **state)
{
	static const char *const texts[] = { "", "{", "[]", "null", "{\"id\": \"a\", \"id\": \"a\"}", "\x80" };
	struct cis_guest_note *n;
	char *text = make();

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(cis_guest_note_parse(texts[i], strlen(texts[i]), &n, NULL), -EBADMSG);
	for (size_t len = 0; len < strlen(text); len++)
		assert_int_equal(cis_guest_note_parse(text, len, &n, NULL), -EBADMSG);
	free(text);
}

static void test_more_keys_are_passed_over(void **state)
{
	json_t *j = with("colour", json_string("blue"));
	char *text = json_dumps(j, 0);
	struct cis_guest_note *n;

	(void)state;
	assert_int_equal(cis_guest_note_parse(text, strlen(text), &n, NULL), 0);
	cis_guest_note_destroy(n);
	free(text);
	json_decref(j);
}

/* Such notes are there when an older engine is followed. */
static void test_no_budget_is_no_limit(void **state)
{
	json_t *j = with("pinned", json_false());
	struct cis_guest_note *n;
	char *text;

	(void)state;
	json_object_del(j, "pinned");
	json_object_del(j, "budget");
	text = json_dumps(j, 0);
	assert_int_equal(cis_guest_note_parse(text, strlen(text), &n, NULL), 0);
	assert_true(cis_budget_limit(&n->budget) == UINT64_MAX && !n->pinned);
	cis_guest_note_destroy(n);
	free(text);
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_written_is_read),	  cmocka_unit_test(test_each_key_is_needed),
		cmocka_unit_test(test_values_are_checked),	  cmocka_unit_test(test_what_is_no_note_is_refused),
		cmocka_unit_test(test_more_keys_are_passed_over), cmocka_unit_test(test_no_budget_is_no_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
