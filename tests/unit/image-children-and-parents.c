/* A child and its parents together are the memory that the child was made of. */
#include "image.h"

#define NR 900

static uint8_t *mem;

static void write_parent(struct cis_write_opts opts)
{
	struct cis_error err = { 0 };

	image_write_file(image_path("mem"), mem, NR * PAGE, true);
	if (image_create(image_path("mem"), image_path("parent"), opts, &err))
		fail_msg("%s", err.text);
}

/*
 * A diff file: only blocks of 4 KiB that are written, every 7th; the blocks of zeros among them are no holes.
 */
static void write_diff(const char *path, size_t nr)
{
	static const uint8_t zeros[PAGE];
	uint64_t seed = 77;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(ftruncate(fd, (off_t)(nr * PAGE)), 0);
	for (size_t i = 3; i < nr; i += 7) {
		image_fill_page(mem + i * PAGE, PAGE, i % 5, &seed);
		assert_int_equal(pwrite(fd, i % 5 ? mem + i * PAGE : zeros, PAGE, (off_t)(i * PAGE)), PAGE);
	}
	close(fd);
}

static struct cis_image *child_of_diff(struct cis_image *parent, struct cis_write_opts opts)
{
	struct cis_error err = { 0 };

	opts.parent = parent;
	opts.holes_inherit = 1;
	write_diff(image_path("diff"), NR);
	if (image_create(image_path("diff"), image_path("child"), opts, &err))
		fail_msg("%s", err.text);
	return image_open(image_path("child"));
}

static void a_diff_inherits_its_holes(void **state)
{
	static const uint32_t hot[] = { 10, 500, 501, 502, 3, 17 };

	for (unsigned shift = 12; shift <= 21; shift += 9) {
		struct cis_write_opts opts = {
			.page_shift = shift, .codec = CIS_CODEC_LZ4, .hot = hot, .nr_hot = 6
		};

		mem = image_memory(NR, shift);
		write_parent(opts);
		struct cis_image *parent = image_open(image_path("parent"));
		struct cis_image *child =
			child_of_diff(parent, (struct cis_write_opts){ .page_shift = shift });
		const struct cis_image_info *info = cis_image_info(child), *up = cis_image_info(parent);

		image_same_content(child, mem, NR * PAGE);
		assert_int_equal(info->depth, 1);
		assert_memory_equal(info->parent_id, up->id, CIS_IMAGE_ID_BYTES);
		for (uint64_t i = 0; shift == 12 && i < NR; i++) {
			bool written = i % 7 == 3, hot_again = cis_image_class(child, i) == CIS_CLASS_HOT;

			assert_int_equal(cis_image_class(child, i) == CIS_CLASS_INHERIT,
					 !written && !hot_again);
			if (written && i % 5 == 0) /* explicit, whatever the parent has */
				assert_int_equal(cis_image_class(child, i), CIS_CLASS_ZERO);
		}
		cis_image_unref(child);
		cis_image_unref(parent);
		free(mem);
	}
}

static void hot_pages_are_stored_again(void **state)
{
	static const uint32_t hot[] = { 100, 102, 40, 41, 42 };
	struct cis_write_opts opts = { .hot = hot, .nr_hot = 5 };
	uint64_t seed = 5;

	mem = image_memory(NR, 4);
	for (unsigned i = 0; i < 5; i++)
		image_fill_page(mem + hot[i] * PAGE, PAGE, 3, &seed);
	write_parent(opts);
	struct cis_image *parent = image_open(image_path("parent"));
	struct cis_image *child = child_of_diff(parent, (struct cis_write_opts){ 0 });
	struct cis_page_loc loc;

	assert_int_equal(cis_image_info(child)->nr_hot, 5); /* without a trace: those of the parent */
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(cis_image_hot_page(child, i), hot[i]);
		cis_image_locate(child, hot[i], &loc);
		assert_ptr_equal(loc.img, child);
	}
	image_same_content(child, mem, NR * PAGE);
	cis_image_unref(child);
	cis_image_unref(parent);
	free(mem);
}

static void equal_pages_are_inherited(void **state)
{
	struct cis_error err = { 0 };

	mem = image_memory(NR, 11);
	write_parent((struct cis_write_opts){ .codec = CIS_CODEC_ZSTD });
	struct cis_image *parent = image_open(image_path("parent"));
	struct cis_write_opts opts = { .parent = parent, .compare = 1 };

	memset(mem + 30 * PAGE, 0, 2 * PAGE);
	mem[44 * PAGE + 5] ^= 1;
	image_write_file(image_path("mem"), mem, NR * PAGE, true);
	assert_int_equal(image_create(image_path("mem"), image_path("child"), opts, &err), 0);
	struct cis_image *child = image_open(image_path("child"));

	assert_true(cis_image_info(child)->nr_cold <= 1);
	image_same_content(child, mem, NR * PAGE);
	cis_image_unref(child);
	cis_image_unref(parent);
	free(mem);
}

static void a_guest_may_grow_but_not_shrink(void **state)
{
	struct cis_error err = { 0 };

	mem = image_memory(NR + 50, 8);
	image_write_file(image_path("mem"), mem, NR * PAGE - 1000, true);
	memset(mem + NR * PAGE - 1000, 0, 1000);
	assert_int_equal(
		image_create(image_path("mem"), image_path("parent"), (struct cis_write_opts){ 0 }, &err), 0);
	struct cis_image *parent = image_open(image_path("parent"));
	struct cis_write_opts opts = { .parent = parent, .holes_inherit = 1 };

	memset(mem + NR * PAGE, 0, 50 * PAGE);
	write_diff(image_path("diff"), NR + 50);
	assert_int_equal(image_create(image_path("diff"), image_path("child"), opts, &err), 0);
	struct cis_image *child = image_open(image_path("child"));

	image_same_content(child, mem, (NR + 50) * PAGE);
	cis_image_unref(child);
	write_diff(image_path("diff"), NR - 1);
	assert_int_equal(image_create(image_path("diff"), image_path("child"), opts, &err), -ERANGE);
	opts.page_shift = 21;
	write_diff(image_path("diff"), NR);
	assert_int_equal(image_create(image_path("diff"), image_path("child"), opts, &err), -ERANGE);
	cis_image_unref(parent);
	free(mem);
}

static void a_chain_has_at_most_eight_parents(void **state)
{
	struct cis_error err = { 0 };
	char name[16];

	mem = image_memory(NR, 21);
	write_parent((struct cis_write_opts){ .codec = CIS_CODEC_MASK });
	struct cis_image *img = image_open(image_path("parent"));

	for (unsigned depth = 1; depth <= 8; depth++) {
		struct cis_write_opts opts = { .parent = img,
					       .holes_inherit = 1,
					       .codec = depth % 2 ? CIS_CODEC_LZ4 : 0 };

		snprintf(name, sizeof(name), "child-%u", depth);
		image_fill_page(mem + 13 * depth * PAGE, PAGE, 3, &(uint64_t){ depth });
		uint8_t *diff = calloc(NR, PAGE);

		memcpy(diff + 13 * depth * PAGE, mem + 13 * depth * PAGE, PAGE);
		image_write_file(image_path("diff"), diff, NR * PAGE, true);
		free(diff);
		assert_int_equal(image_create(image_path("diff"), image_path(name), opts, &err), 0);
		cis_image_unref(img);
		img = image_open(image_path(name));
		assert_int_equal(cis_image_info(img)->depth, depth);
	}
	image_same_content(img, mem, NR * PAGE);
	assert_int_equal(image_create(image_path("diff"), image_path("too-deep"),
				      (struct cis_write_opts){ .parent = img, .compare = 1 }, &err), -ELOOP);
	/* Not by its own name, nor by that of any other above it. */
	assert_int_equal(image_create(image_path("diff"), image_path("parent"),
				      (struct cis_write_opts){ .parent = img, .compare = 1 }, &err), -ELOOP);
	cis_image_unref(img);
	assert_int_equal(unlink(image_path("child-3")), 0);
	assert_int_equal(cis_image_open(image_path("child-8"), NULL, &img, &err), -ENOLINK);
	free(mem);
}

static void a_parent_is_looked_up_in_the_directories(void **state)
{
	char elsewhere[] = "/tmp/cis-parents-XXXXXX", path[64];
	const char *const paths[] = { "/nowhere", elsewhere };
	struct cis_image_dirs dirs = { .path = paths, .nr = 2 };
	struct cis_error err = { 0 };
	struct cis_image *img;

	mem = image_memory(NR, 2);
	write_parent((struct cis_write_opts){ 0 });
	struct cis_image *parent = image_open(image_path("parent"));

	cis_image_unref(child_of_diff(parent, (struct cis_write_opts){ 0 }));
	cis_image_unref(parent);
	assert_non_null(mkdtemp(elsewhere));
	snprintf(path, sizeof(path), "%s/any-name", elsewhere);
	assert_int_equal(rename(image_path("parent"), path), 0);
	assert_int_equal(cis_image_open(image_path("child"), NULL, &img, &err), -ENOLINK);
	assert_int_equal(cis_image_open(image_path("child"), &dirs, &img, &err), 0);
	image_same_content(img, mem, NR * PAGE);
	cis_image_unref(img);

	/* A damaged copy is passed over; alone, its reason is told. */
	int fd = open(path, O_RDWR);
	struct stat st;

	fstat(fd, &st);
	assert_int_equal(pwrite(fd, "damage", 6, st.st_size - 4096 + 100), 6);
	close(fd);
	assert_int_equal(cis_image_open(image_path("child"), &dirs, &img, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "any-name"));
	unlink(path);
	rmdir(elsewhere);
	free(mem);
}

static void a_parent_is_not_replaced_by_its_child(void **state)
{
	struct cis_error err = { 0 };

	mem = image_memory(NR, 2);
	write_parent((struct cis_write_opts){ 0 });
	struct cis_image *parent = image_open(image_path("parent"));

	assert_int_equal(image_create(image_path("mem"), image_path("parent"),
				      (struct cis_write_opts){ .parent = parent, .compare = 1 }, &err),
			 -EINVAL);
	cis_image_unref(parent);
	free(mem);
}

static void flattened_it_is_the_same_memory(void **state)
{
	struct cis_write_opts opts = { .size = sizeof(opts), .codec = CIS_CODEC_MASK };
	struct cis_image_source *src;
	struct cis_error err = { 0 };

	mem = image_memory(NR, 33);
	write_parent(opts);
	struct cis_image *parent = image_open(image_path("parent"));
	struct cis_image *child = child_of_diff(parent, opts);

	assert_int_equal(cis_source_image(child, &src, &err), 0);
	assert_int_equal(cis_image_write(image_path("flat"), src, &opts, &err), 0);
	cis_source_close(src);
	struct cis_image *flat = image_open(image_path("flat"));

	assert_int_equal(cis_image_info(flat)->nr_inherit, 0);
	assert_int_equal(cis_image_info(flat)->depth, 0);
	image_same_content(flat, mem, NR * PAGE);
	cis_image_unref(flat);
	cis_image_unref(child);
	cis_image_unref(parent);
	free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_diff_inherits_its_holes),
		cmocka_unit_test(hot_pages_are_stored_again),
		cmocka_unit_test(equal_pages_are_inherited),
		cmocka_unit_test(a_guest_may_grow_but_not_shrink),
		cmocka_unit_test(a_chain_has_at_most_eight_parents),
		cmocka_unit_test(a_parent_is_looked_up_in_the_directories),
		cmocka_unit_test(a_parent_is_not_replaced_by_its_child),
		cmocka_unit_test(flattened_it_is_the_same_memory),
	};

	return cmocka_run_group_tests(tests, image_setup, image_teardown);
}
