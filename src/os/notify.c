#include "os/notify.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_MAX 8

int cis_notify_open(int *ret_fd)
{
	const struct timeval limit = { .tv_sec = 2 };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit))) {
		int err = errno;

		close(fd);
		return -err;
	}
	*ret_fd = fd;
	return 0;
}

static int address(const char *path, struct sockaddr_un *ret, socklen_t *ret_len)
{
	size_t len = strlen(path);

	if ((*path != '/' && *path != '@') || len < 2 || len >= sizeof(ret->sun_path))
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	memcpy(ret->sun_path, path, len);
	if (*path == '@')
		ret->sun_path[0] = 0;
	/* The length of an abstract name counts, a path ends with its zero. */
	*ret_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (*path == '/'));
	return 0;
}

int cis_notify_send(int fd, const char *path, const char *text, const int *fds, size_t nr_fds)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)text, .iov_len = strlen(text) };
	struct sockaddr_un addr;
	struct msghdr msg = { .msg_name = &addr, .msg_iov = &iov, .msg_iovlen = 1 };
	int r = address(path, &addr, &msg.msg_namelen);

	if (r || nr_fds > FDS_MAX)
		return r ? r : -EINVAL;
	if (nr_fds) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, nr_fds * sizeof(int));
	}
	do {
		r = sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
	} while (r == -EINTR);
	return r;
}
