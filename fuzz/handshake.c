/*
 * A handshake: byte 0 says into what pieces the rest is cut.  Cut or whole, the verdict is the same; what is
 * accepted keeps every promise of vmm/handshake.h, and is placed in an image of a few blocks or refused.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm/handshake.h"
#include "check.h"

static int feed(const uint8_t *text, size_t len, size_t piece, struct cis_handshake **ret)
{
	struct cis_handshake *hs;
	struct cis_error err = { 0 };
	bool done = false;
	int r = 0;

	FUZZ_CHECK(!cis_handshake_create(&hs));
	for (size_t at = 0; at < len && !r; at += piece)
		r = cis_handshake_feed(hs, text + at, piece < len - at ? piece : len - at, &done, &err);
	if (r)
		FUZZ_CHECK(cis_handshake_feed(hs, "]", 1, &done, NULL) == r); /* for good */
	else
		r = cis_handshake_end(hs, &err);
	FUZZ_CHECK(r == 0 || r == -EPROTO);
	FUZZ_CHECK(!r == (cis_handshake_layout(hs) != NULL));
	FUZZ_CHECK(!r || err.text[0]);
	*ret = hs;
	return r;
}

static void check_layout(const struct cis_guest_layout *lay)
{
	uint64_t sum = 0;

	FUZZ_CHECK(lay->nr_regions >= 1 && lay->nr_regions <= CIS_HANDSHAKE_REGIONS_MAX);
	for (size_t i = 0; i < lay->nr_regions; i++) {
		const struct cis_guest_region *a = &lay->regions[i];

		FUZZ_CHECK(a->page_bytes == 4096 || a->page_bytes == 2u << 20);
		FUZZ_CHECK(a->bytes && !(a->bytes % a->page_bytes) && !(a->hva % a->page_bytes) &&
			   !(a->offset % a->page_bytes));
		FUZZ_CHECK(a->hva && a->hva + a->bytes > a->hva &&
			   a->offset + a->bytes <= CIS_HANDSHAKE_GUEST_MAX);
		sum += a->bytes;
		for (size_t j = 0; j < i; j++) {
			const struct cis_guest_region *b = &lay->regions[j];

			FUZZ_CHECK(a->hva >= b->hva + b->bytes || b->hva >= a->hva + a->bytes);
			FUZZ_CHECK(a->offset >= b->offset + b->bytes || b->offset >= a->offset + a->bytes);
		}
	}
	FUZZ_CHECK(sum == lay->bytes);
}

static void check_fit(struct cis_guest_layout *lay)
{
	static const struct cis_region_entry blocks[] = {
		{ .offset = 0, .gpa = 0, .bytes = 3u << 20, .name = "pc.ram" },
		{ .offset = 3u << 20, .gpa = 1ull << 32, .bytes = 1u << 20, .name = "high" },
	};
	struct cis_guest_image img = { .path = "a.cis", .guest_bytes = 4u << 20, .page_shift = 12 };

	for (img.nr_blocks = 0; img.nr_blocks <= 2; img.nr_blocks += 2, img.blocks = blocks)
		if (!cis_guest_fit_image(lay, &img, NULL))
			for (size_t i = 0; i < lay->nr_regions; i++)
				FUZZ_CHECK(lay->regions[i].image_offset + lay->regions[i].bytes <=
					   img.guest_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_handshake *cut, *whole;
	int r;

	if (!len)
		return 0;
	r = feed(data + 1, len - 1, data[0] + 1u, &cut);
	FUZZ_CHECK(r == feed(data + 1, len - 1, len, &whole));
	if (!r) {
		check_layout(cis_handshake_layout(cut));
		check_fit(cis_handshake_layout(whole));
	}
	cis_handshake_destroy(cut);
	cis_handshake_destroy(whole);
	return 0;
}
