/* What this kernel and machine can do: each probe does the thing itself, so that its answer holds for this
 * process. */
#ifndef CIS_OS_PROBE_H
#define CIS_OS_PROBE_H

/** cis_probe_pagemap_scan() - PAGEMAP_SCAN (Linux 6.7).  Return: 0, -ENOTTY (not known), -errno. */
int cis_probe_pagemap_scan(void);

/** cis_probe_uring() - set up an io_uring.  Return: 0, -ENOSYS, -EPERM (switched off). */
int cis_probe_uring(void);

/** cis_probe_hugetlb() - take and give back one page of 2 MiB.  Return: 0 or -ENOMEM (none free), -errno. */
int cis_probe_hugetlb(void);

/** cis_probe_pidfd_getfd() - copy a descriptor out of a process, as a take-over does.  Return: 0 or -errno.
 */
int cis_probe_pidfd_getfd(void);

/** cis_probe_mlock() - lock 16 MiB in memory, about a hundred guests' event rings.  Return: 0, -ENOMEM or
 * -EPERM. */
int cis_probe_mlock(void);

#endif
