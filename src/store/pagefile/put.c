/* Puts: gathered into buffers, each of which is one write. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "store/pagefile/pagefile.h"

#define WORTH_IT (64u << 10)  /* so much is written even while something else of the area is */
#define RETRY_NS 2000000u     /* until a lock is tried again */

void cis_put_withdraw(struct cis_area *a, struct cis_store_req *req)
{
	if (cis_area_has(a, req->loc)) /* or it was deleted meanwhile */
		cis_area_free(a, req->loc);
	req->loc = 0;
}

static void written(struct cis_aio_op *op, int res)
{
	struct cis_writing *w = (struct cis_writing *)op;
	struct cis_pagefile *s = w->store;
	struct cis_area *a = w->area;
	int err = res < 0 ? res : (uint64_t)res < op->len ? -EIO : 0;

	if (res == -EINVAL && cis_area_go_buffered(a, &w->buffered)) {
		cis_aio_push(&s->aio, op);
		return;
	}
	s->again = true;
	w->area = NULL;
	a->writes--;
	while (w->puts.first) {
		struct cis_store_req *req = cis_reqs_pop(&w->puts);

		if (err)
			cis_put_withdraw(a, req);
		cis_pagefile_finish(s, req, err);
	}
	if (w->nr_moves)
		cis_move_written(s, w->move, w->nr_moves, err);
	cis_area_unpin(a, (uint32_t)(w->off / CIS_SEGMENT));
	cis_area_let_go(a);
}

static void go(struct cis_writing *w)
{
	uint32_t len = (w->fill + CIS_SECTOR - 1) & ~(CIS_SECTOR - 1);

	memset(w->buf + w->fill, 0, len - w->fill);
	w->op = (struct cis_aio_op){ .what = CIS_AIO_WRITE, .fd = w->area->fd, .buf = w->buf, .off = w->off, .len = len, .done = written };
	w->going = true;
	w->area->gather = NULL;
	w->area->writes++;
	cis_aio_push(&w->store->aio, &w->op);
}

static struct cis_writing *free_writing(struct cis_pagefile *s)
{
	for (unsigned i = 0; i < CIS_WRITES; i++)
		if (!s->writing[i].area)
			return &s->writing[i];
	return NULL;
}

static void begin(struct cis_writing *w, struct cis_area *a, uint32_t loc)
{
	uint64_t off = cis_log_off(loc);

	w->area = a;
	w->going = w->buffered = false;
	w->nr_moves = 0;
	w->off = off & ~(uint64_t)(CIS_SECTOR - 1);
	w->fill = (uint32_t)(off - w->off); /* the first unit of all, which is nobody's */
	memset(w->buf, 0, w->fill);
	a->gather = w;
	cis_area_hold(a);
	cis_area_pin(a, cis_segment_of(loc));
}

int cis_place(struct cis_pagefile *s, struct cis_area *a, uint32_t bytes, bool spare, uint32_t *ret_loc, uint8_t **ret_at)
{
	struct cis_writing *w = a->gather;
	uint32_t loc;

	if (w && (w->fill + bytes > CIS_WRITE_BYTES || cis_log_room(a->log) < bytes)) {
		go(w);
		w = NULL;
	}
	if (!w) {
		w = free_writing(s);
		if (!w)
			return -EAGAIN;
		cis_log_align(a->log, CIS_SECTOR);
	}
	loc = cis_area_take(a, bytes, spare);
	if (!loc)
		return -ENOSPC;
	if (!a->gather)
		begin(w, a, loc);
	*ret_loc = loc;
	*ret_at = w->buf + w->fill;
	w->fill += bytes;
	return 0;
}

static int lock(struct cis_pagefile *s, struct cis_area *a)
{
	if (cis_area_lock(a))
		return 0;
	if (!cis_aio_has_ring(&s->aio))
		return -EBUSY; /* nothing would wake us */
	s->retry_ns = cis_now_ns(NULL) + RETRY_NS;
	return -EAGAIN;
}

static int room_for(struct cis_pagefile *s, struct cis_area *a, struct cis_store_req *req, uint8_t **ret_at)
{
	int rc = a->locked ? 0 : lock(s, a);

	if (!rc)
		rc = cis_place(s, a, cis_record_bytes(req->len), false, &req->loc, ret_at);
	return rc == -ENOSPC && cis_move_want(s, a) ? -EAGAIN : rc;
}

static void settle_put(struct cis_pagefile *s, struct cis_area *a, struct cis_store_req *req, uint8_t *at, int err)
{
	if (err) {
		cis_pagefile_finish(s, req, err);
		return;
	}
	cis_record_write(at, &req->key, req->buf, req->len);
	cis_reqs_push(&a->gather->puts, req);
}

void cis_put(struct cis_pagefile *s, struct cis_area *a, struct cis_store_req *req)
{
	uint8_t *at = NULL;
	int rc = -EAGAIN;

	req->loc = 0;
	if (!req->len || req->len > CIS_VALUE_MAX)
		rc = req->len ? -EMSGSIZE : -EINVAL;
	else if (!a->puts.first)
		rc = room_for(s, a, req, &at);
	if (rc == -EAGAIN) {
		cis_reqs_push(&a->puts, req);
		s->nr_waiting++;
	} else {
		settle_put(s, a, req, at, rc);
	}
}

static void place_waiting(struct cis_pagefile *s, struct cis_area *a)
{
	while (a->puts.first) {
		uint8_t *at = NULL;
		int rc = room_for(s, a, a->puts.first, &at);

		if (rc == -EAGAIN)
			return;
		s->nr_waiting--;
		settle_put(s, a, cis_reqs_pop(&a->puts), at, rc);
	}
}

void cis_puts_go(struct cis_pagefile *s)
{
	s->retry_ns = 0;
	for (unsigned i = 0; s->nr_waiting && i < CIS_AREA_BUCKETS; i++)
		for (struct cis_area *a = s->area[i]; a; a = a->next)
			place_waiting(s, a);
}

/* Puts that come one by one share a write with those that come while another one is on its way. */
void cis_writes_go(struct cis_pagefile *s)
{
	for (unsigned i = 0; i < CIS_WRITES; i++) {
		struct cis_writing *w = &s->writing[i];

		if (w->area && !w->going && (!w->area->writes || w->fill >= WORTH_IT))
			go(w);
	}
}
