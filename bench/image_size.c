#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "image/write.h"
#include "image_parts.h"
#include "snapshots.h"

#define LEVEL	    3
#define CHUNK_LOG   16 /* of our chunks, and the shorter window of zstd */
#define PIECE_BYTES ((size_t)1 << 20)

/*
 * As the program zstd does it: one frame, its length known beforehand.  @window_log: of how far matches reach; 0: as the
 * level says (2 MiB).
 */
static uint64_t zstd_bytes(const struct bench_snapshot *g, int window_log)
{
	size_t room = ZSTD_CStreamOutSize();
	_cleanup_free_ uint8_t *in = malloc(PIECE_BYTES), *out = malloc(room);
	ZSTD_CCtx *ctx = ZSTD_createCCtx();
	uint64_t total = 0, at = 0;
	size_t left = 1;

	if (!in || !out || !ctx)
		bench_die("zstd", strerror(ENOMEM));
	ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, LEVEL);
	ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
	if (window_log)
		ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, window_log);
	ZSTD_CCtx_setPledgedSrcSize(ctx, g->bytes);
	while (left) {
		ssize_t n = pread(g->fd, in, PIECE_BYTES, (off_t)at);
		ZSTD_inBuffer from = {in, n > 0 ? (size_t)n : 0, 0};

		at += from.size;
		do {
			ZSTD_outBuffer to = {out, room, 0};

			left = ZSTD_compressStream2(ctx, &to, &from, at < g->bytes ? ZSTD_e_continue : ZSTD_e_end);
			if (n < 0 || ZSTD_isError(left))
				bench_die(g->path, n < 0 ? strerror(errno) : ZSTD_getErrorName(left));
			total += to.pos;
		} while (at < g->bytes ? from.pos < from.size : left);
		left = at < g->bytes;
	}
	ZSTD_freeCCtx(ctx);
	return total;
}

static uint64_t image_bytes(const struct bench_snapshot *g, bool hot)
{
	struct cis_write_opts opts = {.size = sizeof(opts), .codec = CIS_CODEC_ZSTD, .level = LEVEL, .workers = 2};
	struct cis_image_source *src;
	struct cis_image *img;
	struct cis_error err;
	char path[4200];
	uint64_t bytes;

	if (hot) {
		opts.hot = g->trace.pgno;
		opts.nr_hot = g->trace.nr;
		opts.hot_window = CIS_HOT_WINDOW;
	}
	snprintf(path, sizeof(path), "%s/size.img", bench_folder());
	if (cis_source_raw(g->path, &src, &err) || cis_image_write(path, src, &opts, &err) ||
	    cis_image_open(path, NULL, &img, &err))
		bench_die(g->path, err.text);
	bytes = cis_image_info(img)->file_bytes;
	cis_image_unref(img);
	cis_source_close(src);
	unlink(path);
	return bytes;
}

void bench_sizes(struct bench *b)
{
	static struct bench_snapshots s;
	double log_ratio = 0;

	bench_snapshots_open(&s);
	bench_title(b, "image size, zstd level 3, against zstd -3 of the whole file; ratio: ours to it, at most 1.1 is wanted");
	for (size_t i = 0; i < s.nr; i++) {
		const struct bench_snapshot *g = &s.snapshot[i];
		double whole = (double)zstd_bytes(g, 0) / 1e6, near = (double)zstd_bytes(g, CHUNK_LOG) / 1e6;
		double ours = (double)image_bytes(g, false) / 1e6;
		char text[120];

		snprintf(text, sizeof(text), "size of %s", g->name);
		bench_figure(b, text, ours, "MB", whole, ours / whole);
		snprintf(text, sizeof(text), "size of %s, to zstd that looks back 64 KiB", g->name);
		bench_figure(b, text, ours, "MB", near, ours / near);
		log_ratio += log(ours / whole);
		if (!g->trace.nr)
			continue;
		ours = (double)image_bytes(g, true) / 1e6;
		snprintf(text, sizeof(text), "size of %s, with a hot section", g->name);
		bench_figure(b, text, ours, "MB", whole, ours / whole);
	}
	bench_figure(b, "size, geomean", exp(log_ratio / (double)s.nr), "x", 1, exp(log_ratio / (double)s.nr));
	bench_snapshots_close(&s);
}
