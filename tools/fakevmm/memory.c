/* Guest memory, registered with a userfaultfd of our own, as Firecracker does it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "fakevmm.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

static bool has_memfd(const struct options *o)
{
	return o->memory == MEMORY_MEMFD || o->memory == MEMORY_PRIVATE || o->memory == MEMORY_HUGETLB_MEMFD;
}

static int open_uffd(const struct options *o, int *ret, struct cis_error *err)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE };
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd;

	fd = dev >= 0 ? ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK) : -1;
	if (dev >= 0)
		close(dev);
	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return cis_fail(err, errno, "no userfaultfd: %s", strerror(errno));
	if (o->minor)
		api.features |=
			o->page_bytes > 4096 ? UFFD_FEATURE_MINOR_HUGETLBFS : UFFD_FEATURE_MINOR_SHMEM;
	if (ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return cis_fail(err, errno, "userfaultfd lacks a feature: %s", strerror(errno));
	}
	*ret = fd;
	return 0;
}

static int make_memfd(const struct vm *vm, int *ret, struct cis_error *err)
{
	unsigned flags =
		MFD_CLOEXEC | MFD_ALLOW_SEALING | (vm->page_bytes > 4096 ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
	int fd = memfd_create("guest-memory", flags);

	if (fd < 0 || ftruncate(fd, (off_t)vm->bytes))
		return cis_fail(err, errno, "no memfd: %s", strerror(errno));
	if (vm->opt->populate && fallocate(fd, 0, 0, (off_t)vm->bytes))
		return cis_fail(err, errno, "cannot allocate the memfd: %s", strerror(errno));
	*ret = fd;
	return 0;
}

/* Aligned to its pages, and never next to another region. */
static int map_region(struct vm *vm, struct region *reg, struct cis_error *err)
{
	int flags = vm->memfd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS :
		    vm->opt->memory == MEMORY_PRIVATE ? MAP_PRIVATE : MAP_SHARED;
	uint64_t room = reg->bytes + 2 * vm->page_bytes;
	char *hole = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at;

	if (hole == MAP_FAILED)
		return cis_fail(err, errno, "no room for a region: %s", strerror(errno));
	at = (char *)(((uintptr_t)hole + vm->page_bytes) & ~(vm->page_bytes - 1));
	if (vm->opt->memory == MEMORY_HUGETLB)
		flags |= MAP_HUGETLB | (21 << MAP_HUGE_SHIFT);
	reg->addr = mmap(at, reg->bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, vm->memfd,
			 vm->memfd < 0 ? 0 : (off_t)reg->offset);
	if (reg->addr == MAP_FAILED)
		return cis_fail(err, errno, "cannot map a region: %s", strerror(errno));
	return 0;
}

static int register_region(struct vm *vm, const struct region *reg, struct cis_error *err)
{
	struct uffdio_register args = { .range = { (uintptr_t)reg->addr, reg->bytes },
					.mode = UFFDIO_REGISTER_MODE_MISSING };

	if (vm->opt->minor)
		args.mode |= UFFDIO_REGISTER_MODE_MINOR;
	if (ioctl(vm->uffd, UFFDIO_REGISTER, &args))
		return cis_fail(err, errno, "cannot register a region: %s", strerror(errno));
	return 0;
}

int memory_create(struct vm *vm, struct cis_error *err)
{
	const struct options *o = vm->opt;
	int r = open_uffd(o, &vm->uffd, err);

	vm->page_bytes = o->page_bytes;
	vm->bytes = o->size;
	vm->nr_pages = o->size / o->page_bytes;
	vm->nr_regions = o->nr_regions;
	vm->memfd = -1;
	if (!r && has_memfd(o))
		r = make_memfd(vm, &vm->memfd, err);
	for (size_t i = 0; i < vm->nr_regions && !r; i++) {
		vm->regions[i].bytes = o->region_size[i];
		vm->regions[i].offset = i ? vm->regions[i - 1].offset + vm->regions[i - 1].bytes : 0;
		r = map_region(vm, &vm->regions[i], err);
		if (!r)
			r = register_region(vm, &vm->regions[i], err);
	}
	if (r)
		return r;
	vm->pages = calloc(vm->nr_pages, sizeof(*vm->pages));
	return vm->pages ? 0 : cis_fail(err, ENOMEM, "no memory");
}

static const struct region *region_of(const struct vm *vm, uint64_t offset)
{
	const struct region *reg = vm->regions;

	while (offset - reg->offset >= reg->bytes)
		reg++;
	return reg;
}

char *memory_page(const struct vm *vm, uint64_t pgno)
{
	uint64_t offset = pgno * vm->page_bytes;
	const struct region *reg = region_of(vm, offset);

	return reg->addr + (offset - reg->offset);
}

/*
 * Up to v1.10 Firecracker maps fresh memory over what the balloon gives back, of which userfaultfd hears
 * nothing; from v1.11 on it uses madvise.
 */
static int give_back(struct vm *vm, char *at, uint64_t bytes)
{
	void *p;

	if (vm->memfd >= 0 && vm->opt->memory != MEMORY_PRIVATE)
		return madvise(at, bytes, MADV_REMOVE);
	if (vm->opt->version >= 11 || vm->memfd >= 0 || vm->page_bytes > 4096)
		return madvise(at, bytes, MADV_DONTNEED);
	p = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
		 -1, 0);
	return p == MAP_FAILED ? -1 : 0;
}

static void lock_page(struct page *page)
{
	while (atomic_flag_test_and_set(&page->lock))
		sched_yield();
}

/* All of it at once: two changes of which each had begun by half took themselves for alone. */
void page_begin(struct page *page, struct change *c)
{
	lock_page(page);
	*c = (struct change){ .alone = !page->busy++, .before = page->content, .number = ++page->changes };
	page->content = CONTENT_ANY;
	atomic_flag_clear(&page->lock);
}

void page_end(struct page *page, const struct change *c, uint8_t content)
{
	lock_page(page);
	if (c->alone && page->changes == c->number)
		page->content = content;
	page->busy--;
	atomic_flag_clear(&page->lock);
}

static int remove_run(struct vm *vm, const struct range *r, struct cis_error *err)
{
	struct change *changes = calloc(r->last - r->first + 1, sizeof(*changes));
	int failed;

	if (!changes)
		return cis_fail(err, ENOMEM, "no memory");
	for (uint64_t p = r->first; p <= r->last; p++)
		page_begin(&vm->pages[p], &changes[p - r->first]);
	failed = give_back(vm, memory_page(vm, r->first), (r->last - r->first + 1) * vm->page_bytes) ? errno :
												       0;
	for (uint64_t p = r->first; p <= r->last; p++)
		page_end(&vm->pages[p], &changes[p - r->first], failed ? CONTENT_ANY : CONTENT_ZERO);
	free(changes);
	if (failed)
		return cis_fail(err, failed, "cannot give pages %llu-%llu back: %s",
				(unsigned long long)r->first, (unsigned long long)r->last, strerror(failed));
	vm->result.removes++;
	vm->result.pages_removed += r->last - r->first + 1;
	return 0;
}

/* A run must not cross regions: they are not neighbours in the address space. */
int memory_remove(struct vm *vm, const struct range *r, struct cis_error *err)
{
	struct range run = { .first = r->first };
	int rc = 0;

	while (!rc && run.first <= r->last) {
		const struct region *reg = region_of(vm, run.first * vm->page_bytes);
		uint64_t end = (reg->offset + reg->bytes) / vm->page_bytes - 1;

		run.last = end < r->last ? end : r->last;
		rc = remove_run(vm, &run, err);
		run.first = run.last + 1;
	}
	return rc;
}
