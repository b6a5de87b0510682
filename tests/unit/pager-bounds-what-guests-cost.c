/*
 * Whatever guests do, their reads take a bounded share of the shard's buffers, a guest that comes when all are taken gets the next
 * ones, and whoever had to wait is served in the end.
 *
 * Guests here are lists of pages that are touched all at once; the store answers when it is told to.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "pager-image.h"
#include "pager/pager.h"

#define GUESTS 40u
#define PAGES  256u
#define HELD   4096u

struct guest {
	struct cis_pager *pager;
	void *state;
	uint32_t touched, nr; /* faults read so far, and all */
	bool there[PAGES];
	uint64_t nr_there;
};

static struct world {
	struct cis_image *img;
	struct cis_scratch *scratch;
	struct cis_store store;
	struct cis_store_req *held[HELD];
	size_t nr_held;
	uint64_t now_ns;
	struct guest guest[GUESTS];
} w;

static uint64_t hva_of(const struct guest *g)
{
	return (uint64_t)(g - w.guest + 1) << 32;
}

static int k_read(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	struct guest *g = ctx;
	size_t n = 0;

	for (; n < max && g->touched < g->nr; n++) {
		msgs[n] = (struct uffd_msg){ .event = UFFD_EVENT_PAGEFAULT };
		msgs[n].arg.pagefault.address = hva_of(g) + (uint64_t)g->touched++ * TEST_PAGE;
	}
	*ret_n = n;
	return n ? 0 : -EAGAIN;
}

static int k_copy(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	struct guest *g = ctx;

	for (uint64_t at = 0; at < len; at += TEST_PAGE) {
		uint64_t pgno = (dst + at - hva_of(g)) / TEST_PAGE;

		assert_false(g->there[pgno]);
		g->there[pgno] = true;
		g->nr_there++;
	}
	*ret_done = len;
	return 0;
}

static int k_wake(void *ctx, uint64_t dst, uint64_t len)
{
	return 0;
}

static const struct cis_pager_os kernel = { .read = k_read, .copy = k_copy, .wake = k_wake };

static void s_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert_true(w.nr_held < HELD);
		w.held[w.nr_held++] = reqs[i];
	}
}

static void s_cancel(struct cis_store *store, struct cis_store_req *req)
{
	for (size_t i = 0; i < w.nr_held; i++)
		if (w.held[i] == req) {
			w.held[i] = w.held[--w.nr_held];
			req->done(req, -ECANCELED);
			return;
		}
}

static const struct cis_store_ops store_ops = { .ops_size = sizeof(store_ops), .submit = s_submit, .cancel = s_cancel };

static void answer_one(void)
{
	struct cis_store_req *req = w.held[0];

	memmove(&w.held[0], &w.held[1], --w.nr_held * sizeof(w.held[0]));
	assert_int_equal(pread(cis_image_fd(w.img), req->buf, req->len, (off_t)req->off), req->len);
	req->done(req, 0);
}

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	return &w.store;
}

static uint64_t model_clock(void *ctx)
{
	return w.now_ns;
}

static void page_failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	fail_msg("%s", err->text);
}

static void guest_gone(void *ctx)
{
	fail_msg("gone");
}

static void open_guest(struct guest *g, uint32_t nr)
{
	struct cis_region region = { .hva = hva_of(g), .bytes = PAGES * TEST_PAGE };
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = &region, .nr_regions = 1, .image = w.img, .os = &kernel, .os_ctx = g,
		.clock = model_clock, .scratch = w.scratch, .store_of = store_of, .tries = 1, .failed = page_failed,
		.gone = guest_gone, .ctx = g,
	};
	struct cis_error err;

	*g = (struct guest){ .nr = nr };
	g->state = calloc(1, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	cis_state_init(g->state, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.state);
	assert_int_equal(cis_pager_create(&opts, &g->pager, &err), 0);
}

static void close_guest(struct guest *g)
{
	assert_true(cis_pager_quiesce(g->pager));
	cis_pager_destroy(g->pager);
	free(g->state);
}

static void run_all(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		while (cis_pager_run(w.guest[i].pager))
			;
}

static void open_world(unsigned guests)
{
	struct test_memory m;
	char path[] = "/var/tmp/cistern-bounds.XXXXXX";

	close(mkstemp(path));
	test_memory_init(&m, PAGES);
	for (uint64_t p = 0; p < PAGES; p++)
		test_fill_page(m.mem + p * TEST_PAGE, 2, p + 1);
	w = (struct world){ .store.ops = &store_ops, .now_ns = 1000000 };
	w.img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW, .chunk_shift = 12 });
	unlink(path);
	test_memory_fini(&m);
	assert_int_equal(cis_scratch_create(&w.scratch), 0);
	for (unsigned i = 0; i < guests; i++)
		open_guest(&w.guest[i], PAGES);
}

static void close_world(unsigned guests)
{
	for (unsigned i = 0; i < guests; i++)
		close_guest(&w.guest[i]);
	cis_scratch_destroy(w.scratch);
	cis_image_unref(w.img);
}

/* Until every page that is touched is there; time passes only when nobody has anything else to do. */
static void settle(unsigned guests)
{
	for (unsigned left = 1; left;) {
		if (w.nr_held)
			answer_one();
		else
			w.now_ns += 1000000;
		run_all(guests);
		left = 0;
		for (unsigned i = 0; i < guests; i++)
			left += w.guest[i].nr_there < w.guest[i].nr;
	}
	assert_int_equal(w.nr_held, 0);
}

static void one_guest_has_64_reads_at_most(void **state)
{
	open_world(1);
	run_all(1);
	assert_int_equal(w.nr_held, 64);
	for (unsigned i = 0; i < 100; i++) {
		answer_one();
		run_all(1);
		assert_int_equal(w.nr_held, 64);
	}
	settle(1);
	close_world(1);
}

static void all_guests_share_the_shards_buffers(void **state)
{
	struct guest *late = &w.guest[GUESTS - 1];

	open_world(GUESTS - 1);
	run_all(GUESTS - 1);
	assert_int_equal(w.nr_held, 512);
	open_guest(late, PAGES);
	for (unsigned i = 0; i < 2 * 512 && !late->nr_there; i++) { /* who has many gets no more while it has none */
		w.now_ns += 1000000;
		run_all(GUESTS);
		assert_true(w.nr_held <= 512);
		answer_one();
	}
	assert_true(late->nr_there > 0);
	settle(GUESTS);
	close_world(GUESTS);
}

static void who_leaves_gives_them_back(void **state)
{
	open_world(GUESTS);
	run_all(GUESTS);
	for (unsigned i = 1; i < GUESTS; i++)
		close_guest(&w.guest[i]);
	run_all(1);
	settle(1);
	close_world(1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_guest_has_64_reads_at_most),
		cmocka_unit_test(all_guests_share_the_shards_buffers),
		cmocka_unit_test(who_leaves_gives_them_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
