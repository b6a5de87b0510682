/*
 * Images: whatever the file says, it is refused or every page is found, decoded or refused.
 *
 * An input is 256 bytes of header, a byte of flags, then the four parts one after the other without the bytes
 * between them.  Unless the flags say otherwise (1: not the layout, 2: not the checksums and the id) these
 * are made right, because no search gets through SHA-256.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/le.h"
#include "check.h"
#include "image/format.h"
#include "image/write.h"

#define HEAD 256
#define ROOM (1u << 20)

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

static void seal(uint8_t *file, size_t len)
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
}

static void read_all(struct cis_image *img)
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

		FUZZ_CHECK(!rc || rc == -EBADMSG);
	}
	cis_image_reader_destroy(r);
	if (!cis_image_read_state(img, &state, &len, &err))
		free(state);
	int rc = cis_image_verify(img, NULL, NULL, &err);

	FUZZ_CHECK(!rc || rc == -EBADMSG);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t file[ROOM];
	struct cis_error err = { 0 };
	struct cis_image *img;
	char path[40];

	if (len <= HEAD || len > ROOM / 2)
		return 0;
	memset(file, 0, CIS_HEADER_BYTES + 4 * CIS_PART_ALIGN + len);
	memcpy(file, data, HEAD);
	size_t bytes = lay_out(file, data + HEAD + 1, len - HEAD - 1, !(data[HEAD] & 1));

	if (!(data[HEAD] & 2))
		seal(file, bytes);
	int fd = memfd_create("image", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0 && write(fd, file, bytes) == (ssize_t)bytes);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int rc = cis_image_open(path, NULL, &img, &err);

	if (rc) {
		FUZZ_CHECK(err.code == -rc && err.text[0]);
	} else {
		look_at_chunks(img);
		read_all(img);
		cis_image_unref(img);
	}
	close(fd);
	return 0;
}
