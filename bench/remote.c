/*
 * bench remote: faults of pages that are elsewhere, after FluidMem's table 1, and what each of its measures brings.
 *
 * A guest process has four times as much memory as its budget. Ours is the daemon's shard and one worker; the stores are servers on
 * loopback, a folder, or the stash alone. A touch is taken for a fault when it takes more than 3 us.
 *
 * The limit of a random read is a bare loop that answers faults from one buffer, and the store's own get of a value as long as ours are,
 * asked for and waited for as a shard does: p50 of one and p50 of the other. Both are of the same run, on the same CPU.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "base/clock.h"
#include "bench.h"
#include "codec/codec.h"
#include "daemon/awake.h"
#include "daemon/shard.h"
#include "guest.h"
#include "os/memfd.h"
#include "os/uffd.h"
#include "servers.h"
#include "snapshots.h"
#include "store/store.h"

#define PAGES	 16384u /* 64 MiB */
#define BUDGET	 (PAGES / 4)
#define TOUCHES	 8192u /* a run */
#define ROUNDS	 5
#define FAULT_NS 3000u
#define GETS	 4000u

/** struct way - what is switched on; each has what the one before has */
struct way {
	const char *name;
	bool lz4, async, prefetch;
};

static const struct way ways[] = {
	{ "a page out for a page in", false, false, false },
	{ "+ compressed", true, false, false },
	{ "+ reclaim in batches, ahead", true, true, false },
	{ "+ prefetch", true, true, true },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

static struct {
	struct cis_image *img;
	struct bench_guest guest;
	struct bench_server server;
	const char *kind; /* NULL: the stash */
	int cpu, guest_cpu;
	uint32_t order[TOUCHES];
	uint64_t seed;

	struct cis_mailbox control;
	struct cis_workers *workers;
	struct cis_shard *shard;
	struct cis_awake *awake;
	struct cis_seat *seat;
	void *state;
} r;

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/* Half zeros, half noise. */
static void make_image(const char *path)
{
	struct test_memory m;

	test_memory_init(&m, PAGES);
	for (uint64_t p = 0; p < PAGES; p++) {
		uint64_t *w = (uint64_t *)(m.mem + p * TEST_PAGE), seed = p + 1;

		for (unsigned i = 0; i < TEST_PAGE / 8; i++)
			w[i] = i % 2 ? 0 : test_random(&seed);
	}
	r.img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW });
	test_memory_fini(&m);
}

static void ignore(void *notice)
{
	free(notice);
}

static void start(const struct way *way)
{
	static uint64_t ns;
	struct cis_reclaim_opts reclaim = {
		.budget_pages = BUDGET, .stash_bytes = r.kind ? 16 << 20 : UINT64_MAX, .codec = way->lz4 ? CIS_CODEC_LZ4 : CIS_CODEC_RAW,
		.sync = !way->async, .prefetch = way->prefetch, .ns = { 0x72656d, ++ns },
	};
	struct cis_region region = { .bytes = PAGES * (uint64_t)TEST_PAGE, .kind = CIS_KIND_SHARED };
	struct cis_seat_opts opts = {
		.pager = { .regions = &region, .nr_regions = 1, .image = r.img, .tries = 1, .store_deadline_ns = 10000000000 },
		.reclaim = &reclaim, .pages = r.kind ? r.server.url : NULL, .notice = ignore,
	};
	uint64_t bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES);
	struct cis_error err;

	bench_guest_start(&r.guest, region.bytes, BENCH_MEMFD, r.guest_cpu);
	region.hva = r.guest.hva;
	region.view = r.guest.view;
	opts.uffd = r.guest.uffd;
	bench_must(cis_buffer_alloc(bytes, &r.state), "state");
	cis_state_init(r.state, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.pager.state);
	bench_must(cis_mailbox_init(&r.control), "mailbox");
	bench_must(cis_workers_create(1, &r.workers), "workers");
	bench_must(cis_awake_create(1000, &r.awake), "awake");
	bench_must(cis_shard_create(0, r.workers, &r.control, r.awake, &r.shard), "shard");
	if (cis_seat_create(r.shard, &opts, &r.seat, &err))
		bench_die("seat", err.text);
	cis_seat_sit(r.seat);
}

static void stop(void)
{
	cis_seat_leave(r.seat);
	while (cis_shard_seats(r.shard))
		sched_yield();
	cis_shard_destroy(r.shard);
	cis_mailbox_run(&r.control);
	cis_seat_destroy(r.seat);
	cis_workers_destroy(r.workers);
	cis_awake_destroy(r.awake);
	cis_mailbox_fini(&r.control);
	cis_memfd_unmap(r.state, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	bench_guest_end(&r.guest);
}

/* Which pages, in which order. */

static void in_a_row(uint32_t from, uint32_t how)
{
	for (uint32_t i = 0; i < TOUCHES; i++)
		r.order[i] = (from + i) % PAGES | how;
}

static void at_random(uint32_t how)
{
	for (uint32_t i = 0; i < TOUCHES; i++)
		r.order[i] = (uint32_t)(test_random(&r.seed) % PAGES) | how;
}

/** struct took - us a fault, and the share of touches that were faults */
struct took {
	double mean, p50, p99, faults;
};

static struct took touch(void)
{
	static double us[TOUCHES];
	struct took t = { 0 };
	size_t n = 0;

	bench_guest_touch(&r.guest, r.order, TOUCHES);
	for (uint32_t i = 0; i < TOUCHES; i++)
		if (r.guest.ns[i] > FAULT_NS)
			t.mean += us[n++] = r.guest.ns[i] / 1e3;
	if (!n)
		return t;
	t.mean /= (double)n;
	t.p50 = bench_median(us, n);
	t.p99 = us[n * 99 / 100];
	t.faults = (double)n / TOUCHES;
	return t;
}

/* The limit. */

static atomic_bool bare_ends;

static void *bare_loop(void *arg)
{
	struct pollfd p = { .fd = r.guest.uffd, .events = POLLIN };
	char *page = arg;

	while (!atomic_load(&bare_ends)) {
		struct uffd_msg msg[8];
		uint64_t done;
		size_t n;

		if (poll(&p, 1, 20) < 1 || cis_uffd_read(p.fd, msg, 8, &n))
			continue;
		for (size_t i = 0; i < n; i++)
			cis_uffd_copy(p.fd, msg[i].arg.pagefault.address & ~(uint64_t)(TEST_PAGE - 1), page, TEST_PAGE, &done);
	}
	return NULL;
}

static double bare_fault(void)
{
	static char page[TEST_PAGE] __attribute__((aligned(TEST_PAGE))) = { 1 };
	struct cis_awake *awake;
	pthread_t thread;
	struct took t;

	bench_guest_start(&r.guest, PAGES * (uint64_t)TEST_PAGE, BENCH_MEMFD, r.guest_cpu);
	atomic_store(&bare_ends, false);
	bench_must(cis_awake_create(1000, &awake), "awake");
	bench_must(-pthread_create(&thread, NULL, bare_loop, page), "thread");
	cis_awake_touch(awake);
	at_random(0);
	t = touch();
	atomic_store(&bare_ends, true);
	pthread_join(thread, NULL);
	cis_awake_destroy(awake);
	bench_guest_end(&r.guest);
	return t.p50;
}

static void done(struct cis_store_req *req, int err)
{
	if (err)
		bench_die(r.kind, strerror(-err));
	*(bool *)req->ctx = true;
}

static void ask(struct cis_store *store, struct cis_store_req *req)
{
	struct pollfd p = { .fd = cis_store_fd(store), .events = POLLIN };
	bool is_done = false;

	req->done = done;
	req->ctx = &is_done;
	cis_store_submit(store, &req, 1);
	while (!is_done) {
		poll(&p, 1, -1);
		cis_store_reap(store);
	}
}

/* Of a value as long as a page of this guest is as lz4 makes it: a little more than half of it. */
static double bare_get(void)
{
	static double us[GETS];
	static char buf[CIS_VALUE_MAX], value[2200];
	static uint32_t loc[PAGES];
	struct cis_store *store;
	struct cis_error err;

	if (!r.kind)
		return 0;
	if (cis_pages_open(r.server.url, NULL, &store, &err))
		bench_die(r.server.url, err.text);
	for (uint64_t i = 0; i < PAGES; i++) {
		struct cis_store_req put = { .op = CIS_STORE_PUT, .key = { { 7, 7 }, i << 24 }, .buf = value, .len = sizeof(value) };

		ask(store, &put);
		loc[i] = put.loc;
	}
	for (size_t i = 0; i < GETS; i++) {
		uint64_t page = test_random(&r.seed) % PAGES;
		struct cis_store_req get = { .op = CIS_STORE_GET, .key = { { 7, 7 }, page << 24 }, .buf = buf, .len = sizeof(buf), .loc = loc[page] };
		double began = bench_now();

		ask(store, &get);
		us[i] = (bench_now() - began) * 1e6;
	}
	for (unsigned part = 0; part < store->ops->drops; part++)
		ask(store, &(struct cis_store_req){ .op = CIS_STORE_DROP, .key = { { 7, 7 }, part } });
	if (store->ops->drop)
		store->ops->drop(store, (uint64_t[]){ 7, 7 });
	cis_store_close(store);
	return bench_median(us, GETS);
}

static void sweep(uint32_t how)
{
	for (uint32_t from = 0; from < PAGES; from += TOUCHES) {
		in_a_row(from, how);
		touch();
	}
}

enum { SEQUENTIAL, RANDOM, RANDOM_WRITE, ORDERS };

static const char *const orders[] = { "sequential reads", "random reads", "random writes" };

static void run_way(const struct way *way, struct took ret[ORDERS])
{
	start(way);
	sweep(BENCH_WRITE); /* each page has been there, and most have gone */
	sweep(0);
	in_a_row(0, 0);
	ret[SEQUENTIAL] = touch();
	at_random(0);
	touch();
	at_random(0);
	ret[RANDOM] = touch();
	at_random(BENCH_WRITE);
	touch();
	at_random(BENCH_WRITE);
	ret[RANDOM_WRITE] = touch();
	stop();
}

static double median_of(struct took (*t)[ORDERS], int order, size_t rounds, size_t at)
{
	double v[ROUNDS];

	for (size_t i = 0; i < rounds; i++)
		v[i] = *(double *)((char *)&t[i][order] + at);
	return bench_median(v, rounds);
}

static void figures(struct bench *b, const char *where, struct took t[WAYS][ROUNDS][ORDERS], size_t rounds, double limit)
{
	for (int order = 0; order < ORDERS; order++)
		for (size_t w = 0; w < WAYS; w++) {
			double mean = median_of(t[w], order, rounds, offsetof(struct took, mean));
			double p50 = median_of(t[w], order, rounds, offsetof(struct took, p50));
			double base = order == RANDOM ? limit : 0.0 / 0.0;
			char what[200];

			snprintf(what, sizeof(what), "%s, %s, %s, %s: p50", r.kind ? r.kind : "stash", where, orders[order], ways[w].name);
			bench_figure(b, what, p50, "us", base, p50 / base);
			snprintf(what, sizeof(what), "%s, %s, %s, %s: mean of a fault", r.kind ? r.kind : "stash", where, orders[order], ways[w].name);
			bench_figure(b, what, mean, "us", 0.0 / 0.0, 0.0 / 0.0);
		}
}

/* Of a touch, whether it was a fault or not; random ones by their faults alone. */
static double cost(struct took (*t)[ORDERS], int order, size_t rounds)
{
	double mean = median_of(t, order, rounds, offsetof(struct took, mean));

	return order == SEQUENTIAL ? mean * median_of(t, order, rounds, offsetof(struct took, faults)) : mean;
}

static void compare(struct bench *b, const char *where, struct took t[WAYS][ROUNDS][ORDERS], size_t rounds)
{
	double sequential = cost(t[WAYS - 1], SEQUENTIAL, rounds), random = cost(t[WAYS - 1], RANDOM, rounds);
	char what[200];

	snprintf(what, sizeof(what), "%s, %s: a sequential touch to a random fault (bar 0.5)", r.kind ? r.kind : "stash", where);
	bench_figure(b, what, sequential, "us", random, sequential / random);
	for (int order = RANDOM; order < ORDERS; order++) {
		double sync = cost(t[1], order, rounds), async = cost(t[2], order, rounds);

		snprintf(what, sizeof(what), "%s, %s, %s: in batches to one by one (bar 0.77)", r.kind ? r.kind : "stash", where, orders[order]);
		bench_figure(b, what, async, "us", sync, async / sync);
	}
}

static void run_store(struct bench *b, const char *kind, bool apart)
{
	static struct took took[WAYS][ROUNDS][ORDERS];
	double fault[ROUNDS], get[ROUNDS];
	size_t rounds = b->quick ? 1 : ROUNDS;

	r.kind = kind;
	r.cpu = b->cpu;
	r.guest_cpu = apart ? (b->cpu ? b->cpu - 1 : 1) : b->cpu;
	pin(r.cpu);
	if (kind)
		bench_server_start(&r.server, kind);
	for (size_t i = 0; i < rounds; i++) {
		fault[i] = bare_fault();
		get[i] = bare_get();
		for (size_t w = 0; w < WAYS; w++)
			run_way(&ways[(w + i) % WAYS], took[(w + i) % WAYS][i]);
	}
	if (kind)
		bench_server_stop(&r.server);
	figures(b, apart ? "guest on the other CPU" : "one CPU", took, rounds, bench_median(fault, rounds) + bench_median(get, rounds));
	compare(b, apart ? "guest on the other CPU" : "one CPU", took, rounds);
}

int main(void)
{
	static const char *const kinds[] = { NULL, "file", "valkey", "memcached" };
	char path[] = "/var/tmp/cistern-bench-XXXXXX";
	const char *only = getenv("BENCH_STORE");
	struct bench b;

	close(mkstemp(path));
	bench_open(&b, "remote");
	make_image(path);
	unlink(path);
	r.seed = 7;
	for (int apart = 0; apart < 2; apart++)
		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
			if (only && strcmp(only, kinds[i] ? kinds[i] : "stash"))
				continue;
			bench_title(&b, "faults of pages that are elsewhere; baseline of random reads: a bare fault loop and the store's get");
			run_store(&b, kinds[i], apart);
		}
	cis_image_unref(r.img);
	bench_close(&b);
	return 0;
}
