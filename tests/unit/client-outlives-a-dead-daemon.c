/*
 * A daemon that dies leaves its client waiting for pages, and never reading zeros: hazard 9, silent corruption when the
 * last userfaultfd is closed.
 */
#include "client-daemon.h"

#include <dirent.h>

#include "cistern/cistern.h"

#define BYTES (16 * PAGE)

static void *touch(void *addr)
{
	return (void *)(uintptr_t)*(volatile uint64_t *)addr;
}

/* The only userfaultfd of this process, once the daemon's is closed: the client's. */
static int find_uffd(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] == '.' || !cis_is_uffd(fd))
			continue;
		assert_int_equal(found, -1);
		found = fd;
	}
	closedir(dir);
	return found;
}

static void test_waits_instead_of_reading_zeros(void **state)
{
	struct fake_daemon d = { .answer = "k" };
	void *addr = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *word;
	struct cis_memory_opts opts = { .size = sizeof(opts), .mapping = CIS_MAPPING_ANONYMOUS, .flags = CIS_MEMORY_WAIT,
					.socket = d.path };
	struct cis_region_opts region = { .size = sizeof(region), .addr = addr, .bytes = BYTES };
	struct cis_memory *m;
	struct uffd_msg msg;
	pthread_t thread;
	size_t n;

	daemon_start(&d);
	assert_int_equal(cis_memory_create(&opts, &m), 0);
	assert_int_equal(cis_memory_add_region(m, &region), 0);
	assert_int_equal(cis_memory_attach(m), 0);
	daemon_wait(&d);
	cis_fds_close(d.fds, d.nr_fds); /* as its death would */
	d.nr_fds = 0;
	close(d.conn);
	d.conn = -1;

	struct pollfd gone = { .fd = cis_memory_fd(m), .events = POLLIN };

	assert_int_equal(poll(&gone, 1, -1), 1);
	assert_true(gone.revents & POLLHUP);

	int uffd = find_uffd();

	assert_true(uffd >= 0);
	assert_int_equal(pthread_create(&thread, NULL, touch, addr), 0);
	assert_int_equal(poll(&(struct pollfd){ .fd = uffd, .events = POLLIN }, 1, -1), 1);
	assert_int_equal(cis_uffd_read(uffd, &msg, 1, &n), 0);
	assert_int_equal(msg.event, UFFD_EVENT_PAGEFAULT);

	uint64_t page[PAGE / 8], done;

	daemon_page(0, page);
	assert_int_equal(cis_uffd_copy(uffd, (uintptr_t)addr, page, PAGE, &done), 0);
	pthread_join(thread, &word);
	assert_int_equal((uintptr_t)word, daemon_word(0, 0));
	munmap(addr, BYTES);
	cis_memory_destroy(m);
	daemon_end(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_waits_instead_of_reading_zeros) };

	daemon_check_uffd();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
