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
 * All on one thread.  Read at 550 MB/s (Sabre's disk) by the throttled store, which all but the mappings read through, and
 * as fast as the disk here gives it, with a cold page cache.  The pages are real guests'.
 *
 * CISTERN_BENCH_MB=n for another amount, CISTERN_BENCH_RUNS=1,50 for other run lengths.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench.h"
#include "image/write.h"
#include "os/memfd.h"
#include "os/uffd.h"
#include "pager/pager.h"
#include "snapshots.h"
#include "stream.h"

#define DATA_BYTES    174500000u
#define RATE	      550000000u
#define BLOCK_BYTES   ((size_t)1 << 20) /* of a read */
#define READS	      4u		/* of the others, at once */
#define JOBS	      3u		/* of ours, at once: as a worker of the daemon has them */
#define RUNS_MAX      10u
#define PRETOUCH_MORE ((uint64_t)8 << 20)

/** struct codec - one of ours */
struct codec {
	const char *name;
	enum cis_codec codec;
	int level;
};

static const struct codec codecs[] = {
	{"raw", CIS_CODEC_RAW, 0},	  {"mask", CIS_CODEC_MASK, 0},
	{"lz4", CIS_CODEC_LZ4, 0},	  {"zstd 1", CIS_CODEC_ZSTD, 1},
	{"deflate", CIS_CODEC_DEFLATE_CANNED, 0},
};

#define CODECS (sizeof(codecs) / sizeof(*codecs))

/** struct file - something that is read from its start to its end; @part: stored length of each run's stream, or NULL */
struct file {
	char path[4200];
	uint64_t bytes;
	uint32_t *part;
};

/**
 * struct bed - one run length, and all that is laid out for it
 * @data:  the pages, one after the other
 * @pgno:  where each of them belongs, ascending
 * @dst:   the guest's memory
 * @room:  memory kept for streams and for what REAP reads
 */
struct bed {
	uint8_t *data;
	size_t nr, run;
	uint32_t *pgno;
	uint64_t guest_bytes;
	char *dst;
	uint8_t *room;
	int uffd;
	struct file memory, pages, one[STREAM_KINDS], each[STREAM_KINDS];
	struct cis_image *image[CODECS];
	struct cis_scratch *scratch;
};

/** struct way - what a bench_way works on; @file: read by it, dropped from the page cache when nothing throttles it */
struct way {
	struct bed *bed;
	char name[64];
	const struct file *file;
	const char *path;
	struct cis_image *image;
	enum stream_kind kind;
	bool throttled, cold, pipelined, write;
	struct cis_state state;
};

static void must(int rc, const char *what)
{
	if (rc)
		bench_die(what, strerror(-rc));
}

/* The medium. */

static struct cis_store *medium_open(const struct way *w, int fd)
{
	struct cis_store *store;
	struct cis_error err;

	if (cis_store_file_open(fd, &store, &err) ||
	    (w->throttled && cis_store_throttle_open(store, RATE, &store, &err)))
		bench_die("store", err.text);
	return store;
}

/** struct reader - blocks of a file in order, READS of them on their way */
struct reader {
	struct cis_store *store;
	uint64_t bytes, asked, given;
	uint8_t *base; /* where the file goes as a whole, or NULL: into @buf in turn */
	uint8_t *buf;
	struct cis_store_req req[READS];
	bool busy[READS];
};

static void read_done(struct cis_store_req *req, int err)
{
	must(err, "read");
	*(bool *)req->ctx = false;
}

static size_t block_len(const struct reader *r, uint64_t at)
{
	return r->bytes - at < BLOCK_BYTES ? (size_t)(r->bytes - at) : BLOCK_BYTES;
}

static void reader_ask(struct reader *r)
{
	unsigned slot = (unsigned)(r->asked / BLOCK_BYTES % READS);
	struct cis_store_req *req = &r->req[slot];
	size_t len = block_len(r, r->asked);

	*req = (struct cis_store_req){.op = CIS_STORE_GET, .off = r->asked, .len = (uint32_t)((len + 4095) & ~(size_t)4095),
				      .buf = r->base ? r->base + r->asked : r->buf + slot * BLOCK_BYTES,
				      .done = read_done, .ctx = &r->busy[slot]};
	r->busy[slot] = true;
	r->asked += len;
	cis_store_submit(r->store, &req, 1);
}

/* The next block, NULL at the end.  The one before it is read over then. */
static const uint8_t *reader_next(struct reader *r, size_t *ret_len)
{
	unsigned slot = (unsigned)(r->given / BLOCK_BYTES % READS);

	while (r->asked < r->bytes && r->asked < r->given + (READS - 1) * BLOCK_BYTES)
		reader_ask(r);
	if (r->given == r->bytes)
		return NULL;
	while (r->busy[slot])
		cis_store_wait(r->store, 0);
	*ret_len = block_len(r, r->given);
	r->given += *ret_len;
	return r->req[slot].buf;
}

static int reader_open(struct reader *r, const struct way *w, uint8_t *base)
{
	int fd = open(w->file->path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		bench_die(w->file->path, strerror(errno));
	*r = (struct reader){.store = medium_open(w, fd), .bytes = w->file->bytes, .base = base,
			     .buf = w->bed->room + w->bed->nr * BENCH_PAGE + BLOCK_BYTES};
	close(fd);
	return 0;
}

/* The guest's memory. */

static void clear(struct bed *bed)
{
	if (bed->uffd >= 0)
		close(bed->uffd);
	if (bed->dst)
		munmap(bed->dst, bed->guest_bytes);
	bed->uffd = -1;
	bed->dst = NULL;
}

static void way_before(void *ctx)
{
	struct way *w = ctx;
	struct bed *bed = w->bed;

	clear(bed);
	bench_pretouch((uint64_t)bed->nr * BENCH_PAGE + PRETOUCH_MORE);
	if (w->cold)
		bench_drop(w->path);
	else
		bench_warm(w->path);
	bed->dst = bench_map(bed->guest_bytes);
}

static void dst_register(struct bed *bed)
{
	must(cis_uffd_open(0, &bed->uffd), "userfaultfd");
	must(cis_uffd_register(bed->uffd, (uint64_t)(uintptr_t)bed->dst, bed->guest_bytes, UFFDIO_REGISTER_MODE_MISSING),
	     "UFFDIO_REGISTER");
}

static size_t run_len(const struct bed *bed, size_t from)
{
	return bed->nr - from < bed->run ? bed->nr - from : bed->run;
}

/* Copy what of [from, to) bytes of the pages at @src are whole runs, or the rest of them.  Return: the first page not copied. */
static size_t copy_runs(struct bed *bed, const uint8_t *src, size_t from, uint64_t have_bytes)
{
	size_t have = (size_t)(have_bytes / BENCH_PAGE);
	uint64_t done;

	while (from < bed->nr) {
		size_t end = from - from % bed->run + run_len(bed, from - from % bed->run), to = end < have ? end : have;

		/* A run that is longer than a block is copied as it comes. */
		if (to <= from || (to < end && to - from < BLOCK_BYTES / BENCH_PAGE))
			break;
		must(cis_uffd_copy(bed->uffd, (uint64_t)(uintptr_t)bed->dst + (uint64_t)bed->pgno[from] * BENCH_PAGE,
				   src + from * BENCH_PAGE, (to - from) * BENCH_PAGE, &done), "UFFDIO_COPY");
		from = to;
	}
	return from;
}

/* The ways. */

static void reap_run(void *ctx)
{
	struct way *w = ctx;
	struct bed *bed = w->bed;
	struct reader r;
	size_t len, at = 0;

	dst_register(bed);
	reader_open(&r, w, bed->room);
	while (reader_next(&r, &len))
		if (w->pipelined)
			at = copy_runs(bed, bed->room, at, r.given);
	copy_runs(bed, bed->room, at, r.given);
	cis_store_close(r.store);
}

static void one_stream_run(void *ctx)
{
	struct way *w = ctx;
	struct bed *bed = w->bed;
	struct stream *s = stream_create(w->kind);
	size_t len, left = bed->nr * BENCH_PAGE;
	uint8_t *out = bed->room;
	const uint8_t *in;
	struct reader r;

	dst_register(bed);
	reader_open(&r, w, NULL);
	while ((in = reader_next(&r, &len)))
		stream_decode(s, &in, &len, &out, &left);
	copy_runs(bed, bed->room, 0, (uint64_t)(out - bed->room));
	cis_store_close(r.store);
	stream_destroy(s);
}

static void each_stream_run(void *ctx)
{
	struct way *w = ctx;
	struct bed *bed = w->bed;
	struct stream *s = stream_create(w->kind);
	size_t page = 0, run = 0, part_left = w->file->part[0], len, room = run_len(bed, 0) * BENCH_PAGE;
	uint8_t *out = (uint8_t *)bed->dst + (uint64_t)bed->pgno[0] * BENCH_PAGE;
	const uint8_t *in;
	struct reader r;

	reader_open(&r, w, NULL);
	while ((in = reader_next(&r, &len))) {
		while (len) {
			size_t n = len < part_left ? len : part_left, rest = n;

			stream_decode(s, &in, &rest, &out, &room);
			in += rest; /* what ends a stream */
			part_left -= n;
			len -= n;
			if (part_left || page + run_len(bed, page) >= bed->nr)
				continue;
			page += run_len(bed, page);
			part_left = w->file->part[++run];
			room = run_len(bed, page) * BENCH_PAGE;
			out = (uint8_t *)bed->dst + (uint64_t)bed->pgno[page] * BENCH_PAGE;
			stream_reset(s);
		}
	}
	cis_store_close(r.store);
	stream_destroy(s);
}

static void map_run(void *ctx)
{
	struct way *w = ctx;
	struct bed *bed = w->bed;
	int fd = open(w->path, O_RDONLY | O_CLOEXEC);
	unsigned char sum = 0;

	munmap(bed->dst, bed->guest_bytes);
	bed->dst = mmap(NULL, bed->guest_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (bed->dst == MAP_FAILED)
		bench_die(w->path, strerror(errno));
	close(fd);
	for (size_t i = 0; i < bed->nr; i++) {
		volatile unsigned char *p = (unsigned char *)bed->dst + (uint64_t)bed->pgno[i] * BENCH_PAGE;

		if (w->write)
			*p = bed->data[i * BENCH_PAGE];
		else
			sum += *p;
	}
	(void)sum;
}

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	(void)img;
	return ctx;
}

static void page_failed(void *ctx, uint64_t pgno, bool kill, const struct cis_error *err)
{
	(void)ctx, (void)pgno, (void)kill;
	bench_die("pager", err->text);
}

static void guest_gone(void *ctx)
{
	(void)ctx;
	bench_die("pager", "the guest is gone");
}

static void ours_before(void *ctx)
{
	struct way *w = ctx;
	uint64_t nr = cis_image_info(w->image)->nr_pages, bytes = cis_state_bytes(nr);
	void *map;
	int fd;

	way_before(ctx);
	if (w->state.header)
		cis_memfd_unmap(w->state.header, w->state.bytes);
	must(cis_memfd_create("state", bytes, BENCH_PAGE, &fd), "state memfd");
	must(cis_memfd_map(fd, 0, bytes, &map), "state memfd");
	close(fd);
	cis_state_init(map, nr, 1, &w->state);
}

/* What a shard and one worker do, on one thread. */
static void fill(struct cis_pager *p, struct cis_scratch *scratch, struct cis_store *store)
{
	struct cis_fill_job *job[JOBS];
	size_t nr = 0;

	cis_pager_fill(p, CIS_FILL_HOT);
	while (cis_pager_filled(p) < CIS_FILL_HOT) {
		while (nr < JOBS && (job[nr] = cis_pager_next_job(p)))
			if (cis_fill_job_begin(job[nr++], scratch, store))
				break;
		if (!nr)
			bench_die("pager", "no job, and not filled");
		while (cis_fill_job_step(job[0], scratch, store))
			;
		cis_pager_job_done(p, job[0]);
		memmove(&job[0], &job[1], --nr * sizeof(*job));
	}
}

static void ours_run(void *ctx)
{
	struct way *w = ctx;
	struct bed *bed = w->bed;
	struct cis_region region = {.hva = (uint64_t)(uintptr_t)bed->dst, .bytes = bed->guest_bytes};
	struct cis_store *store = medium_open(w, cis_image_fd(w->image));
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = &region, .nr_regions = 1, .image = w->image, .state = w->state,
		.os = &cis_pager_os_uffd, .os_ctx = &bed->uffd, .clock = cis_now_ns, .scratch = bed->scratch,
		.store_of = store_of, .tries = 1, .failed = page_failed, .gone = guest_gone, .ctx = store,
	};
	struct cis_pager *p;
	struct cis_error err;

	dst_register(bed);
	if (cis_pager_create(&opts, &p, &err))
		bench_die("pager", err.text);
	fill(p, bed->scratch, store);
	cis_pager_destroy(p);
	cis_store_close(store);
}

static void compare(const struct way *w)
{
	const struct bed *bed = w->bed;

	for (size_t i = 0; i < bed->nr; i++)
		if (memcmp(bed->dst + (uint64_t)bed->pgno[i] * BENCH_PAGE, bed->data + i * BENCH_PAGE, BENCH_PAGE))
			bench_die(w->name, "a page does not hold what it should");
}

/* Laying it out. */

static void file_write(struct file *f, const char *name, const void *bytes, uint64_t len)
{
	_cleanup_close_ int fd = -1;

	snprintf(f->path, sizeof(f->path), "%s/%s", bench_folder(), name);
	fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	f->bytes = len;
	for (uint64_t at = 0; fd >= 0 && at < len;) {
		ssize_t n = pwrite(fd, (const char *)bytes + at, len - at < BLOCK_BYTES ? len - at : BLOCK_BYTES, (off_t)at);

		if (n <= 0)
			bench_die(f->path, strerror(errno));
		at += (uint64_t)n;
	}
	/* Reads are of whole blocks. */
	if (fd < 0 || ftruncate(fd, (off_t)((len + 4095) & ~(uint64_t)4095)) || fsync(fd))
		bench_die(f->path, strerror(errno));
}

static void memory_write(struct bed *bed)
{
	_cleanup_close_ int fd = -1;

	snprintf(bed->memory.path, sizeof(bed->memory.path), "%s/memory", bench_folder());
	fd = open(bed->memory.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)bed->guest_bytes))
		bench_die(bed->memory.path, strerror(errno));
	for (size_t at = 0; at < bed->nr; at += run_len(bed, at)) {
		size_t len = run_len(bed, at) * BENCH_PAGE;

		if (pwrite(fd, bed->data + at * BENCH_PAGE, len, (off_t)bed->pgno[at] * BENCH_PAGE) != (ssize_t)len)
			bench_die(bed->memory.path, strerror(errno));
	}
	if (fsync(fd))
		bench_die(bed->memory.path, strerror(errno));
	bed->memory.bytes = bed->guest_bytes;
}

static void streams_write(struct bed *bed)
{
	size_t runs = (bed->nr + bed->run - 1) / bed->run, bound = bed->run * BENCH_PAGE;
	char name[64];

	for (unsigned k = 0; k < STREAM_KINDS; k++) {
		struct file *f = &bed->each[k];
		_cleanup_free_ uint8_t *buf = malloc(bed->nr * BENCH_PAGE / 8 * 10 + stream_bound(k, bound) + runs * 512);
		uint64_t len = 0;
		size_t run = 0;

		f->part = calloc(runs, sizeof(*f->part));
		if (!buf || !f->part)
			bench_die("streams", strerror(ENOMEM));
		for (size_t at = 0; at < bed->nr; at += run_len(bed, at)) {
			f->part[run] = (uint32_t)stream_encode(k, bed->data + at * BENCH_PAGE,
							       run_len(bed, at) * BENCH_PAGE, buf + len);
			len += f->part[run++];
		}
		snprintf(name, sizeof(name), "each-%u", k);
		file_write(f, name, buf, len);
	}
}

static void images_write(struct bed *bed)
{
	for (size_t i = 0; i < CODECS; i++) {
		struct cis_write_opts opts = {.size = sizeof(opts), .codec = codecs[i].codec, .level = codecs[i].level,
					      .hot = bed->pgno, .nr_hot = bed->nr, .workers = 2};
		struct cis_image_source *src;
		struct cis_error err;
		char path[4200];

		snprintf(path, sizeof(path), "%s/image-%zu", bench_folder(), i);
		if (cis_source_raw(bed->memory.path, &src, &err) || cis_image_write(path, src, &opts, &err) ||
		    cis_image_open(path, NULL, &bed->image[i], &err))
			bench_die("image", err.text);
		cis_source_close(src);
	}
}

static void bed_lay(struct bed *bed, size_t run)
{
	size_t at = 0;
	uint64_t page = 0;

	bed->run = run;
	while (at < bed->nr) {
		for (size_t i = run_len(bed, at); i; i--)
			bed->pgno[at++] = (uint32_t)page++;
		page += run;
	}
	bed->guest_bytes = page * BENCH_PAGE;
	memory_write(bed);
	streams_write(bed);
	images_write(bed);
}

static void bed_clear(struct bed *bed)
{
	clear(bed);
	for (unsigned k = 0; k < STREAM_KINDS; k++)
		free(bed->each[k].part);
	for (size_t i = 0; i < CODECS; i++)
		cis_image_unref(bed->image[i]);
}

/* Blocks of 64 KiB spread over each guest, until each has given its share. */
static void data_take(struct bed *bed, const struct bench_snapshots *s)
{
	enum { BLOCK = 16, PASSES = 8 };
	static uint8_t buf[BLOCK * BENCH_PAGE];
	size_t have = 0;

	for (size_t g = 0; g < s->nr; g++) {
		const struct bench_snapshot *guest = &s->snapshot[g];
		uint64_t blocks = guest->bytes / sizeof(buf);
		size_t goal = bed->nr * (g + 1) / s->nr;
		uint64_t word;

		for (unsigned pass = 0; pass < PASSES; pass++)
			for (uint64_t b = pass; b < blocks && have < goal; b += PASSES) {
				if (pread(guest->fd, buf, sizeof(buf), (off_t)(b * sizeof(buf))) != sizeof(buf))
					bench_die(guest->path, strerror(errno));
				for (unsigned i = 0; i < BLOCK && have < goal; i++)
					if (!cis_same_word(buf + i * BENCH_PAGE, BENCH_PAGE, &word))
						memcpy(bed->data + have++ * BENCH_PAGE, buf + i * BENCH_PAGE, BENCH_PAGE);
			}
	}
	if (have < bed->nr)
		printf("the guests have only %zu pages with content\n", have);
	bed->nr = have;
}

static void bed_init(struct bed *bed, const struct bench_snapshots *s)
{
	const char *mb = getenv("CISTERN_BENCH_MB");
	uint64_t bytes = mb ? (uint64_t)atoi(mb) * 1000000 : DATA_BYTES;
	void *room;

	*bed = (struct bed){.nr = bytes / BENCH_PAGE, .uffd = -1};
	bed->data = malloc(bed->nr * BENCH_PAGE);
	bed->pgno = malloc(bed->nr * sizeof(*bed->pgno));
	must(cis_buffer_alloc(bed->nr * BENCH_PAGE + (READS + 2) * BLOCK_BYTES, &room), "memory");
	bed->room = room;
	memset(bed->room, 1, bed->nr * BENCH_PAGE + (READS + 2) * BLOCK_BYTES);
	must(cis_scratch_create(&bed->scratch), "scratch");
	if (!bed->nr || !bed->data || !bed->pgno)
		bench_die("sparsity", "CISTERN_BENCH_MB: not that much");
	data_take(bed, s);
	file_write(&bed->pages, "pages", bed->data, bed->nr * BENCH_PAGE);
	for (unsigned k = 0; k < STREAM_KINDS; k++) {
		_cleanup_free_ uint8_t *buf = malloc(stream_bound(k, bed->nr * BENCH_PAGE));
		char name[64];

		if (!buf)
			bench_die("sparsity", strerror(ENOMEM));
		snprintf(name, sizeof(name), "one-%u", k);
		file_write(&bed->one[k], name, buf, stream_encode(k, bed->data, bed->nr * BENCH_PAGE, buf));
	}
}

/* What is measured of one run length. */

enum { REAP, REAP_PIPED, ONE, EACH = ONE + STREAM_KINDS, OURS = EACH + STREAM_KINDS, FREE = OURS + CODECS };
enum { FREE_REAP = FREE, FREE_OURS, WARM_READ = FREE_OURS + CODECS, WARM_WRITE, COLD_READ, COLD_WRITE, WAYS };

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
	snprintf(w->name, sizeof(w->name), throttled ? "ours, %s" : "disk: ours, %s", codecs[codec].name);
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

static void report(struct bench *b, const struct bed *bed, const struct way *w, struct bench_way *way)
{
	size_t ours = fastest(way, OURS + 1, OURS + CODECS), sabre = fastest(way, ONE, OURS);
	char text[200];

	for (size_t i = 0; i < WAYS; i++) {
		size_t base = i < FREE ? REAP : FREE_REAP;

		figure(b, bed->run, w[i].name, way[i].median, way[base].median, bench_ratio(&way[i], &way[base]));
	}
	snprintf(text, sizeof(text), "best of ours (%s) to REAP", codecs[ours - OURS].name);
	figure(b, bed->run, text, way[ours].median, way[REAP].median, bench_ratio(&way[ours], &way[REAP]));
	snprintf(text, sizeof(text), "best of ours (%s) to the best of Sabre's (%s)", codecs[ours - OURS].name, w[sabre].name);
	figure(b, bed->run, text, way[ours].median, way[sabre].median, bench_ratio(&way[ours], &way[sabre]));
	for (unsigned k = 0; k < STREAM_KINDS; k++) {
		size_t mine = OURS + CODECS - STREAM_KINDS + k; /* lz4, zstd and deflate are the last of ours */
		size_t his = way[ONE + k].median < way[EACH + k].median ? ONE + k : EACH + k;

		snprintf(text, sizeof(text), "%s to the better of Sabre's with it", w[mine].name);
		figure(b, bed->run, text, way[mine].median, way[his].median, bench_ratio(&way[mine], &way[his]));
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
	size_t run[RUNS_MAX], nr = lengths(run);
	struct bed bed;
	struct bench b;
	int fd;

	bench_open(&b, "sparsity");
	if (cis_uffd_open(0, &fd))
		bench_skip(&b, "no permission for userfaultfd, or none in this kernel");
	close(fd);
	bench_snapshots_open(&snapshots);
	bed_init(&bed, &snapshots);
	for (size_t i = 0; i < nr; i++)
		run_bench(&b, &bed, run[i], i == 0 || i + 1 == nr);
	bench_snapshots_close(&snapshots);
	bench_close(&b);
	return 0;
}
