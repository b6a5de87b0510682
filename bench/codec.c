/*
 * bench codec: ratio, encode and decode rate of each codec against memcpy of the same bytes.
 *
 * On the non-zero pages of memory files, CISTERN_BENCH_GUESTS=dir with *.raw, and on the working set of each that has
 * a trace beside it (NAME.trace); on synthetic memory without them.  Both sides work chunk by chunk between buffers
 * larger than the caches.  CISTERN_BENCH_CHUNK=KiB, 64 unless told; CISTERN_BENCH_CODEC=name, all unless told.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tests/unit/codec-data.h"
#include "base/cleanup.h"
#include "bench.h"
#include "codec/codec.h"
#include "codec/mask.h"
#include "image/trace.h"

#define PAGE        4096u
#define DATA_MAX    (256u << 20)
#define TRAIN_BYTES (8u << 20)

struct data {
	char name[80];
	int whole; /* a whole guest, not a working set */
	uint8_t *bytes;
	size_t len;
};

struct subject {
	const char *name;
	enum cis_codec codec;
	int level;
	size_t max_bytes; /* chunks spread evenly over the data, this much of them */
	double seconds;
};

static const struct subject subjects[] = {
	{"mask", CIS_CODEC_MASK, 0, DATA_MAX, 2},
	{"lz4", CIS_CODEC_LZ4, 0, 64u << 20, 1},
	{"lz4 hc 9", CIS_CODEC_LZ4, 9, 8u << 20, 1},
	{"zstd 1", CIS_CODEC_ZSTD, 1, 32u << 20, 1},
	{"zstd 3", CIS_CODEC_ZSTD, 3, 32u << 20, 1},
	{"zstd-dict 3", CIS_CODEC_ZSTD_DICT, 3, 32u << 20, 1},
	{"deflate 1", CIS_CODEC_DEFLATE, 1, 32u << 20, 1},
	{"deflate 3", CIS_CODEC_DEFLATE, 3, 32u << 20, 1},
	{"deflate-canned", CIS_CODEC_DEFLATE_CANNED, 0, 32u << 20, 1},
};

#define SUBJECTS (sizeof(subjects) / sizeof(*subjects))

/* One codec on one piece of data; what the ways below work on. */
struct work {
	const uint8_t *raw;
	size_t chunk, stride, nr; /* chunk i stands at raw + i * stride */
	uint8_t *stored, *out;
	size_t *at; /* nr + 1 offsets in stored */
	uint8_t *codecs;
	struct cis_encoder *enc;
	struct cis_decoder *dec;
	const struct cis_mask_impl *impl;
};

struct summary {
	double log_ratio, log_encode, log_decode;
	unsigned nr;
};

static uint8_t *big_alloc(size_t len)
{
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED) {
		fprintf(stderr, "codec: %zu bytes: %s\n", len, strerror(errno));
		exit(1);
	}
	return p;
}

static void copy_run(void *ctx)
{
	struct work *w = ctx;

	for (size_t i = 0; i < w->nr; i++)
		memcpy(w->out + i * w->chunk, w->raw + i * w->stride, w->chunk);
}

static void encode_run(void *ctx)
{
	struct work *w = ctx;
	enum cis_codec codec;

	for (size_t i = 0; i < w->nr; i++) {
		w->at[i + 1] = w->at[i] + cis_encode(w->enc, w->raw + i * w->stride, w->chunk, w->stored + w->at[i],
						     &codec);
		w->codecs[i] = (uint8_t)codec;
	}
}

static void decode_run(void *ctx)
{
	struct work *w = ctx;

	for (size_t i = 0; i < w->nr; i++)
		if (cis_decode(w->dec, w->codecs[i], w->stored + w->at[i], w->at[i + 1] - w->at[i],
			       w->out + i * w->chunk, w->chunk))
			abort();
}

static void impl_encode_run(void *ctx)
{
	struct work *w = ctx;

	for (size_t i = 0; i < w->nr; i++)
		w->impl->encode(w->raw + i * w->stride, w->chunk, w->out + i * w->chunk);
}

static void impl_decode_run(void *ctx)
{
	struct work *w = ctx;

	for (size_t i = 0; i < w->nr; i++)
		if (w->codecs[i] == CIS_CODEC_MASK)
			w->impl->decode(w->stored + w->at[i], w->at[i + 1] - w->at[i], w->out + i * w->chunk, w->chunk);
}

static void check(const struct work *w)
{
	for (size_t i = 0; i < w->nr; i++) {
		if (memcmp(w->out + i * w->chunk, w->raw + i * w->stride, w->chunk)) {
			fprintf(stderr, "codec: chunk %zu did not come back\n", i);
			exit(1);
		}
	}
}

static struct cis_codec_params *train(const struct data *d, enum cis_codec codec, size_t chunk)
{
	size_t nr = TRAIN_BYTES / chunk, have = d->len / chunk;
	size_t step = have / nr ? have / nr : 1;
	struct cis_codec_params *params;
	struct cis_error err;
	_cleanup_free_ uint8_t *samples = NULL;
	_cleanup_free_ size_t *sizes = NULL;

	if (codec != CIS_CODEC_ZSTD_DICT && codec != CIS_CODEC_DEFLATE_CANNED)
		return NULL;
	nr = have < nr ? have : nr;
	samples = malloc(nr * chunk);
	sizes = malloc(nr * sizeof(*sizes));
	if (!samples || !sizes)
		abort();
	for (size_t i = 0; i < nr; i++) {
		memcpy(samples + i * chunk, d->bytes + i * step * chunk, chunk);
		sizes[i] = chunk;
	}
	if (cis_codec_train(codec, samples, sizes, nr, 0, &params, &err)) {
		fprintf(stderr, "codec: %s\n", err.text);
		return NULL;
	}
	return params;
}

static void work_init(struct work *w, const struct data *d, size_t chunk, size_t max_bytes)
{
	size_t have = d->len / chunk, most = max_bytes / chunk;

	*w = (struct work){.raw = d->bytes, .chunk = chunk};
	w->nr = have < most ? have : most;
	w->stride = have / w->nr * chunk;
	w->stored = big_alloc(w->nr * chunk);
	w->out = big_alloc(w->nr * chunk);
	w->at = calloc(w->nr + 1, sizeof(*w->at));
	w->codecs = calloc(w->nr, 1);
	if (!w->at || !w->codecs)
		abort();
}

static void work_fini(struct work *w)
{
	munmap(w->stored, w->nr * w->chunk);
	munmap(w->out, w->nr * w->chunk);
	free(w->at);
	free(w->codecs);
	cis_encoder_destroy(w->enc);
	cis_decoder_destroy(w->dec);
}

static void figure(struct bench *b, const struct data *d, const char *codec, const char *what, double value,
		   const char *unit, double baseline, double ratio)
{
	char text[200];

	snprintf(text, sizeof(text), "%s %s %s", d->name, codec, what);
	bench_figure(b, text, value, unit, baseline, ratio);
}

/* Each implementation by itself, encode and decode; the chosen one is measured by the codec. */
static void mask_impls(struct bench *b, const struct data *d, struct work *w)
{
	double gb = (double)(w->nr * w->chunk) / 1e9;

	for (unsigned i = 0; cis_mask_impl(i); i++) {
		struct bench_way ways[] = {
			{.run = copy_run, .ctx = w}, {.run = impl_encode_run, .ctx = w}, {.run = impl_decode_run, .ctx = w}};
		char name[40];

		w->impl = cis_mask_impl(i);
		snprintf(name, sizeof(name), "mask (%s)", w->impl->name);
		bench_measure(b, ways, 3, 1);
		figure(b, d, name, "encode", gb / ways[1].median, "GB/s", gb / ways[0].median, bench_ratio(&ways[1], &ways[0]));
		figure(b, d, name, "decode", gb / ways[2].median, "GB/s", gb / ways[0].median, bench_ratio(&ways[2], &ways[0]));
	}
}

static void measure(struct bench *b, const struct data *d, const struct subject *s, size_t chunk, struct summary *sum)
{
	struct cis_codec_params *params = train(d, s->codec, chunk);
	struct cis_error err;
	struct work w;
	double gb, ratio;

	work_init(&w, d, chunk, s->max_bytes);
	if (cis_encoder_create(s->codec, s->level, chunk, params, &w.enc, &err) ||
	    cis_decoder_create(chunk, params, &w.dec)) {
		fprintf(stderr, "codec: %s: %s\n", s->name, err.text);
	} else {
		struct bench_way ways[] = {
			{.run = copy_run, .ctx = &w}, {.run = encode_run, .ctx = &w}, {.run = decode_run, .ctx = &w}};

		bench_measure(b, ways, 3, s->seconds);
		decode_run(&w);
		check(&w);
		gb = (double)(w.nr * w.chunk) / 1e9;
		ratio = (double)(w.nr * w.chunk) / (double)w.at[w.nr];
		figure(b, d, s->name, "ratio", ratio, "x", 1, ratio);
		figure(b, d, s->name, "encode", gb / ways[1].median, "GB/s", gb / ways[0].median,
		       bench_ratio(&ways[1], &ways[0]));
		figure(b, d, s->name, "decode", gb / ways[2].median, "GB/s", gb / ways[0].median,
		       bench_ratio(&ways[2], &ways[0]));
		sum->log_ratio += log(ratio);
		sum->log_encode += log(bench_ratio(&ways[1], &ways[0]));
		sum->log_decode += log(bench_ratio(&ways[2], &ways[0]));
		sum->nr++;
		if (s->codec == CIS_CODEC_MASK)
			mask_impls(b, d, &w);
	}
	work_fini(&w);
	cis_codec_params_unref(params);
}

struct run {
	size_t chunk;
	const char *only; /* name of a codec, or NULL */
	unsigned pieces;
	struct summary whole[SUBJECTS], sets[SUBJECTS];
};

/* Measures and frees @d. */
static void data_bench(struct bench *b, struct run *run, struct data *d)
{
	char title[160];

	snprintf(title, sizeof(title), "%s: %.1f MiB not zero, chunks of %zu KiB", d->name,
		 (double)d->len / 1048576, run->chunk / 1024);
	bench_title(b, title);
	if (d->len >= run->chunk)
		for (size_t i = 0; i < SUBJECTS; i++)
			if (!run->only || !strcmp(run->only, cis_codec_name(subjects[i].codec)))
				measure(b, d, &subjects[i], run->chunk, d->whole ? &run->whole[i] : &run->sets[i]);
	munmap(d->bytes, DATA_MAX);
	run->pieces++;
}

static int is_zero(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE - 1);
}

static void data_add(struct data *d, const uint8_t *page)
{
	if (is_zero(page) || d->len == DATA_MAX)
		return;
	memcpy(d->bytes + d->len, page, PAGE);
	d->len += PAGE;
}

/* The pages of @trace in its order, or all; holes are not read. */
static int guest_read(struct data *d, int fd, const struct cis_trace *trace)
{
	static uint8_t buf[1 << 20];
	off_t at = 0;
	ssize_t n;

	d->bytes = big_alloc(DATA_MAX);
	for (uint64_t i = 0; trace && i < trace->nr; i++)
		if (pread(fd, buf, PAGE, (off_t)trace->pgno[i] * PAGE) == PAGE)
			data_add(d, buf);
	while (!trace && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		at -= at % PAGE;
		n = pread(fd, buf, sizeof(buf), at);
		if (n < (ssize_t)PAGE)
			break;
		for (ssize_t i = 0; i + (ssize_t)PAGE <= n; i += PAGE)
			data_add(d, buf + i);
		at += n;
	}
	return d->len >= PAGE ? 0 : -ENODATA;
}

/* One piece of data after the other, as each holds hundreds of megabytes. */
static void guest_bench(struct bench *b, struct run *run, const char *dir, const char *file)
{
	int stem = (int)strlen(file) - 4;
	struct data d = {.whole = 1};
	struct cis_trace trace;
	char path[4096];
	_cleanup_close_ int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "codec: %s: %s\n", path, strerror(errno));
		return;
	}
	snprintf(d.name, sizeof(d.name), "%.*s", stem, file);
	if (!guest_read(&d, fd, NULL))
		data_bench(b, run, &d);
	snprintf(path, sizeof(path), "%s/%.*s.trace", dir, stem, file);
	if (access(path, R_OK) || cis_trace_load(path, &trace, NULL))
		return;
	d = (struct data){.whole = 0};
	snprintf(d.name, sizeof(d.name), "%.*s-ws", stem, file);
	if (trace.page_shift == 12 && !guest_read(&d, fd, &trace))
		data_bench(b, run, &d);
	cis_trace_fini(&trace);
}

static void guests_bench(struct bench *b, struct run *run, const char *dir)
{
	struct dirent **names;
	int n = scandir(dir, &names, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		size_t len = strlen(names[i]->d_name);

		if (len > 4 && !strcmp(names[i]->d_name + len - 4, ".raw"))
			guest_bench(b, run, dir, names[i]->d_name);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

/* Pages of several kinds in turn, in the proportions of a heap beside text, tables and some compressed data. */
static void synthetic(struct data *d)
{
	static const enum data_kind mix[] = {DATA_POINTERS, DATA_TEXT,     DATA_SPARSE, DATA_POINTERS,
					     DATA_RANDOM,   DATA_POINTERS, DATA_TEXT,   DATA_RUNS};

	snprintf(d->name, sizeof(d->name), "synthetic");
	d->whole = 1;
	d->len = DATA_MAX / 2;
	d->bytes = big_alloc(DATA_MAX);
	for (size_t i = 0; i < d->len / PAGE; i++)
		data_make(mix[i / 4 % 8], d->bytes + i * PAGE, PAGE, i);
}

static void summary(struct bench *b, const struct summary *sums, const char *which)
{
	for (size_t i = 0; i < SUBJECTS; i++) {
		double nr = sums[i].nr;
		char text[120];

		if (!sums[i].nr)
			continue;
		snprintf(text, sizeof(text), "%s %s ratio, geomean", which, subjects[i].name);
		bench_figure(b, text, exp(sums[i].log_ratio / nr), "x", 1, exp(sums[i].log_ratio / nr));
		snprintf(text, sizeof(text), "%s %s encode / memcpy, geomean", which, subjects[i].name);
		bench_figure(b, text, exp(sums[i].log_encode / nr), "x", 1, exp(sums[i].log_encode / nr));
		snprintf(text, sizeof(text), "%s %s decode / memcpy, geomean", which, subjects[i].name);
		bench_figure(b, text, exp(sums[i].log_decode / nr), "x", 1, exp(sums[i].log_decode / nr));
	}
}

int main(void)
{
	const char *dir = getenv("CISTERN_BENCH_GUESTS"), *kib = getenv("CISTERN_BENCH_CHUNK");
	struct run run = {.chunk = (kib ? (size_t)atoi(kib) : 64) * 1024, .only = getenv("CISTERN_BENCH_CODEC")};
	struct bench b;

	bench_open(&b, "codec");
	if (run.chunk < PAGE || run.chunk > (2u << 20) || run.chunk % PAGE) {
		fprintf(stderr, "codec: CISTERN_BENCH_CHUNK=%s: 4 to 2048 KiB, a multiple of 4\n", kib);
		return 2;
	}
	if (dir)
		guests_bench(&b, &run, dir);
	if (!run.pieces) {
		struct data d = {.whole = 1};

		printf("no *.raw under CISTERN_BENCH_GUESTS: SYNTHETIC data, made here, like no real guest\n");
		synthetic(&d);
		data_bench(&b, &run, &d);
	}
	bench_title(&b, "all together");
	summary(&b, run.whole, "whole");
	summary(&b, run.sets, "working sets");
	bench_close(&b);
	return 0;
}
