/*
 * Whoever shares a userfaultfd may clear its O_NONBLOCK: it is read without waiting all the same, and whatever the call that can do so
 * fails with, what there is to read is read.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "os/uffd.h"

static unsigned calls;
static int error; /* what it fails with; 0: it does what the kernel does */

/* In place of libc's. */
ssize_t preadv2(int fd, const struct iovec *iov, int nr, off_t off, int flags)
{
	calls++;
	errno = error;
	return error ? -1 : syscall(SYS_preadv2, fd, iov, nr, off, 0, flags);
}

static void *touch(void *page)
{
	return (void *)(uintptr_t)*(volatile char *)page;
}

static int make_blocking(int fd)
{
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

/* Nothing to read, and one fault.  A read that waits is the end of the test. */
static void read_both(int uffd, int fails_with)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;
	pthread_t thread;
	uint64_t done;
	size_t n;

	error = fails_with;
	assert_true(page != MAP_FAILED);
	assert_int_equal(cis_uffd_register(uffd, (uintptr_t)page, 4096, UFFDIO_REGISTER_MODE_MISSING), 0);
	assert_int_equal(make_blocking(uffd), 0);
	assert_int_equal(cis_uffd_read(uffd, &msg, 1, &n), -EAGAIN);
	assert_int_equal(pthread_create(&thread, NULL, touch, page), 0);
	assert_int_equal(cis_uffd_unblock(uffd), 0); /* else poll() would not wait */
	assert_int_equal(poll(&p, 1, 20000), 1);
	assert_int_equal(make_blocking(uffd), 0);
	assert_int_equal(cis_uffd_read(uffd, &msg, 1, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(msg.event, UFFD_EVENT_PAGEFAULT);
	assert_int_equal(msg.arg.pagefault.address & ~4095ull, (uintptr_t)page);
	assert_int_equal(cis_uffd_zero(uffd, (uintptr_t)page, 4096, &done), 0);
	pthread_join(thread, NULL);
	munmap(page, 4096);
}

static void test_read_without_waiting(void **state)
{
	static const int errors[] = { 0, EIO, ENOMEM, EPERM, ENOSYS, EINVAL };
	unsigned before;
	int uffd, r = cis_uffd_open(0, &uffd);

	if (r == -EPERM || r == -EACCES || r == -ENOSYS)
		check_skip("no userfaultfd for this user or in this kernel");
	assert_int_equal(r, 0);
	alarm(60);
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		read_both(uffd, errors[i]);
	read_both(uffd, EOPNOTSUPP);
	before = calls;
	read_both(uffd, 0); /* an older kernel is asked once */
	assert_int_equal(calls, before);
	close(uffd);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_read_without_waiting) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
