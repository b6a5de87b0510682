/*
 * Lets one call of the program fail: the N-th of those that are wrapped by the linker, counted from its start, or from where a
 * test says so itself (fail.h).  For cisternd-points and a unit test only.
 *
 *	CISTERN_FAIL=engine:N or keeper:N	which process, which call
 *	CISTERN_FAIL_TOKEN=PATH			counted while PATH is there; who can unlink it fails, so it happens once; the name of
 *						the call is written into PATH.done then
 *
 * As in base/point.h, a process without it looks at its parent's environment.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <liburing.h>

#include "base/point.h"
#include "fail.h"

static atomic_long left; /* 0 and less: nothing fails (any more) */
static atomic_bool has_failed;
static char token[4096];

__attribute__((constructor)) static void look(int argc, char **argv)
{
	bool engine = argc > 1 && !strcmp(argv[1], "--engine");
	char what[64];

	if (!cis_point_variable("CISTERN_FAIL", "CISTERN_FAIL", what, sizeof(what)) ||
	    strncmp(what, engine ? "engine:" : "keeper:", strlen("engine:")))
		return;
	if (cis_point_variable("CISTERN_FAIL", "CISTERN_FAIL_TOKEN", token, sizeof(token)))
		atomic_store(&left, atol(what + strlen("engine:")));
}

void fail_at(long nth)
{
	atomic_store(&has_failed, false);
	atomic_store(&left, nth);
}

bool fail_has(void)
{
	return atomic_load(&has_failed);
}

/* Is this the call?  Called before the real one. */
static bool now(const char *name)
{
	char done[4200];
	FILE *f;

	if (atomic_load_explicit(&left, memory_order_relaxed) <= 0 || (*token && access(token, F_OK)) ||
	    atomic_fetch_sub(&left, 1) != 1 || (*token && unlink(token)))
		return false;
	atomic_store(&has_failed, true);
	if (!*token)
		return true;
	snprintf(done, sizeof(done), "%s.done", token);
	f = fopen(done, "we");
	if (f) {
		fprintf(f, "%s\n", name);
		fclose(f);
	}
	return true;
}

#define WRAP(type, name, params, args, failed, error)                                                              \
	type __real_##name params;                                                                             \
	type __wrap_##name params;                                                                             \
	type __wrap_##name params                                                                              \
	{                                                                                                      \
		if (now(#name)) {                                                                              \
			errno = error;                                                                         \
			return failed;                                                                         \
		}                                                                                              \
		return __real_##name args;                                                                     \
	}

WRAP(void *, malloc, (size_t n), (n), NULL, ENOMEM)
WRAP(void *, calloc, (size_t n, size_t m), (n, m), NULL, ENOMEM)
WRAP(void *, realloc, (void *p, size_t n), (p, n), NULL, ENOMEM)
WRAP(char *, strdup, (const char *s), (s), NULL, ENOMEM)
WRAP(void *, aligned_alloc, (size_t a, size_t n), (a, n), NULL, ENOMEM)
WRAP(void *, mmap64, (void *a, size_t n, int p, int f, int fd, off_t o), (a, n, p, f, fd, o), MAP_FAILED, ENOMEM)
WRAP(int, madvise, (void *a, size_t n, int w), (a, n, w), -1, ENOMEM)
WRAP(int, mlock, (const void *a, size_t n), (a, n), -1, ENOMEM)
WRAP(int, ftruncate64, (int fd, off_t n), (fd, n), -1, EFBIG)
WRAP(int, fstat64, (int fd, struct stat *st), (fd, st), -1, EIO)
WRAP(int, timerfd_create, (int c, int f), (c, f), -1, EMFILE)
WRAP(int, signalfd, (int fd, const sigset_t *s, int f), (fd, s, f), -1, EMFILE)
WRAP(FILE *, open_memstream, (char **p, size_t *n), (p, n), NULL, ENOMEM)
WRAP(int, eventfd, (unsigned v, int f), (v, f), -1, EMFILE)
WRAP(int, epoll_create1, (int f), (f), -1, EMFILE)
WRAP(int, pthread_create, (pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg), (t, a, run, arg), EAGAIN,
     EAGAIN)
WRAP(int, socketpair, (int d, int t, int p, int *fds), (d, t, p, fds), -1, EMFILE)
WRAP(int, socket, (int d, int t, int p), (d, t, p), -1, EMFILE)
WRAP(int, accept4, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f), -1, EMFILE)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int f), (fd, m, f), -1, ENOBUFS)
WRAP(ssize_t, pread64, (int fd, void *p, size_t n, off_t o), (fd, p, n, o), -1, EIO)
WRAP(ssize_t, preadv64v2, (int fd, const struct iovec *v, int n, off_t o, int f), (fd, v, n, o, f), -1, EIO)
WRAP(int, io_uring_queue_init, (unsigned n, struct io_uring *r, unsigned f), (n, r, f), -ENOMEM, ENOMEM)

/* What is watched already is changed and taken out without memory (fs/eventpoll.c), so that never fails. */
int __real_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev);
int __wrap_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev);
int __wrap_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	if (op == EPOLL_CTL_ADD && now("epoll_ctl")) {
		errno = ENOSPC;
		return -1;
	}
	return __real_epoll_ctl(ep, op, fd, ev);
}

/* A library makes these calls by number. */
long __real_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	if (nr != SYS_close_range && now("syscall")) {
		errno = EMFILE;
		return -1;
	}
	return __real_syscall(nr, a, b, c, d, e, f);
}

/* open() takes its mode only sometimes. */
int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, unsigned mode);
int __wrap_open64(const char *path, int flags, unsigned mode)
{
	if (now("open")) {
		errno = EMFILE;
		return -1;
	}
	return __real_open64(path, flags, mode);
}
