/* A trace file reads as it was written; a damaged one is refused, whichever byte it is. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/le.h"
#include "codec/codec.h"
#include "image/trace.h"

#define NR 100

static char folder[] = "/tmp/cis-trace-XXXXXX";
static char path[64];

static int setup(void **state)
{
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/a.trace", folder);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(folder); /* fails when something was left behind */
}

static void save(void)
{
	uint32_t pages[NR];
	struct cis_trace t = { .page_shift = 12, .guest_bytes = 1000 * 4096 - 5, .nr = NR, .pgno = pages };
	struct cis_error err;

	for (unsigned i = 0; i < NR; i++)
		pages[i] = 999 - 7 * i;
	memset(t.image_id, 0xa5, sizeof(t.image_id));
	assert_int_equal(cis_trace_save(path, &t, &err), 0);
}

static size_t slurp(uint8_t *buf, size_t room)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, buf, room);

	close(fd);
	assert_true(n > 0);
	return (size_t)n;
}

static int load_bytes(const uint8_t *buf, size_t len, struct cis_error *err)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
	struct cis_trace t;

	assert_int_equal(write(fd, buf, len), len);
	close(fd);
	int rc = cis_trace_load(path, &t, err);

	if (!rc)
		cis_trace_fini(&t);
	return rc;
}

static void reads_back(void **state)
{
	struct cis_error err;
	struct cis_trace t;
	struct stat st;

	save();
	assert_int_equal(cis_trace_load(path, &t, &err), 0);
	assert_int_equal(t.page_shift, 12);
	assert_int_equal(t.guest_bytes, 1000 * 4096 - 5);
	assert_int_equal(t.nr, NR);
	assert_int_equal(t.image_id[31], 0xa5);
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(t.pgno[i], 999 - 7 * i);
	cis_trace_fini(&t);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 64 + 4 * NR + 8);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void every_flip_is_found(void **state)
{
	uint8_t buf[1024];
	struct cis_error err;

	save();
	size_t len = slurp(buf, sizeof(buf));

	for (size_t bit = 0; bit < 8 * len; bit++) {
		buf[bit / 8] ^= 1u << bit % 8;
		assert_true(load_bytes(buf, len, &err) < 0);
		buf[bit / 8] ^= 1u << bit % 8;
	}
	for (size_t cut = 0; cut < len; cut++)
		assert_true(load_bytes(buf, cut, &err) < 0);
	buf[len] = 0;
	assert_int_equal(load_bytes(buf, len + 1, &err), -EBADMSG);
}

static void seal(uint8_t *buf, size_t len)
{
	cis_put_le64(buf + len - 8, cis_crc64(0, buf, len - 8));
}

static void hostile_ones_are_refused(void **state)
{
	uint8_t good[1024], buf[1024];
	struct cis_error err;

	save();
	size_t len = slurp(good, sizeof(good));

	memcpy(buf, good, len);
	cis_put_le32(buf + 64, 1000); /* past the end */
	seal(buf, len);
	assert_int_equal(load_bytes(buf, len, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "beyond the end"));
	memcpy(buf, good, len);
	cis_put_le32(buf + 64, cis_le32(buf + 68)); /* twice */
	seal(buf, len);
	assert_int_equal(load_bytes(buf, len, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "twice"));
	memcpy(buf, good, len);
	cis_put_le64(buf + 56, UINT64_MAX / 4); /* a count that overflows when multiplied */
	seal(buf, len);
	assert_int_equal(load_bytes(buf, len, &err), -EBADMSG);
	memcpy(buf, good, len);
	cis_put_le32(buf + 8, 2);
	seal(buf, len);
	assert_int_equal(load_bytes(buf, len, &err), -EPROTONOSUPPORT);
	assert_int_equal(load_bytes((const uint8_t *)"hello", 5, &err), -EMEDIUMTYPE);
	assert_int_equal(cis_trace_load(folder, &(struct cis_trace){ 0 }, &err), -EISDIR);
	assert_int_equal(cis_trace_load("/nowhere/x", &(struct cis_trace){ 0 }, &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_back),
		cmocka_unit_test(every_flip_is_found),
		cmocka_unit_test(hostile_ones_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
