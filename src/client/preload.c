/*
 * libcistern-preload: an unmodified QEMU gets its RAM from the daemon.
 *
 * It stands in front of mmap().  When the program maps a RAM block that CISTERN_RAM names, the mapping is watched, and
 * once all named blocks are mapped they are handed over; mmap() returns when the daemon has installed the hot pages.
 *
 * A guest that runs on wrong memory is worse than one that does not start, so whatever goes wrong here ends the process
 * with a message: the one part of the library that prints and exits, as a program's mmap() has no other way to say why.
 */
#undef _FILE_OFFSET_BITS /* with it mmap is another name of mmap64, and both are defined here */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "cistern/cistern.h"
#include "client/preload_config.h"

#define RAM_MIN_BYTES (16u << 20) /* smaller file mappings are firmware, queues and the like */

struct block {
	bool taken;
	bool shared;
	int fd; /* a duplicate, for shared memory; else -1 */
	char *addr;
	uint64_t bytes;
	uint32_t page_bytes;
};

/* Everything below is written under the lock; blocks do not change once all are taken, which `complete` publishes. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct cis_preload_config config;
static struct block blocks[CIS_PRELOAD_BLOCKS_MAX];
static size_t nr_taken;
static atomic_bool complete;
static struct cis_memory *memory; /* until the process ends: it holds the userfaultfd and the connection */

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(STDERR_FILENO, "cistern-preload: %s\n", text);
	_exit(1);
}

/* By system call, as finding the C library's own mmap() may itself need mmap(). */
static void *map(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

static void read_config(void)
{
	struct cis_error err;

	if (cis_preload_config_read(&config, &err))
		die("%s", err.text);
}

static void __attribute__((constructor)) check_arguments(void)
{
	struct cis_error err;

	if (strncmp(program_invocation_short_name, "qemu-system-", 12))
		return;
	pthread_once(&once, read_config);
	if (config.socket && cis_preload_check_arguments(&config, &err))
		die("%s", err.text);
}

static struct block *find_block(int fd)
{
	for (size_t i = 0; i < config.nr_ram; i++)
		if (!blocks[i].taken && cis_preload_names(config.ram[i], fd))
			return &blocks[i];
	return NULL;
}

static bool is_listed(const char *const *names, size_t nr, int fd)
{
	for (size_t i = 0; i < nr; i++)
		if (cis_preload_names(names[i], fd))
			return true;
	return false;
}

/* Memory of the guest that nobody would fill: a second mapping of a block, or a block that is not named. */
static void refuse_other(int fd, size_t len)
{
	char name[512];

	if (is_listed(config.ignore, config.nr_ignore, fd))
		return;
	cis_preload_file_name(fd, name, sizeof(name));
	if (is_listed(config.ram, config.nr_ram, fd))
		die("%s is mapped once more than CISTERN_RAM names it: name each RAM block once, in the order of the memory file",
		    name);
	die("%zu MiB of %s are mapped as memory, which CISTERN_RAM does not name, so they would stay empty: name them there, or "
	    "in CISTERN_IGNORE when they are no memory of the guest", len >> 20, name);
}

static uint32_t page_bytes_of(int fd, const char *name)
{
	struct statfs fs;

	if (fstatfs(fd, &fs))
		die("%s: %s", name, strerror(errno));
	if (fs.f_type == HUGETLBFS_MAGIC)
		return (uint32_t)fs.f_bsize;
	if (fs.f_type != TMPFS_MAGIC)
		die("%s is neither a memfd nor on tmpfs or hugetlbfs, so it cannot be shared memory that the daemon fills: move it "
		    "there, or set CISTERN_MODE=anonymous", name);
	return 4096;
}

static void take_shared(struct block *b, void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	char name[512];

	cis_preload_file_name(fd, name, sizeof(name));
	if ((flags & MAP_TYPE) == MAP_PRIVATE)
		die("%s is mapped private: for shared memory start QEMU with share=on", name);
	if (config.nr_ram > 1)
		die("shared memory may have one RAM block only: set CISTERN_MODE=anonymous");
	b->shared = true;
	b->page_bytes = page_bytes_of(fd, name);
	if (offset)
		die("%s is mapped from offset %lld, but RAM that is shared memory must start where its file does", name,
		    (long long)offset);
	b->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (b->fd < 0)
		die("%s: %s", name, strerror(errno));
	b->addr = map(addr, len, prot, flags & ~MAP_POPULATE, fd, offset);
}

static void take_anonymous(struct block *b, void *addr, size_t len, int prot, int flags)
{
	flags = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	b->page_bytes = 4096;
	b->fd = -1;
	b->addr = map(addr, len, prot, flags, -1, 0);
}

static void add_region(const struct block *b, uint64_t offset)
{
	struct cis_region_opts opts = {
		.size = sizeof(opts), .addr = b->addr, .bytes = b->bytes, .offset = offset, .page_bytes = b->page_bytes,
	};

	if (cis_memory_add_region(memory, &opts))
		die("%s", cis_error());
}

static void hand_over(void)
{
	struct cis_memory_opts opts = {
		.size = sizeof(opts), .mapping = blocks[0].shared ? CIS_MAPPING_SHARED : CIS_MAPPING_ANONYMOUS,
		.flags = CIS_MEMORY_WAIT, .socket = config.socket, .fd = blocks[0].fd,
	};
	uint64_t offset = 0;

	if (cis_memory_create(&opts, &memory))
		die("%s", cis_error());
	for (size_t i = 0; i < config.nr_ram; i++) {
		add_region(&blocks[i], offset);
		offset += blocks[i].bytes;
	}
	if (cis_memory_attach(memory))
		die("%s", cis_error());
	atomic_store(&complete, true);
}

static void *take(struct block *b, void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	bool shared = (flags & MAP_TYPE) != MAP_PRIVATE;

	if (config.mode != CIS_PRELOAD_AS_MAPPED)
		shared = config.mode == CIS_PRELOAD_SHARED;
	if (shared)
		take_shared(b, addr, len, prot, flags, fd, offset);
	else
		take_anonymous(b, addr, len, prot, flags);
	if (b->addr == MAP_FAILED)
		die("mapping %zu MiB of memory: %s", len >> 20, strerror(errno));
	b->bytes = len;
	b->taken = true;
	if (++nr_taken == config.nr_ram)
		hand_over();
	return b->addr;
}

static bool is_memory_file(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode);
}

static void *guarded_map(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	struct block *b;
	void *p;

	if (fd < 0 || len < RAM_MIN_BYTES || !(prot & PROT_WRITE) || flags & MAP_ANONYMOUS || !is_memory_file(fd))
		return map(addr, len, prot, flags, fd, offset);
	pthread_once(&once, read_config);
	if (!config.socket)
		return map(addr, len, prot, flags, fd, offset);
	pthread_mutex_lock(&lock);
	b = find_block(fd);
	if (!b)
		refuse_other(fd, len);
	p = b ? take(b, addr, len, prot, flags, fd, offset) : map(addr, len, prot, flags, fd, offset);
	pthread_mutex_unlock(&lock);
	return p;
}

CIS_API void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return guarded_map(addr, len, prot, flags, fd, offset);
}

CIS_API void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
	return guarded_map(addr, len, prot, flags, fd, offset);
}

static bool is_replaced(const char *addr)
{
	if (!atomic_load(&complete))
		return false;
	for (size_t i = 0; i < config.nr_ram; i++)
		if (!blocks[i].shared && addr >= blocks[i].addr && addr < blocks[i].addr + blocks[i].bytes)
			return true;
	return false;
}

/*
 * A balloon gives pages of shared memory back by MADV_REMOVE, which the kernel refuses for the anonymous memory that
 * the program got instead; MADV_DONTNEED does the same there.
 */
CIS_API int madvise(void *addr, size_t len, int advice)
{
	if (advice == MADV_REMOVE && is_replaced(addr))
		advice = MADV_DONTNEED;
	return (int)syscall(SYS_madvise, addr, len, advice);
}
