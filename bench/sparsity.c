/*
 * bench sparsity: Sabre's figure 8 (OSDI'24).  174.5 MB of pages, in runs of 1 to 20000 with gaps as long between them, are
 * brought into fresh anonymous memory.
 *
 *   ours            one worker of the pager on an image of each codec, userfaultfd and all
 *   REAP            read it all past the page cache, then one ranged UFFDIO_COPY a run
 *   REAP, pipelined the same, copying what has come while the rest is read
 *   one stream      Sabre's first design in software: one compressed stream, decoded as it comes in into memory kept for
 *                   it, then one ranged UFFDIO_COPY a run
 *   a stream a run  Sabre's second design in software: decoded straight to where it belongs, into memory that the kernel
 *                   hands out on the way
 *   mapping         private, of the memory file, with a warm and a cold page cache, one byte of each page read or written
 *
 * Beside them, to tell what a difference is due to: Sabre's with DEFLATE and a history of 4 KiB, as our chunks have; ours with
 * lz4 in chunks of 256 KiB; and how many bytes each of the fastest has to read.
 *
 * All on one thread.  Read at 550 MB/s (Sabre's disk) by the throttled store, which all but the mappings read through, and
 * as fast as the disk here gives it, with a cold page cache.  The pages are real guests'.
 *
 * CISTERN_BENCH_MB=n for another amount, CISTERN_BENCH_RUNS=1,50 for other run lengths.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "os/memfd.h"
#include "os/uffd.h"
#include "sparsity.h"

#define DATA_BYTES 174500000u
#define RUNS_MAX   10u
#define DECIDING   10 /* seconds for the ways of which one is Sabre's best and one ours: they are close */

static void compare(const struct way *w)
{
	const struct bed *bed = w->bed;

	for (size_t i = 0; i < bed->nr; i++)
		if (memcmp(bed->dst + (uint64_t)bed->pgno[i] * BENCH_PAGE, bed->data + i * BENCH_PAGE, BENCH_PAGE))
			bench_die(w->name, "a page does not hold what it should");
}

/* What is measured of one run length. */

enum { REAP, REAP_PIPED, ONE, EACH = ONE + STREAM_KINDS, OURS = EACH + STREAM_KINDS, FREE = OURS + CODECS };
enum { FREE_REAP = FREE, FREE_OURS, WARM_READ = FREE_OURS + CODECS, WARM_WRITE, COLD_READ, COLD_WRITE };
enum { ONE_4K = COLD_WRITE + 1, EACH_4K, OURS_LONG, WAYS };

static void way_set(struct way *w, struct bench_way *b, struct bed *bed, void (*run)(void *), const struct file *file,
		    const char *name, const char *more)
{
	*w = (struct way){.bed = bed, .file = file, .path = file->path, .throttled = true};
	snprintf(w->name, sizeof(w->name), "%s%s", name, more);
	*b = (struct bench_way){.run = run, .before = way_before, .ctx = w};
}

static void way_ours(struct way *w, struct bench_way *b, struct bed *bed, size_t codec, bool throttled)
{
	struct cis_image *img = bed->image[codec];

	*w = (struct way){.bed = bed, .path = cis_image_info(img)->path, .image = img, .throttled = throttled,
			  .cold = !throttled};
	snprintf(w->name, sizeof(w->name), throttled ? "ours, %s" : "disk: ours, %s", bed_codecs[codec].name);
	*b = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = w};
}

static void way_map(struct way *w, struct bench_way *b, struct bed *bed, bool cold, bool write)
{
	way_set(w, b, bed, map_run, &bed->memory, cold ? "mapping, cold, " : "mapping, warm, ", write ? "written" : "read");
	w->throttled = false;
	w->cold = cold;
	w->write = write;
}

static void ways_set(struct way *w, struct bench_way *b, struct bed *bed)
{
	way_set(&w[REAP], &b[REAP], bed, reap_run, &bed->pages, "REAP", "");
	way_set(&w[REAP_PIPED], &b[REAP_PIPED], bed, reap_run, &bed->pages, "REAP, pipelined", "");
	w[REAP_PIPED].pipelined = true;
	way_set(&w[FREE_REAP], &b[FREE_REAP], bed, reap_run, &bed->pages, "disk: REAP", "");
	w[FREE_REAP].throttled = false;
	w[FREE_REAP].cold = true;
	for (unsigned k = 0; k < STREAM_KINDS; k++) {
		way_set(&w[ONE + k], &b[ONE + k], bed, one_stream_run, &bed->one[k], "one stream, ", stream_name(k));
		way_set(&w[EACH + k], &b[EACH + k], bed, each_stream_run, &bed->each[k], "a stream a run, ", stream_name(k));
		w[ONE + k].kind = w[EACH + k].kind = k;
	}
	way_set(&w[ONE_4K], &b[ONE_4K], bed, one_stream_run, &bed->one[STREAM_DEFLATE_4K], "one stream, ",
		stream_name(STREAM_DEFLATE_4K));
	way_set(&w[EACH_4K], &b[EACH_4K], bed, each_stream_run, &bed->each[STREAM_DEFLATE_4K], "a stream a run, ",
		stream_name(STREAM_DEFLATE_4K));
	w[ONE_4K].kind = w[EACH_4K].kind = STREAM_DEFLATE_4K;
	way_ours(&w[OURS_LONG], &b[OURS_LONG], bed, CODECS, true);
	for (size_t i = 0; i < CODECS; i++) {
		way_ours(&w[OURS + i], &b[OURS + i], bed, i, true);
		way_ours(&w[FREE_OURS + i], &b[FREE_OURS + i], bed, i, false);
	}
	way_map(&w[WARM_READ], &b[WARM_READ], bed, false, false);
	way_map(&w[WARM_WRITE], &b[WARM_WRITE], bed, false, true);
	way_map(&w[COLD_READ], &b[COLD_READ], bed, true, false);
	way_map(&w[COLD_WRITE], &b[COLD_WRITE], bed, true, true);
}

static void figure(struct bench *b, size_t run, const char *what, double seconds, double baseline, double ratio)
{
	char text[240];

	snprintf(text, sizeof(text), "runs of %zu: %s", run, what);
	bench_figure(b, text, seconds * 1e3, "ms", baseline * 1e3, ratio);
}

static size_t fastest(const struct bench_way *b, size_t from, size_t to)
{
	size_t best = from;

	for (size_t i = from; i < to; i++)
		if (b[i].median < b[best].median)
			best = i;
	return best;
}

static void duel(struct bench *b, const struct bed *bed, const char *mine, const char *his, struct bench_way *a,
		 struct bench_way *base)
{
	char text[200];

	snprintf(text, sizeof(text), "best of ours (%s) to %s", mine, his);
	figure(b, bed->run, text, a->median, base->median, bench_ratio(a, base));
}

static void stored(struct bench *b, const struct bed *bed, const struct way *mine, const struct way *his)
{
	double ours_mb = (double)cis_image_info(mine->image)->hot_bytes / 1e6, his_mb = (double)his->file->bytes / 1e6;
	char text[240];

	snprintf(text, sizeof(text), "runs of %zu: read by %s to %s", bed->run, mine->name, his->name);
	bench_figure(b, text, ours_mb, "MB", his_mb, his_mb / ours_mb);
}

/* Ours that is the fastest, and of each of Sabre's designs the fastest; once more by turns, with nothing between them. */
static void decide(struct bench *b, const struct bed *bed, const struct way *w, const struct bench_way *all)
{
	enum { MINE, HIS_ONE, HIS_EACH, BASE, LONG, DUEL };
	size_t from[DUEL] = {fastest(all, OURS + 1, OURS + CODECS), fastest(all, ONE, EACH), fastest(all, EACH, OURS), REAP,
			     OURS_LONG};
	const char *mine = bed_codecs[from[MINE] - OURS].name;
	static struct bench_way way[DUEL];
	size_t his;
	char text[100];

	for (size_t i = 0; i < DUEL; i++)
		way[i] = (struct bench_way){.run = all[from[i]].run, .before = all[from[i]].before, .ctx = all[from[i]].ctx};
	bench_measure(b, way, DUEL, DECIDING);
	his = fastest(way, HIS_ONE, BASE);
	snprintf(text, sizeof(text), "the best of Sabre's (%s)", w[from[his]].name);
	duel(b, bed, mine, "REAP", &way[MINE], &way[BASE]);
	duel(b, bed, mine, text, &way[MINE], &way[his]);
	stored(b, bed, &w[from[MINE]], &w[from[his]]);
	snprintf(text, sizeof(text), "%s to the best of Sabre's (%s)", w[OURS_LONG].name, w[from[his]].name);
	figure(b, bed->run, text, way[LONG].median, way[his].median, bench_ratio(&way[LONG], &way[his]));
	stored(b, bed, &w[OURS_LONG], &w[from[his]]);
}

static void report(struct bench *b, const struct bed *bed, const struct way *w, struct bench_way *way)
{
	size_t canned = OURS + CODECS - 1;
	char text[200];

	for (size_t i = 0; i < WAYS; i++) {
		size_t base = i < FREE || i >= ONE_4K ? REAP : FREE_REAP;

		figure(b, bed->run, w[i].name, way[i].median, way[base].median, bench_ratio(&way[i], &way[base]));
	}
	for (unsigned k = 0; k < STREAM_KINDS; k++) {
		size_t mine = OURS + CODECS - STREAM_KINDS + k; /* lz4, zstd and deflate are the last of ours */
		size_t his = way[ONE + k].median < way[EACH + k].median ? ONE + k : EACH + k;

		snprintf(text, sizeof(text), "%s to the better of Sabre's with it", w[mine].name);
		figure(b, bed->run, text, way[mine].median, way[his].median, bench_ratio(&way[mine], &way[his]));
	}
	for (size_t i = ONE_4K; i <= EACH_4K; i++) {
		snprintf(text, sizeof(text), "%s to %s", w[canned].name, w[i].name);
		figure(b, bed->run, text, way[canned].median, way[i].median, bench_ratio(&way[canned], &way[i]));
	}
}

static void run_bench(struct bench *b, struct bed *bed, size_t run, bool check)
{
	static struct bench_way way[WAYS];
	static struct way w[WAYS];
	char title[120];

	bed_lay(bed, run);
	ways_set(w, way, bed);
	snprintf(title, sizeof(title), "%.1f MB in runs of %zu pages; ratio: how many times as fast as REAP",
		 (double)(bed->nr * BENCH_PAGE) / 1e6, run);
	bench_title(b, title);
	for (size_t i = 0; check && i < WAYS; i++) {
		way[i].before(&w[i]);
		way[i].run(&w[i]);
		compare(&w[i]);
	}
	bench_measure(b, way, WAYS, 0);
	report(b, bed, w, way);
	decide(b, bed, w, way);
	for (size_t i = 0; i < WAYS; i++)
		if (w[i].state.header)
			cis_memfd_unmap(w[i].state.header, w[i].state.bytes);
	bed_clear(bed);
}

static size_t lengths(size_t *ret)
{
	const char *wish = getenv("CISTERN_BENCH_RUNS"), *p = wish && *wish ? wish : "1,2,4,10,20,50,100,1000,5000,20000";
	size_t nr = 0;
	char *end;

	for (; nr < RUNS_MAX; p = end + 1) {
		ret[nr] = strtoul(p, &end, 10);
		if (!ret[nr++] || (*end && *end != ','))
			bench_die("CISTERN_BENCH_RUNS", "run lengths with commas between them");
		if (!*end)
			break;
	}
	return nr;
}

int main(void)
{
	static struct bench_snapshots snapshots;
	const char *mb = getenv("CISTERN_BENCH_MB");
	size_t run[RUNS_MAX], nr = lengths(run);
	struct bed bed;
	struct bench b;
	int fd;

	bench_open(&b, "sparsity");
	if (cis_uffd_open(0, &fd))
		bench_skip(&b, "no permission for userfaultfd, or none in this kernel");
	close(fd);
	bench_snapshots_open(&snapshots);
	bed_init(&bed, &snapshots, mb ? (uint64_t)atoi(mb) * 1000000 : DATA_BYTES);
	for (size_t i = 0; i < nr; i++)
		run_bench(&b, &bed, run[i], i == 0 || i + 1 == nr);
	bed_fini(&bed);
	bench_snapshots_close(&snapshots);
	bench_close(&b);
	return 0;
}
