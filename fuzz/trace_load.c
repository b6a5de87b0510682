/* Trace files: byte 0 says whether the checksum at the end is made right, the rest is the file. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/le.h"
#include "codec/codec.h"
#include "check.h"
#include "image/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_error err = { 0 };
	struct cis_trace t;
	char path[40];

	if (!len--)
		return 0;
	int fd = memfd_create("trace", MFD_CLOEXEC);
	uint8_t crc[8];

	FUZZ_CHECK(fd >= 0 && write(fd, data + 1, len) == (ssize_t)len);
	if (data[0] & 1 && len > 8) {
		cis_put_le64(crc, cis_crc64(0, data + 1, len - 8));
		FUZZ_CHECK(pwrite(fd, crc, 8, (off_t)len - 8) == 8);
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int rc = cis_trace_load(path, &t, &err);

	if (rc) {
		FUZZ_CHECK(err.code == -rc && err.text[0]);
	} else {
		for (uint64_t i = 0; i < t.nr; i++)
			FUZZ_CHECK((uint64_t)t.pgno[i] << t.page_shift < t.guest_bytes);
		cis_trace_fini(&t);
	}
	close(fd);
	return 0;
}
