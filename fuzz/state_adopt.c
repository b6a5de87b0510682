/*
 * State memfds that another engine has left.  Byte 0: bit 0 makes the checksum right at last, bit 1 that of the shadow, bit 2 cuts
 * off a page, bit 3: the guest has shared memory, which can be reclaimed, bit 4: filled in place, bit 5 makes checksums in the stash right;
 * byte 1: layout (1 to 3), bytes 2-3: pages.  The rest is what is written over a fresh one: offset (4), length (1), bytes.
 *
 * What is adopted can be converted to every layout, unless pages are out of the guest, and served: such pages come back or fail.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "base/le.h"
#include "check.h"
#include "codec/codec.h"
#include "pager/pager.h"
#include "pager/stash.h"

#define PAGES 64u
#define HVA   0x7f0000000000ull

static struct cis_image *img;
static struct cis_scratch *scratch;
static uint8_t memory[PAGES * TEST_PAGE] __attribute__((aligned(4096)));

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char path[] = "/tmp/cistern-fuzz-XXXXXX";
	struct cis_write_opts opts = { .codec = CIS_CODEC_RAW, .chunk_shift = 12 };
	struct test_memory m;

	(void)argc;
	(void)argv;
	FUZZ_CHECK(close(mkstemp(path)) == 0);
	test_memory_init(&m, PAGES);
	test_fill_page(m.mem, 2, 1);
	img = test_write_image(path, &m, &opts);
	unlink(path);
	test_memory_fini(&m);
	FUZZ_CHECK(!cis_scratch_create(&scratch));
	return 0;
}

struct guest {
	const struct cis_state *st;
	unsigned next; /* page to look at */
};

static bool is_out(uint64_t word)
{
	return cis_word_state(word) >= CIS_PAGE_STASHED;
}

/* The guest touches each page once that is out of it: for the others their image would be asked. */
static int touch(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	struct guest *g = ctx;

	(void)max;
	while (g->next < PAGES && !is_out(g->st->words[g->next]))
		g->next++;
	if (g->next == PAGES)
		return -EAGAIN;
	*msgs = (struct uffd_msg){ .event = UFFD_EVENT_PAGEFAULT, .arg.pagefault.address = HVA + g->next++ * TEST_PAGE };
	*ret_n = 1;
	return 0;
}

static int no_events(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	(void)ctx;
	(void)msgs;
	(void)max;
	(void)ret_n;
	return -EAGAIN;
}

static int copied(void *ctx, uint64_t dst, const void *src, uint64_t len, uint64_t *ret_done)
{
	(void)ctx;
	FUZZ_CHECK(dst >= HVA && dst + len <= HVA + sizeof(memory));
	memcpy(memory + (dst - HVA), src, len);
	*ret_done = len;
	return 0;
}

static int installed(void *ctx, uint64_t dst, uint64_t len, uint64_t *ret_done)
{
	(void)ctx;
	FUZZ_CHECK(dst >= HVA && dst + len <= HVA + sizeof(memory));
	*ret_done = len;
	return 0;
}

static int woken(void *ctx, uint64_t dst, uint64_t len)
{
	(void)ctx;
	FUZZ_CHECK(dst >= HVA && dst + len <= HVA + sizeof(memory));
	return 0;
}

static int punched(void *ctx, void *addr, uint64_t len)
{
	(void)ctx;
	FUZZ_CHECK((uint8_t *)addr >= memory && (uint8_t *)addr + len <= memory + sizeof(memory));
	memset(addr, 0, len);
	return 0;
}

static int allocated(void *ctx, void *addr, uint64_t len)
{
	(void)ctx;
	(void)addr;
	(void)len;
	return 0;
}

static int protected(void *ctx, uint64_t addr, uint64_t len, bool on)
{
	(void)on;
	return woken(ctx, addr, len);
}

static bool present(void *ctx, void *addr)
{
	(void)ctx;
	FUZZ_CHECK((uint8_t *)addr >= memory && (uint8_t *)addr < memory + sizeof(memory));
	return ((uintptr_t)addr >> 12) & 1;
}

static const struct cis_pager_os os = { .read = touch, .copy = copied, .zero = installed, .cont = installed, .poison = installed,
					.wake = woken, .allocate = allocated, .protect = protected, .punch = punched, .present = present };
static const struct cis_pager_os quiet = { .read = no_events, .wake = woken };

static void failed(void *ctx, uint64_t pgno, enum cis_outcome outcome, const struct cis_error *err)
{
	(void)ctx;
	FUZZ_CHECK(pgno < PAGES && err->text[0] && outcome == CIS_OUTCOME_POISON);
}

static void serve(const struct cis_state *st, uint8_t how)
{
	struct cis_region region = { .hva = HVA, .bytes = PAGES * TEST_PAGE, .kind = how & 8 ? CIS_KIND_SHARED : CIS_KIND_ANONYMOUS,
				     .view = how & 8 ? (char *)memory : NULL, .alias = (how & 24) == 24 ? (char *)memory : NULL };
	struct guest guest = { .st = st };
	struct cis_pager_opts opts = { .size = sizeof(opts), .regions = &region, .nr_regions = 1, .image = img, .state = *st,
				       .os = how & 8 ? &os : &quiet, .os_ctx = &guest, .clock = cis_now_ns, .scratch = scratch, .adopt = true,
				       .generation = 9, .failed = failed };
	struct cis_pager *p;
	struct cis_error err = { 0 };

	if (cis_pager_create(&opts, &p, &err)) {
		FUZZ_CHECK(err.text[0]);
		return;
	}
	FUZZ_CHECK(st->header->generation == 9 && !cis_ring_used(st));
	for (uint64_t i = 0; i < PAGES; i++)
		FUZZ_CHECK(cis_pager_state_of(p, i) != CIS_PAGE_BUSY && cis_pager_state_of(p, i) != CIS_PAGE_INFLIGHT);
	cis_pager_wake_all(p);
	do
		cis_pager_run(p);
	while (how & 8 && guest.next < PAGES);
	for (uint64_t i = 0; how & 8 && i < PAGES; i++)
		FUZZ_CHECK(cis_pager_state_of(p, i) != CIS_PAGE_STASHED);
	FUZZ_CHECK(cis_pager_quiesce(p));
	cis_pager_destroy(p);
}

/* One that ends where nothing may be touched. */
static void *map_state(uint64_t bytes)
{
	uint8_t *map = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	FUZZ_CHECK(map != MAP_FAILED && !mprotect(map + bytes, 4096, PROT_NONE));
	return map;
}

static void unmap_state(void *map, uint64_t bytes)
{
	munmap(map, bytes + 4096);
}

static bool is_all_here(const struct cis_state *st)
{
	for (uint64_t i = 0; i < st->header->nr_pages; i++)
		if (cis_word_flags(st->words[i]) || is_out(st->words[i]))
			return false;
	return true;
}

static void go_over(const struct cis_state *st, unsigned layout, uint8_t how)
{
	uint64_t nr = st->header->nr_pages, bytes = cis_state_bytes(layout, nr);
	void *map = map_state(bytes);
	struct cis_error err = { 0 };
	struct cis_state to;
	int rc = cis_state_convert(st, map, layout, 5, &to, &err);

	FUZZ_CHECK(!rc == is_all_here(st) && (!rc || err.text[0]));
	if (!rc) {
		FUZZ_CHECK(!cis_state_adopt(map, bytes, &to, NULL));
		FUZZ_CHECK(to.header->generation == 5 && to.header->nr_pages == nr && cis_ring_used(&to) == cis_ring_used(st));
		FUZZ_CHECK(!memcmp(to.words, st->words, nr * sizeof(*to.words)));
		cis_state_set_generation(&to, 6);
		FUZZ_CHECK(!cis_state_adopt(map, bytes, &to, NULL));
		if (nr == PAGES)
			serve(&to, how & ~8);
	}
	unmap_state(map, bytes);
}

/* What is not compressed needs no more than this. */
static void mend_stash(const struct cis_state *st)
{
	for (uint64_t i = 0; st->stash && i < st->header->nr_pages; i++) {
		uint64_t off = cis_log_off(cis_word_cookie(st->words[i]));
		struct cis_value *v = (struct cis_value *)(st->stash + off);

		if (is_out(st->words[i]) && off + sizeof(*v) + TEST_PAGE <= st->stash_bytes)
			v->checksum = cis_chunk_checksum(v->id, v + 1, TEST_PAGE);
	}
}

static void write_over(uint8_t *map, uint64_t bytes, const uint8_t *data, size_t len)
{
	while (len > 5) {
		uint64_t at = cis_le32(data) % bytes;
		size_t n = data[4];

		data += 5;
		len -= 5;
		n = n > len ? len : n;
		n = n > bytes - at ? bytes - at : n;
		memcpy(map + at, data, n);
		data += n;
		len -= n;
	}
}

static void checksum(uint8_t *header)
{
	uint64_t crc = cis_crc64(0, header, 56);

	memcpy(header + 56, &crc, 8);
}

static void adopt(uint8_t *map, uint64_t bytes, uint8_t how)
{
	struct cis_error err = { 0 };
	struct cis_state st;

	if (cis_state_adopt(map, bytes, &st, &err)) {
		FUZZ_CHECK(err.text[0]);
		return;
	}
	for (unsigned layout = CIS_STATE_LAYOUT_MIN; layout <= CIS_STATE_LAYOUT_MAX; layout++)
		go_over(&st, layout, how);
	if (how & 32)
		mend_stash(&st);
	if (st.header->nr_pages == PAGES)
		serve(&st, how);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_state st;
	unsigned layout;
	uint64_t nr, bytes;
	uint8_t *map;

	if (len < 4)
		return 0;
	layout = 1 + data[1] % CIS_STATE_LAYOUT_MAX;
	nr = cis_le16(data + 2) % 2048;
	bytes = cis_state_bytes(layout, nr);
	map = map_state(bytes);
	cis_state_init(map, layout, nr, 1, &st);
	write_over(map, bytes, data + 4, len - 4);
	if (data[0] & 1)
		checksum(map);
	if (data[0] & 2)
		checksum(map + 2048);
	adopt(map, bytes - (data[0] & 4 ? 4096 : 0), data[0]);
	unmap_state(map, bytes);
	return 0;
}
