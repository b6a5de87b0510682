/*
 * Sections: byte 0 says whether the checksum is mended first, so that what lies behind it is reached.  What is accepted lies
 * within the input, and written again it is the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "check.h"
#include "codec/codec.h"
#include "daemon/sections.h"

#define HEAD 32u

static void check(const uint8_t *bytes, size_t len)
{
	struct cis_sections again = { 0 };
	struct cis_sections_reader r;
	struct cis_section s;
	struct cis_error err = { 0 };
	const void *copy;
	size_t copy_len;

	if (cis_sections_open(bytes, len, &r, &err)) {
		FUZZ_CHECK(err.text[0]);
		return;
	}
	while (cis_sections_next(&r, &s)) {
		FUZZ_CHECK((const uint8_t *)s.bytes >= bytes && (const uint8_t *)s.bytes + s.len <= bytes + len);
		cis_sections_add(&again, s.tag, s.flags, s.bytes, s.len);
	}
	FUZZ_CHECK(!cis_sections_finish(&again, &copy, &copy_len) && copy_len == len);
	cis_sections_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t *copy;

	if (len < 1)
		return 0;
	copy = malloc(len);
	FUZZ_CHECK(copy);
	memcpy(copy, data + 1, len - 1);
	if (data[0] & 1 && len - 1 >= HEAD) {
		memcpy(copy, "CISSECT1", 8);
		cis_put_le32(copy + 8, 1);
		cis_put_le64(copy + 16, len - 1);
		cis_put_le64(copy + 24, cis_crc64(0, copy + HEAD, len - 1 - HEAD));
	}
	check(copy, len - 1);
	free(copy);
	return 0;
}
