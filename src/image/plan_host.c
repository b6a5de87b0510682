/* What the planner measures of the host: how fast a folder reads, how fast pages are installed. */
#include "image/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "os/uffd.h"

#define READ_THREADS  4
#define READ_BYTES    (256 << 10)
#define INSTALL_BYTES (64 << 20)
#define RUNS	      3

/** struct reading - shared by the reading threads; each takes the next block */
struct reading {
	int fd;
	size_t len;
	atomic_size_t next;
	atomic_int error;
};

static void *read_blocks(void *arg)
{
	struct reading *rd = arg;
	_cleanup_free_ void *buf = aligned_alloc(4096, READ_BYTES);
	size_t at;

	if (!buf) {
		atomic_store(&rd->error, ENOMEM);
		return NULL;
	}
	while ((at = atomic_fetch_add(&rd->next, READ_BYTES)) < rd->len) {
		ssize_t n = pread(rd->fd, buf, READ_BYTES, (off_t)at);

		if (n != READ_BYTES)
			atomic_store(&rd->error, n < 0 ? errno : EIO);
	}
	return NULL;
}

static int read_once(int fd, size_t len, double *ret_rate)
{
	struct reading rd = { .fd = fd, .len = len };
	pthread_t thread[READ_THREADS];
	uint64_t start = cis_now_ns(NULL);
	unsigned started = 0;

	while (started < READ_THREADS && !pthread_create(&thread[started], NULL, read_blocks, &rd))
		started++;
	for (unsigned i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
	if (!started)
		return -EAGAIN;
	if (rd.error)
		return -rd.error;
	*ret_rate = (double)len * 1e9 / (double)(cis_now_ns(NULL) - start + 1);
	return 0;
}

/* The best of a few, as others use the disk too. */
static int read_best(int fd, size_t len, double *ret_rate)
{
	double best = 0, rate = 0;

	for (int run = 0; run < RUNS; run++) {
		int r = read_once(fd, len, &rate);

		if (r)
			return r;
		best = rate > best ? rate : best;
	}
	*ret_rate = best;
	return 0;
}

static int write_all(int fd, const void *bytes, size_t sample_len, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t in = at % sample_len;
		size_t want = sample_len - in < len - at ? sample_len - in : len - at;
		ssize_t n = write(fd, (const char *)bytes + in, want);

		if (n < 0 && errno != EINTR)
			return -errno;
		at += n > 0 ? (size_t)n : 0;
	}
	return fsync(fd) ? -errno : 0;
}

/* Nameless where the file system can do that, else unlinked at once. */
static int open_scratch(const char *folder)
{
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char *path;

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	if (asprintf(&path, "%s/.measure-XXXXXX", folder) < 0)
		return -1;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	free(path);
	return fd;
}

int cis_plan_measure_read(const char *folder, const void *bytes, size_t len, double *ret_rate,
			  struct cis_error *err)
{
	_cleanup_close_ int fd = open_scratch(folder);
	size_t total = 32 << 20;
	int r = fd < 0 ? -errno : write_all(fd, bytes, len, total);

	if (!r) {
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		/* Where there is no O_DIRECT (old tmpfs) the page cache is the medium, or was just dropped.
		 */
		fcntl(fd, F_SETFL, O_DIRECT);
		r = read_best(fd, total, ret_rate);
		/* An overlay on such a tmpfs takes the flag and then refuses to read. */
		if (r == -EINVAL && !fcntl(fd, F_SETFL, 0))
			r = read_best(fd, total, ret_rate);
	}
	return r ? cis_fail(err, -r, "%s: measuring how fast it reads, with a temporary file: %s", folder,
			    strerror(-r)) :
		   0;
}

static int copy_all(int uffd, void *to, const void *from, size_t chunk_bytes)
{
	for (size_t at = 0; at < INSTALL_BYTES;) {
		size_t want = INSTALL_BYTES - at < chunk_bytes ? INSTALL_BYTES - at : chunk_bytes;
		uint64_t done = 0;
		int r = cis_uffd_copy(uffd, (uint64_t)(uintptr_t)to + at, from, want, &done);

		if (r && r != -EAGAIN)
			return r;
		at += done;
	}
	return 0;
}

static int install_rate(int uffd, void *mem, size_t chunk_bytes, double *ret_rate)
{
	_cleanup_free_ void *from = aligned_alloc(4096, chunk_bytes);
	uint64_t best_ns = UINT64_MAX;
	int r;

	if (!from)
		return -ENOMEM;
	memset(from, 1, chunk_bytes);
	/* As much was touched before: a host that took free memory back charges for it once (limits of the
	 * design). */
	memset(mem, 1, INSTALL_BYTES);
	r = cis_uffd_register(uffd, (uint64_t)(uintptr_t)mem, INSTALL_BYTES, UFFDIO_REGISTER_MODE_MISSING);
	for (int run = 0; run < RUNS && !r; run++) {
		madvise(mem, INSTALL_BYTES, MADV_DONTNEED);
		uint64_t start = cis_now_ns(NULL);

		r = copy_all(uffd, mem, from, chunk_bytes);
		uint64_t ns = cis_now_ns(NULL) - start;

		best_ns = ns < best_ns ? ns : best_ns;
	}
	if (!r)
		*ret_rate = INSTALL_BYTES * 1e9 / (double)(best_ns + 1);
	return r;
}

int cis_plan_measure_install(size_t chunk_bytes, double *ret_rate, struct cis_error *err)
{
	void *mem = mmap(NULL, INSTALL_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int uffd, r;

	if (mem == MAP_FAILED)
		return cis_fail(err, errno, "measuring how fast pages are installed: %s", strerror(errno));
	madvise(mem, INSTALL_BYTES, MADV_NOHUGEPAGE);
	r = cis_uffd_open(0, &uffd);
	if (!r) {
		r = install_rate(uffd, mem, chunk_bytes, ret_rate);
		close(uffd);
	}
	munmap(mem, INSTALL_BYTES);
	return r ? cis_fail(err, -r, "measuring how fast pages are installed: userfaultfd: %s",
			    strerror(-r)) :
		   0;
}
