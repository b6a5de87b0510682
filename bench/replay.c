/*
 * bench replay: restore the working set of a real guest, then touch it in its recorded order.
 *
 * Time is that of both together, of one ordinary thread that touches memory registered with userfaultfd; ours is the
 * daemon's own code (rig.h) on an image whose codec the planner chose for the medium.  Beside it: a private mapping of the
 * memory file with its pages in the page cache, which is what a restore without a daemon is at best, and what the figures
 * are ratios to; the same with a cold page cache; a handler that copies one page a fault; memory that is resident already;
 * and what no restore with userfaultfd does without (floor.h): the floor, which is its calls alone, and the bare loop, which
 * also reads, decodes and verifies.
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
#include "floor.h"
#include "snapshots.h"
#include "image/plan.h"
#include "image/write.h"
#include "os/uffd.h"
#include "rig.h"

#define SAMPLE_BYTES  ((size_t)4 << 20)
#define CHUNK_BYTES   ((size_t)64 << 10)
#define WARM_SECONDS  16
#define COLD_SECONDS  3
#define PRETOUCH_MORE ((uint64_t)4 << 20)

/**
 * enum touch - a trace does not say which touches are writes, and it matters to a private mapping
 * @HALF: every second page is written; of real guests' working sets 33 to 72 % is
 */
enum touch { HALF, READ, WRITTEN, TOUCHES };

static const char *const touch_names[TOUCHES] = {"half written", "only read", "all written"};

/** struct subject - one guest, with all that is made for it */
struct subject {
	struct bench_snapshot *guest;
	uint8_t *touched; /* the pages of the trace, in its order: the truth */
	char *resident;	  /* memory where they are already */
	struct cis_image *warm, *cold;
};

/** struct plain - a handler on a thread of its own that copies one page a fault */
struct plain {
	struct subject *s;
	char *mem, *file;
	int uffd, stop;
	pthread_t thread;
};

/** struct mapping - a private mapping of the memory file */
struct mapping {
	struct subject *s;
	enum touch how;
	bool drop;
	char *mem;
};

/** struct ours - one of our ways */
struct ours {
	struct subject *s;
	enum touch how;
	bool drop;
	struct rig_guest guest;
};

/** struct bare - the floor or the bare loop, and the touches after it */
struct bare {
	struct subject *s;
	enum touch how;
	struct floor floor;
};

static unsigned char touched_sum;

/* What is written is the byte that is there, so that content stays comparable; by a store alone, as a guest does. */
static void touch(char *mem, const struct subject *s, enum touch how)
{
	const struct cis_trace *t = &s->guest->trace;
	unsigned char sum = 0;

	for (uint64_t i = 0; i < t->nr; i++) {
		volatile unsigned char *p = (unsigned char *)mem + (uint64_t)t->pgno[i] * BENCH_PAGE;

		if (how == WRITTEN || (how == HALF && i % 2))
			*p = s->touched[i * BENCH_PAGE];
		else
			sum += *p;
	}
	touched_sum += sum;
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

static void map_leave(struct mapping *m)
{
	if (m->mem)
		munmap(m->mem, m->s->guest->bytes);
	m->mem = NULL;
}

static void map_before(void *ctx)
{
	struct mapping *m = ctx;

	map_leave(m);
	bench_pretouch(set_bytes(m->s) + PRETOUCH_MORE);
	if (m->drop)
		bench_drop(m->s->guest->path);
}

static void map_run(void *ctx)
{
	struct mapping *m = ctx;

	m->mem = mmap(NULL, m->s->guest->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, m->s->guest->fd, 0);
	if (m->mem == MAP_FAILED)
		bench_die("mmap", strerror(errno));
	touch(m->mem, m->s, m->how);
}

static void resident_run(void *ctx)
{
	struct subject *s = ctx;

	touch(s->resident, s, HALF);
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

	touch(p->mem, p->s, HALF);
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
	touch(o->guest.mem, o->s, o->how);
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

/* The floor and the bare loop. */

static void bare_before(void *ctx)
{
	struct bare *f = ctx;

	bench_pretouch(set_bytes(f->s) + PRETOUCH_MORE);
	floor_prepare(&f->floor);
}

static void bare_run(void *ctx)
{
	struct bare *f = ctx;

	floor_restore(&f->floor);
	touch(f->floor.mem, f->s, f->how);
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
	if (cis_plan_sample_hot(src, g->trace.pgno, g->trace.nr, 12, CHUNK_BYTES, SAMPLE_BYTES, &sample, &err) ||
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
	struct cis_write_opts opts = {.size = sizeof(opts), .hot = g->trace.pgno, .nr_hot = g->trace.nr,
				      .hot_window = CIS_HOT_WINDOW, .workers = 2};
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
	munmap(s->resident, s->guest->bytes);
	free(s->touched);
	cis_image_unref(s->warm);
	cis_image_unref(s->cold);
}

/** struct total - one row over all guests */
struct total {
	char what[80];
	double log_ratio, log_ms_mib;
	unsigned nr;
};

/** struct bare_kind - @loop: with all that has to be done for a page, else its calls alone */
struct bare_kind {
	const char *name;
	bool loop, allocated;
	enum floor_on on;
};

/* The first of them as ours are: those they are compared with. */
static const struct bare_kind bare_kinds[] = {
	{"bare loop, anonymous, 1 thread", true, false, FLOOR_ELSEWHERE},
	{"bare loop, allocated, 1 thread", true, true, FLOOR_ELSEWHERE},
	{"bare loop, allocated, 2 threads", true, true, FLOOR_BOTH},
	{"bare loop, anonymous, by the toucher", true, false, FLOOR_HERE},
	{"bare loop, allocated, by the toucher", true, true, FLOOR_HERE},
	{"floor, ranged COPY, by the toucher", false, false, FLOOR_HERE},
	{"floor, ranged CONTINUE, by the toucher", false, true, FLOOR_HERE},
	{"floor, ranged CONTINUE, 2 threads", false, true, FLOOR_BOTH},
};

enum { MAPPED, ANON_1, ALLOC_1, ALLOC_2, BARE, GROUP = BARE + sizeof(bare_kinds) / sizeof(bare_kinds[0]) };
enum { RESIDENT = TOUCHES * GROUP, PLAIN, WARM_WAYS };
enum { ROWS = GROUP + BARE, ROW_RESIDENT = TOUCHES * ROWS, ROW_PLAIN, WARM_ROWS }; /* of totals */
enum { COLD_MAPPED, COLD_ANON_1, COLD_ANON_2, COLD_ALLOC_2, COLD_WAYS };

static const char *const ours_names[BARE] = {
	"warm mapping", "anonymous, 1 worker", "allocated, 1 worker", "allocated, 2 workers",
};
static const char *const cold_names[COLD_WAYS] = {
	"cold mapping", "cold: anonymous, 1 worker", "cold: anonymous, 2 workers", "cold: allocated, 2 workers",
};

static void report(struct bench *b, const struct subject *s, struct bench_way *way, struct bench_way *base,
		   const char *name, struct total *total)
{
	double ratio = bench_ratio(base, way);
	char text[160];

	snprintf(text, sizeof(text), "%s %s", s->guest->name, name);
	bench_figure(b, text, way->median * 1e3, "ms", base->median * 1e3, ratio);
	snprintf(total->what, sizeof(total->what), "%s", name);
	total->log_ratio += log(ratio);
	total->log_ms_mib += log(way->median * 1e3 / ((double)set_bytes(s) / 1048576));
	total->nr++;
}

/* One way of touching: @way has GROUP entries, @maps and @ours what they work on. */
static void group_init(struct bench_way *way, struct subject *s, enum touch how, struct rig *one, struct rig *two,
		       struct mapping *map, struct ours *ours, struct bare *bare)
{
	*map = (struct mapping){.s = s, .how = how};
	way[MAPPED] = (struct bench_way){.run = map_run, .before = map_before, .ctx = map};
	for (int i = ANON_1; i < BARE; i++) {
		ours[i] = (struct ours){.s = s, .how = how};
		rig_guest_init(&ours[i].guest, i == ALLOC_2 ? two : one, s->warm, i != ANON_1);
		way[i] = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = &ours[i]};
	}
	for (int i = BARE; i < GROUP; i++) {
		const struct bare_kind *kind = &bare_kinds[i - BARE];

		bare[i] = (struct bare){.s = s, .how = how};
		floor_init(&bare[i].floor, s->guest, kind->loop ? s->warm : NULL, kind->allocated, kind->on);
		way[i] = (struct bench_way){.run = bare_run, .before = bare_before, .ctx = &bare[i]};
	}
}

/* @totals: of each row by the warm mapping, then of ours by the bare loop. */
static void group_report(struct bench *b, struct bench_way *way, enum touch how, struct mapping *map,
			 struct ours *ours, struct bare *bare, struct total *totals)
{
	for (int i = MAPPED; i < GROUP; i++) {
		char text[80];

		snprintf(text, sizeof(text), "%s: %s", touch_names[how],
			 i < BARE ? ours_names[i] : bare_kinds[i - BARE].name);
		if (i > MAPPED && i < BARE)
			ours_check(&ours[i], text);
		if (i >= BARE && bare_kinds[i - BARE].loop)
			compare(map->s, bare[i].floor.mem, text);
		report(b, map->s, &way[i], &way[MAPPED], text, &totals[i]);
	}
	for (int i = ANON_1; i < BARE; i++) {
		char text[80];

		snprintf(text, sizeof(text), "%s: %s, to the bare loop", touch_names[how], ours_names[i]);
		report(b, map->s, &way[i], &way[i - ANON_1 + BARE], text, &totals[GROUP + i]);
		rig_guest_fini(&ours[i].guest);
	}
	for (int i = BARE; i < GROUP; i++)
		floor_fini(&bare[i].floor);
	map_leave(map);
}

static void warm_bench(struct bench *b, struct subject *s, struct rig *one, struct rig *two, struct total *totals)
{
	static struct bench_way way[WARM_WAYS];
	static struct bare bare[TOUCHES][GROUP];
	struct plain plain = {.s = s};
	struct mapping map[TOUCHES];
	struct ours ours[TOUCHES][GROUP];

	for (int t = 0; t < TOUCHES; t++)
		group_init(&way[t * GROUP], s, t, one, two, &map[t], ours[t], bare[t]);
	way[RESIDENT] = (struct bench_way){.run = resident_run, .ctx = s};
	way[PLAIN] = (struct bench_way){.run = plain_run, .before = plain_before, .ctx = &plain};
	bench_measure(b, way, WARM_WAYS, WARM_SECONDS);
	compare(s, plain.mem, "one page a fault");
	for (int t = 0; t < TOUCHES; t++)
		group_report(b, &way[t * GROUP], t, &map[t], ours[t], bare[t], &totals[t * ROWS]);
	report(b, s, &way[RESIDENT], &way[MAPPED], "half written: resident already", &totals[ROW_RESIDENT]);
	report(b, s, &way[PLAIN], &way[MAPPED], "half written: one page a fault", &totals[ROW_PLAIN]);
	plain_leave(&plain);
}

static void cold_bench(struct bench *b, struct subject *s, struct rig *one, struct rig *two, struct total *totals)
{
	static struct bench_way way[COLD_WAYS];
	struct mapping map = {.s = s, .drop = true};
	struct ours ours[COLD_WAYS];

	way[COLD_MAPPED] = (struct bench_way){.run = map_run, .before = map_before, .ctx = &map};
	for (int i = COLD_ANON_1; i < COLD_WAYS; i++) {
		ours[i] = (struct ours){.s = s, .drop = true};
		rig_guest_init(&ours[i].guest, i == COLD_ANON_1 ? one : two, s->cold, i == COLD_ALLOC_2);
		way[i] = (struct bench_way){.run = ours_run, .before = ours_before, .ctx = &ours[i]};
	}
	bench_measure(b, way, COLD_WAYS, COLD_SECONDS);
	for (int i = COLD_MAPPED; i < COLD_WAYS; i++) {
		if (i != COLD_MAPPED)
			ours_check(&ours[i], cold_names[i]);
		report(b, s, &way[i], &way[COLD_MAPPED], cold_names[i], &totals[i]);
		if (i != COLD_MAPPED)
			rig_guest_fini(&ours[i].guest);
	}
	map_leave(&map);
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
	struct total warm[WARM_ROWS] = {0}, cold[COLD_WAYS] = {0};
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
	bench_title(&b, "all guests; ratio to the warm mapping touched alike, of the cold rows to the cold one");
	summary(&b, warm, WARM_ROWS);
	summary(&b, cold, COLD_WAYS);
	rig_close(&one);
	rig_close(&two);
	bench_snapshots_close(&snapshots);
	bench_close(&b);
	return 0;
}
