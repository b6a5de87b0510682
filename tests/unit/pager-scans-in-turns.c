/*
 * A guest that is filled already, for the most part or wholly, is looked through in bounded steps, and a fault between two of them
 * is answered; what is missing is found, and its pages are counted rightly all the time.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "pager-image.h"
#include "pager/pager.h"

#define PAGES 20480u /* of which the last quarter is zeros */
#define DATA  15360u
#define STEP  4096u /* pages looked at in a turn */
#define ZEROS 128u  /* installed in one */
#define HVA   ((uint64_t)1 << 32)

static struct world {
	struct cis_image *img;
	struct cis_scratch *scratch;
	struct cis_pager *pager;
	void *state;
	uint64_t now_ns, zeroed;
	bool in_turn; /* a fault waits to be read */
} w;

static int k_read(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	if (!w.in_turn)
		return -EAGAIN;
	w.in_turn = false;
	msgs[0] = (struct uffd_msg){ .event = UFFD_EVENT_PAGEFAULT };
	msgs[0].arg.pagefault.address = HVA + (PAGES - 1) * TEST_PAGE;
	*ret_n = 1;
	return 0;
}

static int k_zero(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	w.zeroed += len / TEST_PAGE;
	*ret_done = len;
	return 0;
}

static int k_wake(void *ctx, uint64_t dst, uint64_t len)
{
	return 0;
}

static const struct cis_pager_os kernel = { .read = k_read, .zero = k_zero, .wake = k_wake };

static uint64_t model_clock(void *ctx)
{
	return ++w.now_ns;
}

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	fail_msg("nothing is read");
	return NULL;
}

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	fail_msg("%s", err->text);
}

static void guest_gone(void *ctx)
{
	fail_msg("gone");
}

/* The first quarter is hot, and with it all zeros. */
static void write_image(void)
{
	char path[] = "/var/tmp/cistern-scans.XXXXXX";
	uint32_t *hot = calloc(DATA / 4 + PAGES - DATA, sizeof(*hot)), nr = 0;
	struct test_memory m;

	close(mkstemp(path));
	test_memory_init(&m, PAGES);
	for (uint32_t p = 0; p < PAGES; p++) {
		test_fill_page(m.mem + p * TEST_PAGE, p < DATA ? 2 : 0, p + 1);
		if (p < DATA / 4 || p >= DATA)
			hot[nr++] = p;
	}
	w.img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW, .hot = hot, .nr_hot = nr });
	unlink(path);
	test_memory_fini(&m);
	free(hot);
}

/* As an engine has left it: all is there but the pages from @absent to @end. */
static void open_guest(uint64_t absent, uint64_t end)
{
	struct cis_region region = { .hva = HVA, .bytes = (uint64_t)PAGES * TEST_PAGE };
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = &region, .nr_regions = 1, .image = w.img, .os = &kernel, .clock = model_clock,
		.scratch = w.scratch, .store_of = store_of, .tries = 1, .failed = page_failed, .gone = guest_gone,
		.adopt = true, .generation = 2,
	};
	struct cis_error err;

	w.zeroed = 0;
	w.state = calloc(1, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	cis_state_init(w.state, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.state);
	for (uint64_t p = 0; p < PAGES; p++)
		opts.state.words[p] = cis_word_make(p < absent || p >= end ? CIS_PAGE_RESIDENT : CIS_PAGE_ABSENT, 0, 0);
	assert_int_equal(cis_pager_create(&opts, &w.pager, &err), 0);
}

static void close_guest(void)
{
	assert_true(cis_pager_quiesce(w.pager));
	cis_pager_destroy(w.pager);
	free(w.state);
}

static uint64_t absent_pages(void)
{
	uint64_t nr[CIS_PAGE_STATES];

	cis_pager_pages(w.pager, nr);
	assert_int_equal(nr[CIS_PAGE_ABSENT] + nr[CIS_PAGE_BUSY] + nr[CIS_PAGE_RESIDENT], PAGES);
	return nr[CIS_PAGE_ABSENT];
}

static void what_is_there_is_passed_over_in_turns(void **state)
{
	struct cis_fill_job *job = NULL;
	unsigned turns = 0;

	open_guest(DATA - 1, DATA);
	assert_int_equal(absent_pages(), 1);
	cis_pager_fill(w.pager, CIS_FILL_ALL);
	for (; !(job = cis_pager_next_job(w.pager)); turns++) {
		assert_true(cis_pager_scans(w.pager));
		assert_int_equal(cis_pager_deadline(w.pager), 0);
		w.in_turn = true;
		cis_pager_run(w.pager);
		assert_false(w.in_turn); /* its fault was read */
	}
	assert_false(cis_pager_scans(w.pager));
	assert_int_equal(turns, DATA / STEP);
	assert_int_equal(absent_pages(), 0); /* the job's now */
	while (cis_fill_job_step(job, w.scratch, NULL)) /* there is no store to read it by */
		;
	cis_pager_job_done(w.pager, job);
	assert_int_equal(absent_pages(), 1);
	close_guest();
}

static void the_end_is_found(void **state)
{
	unsigned turns = 0;

	open_guest(0, 0);
	cis_pager_fill(w.pager, CIS_FILL_ALL);
	for (; cis_pager_filled(w.pager) < CIS_FILL_ALL; turns++) {
		assert_null(cis_pager_next_job(w.pager));
		assert_int_equal(cis_pager_deadline(w.pager), 0);
		cis_pager_run(w.pager);
	}
	assert_in_range(turns, DATA / STEP + PAGES / STEP, 2 * PAGES / STEP + (PAGES - DATA) / ZEROS);
	assert_int_equal(cis_pager_deadline(w.pager), UINT64_MAX);
	close_guest();
}

static void zeros_come_in_turns(void **state)
{
	open_guest(DATA, PAGES);
	assert_int_equal(absent_pages(), PAGES - DATA);
	cis_pager_fill(w.pager, CIS_FILL_HOT);
	while (cis_pager_filled(w.pager) < CIS_FILL_HOT) {
		uint64_t before = w.zeroed;

		assert_null(cis_pager_next_job(w.pager));
		assert_int_equal(cis_pager_deadline(w.pager), 0);
		w.in_turn = true;
		cis_pager_run(w.pager);
		assert_in_range(w.zeroed - before, 0, ZEROS + 16 + 1); /* and the fault's, with its neighbours */
	}
	assert_int_equal(absent_pages(), 0);
	close_guest();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_there_is_passed_over_in_turns),
		cmocka_unit_test(the_end_is_found),
		cmocka_unit_test(zeros_come_in_turns),
	};
	int rc;

	assert_int_equal(cis_scratch_create(&w.scratch), 0);
	write_image();
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	cis_image_unref(w.img);
	cis_scratch_destroy(w.scratch);
	return rc;
}
