/* The image directory finds images by name and id, keeps parents, and holds to its quota. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/size.h"
#include "image/dir.h"
#include "image/format.h"

static char folder[64];

static void put_file(const char *name, const void *bytes, size_t len, int64_t mtime_s)
{
	struct timespec times[2] = { { mtime_s, 0 }, { mtime_s, 0 } };
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	futimens(fd, times);
	close(fd);
}

/* An image of @pages zero pages; only its header is true, which is all that a scan reads. */
static void put_image(const char *name, uint64_t pages, const uint8_t *parent, int64_t mtime_s, uint8_t *ret_id)
{
	static uint8_t file[2 * CIS_HEADER_BYTES];
	struct cis_header h = { .guest_bytes = pages * 4096, .page_shift = 12, .chunk_shift = 16, .nr_pages = pages };

	h.meta.bytes = 64;
	if (parent) {
		memcpy(h.parent_id, parent, sizeof(h.parent_id));
		h.depth = 1;
		h.must_know = CIS_MUST_KNOW_PARENT;
	}
	memset(file, 0, sizeof(file));
	assert_int_equal(cis_header_parts(&h), sizeof(file));
	assert_int_equal(cis_header_encode(&h, file + CIS_HEADER_BYTES, file), 0);
	put_file(name, file, sizeof(file), mtime_s);
	if (ret_id)
		memcpy(ret_id, h.image_id, CIS_IMAGE_ID_BYTES);
}

static int make_folder(void **state)
{
	strcpy(folder, "/tmp/cistern-dir-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static struct cis_dir scan(void)
{
	struct cis_error err = { 0 };
	struct cis_dir dir;

	if (cis_dir_scan(folder, &dir, &err))
		fail_msg("%s", err.text);
	return dir;
}

static void test_lists_images_and_nothing_else(void **state)
{
	char damaged[8192] = "CISTERN\x1a";
	struct cis_dir dir;

	put_image("b.cis", 2, NULL, 20, NULL);
	put_image("a.cis", 1, NULL, 10, NULL);
	put_image(".a.cis.tmp", 1, NULL, 10, NULL);
	put_file("notes.txt", "hello", 5, 10);
	put_file("empty", "", 0, 10);
	put_file("damaged.cis", damaged, sizeof(damaged), 10);
	assert_int_equal(mkfifoat(AT_FDCWD, strcat(strcpy(damaged, folder), "/pipe"), 0600), 0);
	dir = scan();
	assert_int_equal(dir.nr, 3);
	assert_string_equal(dir.entry[0].name, "a.cis");
	assert_int_equal(dir.entry[0].guest_bytes, 4096);
	assert_null(dir.entry[0].problem);
	assert_string_equal(dir.entry[1].name, "b.cis");
	assert_string_equal(dir.entry[2].name, "damaged.cis");
	assert_non_null(dir.entry[2].problem);
	assert_int_equal(dir.total_bytes, 3 * 8192);
	cis_dir_fini(&dir);
}

static void test_finds_by_name_and_by_digits(void **state)
{
	char hex[2 * CIS_IMAGE_ID_BYTES + 1];
	const struct cis_dir_entry *e;
	uint8_t id[CIS_IMAGE_ID_BYTES];
	struct cis_error err;
	struct cis_dir dir;

	put_image("a.cis", 1, NULL, 10, id);
	put_image("b.cis", 2, NULL, 10, NULL);
	cis_hex_print(id, sizeof(id), hex);
	dir = scan();
	assert_int_equal(cis_dir_find(&dir, "b.cis", &e, &err), 0);
	assert_string_equal(e->name, "b.cis");
	assert_int_equal(cis_dir_find(&dir, hex, &e, &err), 0);
	assert_string_equal(e->name, "a.cis");
	hex[8] = 0;
	assert_int_equal(cis_dir_find(&dir, hex, &e, &err), 0);
	hex[7] = 0;
	assert_int_equal(cis_dir_find(&dir, hex, &e, &err), -ENOENT);
	assert_int_equal(cis_dir_find(&dir, "c.cis", &e, &err), -ENOENT);
	cis_dir_fini(&dir);
}

static void test_keeps_parents(void **state)
{
	const struct cis_dir_entry *base, *child;
	uint8_t id[CIS_IMAGE_ID_BYTES];
	struct cis_error err;
	struct cis_dir dir;

	put_image("base.cis", 4, NULL, 10, id);
	put_image("child.cis", 4, id, 10, NULL);
	dir = scan();
	assert_int_equal(cis_dir_find(&dir, "base.cis", &base, &err), 0);
	child = cis_dir_child(&dir, id, NULL);
	assert_non_null(child);
	assert_string_equal(child->name, "child.cis");
	assert_null(cis_dir_child(&dir, id, child));
	assert_int_equal(cis_dir_remove(&dir, base, &err), -EBUSY);
	assert_non_null(strstr(err.text, "the parent of child.cis"));
	assert_int_equal(cis_dir_remove(&dir, child, &err), 0);
	cis_dir_fini(&dir);
	dir = scan();
	assert_int_equal(dir.nr, 1);
	assert_int_equal(cis_dir_remove(&dir, &dir.entry[0], &err), 0);
	cis_dir_fini(&dir);
}

static void test_a_twin_of_a_parent_may_go(void **state)
{
	uint8_t id[CIS_IMAGE_ID_BYTES];
	struct cis_error err;
	struct cis_dir dir;

	put_image("base.cis", 4, NULL, 10, id);
	put_image("copy.cis", 4, NULL, 10, NULL);
	put_image("dchild.cis", 4, id, 10, NULL);
	dir = scan();
	assert_int_equal(cis_dir_remove(&dir, &dir.entry[1], &err), 0);
	cis_dir_fini(&dir);
	dir = scan();
	assert_int_equal(cis_dir_remove(&dir, &dir.entry[0], &err), -EBUSY);
	cis_dir_fini(&dir);
}

static void test_quota_leaves_room_or_names_the_oldest(void **state)
{
	uint8_t id[CIS_IMAGE_ID_BYTES];
	struct cis_error err;
	struct cis_dir dir;
	uint64_t room;

	put_image("base.cis", 4, NULL, 10, id);
	put_image("newer.cis", 5, NULL, 40, NULL);
	put_image("older.cis", 6, NULL, 30, NULL);
	put_image("child.cis", 4, id, 50, NULL);
	dir = scan();
	cis_dir_room(&dir, "new", &room);
	assert_true(room == UINT64_MAX);
	cis_dir_fini(&dir);

	assert_int_equal(cis_dir_set_quota(folder, 40000, &err), 0);
	dir = scan();
	assert_int_equal(dir.quota_bytes, 40000);
	cis_dir_room(&dir, "new", &room);
	assert_int_equal(room, 40000 - 4 * 8192);
	cis_dir_room(&dir, "older.cis", &room);
	assert_int_equal(room, 40000 - 3 * 8192);
	assert_int_equal(cis_dir_refuse(&dir, "new", 20000, &err), -EDQUOT);
	assert_non_null(strstr(err.text, "remove, oldest first: older.cis newer.cis"));
	cis_dir_fini(&dir);

	assert_int_equal(cis_dir_set_quota(folder, 1, &err), 0);
	dir = scan();
	cis_dir_room(&dir, "new", &room);
	assert_int_equal(room, 0);
	cis_dir_fini(&dir);
	assert_int_equal(cis_dir_set_quota(folder, 0, &err), 0);
	assert_int_equal(cis_dir_set_quota(folder, 0, &err), 0);
	dir = scan();
	assert_int_equal(dir.quota_bytes, 0);
	cis_dir_fini(&dir);
}

static void test_a_spoilt_quota_is_refused(void **state)
{
	struct cis_error err;
	struct cis_dir dir;

	put_file("quota", "lots\n", 5, 10);
	assert_int_equal(cis_dir_scan(folder, &dir, &err), -EINVAL);
	assert_non_null(strstr(err.text, "not a size"));
	assert_int_equal(cis_dir_scan("/nonexistent", &dir, &err), -ENOENT);
}

int main(void)
{
#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
	const struct CMUnitTest tests[] = {
		IN_A_FOLDER(test_lists_images_and_nothing_else), IN_A_FOLDER(test_finds_by_name_and_by_digits),
		IN_A_FOLDER(test_keeps_parents),		 IN_A_FOLDER(test_a_twin_of_a_parent_may_go),
		IN_A_FOLDER(test_quota_leaves_room_or_names_the_oldest),
		IN_A_FOLDER(test_a_spoilt_quota_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
