#include "os/pidfd.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/sock.h"

/* Debian 12's headers are older than the option. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

int cis_pidfd_open(pid_t pid, int *ret_fd)
{
	long fd = syscall(SYS_pidfd_open, pid, 0); /* close-on-exec always */

	if (fd < 0)
		return -errno;
	*ret_fd = (int)fd;
	return 0;
}

int cis_pidfd_peer(int sock, int *ret_fd)
{
	struct cis_peer peer;
	int fd, r;
	socklen_t len = sizeof(fd);

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &len)) {
		*ret_fd = fd;
		return 0;
	}
	if (errno != ENOPROTOOPT)
		return errno == EINVAL ? -ESRCH : -errno; /* EINVAL: reaped already */
	r = cis_sock_peer(sock, &peer);
	if (r)
		return r;
	return peer.pid > 0 ? cis_pidfd_open(peer.pid, ret_fd) : -ENXIO;
}

int cis_pidfd_kill(int fd, int sig)
{
	return syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0) ? -errno : 0;
}

int cis_pidfd_getfd(int fd, int number, int *ret_fd)
{
	long got = syscall(SYS_pidfd_getfd, fd, number, 0); /* close-on-exec always */

	if (got < 0)
		return -errno;
	*ret_fd = (int)got;
	return 0;
}

bool cis_pidfd_has_exited(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 0) == 1 && pfd.revents & (POLLIN | POLLHUP);
}
