#include "os/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

void cis_fds_close(const int *fds, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		close(fds[i]);
}

static int address(const char *path, struct sockaddr_un *ret, struct cis_error *err)
{
	size_t len = strlen(path);

	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	if (!len)
		return cis_fail(err, EINVAL, "the path of the socket is empty");
	if (len >= sizeof(ret->sun_path))
		return cis_fail(err, ENAMETOOLONG, "%s: the path has %zu bytes, a socket's at most %zu", path,
				len, sizeof(ret->sun_path) - 1);
	memcpy(ret->sun_path, path, len);
	return 0;
}

/* True when something listens: connecting is the only question that a socket file answers. */
static bool is_alive(const struct sockaddr_un *addr, int type)
{
	_cleanup_close_ int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return true;
	return !connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) || errno != ECONNREFUSED;
}

static int remove_stale(const struct sockaddr_un *addr, int type, struct cis_error *err)
{
	const char *path = addr->sun_path;
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : cis_fail(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return cis_fail(err, EEXIST, "%s: there is a file that is not a socket; not replaced", path);
	if (is_alive(addr, type))
		return cis_fail(err, EADDRINUSE, "%s: another process listens there", path);
	if (unlink(path) && errno != ENOENT)
		return cis_fail(err, errno, "%s: cannot remove the stale socket: %s", path, strerror(errno));
	return 0;
}

static int bind_path(int fd, const struct sockaddr_un *addr, int type, struct cis_error *err)
{
	int r;

	if (!bind(fd, (const struct sockaddr *)addr, sizeof(*addr)))
		return 0;
	if (errno != EADDRINUSE)
		return cis_fail(err, errno, "%s: cannot bind: %s", addr->sun_path, strerror(errno));
	r = remove_stale(addr, type, err);
	if (r)
		return r;
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)))
		return cis_fail(err, errno, "%s: cannot bind: %s", addr->sun_path, strerror(errno));
	return 0;
}

/*
 * The folder may belong to a jailed VMM, which could put a link to a file of ours in the socket's place: so
 * the file is opened without following links, looked at, and changed through that descriptor.
 */
static int set_access(const char *path, const struct cis_sock_opts *opts, struct cis_error *err)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char proc[32];
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1)
		return cis_fail(err, EEXIST, "%s: was replaced while it was being bound", path);
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	if (chmod(proc, opts->mode & 0777))
		return cis_fail(err, errno, "%s: cannot set mode %03o: %s", path, opts->mode & 0777,
				strerror(errno));
	if (opts->uid == (uid_t)-1 && opts->gid == (gid_t)-1)
		return 0;
	if (fchownat(fd, "", opts->uid, opts->gid, AT_EMPTY_PATH))
		return cis_fail(err, errno, "%s: cannot set the owner: %s", path, strerror(errno));
	return 0;
}

int cis_sock_listen(const char *path, const struct cis_sock_opts *opts, int *ret_fd, struct cis_error *err)
{
	struct sockaddr_un addr;
	int fd, r = address(path, &addr, err);

	if (r)
		return r;
	fd = socket(AF_UNIX, opts->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return cis_fail(err, errno, "%s: cannot make a socket: %s", path, strerror(errno));
	r = bind_path(fd, &addr, opts->type, err);
	if (r)
		goto fail;
	r = set_access(path, opts, err);
	if (!r && listen(fd, opts->backlog))
		r = cis_fail(err, errno, "%s: cannot listen: %s", path, strerror(errno));
	if (r) {
		if (r != -EEXIST)
			unlink(path);
		goto fail;
	}
	*ret_fd = fd;
	return 0;
fail:
	close(fd);
	return r;
}

int cis_sock_connect(const char *path, int type, int *ret_fd, struct cis_error *err)
{
	struct sockaddr_un addr;
	int fd, r = address(path, &addr, err);

	if (r)
		return r;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return cis_fail(err, errno, "%s: cannot make a socket: %s", path, strerror(errno));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		r = cis_fail(err, errno, "%s: cannot connect: %s", path, strerror(errno));
		close(fd);
		return r;
	}
	*ret_fd = fd;
	return 0;
}

int cis_sock_accept(int listen_fd, int *ret_fd)
{
	int fd;

	/* A client that gave up while it waited in the queue is nobody's error. */
	do {
		fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int cis_sock_pair(int type, int ret_fds[2])
{
	return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret_fds) ? -errno : 0;
}

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(CIS_SOCK_FDS_MAX * sizeof(int))];
};

int cis_sock_send(int fd, const void *buf, size_t len, const int *fds, size_t nr_fds, size_t *ret_sent)
{
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control;
	struct cmsghdr *c;
	ssize_t n;

	if (nr_fds > CIS_SOCK_FDS_MAX || (nr_fds && !len))
		return -EINVAL;
	if (nr_fds) {
		memset(&control, 0, CMSG_SPACE(nr_fds * sizeof(int)));
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nr_fds * sizeof(int));
	}
	do {
		n = sendmsg(fd, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*ret_sent = (size_t)n;
	return 0;
}

int cis_sock_send_all(int fd, const void *buf, size_t len, const int *fds, size_t nr_fds)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	const char *at = buf;
	size_t sent = 0;
	int r;

	while (len) {
		r = cis_sock_send(fd, at, len, fds, nr_fds, &sent);
		if (r == -EAGAIN) {
			poll(&pfd, 1, -1);
			continue;
		}
		if (r)
			return r;
		at += sent;
		len -= sent;
		nr_fds = 0;
	}
	return 0;
}

/* Collects the descriptors of all control messages; closes those that do not fit. */
static int take_fds(struct msghdr *msg, int *fds, size_t max_fds, size_t *ret_fds)
{
	size_t nr = 0;
	int r = msg->msg_flags & MSG_CTRUNC ? -ENOBUFS : 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
			r = r ? r : -EPROTO;
			continue;
		}
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (nr < max_fds)
				fds[nr++] = fd;
			else {
				close(fd);
				r = r ? r : -E2BIG;
			}
		}
	}
	if (!r && msg->msg_flags & MSG_TRUNC)
		r = -EMSGSIZE;
	if (r)
		cis_fds_close(fds, nr);
	else
		*ret_fds = nr;
	return r;
}

static int receive(int fd, int flags, void *buf, size_t len, int *fds, size_t max_fds, size_t *ret_fds, size_t *ret_len)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	union control control;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	ssize_t n;
	int r;

	/*
	 * ECONNRESET is told once, when the other end closed without reading all; what it sent itself is
	 * still there.
	 */
	do {
		n = recvmsg(fd, &msg, flags | MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return -errno;
	r = take_fds(&msg, fds, max_fds, ret_fds);
	if (!r || r == -ENOBUFS)
		*ret_len = (size_t)n;
	return r;
}

int cis_sock_recv(int fd, void *buf, size_t len, int *fds, size_t max_fds, size_t *ret_fds, size_t *ret_len)
{
	return receive(fd, 0, buf, len, fds, max_fds, ret_fds, ret_len);
}

int cis_sock_peek(int fd, void *buf, size_t len, int *fds, size_t max_fds, size_t *ret_fds, size_t *ret_len)
{
	return receive(fd, MSG_PEEK, buf, len, fds, max_fds, ret_fds, ret_len);
}

void cis_sock_skip(int fd, void *buf, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, buf, len, MSG_DONTWAIT);

		if (n > 0)
			len -= (size_t)n;
		else if (!n || errno != EINTR)
			return;
	}
}

int cis_sock_peer(int fd, struct cis_peer *ret)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return -errno;
	*ret = (struct cis_peer){ .pid = cred.pid, .uid = cred.uid, .gid = cred.gid };
	return 0;
}
