#include "os/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/fs.h>
#include <linux/io_uring.h>

#include "os/memfd.h"
#include "os/pidfd.h"

/* Debian 12 has the headers of 6.1; this came with 6.7. */
#ifndef PAGEMAP_SCAN
struct pm_scan_arg {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t vec;
	uint64_t vec_len;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};
#define PAGEMAP_SCAN	_IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_PRESENT (1 << 3)
#endif

int cis_probe_pagemap_scan(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), r = 0;
	struct pm_scan_arg arg = { .size = sizeof(arg),
				   .category_mask = PAGE_IS_PRESENT,
				   .return_mask = PAGE_IS_PRESENT };
	uint64_t region[3];

	if (fd < 0)
		return -errno;
	arg.start = (uintptr_t)&arg & ~(uintptr_t)4095;
	arg.end = arg.start + 4096;
	arg.vec = (uintptr_t)region;
	arg.vec_len = 1;
	if (ioctl(fd, PAGEMAP_SCAN, &arg) < 0)
		r = -errno;
	close(fd);
	return r;
}

int cis_probe_uring(void)
{
	struct io_uring_params params = { 0 };
	int fd = (int)syscall(SYS_io_uring_setup, 1, &params);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int cis_probe_hugetlb(void)
{
	int fd, r = cis_memfd_create("probe", 2 << 20, 2 << 20, &fd);
	void *page;

	if (r)
		return r;
	r = cis_memfd_map(fd, 0, 2 << 20, &page);
	if (!r)
		cis_memfd_unmap(page, 2 << 20);
	close(fd);
	return r;
}

int cis_probe_pidfd_getfd(void)
{
	int self, fd, r = cis_pidfd_open(getpid(), &self);

	if (r)
		return r;
	fd = (int)syscall(SYS_pidfd_getfd, self, self, 0);
	r = fd < 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	close(self);
	return r;
}

int cis_probe_mlock(void)
{
	size_t bytes = 16 << 20;
	void *mem =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int r;

	if (mem == MAP_FAILED)
		return -errno;
	r = mlock2(mem, bytes, MLOCK_ONFAULT) ? -errno : 0;
	munmap(mem, bytes);
	return r;
}
