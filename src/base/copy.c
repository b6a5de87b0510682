#include "base/copy.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

void cis_copy_past_cache(void *dst, const void *src, size_t len)
{
	__m128i *to = dst;
	const __m128i *from = src;

	for (size_t i = 0; i < len / sizeof(*to); i++)
		_mm_stream_si128(&to[i], _mm_loadu_si128(&from[i]));
	_mm_sfence(); /* such stores are not ordered otherwise, and another thread is told of them next */
}
#else
void cis_copy_past_cache(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}
#endif
