#include "pager/state.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "base/point.h"
#include "codec/codec.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static const char magic[8] = { 'C', 'I', 'S', 'S', 'T', 'A', 'T', 'E' };

#define SHADOW_OFF 2048u /* in the header's page: the header that is about to be */
#define RING_OFF   4096u
#define WORDS_OFF  (RING_OFF + CIS_RING_SLOTS * sizeof(struct uffd_msg))

static const char *const names[CIS_PAGE_STATES] = { "absent", "busy", "resident", "clean", "removed", "poisoned" };

const char *cis_page_state_name(enum cis_page_state state)
{
	return state < CIS_PAGE_STATES ? names[state] : "unknown";
}

uint64_t cis_state_bytes(unsigned layout, uint64_t nr_pages)
{
	assert(layout >= CIS_STATE_LAYOUT_MIN && layout <= CIS_STATE_LAYOUT_MAX);
	return (WORDS_OFF + nr_pages * sizeof(uint64_t) + 4095) & ~4095ull;
}

static uint64_t header_checksum(const struct cis_state_header *h)
{
	return cis_crc64(0, h, offsetof(struct cis_state_header, checksum));
}

static void attach(void *map, const struct cis_state_header *h, struct cis_state *ret)
{
	ret->header = map;
	ret->ring = (struct uffd_msg *)((char *)map + h->ring_off);
	ret->words = (uint64_t *)((char *)map + h->words_off);
	ret->bytes = h->bytes;
}

void cis_state_init(void *map, unsigned layout, uint64_t nr_pages, uint64_t generation, struct cis_state *ret)
{
	struct cis_state_header *to = map, h = {
		.layout = layout,
		.ring_slots = CIS_RING_SLOTS,
		.generation = generation,
		.nr_pages = nr_pages,
		.ring_off = RING_OFF,
		.words_off = WORDS_OFF,
		.bytes = cis_state_bytes(layout, nr_pages),
	};

	memcpy(h.magic, magic, sizeof(magic));
	h.checksum = header_checksum(&h);
	memcpy(&to->layout, &h.layout, offsetof(struct cis_state_header, ring_head) - offsetof(struct cis_state_header, layout));
	atomic_signal_fence(memory_order_seq_cst);
	memcpy(to->magic, magic, sizeof(magic)); /* last: without it nobody takes the rest for a header */
	attach(map, to, ret);
}

int cis_state_lock(const struct cis_state *st)
{
	madvise(st->header, st->header->words_off, MADV_POPULATE_WRITE);
	return mlock(st->header, st->header->words_off) ? -errno : 0;
}

/*
 * Generation and checksum cannot change in one store, so the new header is first written as a whole behind the old one.
 * Whoever finds the old one broken takes that.
 */
static struct cis_state_header *shadow_of(void *map)
{
	return (struct cis_state_header *)((char *)map + SHADOW_OFF);
}

void cis_state_set_generation(struct cis_state *st, uint64_t generation)
{
	struct cis_state_header *h = st->header, *shadow = shadow_of(h);

	memcpy(shadow, h, offsetof(struct cis_state_header, ring_head));
	shadow->generation = generation;
	shadow->checksum = header_checksum(shadow);
	atomic_signal_fence(memory_order_seq_cst);
	CIS_POINT(header_shadow);
	h->generation = generation;
	atomic_signal_fence(memory_order_seq_cst);
	CIS_POINT(header_generation);
	h->checksum = shadow->checksum;
}

static bool is_header(const struct cis_state_header *h)
{
	return !memcmp(h->magic, magic, sizeof(magic)) && h->checksum == header_checksum(h);
}

/* Copied once, so that what is checked is what is used; the ring's indices are those of the header itself. */
static int header_find(void *map, struct cis_state_header *ret, struct cis_error *err)
{
	static const char none[sizeof(magic)];
	struct cis_state_header h, shadow;

	memcpy(&h, map, sizeof(h));
	if (!memcmp(h.magic, none, sizeof(none)))
		return cis_fail(err, ENODATA, "state memfd: no engine has begun to use it");
	if (memcmp(h.magic, magic, sizeof(magic)))
		return cis_fail(err, EBADMSG, "state memfd: not one of ours (magic)");
	if (!is_header(&h)) {
		memcpy(&shadow, shadow_of(map), sizeof(shadow));
		if (!is_header(&shadow))
			return cis_fail(err, EBADMSG, "state memfd: header checksum does not match");
		memcpy(&h, &shadow, offsetof(struct cis_state_header, ring_head));
	}
	*ret = h;
	return 0;
}

static int header_check(const struct cis_state_header *h, uint64_t bytes, struct cis_error *err)
{
	if (h->layout < CIS_STATE_LAYOUT_MIN || h->layout > CIS_STATE_LAYOUT_MAX)
		return cis_fail(err, EPROTONOSUPPORT, "state memfd: layout %u, this engine knows %u to %u", h->layout,
				CIS_STATE_LAYOUT_MIN, CIS_STATE_LAYOUT_MAX);
	if (h->ring_slots != CIS_RING_SLOTS || h->ring_off != RING_OFF || h->words_off != WORDS_OFF ||
	    h->nr_pages > bytes / 8 || h->bytes != cis_state_bytes(h->layout, h->nr_pages) || h->bytes != bytes)
		return cis_fail(err, EBADMSG, "state memfd: sizes do not fit %llu bytes", (unsigned long long)bytes);
	if (h->ring_head < h->ring_tail || h->ring_head - h->ring_tail > CIS_RING_SLOTS)
		return cis_fail(err, EBADMSG, "state memfd: ring indices %llu..%llu", (unsigned long long)h->ring_tail,
				(unsigned long long)h->ring_head);
	return 0;
}

int cis_state_adopt(void *map, uint64_t bytes, struct cis_state *ret, struct cis_error *err)
{
	struct cis_state_header h;
	struct cis_state st;
	int rc;

	if (bytes < RING_OFF)
		return cis_fail(err, EBADMSG, "state memfd: only %llu bytes", (unsigned long long)bytes);
	rc = header_find(map, &h, err);
	if (!rc)
		rc = header_check(&h, bytes, err);
	if (rc)
		return rc;
	attach(map, &h, &st);
	for (uint64_t p = 0; p < h.nr_pages; p++)
		if (cis_word_state(st.words[p]) >= CIS_PAGE_STATES)
			return cis_fail(err, EBADMSG, "state memfd: page %llu has state %u", (unsigned long long)p,
					(unsigned)cis_word_state(st.words[p]));
	memcpy(st.header, &h, offsetof(struct cis_state_header, ring_head)); /* as it was, or out of its shadow */
	*ret = st;
	return 0;
}

struct uffd_msg *cis_ring_room(struct cis_state *st, size_t *ret_max)
{
	uint64_t head = st->header->ring_head, slot = head % CIS_RING_SLOTS;
	uint64_t room = CIS_RING_SLOTS - cis_ring_used(st), piece = CIS_RING_SLOTS - slot;

	*ret_max = (size_t)(room < piece ? room : piece);
	return &st->ring[slot];
}

void cis_ring_commit(struct cis_state *st, size_t n)
{
	assert(cis_ring_used(st) + n <= CIS_RING_SLOTS);
	atomic_signal_fence(memory_order_seq_cst);
	st->header->ring_head += n;
}

void cis_ring_drop(struct cis_state *st, size_t n)
{
	assert(n <= cis_ring_used(st));
	for (size_t i = 0; i < n; i++) {
		memset(cis_ring_at(st, i), 0, sizeof(struct uffd_msg));
		CIS_POINT(ring_dropping);
	}
	CIS_POINT(ring_zeroed);
	atomic_signal_fence(memory_order_seq_cst);
	st->header->ring_tail += n;
	CIS_POINT(ring_dropped);
}

void cis_ring_clear(struct cis_state *st)
{
	for (size_t i = 0; i < CIS_RING_SLOTS; i++) {
		if (!st->ring[i].event)
			continue;
		memset(&st->ring[i], 0, sizeof(st->ring[i]));
		CIS_POINT(adopt_slot);
	}
	atomic_signal_fence(memory_order_seq_cst);
	st->header->ring_tail = st->header->ring_head;
	CIS_POINT(adopt_ring);
}
