/* What the planner measures of codecs, on a sample of the memory at hand. */
#include "image/plan.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"

#define PAGE		4096
#define READ_PER_SAMPLE 64
#define RUNS		5
#define DICT_CHUNK_MAX	(16 << 10) /* limits of the design: dictionaries do nothing for larger chunks */

/** struct extents - the data of a source, with the blocks before each */
struct extents {
	struct {
		uint64_t start, end, blocks_before;
	} * e;
	size_t nr;
	uint64_t nr_blocks;
};

static int extents_add(struct extents *x, uint64_t start, uint64_t end, uint64_t block)
{
	if ((x->nr & (x->nr - 1)) == 0) { /* full at every power of two */
		void *grown = realloc(x->e, (x->nr ? 2 * x->nr : 1) * sizeof(*x->e));

		if (!grown)
			return -ENOMEM;
		x->e = grown;
	}
	x->e[x->nr].start = start;
	x->e[x->nr].end = end;
	x->e[x->nr++].blocks_before = x->nr_blocks;
	x->nr_blocks += (end - start + block - 1) / block;
	return 0;
}

static int extents_list(struct cis_image_source *src, uint64_t block, struct extents *x,
			struct cis_error *err)
{
	uint64_t start, end = 0;
	int r;

	while (!(r = src->next_data(src, end, &start, &end, err)))
		if (extents_add(x, start, end, block))
			return cis_fail(err, ENOMEM, "no memory for the map of holes");
	return r == -ENXIO ? 0 : r;
}

static uint64_t block_at(const struct extents *x, uint64_t n, uint64_t block, uint64_t *ret_len)
{
	size_t low = 0, high = x->nr;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (x->e[mid].blocks_before <= n)
			low = mid;
		else
			high = mid;
	}
	uint64_t at = x->e[low].start + (n - x->e[low].blocks_before) * block;

	*ret_len = x->e[low].end - at < block ? x->e[low].end - at : block;
	return at;
}

/* Bit reversal of @i in @bits bits: van der Corput's sequence, evenly spread after any number of steps. */
static uint64_t spread(uint64_t i, unsigned bits)
{
	uint64_t r = 0;

	for (unsigned b = 0; b < bits; b++)
		r |= ((i >> b) & 1) << (bits - 1 - b);
	return r;
}

static size_t keep_pages(const uint8_t *block, size_t len, uint8_t *to, size_t room)
{
	size_t kept = 0;
	uint64_t word;

	for (size_t at = 0; at + PAGE <= len && kept + PAGE <= room; at += PAGE) {
		if (cis_same_word(block + at, PAGE, &word))
			continue;
		memcpy(to + kept, block + at, PAGE);
		kept += PAGE;
	}
	return kept;
}

static int sample_fill(struct cis_image_source *src, const struct extents *x, size_t max_bytes,
		       struct cis_plan_sample *s, struct cis_error *err)
{
	_cleanup_free_ uint8_t *block = malloc(s->chunk_bytes);
	uint64_t visits = READ_PER_SAMPLE * (uint64_t)max_bytes / s->chunk_bytes;
	unsigned bits = 0;
	uint64_t len;

	if (!block)
		return cis_fail(err, ENOMEM, "no memory for a sample");
	while (bits < 63 && (uint64_t)1 << bits < x->nr_blocks)
		bits++;
	for (uint64_t i = 0; i >> bits == 0 && visits && s->len < max_bytes; i++) {
		uint64_t n = spread(i, bits);

		if (n >= x->nr_blocks)
			continue;
		uint64_t at = block_at(x, n, s->chunk_bytes, &len);
		int r = src->read(src, at, block, len, err);

		if (r)
			return r;
		s->len += keep_pages(block, len, s->bytes + s->len, max_bytes - s->len);
		visits--;
	}
	return s->len ? 0 : cis_fail(err, ENODATA, "all pages seen are zero or one repeated word");
}

int cis_plan_sample_take(struct cis_image_source *src, size_t chunk_bytes, size_t max_bytes,
			 struct cis_plan_sample *ret, struct cis_error *err)
{
	struct cis_plan_sample s = { .bytes = malloc(max_bytes), .chunk_bytes = chunk_bytes };
	struct extents x = { 0 };
	int r;

	if (!s.bytes)
		return cis_fail(err, ENOMEM, "no memory for a sample");
	r = extents_list(src, chunk_bytes, &x, err);
	if (!r)
		r = sample_fill(src, &x, max_bytes, &s, err);
	free(x.e);
	if (r)
		cis_plan_sample_fini(&s);
	else
		*ret = s;
	return r;
}

/* The parts of one page, in pieces of 4 KiB, as far as there is room. */
static int add_hot(struct cis_image_source *src, uint64_t off, uint64_t len, size_t max_bytes,
		   struct cis_plan_sample *s, struct cis_error *err)
{
	uint8_t page[PAGE];

	for (uint64_t end = off + len; off < end && off + PAGE <= src->guest_bytes && s->len < max_bytes;
	     off += PAGE) {
		int r = src->read(src, off, page, PAGE, err);

		if (r)
			return r;
		s->len += keep_pages(page, PAGE, s->bytes + s->len, max_bytes - s->len);
	}
	return 0;
}

int cis_plan_sample_hot(struct cis_image_source *src, const uint32_t *pgno, uint64_t nr, unsigned page_shift,
			size_t chunk_bytes, size_t max_bytes, struct cis_plan_sample *ret,
			struct cis_error *err)
{
	struct cis_plan_sample s = { .bytes = malloc(max_bytes), .chunk_bytes = chunk_bytes };
	int r = 0;

	if (!s.bytes)
		return cis_fail(err, ENOMEM, "no memory for a sample");
	for (uint64_t i = 0; i < nr && s.len < max_bytes && !r; i++)
		r = add_hot(src, (uint64_t)pgno[i] << page_shift, (uint64_t)1 << page_shift, max_bytes, &s,
			    err);
	if (!r && !s.len)
		r = cis_fail(err, ENODATA, "all hot pages are zero or one repeated word");
	if (r)
		cis_plan_sample_fini(&s);
	else
		*ret = s;
	return r;
}

void cis_plan_sample_fini(struct cis_plan_sample *sample)
{
	free(sample->bytes);
	*sample = (struct cis_plan_sample){ 0 };
}

size_t cis_plan_candidates(size_t chunk_bytes, struct cis_plan_codec *ret)
{
	size_t n = 0;

	ret[n++] = (struct cis_plan_codec){ .codec = CIS_CODEC_RAW };
	ret[n++] = (struct cis_plan_codec){ .codec = CIS_CODEC_MASK };
	ret[n++] = (struct cis_plan_codec){ .codec = CIS_CODEC_LZ4 };
	ret[n++] = (struct cis_plan_codec){ .codec = CIS_CODEC_ZSTD, .level = 1 };
	ret[n++] = (struct cis_plan_codec){ .codec = CIS_CODEC_ZSTD, .level = 3 };
	if (chunk_bytes <= DICT_CHUNK_MAX)
		ret[n++] = (struct cis_plan_codec){ .codec = CIS_CODEC_ZSTD_DICT, .level = 3 };
	ret[n++] = (struct cis_plan_codec){ .codec = CIS_CODEC_DEFLATE_CANNED };
	return n;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/** struct trial - one candidate's chunks: where each went and what it became */
struct trial {
	const struct cis_plan_sample *sample;
	size_t nr;
	struct cis_encoder *enc;
	struct cis_decoder *dec;
	uint8_t *stored; /* each chunk at the place of its raw bytes: it is never longer */
	uint8_t *raw;
	size_t *len;
	enum cis_codec *codec;
};

static size_t chunk_len(const struct trial *t, size_t i)
{
	size_t at = i * t->sample->chunk_bytes;

	return t->sample->len - at < t->sample->chunk_bytes ? t->sample->len - at : t->sample->chunk_bytes;
}

static size_t encode_all(struct trial *t)
{
	size_t total = 0;

	for (size_t i = 0; i < t->nr; i++) {
		size_t at = i * t->sample->chunk_bytes;

		t->len[i] = cis_encode(t->enc, t->sample->bytes + at, chunk_len(t, i), t->stored + at,
				       &t->codec[i]);
		total += t->len[i];
	}
	return total;
}

/* As a restore does it: into one buffer that stays in the cache, verified.  Returns false when a chunk came
 * out wrong. */
static bool decode_all(struct trial *t, const uint64_t *checksum)
{
	for (size_t i = 0; i < t->nr; i++) {
		size_t len = chunk_len(t, i);

		if (cis_decode(t->dec, t->codec[i], t->stored + i * t->sample->chunk_bytes, t->len[i], t->raw,
			       len) ||
		    cis_chunk_checksum(i, t->raw, len) != checksum[i])
			return false;
	}
	return true;
}

static int trial_run(struct trial *t, struct cis_plan_codec *c, struct cis_error *err)
{
	_cleanup_free_ uint64_t *checksum = calloc(t->nr, sizeof(*checksum));
	uint64_t encode_ns = UINT64_MAX, decode_ns = UINT64_MAX, start, ns;
	size_t stored = 0;

	if (!checksum)
		return cis_fail(err, ENOMEM, "no memory to measure codecs");
	for (size_t i = 0; i < t->nr; i++)
		checksum[i] =
			cis_chunk_checksum(i, t->sample->bytes + i * t->sample->chunk_bytes, chunk_len(t, i));
	for (int run = 0; run < RUNS; run++) {
		if (run < 2) { /* twice: encoding is slow, and no plan depends on it */
			start = cpu_ns();
			stored = encode_all(t);
			ns = cpu_ns() - start;
			encode_ns = ns < encode_ns ? ns : encode_ns;
		}
		start = cpu_ns();
		if (!decode_all(t, checksum))
			return cis_fail(err, EBADMSG, "codec %s does not give back what it was given",
					cis_codec_name(c->codec));
		ns = cpu_ns() - start;
		decode_ns = ns < decode_ns ? ns : decode_ns;
	}
	c->ratio = (double)t->sample->len / (double)stored;
	c->encode_rate = (double)t->sample->len * 1e9 / (double)(encode_ns + 1);
	c->decode_rate = (double)t->sample->len * 1e9 / (double)(decode_ns + 1);
	return 0;
}

static int train(const struct cis_plan_sample *sample, const struct cis_plan_codec *c,
		 struct cis_codec_params **ret, struct cis_error *err)
{
	size_t nr = (sample->len + sample->chunk_bytes - 1) / sample->chunk_bytes;
	_cleanup_free_ size_t *sizes = malloc(nr * sizeof(*sizes));
	struct trial t = { .sample = sample };

	if (!sizes)
		return cis_fail(err, ENOMEM, "no memory to train a codec");
	for (size_t i = 0; i < nr; i++)
		sizes[i] = chunk_len(&t, i);
	return cis_codec_train(c->codec, sample->bytes, sizes, nr, c->level, ret, err);
}

int cis_plan_measure_codec(const struct cis_plan_sample *sample, struct cis_plan_codec *c,
			   struct cis_error *err)
{
	size_t nr = (sample->len + sample->chunk_bytes - 1) / sample->chunk_bytes;
	struct cis_codec_params *params = NULL;
	struct trial t = { .sample = sample, .nr = nr };
	int r = 0;

	if (c->codec == CIS_CODEC_ZSTD_DICT || c->codec == CIS_CODEC_DEFLATE_CANNED)
		r = train(sample, c, &params, err);
	if (!r)
		r = cis_encoder_create(c->codec, c->level, sample->chunk_bytes, params, &t.enc, err);
	if (!r && cis_decoder_create(sample->chunk_bytes, params, &t.dec))
		r = cis_fail(err, ENOMEM, "no memory for a decoder");
	t.stored = malloc(sample->len);
	t.raw = malloc(sample->chunk_bytes);
	t.len = calloc(nr, sizeof(*t.len));
	t.codec = calloc(nr, sizeof(*t.codec));
	if (!r && (!t.stored || !t.raw || !t.len || !t.codec))
		r = cis_fail(err, ENOMEM, "no memory to measure codecs");
	if (!r)
		r = trial_run(&t, c, err);
	cis_encoder_destroy(t.enc);
	cis_decoder_destroy(t.dec);
	cis_codec_params_unref(params);
	free(t.stored);
	free(t.raw);
	free(t.len);
	free(t.codec);
	return r;
}
