/*
 * Which pages of the region of `cistern run` are in use.
 *
 * One byte a page, by which any part of a mapping can be given back.  What was never used has never been touched here either.  Callers lock.
 */
#ifndef CIS_CLIENT_RUN_REGION_H
#define CIS_CLIENT_RUN_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CIS_RUN_PAGE 4096ull

/**
 * enum cis_run_page - FREE: nobody has it, it reads as zeros; USED: the program has it;
 * LOST: the kernel has mapped something else there, for good
 */
enum cis_run_page { CIS_RUN_FREE, CIS_RUN_USED, CIS_RUN_LOST };

/**
 * struct cis_run_region
 * @addr, @pages: where it is mapped
 * @page:         enum cis_run_page of each
 * @top:          all from there on are FREE
 * @free:         below @top
 */
struct cis_run_region {
	char *addr;
	uint64_t pages, top, free;
	uint8_t *page;
};

/** cis_run_region_init() - all FREE.  Return: 0 or -ENOMEM. */
int cis_run_region_init(struct cis_run_region *r, void *addr, uint64_t bytes);

/** cis_run_region_has() - is a part of [addr, addr + len) in it? */
bool cis_run_region_has(const struct cis_run_region *r, const void *addr, size_t len);

/** cis_run_region_take() - the first run of @n FREE pages becomes USED.  Return: it, or -1. */
int64_t cis_run_region_take(struct cis_run_region *r, uint64_t n);

/** cis_run_region_is() - are all of these in that state? */
bool cis_run_region_is(const struct cis_run_region *r, uint64_t first, uint64_t n, enum cis_run_page state);

/** cis_run_region_set() - whatever they were. */
void cis_run_region_set(struct cis_run_region *r, uint64_t first, uint64_t n, enum cis_run_page state);

/** cis_run_region_run() - how many from @first on, up to @end, are in the state of @first */
uint64_t cis_run_region_run(const struct cis_run_region *r, uint64_t first, uint64_t end);

#endif
