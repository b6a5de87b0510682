/* A blank image is zeros, the same one whoever makes it, and the one that the writer makes of a hole. */
#include "image.h"

static struct cis_image *blank(const char *name)
{
	struct cis_error err;
	struct cis_image *img;

	if (cis_image_blank(name, &img, &err))
		fail_msg("%s", err.text);
	return img;
}

static void all_of_it_is_zeros(void **state)
{
	struct cis_image *img = blank("blank:6M");
	struct cis_image_reader *reader;
	uint8_t page[PAGE], zeros[PAGE] = { 0 };
	struct cis_error err;

	assert_int_equal(cis_image_info(img)->guest_bytes, 6 << 20);
	assert_int_equal(cis_image_info(img)->nr_pages, 1536);
	assert_int_equal(cis_image_info(img)->nr_zero, 1536);
	assert_int_equal(cis_image_reader_create(img, &reader), 0);
	for (uint64_t i = 0; i < 1536; i++) {
		memset(page, 1, sizeof(page));
		assert_int_equal(cis_image_read_page(reader, i, page, &err), 0);
		assert_memory_equal(page, zeros, PAGE);
	}
	assert_int_equal(cis_image_verify(img, NULL, NULL, &err), 0);
	cis_image_reader_destroy(reader);
	cis_image_unref(img);
}

static void its_name_says_which_it_is(void **state)
{
	struct cis_image *one = blank("blank:6M"), *same = blank("blank:6291456"), *other = blank("blank:6148K");

	assert_memory_equal(cis_image_info(one)->id, cis_image_info(same)->id, CIS_IMAGE_ID_BYTES);
	assert_memory_not_equal(cis_image_info(one)->id, cis_image_info(other)->id, CIS_IMAGE_ID_BYTES);
	cis_image_unref(one);
	cis_image_unref(same);
	cis_image_unref(other);
}

static void it_is_that_of_a_hole(void **state)
{
	struct cis_write_opts opts = { .size = sizeof(opts), .codec = CIS_CODEC_RAW };
	struct cis_image *made, *img = blank("blank:6M");
	struct cis_image_source *src;
	struct cis_error err;
	int fd = open(image_path("hole"), O_CREAT | O_RDWR, 0600);

	assert_int_equal(ftruncate(fd, 6 << 20), 0);
	close(fd);
	assert_int_equal(cis_source_raw(image_path("hole"), &src, &err), 0);
	assert_int_equal(cis_image_write(image_path("made"), src, &opts, &err), 0);
	cis_source_close(src);
	assert_int_equal(cis_image_open(image_path("made"), NULL, &made, &err), 0);
	assert_memory_equal(cis_image_info(img)->id, cis_image_info(made)->id, CIS_IMAGE_ID_BYTES);
	assert_int_equal(cis_image_info(img)->file_bytes, cis_image_info(made)->file_bytes);
	cis_image_unref(made);
	cis_image_unref(img);
}

static void other_names_are_refused(void **state)
{
	static const char *const names[] = { "blank:", "blank:0", "blank:1", "blank:4097", "blank:4G ", "blank:-4096", "blank:x",
					     "blank:2T", "blank:99999999999999999999", "blank", "/blank:4G" };
	struct cis_image *img;
	struct cis_error err;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		assert_int_equal(cis_image_blank(names[i], &img, &err), -EINVAL);
		assert_non_null(strstr(err.text, names[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_of_it_is_zeros),
		cmocka_unit_test(its_name_says_which_it_is),
		cmocka_unit_test_setup_teardown(it_is_that_of_a_hole, image_setup, image_teardown),
		cmocka_unit_test(other_names_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
