#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/writer.h"

/* As much as zstd asks for: a hundred times the usual dictionary of 112 KiB. */
#define SAMPLE_BYTES ((size_t)12 << 20)
#define SAMPLES_MAX  4096
#define BLOCK	     4096

struct samples {
	uint8_t *bytes;
	size_t *sizes;
	size_t nr, len;
};

static int data_bytes(struct cis_writer *w, uint64_t *ret)
{
	uint64_t at = 0, start, end, sum = 0;
	int rc;

	while (!(rc = cis_writer_next_data(w, at, &start, &end))) {
		sum += end - start;
		at = end;
		if (at >= w->h.guest_bytes)
			break;
	}
	*ret = sum;
	return rc == -ENXIO ? 0 : rc;
}

/* Blocks that become no chunk teach nothing. */
static void keep_content(struct samples *s, const uint8_t *buf, size_t len)
{
	size_t from = s->len;
	uint64_t word;

	for (size_t i = 0; i + BLOCK <= len; i += BLOCK) {
		if (cis_same_word(buf + i, BLOCK, &word))
			continue;
		memcpy(s->bytes + s->len, buf + i, BLOCK);
		s->len += BLOCK;
	}
	if (s->len > from)
		s->sizes[s->nr++] = s->len - from;
}

/* One sample every @step bytes of data, a chunk each; holes do not count. */
static int read_samples(struct cis_writer *w, uint64_t step, struct samples *s)
{
	size_t chunk = (size_t)1 << w->h.chunk_shift;
	uint64_t at = 0, start, end, next = 0, before = 0; /* before: bytes of data below start */
	int rc;

	while (!(rc = cis_writer_next_data(w, at, &start, &end))) {
		for (; next < before + (end - start) && s->nr < SAMPLES_MAX; next += step) {
			uint64_t from = (start + (next - before)) / BLOCK * BLOCK;
			size_t len = end - from < chunk ? (size_t)(end - from) : chunk;

			if (s->len + len > SAMPLE_BYTES)
				return 0;
			rc = w->src->read(w->src, from, w->piece, len, w->err);
			if (rc)
				return rc;
			keep_content(s, w->piece, len);
		}
		before += end - start;
		at = end;
		if (at >= w->h.guest_bytes)
			break;
	}
	return rc == -ENXIO ? 0 : rc;
}

static int learn(struct cis_writer *w, enum cis_codec codec, struct samples *s)
{
	uint64_t bytes, nr = SAMPLE_BYTES >> w->h.chunk_shift, step;
	int rc = data_bytes(w, &bytes);

	if (rc)
		return rc;
	step = bytes / (nr < SAMPLES_MAX ? nr : SAMPLES_MAX);
	if (step < (uint64_t)1 << w->h.chunk_shift)
		step = (uint64_t)1 << w->h.chunk_shift;
	rc = read_samples(w, step, s);
	if (rc)
		return rc;
	return s->nr ? cis_codec_train(codec, s->bytes, s->sizes, s->nr, w->o.level, &w->params, w->err)
		     : -ENODATA;
}

int cis_writer_train(struct cis_writer *w, enum cis_codec *ret_codec)
{
	enum cis_codec codec = w->o.codec;
	struct samples s = { 0 };
	int rc;

	*ret_codec = codec;
	if (codec != CIS_CODEC_ZSTD_DICT && codec != CIS_CODEC_DEFLATE_CANNED)
		return 0;
	s.bytes = malloc(SAMPLE_BYTES);
	s.sizes = calloc(SAMPLES_MAX, sizeof(*s.sizes));
	rc = s.bytes && s.sizes ? learn(w, codec, &s)
				: cis_fail(w->err, ENOMEM, "%s: no memory to train", w->out.path);
	free(s.bytes);
	free(s.sizes);
	if (rc != -ENODATA)
		return rc;
	*ret_codec = codec == CIS_CODEC_ZSTD_DICT ? CIS_CODEC_ZSTD : CIS_CODEC_DEFLATE;
	return 0;
}
