/* memfds: state, guests' memory, tests. */
#ifndef CIS_OS_MEMFD_H
#define CIS_OS_MEMFD_H

#include <stdint.h>

/**
 * cis_memfd_create() - sized and sealed against shrinking and growing
 * @page_bytes: 4096, or 2 MiB for hugetlb
 *
 * Return: 0 or -errno (-ENOMEM: no huge pages).
 */
int cis_memfd_create(const char *name, uint64_t bytes, uint64_t page_bytes, int *ret_fd);

/** cis_memfd_map() - shared, readable and writable. */
int cis_memfd_map(int fd, uint64_t off, uint64_t bytes, void **ret);
void cis_memfd_unmap(void *addr, uint64_t bytes);

/** cis_buffer_alloc() - zeroed memory for bulk work, by huge pages where there are any; cis_memfd_unmap() frees it. */
int cis_buffer_alloc(uint64_t bytes, void **ret);

#endif
