/* What libcistern writes, the daemon's parser reads back, value by value: two programs, one text. */
#include "check.h"

#include "cistern/cistern.h"
#include "client/handshake.h"
#include "vmm/handshake.h"

static void test_every_value(void **state)
{
	const struct cis_client_region regions[] = {
		{ .addr = 0x7f0000000000, .bytes = 2u << 20, .offset = 0, .page_bytes = 4096, .block = "pc.ram" },
		{ .addr = 0x7f1000000000, .bytes = 4u << 20, .offset = 2u << 20, .page_bytes = 2u << 20, .gpa = 1ull << 32,
		  .has_gpa = true },
		{ .addr = 0x7f2000000000, .bytes = 4096, .offset = 6u << 20, .page_bytes = 4096 },
	};
	const enum cis_kind kinds[] = { CIS_KIND_ANONYMOUS, CIS_KIND_SHARED, CIS_KIND_PRIVATE };
	struct cis_guest_layout heard;
	struct cis_error err;
	char *text;

	for (unsigned mapping = CIS_MAPPING_ANONYMOUS; mapping <= CIS_MAPPING_PRIVATE; mapping++) {
		struct cis_client_layout said = { .mapping = mapping, .ack = mapping & 1, .allocated = !(mapping & 1),
						  .regions = regions, .nr_regions = 3 };

		assert_int_equal(cis_handshake_write(&said, &text), 0);
		if (cis_layout_parse(text, strlen(text), &heard, &err))
			fail_msg("%s: %s", err.text, text);
		assert_true(heard.has_kind);
		assert_int_equal(heard.kind, kinds[mapping - 1]);
		assert_int_equal(heard.ack, said.ack);
		assert_int_equal(heard.allocated, said.allocated);
		assert_int_equal(heard.nr_regions, 3);
		for (size_t i = 0; i < 3; i++) {
			assert_int_equal(heard.regions[i].hva, regions[i].addr);
			assert_int_equal(heard.regions[i].bytes, regions[i].bytes);
			assert_int_equal(heard.regions[i].offset, regions[i].offset);
			assert_int_equal(heard.regions[i].page_bytes, regions[i].page_bytes);
			assert_int_equal(heard.regions[i].has_gpa, regions[i].has_gpa);
			assert_int_equal(heard.regions[i].gpa, regions[i].gpa);
			assert_string_equal(heard.regions[i].name, regions[i].block ? regions[i].block : "");
		}
		free(heard.regions);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_value) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
