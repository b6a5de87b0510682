/*
 * FluidMem's own test matrix (test_cases.sh; Caldwell et al., ICDCS 2020): how many faults, zero pages, placements and evictions a guest costs
 * that touches its pages in a known order, with its list of resident pages first in first out, reclaim synchronous and no prefetch.
 *
 * A userfaultfd of the kernel, threads that play the guest, and this one as its shard.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "os/memfd.h"
#include "os/uffd.h"
#include "pager-image.h"
#include "pager/pager.h"

#define THREADS_MAX 20u
#define REGIONS_MAX 100u
#define WORDS	    (TEST_PAGE / 8)

/* What FluidMem has printed.  All that are not zero pages are placed, and a miss is a fault; case 6 depends on timing. */
struct figures {
	uint64_t faults, zero, placed, evictions, miss;
};

static const struct {
	unsigned pages, regions, threads, cycles, cap;
	struct figures figures;
} cases[] = {
	[1] = { 100, 100, 1, 0, 1, { 100, 100, 0, 99, 100 } },
	[2] = { 1, 1, 1, 0, 1, { 1, 1, 0, 0, 1 } },
	[3] = { 1000, 1, 1, 100, 1000, { 1000, 1000, 0, 0, 1000 } },
	[4] = { 4096, 1, 1, 1, 2048, { 8192, 4096, 4096, 6144, 8192 } },
	[5] = { 4096, 1, 4, 1, 2048, { 8192, 4096, 4096, 6144, 8192 } },
	[6] = { 20000, 20, 20, 5, 2048, { 199672, 20450, 179222, 197605, 199672 } },
	[7] = { 4096, 1, 1, 5, 1, { 40960, 4096, 36864, 40959, 40960 } },
};

#define CUT_FROM 2048u /* of case 7: what it may have until it is cut */
#define CUT_AT	 10000u

static struct world {
	unsigned number, pages, threads;
	char *mem, *view;
	uint64_t bytes;
	int memfd, uffd, ended;
	struct cis_image *img;
	struct cis_scratch *scratch;
	struct cis_pager *pager;
	void *state;
	uint64_t shadow[20000]; /* what each page was written with last */
	pthread_barrier_t barrier;
	atomic_uint wrong, running;
} w;

/* The guest: nothing here may end the test, so what is wrong is counted. */

static uint64_t *page_at(unsigned pgno)
{
	return (uint64_t *)(w.mem + (uint64_t)pgno * TEST_PAGE);
}

static void verify(unsigned pgno)
{
	const volatile uint64_t *p = page_at(pgno);

	for (unsigned i = 0; i < WORDS; i++)
		w.wrong += p[i] != (w.shadow[pgno] ? w.shadow[pgno] + i : 0);
}

/* 0 makes it a page of zeros. */
static void write_page(unsigned pgno, uint64_t value)
{
	uint64_t *p = page_at(pgno);

	w.shadow[pgno] = value;
	for (unsigned i = 0; i < WORDS; i++)
		p[i] = value ? value + i : 0;
}

static void *touch_each_once(void *arg)
{
	for (unsigned p = 0; p < w.pages; p++)
		verify(p);
	return NULL;
}

/* All threads touch the next so many pages at once, whoever comes first; then all the ones behind them. */
static void *cycle_together(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, cycles = cases[w.number].cycles;

	for (unsigned c = 1; c <= cycles; c++)
		for (unsigned pass = 0; pass < 2; pass++)
			for (unsigned p = me; p < w.pages; p += w.threads) {
				if (pass)
					verify(p);
				else
					write_page(p, (uint64_t)c << 32 | (p + 1u) << 10);
				pthread_barrier_wait(&w.barrier);
			}
	return NULL;
}

/* Each thread its own region, as fast as it can; now and then it writes zeros. */
static void *cycle_apart(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, each = w.pages / w.threads, cycles = cases[w.number].cycles;
	uint64_t seed = me + 1;

	for (unsigned c = 1; c <= cycles; c++) {
		for (unsigned p = me * each; p < (me + 1) * each; p++) {
			uint64_t x = test_random(&seed);

			verify(p);
			write_page(p, x % 16 ? x | 1 : 0);
		}
		for (unsigned p = me * each; p < (me + 1) * each; p++)
			verify(p);
	}
	return NULL;
}

static void *run_thread(void *arg)
{
	uint64_t one = 1;

	(w.number < 3 ? touch_each_once : w.number == 6 ? cycle_apart : cycle_together)(arg);
	if (!--w.running && write(w.ended, &one, sizeof(one)) != sizeof(one))
		w.wrong++;
	return NULL;
}

/* Its shard. */

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	fail_msg("%s", err->text);
}

static void guest_gone(void *ctx)
{
	fail_msg("gone");
}

static void limit(uint64_t pages)
{
	struct cis_error err;

	if (cis_pager_reclaim(w.pager, &(struct cis_reclaim_opts){ .budget_pages = pages, .stash_bytes = UINT64_MAX, .codec = CIS_CODEC_LZ4,
								   .sync = true }, &err))
		fail_msg("%s", err.text);
}

static bool is_over(void)
{
	uint64_t n;

	return read(w.ended, &n, sizeof(n)) == sizeof(n);
}

/* Until all threads have ended; they wait for us meanwhile, so nothing is missed. */
static void serve(void)
{
	struct pollfd fds[] = { { .fd = w.uffd, .events = POLLIN }, { .fd = w.ended, .events = POLLIN } };
	const struct cis_pager_stats *s = cis_pager_stats(w.pager);
	bool cut = w.number != 7;

	while (!is_over()) {
		bool more = cis_pager_run(w.pager);

		if (!cut && s->fault_ns.count >= CUT_AT) {
			limit(cases[7].cap);
			cut = true;
		} else if (!more && cis_pager_deadline(w.pager) == UINT64_MAX) {
			assert_true(poll(fds, 2, -1) > 0);
		}
	}
	assert_true(cut);
}

static void run_guest(void)
{
	pthread_t threads[THREADS_MAX];

	assert_int_equal(pthread_barrier_init(&w.barrier, NULL, w.threads), 0);
	w.running = w.threads;
	for (uintptr_t i = 0; i < w.threads; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_thread, (void *)i), 0);
	serve();
	for (unsigned i = 0; i < w.threads; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&w.barrier);
}

/* A case. */

static void write_image(void)
{
	char path[] = "/var/tmp/cistern-counts.XXXXXX";
	struct test_memory m;

	close(mkstemp(path));
	test_memory_init(&m, w.pages);
	w.img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW });
	unlink(path);
	test_memory_fini(&m);
}

static void open_guest(unsigned number)
{
	struct cis_region regions[REGIONS_MAX];
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = regions, .nr_regions = cases[number].regions, .os = &cis_pager_os_uffd, .os_ctx = &w.uffd,
		.clock = cis_now_ns, .tries = 1, .failed = page_failed, .gone = guest_gone,
	};
	struct cis_error err;
	void *map;

	w = (struct world){ .number = number, .pages = cases[number].pages, .threads = cases[number].threads };
	w.bytes = (uint64_t)w.pages * TEST_PAGE;
	write_image();
	assert_int_equal(cis_scratch_create(&w.scratch), 0);
	assert_int_equal(cis_memfd_create("guest", w.bytes, TEST_PAGE, &w.memfd), 0);
	assert_int_equal(cis_memfd_map(w.memfd, 0, w.bytes, &map), 0);
	w.mem = map;
	assert_int_equal(cis_memfd_map(w.memfd, 0, w.bytes, &map), 0);
	w.view = map;
	assert_int_equal(cis_uffd_open(0, &w.uffd), 0);
	w.ended = eventfd(0, EFD_NONBLOCK);
	for (size_t i = 0; i < opts.nr_regions; i++) {
		uint64_t each = w.bytes / opts.nr_regions;

		regions[i] = (struct cis_region){ .hva = (uint64_t)(uintptr_t)w.mem + i * each, .bytes = each, .offset = i * each,
						  .kind = CIS_KIND_SHARED, .view = w.view + i * each };
		assert_int_equal(cis_uffd_register(w.uffd, regions[i].hva, each, UFFDIO_REGISTER_MODE_MISSING), 0);
	}
	w.state = mmap(NULL, cis_state_bytes(CIS_STATE_LAYOUT_MAX, w.pages), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(w.state, MAP_FAILED);
	cis_state_init(w.state, CIS_STATE_LAYOUT_MAX, w.pages, 1, &opts.state);
	opts.image = w.img;
	opts.scratch = w.scratch;
	assert_int_equal(cis_pager_create(&opts, &w.pager, &err), 0);
	limit(number == 7 ? CUT_FROM : cases[number].cap);
}

static void close_guest(void)
{
	assert_true(cis_pager_quiesce(w.pager));
	cis_pager_destroy(w.pager);
	munmap(w.state, cis_state_bytes(CIS_STATE_LAYOUT_MAX, w.pages));
	close(w.uffd);
	close(w.ended);
	close(w.memfd);
	cis_memfd_unmap(w.mem, w.bytes);
	cis_memfd_unmap(w.view, w.bytes);
	cis_scratch_destroy(w.scratch);
	cis_image_unref(w.img);
}

/* Faults that something was installed for; a page of zeros is one whether it never was anything else or was reclaimed as such. */
static struct figures counted(void)
{
	const struct cis_pager_stats *s = cis_pager_stats(w.pager);
	struct figures f = { .zero = s->faults_zero + s->faults_removed, .placed = s->faults_stashed, .evictions = s->evictions };

	f.faults = f.miss = s->fault_ns.count - s->faults_resident - s->faults_written;
	print_message("case %u: %llu faults, %llu zero, %llu placed, %llu evictions, %llu resident, %llu late, %llu held, %llu given up\n", w.number,
		      (unsigned long long)f.faults, (unsigned long long)f.zero, (unsigned long long)f.placed, (unsigned long long)f.evictions,
		      (unsigned long long)cis_pager_resident(w.pager), (unsigned long long)s->faults_resident,
		      (unsigned long long)s->faults_written, (unsigned long long)s->evictions_given_up);
	return f;
}

static void equations_hold(const struct figures *f, uint64_t resident)
{
	assert_int_equal(f->faults, f->zero + f->placed);
	assert_int_equal(f->evictions, f->faults - resident);
	assert_int_equal(f->miss, f->faults);
}

static void is_exact(unsigned number)
{
	const struct figures *want = &cases[number].figures;
	const struct cis_pager_stats *s;
	struct figures is;

	open_guest(number);
	run_guest();
	s = cis_pager_stats(w.pager);
	is = counted();
	assert_int_equal(w.wrong, 0);
	assert_int_equal(is.faults, want->faults);
	assert_int_equal(is.zero, want->zero);
	assert_int_equal(is.placed, want->placed);
	assert_int_equal(is.evictions, want->evictions);
	assert_int_equal(is.miss, want->miss);
	assert_int_equal(s->faults_resident + s->faults_written + s->evictions_given_up + s->faults_demand + s->pages_prefetched, 0);
	equations_hold(&is, cis_pager_resident(w.pager));
	assert_int_equal(cis_pager_resident(w.pager), cases[number].cap < w.pages ? cases[number].cap : w.pages);
	close_guest();
}

static void case_1_each_page_a_region(void **state)
{
	is_exact(1);
}

static void case_2_a_single_page(void **state)
{
	is_exact(2);
}

static void case_3_all_of_it_fits(void **state)
{
	is_exact(3);
}

static void case_4_half_of_it_fits(void **state)
{
	is_exact(4);
}

static void case_5_by_threads(void **state)
{
	is_exact(5);
}

/* FluidMem's own figures have 19 pages more at the end than its list holds: one for each other thread, on its way. */
static void case_6_by_threads_that_do_not_wait(void **state)
{
	const struct figures *theirs = &cases[6].figures;
	struct figures is;

	equations_hold(theirs, cases[6].cap + cases[6].threads - 1);
	open_guest(6);
	run_guest();
	is = counted();
	assert_int_equal(w.wrong, 0);
	assert_int_equal(cis_pager_resident(w.pager), cases[6].cap);
	equations_hold(&is, cases[6].cap);
	assert_true(is.zero > w.pages); /* writes are avoided, as 450 of theirs were */
	assert_int_equal(cis_pager_stats(w.pager)->faults_demand + cis_pager_stats(w.pager)->pages_prefetched, 0);
	close_guest();
}

static void case_7_cut_to_one_page_while_it_runs(void **state)
{
	is_exact(7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(case_1_each_page_a_region),
		cmocka_unit_test(case_2_a_single_page),
		cmocka_unit_test(case_3_all_of_it_fits),
		cmocka_unit_test(case_4_half_of_it_fits),
		cmocka_unit_test(case_5_by_threads),
		cmocka_unit_test(case_6_by_threads_that_do_not_wait),
		cmocka_unit_test(case_7_cut_to_one_page_while_it_runs),
	};
	uint64_t features;

	if (cis_uffd_features(&features))
		check_skip("no permission to make a userfaultfd");
	if (!(features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		check_skip("this kernel cannot protect shared memory against writes");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
