/*
 * bench fault: how long a demand fault takes, as the thread sees it that touches the page.
 *
 * Ours is a shard of the daemon serving a child process from an image in the page cache; the bare loop polls, reads the
 * event, verifies (and, with 64 KiB chunks, decodes one chunk) and copies one page, from memory.  The loop with its read
 * also gets the stored chunk from the page cache first, by one pread, which whoever keeps no second copy of an image has to.
 * All on the same CPU, by turns, a fresh child each time.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "bench.h"
#include "daemon/awake.h"
#include "daemon/shard.h"
#include "guest.h"
#include "os/memfd.h"
#include "os/uffd.h"

#define PAGES  8192u
#define TOUCH  512u /* pages touched a round */
#define ROUNDS 15

struct subject {
	const char *name;
	enum cis_codec codec;
	unsigned chunk_shift;
	bool neighbours;
	bool same_cpu;
};

enum way { OURS, BARE, BARE_READ, WAYS };

struct rig {
	const struct subject *subject;
	struct cis_image *img;
	uint32_t order[TOUCH];
	int cpu;	  /* of the handler */
	int guest_cpu;
	struct bench_guest guest;
	double p50[WAYS][ROUNDS], p99[WAYS][ROUNDS]; /* us */
};

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void note(struct rig *r, enum way way, int round)
{
	qsort(r->guest.ns, TOUCH, sizeof(uint32_t), by_value);
	r->p50[way][round] = r->guest.ns[TOUCH / 2] / 1e3;
	r->p99[way][round] = r->guest.ns[TOUCH * 99 / 100] / 1e3;
}

/* Ours. */

static void ignore(void *notice)
{
	free(notice);
}

static void ours(struct rig *r, int round)
{
	struct cis_mailbox control;
	struct cis_workers *workers;
	struct cis_shard *shard;
	struct cis_awake *awake;
	struct cis_seat *seat;
	struct cis_error err;
	struct cis_region region = { .bytes = r->guest.bytes, .kind = CIS_KIND_ANONYMOUS, .hva = r->guest.hva };
	struct cis_seat_opts opts = {
		.pager = { .regions = &region, .nr_regions = 1, .image = r->img, .neighbours = r->subject->neighbours,
			   .tries = 1 },
		.uffd = r->guest.uffd, .notice = ignore,
	};
	uint64_t bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES);
	void *map;

	if (cis_mailbox_init(&control) || cis_workers_create(1, &workers) || cis_awake_create(1000, &awake) ||
	    cis_shard_create(0, workers, &control, awake, &shard) || cis_buffer_alloc(bytes, &map))
		exit(1);
	cis_state_init(map, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.pager.state);
	if (cis_seat_create(shard, &opts, &seat, &err)) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	cis_seat_sit(seat);
	bench_guest_touch(&r->guest, r->order, TOUCH);
	note(r, OURS, round);
	cis_seat_leave(seat);
	while (cis_shard_seats(shard))
		sched_yield();
	cis_shard_destroy(shard); /* its thread has said its last word of the seat */
	cis_mailbox_run(&control);
	cis_seat_destroy(seat);
	cis_workers_destroy(workers);
	cis_awake_destroy(awake);
	cis_mailbox_fini(&control);
	cis_memfd_unmap(map, bytes);
}

/* The bare loop. */

struct bare {
	struct rig *r;
	bool reads;   /* else from memory */
	char *stored; /* the image's bytes from its first chunk on; of one chunk when it reads */
	uint64_t off;
	atomic_int stop;
};

static void answer(struct bare *b, struct cis_decoder *dec, char *raw, uint64_t hva)
{
	struct rig *r = b->r;
	struct cis_page_loc loc;
	struct cis_chunk_loc chunk;
	uint64_t pgno = (hva - r->guest.hva) / TEST_PAGE, done;
	const char *src;

	cis_image_locate(r->img, pgno, &loc);
	cis_image_chunk(r->img, loc.chunk, &chunk);
	src = b->reads ? b->stored : b->stored + (chunk.off - b->off);
	if (b->reads &&
	    pread(cis_image_fd(r->img), b->stored, chunk.stored_bytes, (off_t)chunk.off) != (ssize_t)chunk.stored_bytes)
		abort();
	if (chunk.codec != CIS_CODEC_RAW) {
		if (cis_decode(dec, chunk.codec, src, chunk.stored_bytes, raw, chunk.raw_bytes))
			abort();
		src = raw;
	}
	if (cis_chunk_checksum(loc.chunk, src, chunk.raw_bytes) != chunk.checksum)
		abort();
	if (cis_uffd_copy(r->guest.uffd, r->guest.hva + pgno * TEST_PAGE, src + loc.at, TEST_PAGE, &done))
		abort();
}

static void *bare_loop(void *arg)
{
	struct bare *b = arg;
	struct pollfd p = { .fd = b->r->guest.uffd, .events = POLLIN };
	struct cis_decoder *dec;
	char *raw = aligned_alloc(4096, 2 << 20);

	if (!raw || cis_decoder_create(2 << 20, cis_image_params(b->r->img), &dec))
		abort();
	while (!atomic_load(&b->stop)) {
		struct uffd_msg msg[8];
		size_t n;

		if (poll(&p, 1, 20) < 1 || cis_uffd_read(p.fd, msg, 8, &n))
			continue;
		for (size_t i = 0; i < n; i++)
			answer(b, dec, raw, msg[i].arg.pagefault.address);
	}
	cis_decoder_destroy(dec);
	free(raw);
	return NULL;
}

static void bare(struct rig *r, enum way way, int round)
{
	const struct cis_image_info *info = cis_image_info(r->img);
	struct bare b = { .r = r, .reads = way == BARE_READ, .off = info->cold_off, .stored = malloc(info->cold_bytes) };
	struct cis_awake *awake;
	pthread_t thread;

	if (!b.stored || pread(cis_image_fd(r->img), b.stored, info->cold_bytes, (off_t)b.off) != (ssize_t)info->cold_bytes ||
	    cis_awake_create(1000, &awake) || pthread_create(&thread, NULL, bare_loop, &b))
		exit(1);
	cis_awake_touch(awake); /* as ours: cores kept from idling */
	bench_guest_touch(&r->guest, r->order, TOUCH);
	note(r, way, round);
	atomic_store(&b.stop, 1);
	pthread_join(thread, NULL);
	cis_awake_destroy(awake);
	free(b.stored);
}

/* The rest. */

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static struct cis_image *make_image(const struct subject *s, const char *path)
{
	struct cis_write_opts opts = { .codec = s->codec, .chunk_shift = s->chunk_shift };
	struct test_memory m;
	struct cis_image *img;

	test_memory_init(&m, PAGES);
	for (uint64_t p = 0; p < PAGES; p++) {
		uint64_t *w = (uint64_t *)(m.mem + p * TEST_PAGE), seed = p + 1;

		for (unsigned i = 0; i < TEST_PAGE / 8; i++) /* half of it zeros, as guests' pages are */
			w[i] = i % 2 ? 0 : test_random(&seed);
	}
	img = test_write_image(path, &m, &opts);
	test_memory_fini(&m);
	return img;
}

static void figures(struct bench *b, struct rig *r, size_t rounds, enum way base, const char *more)
{
	const struct subject *s = r->subject;
	char name[120];

	for (int p99 = 0; p99 < 2; p99++) {
		double(*of)[ROUNDS] = p99 ? r->p99 : r->p50;
		double mine = bench_median(of[OURS], rounds), bare_us = bench_median(of[base], rounds);

		snprintf(name, sizeof(name), "%s, %s CPU%s: %s", s->name, s->same_cpu ? "same" : "other", more, p99 ? "p99" : "p50");
		bench_figure(b, name, mine, "us", bare_us, mine / bare_us);
	}
}

static void run_subject(struct bench *b, const struct subject *s, const char *path)
{
	struct rig *r = calloc(1, sizeof(*r));
	uint64_t seed = 7;
	int rounds = b->quick ? 1 : ROUNDS;

	if (!r)
		exit(1);
	r->subject = s;
	r->img = make_image(s, path);
	r->cpu = b->cpu;
	r->guest_cpu = s->same_cpu ? b->cpu : b->cpu ? b->cpu - 1 : 1;
	for (unsigned i = 0; i < TOUCH; i++) /* one page a chunk of 64 KiB, shuffled */
		r->order[i] = i * (PAGES / TOUCH) + (uint32_t)(test_random(&seed) % (PAGES / TOUCH));
	for (unsigned i = TOUCH - 1; i; i--) {
		unsigned k = (unsigned)(test_random(&seed) % (i + 1));
		uint32_t t = r->order[i];

		r->order[i] = r->order[k];
		r->order[k] = t;
	}
	pin(r->cpu);
	for (int round = 0; round < rounds; round++)
		for (int turn = 0; turn < WAYS; turn++) {
			enum way way = (enum way)((turn + round) % WAYS);

			bench_guest_start(&r->guest, PAGES * (uint64_t)TEST_PAGE, BENCH_ANONYMOUS, r->guest_cpu);
			if (way == OURS)
				ours(r, round);
			else
				bare(r, way, round);
			bench_guest_end(&r->guest);
		}
	figures(b, r, (size_t)rounds, BARE, "");
	figures(b, r, (size_t)rounds, BARE_READ, ", with its read");
	cis_image_unref(r->img);
	unlink(path);
	free(r);
}

int main(void)
{
	static const struct subject subjects[] = {
		{ "raw 4 KiB chunks", CIS_CODEC_RAW, 12, false, true },
		{ "raw 4 KiB chunks", CIS_CODEC_RAW, 12, false, false },
		{ "mask 64 KiB chunks", CIS_CODEC_MASK, 16, false, true },
		{ "mask 64 KiB chunks", CIS_CODEC_MASK, 16, false, false },
		{ "lz4 64 KiB chunks", CIS_CODEC_LZ4, 16, false, true },
		{ "lz4 64 KiB chunks", CIS_CODEC_LZ4, 16, false, false },
		{ "lz4 64 KiB, neighbours", CIS_CODEC_LZ4, 16, true, true },
		{ "lz4 64 KiB, neighbours", CIS_CODEC_LZ4, 16, true, false },
	};
	char path[] = "/tmp/cistern-bench-XXXXXX";
	struct bench b;
	uint64_t features;
	int fd = mkstemp(path);

	if (fd < 0)
		return 1;
	close(fd);
	bench_open(&b, "fault");
	if (cis_uffd_features(&features))
		bench_skip(&b, "no permission to make a userfaultfd");
	bench_title(&b, "demand fault, as the touching thread sees it; baseline: poll, read, verify (and decode), COPY");
	for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++)
		run_subject(&b, &subjects[i], path);
	bench_close(&b);
	return 0;
}
