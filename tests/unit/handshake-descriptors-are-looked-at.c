/* What comes with a handshake is what it should be, by the kernel's word, or is refused. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/memfd.h"
#include "os/uffd.h"
#include "vmm/handshake.h"

static struct cis_guest_region regions[2] = {
	{ .hva = 1 << 20, .bytes = 8192, .offset = 4096, .page_bytes = 4096 },
	{ .hva = 2 << 20, .bytes = 4096, .offset = 0, .page_bytes = 4096 },
};
static struct cis_guest_layout layout = { .regions = regions, .nr_regions = 2, .bytes = 12288 };
static int uffd;

static int open_uffd(void **state)
{
	int r = cis_uffd_open(UFFD_FEATURE_EVENT_REMOVE, &uffd);

	if (r == -EPERM || r == -EACCES || r == -ENOSYS)
		check_skip("no userfaultfd for this user or in this kernel");
	return r;
}

static void refuse(const int *fds, size_t nr, const char *why)
{
	struct cis_guest_memory mem = { .uffd = -7 };
	struct cis_error err = { 0 };

	assert_int_equal(cis_guest_take_fds(&layout, fds, nr, &mem, &err), -EPROTO);
	assert_int_equal(mem.uffd, -7);
	if (!strstr(err.text, why))
		fail_msg("%s, expected %s", err.text, why);
}

static int make_memfd(uint64_t bytes, unsigned flags)
{
	int fd = memfd_create("test", MFD_CLOEXEC | flags);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static void test_one_descriptor_is_anonymous(void **state)
{
	struct cis_guest_memory mem;

	assert_int_equal(cis_guest_take_fds(&layout, &uffd, 1, &mem, NULL), 0);
	assert_int_equal(mem.uffd, uffd);
	assert_int_equal(mem.memfd, -1);
	assert_int_equal(mem.kind, CIS_KIND_ANONYMOUS);
	assert_int_equal(mem.features, UFFD_FEATURE_EVENT_REMOVE);
}

static void test_two_descriptors_are_shared(void **state)
{
	int fd = make_memfd(12288, MFD_ALLOW_SEALING);
	struct cis_guest_memory mem;

	assert_int_equal(cis_guest_take_fds(&layout, (int[]){ uffd, fd }, 2, &mem, NULL), 0);
	assert_int_equal(mem.memfd, fd);
	assert_int_equal(mem.kind, CIS_KIND_SHARED);
	assert_false(mem.can_shrink);
	assert_int_equal(ftruncate(fd, 0), -1); /* sealed by us */
	close(fd);
}

static void test_unsealable_memory_is_said_to_be(void **state)
{
	int fd = make_memfd(12288, 0);
	struct cis_guest_memory mem;

	assert_int_equal(cis_guest_take_fds(&layout, (int[]){ uffd, fd }, 2, &mem, NULL), 0);
	assert_true(mem.can_shrink);
	close(fd);
}

static void test_kind_decides_the_number(void **state)
{
	int fd = make_memfd(12288, MFD_ALLOW_SEALING);
	struct cis_guest_memory mem;

	layout.has_kind = true;
	layout.kind = CIS_KIND_PRIVATE;
	assert_int_equal(cis_guest_take_fds(&layout, (int[]){ uffd, fd }, 2, &mem, NULL), 0);
	assert_int_equal(mem.kind, CIS_KIND_PRIVATE);
	refuse(&uffd, 1, "private memory comes with 2 descriptor(s), not 1");
	layout.kind = CIS_KIND_ANONYMOUS;
	refuse((int[]){ uffd, fd }, 2, "anonymous memory comes with 1 descriptor(s), not 2");
	layout.has_kind = false;
	close(fd);
}

static void test_wrong_number(void **state)
{
	int fds[4] = { uffd, uffd, uffd, uffd };

	refuse(fds, 0, "the userfaultfd is missing");
	refuse(fds, 3, "secret-hiding");
	refuse(fds, 4, "4 descriptors");
}

static void test_wrong_type(void **state)
{
	int fd = make_memfd(12288, MFD_ALLOW_SEALING), null = open("/dev/null", O_RDWR | O_CLOEXEC), file;
	int named = memfd_create("[userfaultfd]", MFD_CLOEXEC);
	char path[] = "/var/tmp/cis-handshake-XXXXXX";

	refuse(&fd, 1, "not a userfaultfd");
	refuse(&named, 1, "not a userfaultfd");
	refuse((int[]){ fd, uffd }, 2, "not a userfaultfd");
	refuse((int[]){ uffd, null }, 2, "not a memfd");
	refuse((int[]){ uffd, uffd }, 2, "not a memfd");
	file = mkstemp(path);
	unlink(path);
	refuse((int[]){ uffd, file }, 2, "memfd");
	close(fd);
	close(null);
	close(named);
	close(file);
}

static void test_useless_memfd(void **state)
{
	char path[32];
	int fd = make_memfd(8192, MFD_ALLOW_SEALING), ro;

	refuse((int[]){ uffd, fd }, 2, "region 0 ends at 12288 of the memfd, which has 8192 bytes");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	refuse((int[]){ uffd, ro }, 2, "not opened for reading and writing");
	close(ro);
	close(fd);
	fd = make_memfd(12288, MFD_ALLOW_SEALING);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	refuse((int[]){ uffd, fd }, 2, "sealed against writing");
	close(fd);
	fd = make_memfd(12288, MFD_ALLOW_SEALING);
	regions[1].page_bytes = 2 << 20;
	refuse((int[]){ uffd, fd }, 2, "region 1 has pages of 2097152 bytes, its memfd of 4096");
	regions[1].page_bytes = 4096;
	close(fd);
}

static void test_uffd_without_its_api(void **state)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	assert_true(fd >= 0);
	refuse(&fd, 1, "before its UFFDIO_API");
	close(fd);
}

/* Each fork of the monitor would leave a descriptor with the daemon.  Asking for it takes CAP_SYS_PTRACE. */
static void test_fork_events_are_refused(void **state)
{
	int fd, rc = cis_uffd_open(UFFD_FEATURE_EVENT_FORK, &fd);

	if (rc == -EPERM)
		skip();
	assert_int_equal(rc, 0);
	refuse(&fd, 1, "asks for fork events");
	close(fd);
}

static void test_blocking_uffd_is_made_pollable(void **state)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	struct cis_guest_memory mem;

	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, UFFDIO_API, &api), 0);
	assert_int_equal(cis_guest_take_fds(&layout, &fd, 1, &mem, NULL), 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(mem.features, 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_descriptor_is_anonymous),
		cmocka_unit_test(test_two_descriptors_are_shared),
		cmocka_unit_test(test_unsealable_memory_is_said_to_be),
		cmocka_unit_test(test_kind_decides_the_number),
		cmocka_unit_test(test_wrong_number),
		cmocka_unit_test(test_wrong_type),
		cmocka_unit_test(test_useless_memfd),
		cmocka_unit_test(test_uffd_without_its_api),
		cmocka_unit_test(test_fork_events_are_refused),
		cmocka_unit_test(test_blocking_uffd_is_made_pollable),
	};

	return cmocka_run_group_tests(tests, open_uffd, NULL);
}
