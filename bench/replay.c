/*
 * bench replay: restore the working set of a real guest, then touch it in its recorded order.
 *
 * Time is that of both together, of one ordinary thread that touches memory registered with userfaultfd; ours is the
 * daemon's own code (rig.h) on an image whose codec the planner chose for the medium.  Beside it: a private mapping of the
 * memory file with its pages in the page cache, which is what a restore without a daemon is at best, and what the figures
 * are ratios to; the same with a cold page cache; a handler that copies one page a fault; memory that is resident already.
 *
 * CISTERN_BENCH_CODEC=name instead of the planner's choice.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "bench.h"
#include "snapshots.h"
#include "image/plan.h"
#include "image/write.h"
#include "os/uffd.h"
#include "rig.h"

#define SAMPLE_BYTES  ((size_t)4 << 20)
#define CHUNK_BYTES   ((size_t)64 << 10)
#define WARM_SECONDS  6
#define COLD_SECONDS  3
#define PRETOUCH_MORE ((uint64_t)4 << 20)

/** struct subject - one guest, with all that is made for it */
struct subject {
	struct bench_snapshot *guest;
	uint8_t *touched; /* the pages of the trace, in its order: the truth */
	char *resident;	  /* memory where they are already */
	char *map;	  /* of the memory file */
	struct cis_image *warm, *cold;
};

/** struct plain - a handler on a thread of its own that copies one page a fault */
struct plain {
	struct subject *s;
	char *mem, *file;
	int uffd, stop;
	pthread_t thread;
};

/** struct ours - one of our ways, and whether memory is written rather than read */
struct ours {
	struct subject *s;
	struct rig_guest guest;
	bool drop;
};

static unsigned char touched_sum;

static void touch_read(const char *mem, const struct cis_trace *t)
{
	unsigned char sum = 0;

	for (uint64_t i = 0; i < t->nr; i++)
		sum += *(const volatile unsigned char *)(mem + (uint64_t)t->pgno[i] * BENCH_PAGE);
	touched_sum += sum;
}

/* The byte that is there, so that content stays comparable. */
static void touch_write(char *mem, const struct cis_trace *t)
{
	for (uint64_t i = 0; i < t->nr; i++) {
		volatile char *p = mem + (uint64_t)t->pgno[i] * BENCH_PAGE;

		*p = *p;
	}
}

static void compare(const struct subject *s, const char *mem, const char *way)
{
	const struct cis_trace *t = &s->guest->trace;

	for (uint64_t i = 0; i < t->nr; i++)
		if (memcmp(mem + (uint64_t)t->pgno[i] * BENCH_PAGE, s->touched + i * BENCH_PAGE, BENCH_PAGE))
			bench_die(way, "a page does not hold what the memory file does");
}

static uint64_t set_bytes(const struct subject *s)
{
	return s->guest->trace.nr * BENCH_PAGE;
}

/* The ways of others. */

static void map_leave(struct subject *s)
{
	if (s->map)
		munmap(s->map, s->guest->bytes);
	s->map = NULL;
}

static void map_before(void *ctx)
{
	struct subject *s = ctx;

	map_leave(s);
	bench_pretouch(set_bytes(s) + PRETOUCH_MORE);
}

static void map_cold_before(void *ctx)
{
	struct subject *s = ctx;

	map_before(s);
	bench_drop(s->guest->path);
}

static void map_make(struct subject *s)
{
	s->map = mmap(NULL, s->guest->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, s->guest->fd, 0);
	if (s->map == MAP_FAILED)
		bench_die("mmap", strerror(errno));
}

static void map_run(void *ctx)
{
	struct subject *s = ctx;

	map_make(s);
	touch_read(s->map, &s->guest->trace);
}

static void map_write_run(void *ctx)
{
	struct subject *s = ctx;

	map_make(s);
	touch_write(s->map, &s->guest->trace);
}

static void resident_run(void *ctx)
{
	struct subject *s = ctx;

	touch_read(s->resident, &s->guest->trace);
}

static void *plain_main(void *arg)
{
	struct plain *p = arg;
	struct pollfd fds[2] = {{.fd = p->uffd, .events = POLLIN}, {.fd = p->stop, .events = POLLIN}};

	for (;;) {
		struct uffd_msg msg;
		uint64_t at, done;
		size_t n;

		poll(fds, 2, -1);
		if (fds[1].revents)
			return NULL;
		if (cis_uffd_read(p->uffd, &msg, 1, &n))
			continue;
		at = msg.arg.pagefault.address & ~(uint64_t)(BENCH_PAGE - 1);
		cis_uffd_copy(p->uffd, at, p->file + (at - (uint64_t)(uintptr_t)p->mem), BENCH_PAGE, &done);
	}
}

static void plain_leave(struct plain *p)
{
	uint64_t one = 1;

	if (!p->mem)
		return;
	if (write(p->stop, &one, sizeof(one)) < 0)
		bench_die("eventfd", strerror(errno));
	pthread_join(p->thread, NULL);
	close(p->stop);
	close(p->uffd);
	munmap(p->mem, p->s->guest->bytes);
	munmap(p->file, p->s->guest->bytes);
	p->mem = NULL;
}

/* The handler is pinned where the toucher is: that is the faster place for it. */
static void plain_before(void *ctx)
{
	struct plain *p = ctx;
	uint64_t bytes = p->s->guest->bytes;

	plain_leave(p);
	bench_pretouch(set_bytes(p->s) + PRETOUCH_MORE);
	p->mem = bench_map(bytes);
	p->file = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, p->s->guest->fd, 0);
	p->stop = eventfd(0, EFD_CLOEXEC);
	if (p->file == MAP_FAILED || p->stop < 0 || cis_uffd_open(0, &p->uffd) ||
	    cis_uffd_register(p->uffd, (uint64_t)(uintptr_t)p->mem, bytes, UFFDIO_REGISTER_MODE_MISSING) ||
	    pthread_create(&p->thread, NULL, plain_main, p))
		bench_die("plain handler", "cannot be set up");
}

static void plain_run(void *ctx)
{
	struct plain *p = ctx;

	touch_read(p->mem, &p->s->guest->trace);
}

/* Ours. */

static void ours_before(void *ctx)
{
	struct ours *o = ctx;

	rig_guest_leave(&o->guest);
	bench_pretouch(set_bytes(o->s) + PRETOUCH_MORE);
	rig_guest_prepare(&o->guest);
	if (o->drop)
		bench_drop(cis_image_info(o->guest.image)->path);
}

static void ours_run(void *ctx)
{
	struct ours *o = ctx;

	rig_guest_restore(&o->guest, CIS_FILL_HOT);
	touch_read(o->guest.mem, &o->s->guest->trace);
}

static void ours_write_run(void *ctx)
{
	struct ours *o = ctx;

	rig_guest_restore(&o->guest, CIS_FILL_HOT);
	touch_write(o->guest.mem, &o->s->guest->trace);
}

/* No page of the trace is left to a fault: else the figure would be of something else. */
static void ours_check(struct ours *o, const char *way)
{
	struct cis_seat_report report;

	cis_seat_report(o->guest.seat, &report);
	if (report.stats.faults_demand + report.stats.faults_zero + report.stats.faults_same)
		printf("%s: %llu pages were not filled but faulted\n", way,
		       (unsigned long long)(report.stats.faults_demand + report.stats.faults_zero +
					    report.stats.faults_same));
	compare(o->s, o->guest.mem, way);
}

/* The image, with the codec that the planner chooses. */

static double cached_rate(const struct bench_snapshot *g)
{
	_cleanup_free_ char *buf = malloc(1 << 20);
	double start, seconds = 1e9, took;
	uint64_t len = g->bytes < 64 << 20 ? g->bytes : 64 << 20;

	if (!buf)
		bench_die("replay", strerror(ENOMEM));
	bench_warm(g->path);
	for (int round = 0; round < 3; round++) {
		start = bench_now();
		for (uint64_t at = 0; at < len; at += 1 << 20)
			if (pread(g->fd, buf, 1 << 20, (off_t)at) < 0)
				bench_die(g->path, strerror(errno));
		took = bench_now() - start;
		seconds = took < seconds ? took : seconds;
	}
	return (double)len / seconds;
}

static void plan_measure(struct cis_image_source *src, bool cold, const struct bench_snapshot *g, struct cis_plan_codec *c,
			 size_t *nr, struct cis_plan_host *host)
{
	struct cis_plan_sample sample;
	struct cis_error err;
	size_t kept = 0, all = cis_plan_candidates(CHUNK_BYTES, c);

	*host = (struct cis_plan_host){.workers = 1, .read_rate = cold ? 0 : cached_rate(g)};
	if (cis_plan_sample_take(src, CHUNK_BYTES, SAMPLE_BYTES, &sample, &err) ||
	    (cold && cis_plan_measure_read(bench_folder(), sample.bytes, sample.len, &host->read_rate, &err)) ||
	    cis_plan_measure_install(CHUNK_BYTES, &host->install_rate, &err))
		bench_die("plan", err.text);
	for (size_t i = 0; i < all; i++)
		if (!cis_plan_measure_codec(&sample, &c[i], &err))
			c[kept++] = c[i];
	*nr = kept;
	cis_plan_sample_fini(&sample);
}

static enum cis_codec codec_named(const char *name)
{
	for (unsigned i = 0; i < CIS_CODEC_COUNT; i++)
		if (!strcmp(cis_codec_name(i), name))
			return i;
	bench_die(name, "no such codec");
}

static void choose(struct cis_image_source *src, bool cold, const struct bench_snapshot *g, struct cis_write_opts *opts)
{
	const char *wish = getenv("CISTERN_BENCH_CODEC");
	struct cis_plan_codec c[CIS_PLAN_MAX];
	struct cis_plan_host host;
	char reason[200];
	size_t nr, best;

	if (wish && *wish) {
		opts->codec = codec_named(wish);
		return;
	}
	plan_measure(src, cold, g, c, &nr, &host);
	best = cis_plan_choose(c, nr, &host);
	printf("plan for %s: reads %.1f GB/s, installs %.1f GB/s: %s, %s\n", cold ? "the disk" : "the page cache",
	       host.read_rate / 1e9, host.install_rate / 1e9, cis_codec_name(c[best].codec),
	       cis_plan_reason(c, nr, best, &host, reason, sizeof(reason)));
	opts->codec = c[best].codec;
	opts->level = c[best].level;
}

static struct cis_image *make_image(const struct bench_snapshot *g, bool cold)
{
	struct cis_write_opts opts = {.size = sizeof(opts), .hot = g->trace.pgno, .nr_hot = g->trace.nr, .workers = 2};
	struct cis_image_source *src;
	struct cis_image *img;
	struct cis_error err;
	char path[4200];

	snprintf(path, sizeof(path), "%s/%s-%s.img", bench_folder(), g->name, cold ? "cold" : "warm");
	if (cis_source_raw(g->path, &src, &err))
		bench_die("source", err.text);
	choose(src, cold, g, &opts);
	if (cis_image_write(path, src, &opts, &err) || cis_image_open(path, NULL, &img, &err))
		bench_die("image", err.text);
	cis_source_close(src);
	return img;
}

static void subject_init(struct subject *s, struct bench_snapshot *g)
{
	const struct cis_trace *t = &g->trace;

	*s = (struct subject){.guest = g, .touched = malloc(t->nr * BENCH_PAGE), .resident = bench_map(g->bytes)};
	if (!s->touched)
		bench_die(g->name, strerror(ENOMEM));
	for (uint64_t i = 0; i < t->nr; i++) {
		uint64_t at = (uint64_t)t->pgno[i] * BENCH_PAGE;

		if (pread(g->fd, s->touched + i * BENCH_PAGE, BENCH_PAGE, (off_t)at) != BENCH_PAGE)
			bench_die(g->path, "the trace has a page that the memory file has not");
		memcpy(s->resident + at, s->touched + i * BENCH_PAGE, BENCH_PAGE);
	}
	s->warm = make_image(g, false);
	s->cold = make_image(g, true);
	bench_warm(g->path);
	bench_warm(cis_image_info(s->warm)->path);
}

static void subject_fini(struct subject *s)
{
	map_leave(s);
	munmap(s->resident, s->guest->bytes);
	free(s->touched);
	cis_image_unref(s->warm);
	cis_image_unref(s->cold);
}

/** struct total - one row over all guests */
struct total {
	const char *what;
	double log_ratio, log_ms_mib;
	unsigned nr;
};

enum { RESIDENT, MAPPED, PLAIN, ANON_1, ALLOC_1, ALLOC_2, MAPPED_W, ANON_1_W, ALLOC_1_W, WARM_WAYS };
enum { COLD_MAPPED, COLD_ANON_1, COLD_ANON_2, COLD_ALLOC_2, COLD_WAYS };

static const char *const warm_names[WARM_WAYS] = {
	"fully resident", "warm mapping", "one page a fault", "anonymous, 1 worker", "allocated, 1 worker",
	"allocated, 2 workers", "written: warm mapping", "written: anonymous, 1 worker", "written: allocated, 1 worker",
};
static const char *const cold_names[COLD_WAYS] = {
	"cold mapping", "cold: anonymous, 1 worker", "cold: anonymous, 2 workers", "cold: allocated, 2 workers",
};

static void report(struct bench *b, const struct subject *s, struct bench_way *way, struct bench_way *base,
		   const char *name, struct total *total)
{
	double ratio = bench_ratio(base, way);
	char text[120];

	snprintf(text, sizeof(text), "%s %s", s->guest->name, name);
	bench_figure(b, text, way->median * 1e3, "ms", base->median * 1e3, ratio);
	total->what = name;
	total->log_ratio += log(ratio);
	total->log_ms_mib += log(way->median * 1e3 / ((double)set_bytes(s) / 1048576));
	total->nr++;
}

static void warm_bench(struct bench *b, struct subject *s, struct rig *one, struct rig *two, struct total *totals)
{
	static struct bench_way way[WARM_WAYS];
	struct plain plain = {.s = s};
	struct ours anon = {.s = s}, alloc = {.s = s}, alloc2 = {.s = s};

	rig_guest_init(&anon.guest, one, s->warm, false);
	rig_guest_init(&alloc.guest, one, s->warm, true);
	rig_guest_init(&alloc2.guest, two, s->warm, true);
	way[RESIDENT] = (struct bench_way){.run = resident_run, .ctx = s};
	way[MAPPED] = (struct bench_way){.run = map_run, .before = map_before, .ctx = s};
	way[PLAIN] = (struct bench_way){.run = plain_run, .before = plain_before, .ctx = &plain};
	way[ANON_1] = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = &anon};
	way[ALLOC_1] = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = &alloc};
	way[ALLOC_2] = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = &alloc2};
	way[MAPPED_W] = (struct bench_way){.run = map_write_run, .before = map_before, .ctx = s};
	way[ANON_1_W] = (struct bench_way){.run = ours_write_run, .before = ours_before, .ctx = &anon};
	way[ALLOC_1_W] = (struct bench_way){.run = ours_write_run, .before = ours_before, .ctx = &alloc};
	bench_measure(b, way, WARM_WAYS, WARM_SECONDS);
	ours_check(&anon, warm_names[ANON_1]);
	ours_check(&alloc, warm_names[ALLOC_1]);
	ours_check(&alloc2, warm_names[ALLOC_2]);
	compare(s, plain.mem, warm_names[PLAIN]);
	for (size_t i = 0; i < WARM_WAYS; i++)
		report(b, s, &way[i], &way[i < MAPPED_W ? MAPPED : MAPPED_W], warm_names[i], &totals[i]);
	plain_leave(&plain);
	map_leave(s);
	rig_guest_fini(&anon.guest);
	rig_guest_fini(&alloc.guest);
	rig_guest_fini(&alloc2.guest);
}

static void cold_bench(struct bench *b, struct subject *s, struct rig *one, struct rig *two, struct total *totals)
{
	static struct bench_way way[COLD_WAYS];
	struct ours anon = {.s = s, .drop = true}, anon2 = anon, alloc2 = anon;

	rig_guest_init(&anon.guest, one, s->cold, false);
	rig_guest_init(&anon2.guest, two, s->cold, false);
	rig_guest_init(&alloc2.guest, two, s->cold, true);
	way[COLD_MAPPED] = (struct bench_way){.run = map_run, .before = map_cold_before, .ctx = s};
	way[COLD_ANON_1] = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = &anon};
	way[COLD_ANON_2] = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = &anon2};
	way[COLD_ALLOC_2] = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = &alloc2};
	bench_measure(b, way, COLD_WAYS, COLD_SECONDS);
	ours_check(&anon, cold_names[COLD_ANON_1]);
	ours_check(&anon2, cold_names[COLD_ANON_2]);
	ours_check(&alloc2, cold_names[COLD_ALLOC_2]);
	for (size_t i = 0; i < COLD_WAYS; i++)
		report(b, s, &way[i], &way[COLD_MAPPED], cold_names[i], &totals[i]);
	map_leave(s);
	rig_guest_fini(&anon.guest);
	rig_guest_fini(&anon2.guest);
	rig_guest_fini(&alloc2.guest);
}

static void guest_bench(struct bench *b, struct bench_snapshot *g, struct rig *one, struct rig *two, struct total *warm,
			struct total *cold)
{
	struct subject s;
	char title[160];

	printf("\n");
	subject_init(&s, g);
	snprintf(title, sizeof(title), "%s: working set of %.1f MiB, %llu of its %llu pages with content", g->name,
		 (double)set_bytes(&s) / 1048576, (unsigned long long)cis_image_info(s.warm)->nr_hot,
		 (unsigned long long)g->trace.nr);
	bench_title(b, title);
	warm_bench(b, &s, one, two, warm);
	cold_bench(b, &s, one, two, cold);
	rig_forget(one, s.warm);
	rig_forget(one, s.cold);
	rig_forget(two, s.warm);
	rig_forget(two, s.cold);
	subject_fini(&s);
}

static void summary(struct bench *b, const struct total *t, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		char text[120];

		if (!t[i].nr)
			continue;
		snprintf(text, sizeof(text), "%s, geomean", t[i].what);
		bench_figure(b, text, exp(t[i].log_ms_mib / t[i].nr), "ms/MiB", NAN, exp(t[i].log_ratio / t[i].nr));
	}
}

int main(void)
{
	static struct bench_snapshots snapshots;
	struct total warm[WARM_WAYS] = {0}, cold[COLD_WAYS] = {0};
	struct rig one, two;
	struct bench b;
	int fd;

	bench_open(&b, "replay");
	if (cis_uffd_open(0, &fd))
		bench_skip(&b, "no permission for userfaultfd, or none in this kernel");
	close(fd);
	bench_snapshots_open(&snapshots);
	rig_open(&one, 1);
	rig_open(&two, 2);
	for (size_t i = 0; i < snapshots.nr; i++)
		if (snapshots.snapshot[i].trace.nr && snapshots.snapshot[i].trace.page_shift == 12)
			guest_bench(&b, &snapshots.snapshot[i], &one, &two, warm, cold);
	bench_title(&b, "all guests; ratio to the warm mapping, read or written alike, and below to the cold one");
	summary(&b, warm, WARM_WAYS);
	summary(&b, cold, COLD_WAYS);
	rig_close(&one);
	rig_close(&two);
	bench_snapshots_close(&snapshots);
	bench_close(&b);
	return 0;
}
