/*
 * Any one bit of an image that is not as it was written is found by open or verify, and no page is ever read
 * wrong: each read gives the right bytes or an error.  The same for a file cut off anywhere.
 */
#include "image.h"

#include "image/format.h"

#define NR 12

static uint8_t *mem;

/*
 * Every part is there: hot, cold, same, zero, state, provenance.  Small, since each bit costs an open and a
 * verify.
 */
static size_t write_small(enum cis_codec codec)
{
	static const uint32_t hot[] = { 4, 2, 9 };
	struct cis_write_opts opts = { .codec = codec,
				       .chunk_shift = 13,
				       .hot = hot,
				       .nr_hot = 3,
				       .state = "some state",
				       .state_bytes = 10,
				       .producer = "test" };
	struct cis_error err = { 0 };
	uint64_t seed = 99;
	struct stat st;

	mem = calloc(NR, PAGE);
	for (unsigned i = 0; i < NR; i++) {
		memset(mem + i * PAGE, i % 4, i % 4 ? PAGE : 0);
		for (unsigned k = 0; i % 2 == 0 && i > 0 && k < 20; k++)
			mem[i * PAGE + image_random(&seed) % PAGE] = (uint8_t)image_random(&seed);
	}
	mem[9 * PAGE + 77] = 77;
	image_write_file(image_path("mem"), mem, NR * PAGE, false);
	if (image_create(image_path("mem"), image_path("img"), opts, &err))
		fail_msg("%s", err.text);
	struct cis_image *img = image_open(image_path("img"));

	assert_int_equal(cis_image_info(img)->nr_hot, 3);
	assert_int_equal(cis_image_info(img)->nr_cold, 3);
	assert_int_equal(cis_image_info(img)->nr_same, 5);
	cis_image_unref(img);
	assert_int_equal(stat(image_path("img"), &st), 0);
	return (size_t)st.st_size;
}

static void no_page_is_wrong(struct cis_image *img)
{
	struct cis_image_reader *r;
	uint8_t page[PAGE];

	assert_int_equal(cis_image_info(img)->nr_pages, NR);
	assert_int_equal(cis_image_reader_create(img, &r), 0);
	for (unsigned i = 0; i < NR; i++) {
		struct cis_error err = { 0 };
		int rc = cis_image_read_page(r, i, page, &err);

		if (rc)
			assert_int_equal(err.code, -rc);
		else
			assert_false(
				memcmp(page, mem + i * PAGE, PAGE)); /* cmocka compares a byte at a time */
	}
	cis_image_reader_destroy(r);
}

/* Return: whether open or verify refused it, with a reason. */
static bool refused(const char *path)
{
	struct cis_error err = { 0 };
	struct cis_image *img;
	int rc = cis_image_open(path, NULL, &img, &err);

	if (!rc) {
		no_page_is_wrong(img);
		rc = cis_image_verify(img, NULL, NULL, &err);
		cis_image_unref(img);
	}
	if (rc) {
		assert_int_equal(err.code, -rc);
		assert_non_null(strstr(err.text, path));
	}
	return rc;
}

/* Header and metadata are looked at by open; the rest of the file by an image that is open already. */
static bool flip_refused(struct cis_image *img, size_t byte)
{
	const struct cis_image_info *i = cis_image_info(img);

	if (byte < i->hot_off || byte >= i->state_off + i->state_bytes)
		return refused(i->path);
	if (byte < i->hot_off + i->hot_bytes || (byte >= i->cold_off && byte < i->cold_off + i->cold_bytes))
		no_page_is_wrong(img);
	return cis_image_verify(img, NULL, NULL, NULL) < 0;
}

/* Between the parts and after the last: bytes that are zeros and nothing else. */
static bool is_fill(const struct cis_image_info *i, size_t byte, size_t end)
{
	return (byte >= i->hot_off + i->hot_bytes && byte < i->cold_off) ||
	       (byte >= i->cold_off + i->cold_bytes && byte < i->state_off) ||
	       (byte >= i->state_off + i->state_bytes &&
		byte < cis_align(i->state_off + i->state_bytes, PAGE)) ||
	       byte >= end;
}

/* Every bit; of the fill bytes, which differ in nothing, one bit each. */
static void every_bit(enum cis_codec codec)
{
	size_t len = write_small(codec), missed = 0;
	struct cis_image *img = image_open(image_path("img"));
	int fd = open(image_path("img"), O_RDWR);
	size_t file_len, end = len;
	uint8_t byte, *bytes = image_read_file(image_path("img"), &file_len);

	while (!bytes[end - 1])
		end--;
	for (size_t bit = 0; bit < 8 * len; bit++) {
		if (is_fill(cis_image_info(img), bit / 8, end) && bit % 8 != bit / 8 % 8)
			continue;
		assert_int_equal(pread(fd, &byte, 1, (off_t)(bit / 8)), 1);
		byte ^= 1u << bit % 8;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
		if (!flip_refused(img, bit / 8) && !missed++)
			print_message("a flip of bit %zu of byte %zu is not found\n", bit % 8, bit / 8);
		byte ^= 1u << bit % 8;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)(bit / 8)), 1);
	}
	assert_false(refused(image_path("img")));
	assert_int_equal(missed, 0);
	cis_image_unref(img);
	close(fd);
	free(bytes);
	free(mem);
}

static void flips_with_mask(void **state)
{
	every_bit(CIS_CODEC_MASK);
}

static void flips_with_deflate(void **state)
{
	every_bit(CIS_CODEC_DEFLATE);
}

static void cut_off_anywhere(void **state)
{
	size_t len = write_small(CIS_CODEC_LZ4), full;
	uint8_t *bytes = image_read_file(image_path("img"), &full);

	for (size_t cut = 0; cut < len; cut += cut % PAGE < 2 || cut % PAGE == PAGE - 1 ? 1
					       : cut % PAGE == 2			? 1021
											: 512) {
		image_write_file(image_path("cut"), bytes, cut, false);
		assert_true(refused(image_path("cut")));
	}
	for (size_t cut = PAGE; cut <= len; cut += PAGE) {
		image_write_file(image_path("cut"), bytes, cut - 1, false);
		assert_true(refused(image_path("cut")));
	}
	/* Cut off under an image that is open: an error and no signal, no wrong page. */
	struct cis_image *img = image_open(image_path("img"));

	for (size_t cut = len; cut >= PAGE; cut -= PAGE) {
		assert_int_equal(truncate(image_path("img"), (off_t)(cut - 7)), 0);
		no_page_is_wrong(img);
		assert_true(cis_image_verify(img, NULL, NULL, NULL) < 0);
	}
	cis_image_unref(img);
	free(bytes);
	free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flips_with_mask),
		cmocka_unit_test(flips_with_deflate),
		cmocka_unit_test(cut_off_anywhere),
	};

	return cmocka_run_group_tests(tests, image_setup, image_teardown);
}
