/* Each misuse of libcistern and each refusal by the daemon has its own errno and text, and gives back every descriptor. */
#include "client-daemon.h"

#include "cistern/cistern.h"

#define BYTES (16 * PAGE)

static void *map_anonymous(void)
{
	void *addr = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(addr, MAP_FAILED);
	return addr;
}

static struct cis_memory *create(const char *path, uint32_t timeout_ms)
{
	struct cis_memory_opts opts = { .size = sizeof(opts), .mapping = CIS_MAPPING_ANONYMOUS, .flags = CIS_MEMORY_WAIT,
					.socket = path, .timeout_ms = timeout_ms };
	struct cis_memory *m;

	if (cis_memory_create(&opts, &m))
		fail_msg("%s", cis_error());
	return m;
}

static void refuse_create(struct cis_memory_opts opts, int r, const char *text)
{
	struct cis_memory *m = (void *)1;

	assert_int_equal(cis_memory_create(&opts, &m), r);
	assert_ptr_equal(m, (void *)1);
	assert_string_equal(cis_error(), text);
}

static void test_create(void **state)
{
	struct cis_memory_opts good = { .size = sizeof(good), .mapping = CIS_MAPPING_ANONYMOUS, .socket = "/nowhere" }, o;
	struct {
		struct cis_memory_opts opts;
		uint64_t later;
	} longer = { .opts = good, .later = 1 };
	size_t before = check_open_fds();

	o = good, o.size = 0;
	refuse_create(o, -EINVAL, "cis_memory_create: the size of the options is not set");
	o = good, o.mapping = 9;
	refuse_create(o, -EINVAL, "cis_memory_create: kind of mapping 9 is not known");
	o = good, o.flags = 64;
	refuse_create(o, -EINVAL, "cis_memory_create: flags 0x40 are not known");
	o = good, o.flags = CIS_MEMORY_ALLOCATED;
	refuse_create(o, -EINVAL, "cis_memory_create: anonymous memory cannot be allocated before it is touched");
	o = good, o.socket = "";
	refuse_create(o, -EINVAL, "cis_memory_create: no path of a guest's socket is given");
	o = good, o.mapping = CIS_MAPPING_SHARED, o.fd = 9999;
	refuse_create(o, -EBADF, "cis_memory_create: descriptor 9999: Bad file descriptor");

	struct cis_memory *m;

	longer.opts.size = sizeof(longer);
	assert_int_equal(cis_memory_create(&longer.opts, &m), -EINVAL);
	assert_non_null(strstr(cis_error(), "an option is set that this version"));
	assert_int_equal(check_open_fds(), before);
	longer.later = 0;
	assert_int_equal(cis_memory_create(&longer.opts, &m), 0);
	cis_memory_destroy(m);
	cis_memory_destroy(NULL);
	assert_int_equal(check_open_fds(), before);
}

static void refuse_region(struct cis_memory *m, struct cis_region_opts opts, int r, const char *text)
{
	assert_int_equal(cis_memory_add_region(m, &opts), r);
	assert_string_equal(cis_error(), text);
}

static void test_regions(void **state)
{
	char *addr = map_anonymous();
	struct cis_memory *m = create("/nowhere", 0);
	struct cis_region_opts good = { .size = sizeof(good), .addr = addr, .bytes = BYTES }, o;
	const char *unaligned = "cis_memory_add_region: address, length and offset must be multiples of the page size 4096, and "
				"the length not 0";

	o = good, o.size = 8;
	refuse_region(m, o, -EINVAL, "cis_memory_add_region: the size of the options is not set");
	o = good, o.flags = 2;
	refuse_region(m, o, -EINVAL, "cis_memory_add_region: flags 0x2 are not known");
	o = good, o.page_bytes = 8192;
	refuse_region(m, o, -EINVAL, "cis_memory_add_region: pages of 8192 bytes: only 4096 and 2097152 are known");
	o = good, o.addr = addr + 1;
	refuse_region(m, o, -EINVAL, unaligned);
	o = good, o.bytes = 0;
	refuse_region(m, o, -EINVAL, unaligned);
	o = good, o.offset = 100;
	refuse_region(m, o, -EINVAL, unaligned);
	o = good, o.offset = INT64_MAX - (PAGE - 1);
	refuse_region(m, o, -EINVAL, "cis_memory_add_region: the region wraps around");
	o = good, o.block = "say \"ram\"";
	refuse_region(m, o, -EINVAL, "cis_memory_add_region: the block's name is longer than 63 bytes or not plain printable ASCII");
	addr[3 * PAGE] = 1;
	refuse_region(m, good, -EEXIST,
		      "cis_memory_add_region: the memory is in use: a page is present at offset 0x3000 of the region");
	assert_int_equal(madvise(addr, BYTES, MADV_DONTNEED), 0);
	assert_int_equal(cis_memory_add_region(m, &good), 0);
	refuse_region(m, good, -EINVAL, "cis_memory_add_region: the region overlaps region 0 in memory");
	o = good, o.addr = map_anonymous();
	refuse_region(m, o, -EINVAL, "cis_memory_add_region: the region overlaps region 0 in the memory file");
	munmap(o.addr, BYTES);
	o.offset = BYTES;
	assert_int_equal(cis_memory_add_region(m, &o), -EINVAL);
	assert_non_null(strstr(cis_error(), "not all of the region is mapped"));
	munmap(addr, BYTES);
	cis_memory_destroy(m);
}

static void test_files(void **state)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);
	void *addr = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct cis_memory_opts opts = { .size = sizeof(opts), .mapping = CIS_MAPPING_SHARED, .socket = "/nowhere", .fd = fd };
	struct cis_region_opts region = { .size = sizeof(region), .addr = addr, .bytes = BYTES };
	struct cis_memory *m;

	assert_int_equal(ftruncate(fd, BYTES), 0);
	assert_int_equal(cis_memory_create(&opts, &m), 0);
	assert_int_equal(pwrite(fd, "x", 1, 2 * PAGE), 1);
	assert_int_equal(cis_memory_add_region(m, &region), -EEXIST);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES), 0);
	assert_int_equal(cis_memory_add_region(m, &region), 0);
	munmap(addr, BYTES);
	cis_memory_destroy(m);
	close(fd);
}

static void refuse_attach(struct fake_daemon *d, uint32_t timeout_ms, int r, const char *reason)
{
	size_t before = check_open_fds();
	void *addr = map_anonymous();
	char text[300];

	daemon_start(d);
	struct cis_memory *m = create(d->path, timeout_ms);
	struct cis_region_opts region = { .size = sizeof(region), .addr = addr, .bytes = BYTES };

	assert_int_equal(cis_memory_attach(m), -EINVAL);
	assert_string_equal(cis_error(), "cis_memory_attach: the memory has no regions");
	assert_int_equal(cis_memory_add_region(m, &region), 0);
	assert_int_equal(cis_memory_attach(m), r);
	snprintf(text, sizeof(text), "cis_memory_attach: %s: %s", d->path, reason);
	assert_string_equal(cis_error(), text);
	assert_int_equal(cis_memory_fd(m), -ENOTCONN);
	cis_memory_destroy(m);
	munmap(addr, BYTES);
	daemon_wait(d);
	daemon_end(d);
	assert_int_equal(check_open_fds(), before);
}

static void test_the_daemon_refuses(void **state)
{
	struct fake_daemon reason = { .answer = "ethe image has\n128 MiB" }, silent = { .answer = NULL };
	struct fake_daemon bare = { .answer = "e" }, odd = { .answer = "x", .serve = true }, slow = { .answer = "", .serve = true };

	refuse_attach(&reason, 0, -ECONNABORTED, "the daemon refused: the image has 128 MiB");
	refuse_attach(&bare, 0, -ECONNABORTED, "the daemon refused: it gave no reason");
	refuse_attach(&silent, 0, -ECONNABORTED, "the daemon closed the connection: it refused, its log says why");
	refuse_attach(&odd, 0, -EPROTO, "the daemon answered with byte 0x78, which means nothing");
	refuse_attach(&slow, 1, -ETIMEDOUT, "the daemon did not answer in time");
}

static void test_nobody_listens(void **state)
{
	void *addr = map_anonymous();
	struct cis_memory *m = create("/tmp/cistern-nobody/s", 0);
	struct cis_region_opts region = { .size = sizeof(region), .addr = addr, .bytes = BYTES };

	assert_int_equal(cis_memory_add_region(m, &region), 0);
	assert_int_equal(cis_memory_attach(m), -ENOENT);
	assert_string_equal(cis_error(), "cis_memory_attach: /tmp/cistern-nobody/s: cannot connect: No such file or directory");
	cis_memory_destroy(m);
	munmap(addr, BYTES);
}

static void test_attached_only_once(void **state)
{
	struct fake_daemon d = { .answer = "k", .serve = true };
	void *addr = map_anonymous();

	daemon_start(&d);
	struct cis_memory *m = create(d.path, 0);
	struct cis_region_opts region = { .size = sizeof(region), .addr = addr, .bytes = BYTES };

	assert_int_equal(cis_memory_add_region(m, &region), 0);
	assert_int_equal(cis_memory_attach(m), 0);
	assert_int_equal(cis_memory_attach(m), -EBUSY);
	refuse_region(m, region, -EBUSY, "cis_memory_add_region: the memory is attached already");
	munmap(addr, BYTES);
	cis_memory_destroy(m);
	daemon_wait(&d);
	daemon_end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),             cmocka_unit_test(test_regions),
		cmocka_unit_test(test_files),              cmocka_unit_test(test_the_daemon_refuses),
		cmocka_unit_test(test_nobody_listens),     cmocka_unit_test(test_attached_only_once),
	};

	daemon_check_uffd();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
