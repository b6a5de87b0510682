/*
 * Codec mask with AVX2: eight bytes at a time are packed and spread by vpshufb with a table of 256 orders each way.
 * No pdep and pext: they are slow on early Zen.
 */
#ifdef __x86_64__
#include <errno.h>
#include <immintrin.h>
#include <string.h>

#include "codec/mask_impl.h"

#define TARGET __attribute__((target("avx2,popcnt")))
#define INLINE TARGET static inline __attribute__((always_inline))

#define SLACK 8u /* a line's last word is moved whole */

/* For mask @m: to byte j goes the packed byte of its rank, or zero (bit 7). */
#define RANK(m, j)      ((uint64_t)__builtin_popcount((m) & ((1u << (j)) - 1)))
#define SPREAD_AT(m, j) (((m) >> (j)&1 ? RANK(m, j) : UINT64_C(0x80)) << (8 * (j)))
#define SPREAD(m)                                                                                         \
	(SPREAD_AT(m, 0) | SPREAD_AT(m, 1) | SPREAD_AT(m, 2) | SPREAD_AT(m, 3) | SPREAD_AT(m, 4) |        \
	 SPREAD_AT(m, 5) | SPREAD_AT(m, 6) | SPREAD_AT(m, 7))

/* To packed byte number rank(j) goes byte j. */
#define PACK_AT(m, j) ((m) >> (j)&1 ? (uint64_t)(j) << (8 * RANK(m, j)) : 0)
#define PACK(m)                                                                                           \
	(PACK_AT(m, 0) | PACK_AT(m, 1) | PACK_AT(m, 2) | PACK_AT(m, 3) | PACK_AT(m, 4) | PACK_AT(m, 5) |  \
	 PACK_AT(m, 6) | PACK_AT(m, 7))

#define FOUR(f, m)    f(m), f((m) + 1u), f((m) + 2u), f((m) + 3u)
#define SIXTEEN(f, m) FOUR(f, m), FOUR(f, (m) + 4u), FOUR(f, (m) + 8u), FOUR(f, (m) + 12u)
#define SIXTY4(f, m)  SIXTEEN(f, m), SIXTEEN(f, (m) + 16u), SIXTEEN(f, (m) + 32u), SIXTEEN(f, (m) + 48u)
#define ALL(f)        SIXTY4(f, 0u), SIXTY4(f, 64u), SIXTY4(f, 128u), SIXTY4(f, 192u)

static const uint64_t spread_order[256] = {ALL(SPREAD)};
static const uint64_t pack_order[256] = {ALL(PACK)};

INLINE uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

INLINE __m128i load_two(const void *low, const void *high)
{
	return _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(_mm_loadl_epi64(low)), high));
}

TARGET static uint64_t count_bits(const uint8_t *masks, size_t lines)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < lines; i++)
		sum += (uint64_t)_mm_popcnt_u64(load64(masks + 8 * i));
	return sum;
}

TARGET static int has_zero(const uint8_t *bytes, size_t nr)
{
	__m256i least = _mm256_set1_epi8(-1);
	int found = 0;
	size_t i;

	for (i = 0; i + 32 <= nr; i += 32)
		least = _mm256_min_epu8(least, _mm256_loadu_si256((const __m256i *)(bytes + i)));
	for (; i < nr; i++)
		found |= !bytes[i];
	return found || _mm256_movemask_epi8(_mm256_cmpeq_epi8(least, _mm256_setzero_si256()));
}

/* 16 bytes by two bytes of mask; reads 8 bytes at each of the two places. */
INLINE const uint8_t *spread16(const uint8_t *in, unsigned low, unsigned high, __m128i *ret)
{
	const uint8_t *mid = in + _mm_popcnt_u32(low);
	__m128i order = load_two(&spread_order[low], &spread_order[high]);

	order = _mm_or_si128(order, _mm_set_epi64x(0x0808080808080808, 0));
	*ret = _mm_shuffle_epi8(load_two(in, mid), order);
	return mid + _mm_popcnt_u32(high);
}

/* Reads up to SLACK bytes more than the mask names. */
INLINE const uint8_t *decode_line(uint8_t *dst, __m128i *prev, uint64_t mask, __m128i keep, const uint8_t *in)
{
#pragma GCC unroll 4
	for (unsigned i = 0; i < 4; i++) {
		__m128i line;

		in = spread16(in, mask >> (16 * i) & 0xff, mask >> (16 * i + 8) & 0xff, &line);
		prev[i] = _mm_xor_si128(line, _mm_and_si128(prev[i], keep));
		_mm_storeu_si128((__m128i *)(dst + 16 * i), prev[i]);
	}
	return in;
}

TARGET static int decode(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	const uint8_t *end = src + src_len, *in;
	__m128i prev[4] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
	uint8_t tail[2 * MASK_LINE + SLACK] = {0};
	struct mask_view view;

	if (!mask_view_init(&view, src, src_len, dst_len))
		return -EBADMSG;
	if (count_bits(view.masks, dst_len / MASK_LINE) != view.nr_bytes || has_zero(view.bytes, view.nr_bytes))
		return -EBADMSG;
	in = view.bytes;
	for (size_t i = 0; i < dst_len / MASK_LINE; i++) {
		/* Near the end of what may be read, go on in a copy with room behind it. */
		if (end != tail + MASK_LINE + SLACK && (size_t)(end - in) < MASK_LINE + SLACK) {
			memcpy(tail, in, (size_t)(end - in));
			in = tail;
			end = tail + MASK_LINE + SLACK;
		}
		in = decode_line(dst + MASK_LINE * i, prev, load64(view.masks + 8 * i),
				 _mm_set1_epi8((char)(0 - (view.kinds[i / 8] >> (i % 8) & 1))), in);
	}
	return 0;
}

INLINE uint64_t differ_mask(__m256i a0, __m256i a1, __m256i b0, __m256i b1)
{
	uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a0, b0));
	uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(a1, b1));

	return ~((uint64_t)high << 32 | low);
}

INLINE uint8_t *pack16(uint8_t *out, __m128i v, unsigned low, unsigned high)
{
	_mm_storel_epi64((__m128i *)out, _mm_shuffle_epi8(v, _mm_loadl_epi64((const __m128i *)&pack_order[low])));
	out += _mm_popcnt_u32(low);
	v = _mm_srli_si128(v, 8);
	_mm_storel_epi64((__m128i *)out, _mm_shuffle_epi8(v, _mm_loadl_epi64((const __m128i *)&pack_order[high])));
	return out + _mm_popcnt_u32(high);
}

/* Writes up to SLACK bytes more than the mask names. */
INLINE uint8_t *pack_line(uint8_t *out, __m256i v0, __m256i v1, uint64_t mask)
{
	out = pack16(out, _mm256_castsi256_si128(v0), mask & 0xff, mask >> 8 & 0xff);
	out = pack16(out, _mm256_extracti128_si256(v0, 1), mask >> 16 & 0xff, mask >> 24 & 0xff);
	out = pack16(out, _mm256_castsi256_si128(v1), mask >> 32 & 0xff, mask >> 40 & 0xff);
	return pack16(out, _mm256_extracti128_si256(v1, 1), mask >> 48 & 0xff, mask >> 56);
}

/* NULL when the line's bytes would go beyond @end. */
INLINE uint8_t *put_line(uint8_t *out, const uint8_t *end, __m256i v0, __m256i v1, uint64_t mask)
{
	uint8_t tail[MASK_LINE + SLACK];
	size_t nr = (size_t)_mm_popcnt_u64(mask);

	if ((size_t)(end - out) >= MASK_LINE + SLACK)
		return pack_line(out, v0, v1, mask);
	if (nr > (size_t)(end - out))
		return NULL;
	pack_line(tail, v0, v1, mask);
	memcpy(out, tail, nr);
	return out + nr;
}

TARGET static size_t encode(const uint8_t *src, size_t src_len, uint8_t *dst)
{
	uint8_t *kinds = dst, *masks = dst + src_len / MASK_LINE / 8, *out = dst + mask_head(src_len);
	const uint8_t *end = dst + src_len - 1;
	const __m256i zero = _mm256_setzero_si256();
	__m256i prev0 = zero, prev1 = zero;
	unsigned k = 0;

	for (size_t i = 0; i < src_len / MASK_LINE; i++) {
		__m256i line0 = _mm256_loadu_si256((const __m256i *)(src + MASK_LINE * i));
		__m256i line1 = _mm256_loadu_si256((const __m256i *)(src + MASK_LINE * i + 32));
		uint64_t mask = differ_mask(line0, line1, zero, zero), xmask = differ_mask(line0, line1, prev0, prev1);
		unsigned x = _mm_popcnt_u64(xmask) < _mm_popcnt_u64(mask);
		__m256i keep = _mm256_set1_epi8((char)(0 - x));

		mask = x ? xmask : mask;
		memcpy(masks + 8 * i, &mask, sizeof(mask));
		k |= x << (i % 8);
		if (i % 8 == 7) {
			kinds[i / 8] = (uint8_t)k;
			k = 0;
		}
		out = put_line(out, end, _mm256_xor_si256(line0, _mm256_and_si256(prev0, keep)),
			       _mm256_xor_si256(line1, _mm256_and_si256(prev1, keep)), mask);
		if (!out)
			return 0;
		prev0 = line0;
		prev1 = line1;
	}
	return (size_t)(out - dst);
}

const struct cis_mask_impl cis_mask_avx2 = {.name = "avx2", .encode = encode, .decode = decode};
#endif
