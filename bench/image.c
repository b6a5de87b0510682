/*
 * bench image: making, exporting, verifying and opening images, against the bare codec on the same memory.
 *
 * Memory files from CISTERN_BENCH_GUESTS=dir with *.raw, synthetic memory without it; as much of each as has
 * 96 MiB that are not zero, all in a memory file system (CISTERN_BENCH_DIR=dir, /dev/shm unless told), so
 * that no disk is measured.
 *
 * The bare codec encodes the same pages again and again into one buffer in the cache.  The bare pipe also reads them from
 * the memory file, computes the checksums and writes a file, and knows beforehand which pages have content.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tests/unit/codec-data.h"
#include "bench.h"
#include "codec/codec.h"
#include "image/image.h"
#include "image/source.h"
#include "image/write.h"
#include "image_parts.h"

#define PAGE	   4096u
#define DATA_MAX   (96u << 20)
#define CHUNK	   (64u << 10)
#define WRITE_BYTES (256u << 10) /* of the bare pipe, at once */
#define ZERO_BYTES ((size_t)1 << 30)
#define HOLE_BYTES ((size_t)64 << 30)

static char folder[200];

struct subject {
	const char *name;
	enum cis_codec codec;
	int level;
	unsigned workers;
};

static const struct subject subjects[] = {
	{ "raw", CIS_CODEC_RAW, 0, 1 },		  { "mask", CIS_CODEC_MASK, 0, 1 },
	{ "mask, 2 workers", CIS_CODEC_MASK, 0, 2 },  { "lz4", CIS_CODEC_LZ4, 0, 1 },
	{ "lz4, 2 workers", CIS_CODEC_LZ4, 0, 2 },    { "zstd 1", CIS_CODEC_ZSTD, 1, 1 },
	{ "zstd 3", CIS_CODEC_ZSTD, 3, 1 },	  { "zstd 3, 2 workers", CIS_CODEC_ZSTD, 3, 2 },
	{ "deflate 1", CIS_CODEC_DEFLATE, 1, 1 },
};

/* One guest: its file, and its pages that are neither zeros nor one word, one after the other. */
struct guest {
	char name[80];
	uint8_t *bytes;
	size_t len;
	uint32_t pgno[DATA_MAX / PAGE + 1]; /* of @bytes */
};

struct work {
	const struct guest *guest;
	const char *memory, *image;
	struct cis_write_opts opts;
	struct cis_encoder *enc;
	uint8_t *stored, *raw;
	struct cis_image *img;
	size_t piece_bytes;
};

static void die(const char *what, const char *text)
{
	fprintf(stderr, "image: %s: %s\n", what, text);
	exit(1);
}

static char memory_path[300], image_path[300], export_path[300];

static void make_folder(const char *where)
{
	snprintf(folder, sizeof(folder), "%s/cistern-bench-XXXXXX", where ? where : "/dev/shm");
	if (!mkdtemp(folder))
		die(folder, strerror(errno));
	snprintf(memory_path, sizeof(memory_path), "%s/memory", folder);
	snprintf(image_path, sizeof(image_path), "%s/image", folder);
	snprintf(export_path, sizeof(export_path), "%s/export", folder);
}

static uint8_t *big_alloc(size_t len)
{
	uint8_t *p =
		mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("memory", strerror(errno));
	return p;
}

/* --- the ways --- */

static void all_cpus(int yes, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (yes || i == cpu)
			CPU_SET(i, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static int bench_cpu;

static void create_run(void *ctx)
{
	struct work *w = ctx;
	struct cis_image_source *src;
	struct cis_error err;

	all_cpus(w->opts.workers > 1, bench_cpu);
	if (cis_source_raw(w->memory, &src, &err) || cis_image_write(w->image, src, &w->opts, &err))
		die("create", err.text);
	cis_source_close(src);
	all_cpus(0, bench_cpu);
}

/* What the old image's pages cost to free is not ours. */
static void create_before(void *ctx)
{
	unlink(image_path);
}

static void encode_run(void *ctx)
{
	struct work *w = ctx;
	enum cis_codec codec;

	for (size_t at = 0; at < w->guest->len; at += CHUNK) {
		size_t n = w->guest->len - at < CHUNK ? w->guest->len - at : CHUNK;

		cis_encode(w->enc, w->guest->bytes + at, n, w->stored, &codec);
	}
}

/* One chunk's pages, one read a run. */
static void gather(int fd, const uint32_t *pgno, size_t nr, uint8_t *raw)
{
	for (size_t i = 0, n; i < nr; i += n) {
		for (n = 1; i + n < nr && pgno[i + n] == pgno[i] + n; n++)
			;
		if (pread(fd, raw + i * PAGE, n * PAGE, (off_t)pgno[i] * PAGE) != (ssize_t)(n * PAGE))
			die("read", strerror(errno));
	}
}

static void put(int fd, const uint8_t *bytes, size_t len, off_t at)
{
	if (pwrite(fd, bytes, len, at) != (ssize_t)len)
		die("write", strerror(errno));
}

static uint64_t pipe_sum;

/* What is the least that making a file of these chunks takes: read, encode, checksum, write. */
static void pipe_run(void *ctx)
{
	struct work *w = ctx;
	int from = open(w->memory, O_RDONLY), to = open(w->image, O_RDWR | O_CREAT | O_TRUNC, 0600);
	size_t nr = w->guest->len / PAGE, have = 0;
	off_t written = 0;
	enum cis_codec codec;

	for (size_t at = 0; at < nr; at += CHUNK / PAGE) {
		size_t n = nr - at < CHUNK / PAGE ? nr - at : CHUNK / PAGE;

		gather(from, w->guest->pgno + at, n, w->raw);
		pipe_sum += cis_chunk_checksum(at, w->raw, n * PAGE);
		have += cis_encode(w->enc, w->raw, n * PAGE, w->stored + have, &codec);
		if (have < WRITE_BYTES)
			continue;
		put(to, w->stored, have, written);
		written += (off_t)have;
		have = 0;
	}
	put(to, w->stored, have, written);
	close(from);
	close(to);
}

static void read_run(void *ctx)
{
	struct work *w = ctx;
	int fd = open(w->memory, O_RDONLY);

	for (off_t at = 0; pread(fd, w->stored, w->piece_bytes, at) > 0;)
		at += (off_t)w->piece_bytes;
	close(fd);
}

static void export_run(void *ctx)
{
	struct work *w = ctx;
	struct cis_error err;

	if (cis_image_export(w->img, export_path, NULL, NULL, &err))
		die("export", err.text);
}

static void verify_run(void *ctx)
{
	struct work *w = ctx;
	struct cis_error err;

	if (cis_image_verify(w->img, NULL, NULL, &err))
		die("verify", err.text);
}

static void open_run(void *ctx)
{
	struct work *w = ctx;
	struct cis_error err;
	struct cis_image *img;

	if (cis_image_open(w->image, NULL, &img, &err))
		die("open", err.text);
	cis_image_unref(img);
}

/* --- the cases --- */

static void bench_create(struct bench *b, const struct guest *g, const struct subject *s)
{
	struct work w = { .guest = g,
			  .memory = memory_path,
			  .image = image_path,
			  .opts = { .size = sizeof(w.opts),
				    .codec = s->codec,
				    .level = s->level,
				    .workers = s->workers } };
	struct bench_way ways[3] = { { .run = create_run, .before = create_before, .ctx = &w },
				     { .run = encode_run, .ctx = &w },
				     { .run = pipe_run, .before = create_before, .ctx = &w } };
	double gb = (double)g->len / 1e9;
	struct cis_error err;
	char what[200];

	w.stored = big_alloc(WRITE_BYTES + 2 * CHUNK);
	w.raw = big_alloc(CHUNK);
	if (cis_encoder_create(s->codec, s->level, CHUNK, NULL, &w.enc, &err))
		die("encoder", err.text);
	bench_measure(b, ways, 3, 3);
	snprintf(what, sizeof(what), "create %s: %s, a core", g->name, s->name);
	bench_figure(b, what, gb / ways[0].median / s->workers, "GB/s", gb / ways[1].median,
		     bench_ratio(&ways[0], &ways[1]) / s->workers);
	snprintf(what, sizeof(what), "create %s: %s, a core, to the bare pipe", g->name, s->name);
	bench_figure(b, what, gb / ways[0].median / s->workers, "GB/s", gb / ways[2].median,
		     bench_ratio(&ways[0], &ways[2]) / s->workers);
	if (s->workers == 1) {
		snprintf(what, sizeof(what), "create %s: %s, the bare pipe to the bare codec", g->name, s->name);
		bench_figure(b, what, gb / ways[2].median, "GB/s", gb / ways[1].median, bench_ratio(&ways[2], &ways[1]));
	}
	cis_encoder_destroy(w.enc);
	munmap(w.raw, CHUNK);
	munmap(w.stored, WRITE_BYTES + 2 * CHUNK);
}

static void bench_use(struct bench *b, const struct guest *g)
{
	struct work w = { .memory = memory_path, .image = image_path,
			  .opts = { .size = sizeof(w.opts), .codec = CIS_CODEC_LZ4, .workers = 1 } };
	struct bench_way ways[3] = { { .run = export_run, .ctx = &w }, { .run = verify_run, .ctx = &w },
				     { .run = open_run, .ctx = &w } };
	struct cis_error err;
	char what[200];

	create_run(&w);
	if (cis_image_open(w.image, NULL, &w.img, &err))
		die("open", err.text);
	bench_measure(b, ways, 3, 2);
	snprintf(what, sizeof(what), "export %s: lz4", g->name);
	bench_figure(b, what, (double)g->len / ways[0].median / 1e9, "GB/s", NAN, NAN);
	snprintf(what, sizeof(what), "verify %s: lz4", g->name);
	bench_figure(b, what, (double)g->len / ways[1].median / 1e9, "GB/s", NAN, NAN);
	snprintf(what, sizeof(what), "open %s", g->name);
	bench_figure(b, what, ways[2].median * 1e6, "us", NAN, NAN);
	cis_image_unref(w.img);
}

static void bench_zeros(struct bench *b)
{
	struct work w = { .memory = memory_path, .image = image_path, .piece_bytes = 1 << 20,
			  .opts = { .size = sizeof(w.opts), .codec = CIS_CODEC_MASK, .workers = 1 } };
	struct bench_way ways[2] = { { .run = create_run, .before = create_before, .ctx = &w },
				     { .run = read_run, .ctx = &w } };
	int fd = open(w.memory, O_RDWR | O_CREAT | O_TRUNC, 0600);

	w.stored = big_alloc(w.piece_bytes);
	for (size_t at = 0; at < ZERO_BYTES; at += w.piece_bytes)
		if (pwrite(fd, w.stored, w.piece_bytes, (off_t)at) != (ssize_t)w.piece_bytes)
			die("zeros", strerror(errno));
	close(fd);
	bench_measure(b, ways, 2, 2);
	bench_figure(b, "create zero pages in the page cache", (double)ZERO_BYTES / ways[0].median / 1e9,
		     "GB/s", (double)ZERO_BYTES / ways[1].median / 1e9, bench_ratio(&ways[0], &ways[1]));
	munmap(w.stored, w.piece_bytes);
	if (truncate(w.memory, 0) || truncate(w.memory, HOLE_BYTES))
		die("holes", strerror(errno));
	bench_measure(b, ways, 1, 1);
	bench_figure(b, "create 64 GiB of holes", ways[0].median * 1e3, "ms", NAN, NAN);
}

static void bench_guest(struct bench *b, const struct guest *g)
{
	char title[200];

	snprintf(title, sizeof(title), "%s: %.1f MiB that are not zero", g->name, (double)g->len / (1 << 20));
	bench_title(b, title);
	for (size_t i = 0; i < sizeof(subjects) / sizeof(*subjects); i++)
		bench_create(b, g, &subjects[i]);
	bench_use(b, g);
}

/* --- the data --- */

/* A page goes to the file at its place, and to the guest's bytes if it becomes part of a chunk. */
static int add_page(struct guest *g, int fd, const uint8_t *page, off_t at)
{
	uint64_t word;
	int same = cis_same_word(page, PAGE, &word);

	if (same && !word)
		return 1;
	if (pwrite(fd, page, PAGE, at) != PAGE)
		die("memory", strerror(errno));
	if (!same) {
		memcpy(g->bytes + g->len, page, PAGE);
		g->pgno[g->len / PAGE] = (uint32_t)(at / PAGE);
		g->len += PAGE;
	}
	return g->len < DATA_MAX;
}

static void take_file(struct guest *g, const char *path)
{
	int from = open(path, O_RDONLY), fd = open(memory_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	uint8_t page[PAGE];
	off_t at = 0;

	if (from < 0 || fd < 0)
		die(path, strerror(errno));
	while (pread(from, page, PAGE, at) == PAGE && add_page(g, fd, page, at))
		at += PAGE;
	if (ftruncate(fd, at + PAGE))
		die("memory", strerror(errno));
	close(from);
	close(fd);
}

static void take_synthetic(struct guest *g)
{
	int fd = open(memory_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	static uint8_t block[16 * PAGE];

	for (off_t at = 0; g->len < DATA_MAX; at += sizeof(block)) {
		data_make(DATA_SPARSE + at / (off_t)sizeof(block) % 4, block, sizeof(block), (uint64_t)at);
		for (size_t i = 0; i < sizeof(block) && g->len < DATA_MAX; i += PAGE)
			add_page(g, fd, block + i, at + (off_t)i);
	}
	close(fd);
}

static void each_guest(struct bench *b, const char *dir, struct guest *g)
{
	DIR *d = opendir(dir);
	char path[400];

	if (!d)
		die(dir, strerror(errno));
	for (struct dirent *e; (e = readdir(d));) {
		size_t n = strlen(e->d_name);

		if (n <= 4 || strcmp(e->d_name + n - 4, ".raw"))
			continue;
		g->len = 0;
		snprintf(g->name, sizeof(g->name), "%.*s", (int)(n - 4), e->d_name);
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		take_file(g, path);
		bench_guest(b, g);
	}
	closedir(d);
}

int main(void)
{
	const char *guests = getenv("CISTERN_BENCH_GUESTS"), *where = getenv("CISTERN_BENCH_DIR");
	static struct guest g = { .name = "synthetic" };
	struct bench b;

	bench_open(&b, "image");
	bench_cpu = b.cpu;
	make_folder(where);
	g.bytes = big_alloc(DATA_MAX + PAGE);
	if (guests) {
		each_guest(&b, guests, &g);
	} else {
		take_synthetic(&g);
		bench_guest(&b, &g);
	}
	bench_zeros(&b);
	unlink(memory_path);
	unlink(image_path);
	unlink(export_path);
	rmdir(folder);
	bench_sizes(&b);
	bench_engine_memory(&b);
	bench_close(&b);
	return 0;
}
