/*
 * Images: whatever the file says, it is refused or every page is found, decoded or refused.
 *
 * An input is 256 bytes of header, a byte of flags, then the four parts one after the other without the bytes
 * between them.  Unless the flags say otherwise (1: not the layout, 2: not the checksums and the id) these
 * are made right, because no search gets through SHA-256; 16: of these, the checksum of the header alone.
 *
 * Other flags: 4: it is read through a medium; 8: that fails at its 1st to 8th read, which bits 5 to 7 say; without 8,
 * bits 5 and 6 name its parent: 0 the one of its header, which is nowhere, 1 an image of 64 pages, 2 a child of that,
 * 3 an image of two huge pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/le.h"
#include "check.h"
#include "image/format.h"
#include "image/source.h"
#include "image/write.h"

#define HEAD	  256
#define PARENT_ID 216 /* its place in the header */
#define ROOM	  (1u << 20)

/* Parents. */

static char folder[] = "/tmp/cistern-fuzz-XXXXXX";
static const char *const folders[] = { folder };
static uint8_t parent_ids[4][CIS_IMAGE_ID_BYTES];

static void make_memory(const char *path, unsigned pages, unsigned page, unsigned every)
{
	uint8_t block[4096];
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	FUZZ_CHECK(fd >= 0 && !ftruncate(fd, (off_t)pages * page));
	for (unsigned i = 0; i < pages; i += every) { /* every third one has one word alone, the others do not */
		memset(block, 'a' + (int)i % 3, sizeof(block));
		block[7] = i % 3 ? 0 : block[7];
		FUZZ_CHECK(pwrite(fd, block, sizeof(block), (off_t)i * page) == sizeof(block));
	}
	close(fd);
}

static struct cis_image *make_parent(unsigned nr, unsigned pages, unsigned page_shift, struct cis_image *parent)
{
	static const uint32_t hot[] = { 4, 1 };
	struct cis_write_opts opts = { .size = sizeof(opts), .codec = CIS_CODEC_LZ4, .page_shift = page_shift, .hot = hot,
				       .nr_hot = page_shift == 12 ? 2 : 0, .parent = parent, .compare = parent != NULL };
	struct cis_image_dirs dirs = { .path = folders, .nr = 1 };
	struct cis_image_source *src;
	struct cis_image *img;
	char memory[64], path[64];
	struct cis_error err;

	snprintf(memory, sizeof(memory), "%s/memory", folder);
	snprintf(path, sizeof(path), "%s/%u", folder, nr);
	make_memory(memory, pages, 1u << page_shift, parent ? 4 : 1);
	FUZZ_CHECK(!cis_source_raw(memory, &src, &err) && !cis_image_write(path, src, &opts, &err));
	cis_source_close(src);
	unlink(memory);
	FUZZ_CHECK(!cis_image_open(path, &dirs, &img, &err));
	FUZZ_CHECK(!cis_image_info(img)->nr_inherit == !parent && cis_image_info(img)->page_shift == page_shift);
	memcpy(parent_ids[nr], cis_image_info(img)->id, CIS_IMAGE_ID_BYTES);
	return img;
}

static void clean_up(void)
{
	char path[64];

	for (unsigned i = 1; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%u", folder, i);
		unlink(path);
	}
	rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	FUZZ_CHECK(mkdtemp(folder));
	atexit(clean_up);
	struct cis_image *first = make_parent(1, 64, 12, NULL), *second = make_parent(2, 64, 12, first);

	cis_image_unref(second);
	cis_image_unref(first);
	cis_image_unref(make_parent(3, 2, 21, NULL));
	return 0;
}

/* The medium. */

static unsigned reads_left;

static int medium_open(const struct cis_image_medium *medium, int fd, void **ret, struct cis_error *err)
{
	*ret = (void *)(intptr_t)fd;
	return 0;
}

static int medium_read(void *handle, void *buf, uint32_t len, uint64_t off)
{
	if (!reads_left--)
		return -EIO;
	return pread((int)(intptr_t)handle, buf, len, (off_t)off) == (ssize_t)len ? 0 : -ENODATA;
}

static void medium_close(void *handle)
{
}

static const struct cis_image_medium medium = { .open = medium_open, .read = medium_read, .close = medium_close };

/* The image. */

static size_t lay_out(uint8_t *file, const uint8_t *rest, size_t left, int fix)
{
	uint64_t at = CIS_HEADER_BYTES;

	for (unsigned i = 0; i < 4; i++) {
		uint8_t *part = file + 120 + 24 * i;
		uint64_t want = cis_le64(part + 8), n = want < left ? want : left;

		if (i == 3 && !fix)
			n = left;
		memcpy(file + at, rest, n);
		rest += n;
		left -= n;
		if (fix) {
			cis_put_le64(part, at);
			cis_put_le64(part + 8, n);
		}
		at = cis_align(at + n, CIS_PART_ALIGN);
	}
	return at;
}

static void seal_parts(uint8_t *file, size_t len)
{
	uint8_t id[CIS_IMAGE_ID_BYTES];

	for (unsigned i = 0; i < 4; i++) {
		uint8_t *part = file + 120 + 24 * i;
		uint64_t off = cis_le64(part), n = cis_le64(part + 8);

		if (off > len || n > len - off)
			return;
		cis_put_le64(part + 16, cis_crc64(0, file + off, n));
		if (i == 3)
			FUZZ_CHECK(!cis_header_id(file, file + off, n, id));
	}
	memcpy(file + 32, id, sizeof(id));
}

static void seal(uint8_t *file, size_t len, unsigned flags)
{
	if (!(flags & 16))
		seal_parts(file, len);
	cis_put_le64(file + 4088, cis_crc64(0, file, 4088));
}

static void look_at_chunks(struct cis_image *img)
{
	const struct cis_image_info *i = cis_image_info(img);
	static uint64_t pages[512];
	struct cis_chunk_loc loc;
	uint64_t seen = 0;

	for (uint64_t c = 0; c < i->nr_hot_chunks + i->nr_cold_chunks; c++) {
		cis_image_chunk(img, c, &loc);
		FUZZ_CHECK(loc.stored_bytes && loc.stored_bytes <= loc.raw_bytes &&
		      loc.raw_bytes <= 1u << i->chunk_shift);
		FUZZ_CHECK(loc.off + loc.stored_bytes <= i->file_bytes);
		seen += cis_image_chunk_pages(img, c, 512, pages);
	}
	FUZZ_CHECK(seen == i->nr_hot + i->nr_cold);
	for (uint64_t k = 0; k < i->nr_hot; k++)
		FUZZ_CHECK(cis_image_class(img, cis_image_hot_page(img, k)) == CIS_CLASS_HOT);
	for (uint64_t k = 0; k < i->nr_touched; k++)
		FUZZ_CHECK(cis_image_touched(img, k) < i->nr_pages && cis_image_class(img, cis_image_touched(img, k)) != CIS_CLASS_COLD);
}

static void read_all(struct cis_image *img, bool may_fail)
{
	const struct cis_image_info *i = cis_image_info(img);
	static uint8_t page[2 << 20];
	struct cis_image_reader *r;
	struct cis_error err;
	size_t len;
	void *state;

	FUZZ_CHECK(!cis_image_reader_create(img, &r));
	for (uint64_t p = 0; p < i->nr_pages && p < 2000; p++) {
		int rc = cis_image_read_page(r, p, page, &err);

		FUZZ_CHECK(!rc || rc == -EBADMSG || (rc == -EIO && may_fail));
	}
	cis_image_reader_destroy(r);
	if (!cis_image_read_state(img, &state, &len, &err))
		free(state);
	int rc = cis_image_verify(img, NULL, NULL, &err);

	FUZZ_CHECK(!rc || rc == -EBADMSG || (rc == -EIO && may_fail));
}

static void use(const char *path, unsigned flags)
{
	struct cis_image_dirs dirs = { .path = folders, .nr = 1, .medium = flags & 4 ? &medium : NULL };
	struct cis_error err = { 0 };
	struct cis_image *img;

	reads_left = flags & 8 ? flags >> 5 : UINT_MAX;
	int rc = cis_image_open(path, &dirs, &img, &err);

	if (rc) {
		FUZZ_CHECK(err.code == -rc && err.text[0]);
		return;
	}
	look_at_chunks(img);
	read_all(img, flags & 8);
	cis_image_unref(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t file[ROOM];
	char path[40];

	if (len <= HEAD || len > ROOM / 2)
		return 0;
	unsigned flags = data[HEAD], parent = flags & 8 ? 0 : flags >> 5 & 3;

	memset(file, 0, CIS_HEADER_BYTES + 4 * CIS_PART_ALIGN + len);
	memcpy(file, data, HEAD);
	if (parent)
		memcpy(file + PARENT_ID, parent_ids[parent], CIS_IMAGE_ID_BYTES);
	size_t bytes = lay_out(file, data + HEAD + 1, len - HEAD - 1, !(flags & 1));

	if (!(flags & 2))
		seal(file, bytes, flags);
	int fd = memfd_create("image", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0 && write(fd, file, bytes) == (ssize_t)bytes);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	use(path, flags);
	close(fd);
	return 0;
}
