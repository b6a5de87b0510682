/* The ring of userfault events in the state memfd. */
#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/point.h"
#include "pager/state.h"

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
