/* Images for tests of the pager: small guests of every class, on disk in a folder of their own. */
#ifndef TESTS_UNIT_PAGER_IMAGE_H
#define TESTS_UNIT_PAGER_IMAGE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/write.h"

#define TEST_PAGE 4096u

/** struct test_memory - a source in memory; pages with @hole set are holes */
struct test_memory {
	struct cis_image_source src;
	uint8_t *mem;
	uint8_t *hole;
};

static inline int test_next_data(struct cis_image_source *src, uint64_t from, uint64_t *start, uint64_t *end,
				 struct cis_error *err)
{
	struct test_memory *m = (struct test_memory *)src;
	uint64_t p = from / TEST_PAGE, nr = src->guest_bytes / TEST_PAGE;

	(void)err;
	while (p < nr && m->hole[p])
		p++;
	if (p == nr)
		return -6; /* ENXIO */
	*start = p * TEST_PAGE > from ? p * TEST_PAGE : from;
	while (p < nr && !m->hole[p])
		p++;
	*end = p * TEST_PAGE;
	return 0;
}

static inline int test_read(struct cis_image_source *src, uint64_t off, void *buf, size_t len, struct cis_error *err)
{
	(void)err;
	memcpy(buf, ((struct test_memory *)src)->mem + off, len);
	return 0;
}

static inline void test_no_close(struct cis_image_source *src)
{
	(void)src;
}

static inline uint64_t test_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* A page of content: kind 0 zeros, 1 one word, else a recognisable page that compresses a little. */
static inline void test_fill_page(uint8_t *page, unsigned kind, uint64_t value)
{
	uint64_t *w = (uint64_t *)page;

	for (unsigned i = 0; i < TEST_PAGE / 8; i++)
		w[i] = kind == 0 ? 0 : kind == 1 ? value : i % 4 ? value * 0x9e3779b97f4a7c15u + i : value;
}

static inline void test_memory_init(struct test_memory *m, uint64_t nr_pages)
{
	*m = (struct test_memory){ .src = { .guest_bytes = nr_pages * TEST_PAGE, .next_data = test_next_data,
					    .read = test_read, .close = test_no_close } };
	m->mem = calloc(nr_pages, TEST_PAGE);
	m->hole = calloc(nr_pages, 1);
	if (!m->mem || !m->hole)
		abort();
}

static inline void test_memory_fini(struct test_memory *m)
{
	free(m->mem);
	free(m->hole);
}

static inline struct cis_image *test_write_image(const char *path, struct test_memory *m, struct cis_write_opts *opts)
{
	struct cis_error err;
	struct cis_image *img;

	opts->size = sizeof(*opts);
	if (cis_image_write(path, &m->src, opts, &err) || cis_image_open(path, NULL, &img, &err)) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	return img;
}

#endif
