/* Processes held by descriptor, so that a recycled number is never taken for them. */
#ifndef CIS_OS_PIDFD_H
#define CIS_OS_PIDFD_H

#include <stdbool.h>
#include <sys/types.h>

/** cis_pidfd_open() - by number.  Return: 0, -ESRCH, -EINVAL, ... */
int cis_pidfd_open(pid_t pid, int *ret_fd);

/**
 * cis_pidfd_peer() - the process at the other end of a connected unix socket
 *
 * SO_PEERPIDFD, taken from the socket itself; before Linux 6.5 the peer's
 * number is opened, which a process that ended and whose number was used
 * again in between can fool: ask directly after accepting.
 *
 * Return: 0; -ESRCH: it has ended; -ENXIO: it is not visible from here.
 */
int cis_pidfd_peer(int sock, int *ret_fd);

/** cis_pidfd_kill() - send a signal.  Return: 0, -ESRCH (ended), -EPERM. */
int cis_pidfd_kill(int fd, int sig);

/**
 * cis_pidfd_getfd() - a duplicate of descriptor @number of the process
 *
 * Return: 0; -EPERM (it may not be traced by this one), -ESRCH (ended), -EBADF (no such descriptor).
 */
int cis_pidfd_getfd(int fd, int number, int *ret_fd);

/**
 * cis_pidfd_has_exited() - without waiting; a pidfd is readable from the exit on, so it may be polled too.
 */
bool cis_pidfd_has_exited(int fd);

#endif
