/* A record that was only half written leaves the one before; what it says comes back as it was. */
#include "check.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/keep_record.h"
#include "daemon/wire.h"

static const char note[] = "what the guest was asked for", boot[] = "0d2f0b4c-0000-4000-8000-000000000001";

static struct keep_record full(void)
{
	struct keep_record r = { .kind = KEEP_CONN, .id = 12, .listener = 3, .peer = { 77, 1000, 1001 }, .start = 4711, .note = note,
				 .note_len = sizeof(note), .has_note = true, .flags = KEEP_EOF, .error = EMSGSIZE,
				 .state_bytes = 8192, .state_name = 'n', .nr_fds = 2, .fds = { { KEEP_FD_UFFD, 1, 2 }, { KEEP_FD_FILE, 3, 4 } },
				 .next_conn = 99, .generation = 5 };

	memcpy(r.boot, boot, sizeof(boot));
	return r;
}

static int open_file(void **state)
{
	static int fd;

	fd = memfd_create("record", MFD_CLOEXEC);
	*state = &fd;
	return fd < 0;
}

static int close_file(void **state)
{
	return close(*(int *)*state);
}

static void assert_same(const struct keep_record *a, const struct keep_record *b)
{
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->id, b->id);
	assert_int_equal(a->listener, b->listener);
	assert_memory_equal(&a->peer, &b->peer, sizeof(a->peer));
	assert_int_equal(a->start, b->start);
	assert_string_equal(a->boot, b->boot);
	assert_int_equal(a->note_len, b->note_len);
	assert_memory_equal(a->note, b->note, a->note_len);
	assert_int_equal(a->bytes_len, b->bytes_len);
	assert_int_equal(a->unread, b->unread);
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->error, b->error);
	assert_int_equal(a->state_bytes, b->state_bytes);
	assert_int_equal(a->state_name, b->state_name);
	assert_int_equal(a->nr_fds, b->nr_fds);
	for (size_t i = 0; i < KEEP_FDS_MAX; i++) { /* not as bytes: what lies between the members is nobody's */
		assert_int_equal(a->fds[i].kind, b->fds[i].kind);
		assert_int_equal(a->fds[i].dev, b->fds[i].dev);
		assert_int_equal(a->fds[i].ino, b->fds[i].ino);
	}
	assert_int_equal(a->next_conn, b->next_conn);
	assert_int_equal(a->generation, b->generation);
}

static void test_all_comes_back(void **state)
{
	struct keep_record r = full(), got;
	int fd = *(int *)*state;
	struct cis_error err;
	uint64_t seq = 0;
	void *buf, *bytes;

	assert_int_equal(keep_bytes_write(fd, 0, "hand", 4, &r.bytes_crc), 0);
	assert_int_equal(keep_bytes_write(fd, 4, "shake", 5, &r.bytes_crc), 0);
	r.bytes_len = 9;
	r.unread = 5;
	assert_int_equal(keep_record_write(fd, &seq, &r), 0);
	assert_int_equal(seq, 1);
	assert_int_equal(keep_record_read(fd, &got, &buf, &err), 0);
	assert_int_equal(got.seq, 1);
	assert_same(&r, &got);
	assert_int_equal(keep_bytes_read(fd, &got, &bytes, &err), 0);
	assert_memory_equal(bytes, "handshake", 9);
	free(bytes);
	assert_int_equal(pwrite(fd, "x", 1, (128 << 10) + 3), 1);
	assert_int_equal(keep_bytes_read(fd, &got, &bytes, &err), -EBADMSG);
	free(buf);
}

/* Every prefix of a later record over the one in its slot: the former counts until all is there. */
static void test_half_written(void **state)
{
	struct keep_record r = full(), got;
	int fd = *(int *)*state, copy;
	struct cis_error err;
	static uint8_t slot[2048], now[2048];
	uint64_t seq = 0;
	ssize_t len;
	void *buf;

	for (uint64_t i = 1; i <= 2; i++) {
		r.id = 100 + i;
		assert_int_equal(keep_record_write(fd, &seq, &r), 0);
	}
	copy = memfd_create("copy", MFD_CLOEXEC);
	r.id = 103;
	assert_int_equal(keep_record_write(fd, &seq, &r), 0); /* into slot 1, where 101 was */
	len = pread(fd, slot, sizeof(slot), 64 << 10);
	assert_true(len > 200);
	seq = 0;
	for (uint64_t i = 1; i <= 2; i++) {
		r.id = 100 + i;
		assert_int_equal(keep_record_write(copy, &seq, &r), 0);
	}
	len = slot[16] | slot[17] << 8;
	for (ssize_t n = 0; n <= len; n++) {
		assert_int_equal(pwrite(copy, slot, (size_t)n, 64 << 10), n);
		assert_int_equal(keep_record_read(copy, &got, &buf, &err), 0);
		assert_int_equal(pread(copy, now, (size_t)len, 64 << 10), len);
		assert_int_equal(got.id, memcmp(now, slot, (size_t)len) ? 102 : 103); /* the last bytes may be the same */
		free(buf);
	}
	close(copy);
}

static void test_damage_is_refused(void **state)
{
	struct keep_record r = full(), got;
	int fd = *(int *)*state;
	struct cis_error err;
	uint64_t seq = 0;
	uint8_t byte;
	void *buf;

	assert_int_equal(keep_record_read(fd, &got, &buf, &err), -EBADMSG);
	assert_int_equal(keep_record_write(fd, &seq, &r), 0);
	for (off_t at = 64 << 10; at < (64 << 10) + 300; at++) {
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		assert_true(keep_record_read(fd, &got, &buf, &err) < 0);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	assert_int_equal(keep_record_read(fd, &got, &buf, &err), 0);
	free(buf);
}

static void test_too_long_leaves_the_former(void **state)
{
	static char long_note[70 << 10];
	struct keep_record r = full(), got;
	int fd = *(int *)*state;
	struct cis_error err;
	uint64_t seq = 0;
	void *buf;

	assert_int_equal(keep_record_write(fd, &seq, &r), 0);
	r.note = long_note;
	r.note_len = sizeof(long_note);
	assert_int_equal(keep_record_write(fd, &seq, &r), -E2BIG);
	assert_int_equal(seq, 1);
	assert_int_equal(keep_record_read(fd, &got, &buf, &err), 0);
	assert_int_equal(got.note_len, sizeof(note));
	free(buf);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_file, close_file)
	const struct CMUnitTest tests[] = {
		TEST(test_all_comes_back),
		TEST(test_half_written),
		TEST(test_damage_is_refused),
		TEST(test_too_long_leaves_the_former),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
