/* Sections that one process leaves for the next are read as they were written, or refused with the reason. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "daemon/sections.h"

static void make(struct cis_sections *s, const void **ret, size_t *ret_len)
{
	cis_sections_add(s, 7, CIS_SECTION_MUST, "abc", 3);
	cis_sections_add(s, 8, 0, NULL, 0);
	cis_sections_add(s, 7, 0, "12345678", 8);
	assert_int_equal(cis_sections_finish(s, ret, ret_len), 0);
}

static void what_was_written_is_read(void **state)
{
	struct cis_sections s = { 0 };
	struct cis_sections_reader r;
	struct cis_section got;
	const void *bytes;
	size_t len;

	make(&s, &bytes, &len);
	assert_int_equal(cis_sections_open(bytes, len, &r, NULL), 0);
	assert_true(cis_sections_next(&r, &got));
	assert_int_equal(got.tag, 7);
	assert_int_equal(got.flags, CIS_SECTION_MUST);
	assert_int_equal(got.len, 3);
	assert_memory_equal(got.bytes, "abc", 3);
	assert_true(cis_sections_next(&r, &got));
	assert_int_equal(got.len, 0);
	assert_true(cis_sections_next(&r, &got));
	assert_memory_equal(got.bytes, "12345678", 8);
	assert_false(cis_sections_next(&r, &got));
	cis_sections_fini(&s);
	assert_int_equal(cis_sections_finish(&s, &bytes, &len), 0);
	assert_int_equal(cis_sections_open(bytes, len, &r, NULL), 0);
	assert_false(cis_sections_next(&r, &got));
	cis_sections_fini(&s);
}

static void every_flip_and_every_length_is_refused(void **state)
{
	struct cis_sections s = { 0 };
	struct cis_sections_reader r;
	struct cis_error err;
	const void *bytes;
	size_t len;

	make(&s, &bytes, &len);
	for (size_t n = 0; n < len; n++)
		assert_int_not_equal(cis_sections_open(bytes, n, &r, &err), 0);
	for (size_t bit = 0; bit < len * 8; bit++) {
		s.buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(cis_sections_open(bytes, len, &r, &err), 0);
		s.buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(cis_sections_open(bytes, len, &r, &err), 0);
	cis_sections_fini(&s);
}

static void a_memfd_that_can_change_is_refused(void **state)
{
	struct cis_sections s = { 0 };
	struct cis_error err;
	const void *bytes;
	void *got;
	size_t len, got_len;
	int fd;

	make(&s, &bytes, &len);
	assert_int_equal(cis_sections_seal(&s, "test", &fd), 0);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(cis_sections_load(fd, true, &got, &got_len, &err), 0);
	assert_int_equal(got_len, len);
	assert_memory_equal(got, bytes, len);
	free(got);
	close(fd);
	fd = memfd_create("open", MFD_CLOEXEC);
	assert_int_equal(write(fd, bytes, len), len);
	assert_int_equal(cis_sections_load(fd, true, &got, &got_len, &err), -EPERM);
	assert_int_equal(cis_sections_load(fd, false, &got, &got_len, &err), 0);
	free(got);
	close(fd);
	cis_sections_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_written_is_read),
		cmocka_unit_test(every_flip_and_every_length_is_refused),
		cmocka_unit_test(a_memfd_that_can_change_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
