/*
 * bench scale: many idle guests on a real cisternd, and one that storms.
 *
 * What the daemon takes in memory for each idle guest of 16 MiB; and how long another guest's faults take while one storms, next
 * to how long they take when all is quiet.  The stormer is a process of many threads, in one of two ways: each page that it touches is a
 * chunk to be read and decoded; or it gives its memory back and touches it again, which are REMOVE events and zero pages,
 * without end.  Idle guests are all memory of one process; it does nothing.
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "bench.h"
#include "control.h"
#include "snapshots.h"
#include "os/uffd.h"

#define IDLE_BYTES  ((uint64_t)16 << 20)
#define BIG_PAGES   65536u /* 256 MiB, in chunks of 64 KiB: 4096 of them */
#define CHUNK_PAGES 16u
#define VICTIM_TOUCHES 512u /* while the stormer has eight times as many to go */
#define REST_US	    200
#define THREADS	    16
#define ROUNDS	    9

struct storm {
	atomic_int go, stop;
	atomic_ulong touches;
	bool chunks; /* else zero pages */
	char *mem;
	atomic_uint next;
};

struct scale {
	struct bench b;
	struct bench_daemon d;
	char folder[64];
	pid_t engine;
	unsigned ended_early; /* storms that were over before the other guest was */
	char idle_image[160], big_image[160];
	unsigned nr_idle;
	uint32_t order[BIG_PAGES / CHUNK_PAGES];
	double p50[3][ROUNDS], p99[3][ROUNDS], rate[3][ROUNDS], storm_rate[3][ROUNDS];
};

static void make_image(const char *path, uint64_t nr_pages)
{
	struct cis_write_opts opts = { .codec = CIS_CODEC_LZ4, .chunk_shift = 16 };
	struct test_memory m;

	test_memory_init(&m, nr_pages);
	for (uint64_t p = 0; p < nr_pages; p++)
		test_fill_page(m.mem + p * TEST_PAGE, 2, p + 1);
	cis_image_unref(test_write_image(path, &m, &opts));
	test_memory_fini(&m);
}

static void *shared(size_t bytes)
{
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED) {
		perror("scale: mmap");
		exit(1);
	}
	return map;
}

static char *guest_memory(uint64_t bytes, uint64_t features, int *ret_uffd)
{
	char *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED || madvise(mem, bytes, MADV_NOHUGEPAGE) || cis_uffd_open(features, ret_uffd) ||
	    cis_uffd_register(*ret_uffd, (uint64_t)mem, bytes, UFFDIO_REGISTER_MODE_MISSING)) {
		perror("scale: a guest's memory");
		exit(1);
	}
	return mem;
}

/* Memory by guest. */

/* All of them in one process, which does nothing more; the guests are gone when it is. */
static pid_t idle_start(struct scale *s, atomic_int *over)
{
	pid_t pid = fork();
	char id[32];

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned i = 0; i < s->nr_idle; i++) {
		int uffd;
		char *mem = guest_memory(IDLE_BYTES, UFFD_FEATURE_EVENT_REMOVE, &uffd);

		snprintf(id, sizeof(id), "idle-%u", i);
		bench_put(&s->d, id, s->idle_image);
		close(bench_connect(&s->d, id, (uint64_t)mem, IDLE_BYTES, uffd)); /* as Firecracker does */
		bench_wait(&s->d, id, "filled");
		*(volatile char *)mem;
		close(uffd);
	}
	atomic_store(over, 1);
	for (;;)
		pause();
}

static pid_t idle_guests(struct scale *s)
{
	uint64_t engine = bench_memory_of(s->engine, "Rss"), keeper = bench_memory_of(s->d.keeper, "Rss");
	uint64_t anon = bench_memory_of(s->engine, "Anonymous");
	atomic_int *over = shared(sizeof(*over));
	double start = bench_now();
	pid_t pid = idle_start(s, over);

	while (!atomic_load(over)) {
		if (waitpid(pid, NULL, WNOHANG))
			exit(1); /* it has said why */
		usleep(1000);
	}
	bench_figure(&s->b, "time to take one in", (bench_now() - start) * 1e3 / s->nr_idle, "ms", NAN, NAN);
	engine = bench_memory_of(s->engine, "Rss") - engine;
	keeper = bench_memory_of(s->d.keeper, "Rss") - keeper;
	anon = bench_memory_of(s->engine, "Anonymous") - anon;
	bench_figure(&s->b, "engine, resident, a guest", (double)engine / s->nr_idle / 1024, "KiB", NAN, NAN);
	bench_figure(&s->b, "of it not in the state memfd", (double)anon / s->nr_idle / 1024, "KiB", NAN, NAN);
	bench_figure(&s->b, "keeper, resident, a guest", (double)keeper / s->nr_idle / 1024, "KiB", NAN, NAN);
	munmap(over, sizeof(*over));
	return pid;
}

/* The stormer. */

static void *storm_thread(void *arg)
{
	struct storm *st = arg;
	unsigned i = atomic_fetch_add(&st->next, 1), part = BIG_PAGES / THREADS;
	char *mine = st->mem + (uint64_t)i * part * TEST_PAGE;

	for (unsigned p = 0; !atomic_load(&st->stop); p++) {
		if (st->chunks && p == part / CHUNK_PAGES)
			break;
		if (!st->chunks && p % 64 == 0)
			madvise(mine, 64 * TEST_PAGE, MADV_DONTNEED);
		*(volatile char *)(mine + (uint64_t)(st->chunks ? p * CHUNK_PAGES : p % 64) * TEST_PAGE);
		atomic_fetch_add(&st->touches, 1);
	}
	return NULL;
}

static pid_t storm_start(struct scale *s, struct storm *st)
{
	pthread_t threads[THREADS];
	pid_t pid = fork();
	int uffd;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	st->mem = guest_memory((uint64_t)BIG_PAGES * TEST_PAGE, UFFD_FEATURE_EVENT_REMOVE, &uffd);
	bench_connect(&s->d, "storm", (uint64_t)st->mem, (uint64_t)BIG_PAGES * TEST_PAGE, uffd);
	bench_wait(&s->d, "storm", "filled");
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, storm_thread, st);
	atomic_store(&st->go, 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

static void guest_end(struct scale *s, const char *id)
{
	char path[64];

	bench_wait(&s->d, id, "gone");
	snprintf(path, sizeof(path), "/v1/guests/%s", id);
	bench_call(&s->d, "DELETE", path, NULL, NULL);
}

/* The other guest. */

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

struct victim {
	bool eager; /* else it rests between touches */
	double seconds;
	uint32_t nr, ns[];
};

/* One thread, one chunk after the other. */
static pid_t victim_start(struct scale *s, struct victim *v)
{
	pid_t pid = fork();
	char *mem;
	int uffd;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	mem = guest_memory((uint64_t)BIG_PAGES * TEST_PAGE, UFFD_FEATURE_EVENT_REMOVE, &uffd);
	bench_connect(&s->d, "victim", (uint64_t)mem, (uint64_t)BIG_PAGES * TEST_PAGE, uffd);
	bench_wait(&s->d, "victim", "filled");
	double start = bench_now();

	for (uint32_t i = 0; i < v->nr; i++) {
		double from = bench_now();

		*(volatile char *)(mem + (uint64_t)s->order[i] * TEST_PAGE);
		v->ns[i] = (uint32_t)((bench_now() - from) * 1e9);
		if (!v->eager)
			usleep(REST_US);
	}
	v->seconds = bench_now() - start;
	_exit(0);
}

static void note(struct scale *s, int storm, int round, struct victim *v, double storm_rate)
{
	if (v->eager) {
		s->storm_rate[storm][round] = storm_rate;
		s->rate[storm][round] = v->nr / v->seconds;
		return;
	}
	qsort(v->ns, v->nr, sizeof(uint32_t), by_value);
	s->p50[storm][round] = v->ns[v->nr / 2] / 1e3;
	s->p99[storm][round] = v->ns[v->nr * 99 / 100] / 1e3;
}

/* @storm: 0 none, 1 chunks, 2 zero pages. */
static void round_of(struct scale *s, int storm, bool eager, int round)
{
	uint32_t nr = VICTIM_TOUCHES;
	struct storm *st = shared(sizeof(*st));
	struct victim *v = shared(sizeof(*v) + nr * sizeof(v->ns[0]));
	unsigned long touches;
	double start;
	pid_t pid = 0;

	v->nr = nr;
	v->eager = eager;
	bench_put(&s->d, "victim", s->big_image);
	if (storm) {
		st->chunks = storm == 1;
		bench_put(&s->d, "storm", s->big_image);
		pid = storm_start(s, st);
		while (!atomic_load(&st->go))
			usleep(100);
	}
	touches = atomic_load(&st->touches);
	start = bench_now();
	waitpid(victim_start(s, v), NULL, 0);
	if (storm == 1 && atomic_load(&st->touches) == BIG_PAGES / CHUNK_PAGES)
		s->ended_early++;
	note(s, storm, round, v, (double)(atomic_load(&st->touches) - touches) / (bench_now() - start));
	atomic_store(&st->stop, 1);
	if (storm) {
		waitpid(pid, NULL, 0);
		guest_end(s, "storm");
	}
	guest_end(s, "victim");
	munmap(st, sizeof(*st));
	munmap(v, sizeof(*v) + nr * sizeof(v->ns[0]));
}

static void other_guest(struct scale *s)
{
	static const char *const what[] = { "quiet", "a storm of chunks", "a storm of removed pages" };
	int rounds = s->b.quick ? 1 : ROUNDS;
	double quiet50 = 0, quiet99 = 0;
	char name[80];

	for (int round = 0; round < rounds; round++)
		for (int storm = 0; storm < 3; storm++)
			for (int eager = 0; eager < 2; eager++)
				round_of(s, storm, eager, round);
	for (int storm = 0; storm < 3; storm++) {
		double p50 = bench_median(s->p50[storm], (size_t)rounds), p99 = bench_median(s->p99[storm], (size_t)rounds);

		if (!storm)
			quiet50 = p50, quiet99 = p99;
		snprintf(name, sizeof(name), "%s: p50", what[storm]);
		bench_figure(&s->b, name, p50, "us", storm ? quiet50 : NAN, storm ? p50 / quiet50 : NAN);
		snprintf(name, sizeof(name), "%s: p99", what[storm]);
		bench_figure(&s->b, name, p99, "us", storm ? quiet99 : NAN, storm ? p99 / quiet99 : NAN);
		snprintf(name, sizeof(name), "%s: faults, if it takes no rest", what[storm]);
		bench_figure(&s->b, name, bench_median(s->rate[storm], (size_t)rounds) / 1e3, "k/s", NAN, NAN);
		if (!storm)
			continue;
		snprintf(name, sizeof(name), "%s: the stormer's touches", what[storm]);
		bench_figure(&s->b, name, bench_median(s->storm_rate[storm], (size_t)rounds) / 1e3, "k/s", NAN, NAN);
	}
}

int main(void)
{
	static const char *const settings[] = { "guests=1100", NULL };
	static struct scale s;
	uint64_t features, seed = 1;
	pid_t idle;
	struct rlimit files = { 65536, 65536 };

	bench_open(&s.b, "scale");
	if (cis_uffd_features(&features))
		bench_skip(&s.b, "no permission to make a userfaultfd");
	setrlimit(RLIMIT_NOFILE, &files);
	s.nr_idle = s.b.quick ? 100 : 1000;
	strcpy(s.folder, "/tmp/cistern-bench.XXXXXX");
	if (!mkdtemp(s.folder))
		bench_die(s.folder, "cannot be made");
	bench_unpin(&s.b); /* the daemon and the guests use what there is */
	if (!bench_build_find())
		bench_skip(&s.b, "no cisternd beside this program");
	bench_daemon_start(&s.d, s.folder, settings);
	s.engine = bench_daemon_engine(&s.d);
	snprintf(s.idle_image, sizeof(s.idle_image), "%s/idle.cis", s.folder);
	snprintf(s.big_image, sizeof(s.big_image), "%s/big.cis", s.folder);
	make_image(s.idle_image, IDLE_BYTES / TEST_PAGE);
	make_image(s.big_image, BIG_PAGES);
	for (uint32_t i = 0; i < BIG_PAGES / CHUNK_PAGES; i++)
		s.order[i] = i * CHUNK_PAGES;
	for (uint32_t i = BIG_PAGES / CHUNK_PAGES - 1; i; i--) {
		uint32_t k = (uint32_t)(test_random(&seed) % (i + 1)), t = s.order[i];

		s.order[i] = s.order[k];
		s.order[k] = t;
	}
	bench_title(&s.b, "idle guests of 16 MiB, one page touched");
	idle = idle_guests(&s);
	bench_title(&s.b, "another guest's demand faults, each a chunk of 64 KiB; baseline: all quiet");
	other_guest(&s);
	if (s.ended_early)
		printf("%u storms were over too early\n", s.ended_early);
	kill(idle, SIGKILL);
	waitpid(idle, NULL, 0);
	bench_daemon_end(&s.d);
	snprintf(s.idle_image, sizeof(s.idle_image), "rm -rf %s", s.folder);
	if (system(s.idle_image))
		printf("%s is left\n", s.folder);
	bench_close(&s.b);
	return 0;
}
