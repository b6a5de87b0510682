#include "stream.h"

#include <lz4frame.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codec/isal.h"
#include "snapshots.h"

struct stream {
	enum stream_kind kind;
	LZ4F_dctx *lz4;
	ZSTD_DStream *zstd;
	struct inflate_state deflate;
};

static const char *const names[STREAM_ALL] = {"lz4", "zstd 1", "deflate 1", "deflate 1, 4 KiB history"};

const char *stream_name(enum stream_kind kind)
{
	return names[kind];
}

size_t stream_bound(enum stream_kind kind, size_t len)
{
	switch (kind) {
	case STREAM_LZ4:
		return LZ4F_compressFrameBound(len, NULL);
	case STREAM_ZSTD:
		return ZSTD_compressBound(len);
	default:
		return len + len / 8 + 4096;
	}
}

/* ISA-L leaves the upper halves of vector registers dirty, which slows down all SSE code after it. */
static void vector_clean(void)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vzeroupper");
#endif
}

/* @hist_bits: log of how far matches reach back; 0: 32 KiB */
static size_t deflate_encode(const void *src, size_t len, void *dst, uint32_t hist_bits)
{
	static uint8_t level[ISAL_DEF_LVL1_DEFAULT];
	struct isal_zstream z;

	isal_deflate_stateless_init(&z);
	z.level = 1;
	z.hist_bits = hist_bits;
	z.level_buf = level;
	z.level_buf_size = sizeof(level);
	z.next_in = (uint8_t *)src;
	z.avail_in = (uint32_t)len;
	z.end_of_stream = 1;
	z.next_out = dst;
	z.avail_out = (uint32_t)stream_bound(STREAM_DEFLATE, len);
	if (isal_deflate_stateless(&z) != COMP_OK)
		bench_die("deflate", "does not compress");
	vector_clean();
	return z.total_out;
}

size_t stream_encode(enum stream_kind kind, const void *src, size_t len, void *dst)
{
	size_t n;

	switch (kind) {
	case STREAM_LZ4:
		n = LZ4F_compressFrame(dst, stream_bound(kind, len), src, len, NULL);
		if (LZ4F_isError(n))
			bench_die("lz4", LZ4F_getErrorName(n));
		return n;
	case STREAM_ZSTD:
		n = ZSTD_compress(dst, stream_bound(kind, len), src, len, 1);
		if (ZSTD_isError(n))
			bench_die("zstd", ZSTD_getErrorName(n));
		return n;
	default:
		return deflate_encode(src, len, dst, kind == STREAM_DEFLATE_4K ? 12 : 0);
	}
}

struct stream *stream_create(enum stream_kind kind)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		bench_die("stream", "no memory");
	s->kind = kind;
	if (kind == STREAM_LZ4 && LZ4F_isError(LZ4F_createDecompressionContext(&s->lz4, LZ4F_VERSION)))
		bench_die("lz4", "no memory");
	if (kind == STREAM_ZSTD)
		s->zstd = ZSTD_createDStream();
	stream_reset(s);
	return s;
}

void stream_destroy(struct stream *s)
{
	LZ4F_freeDecompressionContext(s->lz4);
	ZSTD_freeDStream(s->zstd);
	free(s);
}

void stream_reset(struct stream *s)
{
	switch (s->kind) {
	case STREAM_LZ4:
		LZ4F_resetDecompressionContext(s->lz4);
		break;
	case STREAM_ZSTD:
		ZSTD_DCtx_reset(s->zstd, ZSTD_reset_session_only);
		break;
	default:
		isal_inflate_init(&s->deflate);
		break;
	}
}

static void lz4_step(struct stream *s, const uint8_t **in, size_t *in_len, uint8_t **out, size_t *out_len)
{
	size_t used = *in_len, made = *out_len, rc = LZ4F_decompress(s->lz4, *out, &made, *in, &used, NULL);

	if (LZ4F_isError(rc))
		bench_die("lz4", LZ4F_getErrorName(rc));
	*in += used;
	*in_len -= used;
	*out += made;
	*out_len -= made;
}

static void zstd_step(struct stream *s, const uint8_t **in, size_t *in_len, uint8_t **out, size_t *out_len)
{
	ZSTD_inBuffer from = {*in, *in_len, 0};
	ZSTD_outBuffer to = {*out, *out_len, 0};
	size_t rc = ZSTD_decompressStream(s->zstd, &to, &from);

	if (ZSTD_isError(rc))
		bench_die("zstd", ZSTD_getErrorName(rc));
	*in += from.pos;
	*in_len -= from.pos;
	*out += to.pos;
	*out_len -= to.pos;
}

static void deflate_step(struct stream *s, const uint8_t **in, size_t *in_len, uint8_t **out, size_t *out_len)
{
	struct inflate_state *z = &s->deflate;

	z->next_in = (uint8_t *)*in;
	z->avail_in = (uint32_t)*in_len;
	z->next_out = *out;
	z->avail_out = (uint32_t)*out_len;
	if (isal_inflate(z) != ISAL_DECOMP_OK)
		bench_die("deflate", "damaged");
	vector_clean();
	*in = z->next_in;
	*in_len = z->avail_in;
	*out = z->next_out;
	*out_len = z->avail_out;
}

void stream_decode(struct stream *s, const uint8_t **in, size_t *in_len, uint8_t **out, size_t *out_len)
{
	while (*in_len && *out_len) {
		size_t left = *in_len + *out_len;

		switch (s->kind) {
		case STREAM_LZ4:
			lz4_step(s, in, in_len, out, out_len);
			break;
		case STREAM_ZSTD:
			zstd_step(s, in, in_len, out, out_len);
			break;
		default:
			deflate_step(s, in, in_len, out, out_len);
			break;
		}
		if (*in_len + *out_len == left)
			bench_die(names[s->kind], "a stream is shorter than it should be");
	}
}
