/*
 * bench shrink: a guest that is held to 1 MiB, and how soon it is what it was when its budget is given back.
 *
 * The daemon's own shard and workers serve a guest in this process. Its thread has a working set of one page in four, which it touches at random, the
 * half for writing, and looks at a word of each. Recovered means that it has 0.8 of the rate of touches that it had before, in a
 * window of 10 ms: hardly any of 100 000 touches waits for a page.
 */
#include <stdlib.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "base/clock.h"
#include "bench.h"
#include "rig.h"
#include "snapshots.h"

#define ROUNDS	  5
#define SET	  4u /* one page in so many is touched */
#define SMALL	  (((uint64_t)1 << 20) / TEST_PAGE)
#define TOUCHES	  4096u /* at 1 MiB */
#define WINDOW_NS 10000000u
#define GIVE_UP_S 30

static struct {
	struct rig rig;
	struct rig_guest guest;
	uint64_t pages, seed;
	double touch_us[TOUCHES];
} b_;

static uint64_t *word_of(uint64_t pgno)
{
	return (uint64_t *)(b_.guest.mem + pgno * TEST_PAGE + (pgno % 64) * 64);
}

static void touch(void)
{
	uint64_t x = test_random(&b_.seed), pgno = (x >> 8) % (b_.pages / SET) * SET, *word = word_of(pgno);

	if (*word != pgno + 1)
		bench_die("shrink", "a word is wrong");
	if (x & 1)
		*(volatile uint64_t *)word = pgno + 1;
}

/* A quarter zeros, a quarter pointers, a quarter small numbers, a quarter noise; and the word that is looked at. */
static void write_all(void)
{
	uint64_t *w = (uint64_t *)b_.guest.mem, seed = 1;

	for (uint64_t i = 0; i < b_.pages * TEST_PAGE / 8; i++) {
		uint64_t x = test_random(&seed);

		w[i] = x % 4 == 0 ? 0 : x % 4 == 1 ? 0xffff888000000000u + (x & 0xffffff) : x % 4 == 2 ? (x & 0xffff) : x;
	}
	for (uint64_t p = 0; p < b_.pages; p++)
		*word_of(p) = p + 1;
}

static uint64_t resident(void)
{
	uint64_t pages[CIS_PAGE_STATES];

	cis_seat_pages(b_.guest.seat, pages);
	return pages[CIS_PAGE_RESIDENT] + pages[CIS_PAGE_CLEAN];
}

static void limit(uint64_t pages)
{
	struct cis_reclaim_opts opts = { .budget_pages = pages, .stash_bytes = UINT64_MAX, .codec = CIS_CODEC_LZ4, .prefetch = true };
	struct cis_error err;

	if (cis_seat_reclaim(b_.guest.seat, &opts, "", &err))
		bench_die("budget", err.text);
}

/* Return: touches a second, over about @ns. */
static double rate(uint64_t ns)
{
	uint64_t start = cis_now_ns(NULL), now, n = 0;

	do {
		for (unsigned i = 0; i < 64; i++)
			touch();
		n += 64;
		now = cis_now_ns(NULL);
	} while (now - start < ns);
	return (double)n * 1e9 / (double)(now - start);
}

static double shrink(void)
{
	double start = bench_now();

	limit(SMALL);
	while (resident() > SMALL)
		usleep(1000);
	return bench_now() - start;
}

static void touch_small(void)
{
	for (unsigned i = 0; i < TOUCHES; i++) {
		double start = bench_now();

		touch();
		b_.touch_us[i] = (bench_now() - start) * 1e6;
	}
}

/* @ret_all: until all pages are there again; NAN when they come by touches alone, which takes for ever for the last ones. */
static double give_back(double before, bool filled, double *ret_all)
{
	double start = bench_now(), recovered = 0;

	*ret_all = 0.0 / 0.0;
	limit(UINT64_MAX);
	while (!recovered || (filled && !(*ret_all > 0))) {
		double is = rate(WINDOW_NS), after = bench_now() - start;

		if (!recovered && is > 0.8 * before)
			recovered = after;
		if (filled && resident() == b_.pages && !(*ret_all > 0))
			*ret_all = after;
		if (after > GIVE_UP_S)
			bench_die("shrink", "it never recovers");
	}
	return recovered;
}

static void run_guest(struct bench *b, const char *name, struct cis_image *img, bool filled)
{
	double shrinks[ROUNDS], p50[ROUNDS], p99[ROUNDS], recovers[ROUNDS], all[ROUNDS], before = 0;
	size_t rounds = b->quick ? 1 : ROUNDS;
	char what[120];

	b_.seed = 7;
	rig_guest_init(&b_.guest, &b_.rig, img, true);
	rig_guest_prepare(&b_.guest);
	rig_guest_restore(&b_.guest, filled ? CIS_FILL_ALL : CIS_FILL_NONE);
	write_all();
	for (size_t i = 0; i < rounds; i++) {
		before = rate(20 * WINDOW_NS);
		shrinks[i] = shrink();
		touch_small();
		p50[i] = bench_median(b_.touch_us, TOUCHES);
		p99[i] = b_.touch_us[TOUCHES * 99 / 100];
		recovers[i] = give_back(before, filled, &all[i]);
	}
	snprintf(what, sizeof(what), "%s: shrunk to 1 MiB after", name);
	bench_figure(b, what, bench_median(shrinks, rounds), "s", 0.0 / 0.0, 0.0 / 0.0);
	snprintf(what, sizeof(what), "%s: a touch at 1 MiB, p50", name);
	bench_figure(b, what, bench_median(p50, rounds), "us", 1e6 / before, bench_median(p50, rounds) * before / 1e6);
	snprintf(what, sizeof(what), "%s: a touch at 1 MiB, p99", name);
	bench_figure(b, what, bench_median(p99, rounds), "us", 0.0 / 0.0, 0.0 / 0.0);
	snprintf(what, sizeof(what), "%s: recovered after", name);
	bench_figure(b, what, bench_median(recovers, rounds), "s", 2, bench_median(recovers, rounds) / 2);
	if (filled) {
		snprintf(what, sizeof(what), "%s: all of it there after", name);
		bench_figure(b, what, bench_median(all, rounds), "s", 0.0 / 0.0, 0.0 / 0.0);
	}
	rig_guest_fini(&b_.guest);
}

int main(void)
{
	struct bench b;

	bench_open(&b, "shrink");
	rig_open(&b_.rig, 2);
	bench_title(&b, "a guest shrunk to 1 MiB and given its memory back (bar: recovered within 2 s)");
	for (unsigned mib = 256; mib <= 1024; mib *= 4)
		for (int filled = 1; filled >= 0; filled--) {
			char path[] = "/var/tmp/cistern-bench-XXXXXX", name[80];
			struct test_memory m;
			struct cis_image *img;

			close(mkstemp(path));
			b_.pages = (uint64_t)mib << 8;
			test_memory_init(&m, b_.pages);
			memset(m.hole, 1, b_.pages);
			img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW });
			unlink(path);
			test_memory_fini(&m);
			snprintf(name, sizeof(name), "%u MiB, %s", mib, filled ? "filled again in the background" : "by touches alone");
			run_guest(&b, name, img, filled);
			rig_forget(&b_.rig, img);
			cis_image_unref(img);
		}
	rig_close(&b_.rig);
	bench_close(&b);
	return 0;
}
