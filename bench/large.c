/*
 * bench large: what a guest of 64 GiB costs the engine, most of it elsewhere or never touched, and how long a budget takes to be cut.
 *
 * A guest process writes to pages all over its memory; the daemon's shard and a worker hold it to its budget, and the rest goes to files.
 * The engine's memory is what this process has more of than before there was a guest, and the page words; the stash, which is pages
 * themselves and is bounded, is not in it.
 *
 * BENCH_GIB=n: a guest of another size, instead of 64.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "base/clock.h"
#include "bench.h"
#include "daemon/awake.h"
#include "daemon/shard.h"
#include "guest.h"
#include "os/memfd.h"
#include "servers.h"
#include "snapshots.h"

#define MIB(n)	   ((uint64_t)(n) << 20)
#define BUDGET	   MIB(1024)
#define STRIDE	   16u /* one page in so many is written to */
#define STASH	   MIB(64)

static struct {
	struct cis_image *img;
	struct bench_guest guest;
	struct bench_server server;
	struct cis_mailbox control;
	struct cis_workers *workers;
	struct cis_shard *shard;
	struct cis_awake *awake;
	struct cis_seat *seat;
	struct cis_reclaim_opts reclaim;
	uint64_t pages;
	void *state;
	int state_fd;
} r;

static void make_image(const char *path)
{
	struct test_memory m;

	test_memory_init(&m, 1);
	free(m.hole);
	m.hole = malloc(r.pages);
	if (!m.hole)
		bench_die("image", "no memory");
	memset(m.hole, 1, r.pages);
	m.src.guest_bytes = r.pages * TEST_PAGE;
	r.img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW });
	test_memory_fini(&m);
}

static void ignore(void *notice)
{
	free(notice);
}

/* Of this process, without files and shared memory. */
static uint64_t own_bytes(void)
{
	char line[200];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %llu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib << 10;
}

static uint64_t count(enum cis_page_state state)
{
	uint64_t n[CIS_PAGE_STATES];

	cis_seat_pages(r.seat, n);
	return n[state];
}

static uint64_t resident(void)
{
	return count(CIS_PAGE_RESIDENT) + count(CIS_PAGE_CLEAN);
}

static void start(void)
{
	struct cis_region region = { .bytes = r.pages * TEST_PAGE, .kind = CIS_KIND_SHARED };
	struct cis_seat_opts opts = {
		.pager = { .regions = &region, .nr_regions = 1, .image = r.img, .tries = 1, .store_deadline_ns = 60000000000 },
		.reclaim = &r.reclaim, .pages = r.server.url, .notice = ignore,
	};
	uint64_t bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, r.pages);
	struct cis_error err;

	bench_guest_start(&r.guest, region.bytes, BENCH_MEMFD, -1);
	region.hva = r.guest.hva;
	region.view = r.guest.view;
	opts.uffd = r.guest.uffd;
	bench_must(cis_memfd_create("state", bytes, TEST_PAGE, &r.state_fd), "state memfd");
	bench_must(cis_memfd_map(r.state_fd, 0, bytes, &r.state), "state memfd");
	cis_state_init(r.state, CIS_STATE_LAYOUT_MAX, r.pages, 1, &opts.pager.state);
	r.reclaim = (struct cis_reclaim_opts){ .budget_pages = BUDGET / TEST_PAGE, .stash_bytes = STASH, .codec = CIS_CODEC_RAW, .ns = { 0x6c61, 1 } };
	if (cis_seat_create(r.shard, &opts, &r.seat, &err))
		bench_die("seat", err.text);
	cis_seat_sit(r.seat);
}

static void stop(void)
{
	cis_seat_leave(r.seat);
	while (cis_shard_seats(r.shard))
		usleep(1000);
	cis_mailbox_run(&r.control);
	cis_seat_destroy(r.seat);
	bench_guest_end(&r.guest);
	cis_memfd_unmap(r.state, cis_state_bytes(CIS_STATE_LAYOUT_MAX, r.pages));
	close(r.state_fd);
}

static void write_all_over(void)
{
	static uint32_t order[65536];

	for (uint64_t from = 0; from < r.pages; from += 65536ull * STRIDE) {
		uint32_t n = 0;

		for (uint64_t p = from; p < r.pages && n < 65536; p += STRIDE)
			order[n++] = (uint32_t)p | BENCH_WRITE;
		bench_guest_touch(&r.guest, order, n);
	}
}

static void wait_for_stash(void)
{
	while (count(CIS_PAGE_STASHED) * (TEST_PAGE + 28) > STASH / 2 + MIB(1) || count(CIS_PAGE_INFLIGHT))
		usleep(10000);
}

/* Return: seconds. */
static double cut(uint64_t pages)
{
	double begin = bench_now();
	struct cis_error err;

	r.reclaim.budget_pages = pages;
	if (cis_seat_reclaim(r.seat, &r.reclaim, r.server.url, &err))
		bench_die("budget", err.text);
	while (resident() > pages)
		usleep(500);
	return bench_now() - begin;
}

int main(void)
{
	char path[] = "/var/tmp/cistern-bench-XXXXXX";
	const char *gib = getenv("BENCH_GIB");
	uint64_t before, words;
	struct bench b;
	double took, per_page;

	close(mkstemp(path));
	bench_open(&b, "large");
	bench_unpin(&b);
	r.pages = MIB(gib ? strtoull(gib, NULL, 10) * 1024 : b.quick ? 4096 : 65536) / TEST_PAGE;
	make_image(path);
	unlink(path);
	bench_server_start(&r.server, "file");
	bench_must(cis_mailbox_init(&r.control), "mailbox");
	bench_must(cis_workers_create(1, &r.workers), "workers");
	bench_must(cis_awake_create(1000, &r.awake), "awake");
	bench_must(cis_shard_create(0, r.workers, &r.control, r.awake, &r.shard), "shard");
	before = own_bytes();
	start();
	took = bench_now();
	write_all_over();
	took = bench_now() - took;
	wait_for_stash();
	words = r.pages * sizeof(uint64_t);
	per_page = (double)(own_bytes() - before + words) / (double)r.pages;
	bench_title(&b, "a large guest, one page in 16 written, 1 GiB of it resident, the rest in files");
	bench_figure(&b, "pages that are in files", (double)count(CIS_PAGE_FAR), "pages", 0.0 / 0.0, 0.0 / 0.0);
	bench_figure(&b, "written, a page", took / (double)(r.pages / STRIDE) * 1e6, "us", 0.0 / 0.0, 0.0 / 0.0);
	bench_figure(&b, "engine, a page of the guest (bar 16)", per_page, "bytes", 16, per_page / 16);
	per_page = (double)(own_bytes() - before) / (double)(count(CIS_PAGE_FAR) + resident()) + 8;
	bench_figure(&b, "engine, a page that was written", per_page, "bytes", 0.0 / 0.0, 0.0 / 0.0);
	bench_title(&b, "the budget is cut: time for each page that has to go");
	for (uint64_t mib = 512; mib >= 64 && resident() > MIB(mib) / TEST_PAGE; mib /= 2) {
		uint64_t had = resident(), want = MIB(mib) / TEST_PAGE;
		char what[100];

		took = cut(want);
		snprintf(what, sizeof(what), "to %llu MiB, %llu pages", (unsigned long long)mib, (unsigned long long)(had - resident()));
		bench_figure(&b, what, took / (double)(had - resident()) * 1e6, "us/page", 0.0 / 0.0, 0.0 / 0.0);
	}
	stop();
	cis_shard_destroy(r.shard);
	cis_workers_destroy(r.workers);
	cis_awake_destroy(r.awake);
	cis_mailbox_fini(&r.control);
	bench_server_stop(&r.server);
	cis_image_unref(r.img);
	bench_close(&b);
	return 0;
}
