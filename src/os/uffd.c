#include "os/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* Since 6.6 and 6.8; the layout is that of struct uffdio_zeropage. */
struct poison_args {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#ifndef UFFDIO_POISON
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct poison_args)
#endif

static int new_fd(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd, err;

	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		err = errno;
		close(dev);
		return fd >= 0 ? fd : -err;
	}
	fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	return fd >= 0 ? fd : -errno;
}

static int api(int fd, uint64_t features, uint64_t *ret_features)
{
	struct uffdio_api args = { .api = UFFD_API, .features = features };

	if (ioctl(fd, UFFDIO_API, &args))
		return -errno;
	*ret_features = args.features;
	return 0;
}

int cis_uffd_open(uint64_t features, int *ret_fd)
{
	uint64_t have;
	int fd = new_fd(), err;

	if (fd < 0)
		return fd;
	err = api(fd, features, &have);
	if (err) {
		close(fd);
		return err;
	}
	*ret_fd = fd;
	return 0;
}

/* The kernel's own bit in the features of a userfaultfd whose UFFDIO_API is done. */
#define UFFD_FEATURE_INITIALIZED (1ull << 31)

int cis_uffd_features(uint64_t *ret_features)
{
	int fd = new_fd(), err;

	if (fd < 0)
		return fd;
	err = api(fd, 0, ret_features);
	close(fd);
	return err;
}

int cis_uffd_register(int fd, uint64_t addr, uint64_t len, uint64_t mode)
{
	struct uffdio_register args = { .range = { addr, len }, .mode = mode };

	return ioctl(fd, UFFDIO_REGISTER, &args) ? -errno : 0;
}

int cis_uffd_unregister(int fd, uint64_t addr, uint64_t len)
{
	struct uffdio_range args = { addr, len };

	return ioctl(fd, UFFDIO_UNREGISTER, &args) ? -errno : 0;
}

int cis_uffd_unblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK)))
		return -errno;
	return 0;
}

/*
 * O_NONBLOCK is a flag of the open file, which the monitor shares: it may clear it, and whoever reads then would wait for this guest
 * with all others.  Before Linux 6.10 the flag can only be looked at before (POLLERR says that it is not set), and a monitor that
 * clears it in between can still hold up its shard.
 */
static ssize_t read_after_look(int fd, void *buf, size_t bytes)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	if (poll(&p, 1, 0) == 1 && p.revents & POLLERR)
		cis_uffd_unblock(fd);
	return read(fd, buf, bytes);
}

/* Whatever else the newer call fails with, the older one decides: who cannot be read is lost. */
static ssize_t read_now(int fd, void *buf, size_t bytes)
{
	static atomic_bool is_old;
	struct iovec iov = { buf, bytes };
	ssize_t n;

	if (!is_old) {
		n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
		if (n >= 0 || errno == EAGAIN)
			return n;
		is_old = errno == EOPNOTSUPP;
	}
	return read_after_look(fd, buf, bytes);
}

int cis_uffd_read(int fd, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	ssize_t n = read_now(fd, msgs, max * sizeof(*msgs));

	if (n < 0)
		return -errno;
	if (n == 0)
		return -EAGAIN;
	*ret_n = (size_t)n / sizeof(*msgs);
	return 0;
}

/*
 * What an installing ioctl left in its result field: bytes done, or -errno; kernels up to 6.14 leave it alone
 * on an EAGAIN without progress, so it was set to 0 before.
 */
static int outcome(int failed, int64_t field, uint64_t *ret_done)
{
	int err = failed ? errno : 0;

	*ret_done = field > 0 ? (uint64_t)field : 0;
	if (!err)
		return 0;
	return field < 0 ? (int)field : -err;
}

static int copy(int fd, uint64_t dst, const void *src, uint64_t len, uint64_t mode, uint64_t *ret_done)
{
	struct uffdio_copy args = { .dst = dst, .src = (uintptr_t)src, .len = len, .mode = mode };
	int failed = ioctl(fd, UFFDIO_COPY, &args);

	return outcome(failed, args.copy, ret_done);
}

int cis_uffd_copy(int fd, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	return copy(fd, dst, src, len, 0, ret_done);
}

int cis_uffd_copy_protected(int fd, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	return copy(fd, dst, src, len, UFFDIO_COPY_MODE_WP, ret_done);
}

int cis_uffd_zero(int fd, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	struct uffdio_zeropage args = { .range = { dst, len } };
	int failed = ioctl(fd, UFFDIO_ZEROPAGE, &args);

	return outcome(failed, args.zeropage, ret_done);
}

int cis_uffd_continue(int fd, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	struct uffdio_continue args = { .range = { dst, len } };
	int failed = ioctl(fd, UFFDIO_CONTINUE, &args);

	return outcome(failed, args.mapped, ret_done);
}

int cis_uffd_poison(int fd, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	struct poison_args args = { .range = { dst, len } };
	int failed = ioctl(fd, UFFDIO_POISON, &args);

	return outcome(failed, args.updated, ret_done);
}

int cis_uffd_wake(int fd, uint64_t dst, uint64_t len)
{
	struct uffdio_range args = { dst, len };

	return ioctl(fd, UFFDIO_WAKE, &args) ? -errno : 0;
}

int cis_uffd_protect(int fd, uint64_t addr, uint64_t len, bool on)
{
	struct uffdio_writeprotect args = { .range = { addr, len }, .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0 };

	return ioctl(fd, UFFDIO_WRITEPROTECT, &args) ? -errno : 0;
}

bool cis_is_uffd(int fd)
{
	char path[32], link[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, link, sizeof(link) - 1);

	if (n < 0)
		return false;
	link[n] = 0;
	return !strcmp(link, "anon_inode:[userfaultfd]"); /* a file may have any name, but not this link */
}

int cis_uffd_asked(int fd, uint64_t *ret_features)
{
	char path[40], line[128];
	unsigned long long features = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "API: aa:%llx:", &features) == 1)
			break;
	fclose(f);
	if (!(features & UFFD_FEATURE_INITIALIZED))
		return -ENODATA;
	*ret_features = features & ~UFFD_FEATURE_INITIALIZED;
	return 0;
}
