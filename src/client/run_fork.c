/*
 * fork(): the region is kept from children, in which it would be the parent's memory.  A child gets a copy instead, in private memory of
 * its own at the same place, which the parent sends it; both are in fork() meanwhile.
 *
 * The child's end of it reads as if the parent had stood still, for all that is the forking thread's and for malloc(): our handlers are the first
 * ones that were registered, so they run within those of the allocator, which hold its locks.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "client/run_int.h"

#define PIECE (256u << 10)

/** struct header - of one mapping; its content follows.  The last one has no length */
struct header {
	char *addr;
	size_t len;
	int prot;
};

static int ends[2] = { -1, -1 }; /* the parent's, the child's */
static char piece[PIECE] __attribute__((aligned(4096)));

static void close_end(int i)
{
	if (ends[i] >= 0)
		syscall(SYS_close, ends[i]);
	ends[i] = -1;
}

void cis_run_prepare_fork(void)
{
	if (!atomic_load(&cis_run.is_active))
		return;
	pthread_mutex_lock(&cis_run.lock);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		ends[0] = ends[1] = -1;
}

/* Return: 0, or -1: the child is no more, or there is none. */
static int put(const void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(ends[0], (const char *)data + done, len - done, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return -1;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* A page that may not be read, as another thread has unmapped it in this moment or a page could not be brought, reads as zeros. */
static int put_pages(const char *from, size_t len)
{
	static const char zeros[CIS_RUN_PAGE];

	for (size_t at = 0; at < len;) {
		ssize_t n = send(ends[0], from + at, len - at < PIECE ? len - at : PIECE, MSG_NOSIGNAL);

		if (n < 0 && errno == EFAULT) {
			n = (ssize_t)(CIS_RUN_PAGE - at % CIS_RUN_PAGE);
			if (put(zeros, (size_t)n))
				return -1;
		}
		if (n < 0 && errno != EINTR)
			return -1;
		at += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int put_mapping(char *start, char *end, int prot, void *ctx)
{
	struct header h = { .addr = start, .len = (size_t)(end - start), .prot = prot };
	int rc = put(&h, sizeof(h));

	if (rc)
		return rc;
	if (!(prot & PROT_READ))
		mprotect(start, h.len, PROT_READ);
	rc = put_pages(start, h.len);
	if (!(prot & PROT_READ))
		mprotect(start, h.len, prot);
	return rc;
}

static int put_all(void)
{
	const struct cis_run_region *r = &cis_run.region;

	for (uint64_t at = 0, n; at < r->top; at += n) {
		char *start = r->addr + at * CIS_RUN_PAGE;

		n = cis_run_region_run(r, at, r->top);
		if (r->page[at] == CIS_RUN_USED && cis_run_each_mapping(start, start + n * CIS_RUN_PAGE, put_mapping, NULL))
			return -1;
	}
	return put(&(struct header){ 0 }, sizeof(struct header));
}

void cis_run_forked_in_parent(void)
{
	int saved = errno;

	if (!atomic_load(&cis_run.is_active))
		return;
	close_end(1);
	if (ends[0] >= 0)
		put_all(); /* what fails does so as the child is gone, or never was */
	close_end(0);
	pthread_mutex_unlock(&cis_run.lock);
	errno = saved;
}

static void __attribute__((noreturn)) give_up(const char *why)
{
	ssize_t n = write(STDERR_FILENO, why, strlen(why));

	(void)n;
	_exit(127);
}

static void get(char *to, size_t len)
{
	while (len) {
		ssize_t n = recv(ends[1], to, len, 0);

		if (n == 0 || (n < 0 && errno != EINTR))
			give_up("cistern-run: a child process lost its parent while it got its memory\n");
		to += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
}

/* Pages of zeros stay untouched, as they may have been in the parent. */
static void get_pages(char *to, size_t len)
{
	static const char zeros[CIS_RUN_PAGE];

	for (size_t at = 0, n; at < len; at += n) {
		n = len - at < PIECE ? len - at : PIECE;
		get(piece, n);
		for (size_t i = 0; i < n; i += CIS_RUN_PAGE)
			if (memcmp(piece + i, zeros, CIS_RUN_PAGE))
				memcpy(to + at + i, piece + i, CIS_RUN_PAGE);
	}
}

/* From here on this process is an ordinary one. */
void cis_run_forked_in_child(void)
{
	struct header h;

	if (!atomic_load(&cis_run.is_active))
		return;
	atomic_store(&cis_run.is_active, false);
	close_end(0);
	if (ends[1] < 0)
		give_up("cistern-run: no descriptor to copy memory to a child process\n");
	for (get((char *)&h, sizeof(h)); h.len; get((char *)&h, sizeof(h))) {
		if (cis_run_sys_mmap(h.addr, h.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) ==
		    MAP_FAILED)
			give_up("cistern-run: no memory for that of a child process\n");
		get_pages(h.addr, h.len);
		if (h.prot != (PROT_READ | PROT_WRITE))
			mprotect(h.addr, h.len, h.prot);
	}
	close_end(1);
	pthread_mutex_init(&cis_run.lock, NULL);
}
