/*
 * Every version's handshake is understood, however the stream is cut; what is not one is refused with the
 * reason.
 */
#include "check.h"

#include <errno.h>

#include "vmm/handshake.h"

#define REGION(more) "{\"base_host_virt_addr\":139637976727552,\"size\":4194304,\"offset\":0" more "}"

static int feed_cut(const char *text, size_t len, size_t piece, struct cis_handshake **ret,
		    struct cis_error *err)
{
	struct cis_handshake *hs;
	bool done = false;
	int r = 0;

	assert_int_equal(cis_handshake_create(&hs), 0);
	for (size_t at = 0; at < len && !r; at += piece) {
		assert_int_equal(cis_handshake_layout(hs) != NULL, done);
		assert_int_equal(cis_handshake_end(hs, NULL), done ? 0 : -EPROTO);
		r = cis_handshake_feed(hs, text + at, piece < len - at ? piece : len - at, &done, err);
	}
	if (r) {
		cis_handshake_destroy(hs);
		return r;
	}
	if (!done)
		r = cis_handshake_end(hs, err);
	*ret = hs;
	return r;
}

static struct cis_guest_layout *accept_text(const char *text, struct cis_handshake **ret)
{
	struct cis_error err = { 0 };

	for (size_t piece = 1; piece <= strlen(text); piece++) {
		int r = feed_cut(text, strlen(text), piece, ret, &err);

		if (r)
			fail_msg("cut to %zu: %s", piece, err.text);
		if (piece < strlen(text))
			cis_handshake_destroy(*ret);
	}
	return cis_handshake_layout(*ret);
}

static void test_v1_1(void **state)
{
	static const char text[] =
		"[{\"base_host_virt_addr\":139637976727552,\"size\":3221225472,\"offset\":0},"
		"{\"base_host_virt_addr\":139641197953024,\"size\":1073741824,\"offset\":3221225472}]";
	struct cis_handshake *hs;
	struct cis_guest_layout *lay = accept_text(text, &hs);

	assert_int_equal(lay->nr_regions, 2);
	assert_int_equal(lay->bytes, 4ull << 30);
	assert_int_equal(lay->regions[0].page_bytes, 4096);
	assert_int_equal(lay->regions[1].hva, 139641197953024);
	assert_int_equal(lay->regions[1].offset, 3221225472);
	assert_int_equal(lay->regions[1].image_offset, 3221225472);
	assert_false(lay->has_kind);
	assert_false(lay->ack);
	cis_handshake_destroy(hs);
}

static void test_v1_7_says_bytes_under_the_name_of_kib(void **state)
{
	struct cis_handshake *hs;
	struct cis_guest_layout *lay = accept_text("[" REGION(",\"page_size_kib\":2097152") "]", &hs);

	assert_int_equal(lay->regions[0].page_bytes, 2 << 20);
	cis_handshake_destroy(hs);
}

static void test_v1_12_says_it_twice(void **state)
{
	struct cis_handshake *hs;
	struct cis_guest_layout *lay;

	lay = accept_text("[" REGION(",\"page_size\":2097152,\"page_size_kib\":2097152") "]", &hs);
	assert_int_equal(lay->regions[0].page_bytes, 2 << 20);
	cis_handshake_destroy(hs);
	lay = accept_text("[" REGION(",\"page_size\":4096") "]", &hs);
	assert_int_equal(lay->regions[0].page_bytes, 4096);
	cis_handshake_destroy(hs);
}

static void test_unknown_keys_brackets_in_strings_and_white_space(void **state)
{
	struct cis_handshake *hs;
	struct cis_guest_layout *lay =
		accept_text(" \n[" REGION(",\"x]\\\"]}\":[{\"y\":\"]\\\\\"},[1.5,null]]") " ]\r\n", &hs);

	assert_int_equal(lay->nr_regions, 1);
	cis_handshake_destroy(hs);
}

static void test_our_own_client(void **state)
{
	struct cis_handshake *hs;
	struct cis_guest_layout *lay = accept_text(
		"[" REGION(",\"cistern\":{\"kind\":\"private\",\"ack\":true,\"allocated\":true,\"later\":1,"
			   "\"regions\":[{\"name\":\"pc.ram\",\"gpa\":4294967296}]}") "]", &hs);

	assert_true(lay->has_kind);
	assert_int_equal(lay->kind, CIS_KIND_PRIVATE);
	assert_true(lay->ack);
	assert_true(lay->allocated);
	assert_string_equal(lay->regions[0].name, "pc.ram");
	assert_true(lay->regions[0].has_gpa);
	assert_int_equal(lay->regions[0].gpa, 1ull << 32);
	cis_handshake_destroy(hs);
}

/* Builds an array of @nr regions of a page each. */
static size_t many(char *text, size_t nr)
{
	size_t len = (size_t)sprintf(text, "[");

	for (size_t i = 0; i < nr; i++)
		len += (size_t)sprintf(text + len,
				       "%s{\"base_host_virt_addr\":%zu,\"size\":4096,\"offset\":%zu}",
				       i ? "," : "", (1000 - i) * 8192, i * 4096);
	return len + (size_t)sprintf(text + len, "]");
}

static void test_bounds(void **state)
{
	char *text = malloc(256 << 10);
	struct cis_handshake *hs;
	struct cis_error err;
	size_t len;

	assert_int_equal(feed_cut(text, many(text, 512), 1000, &hs, NULL), 0);
	assert_int_equal(cis_handshake_layout(hs)->nr_regions, 512);
	cis_handshake_destroy(hs);

	assert_int_equal(feed_cut(text, many(text, 513), 1000, &hs, &err), -EPROTO);
	assert_string_equal(err.text, "handshake: 513 regions, not 1 to 512");

	len = (size_t)sprintf(text, "[\"");
	memset(text + len, 'a', 256 << 10 >> 1);
	assert_int_equal(feed_cut(text, 256 << 10 >> 1, 4096, &hs, NULL), -EPROTO);
	cis_handshake_destroy(hs);
	assert_int_equal(feed_cut(text, (256 << 10 >> 1) + 1, 4096, &hs, &err), -EPROTO);
	assert_string_equal(err.text, "handshake: longer than 131072 bytes");

	memset(text, '[', 33);
	assert_int_equal(feed_cut(text, 33, 1, &hs, &err), -EPROTO);
	assert_string_equal(err.text, "handshake: brackets more than 32 deep");
	free(text);
}

static void test_refusal_is_for_good(void **state)
{
	struct cis_handshake *hs;
	struct cis_error err;
	bool done;

	assert_int_equal(cis_handshake_create(&hs), 0);
	assert_int_equal(cis_handshake_feed(hs, "{", 1, &done, &err), -EPROTO);
	assert_string_equal(err.text, "handshake: starts with byte 0x7b, not with a JSON array");
	assert_int_equal(cis_handshake_feed(hs, "[]", 2, &done, &err), -EPROTO);
	assert_null(cis_handshake_layout(hs));
	cis_handshake_destroy(hs);
	cis_handshake_destroy(NULL);
}

static const struct {
	const char *text, *why;
} bad[] = {
	{ "", "the connection was closed without a byte" },
	{ "[{", "closed after 2 bytes, before the end of the array" },
	{ "[]", "0 regions, not 1 to 512" },
	{ "[" REGION("") "] x", "byte 0x78 after the end" },
	{ "[" REGION("") "]]", "byte 0x5d after the end" },
	{ "[}", "not JSON at byte 2" },
	{ "[1e]", "not JSON" },
	{ "[\"\x01\"]", "not JSON" },
	{ "[1]", "region 0: not an object" },
	{ "[{\"a\":1,\"a\":2}]", "duplicate" },
	{ "[{\"size\":4096,\"offset\":0}]", "region 0: \"base_host_virt_addr\" is missing" },
	{ "[{\"base_host_virt_addr\":4096,\"offset\":0}]", "\"size\" is missing" },
	{ "[{\"base_host_virt_addr\":4096,\"size\":4096}]", "\"offset\" is missing" },
	{ "[{\"base_host_virt_addr\":\"4096\",\"size\":4096,\"offset\":0}]", "is not an integer" },
	{ "[{\"base_host_virt_addr\":4096.0,\"size\":4096,\"offset\":0}]", "is not an integer" },
	{ "[{\"base_host_virt_addr\":-4096,\"size\":4096,\"offset\":0}]", "-4096: out of range" },
	{ "[{\"base_host_virt_addr\":18446744073709547520,\"size\":8192,\"offset\":0}]", "too big" },
	{ "[{\"base_host_virt_addr\":9223372036854771712,\"size\":8192,\"offset\":0}]", "wraps" },
	{ "[{\"base_host_virt_addr\":0,\"size\":8192,\"offset\":0}]", "address is 0" },
	{ "[{\"base_host_virt_addr\":4096,\"size\":0,\"offset\":0}]", "size is 0" },
	{ "[{\"base_host_virt_addr\":4096,\"size\":17592186048512,\"offset\":0}]", "beyond 16 TiB" },
	{ "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":17592186044416}]", "beyond 16 TiB" },
	{ "[{\"base_host_virt_addr\":4097,\"size\":4096,\"offset\":0}]", "address 4097 is not a multiple" },
	{ "[{\"base_host_virt_addr\":4096,\"size\":4095,\"offset\":0}]", "size 4095 is not a multiple" },
	{ "[{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":8}]", "offset 8 is not a multiple" },
	{ "[{\"base_host_virt_addr\":4096,\"size\":2097152,\"offset\":0,\"page_size\":2097152}]",
	  "address 4096 is not" },
	{ "[" REGION(",\"page_size\":0") "]", "page size 0 is not a power of two" },
	{ "[" REGION(",\"page_size\":4097") "]", "page size 4097 is not a power of two" },
	{ "[" REGION(",\"page_size\":1073741824") "]", "page size 1073741824 is not served" },
	{ "[" REGION(",\"page_size_kib\":4") "]", "page size 4 is not served" },
	{ "[" REGION(",\"page_size\":4096,\"page_size_kib\":4") "]", "must be equal" },
	{ "[" REGION(",\"page_size\":null") "]", "\"page_size\" is not an integer" },
	{ "[" REGION("") "," REGION("") "]", "regions 0 and 1 overlap in address" },
	{ "[" REGION("") ",{\"base_host_virt_addr\":139637980917760,\"size\":4096,\"offset\":4194304}]",
	  "overlap in address" },
	{ "[" REGION("") ",{\"base_host_virt_addr\":4096,\"size\":4096,\"offset\":4190208}]",
	  "overlap in the memory file" },
	{ "[" REGION(",\"gpa_start\":0,\"is_guest_memfd\":true") "]", "secret-hiding" },
	{ "[" REGION(",\"cistern\":1") "]", "\"cistern\" is not an object" },
	{ "[" REGION(",\"cistern\":{\"kind\":\"odd\"}") "]", "\"kind\" is not" },
	{ "[" REGION(",\"cistern\":{\"kind\":1}") "]", "\"kind\" is not" },
	{ "[" REGION(",\"cistern\":{\"ack\":1}") "]", "\"ack\" is neither" },
	{ "[" REGION(",\"cistern\":{\"regions\":[]}") "]", "not an array of 1 objects" },
	{ "[" REGION(",\"cistern\":{\"regions\":[{\"name\":\"a\\nb\"}]}") "]", "control character" },
	{ "[" REGION(",\"cistern\":{\"regions\":[{\"name\":7}]}") "]", "\"name\" is not a string" },
	{ "[" REGION(",\"cistern\":{\"regions\":[{\"gpa\":-1}]}") "]",
	  "region 0: \"gpa\" is -1: out of range" },
};

static void test_bad(void **state)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		for (size_t piece = 1; piece <= strlen(bad[i].text) + 1; piece++) {
			struct cis_error err = { 0 };
			struct cis_handshake *hs = NULL;
			int r = feed_cut(bad[i].text, strlen(bad[i].text), piece, &hs, &err);

			if (r != -EPROTO || !strstr(err.text, bad[i].why))
				fail_msg("%s: %d %s, expected %s", bad[i].text, r, err.text, bad[i].why);
			cis_handshake_destroy(hs);
		}
}

static void test_refusals_hold_no_control_characters(void **state)
{
	static const char *const texts[] = { "[\x1b[2J]", "[{\"a\x7f\x1b\":}]", "[\"\xff\n\"]",
					     "[tr\x1bue]" };

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct cis_error err = { 0 };
		struct cis_handshake *hs = NULL;

		assert_int_equal(feed_cut(texts[i], strlen(texts[i]), 100, &hs, &err), -EPROTO);
		for (const char *c = err.text; *c; c++)
			assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
		cis_handshake_destroy(hs);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v1_1),
		cmocka_unit_test(test_v1_7_says_bytes_under_the_name_of_kib),
		cmocka_unit_test(test_v1_12_says_it_twice),
		cmocka_unit_test(test_unknown_keys_brackets_in_strings_and_white_space),
		cmocka_unit_test(test_our_own_client),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_refusal_is_for_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_refusals_hold_no_control_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
