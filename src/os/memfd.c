#include "os/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

int cis_memfd_create(const char *name, uint64_t bytes, uint64_t page_bytes, int *ret_fd)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

	if (page_bytes > 4096)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	int fd = memfd_create(name, flags);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		int err = errno;

		close(fd);
		return -err;
	}
	*ret_fd = fd;
	return 0;
}

int cis_memfd_map(int fd, uint64_t off, uint64_t bytes, void **ret)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)off);

	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

void cis_memfd_unmap(void *addr, uint64_t bytes)
{
	if (addr)
		munmap(addr, bytes);
}

/*
 * Disk reads into memory of 2 MiB pages run at three times the rate of 4 KiB ones (limits.md), so bulk buffers are aligned
 * and advised; whether the kernel had one to give does not matter for the result.
 */
int cis_buffer_alloc(uint64_t bytes, void **ret)
{
	const uint64_t huge = 2u << 20;
	uint64_t want = (bytes + 4095) & ~4095ull;
	char *p = mmap(NULL, want + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	uint64_t head = (huge - (uintptr_t)p % huge) % huge;

	if (head)
		munmap(p, head);
	if (huge - head)
		munmap(p + head + want, huge - head);
	madvise(p + head, want, MADV_HUGEPAGE);
	*ret = p + head;
	return 0;
}
