/*
 * Codec mask with AVX-512: vpexpandb and vpcompressb, one line a register.
 *
 * Always their register forms: with memory operands they are microcode on some CPUs.  What a line takes from or adds to
 * the packed bytes depends on its mask alone, so the pointer chain is one addition a line.
 */
#ifdef __x86_64__
#include <errno.h>
#include <immintrin.h>
#include <string.h>

#include "codec/mask_impl.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vbmi2,avx512vpopcntdq,bmi2,popcnt")))
#define INLINE TARGET static inline __attribute__((always_inline))

#define GROUP       8u /* lines to a byte of kinds */
#define GROUP_BYTES (GROUP * MASK_LINE)

INLINE uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

INLINE __mmask64 first(unsigned nr)
{
	return _bzhi_u64(~UINT64_C(0), nr);
}

TARGET static uint64_t count_bits(const uint8_t *masks, size_t lines)
{
	__m512i sum = _mm512_setzero_si512();

	for (size_t i = 0; i < lines; i += 8)
		sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_loadu_si512(masks + 8 * i)));
	return (uint64_t)_mm512_reduce_add_epi64(sum);
}

/* It also brings the bytes into the cache in one straight run. */
TARGET static int has_zero(const uint8_t *bytes, size_t nr)
{
	__m512i least = _mm512_set1_epi8(-1);
	size_t i;

	for (i = 0; i + 64 <= nr; i += 64)
		least = _mm512_min_epu8(least, _mm512_loadu_si512(bytes + i));
	least = _mm512_mask_min_epu8(least, first((unsigned)(nr - i)), least,
				     _mm512_maskz_loadu_epi8(first((unsigned)(nr - i)), bytes + i));
	return _mm512_testn_epi8_mask(least, least) != 0;
}

/* With @whole, GROUP_BYTES may be read from @in, else not a byte more than the masks name. */
INLINE const uint8_t *decode_group(uint8_t *dst, __m512i *prev, const uint8_t *masks, unsigned kinds,
				   const uint8_t *in, int whole)
{
#pragma GCC unroll 8
	for (unsigned i = 0; i < GROUP; i++) {
		uint64_t mask = load64(masks + 8 * i);
		unsigned nr = (unsigned)_mm_popcnt_u64(mask);
		__m512i packed = whole ? _mm512_loadu_si512(in) : _mm512_maskz_loadu_epi8(first(nr), in);
		__m512i line = _mm512_maskz_expand_epi8(mask, packed);
		__mmask8 keep = (__mmask8)(0 - (kinds >> i & 1));

		*prev = _mm512_mask_xor_epi64(line, keep, line, *prev);
		_mm512_storeu_si512(dst + MASK_LINE * i, *prev);
		in += nr;
	}
	return in;
}

TARGET static int decode(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	const uint8_t *end = src + src_len, *in;
	__m512i prev = _mm512_setzero_si512();
	struct mask_view view;

	if (!mask_view_init(&view, src, src_len, dst_len))
		return -EBADMSG;
	if (count_bits(view.masks, dst_len / MASK_LINE) != view.nr_bytes || has_zero(view.bytes, view.nr_bytes))
		return -EBADMSG;
	in = view.bytes;
	for (size_t at = 0; at < dst_len; at += GROUP_BYTES) {
		const uint8_t *masks = view.masks + at / 8;
		unsigned kinds = view.kinds[at / GROUP_BYTES];

		if ((size_t)(end - in) >= GROUP_BYTES)
			in = decode_group(dst + at, &prev, masks, kinds, in, 1);
		else
			in = decode_group(dst + at, &prev, masks, kinds, in, 0);
	}
	return 0;
}

/* With @whole, GROUP_BYTES may be written to @out; else NULL when it would go beyond @end. */
INLINE uint8_t *encode_group(const uint8_t *src, __m512i *prev, uint8_t *masks, uint8_t *kinds, uint8_t *out,
			     const uint8_t *end, int whole)
{
	unsigned k = 0;

#pragma GCC unroll 8
	for (unsigned i = 0; i < GROUP; i++) {
		__m512i line = _mm512_loadu_si512(src + MASK_LINE * i), packed;
		uint64_t mask = _mm512_test_epi8_mask(line, line);
		uint64_t xmask = _mm512_cmpneq_epi8_mask(line, *prev);
		unsigned nr = (unsigned)_mm_popcnt_u64(mask), xnr = (unsigned)_mm_popcnt_u64(xmask);
		unsigned x = xnr < nr;

		mask = x ? xmask : mask;
		nr = x ? xnr : nr;
		packed = _mm512_mask_xor_epi64(line, (__mmask8)(0 - x), line, *prev);
		packed = _mm512_maskz_compress_epi8(mask, packed);
		*prev = line;
		k |= x << i;
		memcpy(masks + 8 * i, &mask, sizeof(mask));
		if (!whole && nr > (size_t)(end - out))
			return NULL;
		if (whole)
			_mm512_storeu_si512(out, packed);
		else
			_mm512_mask_storeu_epi8(out, first(nr), packed);
		out += nr;
	}
	*kinds = (uint8_t)k;
	return out;
}

TARGET static size_t encode(const uint8_t *src, size_t src_len, uint8_t *dst)
{
	uint8_t *kinds = dst, *masks = dst + src_len / MASK_LINE / 8, *out = dst + mask_head(src_len);
	const uint8_t *end = dst + src_len - 1;
	__m512i prev = _mm512_setzero_si512();

	for (size_t at = 0; at < src_len; at += GROUP_BYTES) {
		if ((size_t)(end - out) >= GROUP_BYTES)
			out = encode_group(src + at, &prev, masks + at / 8, kinds + at / GROUP_BYTES, out, end, 1);
		else
			out = encode_group(src + at, &prev, masks + at / 8, kinds + at / GROUP_BYTES, out, end, 0);
		if (!out)
			return 0;
	}
	return (size_t)(out - dst);
}

const struct cis_mask_impl cis_mask_avx512 = {.name = "avx512", .encode = encode, .decode = decode};
#endif
