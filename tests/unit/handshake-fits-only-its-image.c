/* A guest takes only an image of its own size, page size and regions. */
#include "check.h"

#include <errno.h>

#include "vmm/handshake.h"

#define MIB (1ull << 20)

static struct cis_guest_region regions[2];
static struct cis_guest_layout layout = { .regions = regions };
static struct cis_guest_image image;
static const struct cis_region_entry blocks[] = {
	{ .offset = 0, .gpa = 0, .bytes = 6 * MIB, .name = "pc.ram" },
	{ .offset = 6 * MIB, .gpa = 4096 * MIB, .bytes = 4 * MIB, .name = "high" },
	{ .offset = 10 * MIB, .gpa = 9000 * MIB, .bytes = MIB, .name = "vga" },
};

static int set_up(void **state)
{
	regions[0] =
		(struct cis_guest_region){ .hva = MIB, .bytes = 6 * MIB, .offset = 0, .page_bytes = 4096 };
	regions[1] = (struct cis_guest_region){
		.hva = 64 * MIB, .bytes = 4 * MIB, .offset = 6 * MIB, .page_bytes = 4096
	};
	layout.nr_regions = 2;
	layout.bytes = 10 * MIB;
	image = (struct cis_guest_image){ .path = "a.cis", .guest_bytes = 10 * MIB, .page_shift = 12 };
	return 0;
}

static void fits(void)
{
	struct cis_error err = { 0 };

	if (cis_guest_fit_image(&layout, &image, &err))
		fail_msg("%s", err.text);
}

static void refused(const char *why)
{
	struct cis_error err = { 0 };

	assert_int_equal(cis_guest_fit_image(&layout, &image, &err), -EPROTO);
	if (!strstr(err.text, why))
		fail_msg("%s, expected %s", err.text, why);
}

static void test_by_offset(void **state)
{
	fits();
	assert_int_equal(regions[1].image_offset, 6 * MIB);
	image.guest_bytes = 10 * MIB - 100; /* ends within its last page */
	fits();
	image.guest_bytes = 10 * MIB - 4096;
	refused("region 1: ends at 10485760, but a.cis holds 10481664 bytes: not an image of this guest");
	image.guest_bytes = 10 * MIB + 1;
	refused("the guest has 10485760 bytes, a.cis holds 10485761");
}

static void test_page_size(void **state)
{
	regions[1].page_bytes = 2 * MIB;
	refused("region 1: pages of 2 MiB, but the image has pages of 4 KiB: run `cistern image optimize "
		"a.cis OUT --page 2M`");
	image.page_shift = 21;
	fits();
}

static void test_a_table_alone_changes_nothing(void **state)
{
	image.blocks = blocks;
	image.nr_blocks = 3;
	fits();
	assert_int_equal(regions[1].image_offset, 6 * MIB);
}

static void test_by_address(void **state)
{
	image.blocks = blocks;
	image.nr_blocks = 3;
	image.guest_bytes = 11 * MIB;
	regions[0] = (struct cis_guest_region){
		.hva = MIB, .bytes = 4 * MIB, .page_bytes = 4096, .has_gpa = true, .gpa = 4096 * MIB
	};
	regions[1] = (struct cis_guest_region){ .hva = 64 * MIB,
						.bytes = MIB,
						.offset = 4 * MIB,
						.page_bytes = 4096,
						.has_gpa = true,
						.gpa = 5 * MIB };
	fits();
	assert_int_equal(regions[0].image_offset, 6 * MIB);
	assert_int_equal(regions[1].image_offset, 5 * MIB);
	regions[1].gpa = 5 * MIB + 4096;
	refused("region 1: 1048576 bytes, but a.cis holds 1044480 there (\"pc.ram\")");
	regions[1].gpa = 6 * MIB;
	refused("region 1: a.cis has no memory at guest address 0x600000");
	regions[1].gpa = 4097 * MIB;
	refused("regions 0 and 1 are the same place of the image");
	regions[1].gpa = MIB + 1;
	refused("not a multiple of its page size");
}

static void test_by_name(void **state)
{
	image.blocks = blocks;
	image.nr_blocks = 3;
	image.guest_bytes = 11 * MIB;
	strcpy(regions[0].name, "pc.ram");
	strcpy(regions[1].name, "high");
	fits();
	assert_int_equal(regions[1].image_offset, 6 * MIB);
	strcpy(regions[1].name, "vga");
	refused("region 1: 4194304 bytes, but a.cis holds 1048576 there");
	strcpy(regions[1].name, "none");
	refused("region 1: a.cis has no memory named \"none\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_by_offset, set_up),
		cmocka_unit_test_setup(test_page_size, set_up),
		cmocka_unit_test_setup(test_a_table_alone_changes_nothing, set_up),
		cmocka_unit_test_setup(test_by_address, set_up),
		cmocka_unit_test_setup(test_by_name, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
