/*
 * Stored bytes of any codec, as a damaged or hostile image has them: byte 0 is the codec, byte 1 the raw length in
 * pages, the rest is stored.  Buffers end at pages that must not be touched, as ISA-L is assembly.
 */
#include <errno.h>

#include "codec_common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct cis_decoder *dec;
	static struct fence src, dst;
	size_t dst_len;
	int rc;

	if (!dec) {
		struct cis_codec_params *params = fuzz_params();

		FUZZ_CHECK(!cis_decoder_create(FUZZ_CHUNK_MAX, params, &dec));
		cis_codec_params_unref(params);
		FUZZ_CHECK(!fence_init(&src, FUZZ_CHUNK_MAX) && !fence_init(&dst, FUZZ_CHUNK_MAX));
	}
	if (len < 2 || len - 2 > FUZZ_CHUNK_MAX)
		return 0;
	dst_len = (data[1] % 17) * 4096u;
	memcpy(fence_end(&src, len - 2), data + 2, len - 2);
	rc = cis_decode(dec, data[0], fence_end(&src, len - 2), len - 2, fence_end(&dst, dst_len), dst_len);
	FUZZ_CHECK(rc == 0 || rc == -EBADMSG || rc == -EOPNOTSUPP);
	FUZZ_CHECK((rc == -EOPNOTSUPP) == (data[0] >= CIS_CODEC_COUNT));
	return 0;
}
