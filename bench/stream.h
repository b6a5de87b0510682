/*
 * Compressed streams as Sabre makes them, by the same libraries that we use: any number of pages in one stream, decoded
 * piece by piece as its bytes come in.  For the benchmarks that compare our chunks with them.
 */
#ifndef CIS_BENCH_STREAM_H
#define CIS_BENCH_STREAM_H

#include <stddef.h>
#include <stdint.h>

/** enum stream_kind - Sabre's, and one that is none of them: DEFLATE whose matches reach back 4 KiB, as in our chunks */
enum stream_kind { STREAM_LZ4, STREAM_ZSTD, STREAM_DEFLATE, STREAM_KINDS, STREAM_DEFLATE_4K = STREAM_KINDS, STREAM_ALL };

/** stream_name() - with its level: "lz4", "zstd 1", "deflate 1", "deflate 1, 4 KiB history". */
const char *stream_name(enum stream_kind kind);

/** stream_bound() - most bytes that @len may become. */
size_t stream_bound(enum stream_kind kind, size_t len);

/** stream_encode() - one stream of @len bytes into @dst, which has room for stream_bound().  Return: its length. */
size_t stream_encode(enum stream_kind kind, const void *src, size_t len, void *dst);

struct stream;

struct stream *stream_create(enum stream_kind kind);
void stream_destroy(struct stream *s);

/** stream_reset() - a new stream begins. */
void stream_reset(struct stream *s);

/**
 * stream_decode() - go on until the input is used up or the output is full
 * @in, @in_len, @out, @out_len: moved on by what was used
 *
 * Exits with a message when the stream is damaged.
 */
void stream_decode(struct stream *s, const uint8_t **in, size_t *in_len, uint8_t **out, size_t *out_len);

#endif
