/* Codec mask in portable C, and which implementation this CPU gets. */
#include <errno.h>

#include "base/le.h"
#include "codec/mask_impl.h"

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
	if (mask == 0xff) {
		cis_put_le64(dst, w);
		return dst + 8;
	}
	for (; mask; mask &= mask - 1)
		*dst++ = (uint8_t)(w >> (8 * __builtin_ctz(mask)));
	return dst;
}

static size_t encode(const uint8_t *src, size_t src_len, uint8_t *dst)
{
	size_t n = src_len / MASK_LINE;
	uint8_t *kinds = dst, *masks = dst + n / 8, *out = masks + 8 * n;
	uint64_t prev[8] = {0}, line[8], diff[8];

	memset(kinds, 0, n / 8);
	for (size_t i = 0; i < n; i++) {
		const uint64_t *pick = line;
		uint64_t mask, xmask;

		for (int j = 0; j < 8; j++) {
			line[j] = cis_le64(src + MASK_LINE * i + 8 * j);
			diff[j] = line[j] ^ prev[j];
		}
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

	if (mask == 0xff) {
		*ret_word = cis_le64(src);
		return src + 8;
	}
	for (; mask; mask &= mask - 1)
		w |= (uint64_t)*src++ << (8 * __builtin_ctz(mask));
	*ret_word = w;
	return src;
}

static int decode(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	size_t n = dst_len / MASK_LINE, bytes = 0;
	uint64_t prev[8] = {0};
	struct mask_view view;
	unsigned zeros = 0;

	if (!mask_view_init(&view, src, src_len, dst_len))
		return -EBADMSG;
	for (size_t i = 0; i < n; i++)
		bytes += (size_t)__builtin_popcountll(cis_le64(view.masks + 8 * i));
	if (bytes != view.nr_bytes)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		uint64_t keep = 0 - (uint64_t)(view.kinds[i / 8] >> (i % 8) & 1);

		for (size_t j = 0; j < 8; j++) {
			unsigned mask = view.masks[8 * i + j];
			uint64_t w;

			view.bytes = expand_word(view.bytes, mask, &w);
			zeros |= byte_mask(w) ^ mask;
			prev[j] = w ^ (prev[j] & keep);
			cis_put_le64(dst + MASK_LINE * i + 8 * j, prev[j]);
		}
	}
	return zeros ? -EBADMSG : 0;
}

const struct cis_mask_impl cis_mask_c = {.name = "c", .encode = encode, .decode = decode};

#ifdef __x86_64__
static unsigned impls(const struct cis_mask_impl **ret)
{
	unsigned nr = 0;

	ret[nr++] = &cis_mask_c;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt"))
		ret[nr++] = &cis_mask_avx2;
	if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi2") &&
	    __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("bmi2"))
		ret[nr++] = &cis_mask_avx512;
	return nr;
}
#else
static unsigned impls(const struct cis_mask_impl **ret)
{
	ret[0] = &cis_mask_c;
	return 1;
}
#endif

const struct cis_mask_impl *cis_mask_impl(unsigned i)
{
	const struct cis_mask_impl *all[3];

	return i < impls(all) ? all[i] : NULL;
}

const struct cis_mask_impl *cis_mask_best(void)
{
	static const struct cis_mask_impl *best; /* the same for whoever writes it first */
	const struct cis_mask_impl *chosen = __atomic_load_n(&best, __ATOMIC_RELAXED);

	if (!chosen) {
		const struct cis_mask_impl *all[3];

		chosen = all[impls(all) - 1];
		__atomic_store_n(&best, chosen, __ATOMIC_RELAXED);
	}
	return chosen;
}
