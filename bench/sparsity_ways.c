/* Bench sparsity: the ways that memory gets its content. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/memfd.h"
#include "os/uffd.h"
#include "sparsity.h"

#define RATE	      550000000u
#define JOBS	      3u /* of ours, at once: as a worker of the daemon has them */
#define PRETOUCH_MORE ((uint64_t)8 << 20)

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

/** struct reader - blocks of a file in order, BED_READS of them on their way */
struct reader {
	struct cis_store *store;
	uint64_t bytes, asked, given;
	uint8_t *base; /* where the file goes as a whole, or NULL: into @buf in turn */
	uint8_t *buf;
	struct cis_store_req req[BED_READS];
	bool busy[BED_READS];
};

static void read_done(struct cis_store_req *req, int err)
{
	bench_must(err, "read");
	*(bool *)req->ctx = false;
}

static size_t block_len(const struct reader *r, uint64_t at)
{
	return r->bytes - at < BED_BLOCK ? (size_t)(r->bytes - at) : BED_BLOCK;
}

static void reader_ask(struct reader *r)
{
	unsigned slot = (unsigned)(r->asked / BED_BLOCK % BED_READS);
	struct cis_store_req *req = &r->req[slot];
	size_t len = block_len(r, r->asked);

	*req = (struct cis_store_req){.op = CIS_STORE_GET, .off = r->asked, .len = (uint32_t)((len + 4095) & ~(size_t)4095),
				      .buf = r->base ? r->base + r->asked : r->buf + slot * BED_BLOCK,
				      .done = read_done, .ctx = &r->busy[slot]};
	r->busy[slot] = true;
	r->asked += len;
	cis_store_submit(r->store, &req, 1);
}

/* The next block, NULL at the end.  The one before it is read over then. */
static const uint8_t *reader_next(struct reader *r, size_t *ret_len)
{
	unsigned slot = (unsigned)(r->given / BED_BLOCK % BED_READS);

	while (r->asked < r->bytes && r->asked < r->given + (BED_READS - 1) * BED_BLOCK)
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
			     .buf = w->bed->room + w->bed->nr * BENCH_PAGE + BED_BLOCK};
	close(fd);
	return 0;
}

/* The guest's memory. */

void way_before(void *ctx)
{
	struct way *w = ctx;
	struct bed *bed = w->bed;

	bed_release(bed);
	bench_pretouch((uint64_t)bed->nr * BENCH_PAGE + PRETOUCH_MORE);
	if (w->cold)
		bench_drop(w->path);
	else
		bench_warm(w->path);
	bed->dst = bench_map(bed->guest_bytes);
}

static void dst_register(struct bed *bed)
{
	bench_must(cis_uffd_open(0, &bed->uffd), "userfaultfd");
	bench_must(cis_uffd_register(bed->uffd, (uint64_t)(uintptr_t)bed->dst, bed->guest_bytes, UFFDIO_REGISTER_MODE_MISSING),
	     "UFFDIO_REGISTER");
}

/* Copy what of [from, to) bytes of the pages at @src are whole runs, or the rest of them.  Return: the first page not copied. */
static size_t copy_runs(struct bed *bed, const uint8_t *src, size_t from, uint64_t have_bytes)
{
	size_t have = (size_t)(have_bytes / BENCH_PAGE);
	uint64_t done;

	while (from < bed->nr) {
		size_t end = from - from % bed->run + bed_run_len(bed, from - from % bed->run), to = end < have ? end : have;

		/* A run that is longer than a block is copied as it comes. */
		if (to <= from || (to < end && to - from < BED_BLOCK / BENCH_PAGE))
			break;
		bench_must(cis_uffd_copy(bed->uffd, (uint64_t)(uintptr_t)bed->dst + (uint64_t)bed->pgno[from] * BENCH_PAGE,
				   src + from * BENCH_PAGE, (to - from) * BENCH_PAGE, &done), "UFFDIO_COPY");
		from = to;
	}
	return from;
}

/* The ways. */

void reap_run(void *ctx)
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

void one_stream_run(void *ctx)
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

void each_stream_run(void *ctx)
{
	struct way *w = ctx;
	struct bed *bed = w->bed;
	struct stream *s = stream_create(w->kind);
	size_t page = 0, run = 0, part_left = w->file->part[0], len, room = bed_run_len(bed, 0) * BENCH_PAGE;
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
			if (part_left || page + bed_run_len(bed, page) >= bed->nr)
				continue;
			page += bed_run_len(bed, page);
			part_left = w->file->part[++run];
			room = bed_run_len(bed, page) * BENCH_PAGE;
			out = (uint8_t *)bed->dst + (uint64_t)bed->pgno[page] * BENCH_PAGE;
			stream_reset(s);
		}
	}
	cis_store_close(r.store);
	stream_destroy(s);
}

void map_run(void *ctx)
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

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	(void)ctx, (void)pgno, (void)outcome;
	bench_die("pager", err->text);
}

static void guest_gone(void *ctx)
{
	(void)ctx;
	bench_die("pager", "the guest is gone");
}

void ours_before(void *ctx)
{
	struct way *w = ctx;
	uint64_t nr = cis_image_info(w->image)->nr_pages, bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, nr);
	void *map;
	int fd;

	way_before(ctx);
	if (w->state.header)
		cis_memfd_unmap(w->state.header, w->state.bytes);
	bench_must(cis_memfd_create("state", bytes, BENCH_PAGE, &fd), "state memfd");
	bench_must(cis_memfd_map(fd, 0, bytes, &map), "state memfd");
	close(fd);
	cis_state_init(map, CIS_STATE_LAYOUT_MAX, nr, 1, &w->state);
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
		if (!nr && cis_pager_deadline(p))
			bench_die("pager", "no job, and not filled");
		if (!nr) { /* looking for one, or installing zeros, goes on */
			cis_pager_run(p);
			continue;
		}
		while (cis_fill_job_step(job[0], scratch, store))
			;
		cis_pager_job_done(p, job[0]);
		memmove(&job[0], &job[1], --nr * sizeof(*job));
	}
}

void ours_run(void *ctx)
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
