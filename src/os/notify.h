/* What a service says to systemd, in sd_notify(3)'s protocol: datagrams of VAR=VALUE lines, with descriptors. */
#ifndef CIS_OS_NOTIFY_H
#define CIS_OS_NOTIFY_H

#include <stddef.h>

/**
 * cis_notify_open() - a socket to say it with
 *
 * Return: 0, -EMFILE, ...
 */
int cis_notify_open(int *ret_fd);

/**
 * cis_notify_send() - one message
 * @path: $NOTIFY_SOCKET: an absolute path, or '@' and an abstract name
 *
 * Waits for room in the manager's queue, at most two seconds.  Return: 0; -EINVAL
 * (not such a path), -EAGAIN (no room), -ECONNREFUSED, -ENOENT (nobody there), ...
 */
int cis_notify_send(int fd, const char *path, const char *text, const int *fds, size_t nr_fds);

#endif
