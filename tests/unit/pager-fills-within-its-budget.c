/*
 * A guest with a budget is filled as far as that has room, so that neither filling nor reclaim undoes what the other did; what was
 * reclaimed comes back when the budget rises. Filled wholly and given to the kernel, it can be taken back. What comes back soon is spared.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "pager-image.h"
#include "pager/pager.h"

#define PAGES  1024u
#define HOT    256u
#define BUDGET 512u
#define HVA    ((uint64_t)1 << 32)

static struct world {
	uint8_t *mem, *content;
	bool present[PAGES];
	struct cis_image *img;
	struct cis_scratch *scratch, *worker;
	struct cis_store *store;
	struct cis_pager *pager;
	void *state;
	uint64_t now_ns, most; /* pages that were there at once */
	unsigned watched, unregistered;
	int watch_rc;
	uint64_t fault; /* hva of a page that is waited for, or 0 */
} w;

static uint64_t page_of(uint64_t hva)
{
	return (hva - HVA) / TEST_PAGE;
}

static int k_read(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	if (!w.fault)
		return -EAGAIN;
	msgs[0] = (struct uffd_msg){ .event = UFFD_EVENT_PAGEFAULT, .arg.pagefault.address = w.fault };
	w.fault = 0;
	*ret_n = 1;
	return 0;
}

static void install(uint64_t pgno, const void *src)
{
	uint64_t here = 0;

	assert_false(w.present[pgno]);
	w.present[pgno] = true;
	memcpy(w.mem + pgno * TEST_PAGE, src, TEST_PAGE);
	for (uint64_t p = 0; p < PAGES; p++)
		here += w.present[p];
	if (here > w.most)
		w.most = here;
}

static int k_copy(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	for (uint64_t at = 0; at < len; at += TEST_PAGE)
		install(page_of(dst + at), (const char *)src + at);
	*ret_done = len;
	return 0;
}

static int k_wake(void *ctx, uint64_t dst, uint64_t len)
{
	return 0;
}

static int k_unregister(void *ctx, uint64_t addr, uint64_t len)
{
	w.unregistered++;
	return 0;
}

static int k_watch(void *ctx, uint64_t addr, uint64_t len, bool minor)
{
	assert_false(minor);
	w.watched++;
	return addr == HVA ? 0 : w.watch_rc;
}

static int k_protect(void *ctx, uint64_t addr, uint64_t len, bool on)
{
	assert_true(w.watched);
	return 0;
}

static int k_punch(void *ctx, void *addr, uint64_t len)
{
	uint64_t first = (uint64_t)((uint8_t *)addr - w.mem) / TEST_PAGE;

	memset(addr, 0, len);
	memset(&w.present[first], 0, len / TEST_PAGE);
	return 0;
}

static const struct cis_pager_os kernel = { .read = k_read, .copy = k_copy, .wake = k_wake, .unregister = k_unregister,
					    .watch = k_watch, .protect = k_protect, .punch = k_punch };

static uint64_t model_clock(void *ctx)
{
	return w.now_ns += 1000;
}

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	return w.store;
}

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	fail_msg("%s", err->text);
}

static void guest_gone(void *ctx)
{
	fail_msg("gone");
}

static void write_image(void)
{
	char path[] = "/var/tmp/cistern-budget.XXXXXX";
	uint32_t hot[HOT];
	struct test_memory m;

	close(mkstemp(path));
	test_memory_init(&m, PAGES);
	for (uint32_t p = 0; p < PAGES; p++)
		test_fill_page(m.mem + p * TEST_PAGE, p == 7 ? 0 : 2, p + 1);
	for (uint32_t i = 0; i < HOT; i++)
		hot[i] = i * 3;
	w.img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW, .chunk_shift = 12, .hot = hot, .nr_hot = HOT });
	unlink(path);
	w.content = m.mem;
	free(m.hole);
}

static void open_guest(void)
{
	struct cis_region regions[2];
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = regions, .nr_regions = 2, .image = w.img, .os = &kernel, .clock = model_clock,
		.scratch = w.scratch, .store_of = store_of, .tries = 1, .failed = page_failed, .gone = guest_gone,
	};
	struct cis_error err;

	for (unsigned i = 0; i < 2; i++)
		regions[i] = (struct cis_region){ .hva = HVA + i * (PAGES / 2) * TEST_PAGE, .bytes = (uint64_t)PAGES / 2 * TEST_PAGE,
						  .offset = (uint64_t)i * (PAGES / 2) * TEST_PAGE, .kind = CIS_KIND_SHARED,
						  .view = (char *)w.mem + (uint64_t)i * (PAGES / 2) * TEST_PAGE };
	memset(w.present, 0, sizeof(w.present));
	memset(w.mem, 0, (size_t)PAGES * TEST_PAGE);
	w.most = w.watched = w.unregistered = 0;
	w.watch_rc = 0;
	w.state = calloc(1, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	cis_state_init(w.state, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.state);
	assert_int_equal(cis_pager_create(&opts, &w.pager, &err), 0);
}

static void close_guest(void)
{
	assert_true(cis_pager_quiesce(w.pager));
	cis_pager_destroy(w.pager);
	free(w.state);
}

static void budget(uint64_t pages)
{
	struct cis_error err;

	assert_int_equal(cis_pager_reclaim(w.pager, &(struct cis_reclaim_opts){ .budget_pages = pages, .stash_bytes = UINT64_MAX,
										  .codec = CIS_CODEC_LZ4 }, &err), 0);
}

/* As shard and worker do, one job after the other, until there is nothing to do: which must be soon. */
static void run(void)
{
	for (unsigned turn = 0;; turn++) {
		struct cis_fill_job *fill;
		struct cis_evict_job *evict;

		assert_in_range(turn, 0, 1000);
		cis_pager_run(w.pager);
		fill = cis_pager_next_job(w.pager);
		if (fill) {
			while (cis_fill_job_step(fill, w.worker, w.store))
				;
			cis_pager_job_done(w.pager, fill);
		}
		evict = cis_pager_next_evict(w.pager);
		if (evict) {
			while (cis_evict_job_step(evict, w.worker))
				;
			cis_pager_evict_done(w.pager, evict);
		}
		if (!fill && !evict && cis_pager_deadline(w.pager) == UINT64_MAX)
			return;
	}
}

/* What is not there is zeros for whoever looks at the memfd. */
static void all_is_right(uint64_t resident)
{
	uint64_t here = 0;

	for (uint64_t p = 0; p < PAGES; p++) {
		here += w.present[p];
		if (w.present[p])
			assert_memory_equal(w.mem + p * TEST_PAGE, w.content + p * TEST_PAGE, TEST_PAGE);
	}
	assert_int_equal(here, resident);
	assert_int_equal(cis_pager_resident(w.pager), resident);
}

static void a_fill_stops_where_reclaim_would_begin(void **state)
{
	const struct cis_pager_stats *s;

	open_guest();
	s = cis_pager_stats(w.pager);
	budget(BUDGET);
	cis_pager_fill(w.pager, CIS_FILL_ALL);
	run();
	assert_int_equal(cis_pager_filled(w.pager), CIS_FILL_HOT);
	assert_int_equal(s->evictions, 0);
	assert_in_range(cis_pager_resident(w.pager), BUDGET - 32, BUDGET);
	budget(UINT64_MAX);
	run();
	assert_int_equal(cis_pager_filled(w.pager), CIS_FILL_ALL);
	assert_int_equal(s->evictions, 0);
	all_is_right(PAGES - 1);
	close_guest();
}

/* Who waits for the working set must not wait for ever. */
static void what_fits_of_the_hot_section_is_all_of_it(void **state)
{
	open_guest();
	budget(HOT / 2);
	cis_pager_fill(w.pager, CIS_FILL_HOT);
	run();
	assert_int_equal(cis_pager_filled(w.pager), CIS_FILL_HOT);
	assert_in_range(w.most, HOT / 2 - 32, HOT / 2);
	close_guest();
}

static void what_was_reclaimed_comes_back(void **state)
{
	const struct cis_pager_stats *s;

	open_guest();
	s = cis_pager_stats(w.pager);
	cis_pager_fill(w.pager, CIS_FILL_ALL);
	run();
	assert_int_equal(cis_pager_filled(w.pager), CIS_FILL_ALL);
	all_is_right(PAGES - 1);
	budget(BUDGET / 2);
	assert_int_equal(cis_pager_filled(w.pager), CIS_FILL_HOT);
	assert_int_equal(cis_pager_detach(w.pager), -EBUSY);
	run();
	assert_in_range(cis_pager_resident(w.pager), BUDGET / 2 - 32, BUDGET / 2);
	assert_int_equal(s->evictions + cis_pager_resident(w.pager), PAGES - 1);
	assert_true(cis_pager_stash_bytes(w.pager) > 0);
	budget(BUDGET);
	run();
	assert_in_range(cis_pager_resident(w.pager), BUDGET - 32, BUDGET);
	all_is_right(cis_pager_resident(w.pager));
	assert_in_range(s->evictions, PAGES - 1 - BUDGET / 2, PAGES - 1 - BUDGET / 2 + 64); /* nothing went to make room for it */
	budget(UINT64_MAX);
	run();
	all_is_right(PAGES - 1);
	assert_int_equal(cis_pager_filled(w.pager), CIS_FILL_ALL);
	assert_int_equal(cis_pager_remote(w.pager), 0);
	assert_int_equal(cis_pager_detach(w.pager), 0);
	close_guest();
}

/* Whatever it has done to its memory meanwhile: written to a page that it had given back, and given back one without a word. */
static void who_was_given_to_the_kernel_is_taken_back(void **state)
{
	uint32_t *word = NULL;

	open_guest();
	cis_pager_fill(w.pager, CIS_FILL_ALL);
	run();
	assert_int_equal(cis_pager_detach(w.pager), 0);
	assert_int_equal(w.unregistered, 2);
	word = (uint32_t *)(w.mem + 7 * TEST_PAGE);
	*word = 0x7777;
	w.present[7] = true;
	w.present[8] = false;
	memset(w.mem + 8 * TEST_PAGE, 0, TEST_PAGE);
	budget(BUDGET);
	assert_int_equal(w.watched, 2);
	assert_null(cis_pager_next_evict(w.pager)); /* who is giving pages back and has told nobody is let do it */
	w.now_ns += 1000000000;
	run();
	assert_in_range(cis_pager_resident(w.pager), BUDGET - 32, BUDGET);
	budget(UINT64_MAX);
	run();
	assert_int_equal(cis_pager_filled(w.pager), CIS_FILL_ALL);
	assert_int_equal(*word, 0x7777);
	for (unsigned i = 0; i < TEST_PAGE; i++)
		assert_int_equal(w.mem[8 * TEST_PAGE + i], 0);
	for (uint64_t p = 9; p < PAGES; p++)
		assert_memory_equal(w.mem + p * TEST_PAGE, w.content + p * TEST_PAGE, TEST_PAGE);
	assert_int_equal(cis_pager_detach(w.pager), 0);
	assert_int_equal(w.unregistered, 4);
	budget(BUDGET);
	w.now_ns += 1000000000;
	run();
	assert_int_equal(w.watched, 4);
	assert_in_range(cis_pager_resident(w.pager), BUDGET - 32, BUDGET);
	close_guest();
}

/* In whatever order they come back: holes that they leave in the stash are made one. */
static void pages_that_do_not_compress_have_room(void **state)
{
	uint64_t rnd = 1;

	open_guest();
	assert_int_equal(cis_pager_reclaim(w.pager, &(struct cis_reclaim_opts){ .budget_pages = 64, .stash_bytes = UINT64_MAX,
										  .codec = CIS_CODEC_RAW, .sync = true }, NULL), 0);
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t pgno = test_random(&rnd) % PAGES;

		if (w.present[pgno] || pgno == 7)
			continue;
		w.fault = HVA + pgno * TEST_PAGE;
		cis_pager_run(w.pager);
		while (!w.present[pgno]) { /* what was just written may have to be read after all */
			cis_store_wait(w.store, cis_now_ns(NULL) + 60000000000u);
			cis_pager_run(w.pager);
		}
		assert_memory_equal(w.mem + pgno * TEST_PAGE, w.content + pgno * TEST_PAGE, TEST_PAGE);
	}
	assert_int_equal(cis_pager_stats(w.pager)->stash_full, 0);
	assert_int_equal(w.most, 64);
	assert_int_equal(cis_pager_resident(w.pager) + cis_pager_remote(w.pager), PAGES - 1);
	close_guest();
}

#define ROOM	256u
#define TOUCHES 60000u

/* struct list - the same guest under a list that spares nobody, to compare with */
struct list {
	bool in[PAGES];
	uint32_t page[ROOM];
	uint64_t n;
};

static bool list_misses(struct list *l, uint32_t pgno)
{
	uint32_t *slot = &l->page[l->n % ROOM];

	if (l->in[pgno])
		return false;
	if (l->n >= ROOM)
		l->in[*slot] = false;
	*slot = pgno;
	l->in[pgno] = true;
	l->n++;
	return true;
}

/* Of @hot pages one is touched at random, but for one touch in @scans: that takes the next one of all others. */
static uint32_t next_touch(uint64_t *rnd, unsigned hot, unsigned scans, unsigned *scan)
{
	if (!scans || test_random(rnd) % scans)
		return (uint32_t)(test_random(rnd) % hot);
	return hot + (*scan)++ % (PAGES - hot);
}

/* Return: faults a hundred faults of the list. */
static unsigned compare(unsigned hot, unsigned scans)
{
	struct list *list = calloc(1, sizeof(*list));
	uint64_t rnd = 3, ours = 0, theirs = 0;
	unsigned scan = 0;

	open_guest();
	budget(ROOM);
	for (unsigned i = 0; i < TOUCHES; i++) {
		uint32_t pgno = next_touch(&rnd, hot, scans, &scan);

		theirs += list_misses(list, pgno);
		if (w.present[pgno] || pgno == 7)
			continue;
		ours++;
		w.fault = HVA + pgno * (uint64_t)TEST_PAGE;
		run();
		assert_true(w.present[pgno]);
	}
	assert_in_range(w.most, 1, ROOM);
	print_message("%u hot pages, a scan by one touch in %u: %llu faults, %llu in order, %llu spared\n", hot, scans, (unsigned long long)ours,
		      (unsigned long long)theirs, (unsigned long long)cis_pager_stats(w.pager)->spared);
	close_guest();
	free(list);
	return (unsigned)(ours * 100 / theirs);
}

/* Where nothing is hot nothing is won, and hardly anything lost: the list has all pages of the budget, ours some less, which are kept free. */
static void what_comes_back_soon_outlives_a_scan(void **state)
{
	assert_in_range(compare(ROOM * 7 / 10, 10), 0, 75);
	assert_in_range(compare(ROOM * 7 / 10, 4), 0, 75);
	assert_in_range(compare(ROOM * 3, 0), 95, 110);
}

static void a_kernel_that_cannot_leaves_it_as_it_was(void **state)
{
	struct cis_reclaim_opts opts = { .budget_pages = BUDGET, .stash_bytes = UINT64_MAX };
	struct cis_error err;

	open_guest();
	cis_pager_fill(w.pager, CIS_FILL_ALL);
	run();
	assert_int_equal(cis_pager_detach(w.pager), 0);
	w.watch_rc = -EINVAL;
	assert_int_equal(cis_pager_reclaim(w.pager, &opts, &err), -EOPNOTSUPP);
	assert_non_null(strstr(err.text, "region at offset 2097152 cannot be protected"));
	assert_int_equal(w.unregistered, 3); /* the first region is the kernel's again */
	assert_int_equal(cis_pager_filled(w.pager), CIS_FILL_ALL);
	run();
	assert_int_equal(cis_pager_stats(w.pager)->evictions, 0);
	close_guest();
}

static int set_up(void **state)
{
	w.mem = calloc(PAGES, TEST_PAGE);
	write_image();
	assert_int_equal(cis_scratch_create(&w.scratch) | cis_scratch_create(&w.worker), 0);
	return cis_store_file_open(cis_image_fd(w.img), &w.store, NULL);
}

static int tear_down(void **state)
{
	cis_store_close(w.store);
	cis_scratch_destroy(w.scratch);
	cis_scratch_destroy(w.worker);
	cis_image_unref(w.img);
	free(w.mem);
	free(w.content);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fill_stops_where_reclaim_would_begin),
		cmocka_unit_test(what_fits_of_the_hot_section_is_all_of_it),
		cmocka_unit_test(what_was_reclaimed_comes_back),
		cmocka_unit_test(who_was_given_to_the_kernel_is_taken_back),
		cmocka_unit_test(pages_that_do_not_compress_have_room),
		cmocka_unit_test(what_comes_back_soon_outlives_a_scan),
		cmocka_unit_test(a_kernel_that_cannot_leaves_it_as_it_was),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
