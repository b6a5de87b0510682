#include "client/run_region.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* By system call: this library stands in front of mmap() itself. */
int cis_run_region_init(struct cis_run_region *r, void *addr, uint64_t bytes)
{
	uint64_t pages = bytes / CIS_RUN_PAGE;
	void *map = (void *)syscall(SYS_mmap, NULL, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (map == MAP_FAILED)
		return -errno;
	*r = (struct cis_run_region){ .addr = addr, .pages = pages, .page = map };
	return 0;
}

bool cis_run_region_has(const struct cis_run_region *r, const void *addr, size_t len)
{
	uintptr_t at = (uintptr_t)addr, start = (uintptr_t)r->addr, end = start + r->pages * CIS_RUN_PAGE;

	return at < end && (at >= start || len > start - at);
}

uint64_t cis_run_region_run(const struct cis_run_region *r, uint64_t first, uint64_t end)
{
	uint64_t at = first;

	while (at < end && r->page[at] == r->page[first])
		at++;
	return at - first;
}

bool cis_run_region_is(const struct cis_run_region *r, uint64_t first, uint64_t n, enum cis_run_page state)
{
	return first < r->pages && n <= r->pages - first && r->page[first] == state && cis_run_region_run(r, first, first + n) == n;
}

void cis_run_region_set(struct cis_run_region *r, uint64_t first, uint64_t n, enum cis_run_page state)
{
	if (state != CIS_RUN_FREE && first + n > r->top) {
		r->free += first + n - r->top;
		r->top = first + n;
	}
	for (uint64_t i = first; i < first + n && i < r->top; i++) {
		r->free += (state == CIS_RUN_FREE) - (r->page[i] == CIS_RUN_FREE);
		r->page[i] = state;
	}
	while (r->top && r->page[r->top - 1] == CIS_RUN_FREE) {
		r->top--;
		r->free--;
	}
}

/* Low addresses first, so that what is in use stays together. */
int64_t cis_run_region_take(struct cis_run_region *r, uint64_t n)
{
	uint64_t at = r->free < n ? r->top : 0;

	while (at < r->top) {
		uint64_t run = cis_run_region_run(r, at, r->top);

		if (r->page[at] == CIS_RUN_FREE && run >= n)
			break;
		at += run;
	}
	if (!n || n > r->pages - at)
		return -1;
	cis_run_region_set(r, at, n, CIS_RUN_USED);
	return (int64_t)at;
}
