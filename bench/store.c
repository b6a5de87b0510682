/*
 * bench store: stores of pages.  How long gets take as a shard waits for them (poll, then reap), one at a time and 16 at once, and how
 * fast puts of 64 go; beside the bare calls for the same bytes of the same disk, by turns.
 *
 * Bare gets are a pread() past the page cache of the sectors that the value lies in; bare puts one pwrite() of as many bytes as 64 values
 * take in the file, aligned.  Stores that are not files have no bare way here, nor have those that are made of others: values that are sealed,
 * and a file before memcached that takes a quarter of the values.
 *
 * BENCH_STORE_DIR=folder: where file: keeps its files, instead of /var/tmp.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "servers.h"
#include "snapshots.h"
#include "store/layer.h"
#include "store/seal.h"
#include "store/store.h"

#define VALUES 65536u
#define BATCH  64u
#define AT_ONCE 16u
#define GETS   4000u /* of each kind */
#define SECTOR 4096u

/**
 * struct subject - a store
 * @start: a new and empty one: its name into @url, and @bare, a descriptor of the file that loc counts 64 bytes in, or -1
 * @sealed: its values are
 */
struct subject {
	const char *name;
	bool (*start)(char url[300]);
	int (*bare)(void);
	void (*stop)(void);
	bool sealed;
};

static char folder[200];

static bool file_start(char url[300])
{
	const char *where = getenv("BENCH_STORE_DIR");

	snprintf(folder, sizeof(folder), "%s/cistern-bench-store.XXXXXX", where ? where : "/var/tmp");
	if (!mkdtemp(folder))
		bench_die(folder, strerror(errno));
	snprintf(url, 300, "file:%s", folder);
	return true;
}

/* There is one namespace, and so one file. */
static int file_bare(void)
{
	DIR *dir = opendir(folder);
	int fd = -1;

	for (struct dirent *e; dir && (e = readdir(dir));)
		if (*e->d_name != '.')
			fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECT);
	if (dir)
		closedir(dir);
	if (fd < 0)
		bench_die(folder, "no file that can be read past the page cache");
	return fd;
}

/*
 * The store is closed, and its file removed here and not dropped: rmdir() spins while a dropped one's blocks are still being freed aside,
 * and for ever where that thread gets no turn, as under chrt -f.
 */
static void file_stop(void)
{
	DIR *dir = opendir(folder);

	for (struct dirent *e; dir && (e = readdir(dir));)
		if (*e->d_name != '.')
			unlinkat(dirfd(dir), e->d_name, 0);
	if (dir)
		closedir(dir);
	if (rmdir(folder))
		bench_die(folder, strerror(errno));
}

static struct bench_server server;

static bool valkey_start(char url[300])
{
	bench_server_start(&server, "valkey");
	strcpy(url, server.url);
	return true;
}

static bool memcached_start(char url[300])
{
	bench_server_start(&server, "memcached");
	strcpy(url, server.url);
	return true;
}

static void server_stop(void)
{
	bench_server_stop(&server);
}

static bool tier_start(char url[300])
{
	char name[300];

	file_start(name);
	bench_server_start(&server, "memcached");
	snprintf(url, 300, "tier:bytes=64M,%.120s+%.120s", name, server.url);
	return true;
}

static void tier_stop(void)
{
	server_stop();
	file_stop();
}

static const struct subject subjects[] = {
	{ "file", file_start, file_bare, file_stop, false },
	{ "file, sealed", file_start, NULL, file_stop, true },
	{ "valkey", valkey_start, NULL, server_stop, false },
	{ "memcached", memcached_start, NULL, server_stop, false },
	{ "memcached, sealed", memcached_start, NULL, server_stop, true },
	{ "tier", tier_start, NULL, tier_stop, false },
};

struct rig {
	struct bench *b;
	const struct subject *subject;
	uint32_t value_bytes;
	struct cis_store *store, *below;
	unsigned in_flight;
	int bare;
	uint32_t loc[VALUES];
	struct cis_store_req req[BATCH];
	char *buf[BATCH], *raw; /* of each request; of the bare calls */
	uint64_t random;
};

static const uint64_t ns[2] = { 0x6265, 0x6e63 };

static void done(struct cis_store_req *req, int err)
{
	struct rig *r = req->ctx;

	if (err)
		bench_die(r->subject->name, strerror(-err));
	r->in_flight--;
}

static void prepare(struct rig *r, unsigned i, enum cis_store_op op, uint32_t value)
{
	r->req[i] = (struct cis_store_req){ .op = op, .key = { { ns[0], ns[1] }, (uint64_t)value << 24 }, .buf = r->buf[i],
					    .len = op == CIS_STORE_PUT ? r->value_bytes : CIS_VALUE_MAX, .loc = r->loc[value],
					    .done = done, .ctx = r };
}

static void go(struct rig *r, unsigned n)
{
	struct cis_store_req *reqs[BATCH];

	for (unsigned i = 0; i < n; i++)
		reqs[i] = &r->req[i];
	r->in_flight = n;
	cis_store_submit(r->store, reqs, n);
	while (r->in_flight) {
		struct pollfd p = { .fd = cis_store_fd(r->store), .events = POLLIN };

		poll(&p, 1, -1);
		cis_store_reap(r->store);
	}
}

static uint32_t pick(struct rig *r, uint32_t below)
{
	r->random = cis_layer_random(r->random);
	return (uint32_t)(r->random % below);
}

/* Puts. */

static double put_ours(struct rig *r, uint32_t from)
{
	double start = bench_now();

	for (unsigned i = 0; i < BATCH; i++)
		prepare(r, i, CIS_STORE_PUT, from + i);
	go(r, BATCH);
	for (unsigned i = 0; i < BATCH; i++)
		r->loc[from + i] = r->req[i].loc;
	return bench_now() - start;
}

static uint32_t batch_bytes(const struct rig *r)
{
	return ((r->value_bytes + 16 + 63) / 64 * 64 * BATCH + SECTOR - 1) & ~(SECTOR - 1);
}

static double put_bare(struct rig *r, int fd, uint64_t off)
{
	double start = bench_now();
	uint32_t bytes = batch_bytes(r);

	if (pwrite(fd, r->raw, bytes, (off_t)off) != (ssize_t)bytes)
		bench_die("pwrite", strerror(errno));
	return bench_now() - start;
}

static int bare_file(struct rig *r)
{
	const char *where = getenv("BENCH_STORE_DIR");
	int fd = open(where ? where : "/var/tmp", O_TMPFILE | O_RDWR | O_DIRECT, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)VALUES / BATCH * batch_bytes(r)))
		bench_die("bare file", strerror(errno));
	return fd;
}

static void figure(struct rig *r, const char *what, double value, const char *unit, double bare, bool more_is_better)
{
	char name[200];

	snprintf(name, sizeof(name), "%s, %u bytes, %s", r->subject->name, r->value_bytes, what);
	bench_figure(r->b, name, value, unit, bare, isnan(bare) ? NAN : more_is_better ? value / bare : bare / value);
}

static void puts_of_64(struct rig *r)
{
	double ours = 0, bare = 0, mb = (double)VALUES * r->value_bytes / 1e6;
	int fd = r->subject->bare ? bare_file(r) : -1;

	for (uint32_t at = 0; at < VALUES; at += BATCH) {
		ours += put_ours(r, at);
		if (fd >= 0)
			bare += put_bare(r, fd, (uint64_t)at / BATCH * batch_bytes(r));
	}
	if (fd >= 0)
		close(fd);
	figure(r, "puts of 64", mb / ours, "MB/s", fd < 0 ? NAN : mb / bare, true);
	figure(r, "puts of 64, each value", ours / VALUES * 1e6, "us", fd < 0 ? NAN : bare / VALUES * 1e6, false);
}

/* Gets. */

static double get_ours(struct rig *r, const uint32_t *value, unsigned n)
{
	double start = bench_now();

	for (unsigned i = 0; i < n; i++)
		prepare(r, i, CIS_STORE_GET, value[i]);
	go(r, n);
	return bench_now() - start;
}

static double get_bare(struct rig *r, const uint32_t *value, unsigned n)
{
	double start = bench_now();

	for (unsigned i = 0; i < n; i++) {
		uint64_t off = (uint64_t)r->loc[value[i]] * 64, from = off & ~(uint64_t)(SECTOR - 1);
		uint64_t to = (off + 16 + r->value_bytes + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);

		if (pread(r->bare, r->raw, to - from, (off_t)from) != (ssize_t)(to - from))
			bench_die("pread", strerror(errno));
	}
	return bench_now() - start;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void latency(struct rig *r, const char *what, double *ours, double *bare, unsigned n)
{
	char name[100];
	static const unsigned percent[] = { 50, 99 };

	qsort(ours, n, sizeof(*ours), by_value);
	qsort(bare, n, sizeof(*bare), by_value);
	for (unsigned i = 0; i < 2; i++) {
		unsigned at = n * percent[i] / 100;

		snprintf(name, sizeof(name), "%s, p%u", what, percent[i]);
		figure(r, name, ours[at] * 1e6, "us", r->bare < 0 ? NAN : bare[at] * 1e6, false);
	}
}

/* @near: values that were put one after the other; else each from anywhere. */
static void gets(struct rig *r, const char *what, unsigned n, bool near)
{
	static double ours[GETS], bare[GETS];
	unsigned rounds = r->b->quick ? GETS / 50 : GETS;

	for (unsigned i = 0; i < rounds; i++) {
		uint32_t value[2][AT_ONCE];

		for (unsigned k = 0; k < 2 * n; k++)
			value[k / n][k % n] = near && k % n ? value[k / n][k % n - 1] + 1 : pick(r, VALUES - AT_ONCE);
		ours[i] = get_ours(r, value[0], n);
		bare[i] = r->bare < 0 ? 0 : get_bare(r, value[1], n);
	}
	latency(r, what, ours, bare, rounds);
}

static void *aligned(size_t bytes)
{
	void *p = aligned_alloc(2u << 20, (bytes + (2u << 20) - 1) & ~((size_t)(2u << 20) - 1));

	if (!p)
		bench_die("memory", strerror(ENOMEM));
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t word = cis_layer_random(i);

		memcpy((char *)p + i, &word, sizeof(word));
	}
	return p;
}

/* Page words are here. */
static bool moved(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to)
{
	struct rig *r = ctx;
	uint32_t *loc = &r->loc[key->id >> 24];

	if (*loc != from)
		return false;
	*loc = to;
	return true;
}

static void run(struct bench *b, const struct subject *subject, uint32_t value_bytes)
{
	static struct rig r;
	struct cis_pages_opts opts = { .size = sizeof(opts), .moved = moved, .ctx = &r };
	struct cis_error err;
	char url[300];

	if (!subject->start(url))
		return;
	r = (struct rig){ .b = b, .subject = subject, .value_bytes = value_bytes, .bare = -1 };
	if (cis_pages_open(url, &opts, &r.store, &err))
		bench_die(url, err.text);
	r.below = r.store;
	if (subject->sealed && cis_sealed_open(r.below, (const uint8_t *)"a key, which may be any 32 bytes", &r.store, &err))
		bench_die(url, err.text);
	r.raw = aligned(1u << 20);
	for (unsigned i = 0; i < BATCH; i++)
		r.buf[i] = r.raw + (i + 1) * 8192;
	puts_of_64(&r);
	if (subject->bare)
		r.bare = subject->bare();
	gets(&r, "a get", 1, false);
	gets(&r, "16 gets from anywhere", AT_ONCE, false);
	gets(&r, "16 gets of neighbours", AT_ONCE, true);
	if (r.bare >= 0)
		close(r.bare);
	if (subject->sealed)
		cis_store_close(r.store);
	cis_store_close(r.below);
	free(r.raw);
	subject->stop();
}

int main(void)
{
	struct bench b;

	bench_open(&b, "store");
	bench_title(&b, "stores of pages; baseline: the bare calls");
	for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++) {
		run(&b, &subjects[i], 1500);
		run(&b, &subjects[i], 4096 + 28);
	}
	bench_close(&b);
	return 0;
}
