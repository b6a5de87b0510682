/*
 * bench fill: installing a recorded working set before the guest runs, the image in the page cache.
 *
 * Ours is the daemon's shard and workers.  The bare loop does the same work with nothing around it: threads that each read
 * 256 KiB from the page cache, decode into a buffer that stays in cache, verify the same checksums, and make one ranged
 * UFFDIO_COPY a run; for memory that is allocated already, decode in place and one ranged UFFDIO_CONTINUE a run.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "bench.h"
#include "daemon/awake.h"
#include "daemon/shard.h"
#include "guest.h"
#include "os/memfd.h"
#include "os/uffd.h"

#define HOT_PAGES 16384u /* 64 MiB */
#define SPAN	  (256u << 10)
#define ROUNDS	  13

struct rig {
	struct cis_image *img;
	uint64_t nr_pages;
	enum bench_memory memory;
	unsigned workers;
	struct bench_guest guest;
};

static uint64_t page_at(unsigned i, unsigned stride)
{
	return (uint64_t)i * stride;
}

/* Ours. */

struct wait {
	struct cis_mailbox control;
	bool filled;
	struct cis_seat *seat;
};

static struct wait waiting; /* notices carry the guest's context only, which the engine's table would give meaning */

static void on_notice(void *arg)
{
	struct cis_notice *n = arg;

	if (n->type == CIS_NOTICE_FILLED)
		waiting.filled = true;
	if (n->type == CIS_NOTICE_FAILED) {
		fprintf(stderr, "%s\n", n->err.text);
		exit(1);
	}
	free(n);
}

static void wait_filled(void)
{
	struct pollfd p = { .fd = waiting.control.event, .events = POLLIN };

	while (!waiting.filled) {
		poll(&p, 1, -1);
		cis_mailbox_run(&waiting.control);
	}
}

static double ours(struct rig *r)
{
	struct cis_workers *workers;
	struct cis_shard *shard;
	struct cis_awake *awake;
	struct cis_seat *seat;
	struct cis_error err;
	struct cis_region region = {
		.bytes = r->guest.bytes, .hva = r->guest.hva, .alias = r->guest.alias,
		.kind = r->memory == BENCH_ANONYMOUS ? CIS_KIND_ANONYMOUS : CIS_KIND_SHARED,
	};
	struct cis_seat_opts opts = {
		.pager = { .regions = &region, .nr_regions = 1, .image = r->img, .neighbours = true, .tries = 1 },
		.uffd = r->guest.uffd, .fill = CIS_FILL_HOT, .notice = on_notice,
	};
	uint64_t bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, r->nr_pages);
	void *map;

	waiting.filled = false;
	if (cis_mailbox_init(&waiting.control) || cis_workers_create(r->workers, &workers) || cis_awake_create(1000, &awake) ||
	    cis_shard_create(0, workers, &waiting.control, awake, &shard) || cis_buffer_alloc(bytes, &map))
		exit(1);
	memset(map, 0, bytes);
	cis_state_init(map, CIS_STATE_LAYOUT_MAX, r->nr_pages, 1, &opts.pager.state);
	if (cis_seat_create(shard, &opts, &seat, &err)) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	double start = bench_now();

	cis_seat_sit(seat);
	wait_filled();
	double took = bench_now() - start;

	cis_seat_leave(seat);
	while (cis_shard_seats(shard))
		sched_yield();
	cis_shard_destroy(shard); /* its thread has said its last word of the seat */
	cis_mailbox_run(&waiting.control);
	cis_seat_destroy(seat);
	cis_workers_destroy(workers);
	cis_awake_destroy(awake);
	cis_mailbox_fini(&waiting.control);
	cis_memfd_unmap(map, bytes);
	return took;
}

/* The bare loop. */

struct bare {
	struct rig *r;
	uint64_t first, end; /* chunks */
	pthread_t thread;
	pthread_barrier_t *start;
};

static void install(struct rig *r, const uint64_t *pgno, size_t n, const char *raw)
{
	for (size_t i = 0, to; i < n; i = to) {
		uint64_t dst = r->guest.hva + pgno[i] * TEST_PAGE, done;
		int rc;

		for (to = i + 1; to < n && pgno[to] == pgno[i] + (to - i); to++)
			;
		if (r->guest.alias && raw)
			memcpy(r->guest.alias + pgno[i] * TEST_PAGE, raw + i * TEST_PAGE, (to - i) * TEST_PAGE);
		rc = r->guest.alias ? cis_uffd_continue(r->guest.uffd, dst, (to - i) * TEST_PAGE, &done)
				    : cis_uffd_copy(r->guest.uffd, dst, raw + i * TEST_PAGE, (to - i) * TEST_PAGE, &done);
		if (rc)
			abort();
	}
}

static void one_chunk(struct bare *b, struct cis_decoder *dec, uint64_t chunk, const char *stored, char *buf)
{
	struct rig *r = b->r;
	struct cis_chunk_loc loc;
	uint64_t pgno[512];
	size_t n = cis_image_chunk_pages(r->img, chunk, 512, pgno);
	int in_place = r->guest.alias && pgno[n - 1] == pgno[0] + n - 1;
	char *raw = in_place ? r->guest.alias + pgno[0] * TEST_PAGE : buf;

	cis_image_chunk(r->img, chunk, &loc);
	if (cis_decode(dec, loc.codec, stored, loc.stored_bytes, raw, loc.raw_bytes) ||
	    cis_chunk_checksum(chunk, raw, loc.raw_bytes) != loc.checksum)
		abort();
	install(r, pgno, n, in_place ? NULL : raw);
}

static void *bare_main(void *arg)
{
	struct bare *b = arg;
	struct rig *r = b->r;
	struct cis_decoder *dec;
	char *stored = aligned_alloc(4096, 2 * SPAN), *raw = aligned_alloc(4096, 2 << 20);

	if (!stored || !raw || cis_decoder_create(2 << 20, cis_image_params(r->img), &dec))
		abort();
	memset(stored, 0, 2 * SPAN);
	memset(raw, 0, 2 << 20);
	pthread_barrier_wait(b->start);
	for (uint64_t c = b->first; c < b->end;) {
		struct cis_chunk_loc loc;
		uint64_t off, to = c, len = 0;

		cis_image_chunk(r->img, c, &loc);
		off = loc.off;
		while (to < b->end && len + (1u << 16) <= SPAN) {
			cis_image_chunk(r->img, to++, &loc);
			len = loc.off + loc.stored_bytes - off;
		}
		if (pread(cis_image_fd(r->img), stored, len, (off_t)off) != (ssize_t)len)
			abort();
		for (; c < to; c++) {
			cis_image_chunk(r->img, c, &loc);
			one_chunk(b, dec, c, stored + (loc.off - off), raw);
		}
	}
	pthread_barrier_wait(b->start);
	cis_decoder_destroy(dec);
	free(stored);
	free(raw);
	return NULL;
}

static double bare(struct rig *r)
{
	struct bare b[8];
	pthread_barrier_t start;
	uint64_t nr = cis_image_info(r->img)->nr_hot_chunks;
	double began;

	pthread_barrier_init(&start, NULL, r->workers + 1);
	for (unsigned i = 0; i < r->workers; i++) {
		b[i] = (struct bare){ .r = r, .first = nr * i / r->workers, .end = nr * (i + 1) / r->workers, .start = &start };
		if (pthread_create(&b[i].thread, NULL, bare_main, &b[i]))
			exit(1);
	}
	pthread_barrier_wait(&start);
	began = bench_now();
	pthread_barrier_wait(&start);
	began = bench_now() - began;
	for (unsigned i = 0; i < r->workers; i++)
		pthread_join(b[i].thread, NULL);
	pthread_barrier_destroy(&start);
	return began;
}

/* The rest. */

/* Half of each page zeros and small differences between lines, which each codec shrinks. */
static void fill_like_a_guest(uint8_t *page, uint64_t seed)
{
	uint64_t *w = (uint64_t *)page;

	for (unsigned i = 0; i < TEST_PAGE / 8; i++) {
		uint64_t r = test_random(&seed);

		w[i] = r % 4 == 0 ? 0 : r % 4 == 1 ? 0xffff888000000000u + (r & 0xffffff) : r % 4 == 2 ? (r & 0xffff) : r;
	}
}

static struct cis_image *make_image(const char *path, enum cis_codec codec, unsigned stride)
{
	struct cis_write_opts opts = { .codec = codec, .nr_hot = HOT_PAGES };
	uint32_t *hot = calloc(HOT_PAGES, sizeof(*hot));
	struct test_memory m;
	struct cis_image *img;

	test_memory_init(&m, (uint64_t)HOT_PAGES * stride);
	for (unsigned i = 0; i < HOT_PAGES; i++) {
		hot[i] = (uint32_t)page_at(i, stride);
		fill_like_a_guest(m.mem + (uint64_t)hot[i] * TEST_PAGE, i + 1);
	}
	opts.hot = hot;
	img = test_write_image(path, &m, &opts);
	test_memory_fini(&m);
	free(hot);
	return img;
}

/* Memory that the host has taken back is 25 times as slow to touch, whoever does (limits.md): bring it back first. */
static void warm_memory(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(1);
	madvise(p, bytes, MADV_NOHUGEPAGE);
	memset(p, 1, bytes);
	munmap(p, bytes);
}

static void run_case(struct bench *b, const char *path, enum cis_codec codec, unsigned stride, enum bench_memory memory,
		     unsigned workers)
{
	static const char *const memories[] = { "anonymous", "memfd", "allocated" };
	struct rig r = { .memory = memory, .workers = workers, .nr_pages = (uint64_t)HOT_PAGES * stride };
	double took[2][ROUNDS], ratio[ROUNDS], gib = (double)HOT_PAGES * TEST_PAGE / (1 << 30);
	int rounds = b->quick ? 1 : ROUNDS;
	char name[120];

	r.img = make_image(path, codec, stride);
	for (int round = -1; round < rounds; round++) /* one before that counts */
		for (int turn = 0; turn < 2; turn++) {
			int way = turn ^ (round & 1);

			warm_memory((uint64_t)HOT_PAGES * TEST_PAGE + (32 << 20));
			bench_guest_start(&r.guest, r.nr_pages * TEST_PAGE, memory, -1);
			took[way][round < 0 ? 0 : round] = (way ? bare : ours)(&r);
			bench_guest_end(&r.guest);
		}
	for (int i = 0; i < rounds; i++)
		ratio[i] = took[1][i] / took[0][i];
	double mine = bench_median(took[0], (size_t)rounds) * 1e3 / gib, base = bench_median(took[1], (size_t)rounds) * 1e3 / gib;

	snprintf(name, sizeof(name), "%s, %s, %s, %u worker%s", cis_codec_name(codec), memories[memory],
		 stride == 1 ? "contiguous" : "every other", workers, workers > 1 ? "s" : "");
	bench_figure(b, name, mine, "ms/GiB", base, bench_median(ratio, (size_t)rounds));
	cis_image_unref(r.img);
	unlink(path);
}

int main(void)
{
	static const enum cis_codec codecs[] = { CIS_CODEC_RAW, CIS_CODEC_MASK, CIS_CODEC_LZ4 };
	char path[] = "/tmp/cistern-bench-XXXXXX";
	struct bench b;
	uint64_t features;
	int fd = mkstemp(path);
	cpu_set_t all;

	if (fd < 0 || sched_getaffinity(0, sizeof(all), &all))
		return 1;
	close(fd);
	bench_open(&b, "fill");
	sched_setaffinity(0, sizeof(all), &all); /* threads of ours and of the bare loop go where the kernel puts them */
	if (cis_uffd_features(&features))
		bench_skip(&b, "no permission to make a userfaultfd");
	bench_title(&b, "hot fill of 64 MiB, image in the page cache; ratio: the bare loop's time to ours (bar: 0.85)");
	for (int memory = BENCH_ANONYMOUS; memory <= BENCH_ALLOCATED; memory++)
		for (size_t c = 0; c < sizeof(codecs) / sizeof(codecs[0]); c++)
			for (unsigned stride = 1; stride <= 2; stride++)
				for (unsigned workers = 1; workers <= 2; workers++)
					run_case(&b, path, codecs[c], stride, (enum bench_memory)memory, workers);
	bench_close(&b);
	return 0;
}
