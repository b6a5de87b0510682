/* mmap() and its relatives over a region of shared memory, such that they mean what they mean on private anonymous memory. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "client/run_int.h"

#define THRESHOLD  (256u << 10) /* smaller mappings are the kernel's */
#define READ_WRITE (PROT_READ | PROT_WRITE)
#define PLAIN	   (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE)

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_COLD
#define MADV_COLD    20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct cis_run cis_run = { .lock = PTHREAD_MUTEX_INITIALIZER };

/** struct piece - a part of what a call was asked for, all in one state, or outside of the region */
struct piece {
	char *addr;
	size_t len;
	bool is_outside;
	enum cis_run_page state;
	uint64_t first, pages; /* in the region */
};

static size_t round_up(size_t len)
{
	return (len + CIS_RUN_PAGE - 1) & ~(size_t)(CIS_RUN_PAGE - 1);
}

/* A call on what is not aligned, or wraps around, fails: let the kernel say how. */
static bool has(const void *addr, size_t len)
{
	return atomic_load_explicit(&cis_run.is_active, memory_order_acquire) && len && !((uintptr_t)addr % CIS_RUN_PAGE) &&
	       len <= SIZE_MAX / 2 && cis_run_region_has(&cis_run.region, addr, len);
}

static char *region_end(void)
{
	return cis_run.region.addr + cis_run.region.pages * CIS_RUN_PAGE;
}

static uint64_t page_of(const char *addr)
{
	return (uint64_t)(addr - cis_run.region.addr) / CIS_RUN_PAGE;
}

static struct piece next_piece(char *addr, size_t len)
{
	char *start = cis_run.region.addr, *end = region_end(), *stop = addr + len;
	struct piece p = { .addr = addr, .is_outside = addr < start || addr >= end };

	if (p.is_outside) {
		p.len = addr < start && stop > start ? (size_t)(start - addr) : len;
		return p;
	}
	pthread_mutex_lock(&cis_run.lock);
	p.first = page_of(addr);
	p.pages = cis_run_region_run(&cis_run.region, p.first, page_of(stop < end ? stop : end));
	p.state = cis_run.region.page[p.first];
	pthread_mutex_unlock(&cis_run.lock);
	p.len = p.pages * CIS_RUN_PAGE;
	return p;
}

/* Each piece until one fails, with -1 and errno. */
static int each_piece(char *addr, size_t len, int (*call)(const struct piece *p, void *ctx), void *ctx)
{
	len = round_up(len);
	while (len) {
		struct piece p = next_piece(addr, len);

		if (call(&p, ctx))
			return -1;
		addr += p.len;
		len -= p.len;
	}
	return 0;
}

/* Pages that may not be written, or are locked, are not removed: for a moment they are neither. */
static int discard_mapping(char *start, char *end, int prot, void *ctx)
{
	size_t len = (size_t)(end - start);

	if (mprotect(start, len, READ_WRITE))
		return -errno;
	munlock(start, len);
	if (cis_run_sys_madvise(start, len, MADV_REMOVE))
		memset(start, 0, len);
	return mprotect(start, len, prot) ? -errno : 0;
}

/* They read as zeros afterwards.  On shared memory MADV_DONTNEED would only forget that they are mapped. */
static void discard(char *addr, size_t len)
{
	int saved = errno;

	if (cis_run_sys_madvise(addr, len, MADV_REMOVE) && cis_run_each_mapping(addr, addr + len, discard_mapping, NULL))
		discard_mapping(addr, addr + len, READ_WRITE, NULL);
	errno = saved;
}

/* Nobody else can have them before they are FREE, so only that is done under the lock, and what a fork() may not see half done. */
static void release(const struct piece *p)
{
	discard(p->addr, p->len);
	pthread_mutex_lock(&cis_run.lock);
	mprotect(p->addr, p->len, PROT_NONE); /* with no room for one mapping more it stays reachable, which does no harm */
	cis_run_region_set(&cis_run.region, p->first, p->pages, CIS_RUN_FREE);
	pthread_mutex_unlock(&cis_run.lock);
}

/* At @hint, where that is FREE. */
static char *carve(char *hint, size_t len, bool only_there)
{
	struct cis_run_region *r = &cis_run.region;
	uint64_t n = round_up(len) / CIS_RUN_PAGE;
	int64_t at = -1;

	pthread_mutex_lock(&cis_run.lock);
	if (hint >= r->addr && hint < region_end() && !((uintptr_t)hint % CIS_RUN_PAGE) &&
	    cis_run_region_is(r, page_of(hint), n, CIS_RUN_FREE)) {
		at = (int64_t)page_of(hint);
		cis_run_region_set(r, (uint64_t)at, n, CIS_RUN_USED);
	} else if (!only_there) {
		at = cis_run_region_take(r, n);
	}
	if (at >= 0 && mprotect(r->addr + (uint64_t)at * CIS_RUN_PAGE, n * CIS_RUN_PAGE, READ_WRITE)) {
		cis_run_region_set(r, (uint64_t)at, n, CIS_RUN_FREE);
		at = -1;
	}
	pthread_mutex_unlock(&cis_run.lock);
	return at < 0 ? NULL : r->addr + (uint64_t)at * CIS_RUN_PAGE;
}

/** struct fixed - a mapping that replaces what is there */
struct fixed {
	char *addr;
	int prot, flags, fd;
	off_t off;
};

static bool is_plain(const struct fixed *f)
{
	return !(f->flags & ~(PLAIN | MAP_FIXED)) && (f->flags & MAP_ANONYMOUS) && (f->flags & MAP_TYPE) == MAP_PRIVATE;
}

static int fix_piece(const struct piece *p, void *ctx)
{
	const struct fixed *f = ctx;
	bool is_kernels = p->is_outside || p->state == CIS_RUN_LOST;

	if (!is_kernels && p->state == CIS_RUN_USED)
		discard(p->addr, p->len);
	if (is_kernels || !is_plain(f))
		if (cis_run_sys_mmap(p->addr, p->len, f->prot, f->flags, f->fd, f->off + (p->addr - f->addr)) == MAP_FAILED)
			return -1;
	if (is_kernels)
		return 0;
	if (is_plain(f) && mprotect(p->addr, p->len, f->prot))
		return -1;
	pthread_mutex_lock(&cis_run.lock);
	cis_run_region_set(&cis_run.region, p->first, p->pages, is_plain(f) ? CIS_RUN_USED : CIS_RUN_LOST);
	pthread_mutex_unlock(&cis_run.lock);
	return 0;
}

static bool may_be_served(size_t len, int prot, int flags)
{
	return len >= THRESHOLD && len <= SIZE_MAX / 2 && prot == READ_WRITE && !(flags & ~PLAIN) && flags & MAP_ANONYMOUS &&
	       (flags & MAP_TYPE) == MAP_PRIVATE;
}

void *cis_run_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	struct fixed f = { addr, prot, flags, fd, off };
	char *p;

	if (!atomic_load_explicit(&cis_run.is_active, memory_order_acquire))
		return cis_run_sys_mmap(addr, len, prot, flags, fd, off);
	if (flags & MAP_FIXED && !(flags & MAP_FIXED_NOREPLACE) && has(addr, len))
		return each_piece(addr, len, fix_piece, &f) ? MAP_FAILED : addr;
	p = may_be_served(len, prot, flags) ? carve(addr, len, false) : NULL;
	return p ? p : cis_run_sys_mmap(addr, len, prot, flags, fd, off);
}

static int unmap_piece(const struct piece *p, void *ctx)
{
	if (p->is_outside || p->state == CIS_RUN_LOST)
		return cis_run_sys_munmap(p->addr, p->len);
	if (p->state == CIS_RUN_USED)
		release(p);
	return 0;
}

int cis_run_munmap(void *addr, size_t len)
{
	return has(addr, len) ? each_piece(addr, len, unmap_piece, NULL) : cis_run_sys_munmap(addr, len);
}

static int advise_piece(const struct piece *p, void *ctx)
{
	int advice = *(const int *)ctx;

	if (p->is_outside || p->state == CIS_RUN_LOST)
		return cis_run_sys_madvise(p->addr, p->len, advice);
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_FREE: /* whenever it likes, says the kernel; so now */
		if (p->state == CIS_RUN_USED)
			discard(p->addr, p->len);
		return 0;
	case MADV_DONTFORK: /* fork() does not go by that here */
	case MADV_DOFORK:
	case MADV_HUGEPAGE: /* what is served is so in pages of 4 KiB */
	case MADV_NOHUGEPAGE:
	case MADV_COLD: /* the daemon finds out itself */
	case MADV_PAGEOUT:
		return 0;
	case MADV_REMOVE: /* as on private memory */
	case MADV_COLLAPSE:
		errno = EINVAL;
		return -1;
	default:
		return cis_run_sys_madvise(p->addr, p->len, advice);
	}
}

int cis_run_madvise(void *addr, size_t len, int advice)
{
	return has(addr, len) ? each_piece(addr, len, advise_piece, &advice) : cis_run_sys_madvise(addr, len, advice);
}

static int note_prot(char *start, char *end, int prot, void *ctx)
{
	*(int *)ctx = prot;
	return 1;
}

static bool grow_in_place(char *addr, size_t old_len, size_t len, int prot)
{
	char *more = carve(addr + old_len, len - old_len, true);

	if (more && prot != READ_WRITE)
		mprotect(more, len - old_len, prot);
	return more;
}

/* To a new place, page by page.  @to NULL: wherever there is room. */
static void *move(char *addr, size_t old_len, size_t len, int flags, char *to, int prot)
{
	const int map_flags = MAP_PRIVATE | MAP_ANONYMOUS | (to ? MAP_FIXED : 0);
	char *p = cis_run_mmap(to, len, READ_WRITE, map_flags, -1, 0);

	if (p == MAP_FAILED)
		return p;
	if (!(prot & PROT_READ))
		mprotect(addr, old_len, READ_WRITE);
	memcpy(p, addr, old_len < len ? old_len : len);
	if (prot != READ_WRITE)
		mprotect(p, len, prot);
	if (flags & MREMAP_DONTUNMAP) {
		mprotect(addr, old_len, prot);
		cis_run_madvise(addr, old_len, MADV_DONTNEED);
	} else {
		cis_run_munmap(addr, old_len);
	}
	return p;
}

static void *remap_served(char *addr, size_t old_len, size_t len, int flags, char *to)
{
	int prot = READ_WRITE;

	cis_run_each_mapping(addr, addr + old_len, note_prot, &prot);
	if (!to && !(flags & MREMAP_DONTUNMAP)) {
		if (len < old_len)
			cis_run_munmap(addr + len, old_len - len);
		if (len <= old_len || grow_in_place(addr, old_len, len, prot))
			return addr;
	}
	if (flags & MREMAP_MAYMOVE)
		return move(addr, old_len, len, flags, to, prot);
	errno = ENOMEM;
	return MAP_FAILED;
}

static bool is_used(char *addr, size_t len)
{
	struct piece p = next_piece(addr, len);

	return !p.is_outside && p.state == CIS_RUN_USED && p.len == len;
}

static bool overlap(const char *a, size_t a_len, const char *b, size_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

static int lose_piece(const struct piece *p, void *ctx)
{
	if (p->is_outside || p->state == CIS_RUN_LOST)
		return 0;
	if (p->state == CIS_RUN_USED)
		discard(p->addr, p->len);
	pthread_mutex_lock(&cis_run.lock);
	cis_run_region_set(&cis_run.region, p->first, p->pages, CIS_RUN_LOST);
	pthread_mutex_unlock(&cis_run.lock);
	return 0;
}

/* What is the kernel's stays so wherever it goes.  What is ours is moved by copying it. */
void *cis_run_mremap(void *addr, size_t old_len, size_t len, int flags, void *to)
{
	char *fixed = flags & MREMAP_FIXED ? to : NULL;
	size_t had = round_up(old_len), wanted = round_up(len);
	bool from_us = has(addr, had), to_us = fixed && has(fixed, wanted);

	if (!from_us) {
		if (to_us)
			each_piece(fixed, wanted, lose_piece, NULL);
		return (void *)syscall(SYS_mremap, addr, old_len, len, flags, to);
	}
	errno = EINVAL;
	if (!had || !wanted || wanted > SIZE_MAX / 2 || (uintptr_t)fixed % CIS_RUN_PAGE ||
	    flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) ||
	    (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) && !(flags & MREMAP_MAYMOVE)) ||
	    (flags & MREMAP_DONTUNMAP && had != wanted) || (fixed && overlap(addr, had, fixed, wanted)))
		return MAP_FAILED;
	if (!is_used(addr, had)) {
		errno = EFAULT;
		return MAP_FAILED;
	}
	return remap_served(addr, had, wanted, flags, fixed);
}
