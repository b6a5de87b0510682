/*
 * A guest that is filled wholly is given back to the kernel, which wakes whoever waits there.  Faults that were read before, and
 * were not answered yet, must not be: their zeros would undo what the guest has written since.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "pager-image.h"
#include "pager/pager.h"

#define PAGES 64u
#define HVA   ((uint64_t)1 << 32)

static struct world {
	uint8_t mem[PAGES * TEST_PAGE];
	uint32_t next, mapped, unregistered;
	uint64_t now_ns;
} w;

/* As many as there is room for, for as long as the guest is not the kernel's; then one that was on its way. */
static int k_read(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	size_t n = 0;

	for (; n < max && w.next < PAGES && (!w.unregistered || !n); n++) {
		msgs[n] = (struct uffd_msg){ .event = UFFD_EVENT_PAGEFAULT };
		msgs[n].arg.pagefault.address = HVA + (uint64_t)w.next++ * TEST_PAGE;
		msgs[n].arg.pagefault.flags = UFFD_PAGEFAULT_FLAG_MINOR;
		if (w.next == PAGES - 1 && !w.unregistered) {
			n++;
			break;
		}
	}
	*ret_n = n;
	return n ? 0 : -EAGAIN;
}

static int k_cont(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	w.mapped += (uint32_t)(len / TEST_PAGE);
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

static const struct cis_pager_os kernel = { .read = k_read, .cont = k_cont, .wake = k_wake, .unregister = k_unregister };

static uint64_t model_clock(void *ctx)
{
	return w.now_ns += 9000;
}

static struct cis_store *store_of(void *ctx, const struct cis_image *img)
{
	fail_msg("zero pages are not read");
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

static struct cis_image *zero_image(void)
{
	char path[] = "/var/tmp/cistern-detached.XXXXXX";
	struct test_memory m;
	struct cis_image *img;

	close(mkstemp(path));
	test_memory_init(&m, PAGES);
	img = test_write_image(path, &m, &(struct cis_write_opts){ .codec = CIS_CODEC_RAW, .chunk_shift = 12 });
	unlink(path);
	test_memory_fini(&m);
	return img;
}

static void late_answers_are_not_given(void **state)
{
	struct cis_region region = { .hva = HVA, .bytes = sizeof(w.mem), .kind = CIS_KIND_SHARED, .alias = (char *)w.mem };
	struct cis_pager_opts opts = {
		.size = sizeof(opts), .regions = &region, .nr_regions = 1, .image = zero_image(), .os = &kernel,
		.clock = model_clock, .store_of = store_of, .tries = 1, .failed = page_failed, .gone = guest_gone,
	};
	void *words = calloc(1, cis_state_bytes(CIS_STATE_LAYOUT_MAX, PAGES));
	struct cis_pager *p;
	struct cis_error err;
	uint32_t mapped;

	assert_int_equal(cis_scratch_create(&opts.scratch), 0);
	cis_state_init(words, CIS_STATE_LAYOUT_MAX, PAGES, 1, &opts.state);
	assert_int_equal(cis_pager_create(&opts, &p, &err), 0);
	cis_pager_fill(p, CIS_FILL_ALL);
	assert_true(cis_pager_run(p)); /* it has read more than it had time for */
	assert_in_range(w.mapped, 1, PAGES - 3);
	assert_int_equal(cis_pager_filled(p), CIS_FILL_ALL);
	assert_int_equal(cis_pager_detach(p), 0);
	assert_int_equal(w.unregistered, 1);
	mapped = w.mapped;
	memset(w.mem, 0xaa, sizeof(w.mem)); /* the guest goes on */
	for (int i = 0; i < 10; i++)
		cis_pager_run(p);
	assert_int_equal(w.next, PAGES);
	assert_int_equal(w.mapped, mapped);
	for (size_t i = 0; i < sizeof(w.mem); i++)
		assert_int_equal(w.mem[i], 0xaa);
	assert_true(cis_pager_quiesce(p));
	cis_pager_destroy(p);
	cis_scratch_destroy(opts.scratch);
	cis_image_unref(opts.image);
	free(words);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(late_answers_are_not_given) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
