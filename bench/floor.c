#include "floor.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/memfd.h"
#include "os/uffd.h"

#define SPAN	    (256u << 10)
#define CHUNK_MAX   (2u << 20)
#define CHUNK_PAGES 512u
#define BUF_PAGES   64u /* of which one COPY is made: they stay in the cache */

static int by_page(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void read_page(const struct bench_snapshot *g, uint32_t pgno, char *to)
{
	if (pread(g->fd, to, BENCH_PAGE, (off_t)pgno * BENCH_PAGE) != BENCH_PAGE)
		bench_die(g->path, "the trace has a page that the memory file has not");
}

/* Pages of one word in allocated memory are there as the others are. */
static void add_page(struct floor *f, uint32_t pgno, bool same, uint64_t word)
{
	struct floor_run *last = f->nr ? &f->run[f->nr - 1] : NULL;

	if (last && pgno == last->pgno + last->nr && same == last->same && word == last->word)
		last->nr++;
	else
		f->run[f->nr++] = (struct floor_run){.pgno = pgno, .nr = 1, .same = same, .word = word};
}

static void make_runs(struct floor *f)
{
	const struct cis_trace *t = &f->guest->trace;
	uint32_t *sorted = malloc(t->nr * sizeof(*sorted));
	char page[BENCH_PAGE];

	f->run = calloc(t->nr, sizeof(*f->run));
	if (!sorted || !f->run)
		bench_die(f->guest->name, strerror(ENOMEM));
	memcpy(sorted, t->pgno, t->nr * sizeof(*sorted));
	qsort(sorted, t->nr, sizeof(*sorted), by_page);
	for (uint64_t i = 0; i < t->nr; i++) {
		uint64_t word = 0;
		bool same;

		read_page(f->guest, sorted[i], page);
		same = cis_same_word(page, BENCH_PAGE, &word);
		if (same || !f->image)
			add_page(f, sorted[i], same && !f->allocated, same && !f->allocated ? word : 0);
	}
	free(sorted);
}

/* A part of @n: what the caller does. */
static uint64_t mine(const struct floor *f, uint64_t n)
{
	return f->on == FLOOR_HERE ? n : f->on == FLOOR_BOTH ? n / 2 : 0;
}

/* Between one thread and the other: pages, and chunks. */
static void make_parts(struct floor *f)
{
	uint64_t chunks = f->image ? cis_image_info(f->image)->nr_hot_chunks : 0, pages = 0, all = 0;
	size_t cut = 0;

	for (size_t i = 0; i < f->nr; i++)
		all += f->run[i].nr;
	while (cut < f->nr && pages < mine(f, all))
		pages += f->run[cut++].nr;
	f->part[0] = (struct floor_part){.run_end = cut, .chunk_end = mine(f, chunks)};
	f->part[1] = (struct floor_part){.run = cut, .run_end = f->nr, .chunk = f->part[0].chunk_end, .chunk_end = chunks};
	for (unsigned i = 0; i < 2; i++) {
		struct floor_part *part = &f->part[i];

		part->stored = aligned_alloc(BENCH_PAGE, SPAN + CHUNK_MAX);
		part->buf = aligned_alloc(BENCH_PAGE, CHUNK_MAX);
		if (!part->stored || !part->buf ||
		    (f->image && cis_decoder_create(CHUNK_MAX, cis_image_params(f->image), &part->dec)))
			bench_die("floor", strerror(ENOMEM));
		memset(part->stored, 0, SPAN + CHUNK_MAX);
		memset(part->buf, 0, CHUNK_MAX);
	}
}

static void make_content(struct floor *f)
{
	const struct cis_trace *t = &f->guest->trace;
	void *map;

	if (!f->allocated)
		return;
	bench_must(cis_memfd_create("floor", f->guest->bytes, BENCH_PAGE, &f->memfd), "memfd");
	bench_must(cis_memfd_map(f->memfd, 0, f->guest->bytes, &map), "memfd");
	for (uint64_t i = 0; i < t->nr; i++)
		read_page(f->guest, t->pgno[i], (char *)map + (uint64_t)t->pgno[i] * BENCH_PAGE);
	f->alias = map;
}

static void install(struct floor *f, uint32_t pgno, uint32_t nr, const char *from)
{
	uint64_t dst = (uint64_t)(uintptr_t)f->mem + (uint64_t)pgno * BENCH_PAGE, len = (uint64_t)nr * BENCH_PAGE, done;
	int rc = f->allocated ? cis_uffd_continue(f->uffd, dst, len, &done) :
		 from	      ? cis_uffd_copy(f->uffd, dst, from, len, &done) :
				cis_uffd_zero(f->uffd, dst, len, &done);

	bench_must(rc, "floor: install");
}

static void install_run(struct floor *f, const struct floor_run *run, char *buf)
{
	if (f->allocated || (run->same && !run->word)) {
		install(f, run->pgno, run->nr, NULL);
		return;
	}
	for (size_t i = 0; run->same && i < BUF_PAGES * BENCH_PAGE; i += sizeof(run->word))
		memcpy(buf + i, &run->word, sizeof(run->word));
	for (uint32_t at = 0, n; at < run->nr; at += n) {
		n = run->nr - at < BUF_PAGES ? run->nr - at : BUF_PAGES;
		install(f, run->pgno + at, n, buf);
	}
}

static void install_chunk(struct floor *f, struct floor_part *part, uint64_t chunk, const char *stored)
{
	uint64_t pgno[CHUNK_PAGES];
	size_t n = cis_image_chunk_pages(f->image, chunk, CHUNK_PAGES, pgno);
	bool in_place = f->alias && pgno[n - 1] == pgno[0] + n - 1;
	char *raw = in_place ? f->alias + pgno[0] * BENCH_PAGE : part->buf;
	struct cis_chunk_loc loc;

	cis_image_chunk(f->image, chunk, &loc);
	if (cis_decode(part->dec, loc.codec, stored, loc.stored_bytes, raw, loc.raw_bytes) ||
	    cis_chunk_checksum(chunk, raw, loc.raw_bytes) != loc.checksum)
		bench_die("floor", "a chunk is damaged");
	for (size_t i = 0, to; i < n; i = to) {
		for (to = i + 1; to < n && pgno[to] == pgno[i] + (to - i); to++)
			;
		if (f->alias && !in_place)
			memcpy(f->alias + pgno[i] * BENCH_PAGE, raw + i * BENCH_PAGE, (to - i) * BENCH_PAGE);
		install(f, (uint32_t)pgno[i], (uint32_t)(to - i), raw + i * BENCH_PAGE);
	}
}

static void install_part(struct floor *f, struct floor_part *part)
{
	for (uint64_t c = part->chunk; c < part->chunk_end;) {
		struct cis_chunk_loc loc;
		uint64_t off, to = c, len = 0;

		cis_image_chunk(f->image, c, &loc);
		off = loc.off;
		while (to < part->chunk_end && len < SPAN) {
			cis_image_chunk(f->image, to++, &loc);
			len = loc.off + loc.stored_bytes - off;
		}
		if (pread(cis_image_fd(f->image), part->stored, len, (off_t)off) != (ssize_t)len)
			bench_die("floor", "read");
		for (; c < to; c++) {
			cis_image_chunk(f->image, c, &loc);
			install_chunk(f, part, c, part->stored + (loc.off - off));
		}
	}
	for (size_t i = part->run; i < part->run_end; i++)
		install_run(f, &f->run[i], part->buf);
}

/* The second thread: from barrier to barrier one restore. */
static void *other_main(void *arg)
{
	struct floor *f = arg;

	for (;;) {
		pthread_barrier_wait(&f->turn);
		if (f->over)
			return NULL;
		install_part(f, &f->part[1]);
		pthread_barrier_wait(&f->turn);
	}
}

/* Where the caller is not. */
static void other_start(struct floor *f)
{
	cpu_set_t mine, others;

	sched_getaffinity(0, sizeof(mine), &mine);
	memset(&others, 0xff, sizeof(others));
	CPU_XOR(&others, &others, &mine);
	pthread_barrier_init(&f->turn, NULL, 2);
	if (pthread_create(&f->thread, NULL, other_main, f))
		bench_die("floor", "no thread");
	pthread_setaffinity_np(f->thread, sizeof(others), &others); /* with one CPU it stays where it is */
}

void floor_init(struct floor *f, const struct bench_snapshot *guest, struct cis_image *image, bool allocated,
		enum floor_on on)
{
	*f = (struct floor){.guest = guest, .image = image, .allocated = allocated, .on = on,
			    .memfd = -1, .uffd = -1};
	make_runs(f);
	make_parts(f);
	make_content(f);
	if (f->on != FLOOR_HERE)
		other_start(f);
}

static void leave(struct floor *f)
{
	if (f->uffd >= 0)
		close(f->uffd);
	if (f->mem)
		munmap(f->mem, f->guest->bytes);
	f->uffd = -1;
	f->mem = NULL;
}

void floor_fini(struct floor *f)
{
	leave(f);
	if (f->on != FLOOR_HERE) {
		f->over = true;
		pthread_barrier_wait(&f->turn);
		pthread_join(f->thread, NULL);
		pthread_barrier_destroy(&f->turn);
	}
	if (f->memfd >= 0)
		close(f->memfd);
	cis_memfd_unmap(f->alias, f->guest->bytes);
	free(f->run);
	for (unsigned i = 0; i < 2; i++) {
		cis_decoder_destroy(f->part[i].dec);
		free(f->part[i].stored);
		free(f->part[i].buf);
	}
}

void floor_prepare(struct floor *f)
{
	void *map;

	leave(f);
	if (!f->allocated) {
		f->mem = bench_map(f->guest->bytes);
		return;
	}
	bench_must(cis_memfd_map(f->memfd, 0, f->guest->bytes, &map), "memfd");
	f->mem = map;
}

void floor_restore(struct floor *f)
{
	uint64_t mode = UFFDIO_REGISTER_MODE_MISSING | (f->allocated ? UFFDIO_REGISTER_MODE_MINOR : 0);

	bench_must(cis_uffd_open(f->allocated ? UFFD_FEATURE_MINOR_SHMEM : 0, &f->uffd), "userfaultfd");
	bench_must(cis_uffd_register(f->uffd, (uint64_t)(uintptr_t)f->mem, f->guest->bytes, mode), "UFFDIO_REGISTER");
	if (f->on != FLOOR_HERE)
		pthread_barrier_wait(&f->turn);
	install_part(f, &f->part[0]);
	if (f->on != FLOOR_HERE)
		pthread_barrier_wait(&f->turn);
}
