/* What a client registers reads as what the daemon installs, for each kind of mapping, and the handshake says what it is. */
#include "client-daemon.h"

#include <sys/wait.h>

#include "cistern/cistern.h"

#define PAGES 64

static void check_words(const uint64_t *memory, uint64_t first_pgno, size_t pages)
{
	for (size_t p = 0; p < pages; p++)
		for (size_t i = 0; i < PAGE / 8; i++)
			assert_int_equal(memory[p * (PAGE / 8) + i], daemon_word(first_pgno + p, i));
}

static struct cis_memory *create(struct fake_daemon *d, uint32_t mapping, uint32_t flags, int fd)
{
	struct cis_memory_opts opts = { .size = sizeof(opts), .mapping = mapping, .flags = CIS_MEMORY_WAIT | flags,
					.socket = d->path, .fd = fd };
	struct cis_memory *m;

	if (cis_memory_create(&opts, &m))
		fail_msg("%s", cis_error());
	return m;
}

static void *add(struct cis_memory *m, int flags, int fd, uint64_t offset, struct cis_region_opts opts)
{
	void *addr = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, fd, fd < 0 ? 0 : (off_t)offset);

	assert_ptr_not_equal(addr, MAP_FAILED);
	opts.size = sizeof(opts);
	opts.addr = addr;
	opts.bytes = PAGES * PAGE;
	opts.offset = offset;
	if (cis_memory_add_region(m, &opts))
		fail_msg("%s", cis_error());
	return addr;
}

static const json_t *ours(struct fake_daemon *d)
{
	return json_object_get(json_array_get(d->said, 0), "cistern");
}

static void test_anonymous_in_two_regions(void **state)
{
	struct fake_daemon d = { .answer = "k", .serve = true };

	daemon_start(&d);
	struct cis_memory *m = create(&d, CIS_MAPPING_ANONYMOUS, 0, -1);
	void *a = add(m, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, (struct cis_region_opts){ .block = "low" });
	void *b = add(m, MAP_PRIVATE | MAP_ANONYMOUS, -1, PAGES * PAGE,
		      (struct cis_region_opts){ .flags = CIS_REGION_GPA, .gpa = 1ull << 32 });

	assert_int_equal(cis_memory_fd(m), -ENOTCONN);
	assert_int_equal(cis_memory_attach(m), 0);
	assert_true(cis_memory_fd(m) >= 0);
	check_words(b, PAGES, PAGES);
	check_words(a, 0, PAGES);
	munmap(a, PAGES * PAGE);
	munmap(b, PAGES * PAGE);
	cis_memory_destroy(m);
	daemon_wait(&d);

	assert_int_equal(d.served, 2 * PAGES);
	assert_int_equal(d.nr_fds, 1);
	assert_int_equal(daemon_number(&d, 0, "base_host_virt_addr"), (uintptr_t)a);
	assert_int_equal(daemon_number(&d, 1, "offset"), PAGES * PAGE);
	assert_int_equal(daemon_number(&d, 1, "page_size"), PAGE);
	assert_int_equal(daemon_number(&d, 1, "page_size_kib"), PAGE);
	assert_string_equal(json_string_value(json_object_get(ours(&d), "kind")), "anonymous");
	const json_t *regions = json_object_get(ours(&d), "regions");

	assert_int_equal(json_array_size(regions), 2);
	assert_string_equal(json_string_value(json_object_get(json_array_get(regions, 0), "name")), "low");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(regions, 1), "gpa")), 1ull << 32);
	daemon_end(&d);
}

static int make_memfd(void)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, PAGES * PAGE), 0);
	return fd;
}

static void test_shared(void **state)
{
	struct fake_daemon d = { .answer = "k", .serve = true };
	int fd = make_memfd();

	daemon_start(&d);
	struct cis_memory *m = create(&d, CIS_MAPPING_SHARED, 0, fd);
	void *a = add(m, MAP_SHARED, fd, 0, (struct cis_region_opts){ .page_bytes = PAGE });

	assert_int_equal(cis_memory_attach(m), 0);
	check_words(a, 0, PAGES);
	munmap(a, PAGES * PAGE);
	cis_memory_destroy(m);
	close(fd);
	daemon_wait(&d);
	assert_int_equal(d.nr_fds, 2);
	assert_string_equal(json_string_value(json_object_get(ours(&d), "kind")), "shared");
	daemon_end(&d);
}

static void allocated(uint32_t mapping, int flags)
{
	struct fake_daemon d = { .answer = "k", .serve = true };
	uint64_t features = 0;
	int fd = make_memfd();

	cis_uffd_features(&features);
	if (!(features & UFFD_FEATURE_MINOR_SHMEM))
		skip();
	assert_int_equal(fallocate(fd, 0, 0, PAGES * PAGE), 0);
	daemon_start(&d);
	struct cis_memory *m = create(&d, mapping, CIS_MEMORY_ALLOCATED, fd);
	void *a = add(m, flags, fd, 0, (struct cis_region_opts){ 0 });

	assert_int_equal(cis_memory_attach(m), 0);
	check_words(a, 0, PAGES);
	munmap(a, PAGES * PAGE);
	cis_memory_destroy(m);
	close(fd);
	daemon_wait(&d);
	assert_int_equal(d.served, PAGES);
	assert_true(json_is_true(json_object_get(ours(&d), "allocated")));
	daemon_end(&d);
}

static void test_shared_and_allocated(void **state)
{
	allocated(CIS_MAPPING_SHARED, MAP_SHARED);
}

static void test_private_of_a_base(void **state)
{
	allocated(CIS_MAPPING_PRIVATE, MAP_PRIVATE);
}

static void test_pages_of_2_mib(void **state)
{
	const uint64_t huge = 2u << 20;
	struct fake_daemon d = { .answer = "k", .serve = true };
	int fd = memfd_create("guest", MFD_CLOEXEC | MFD_HUGETLB);
	void *addr = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, 2 * (off_t)huge))
		addr = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED) {
		print_message("no pages of 2 MiB are reserved here\n");
		close(fd);
		skip();
	}
	daemon_start(&d);
	struct cis_memory *m = create(&d, CIS_MAPPING_SHARED, 0, fd);
	struct cis_region_opts region = { .size = sizeof(region), .addr = addr, .bytes = 2 * huge, .page_bytes = huge };

	if (cis_memory_add_region(m, &region))
		fail_msg("%s", cis_error());
	assert_int_equal(cis_memory_attach(m), 0);
	check_words(addr, 0, 2 * huge / PAGE);
	munmap(addr, 2 * huge);
	cis_memory_destroy(m);
	close(fd);
	daemon_wait(&d);
	assert_int_equal(d.served, 2);
	daemon_end(&d);
}

static void test_children_do_not_see_it(void **state)
{
	struct fake_daemon d = { .answer = "k", .serve = true };
	unsigned char present;

	daemon_start(&d);
	struct cis_memory *m = create(&d, CIS_MAPPING_ANONYMOUS, 0, -1);
	void *a = add(m, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, (struct cis_region_opts){ 0 });

	assert_int_equal(cis_memory_attach(m), 0);
	pid_t child = fork();

	if (!child)
		_exit(mincore(a, PAGE, &present) == -1 && errno == ENOMEM ? 0 : 1);
	int status;

	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	munmap(a, PAGES * PAGE);
	cis_memory_destroy(m);
	daemon_wait(&d);
	daemon_end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_anonymous_in_two_regions), cmocka_unit_test(test_shared),
		cmocka_unit_test(test_shared_and_allocated),     cmocka_unit_test(test_private_of_a_base),
		cmocka_unit_test(test_pages_of_2_mib),           cmocka_unit_test(test_children_do_not_see_it),
	};

	daemon_check_uffd();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
