/*
 * bench reclaim: how fast pages leave a guest, from another process.
 *
 * Ours is the pager's jobs, run by one thread as a worker does: pages in runs of 64, or every other page, into the stash.  The bare loop
 * makes the same calls with nothing around them: protect, copy to a buffer, punch.  It keeps nothing, so a second one copies to memory as
 * large as what leaves, which somebody has to have.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "base/clock.h"
#include "bench.h"
#include "guest.h"
#include "os/memfd.h"
#include "os/uffd.h"
#include "pager/pager.h"

#define PAGES	16384u /* 64 MiB */
#define RUN	64u
#define ROUNDS	7
#define MISSING_WP (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)

static struct rig {
	struct cis_image *img;
	struct cis_scratch *scratch;
	struct bench_guest guest;
	struct cis_state state;
	void *map; /* of the state memfd */
	int fd;
	char *store; /* where the second bare loop copies to */
	unsigned stride;
	enum cis_codec codec;
	bool fresh;
} r;

static void must(int rc, const char *what)
{
	if (rc) {
		fprintf(stderr, "%s: %s\n", what, strerror(-rc));
		exit(1);
	}
}

/* A quarter zeros, a quarter pointers, a quarter small numbers, a quarter noise. */
static void fill(char *mem)
{
	uint64_t *w = (uint64_t *)mem, seed = 1;

	for (uint64_t i = 0; i < (uint64_t)PAGES * TEST_PAGE / 8; i++) {
		uint64_t x = test_random(&seed);

		w[i] = x % 4 == 0 ? 0 : x % 4 == 1 ? 0xffff888000000000u + (x & 0xffffff) : x % 4 == 2 ? (x & 0xffff) : x;
	}
}

static void start_guest(void)
{
	uint64_t bytes = (uint64_t)PAGES * TEST_PAGE, done;

	bench_guest_start(&r.guest, bytes, BENCH_ALLOCATED, -1);
	fill(r.guest.alias);
	must(cis_uffd_continue(r.guest.uffd, r.guest.hva, bytes, &done), "UFFDIO_CONTINUE");
	must(cis_uffd_register(r.guest.uffd, r.guest.hva, bytes, MISSING_WP), "UFFDIO_REGISTER");
}

/* Ours. */

static void failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	fprintf(stderr, "%s\n", err->text);
	exit(1);
}

static void gone(void *ctx)
{
	exit(1);
}

static struct cis_pager *make_pager(void)
{
	uint64_t bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES);
	struct cis_region region = { .hva = r.guest.hva, .bytes = r.guest.bytes, .kind = CIS_KIND_SHARED, .view = r.guest.alias };
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = &region, .nr_regions = 1, .image = r.img, .os = &cis_pager_os_uffd,
		.os_ctx = &r.guest.uffd, .clock = cis_now_ns, .scratch = r.scratch, .tries = 1, .failed = failed, .gone = gone,
		.adopt = true, .generation = 2,
	};
	struct cis_pager *p;
	struct cis_error err;

	must(cis_memfd_create("state", bytes, 4096, &r.fd), "memfd");
	must(cis_memfd_map(r.fd, 0, bytes, &r.map), "memfd");
	cis_state_init(r.map, CIS_STATE_LAYOUT_MAX, PAGES, 1, &r.state);
	for (uint64_t i = 0; i < PAGES; i += r.stride)
		r.state.words[i] = cis_word_make(CIS_PAGE_RESIDENT, 0, 0);
	if (!r.fresh)
		memset(r.state.stash, 0, r.state.stash_bytes);
	opts.state = r.state;
	if (cis_pager_create(&opts, &p, &err) ||
	    cis_pager_reclaim(p, &(struct cis_reclaim_opts){ .stash_bytes = UINT64_MAX, .codec = r.codec }, &err)) {
		fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	cis_pager_run(p);
	return p;
}

static double ours(void)
{
	struct cis_pager *p = make_pager();
	struct cis_evict_job *job;
	double start = bench_now();

	while ((job = cis_pager_next_evict(p))) {
		while (cis_evict_job_step(job, r.scratch))
			;
		cis_pager_evict_done(p, job);
	}
	start = bench_now() - start;
	if (cis_pager_resident(p))
		exit(1);
	cis_pager_quiesce(p);
	cis_pager_destroy(p);
	cis_memfd_unmap(r.map, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	close(r.fd);
	return start;
}

/* The bare loops. */

static void leave(uint64_t pgno, uint64_t nr, char *to)
{
	uint64_t off = pgno * TEST_PAGE, len = nr * TEST_PAGE;

	must(cis_uffd_protect(r.guest.uffd, r.guest.hva + off, len, true), "UFFDIO_WRITEPROTECT");
	memcpy(to, r.guest.alias + off, len);
	if (madvise(r.guest.alias + off, len, MADV_REMOVE))
		exit(1);
}

static double bare(bool keeps)
{
	static char buf[RUN * TEST_PAGE];
	uint64_t nr = r.stride == 1 ? RUN : 1;
	double start;

	if (keeps) {
		r.store = mmap(NULL, r.guest.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (!r.fresh)
			memset(r.store, 0, r.guest.bytes);
	}
	start = bench_now();
	for (uint64_t p = 0; p < PAGES; p += r.stride == 1 ? nr : r.stride)
		leave(p, nr, keeps ? r.store + p * TEST_PAGE : buf);
	start = bench_now() - start;
	if (keeps)
		munmap(r.store, r.guest.bytes);
	return start;
}

/* Ways by turns: 0 ours, 1 bare, 2 bare that keeps. */
static void run_case(struct bench *b, const char *name)
{
	double took[3][ROUNDS], ratio[2][ROUNDS];
	int rounds = b->quick ? 1 : ROUNDS;
	double pages = PAGES / r.stride;
	char what[120];

	for (int round = -1; round < rounds; round++)
		for (int turn = 0; turn < 3; turn++) {
			int way = (turn + round + 1) % 3;
			double t;

			start_guest();
			t = way ? bare(way == 2) : ours();
			bench_guest_end(&r.guest);
			if (round >= 0)
				took[way][round] = t;
		}
	for (int i = 0; i < rounds; i++) {
		ratio[0][i] = took[1][i] / took[0][i];
		ratio[1][i] = took[2][i] / took[0][i];
	}
	double mine = bench_median(took[0], (size_t)rounds) / pages * 1e6;

	snprintf(what, sizeof(what), "%s, %s, to the bare loop", cis_codec_name(r.codec), name);
	bench_figure(b, what, mine, "us/page", bench_median(took[1], (size_t)rounds) / pages * 1e6,
		     bench_median(ratio[0], (size_t)rounds));
	snprintf(what, sizeof(what), "%s, %s, to one that keeps them", cis_codec_name(r.codec), name);
	bench_figure(b, what, mine, "us/page", bench_median(took[2], (size_t)rounds) / pages * 1e6,
		     bench_median(ratio[1], (size_t)rounds));
}

int main(void)
{
	static const enum cis_codec codecs[] = { CIS_CODEC_RAW, CIS_CODEC_MASK, CIS_CODEC_LZ4 };
	char path[] = "/tmp/cistern-bench-XXXXXX";
	struct test_memory m;
	struct bench b;
	uint64_t features;

	close(mkstemp(path));
	bench_open(&b, "reclaim");
	if (cis_uffd_features(&features))
		bench_skip(&b, "no permission to make a userfaultfd");
	test_memory_init(&m, PAGES);
	r.img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW });
	unlink(path);
	test_memory_fini(&m);
	must(cis_scratch_create(&r.scratch), "scratch");
	bench_title(&b, "64 MiB of a guest, by one thread; ratio: the bare loop's time to ours (bar: 0.8, raw)");
	for (size_t c = 0; c < 3; c++)
		for (r.stride = 1; r.stride <= 2; r.stride++)
			for (int fresh = 0; fresh <= 1; fresh++) {
				r.codec = codecs[c];
				r.fresh = fresh;
				run_case(&b, r.stride == 1 ? fresh ? "runs of 64, new stash" : "runs of 64"
						 : fresh ? "every other, new stash" : "every other");
			}
	cis_scratch_destroy(r.scratch);
	cis_image_unref(r.img);
	bench_close(&b);
	return 0;
}
