/*
 * Unix sockets that carry descriptors.
 *
 * Everything made here is close-on-exec.  No function logs, keeps state or takes a lock: callable from any
 * thread, but a descriptor has one reader.
 */
#ifndef CIS_OS_SOCK_H
#define CIS_OS_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/error.h"

#define CIS_SOCK_FDS_MAX 253 /* SCM_MAX_FD: the kernel takes no more in one message */

/** struct cis_sock_opts - how a socket is bound; zeros are not defaults, use CIS_SOCK_OPTS */
struct cis_sock_opts {
	int type;     /* SOCK_STREAM or SOCK_SEQPACKET */
	mode_t mode;  /* of the socket file */
	uid_t uid;    /* (uid_t)-1: leave */
	gid_t gid;    /* (gid_t)-1: leave */
	int backlog;
};

#define CIS_SOCK_OPTS                                                                                        \
	((struct cis_sock_opts){                                                                             \
		.type = SOCK_STREAM, .mode = 0600, .uid = (uid_t)-1, .gid = (gid_t)-1, .backlog = 128 })

/**
 * cis_sock_listen() - bind a path and listen on it, non-blocking
 * @ret_fd: the caller's
 *
 * A socket file on which nobody listens is replaced; any other file, and a
 * socket that somebody listens on, is refused.  Nobody can connect before
 * mode and owner are set.  A symbolic link put in the way is not followed.
 * Two processes that replace the same stale socket at once are not kept
 * apart: the caller is the only one to bind its path.
 *
 * Return: 0; -ENAMETOOLONG (over 107 bytes), -EADDRINUSE, -EEXIST (not a
 * socket), -ENOENT, -EACCES, ...
 */
int cis_sock_listen(const char *path, const struct cis_sock_opts *opts, int *ret_fd, struct cis_error *err);

/**
 * cis_sock_connect() - connect to a path; blocking.  Return: 0, -ENAMETOOLONG, -ENOENT, -ECONNREFUSED, ...
 */
int cis_sock_connect(const char *path, int type, int *ret_fd, struct cis_error *err);

/** cis_sock_accept() - a connection, non-blocking.  Return: 0, -EAGAIN (none), -EMFILE, ... */
int cis_sock_accept(int listen_fd, int *ret_fd);

/** cis_sock_pair() - two blocking ends of @type. */
int cis_sock_pair(int type, int ret_fds[2]);

/**
 * cis_sock_send() - send bytes, and descriptors with the first of them
 * @nr_fds:   0 .. CIS_SOCK_FDS_MAX; @len is at least 1 then
 * @ret_sent: bytes sent, fewer than @len on a stream only; the descriptors are sent whenever it is written
 *
 * Never raises SIGPIPE.  Return: 0, -EAGAIN, -EPIPE, ...
 */
int cis_sock_send(int fd, const void *buf, size_t len, const int *fds, size_t nr_fds, size_t *ret_sent);

/** cis_sock_send_all() - the same until every byte is sent, waiting where @fd is non-blocking. */
int cis_sock_send_all(int fd, const void *buf, size_t len, const int *fds, size_t nr_fds);

/**
 * cis_sock_recv() - receive bytes and the descriptors that come with them, without waiting
 * @fds:     room for @max_fds
 * @ret_fds: descriptors received: the caller's
 * @ret_len: bytes received, 0 at the end
 *
 * More descriptors than @max_fds, truncated or foreign control data, and a
 * packet longer than @len are errors; all descriptors are closed then.
 *
 * Return: 0; -EAGAIN, ...; -E2BIG (too many descriptors),
 * -ENOBUFS (control data truncated: this process has no descriptor left; @ret_len
 * bytes have come all the same),
 * -EPROTO (other control data), -EMSGSIZE (packet too long).
 */
int cis_sock_recv(int fd, void *buf, size_t len, int *fds, size_t max_fds, size_t *ret_fds, size_t *ret_len);

/** cis_sock_peek() - the same, and leave all of it where it is: the next one gets it again. */
int cis_sock_peek(int fd, void *buf, size_t len, int *fds, size_t max_fds, size_t *ret_fds, size_t *ret_len);

/** cis_sock_skip() - take what was peeked at, and leave it; its descriptors are dropped.  @buf has room for @len. */
void cis_sock_skip(int fd, void *buf, size_t len);

/** struct cis_peer - who connected; pid 0: not visible from here */
struct cis_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
};

/** cis_sock_peer() - SO_PEERCRED.  Return: 0 or -errno. */
int cis_sock_peer(int fd, struct cis_peer *ret);

/** cis_fds_close() - close @nr descriptors. */
void cis_fds_close(const int *fds, size_t nr);

#endif
