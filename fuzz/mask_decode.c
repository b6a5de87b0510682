/* A stored mask chunk: byte 0 is the raw length in pages.  All implementations agree on whether it is one, and on what it is. */
#include <errno.h>

#include "codec/mask.h"
#include "codec_common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct fence src, dst;
	static uint8_t first[FUZZ_CHUNK_MAX];
	int first_rc = 0;
	size_t dst_len;

	if (!src.map)
		FUZZ_CHECK(!fence_init(&src, FUZZ_CHUNK_MAX) && !fence_init(&dst, FUZZ_CHUNK_MAX));
	if (len < 2)
		return 0;
	dst_len = (1 + data[0] % 16) * 4096u;
	data++, len--;
	if (len > dst_len)
		return 0;
	memcpy(fence_end(&src, len), data, len);
	for (unsigned i = 0; cis_mask_impl(i); i++) {
		uint8_t *out = fence_end(&dst, dst_len);
		int rc = cis_mask_impl(i)->decode(fence_end(&src, len), len, out, dst_len);

		FUZZ_CHECK(rc == 0 || rc == -EBADMSG);
		if (i) {
			FUZZ_CHECK(rc == first_rc);
			FUZZ_CHECK(rc || !memcmp(out, first, dst_len));
		}
		first_rc = rc;
		memcpy(first, out, dst_len);
	}
	return 0;
}
