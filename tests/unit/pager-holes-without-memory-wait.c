/*
 * Memory of huge pages that is filled in place may have a hole, and the host no page for it: to write there would be the end of
 * the daemon.  The fault waits until there is one, and not for ever.
 */
#include "check.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pager/pager.h"
#include "pager-image.h"

#define HUGE_PAGE ((uint64_t)2 << 20)
#define PAGES	  2u /* the first has content, the second is zero */
#define BYTES	  (PAGES * HUGE_PAGE)
#define HVA	  0x7f0000000000ull

struct world {
	struct cis_image *img;
	struct cis_store *store;
	struct cis_scratch *scratch;
	struct cis_pager *p;
	char *alias; /* may be written where it was allocated */
	void *state;
	uint64_t clock_ns, fault; /* an address that faults next, or 0 */
	unsigned refuse;	  /* so many allocations from now on */
	unsigned refused, mapped, failed;
};

static int k_read(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	struct world *w = ctx;

	(void)max;
	if (!w->fault)
		return -EAGAIN;
	msgs->event = UFFD_EVENT_PAGEFAULT;
	msgs->arg.pagefault.address = w->fault;
	w->fault = 0;
	*ret_n = 1;
	return 0;
}

static int k_continue(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	(void)dst;
	((struct world *)ctx)->mapped++;
	*ret_done = len;
	return 0;
}

static int k_poison(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	(void)ctx;
	(void)dst;
	*ret_done = len;
	return 0;
}

static int k_wake(void *ctx, uint64_t dst, uint64_t len)
{
	(void)ctx;
	(void)dst;
	(void)len;
	return 0;
}

static int k_allocate(void *ctx, void *addr, uint64_t len)
{
	struct world *w = ctx;

	if (!w->refuse) {
		assert_int_equal(mprotect(addr, len, PROT_READ | PROT_WRITE), 0);
		return 0;
	}
	w->refuse--;
	w->refused++;
	return -ENOMEM;
}

static const struct cis_pager_os kernel = { .read = k_read, .cont = k_continue, .poison = k_poison, .wake = k_wake,
					    .allocate = k_allocate };

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	(void)img;
	return ((struct world *)ctx)->store;
}

static uint64_t clock_of(void *ctx)
{
	return ((struct world *)ctx)->clock_ns;
}

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	(void)pgno;
	assert_int_equal(outcome, CIS_OUTCOME_POISON);
	assert_non_null(strstr(err->text, "install: Cannot allocate memory"));
	((struct world *)ctx)->failed++;
}

static struct cis_image *make_image(void)
{
	char path[] = "/tmp/cistern-holes-XXXXXX";
	struct cis_write_opts opts = { .codec = CIS_CODEC_MASK, .page_shift = 21 };
	struct test_memory m;
	struct cis_image *img;

	assert_int_equal(close(mkstemp(path)), 0);
	test_memory_init(&m, BYTES / TEST_PAGE);
	test_fill_page(m.mem, 2, 7);
	img = test_write_image(path, &m, &opts);
	unlink(path);
	test_memory_fini(&m);
	return img;
}

static int setup(void **state)
{
	static struct world w;
	struct cis_region region = { .hva = HVA, .bytes = BYTES, .kind = CIS_KIND_SHARED, .huge = true };
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = &region, .nr_regions = 1, .os = &kernel, .os_ctx = &w, .clock = clock_of,
		.clock_ctx = &w, .store_of = store_of, .policy = CIS_POLICY_POISON, .tries = 1, .failed = page_failed, .ctx = &w,
	};

	w = (struct world){ .clock_ns = 1, .img = make_image() };
	w.alias = mmap(NULL, BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(w.alias, MAP_FAILED);
	assert_int_equal(cis_scratch_create(&w.scratch), 0);
	assert_int_equal(cis_store_file_open(cis_image_fd(w.img), &w.store, NULL), 0);
	w.state = calloc(1, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	cis_state_init(w.state, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.state);
	region.alias = w.alias;
	opts.image = w.img;
	opts.scratch = w.scratch;
	assert_int_equal(cis_pager_create(&opts, &w.p, NULL), 0);
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	while (!cis_pager_quiesce(w->p)) /* what the fill left out is being read, where the page cache cannot be asked first, as a tmpfs's */
		cis_store_reap(w->store);
	cis_pager_destroy(w->p);
	cis_store_close(w->store);
	cis_scratch_destroy(w->scratch);
	cis_image_unref(w->img);
	munmap(w->alias, BYTES);
	free(w->state);
	return 0;
}

/* The page is touched; time goes by until it is there, or given up. */
static void touch(struct world *w, uint64_t pgno)
{
	w->fault = HVA + pgno * HUGE_PAGE;
	do {
		cis_pager_run(w->p);
		cis_store_reap(w->store);
		w->clock_ns += 1000000;
	} while (!w->mapped && !w->failed);
}

static void it_comes_when_there_is_memory(void **state)
{
	struct world *w = *state;

	for (uint64_t pgno = 0; pgno < PAGES; pgno++) {
		w->refuse = 3;
		w->mapped = 0;
		touch(w, pgno);
		assert_int_equal(w->refuse, 0);
		assert_int_equal(cis_pager_state_of(w->p, pgno), CIS_PAGE_RESIDENT);
	}
	assert_int_equal(w->failed, 0);
	for (size_t i = 0; i < TEST_PAGE / 8; i++)
		assert_int_equal(((uint64_t *)w->alias)[i], i % 4 ? 7 * 0x9e3779b97f4a7c15u + i : 7);
	assert_int_equal(w->alias[HUGE_PAGE], 0);
}

static void it_is_given_up_when_there_never_is(void **state)
{
	struct world *w = *state;

	for (uint64_t pgno = 0; pgno < PAGES; pgno++) {
		w->refuse = UINT32_MAX;
		w->refused = w->failed = 0;
		touch(w, pgno);
		assert_int_equal(w->failed, 1);
		assert_in_range(w->refused, 100, 10000);
		assert_int_equal(cis_pager_state_of(w->p, pgno), CIS_PAGE_POISONED);
	}
}

/* A fill leaves it out: who touches it decides. */
static void a_fill_does_not_write_there(void **state)
{
	struct world *w = *state;
	struct cis_fill_job *job;

	w->refuse = UINT32_MAX;
	cis_pager_fill(w->p, CIS_FILL_ALL);
	job = cis_pager_next_job(w->p);
	assert_non_null(job);
	while (cis_fill_job_step(job, w->scratch, w->store))
		;
	cis_pager_job_done(w->p, job);
	assert_true(w->refused > 0);
	assert_int_not_equal(cis_pager_state_of(w->p, 0), CIS_PAGE_RESIDENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_comes_when_there_is_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_given_up_when_there_never_is, setup, teardown),
		cmocka_unit_test_setup_teardown(a_fill_does_not_write_there, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
