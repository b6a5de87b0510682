#include "pager/state.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "codec/codec.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static const char magic[8] = { 'C', 'I', 'S', 'S', 'T', 'A', 'T', 'E' };

#define RING_OFF  4096u
#define WORDS_OFF (RING_OFF + CIS_RING_SLOTS * sizeof(struct uffd_msg))

static const char *const names[CIS_PAGE_STATES] = { "absent", "busy", "resident", "clean", "removed", "poisoned" };

const char *cis_page_state_name(enum cis_page_state state)
{
	return state < CIS_PAGE_STATES ? names[state] : "unknown";
}

uint64_t cis_state_bytes(uint64_t nr_pages)
{
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

void cis_state_init(void *map, uint64_t nr_pages, uint64_t generation, struct cis_state *ret)
{
	struct cis_state_header *h = map;

	memcpy(h->magic, magic, sizeof(magic));
	h->layout = CIS_STATE_LAYOUT;
	h->ring_slots = CIS_RING_SLOTS;
	h->generation = generation;
	h->nr_pages = nr_pages;
	h->ring_off = RING_OFF;
	h->words_off = WORDS_OFF;
	h->bytes = cis_state_bytes(nr_pages);
	h->checksum = header_checksum(h);
	attach(map, h, ret);
}

int cis_state_lock(const struct cis_state *st)
{
	madvise(st->header, st->header->words_off, MADV_POPULATE_WRITE);
	return mlock(st->header, st->header->words_off) ? -errno : 0;
}

/* Copied once, so that what is checked is what is used. */
static int header_check(const struct cis_state_header *h, uint64_t bytes, struct cis_error *err)
{
	if (memcmp(h->magic, magic, sizeof(magic)))
		return cis_fail(err, EBADMSG, "state memfd: not one of ours (magic)");
	if (h->checksum != header_checksum(h))
		return cis_fail(err, EBADMSG, "state memfd: header checksum does not match");
	if (h->layout != CIS_STATE_LAYOUT)
		return cis_fail(err, EPROTONOSUPPORT, "state memfd: layout %u, this engine knows %u", h->layout,
				CIS_STATE_LAYOUT);
	if (h->ring_slots != CIS_RING_SLOTS || h->ring_off != RING_OFF || h->words_off != WORDS_OFF ||
	    h->nr_pages > bytes / 8 || h->bytes != cis_state_bytes(h->nr_pages) || h->bytes != bytes)
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

	if (bytes < sizeof(h))
		return cis_fail(err, EBADMSG, "state memfd: only %llu bytes", (unsigned long long)bytes);
	memcpy(&h, map, sizeof(h));
	rc = header_check(&h, bytes, err);
	if (rc)
		return rc;
	attach(map, &h, &st);
	for (uint64_t p = 0; p < h.nr_pages; p++)
		if (cis_word_state(st.words[p]) >= CIS_PAGE_STATES)
			return cis_fail(err, EBADMSG, "state memfd: page %llu has state %u", (unsigned long long)p,
					(unsigned)cis_word_state(st.words[p]));
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
	for (size_t i = 0; i < n; i++)
		memset(cis_ring_at(st, i), 0, sizeof(struct uffd_msg));
	atomic_signal_fence(memory_order_seq_cst);
	st->header->ring_tail += n;
}
