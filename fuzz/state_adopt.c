/*
 * State memfds that another engine has left.  Byte 0: bit 0 makes the checksum right at last, bit 1 that of the shadow, bit 2 cuts
 * off a page; byte 1: layout (1 or 2), bytes 2-3: pages.  The rest is what is written over a fresh one: offset (4), length (1), bytes.
 *
 * What is adopted can be converted to every layout, and served.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "../tests/unit/pager-image.h"
#include "base/le.h"
#include "check.h"
#include "codec/codec.h"
#include "pager/pager.h"

#define PAGES 64u
#define HVA   0x7f0000000000ull

static struct cis_image *img;
static struct cis_scratch *scratch;

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

static int no_events(void *ctx, struct uffd_msg *msgs, size_t max, size_t *ret_n)
{
	(void)ctx;
	(void)msgs;
	(void)max;
	(void)ret_n;
	return -EAGAIN;
}

static int woken(void *ctx, uint64_t dst, uint64_t len)
{
	(void)ctx;
	FUZZ_CHECK(dst == HVA && len == PAGES * TEST_PAGE);
	return 0;
}

static const struct cis_pager_os os = { .read = no_events, .wake = woken };

static void serve(const struct cis_state *st)
{
	struct cis_region region = { .hva = HVA, .bytes = PAGES * TEST_PAGE };
	struct cis_pager_opts opts = { .size = sizeof(opts), .regions = &region, .nr_regions = 1, .image = img, .state = *st,
				       .os = &os, .clock = cis_now_ns, .scratch = scratch, .adopt = true, .generation = 9 };
	struct cis_pager *p;
	struct cis_error err = { 0 };

	if (cis_pager_create(&opts, &p, &err)) {
		FUZZ_CHECK(err.text[0]);
		return;
	}
	FUZZ_CHECK(st->header->generation == 9 && !cis_ring_used(st));
	for (uint64_t i = 0; i < PAGES; i++)
		FUZZ_CHECK(cis_pager_state_of(p, i) != CIS_PAGE_BUSY);
	cis_pager_wake_all(p);
	cis_pager_run(p);
	FUZZ_CHECK(cis_pager_quiesce(p));
	cis_pager_destroy(p);
}

static void go_over(const struct cis_state *st)
{
	for (unsigned layout = CIS_STATE_LAYOUT_MIN; layout <= CIS_STATE_LAYOUT_MAX; layout++) {
		uint64_t nr = st->header->nr_pages, bytes = cis_state_bytes(layout, nr);
		void *map = aligned_alloc(4096, bytes);
		struct cis_state to;

		memset(map, 0, bytes);
		FUZZ_CHECK(!cis_state_convert(st, map, layout, 5, &to, NULL));
		FUZZ_CHECK(!cis_state_adopt(map, bytes, &to, NULL));
		FUZZ_CHECK(to.header->generation == 5 && to.header->nr_pages == nr && cis_ring_used(&to) == cis_ring_used(st));
		FUZZ_CHECK(!memcmp(to.words, st->words, nr * sizeof(*to.words)));
		cis_state_set_generation(&to, 6);
		FUZZ_CHECK(!cis_state_adopt(map, bytes, &to, NULL));
		if (nr == PAGES)
			serve(&to);
		free(map);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_error err = { 0 };
	struct cis_state st;
	uint64_t nr, bytes;
	uint8_t *map;

	if (len < 4)
		return 0;
	nr = cis_le16(data + 2) % 2048;
	bytes = cis_state_bytes(1 + data[1] % 2, nr);
	map = aligned_alloc(4096, bytes);
	memset(map, 0, bytes);
	cis_state_init(map, 1 + data[1] % 2, nr, 1, &st);
	write_over(map, bytes, data + 4, len - 4);
	if (data[0] & 1)
		checksum(map);
	if (data[0] & 2)
		checksum(map + 2048);
	if (cis_state_adopt(map, bytes - (data[0] & 4 ? 4096 : 0), &st, &err))
		FUZZ_CHECK(err.text[0]);
	else
		go_over(&st);
	free(map);
	return 0;
}
