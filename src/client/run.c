/*
 * libcistern-run: the large anonymous memory of any program comes from the daemon.
 *
 * `cistern run` loads it into the program.  Before main() it maps one region of shared memory and hands it over; then it stands in front of
 * mmap() and its relatives, and of an allocator that calls them.  doc/design/011-any-program.md.
 *
 * A program that does not get what was asked for does not start: whatever goes wrong ends the process with a message.
 */
#undef _FILE_OFFSET_BITS /* with it mmap is another name of mmap64, and both are defined here */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/size.h"
#include "cistern/cistern.h"
#include "client/run_int.h"
#include "os/memfd.h"
#include "os/sock.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1u << 1)
#endif

/** struct start - what the thread that hands the region over is told, and what it says */
struct start {
	const char *socket;
	uint64_t bytes;
	char error[512];
};

/* Set once before main(), freed never: the thread that connects again needs them when nothing else can be had. */
static struct cis_memory *memory;

extern int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso);
extern void *__dso_handle;

/*
 * Handlers of a fork run in the order of their registration, and in the other one before it.  An allocator holds its locks from its own
 * handler before to its own after the fork: ours are registered before whoever registers first, so that the copying is done between these.
 */
CIS_API int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso)
{
	static int (*real)(void (*)(void), void (*)(void), void (*)(void), void *);

	if (!real) {
		real = (int (*)(void (*)(void), void (*)(void), void (*)(void), void *))dlsym(RTLD_NEXT, "__register_atfork");
		if (!real || real(cis_run_prepare_fork, cis_run_forked_in_parent, cis_run_forked_in_child, &__dso_handle))
			return ENOMEM;
	}
	return prepare || parent || child ? real(prepare, parent, child, dso) : 0;
}

static void fail(struct start *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct start *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->error, sizeof(s->error), fmt, ap);
	va_end(ap);
}

static void *map_region(struct start *s, int *ret_fd)
{
	int rc = cis_memfd_create("cistern-run", s->bytes, CIS_RUN_PAGE, ret_fd);
	void *addr;

	if (rc) {
		fail(s, "a memfd: %s", strerror(-rc));
		return NULL;
	}
	addr = cis_run_sys_mmap(NULL, s->bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, *ret_fd, 0);
	if (addr == MAP_FAILED) {
		fail(s, "mapping %llu MiB: %s", (unsigned long long)s->bytes >> 20, strerror(errno));
		return NULL;
	}
	return addr;
}

static int hand_over(struct start *s, void *addr, int fd)
{
	struct cis_memory_opts opts = { .size = sizeof(opts), .mapping = CIS_MAPPING_SHARED, .flags = CIS_MEMORY_WAIT, .socket = s->socket,
					.fd = fd };
	struct cis_region_opts region = { .size = sizeof(region), .addr = addr, .bytes = s->bytes };

	return cis_memory_create(&opts, &memory) || cis_memory_add_region(memory, &region) || cis_memory_attach(memory);
}

/*
 * On a thread with descriptors of its own, which stay those of the library's thread: the program, which may close whatever it
 * finds open, has none of them, nor have its children.
 */
static void *start_on_thread(void *arg)
{
	struct start *s = arg;
	void *addr;
	int fd;

	if (syscall(SYS_close_range, 0u, ~0u, CLOSE_RANGE_UNSHARE)) {
		fail(s, "close_range: %s", strerror(errno));
		return NULL;
	}
	addr = map_region(s, &fd);
	if (!addr)
		return NULL;
	if (hand_over(s, addr, fd))
		fail(s, "%s", cis_error());
	else if (cis_run_region_init(&cis_run.region, addr, s->bytes))
		fail(s, "out of memory");
	return NULL;
}

/* The guest that was made for this process is expected no longer.  Whether that is so is nobody's concern any more. */
static void forget_guest(const char *control, const char *guest)
{
	char text[512];
	int fd, n = snprintf(text, sizeof(text), "DELETE /v1/guests/%s HTTP/1.1\r\nHost: cistern\r\nConnection: close\r\n\r\n", guest);

	if (cis_sock_connect(control, SOCK_STREAM, &fd, NULL))
		return;
	if (n > 0 && (size_t)n < sizeof(text) && !cis_sock_send_all(fd, text, (size_t)n, NULL, 0))
		n = (int)recv(fd, text, sizeof(text), 0); /* it is done when it is answered */
	close(fd);
}

static void __attribute__((noreturn)) die(const char *why)
{
	const char *control = getenv("CISTERN_RUN_CONTROL"), *guest = getenv("CISTERN_RUN_GUEST");

	dprintf(STDERR_FILENO, "cistern run: %s\n", why);
	if (control && guest)
		forget_guest(control, guest);
	_exit(1);
}

/* Programs that this one starts are ordinary ones. */
static void clean_environment(void)
{
	static const char *const ours[] = { "CISTERN_RUN_SOCKET", "CISTERN_RUN_BYTES", "CISTERN_RUN_CONTROL", "CISTERN_RUN_GUEST",
					    "CISTERN_RUN_PRELOAD" };
	const char *before = getenv("CISTERN_RUN_PRELOAD");

	if (before && *before)
		setenv("LD_PRELOAD", before, 1);
	else
		unsetenv("LD_PRELOAD");
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		unsetenv(ours[i]);
}

static void __attribute__((constructor)) start(void)
{
	const char *bytes = getenv("CISTERN_RUN_BYTES");
	struct start s = { .socket = getenv("CISTERN_RUN_SOCKET") };
	pthread_t thread;

	if (!s.socket)
		return;
	if (!bytes || cis_size_parse(bytes, &s.bytes) || s.bytes % CIS_RUN_PAGE)
		die("CISTERN_RUN_BYTES is no size");
	if (__register_atfork(NULL, NULL, NULL, NULL) || pthread_create(&thread, NULL, start_on_thread, &s) || pthread_join(thread, NULL))
		die("no thread for the daemon's memory");
	if (*s.error)
		die(s.error);
	clean_environment();
	atomic_store_explicit(&cis_run.is_active, true, memory_order_release);
}

CIS_API void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return cis_run_mmap(addr, len, prot, flags, fd, offset);
}

CIS_API void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
	return cis_run_mmap(addr, len, prot, flags, fd, offset);
}

CIS_API int munmap(void *addr, size_t len)
{
	return cis_run_munmap(addr, len);
}

CIS_API int madvise(void *addr, size_t len, int advice)
{
	return cis_run_madvise(addr, len, advice);
}

CIS_API void *mremap(void *addr, size_t old_len, size_t len, int flags, ...)
{
	void *to = NULL;
	va_list ap;

	va_start(ap, flags);
	if (flags & MREMAP_FIXED)
		to = va_arg(ap, void *);
	va_end(ap);
	return cis_run_mremap(addr, old_len, len, flags, to);
}

/* A child could not run on a stack that is not there yet. */
CIS_API pid_t fork(void)
{
	static pid_t (*real)(void);

	if (!real)
		real = (pid_t (*)(void))dlsym(RTLD_NEXT, "fork");
	if (atomic_load(&cis_run.is_active) && cis_run_region_has(&cis_run.region, __builtin_frame_address(0), 1)) {
		errno = EAGAIN;
		return -1;
	}
	return real();
}
