/* Small guests and their images, for the tests of the image layer. */
#ifndef TESTS_UNIT_IMAGE_H
#define TESTS_UNIT_IMAGE_H

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/image.h"
#include "image/source.h"
#include "image/write.h"

#define PAGE 4096

static char image_folder[64];

static inline int image_setup(void **state)
{
	strcpy(image_folder, "/tmp/cis-image-XXXXXX");
	return mkdtemp(image_folder) ? 0 : -1;
}

/* The files that a test made are its own business; anything else left behind fails it. */
static inline int image_teardown(void **state)
{
	DIR *d = opendir(image_folder);

	for (struct dirent *e; d && (e = readdir(d));) {
		char path[400];

		if (e->d_name[0] == '.')
			continue; /* a temporary file of the writer: rmdir() finds it */
		snprintf(path, sizeof(path), "%s/%s", image_folder, e->d_name);
		unlink(path);
	}
	closedir(d);
	return rmdir(image_folder);
}

/** image_path() - a file in the test's folder; a few results stay valid. */
static inline const char *image_path(const char *name)
{
	static char paths[8][128];
	static unsigned i;
	char *p = paths[i++ % 8];

	snprintf(p, sizeof(paths[0]), "%s/%s", image_folder, name);
	return p;
}

static inline uint64_t image_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/** image_fill_page() - by @kind: 0 zeros, 1 one word, 2 sparse words, 3 words of few values, 4 noise. */
static inline void image_fill_page(uint8_t *page, size_t len, unsigned kind, uint64_t *seed)
{
	uint64_t *w = (uint64_t *)page, same = image_random(seed) | 1;

	memset(page, 0, len);
	for (size_t i = 0; i < len / 8; i++) {
		if (kind == 1)
			w[i] = same;
		else if (kind == 2 && image_random(seed) % 16 == 0)
			w[i] = image_random(seed) & 0xffffff;
		else if (kind == 3)
			w[i] = 0xffff888000000000 + (image_random(seed) % 64) * 64;
		else if (kind == 4)
			w[i] = image_random(seed);
	}
}

/** image_memory() - @nr blocks of 4 KiB of all kinds in runs; to be freed. */
static inline uint8_t *image_memory(size_t nr, uint64_t seed)
{
	uint8_t *mem = malloc(nr * PAGE);
	unsigned kind = 0;

	assert_non_null(mem);
	for (size_t i = 0; i < nr; i++) {
		if (image_random(&seed) % 3 == 0)
			kind = image_random(&seed) % 5;
		image_fill_page(mem + i * PAGE, PAGE, kind, &seed);
	}
	return mem;
}

/** image_write_file() - @len bytes; with @holes zero blocks are holes. */
static inline void image_write_file(const char *path, const uint8_t *bytes, size_t len, bool holes)
{
	static const uint8_t zeros[PAGE];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	for (size_t at = 0; at < len; at += PAGE) {
		size_t n = len - at < PAGE ? len - at : PAGE;

		if (!holes || memcmp(bytes + at, zeros, n))
			assert_int_equal(pwrite(fd, bytes + at, n, (off_t)at), n);
	}
	close(fd);
}

/** image_read_file() - all of it; to be freed. */
static inline uint8_t *image_read_file(const char *path, size_t *ret_len)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	uint8_t *buf = malloc((size_t)st.st_size + 1);

	assert_int_equal(read(fd, buf, (size_t)st.st_size), st.st_size);
	close(fd);
	*ret_len = (size_t)st.st_size;
	return buf;
}

/** image_create() - cis_image_write() of a raw file. */
static inline int image_create(const char *memory, const char *path, struct cis_write_opts opts,
			       struct cis_error *err)
{
	struct cis_image_source *src;
	int rc = cis_source_raw(memory, &src, err);

	opts.size = sizeof(opts);
	if (rc)
		return rc;
	rc = cis_image_write(path, src, &opts, err);
	cis_source_close(src);
	return rc;
}

static inline struct cis_image *image_open(const char *path)
{
	struct cis_error err = { 0 };
	struct cis_image *img = NULL;

	if (cis_image_open(path, NULL, &img, &err))
		fail_msg("%s", err.text);
	return img;
}

/** image_same_content() - every page, read alone and exported, is what is in @mem; and verify agrees. */
static inline void image_same_content(struct cis_image *img, const uint8_t *mem, size_t len)
{
	const struct cis_image_info *info = cis_image_info(img);
	size_t page = (size_t)1 << info->page_shift, got;
	uint8_t *buf = malloc(page), *want = malloc(page);
	struct cis_image_reader *r;
	struct cis_error err = { 0 };

	assert_int_equal(info->guest_bytes, len);
	assert_int_equal(cis_image_reader_create(img, &r), 0);
	for (uint64_t i = 0; i < info->nr_pages; i++) {
		size_t n = len - i * page < page ? len - i * page : page;

		memset(want, 0, page);
		memcpy(want, mem + i * page, n);
		if (cis_image_read_page(r, i, buf, &err))
			fail_msg("%s", err.text);
		if (memcmp(buf, want, page))
			fail_msg("page %llu of %s is wrong", (unsigned long long)i, info->path);
	}
	cis_image_reader_destroy(r);
	free(buf);
	free(want);
	if (cis_image_verify(img, NULL, NULL, &err) ||
	    cis_image_export(img, image_path("export"), NULL, NULL, &err))
		fail_msg("%s", err.text);
	uint8_t *back = image_read_file(image_path("export"), &got);

	assert_int_equal(got, len);
	assert_memory_equal(back, mem, len);
	free(back);
}

#endif
