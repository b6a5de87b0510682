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

#define PAGE	   4096u
#define SHADOW_OFF 2048u /* in the header's page: the header that is about to be */
#define RING_OFF   PAGE
#define RING_BYTES (CIS_RING_SLOTS * sizeof(struct uffd_msg))
#define STATS_OFF  (RING_OFF + RING_BYTES) /* layout 2 */

static const char *const names[CIS_PAGE_STATES] = { "absent", "busy", "resident", "clean", "removed", "poisoned",
					       "stashed", "inflight", "far" };

const char *cis_page_state_name(enum cis_page_state state)
{
	return state < CIS_PAGE_STATES ? names[state] : "unknown";
}

static uint64_t words_off(unsigned layout)
{
	return layout == 1 ? RING_OFF + RING_BYTES : STATS_OFF + CIS_STATS_ROOM;
}

/* The next free page behind the words: layout 2 has the trace there. */
static uint64_t words_end(unsigned layout, uint64_t nr_pages)
{
	return (words_off(layout) + nr_pages * sizeof(uint64_t) + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

/* The next free page behind the trace. */
static uint64_t trace_end(unsigned layout, uint64_t nr_pages)
{
	uint64_t trace = layout == 1 ? 0 : (nr_pages * sizeof(uint32_t) + PAGE - 1) & ~(uint64_t)(PAGE - 1);

	return words_end(layout, nr_pages) + trace;
}

/*
 * Room for half as much again as all pages of 4 KiB can take, should none shrink: when it is short, enough of a segment is holes for its being
 * worth emptying.
 */
static uint64_t stash_bytes(unsigned layout, uint64_t nr_pages)
{
	uint64_t bytes = nr_pages * (PAGE + PAGE / 2) + 4 * (uint64_t)CIS_STASH_SEGMENT;

	if (bytes > CIS_STASH_MAX)
		bytes = CIS_STASH_MAX;
	return layout < 3 ? 0 : bytes & ~(uint64_t)(CIS_STASH_SEGMENT - 1);
}

static uint64_t stash_off(unsigned layout, uint64_t nr_pages)
{
	return layout < 3 ? trace_end(layout, nr_pages)
			  : (trace_end(layout, nr_pages) + CIS_STASH_SEGMENT - 1) & ~(uint64_t)(CIS_STASH_SEGMENT - 1);
}

uint64_t cis_state_bytes(unsigned layout, uint64_t nr_pages)
{
	assert(layout >= CIS_STATE_LAYOUT_MIN && layout <= CIS_STATE_LAYOUT_MAX);
	return stash_off(layout, nr_pages) + stash_bytes(layout, nr_pages);
}

static uint64_t header_checksum(const struct cis_state_header *h)
{
	return cis_crc64(0, h, offsetof(struct cis_state_header, checksum));
}

static void attach(void *map, const struct cis_state_header *h, struct cis_state *ret)
{
	char *at = map;

	*ret = (struct cis_state){ .header = map, .ring = (struct uffd_msg *)(at + h->ring_off),
				   .words = (uint64_t *)(at + h->words_off), .bytes = h->bytes };
	if (h->layout == 1)
		return;
	ret->stats = at + STATS_OFF;
	ret->trace = (uint32_t *)(at + words_end(h->layout, h->nr_pages));
	if (h->layout < 3)
		return;
	ret->stash = at + stash_off(h->layout, h->nr_pages);
	ret->stash_bytes = stash_bytes(h->layout, h->nr_pages);
}

static void header_make(unsigned layout, uint64_t nr_pages, uint64_t generation, struct cis_state_header *ret)
{
	*ret = (struct cis_state_header){
		.layout = layout,
		.ring_slots = CIS_RING_SLOTS,
		.generation = generation,
		.nr_pages = nr_pages,
		.ring_off = RING_OFF,
		.words_off = words_off(layout),
		.bytes = cis_state_bytes(layout, nr_pages),
	};
	memcpy(ret->magic, magic, sizeof(magic));
	ret->checksum = header_checksum(ret);
}

/* The magic comes last: without it nobody takes the rest for a header. */
static void header_write(const struct cis_state_header *h, struct cis_state_header *to)
{
	const size_t at = offsetof(struct cis_state_header, layout);

	memcpy((char *)to + at, (const char *)h + at, offsetof(struct cis_state_header, ring_head) - at);
	atomic_signal_fence(memory_order_seq_cst);
	memcpy(to->magic, magic, sizeof(magic));
}

void cis_state_init(void *map, unsigned layout, uint64_t nr_pages, uint64_t generation, struct cis_state *ret)
{
	struct cis_state_header h;

	header_make(layout, nr_pages, generation, &h);
	header_write(&h, map);
	attach(map, &h, ret);
}

static void copy_dynamic(const struct cis_state_header *from, struct cis_state_header *to, bool all)
{
	to->ring_head = from->ring_head;
	to->ring_tail = from->ring_tail;
	to->filled_by = from->filled_by;
	if (!all)
		return;
	to->stats_bytes = from->stats_bytes;
	to->nr_trace = from->nr_trace;
	to->recording = from->recording;
	to->filled = from->filled;
}

/* States and flags that an engine of this layout writes. */
static bool word_is_known(uint64_t word, unsigned layout)
{
	enum cis_page_state state = cis_word_state(word);
	unsigned flags = cis_word_flags(word);

	if (layout < 3)
		return !flags && state <= CIS_PAGE_POISONED;
	if (state >= CIS_PAGE_STATES || flags == CIS_WORD_FLAGS)
		return false;
	if (flags == CIS_WORD_COMING)
		return state >= CIS_PAGE_STASHED;
	return !flags || (state != CIS_PAGE_BUSY && state != CIS_PAGE_POISONED);
}

/* Return: 0, or -EBADMSG with the first page whose word is not. */
static int words_check(const uint64_t *words, uint64_t nr, unsigned layout, struct cis_error *err)
{
	for (uint64_t p = 0; p < nr; p++)
		if (!word_is_known(words[p], layout))
			return cis_fail(err, EBADMSG, "state memfd: page %llu has state %u", (unsigned long long)p,
					(unsigned)(words[p] & 0xff));
	return 0;
}

int cis_state_convert(const struct cis_state *from, void *map, unsigned layout, uint64_t generation, struct cis_state *ret,
		      struct cis_error *err)
{
	uint64_t nr_pages = from->header->nr_pages;
	struct cis_state_header h;
	struct cis_state to;
	int rc;

	if (layout < CIS_STATE_LAYOUT_MIN || layout > CIS_STATE_LAYOUT_MAX)
		return cis_fail(err, EPROTONOSUPPORT, "state memfd: layout %u is asked for, this engine knows %u to %u", layout,
				CIS_STATE_LAYOUT_MIN, CIS_STATE_LAYOUT_MAX);
	rc = words_check(from->words, nr_pages, 2, err);
	if (rc)
		return cis_fail(err, EBUSY, "state memfd: pages are out of the guest, which cannot be said in another memfd: give it a budget of all "
				"its memory first, and wait until they are back");
	header_make(layout, nr_pages, generation, &h);
	attach(map, &h, &to);
	memcpy(to.ring, from->ring, RING_BYTES);
	memcpy(to.words, from->words, nr_pages * sizeof(*to.words));
	if (from->stats && to.stats) {
		memcpy(to.stats, from->stats, CIS_STATS_ROOM);
		memcpy(to.trace, from->trace, from->header->nr_trace * sizeof(*to.trace));
	}
	copy_dynamic(from->header, to.header, from->stats && to.stats);
	header_write(&h, to.header);
	*ret = to;
	return 0;
}

int cis_state_lock(const struct cis_state *st)
{
	madvise(st->header, RING_OFF + RING_BYTES, MADV_POPULATE_WRITE);
	return mlock(st->header, RING_OFF + RING_BYTES) ? -errno : 0;
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
	if (h->ring_slots != CIS_RING_SLOTS || h->ring_off != RING_OFF || h->words_off != words_off(h->layout) ||
	    h->nr_pages > bytes / 8 || h->bytes != cis_state_bytes(h->layout, h->nr_pages) || h->bytes != bytes)
		return cis_fail(err, EBADMSG, "state memfd: sizes do not fit %llu bytes", (unsigned long long)bytes);
	if (h->ring_head < h->ring_tail || h->ring_head - h->ring_tail > CIS_RING_SLOTS)
		return cis_fail(err, EBADMSG, "state memfd: ring indices %llu..%llu", (unsigned long long)h->ring_tail,
				(unsigned long long)h->ring_head);
	if (h->filled_by > CIS_FILLED_IN_PLACE || h->has_key > 1)
		return cis_fail(err, EBADMSG, "state memfd: filled in way %u, %u keys", h->filled_by, h->has_key);
	if (h->layout == 1)
		return 0;
	if (h->stats_bytes > CIS_STATS_ROOM || h->nr_trace > h->nr_pages || h->recording > 1 || h->filled > 2)
		return cis_fail(err, EBADMSG, "state memfd: %llu bytes of statistics, a trace of %llu pages, recording %u, filled "
				"to level %u", (unsigned long long)h->stats_bytes, (unsigned long long)h->nr_trace, h->recording,
				h->filled);
	return 0;
}

static int trace_check(const struct cis_state *st, const struct cis_state_header *h, struct cis_error *err)
{
	for (uint64_t i = 0; st->trace && i < h->nr_trace; i++)
		if (st->trace[i] >= h->nr_pages)
			return cis_fail(err, EBADMSG, "state memfd: the trace names page %u of %llu", st->trace[i],
					(unsigned long long)h->nr_pages);
	return 0;
}

int cis_state_adopt(void *map, uint64_t bytes, struct cis_state *ret, struct cis_error *err)
{
	struct cis_state_header h;
	struct cis_state st;
	int rc;

	if (bytes < PAGE)
		return cis_fail(err, EBADMSG, "state memfd: only %llu bytes", (unsigned long long)bytes);
	rc = header_find(map, &h, err);
	if (!rc)
		rc = header_check(&h, bytes, err);
	if (rc)
		return rc;
	attach(map, &h, &st);
	rc = words_check(st.words, h.nr_pages, h.layout, err);
	if (!rc)
		rc = trace_check(&st, &h, err);
	if (rc)
		return rc;
	memcpy(st.header, &h, offsetof(struct cis_state_header, ring_head)); /* as it was, or out of its shadow */
	*ret = st;
	return 0;
}
