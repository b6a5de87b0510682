/* Codec mask in portable C, and which implementation this CPU gets. */
#include <errno.h>

#include "base/le.h"
#include "codec/mask.h"

#define LINE 64

/* 0x80 in each byte that is not zero. */
static uint64_t nonzero_bytes(uint64_t w)
{
	const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);

	return (((w & low) + low) | w) & ~low;
}

/* Bit j for byte j. */
static unsigned byte_mask(uint64_t w)
{
	return (unsigned)((nonzero_bytes(w) >> 7) * UINT64_C(0x0102040810204080) >> 56);
}

static uint64_t line_mask(const uint64_t *words)
{
	uint64_t mask = 0;

	for (int i = 0; i < 8; i++)
		mask |= (uint64_t)byte_mask(words[i]) << (8 * i);
	return mask;
}

/* The bytes of a little-endian word that @mask names, packed to @dst. */
static uint8_t *compress_word(uint8_t *dst, uint64_t w, unsigned mask)
{
	for (; mask; mask &= mask - 1)
		*dst++ = (uint8_t)(w >> (8 * __builtin_ctz(mask)));
	return dst;
}

static void load_line(uint64_t *ret_words, const uint8_t *line)
{
	for (int i = 0; i < 8; i++)
		ret_words[i] = cis_le64(line + 8 * i);
}

static size_t encode_c(const uint8_t *src, size_t src_len, uint8_t *dst)
{
	size_t n = src_len / LINE;
	uint8_t *kinds = dst, *masks = dst + n / 8, *out = masks + 8 * n;
	uint64_t prev[8] = {0}, line[8], diff[8];

	memset(kinds, 0, n / 8);
	for (size_t i = 0; i < n; i++) {
		const uint64_t *pick = line;
		uint64_t mask, xmask;

		load_line(line, src + LINE * i);
		for (int j = 0; j < 8; j++)
			diff[j] = line[j] ^ prev[j];
		mask = line_mask(line);
		xmask = line_mask(diff);
		if (__builtin_popcountll(xmask) < __builtin_popcountll(mask)) {
			kinds[i / 8] |= (uint8_t)(1u << (i % 8));
			mask = xmask;
			pick = diff;
		}
		if ((size_t)(out - dst) + (size_t)__builtin_popcountll(mask) >= src_len)
			return 0;
		cis_put_le64(masks + 8 * i, mask);
		for (int j = 0; j < 8; j++)
			out = compress_word(out, pick[j], mask >> (8 * j) & 0xff);
		memcpy(prev, line, sizeof(prev));
	}
	return (size_t)(out - dst);
}

static const uint8_t *expand_word(const uint8_t *src, unsigned mask, uint64_t *ret_word)
{
	uint64_t w = 0;

	for (; mask; mask &= mask - 1)
		w |= (uint64_t)*src++ << (8 * __builtin_ctz(mask));
	*ret_word = w;
	return src;
}

static int decode_c(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	size_t n = dst_len / LINE, bytes = 0;
	const uint8_t *kinds = src, *masks = src + n / 8, *in = masks + 8 * n;
	uint64_t prev[8] = {0};
	unsigned zeros = 0;

	if (src_len < n / 8 + 8 * n)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++)
		bytes += (size_t)__builtin_popcountll(cis_le64(masks + 8 * i));
	if (bytes != src_len - n / 8 - 8 * n)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		uint64_t keep = 0 - (uint64_t)(kinds[i / 8] >> (i % 8) & 1);

		for (int j = 0; j < 8; j++) {
			unsigned mask = masks[8 * i + (size_t)j];
			uint64_t w;

			in = expand_word(in, mask, &w);
			zeros |= byte_mask(w) ^ mask;
			prev[j] = w ^ (prev[j] & keep);
			cis_put_le64(dst + LINE * i + 8 * j, prev[j]);
		}
	}
	return zeros ? -EBADMSG : 0;
}

static const struct cis_mask_impl impl_c = {.name = "c", .encode = encode_c, .decode = decode_c};

const struct cis_mask_impl *cis_mask_impl(unsigned i)
{
	return i ? NULL : &impl_c;
}

const struct cis_mask_impl *cis_mask_best(void)
{
	return &impl_c;
}
