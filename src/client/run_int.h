/* What the files of libcistern-run share.  Everything here works without malloc(), which may be what has called. */
#ifndef CIS_CLIENT_RUN_INT_H
#define CIS_CLIENT_RUN_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "client/run_region.h"

/**
 * struct cis_run - of this process
 * @is_active: the region is served, and mappings may come from it
 * @lock:      of @region; whatever waits for a page or the daemon is done without it, but for fork()
 */
struct cis_run {
	atomic_bool is_active;
	pthread_mutex_t lock;
	struct cis_run_region region;
};

extern struct cis_run cis_run;

static inline void *cis_run_sys_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

static inline int cis_run_sys_munmap(void *addr, size_t len)
{
	return (int)syscall(SYS_munmap, addr, len);
}

static inline int cis_run_sys_madvise(void *addr, size_t len, int advice)
{
	return (int)syscall(SYS_madvise, addr, len, advice);
}

/** cis_run_mmap(), ... - as the calls of the C library, served from the region where that can be */
void *cis_run_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int cis_run_munmap(void *addr, size_t len);
int cis_run_madvise(void *addr, size_t len, int advice);
void *cis_run_mremap(void *addr, size_t old_len, size_t len, int flags, void *to);

/**
 * cis_run_each_mapping() - what the kernel has mapped of [start, end), from /proc/self/maps
 *
 * It ends when @call returns anything but 0, with that.  Return: 0 or -errno.
 */
int cis_run_each_mapping(char *start, char *end, int (*call)(char *start, char *end, int prot, void *ctx), void *ctx);

/** cis_run_prepare_fork(), ... - for pthread_atfork() */
void cis_run_prepare_fork(void);
void cis_run_forked_in_parent(void);
void cis_run_forked_in_child(void);

#endif
