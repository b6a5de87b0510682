/* ELF cores: whatever opens has regions in order, extents in order, and bytes for all that it promises. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "image/source.h"

static void check_regions(const struct cis_image_source *src)
{
	uint64_t off = 0, gpa = 0;

	FUZZ_CHECK(src->nr_regions);
	for (size_t i = 0; i < src->nr_regions; i++) {
		const struct cis_region_entry *r = &src->regions[i];

		FUZZ_CHECK(r->offset == off && r->bytes && r->gpa >= gpa);
		off += r->bytes;
		gpa = r->gpa + r->bytes;
		FUZZ_CHECK(gpa >= r->gpa);
	}
	FUZZ_CHECK(off == src->guest_bytes);
}

static void check_data(struct cis_image_source *src)
{
	uint64_t start, end, at = 0;
	static uint8_t buf[65536];
	int rc;

	while (!(rc = src->next_data(src, at, &start, &end, NULL))) {
		FUZZ_CHECK(start >= at && end > start && end <= src->guest_bytes);
		for (at = start; at < end;) {
			size_t n = end - at < sizeof(buf) ? (size_t)(end - at) : sizeof(buf);

			FUZZ_CHECK(!src->read(src, at, buf, n, NULL));
			at += n;
		}
	}
	FUZZ_CHECK(rc == -ENXIO);
	FUZZ_CHECK(src->read(src, src->guest_bytes, buf, 1, NULL) == -ERANGE);
}

/* Pages of zeros become holes, as they are in a sparse dump. */
static void write_core(int fd, const uint8_t *data, size_t len)
{
	static const uint8_t zeros[4096];

	FUZZ_CHECK(!ftruncate(fd, 0) && !ftruncate(fd, (off_t)len));
	for (size_t at = 0, n; at < len; at += n) {
		n = len - at < sizeof(zeros) ? len - at : sizeof(zeros);
		if (memcmp(data + at, zeros, n))
			FUZZ_CHECK(pwrite(fd, data + at, n, (off_t)at) == (ssize_t)n);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static char path[32];
	static int fd = -1;
	struct cis_image_source *src;
	struct cis_error err;
	int rc;

	if (fd < 0) {
		fd = memfd_create("core", MFD_CLOEXEC);
		FUZZ_CHECK(fd >= 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	write_core(fd, data, len);
	rc = cis_source_elf(path, &src, &err);
	if (rc) {
		FUZZ_CHECK(rc == -EBADMSG || rc == -EMEDIUMTYPE || rc == -EPROTONOSUPPORT || rc == -EFBIG);
		return 0;
	}
	check_regions(src);
	check_data(src);
	src->close(src);
	return 0;
}
