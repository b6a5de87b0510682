/*
 * userfaultfd: thin, one system call a function, 0 or -errno.
 *
 * Each installing call says through @ret_done how many bytes it did: the kernel may stop half way (another page was there
 * first, the address space is changing).  See kernel-facts of the design and userfaultfd(2).
 */
#ifndef CIS_OS_UFFD_H
#define CIS_OS_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/userfaultfd.h>

/* Debian 12 has the headers of 6.1; what came later is defined here. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

/**
 * cis_uffd_open() - a new userfaultfd, non-blocking, close-on-exec, kernel faults included
 * @features: asked for in UFFDIO_API
 *
 * /dev/userfaultfd first, then the system call.  Return: 0; -EPERM or -EACCES
 * when neither is permitted, -ENOSYS when the kernel has none, -EINVAL when it lacks a feature.
 */
int cis_uffd_open(uint64_t features, int *ret_fd);

/** cis_uffd_features() - what this kernel can do, as UFFD_FEATURE_ bits.  Return as cis_uffd_open(). */
int cis_uffd_features(uint64_t *ret_features);

/** cis_uffd_register() - @mode: UFFDIO_REGISTER_MODE_ bits. */
int cis_uffd_register(int fd, uint64_t addr, uint64_t len, uint64_t mode);
int cis_uffd_unregister(int fd, uint64_t addr, uint64_t len);

/** cis_uffd_unblock() - set O_NONBLOCK, also for whoever shares the descriptor.  Return: 0 or -errno. */
int cis_uffd_unblock(int fd);

/** cis_uffd_read() - up to @max events, without waiting.  Return: 0 (ret_n > 0), -EAGAIN when there is none. */
int cis_uffd_read(int fd, struct uffd_msg *msgs, size_t max, size_t *ret_n);

int cis_uffd_copy(int fd, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done);
/** cis_uffd_copy_protected() - and protect against writes what was copied. */
int cis_uffd_copy_protected(int fd, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done);
int cis_uffd_zero(int fd, uint64_t dst, uint64_t len, uint64_t *ret_done);
int cis_uffd_continue(int fd, uint64_t dst, uint64_t len, uint64_t *ret_done);
int cis_uffd_poison(int fd, uint64_t dst, uint64_t len, uint64_t *ret_done);
int cis_uffd_wake(int fd, uint64_t dst, uint64_t len);

/** cis_uffd_protect() - against writes, or (@on false) no longer, which wakes who waited.  The range is registered for it. */
int cis_uffd_protect(int fd, uint64_t addr, uint64_t len, bool on);

/** cis_is_uffd() - does the descriptor refer to a userfaultfd?  By its link in /proc/self/fd. */
bool cis_is_uffd(int fd);

/**
 * cis_uffd_asked() - the features that the maker of a userfaultfd asked for, by /proc/self/fdinfo
 *
 * Return: 0; -ENODATA when it has not done its UFFDIO_API.
 */
int cis_uffd_asked(int fd, uint64_t *ret_features);

#endif
