/* Gets: of a buffer that is being written, or of the disk. */
#include <errno.h>
#include <string.h>

#include "store/pagefile/pagefile.h"

/* The value of the record at @at, of which there are @bytes, if it is the one that is asked for. */
static int give(const uint8_t *at, uint32_t bytes, const struct cis_area *a, struct cis_store_req *req)
{
	uint64_t id;
	uint32_t len;
	int rc = cis_record_read(at, a->ns, &id, &len);

	if (rc || id != req->key.id)
		return -ENOENT;
	if (len > req->len)
		return -EMSGSIZE;
	if (CIS_RECORD_HEAD + len > bytes)
		return -EIO;
	memcpy(req->buf, at + CIS_RECORD_HEAD, len);
	req->got = len;
	return 0;
}

static const uint8_t *in_memory(const struct cis_pagefile *s, const struct cis_area *a, uint32_t loc)
{
	uint64_t off = cis_log_off(loc);

	for (unsigned i = 0; i < CIS_WRITES; i++) {
		const struct cis_writing *w = &s->writing[i];

		if (w->area == a && off >= w->off && off < w->off + w->fill)
			return w->buf + (off - w->off);
	}
	return NULL;
}

/* What is to be read: up to what the caller has room for, where the map has not learnt the length yet. */
static uint32_t bytes_of(const struct cis_area *a, const struct cis_store_req *req)
{
	uint32_t left = CIS_SEGMENT - (uint32_t)(cis_log_off(req->loc) % CIS_SEGMENT), bytes;

	if (!a->segment[cis_segment_of(req->loc)].claimed)
		return cis_map_units(a->map, req->loc) * CIS_LOG_UNIT;
	bytes = cis_record_bytes(req->len < CIS_VALUE_MAX ? req->len : CIS_VALUE_MAX);
	return bytes < left ? bytes : left;
}

void cis_get_withdraw(struct cis_pagefile *s, const struct cis_store_req *req)
{
	cis_area_unpin(cis_pagefile_area(s, req->key.ns), cis_segment_of(req->loc));
}

static void read_done(struct cis_aio_op *op, int res)
{
	struct cis_reading *r = (struct cis_reading *)op;
	struct cis_pagefile *s = r->store;
	struct cis_area *a = r->area;

	if (res == -EINVAL && cis_area_go_buffered(a, &r->buffered)) {
		cis_aio_push(&s->aio, op);
		return;
	}
	s->again = true;
	r->area = NULL;
	if (res >= 0 && (uint64_t)res < op->len)
		res = -EIO;
	while (r->gets.first) {
		struct cis_store_req *req = cis_reqs_pop(&r->gets);
		uint32_t at = (uint32_t)(cis_log_off(req->loc) - op->off);

		cis_area_unpin(a, cis_segment_of(req->loc));
		cis_pagefile_finish(s, req, res < 0 ? res : give(r->buf + at, (uint32_t)op->len - at, a, req));
	}
	cis_area_let_go(a);
}

/* The sectors in which the record of a get lies. */
static void sectors_of(const struct cis_store_req *req, uint64_t *ret_from, uint64_t *ret_to)
{
	uint64_t off = cis_log_off(req->loc);

	*ret_from = off & ~(uint64_t)(CIS_SECTOR - 1);
	*ret_to = (off + req->progress + CIS_SECTOR - 1) & ~(uint64_t)(CIS_SECTOR - 1);
}

/* Does the get that waits next lie where this read ends?  Values that were put together do. */
static bool goes_along(const struct cis_pagefile *s, const struct cis_reading *r, uint64_t *ret_to)
{
	const struct cis_store_req *req = s->gets.first;
	uint64_t from, to;

	if (!req || req->key.ns[0] != r->area->ns[0] || req->key.ns[1] != r->area->ns[1])
		return false;
	sectors_of(req, &from, &to);
	if (from < r->op.off || from > *ret_to || to - r->op.off > CIS_READ_BYTES)
		return false;
	*ret_to = to > *ret_to ? to : *ret_to;
	return true;
}

static void read_next(struct cis_pagefile *s, struct cis_reading *r)
{
	uint64_t from, to;

	sectors_of(s->gets.first, &from, &to);
	r->area = cis_pagefile_area(s, s->gets.first->key.ns);
	r->buffered = false;
	r->op = (struct cis_aio_op){ .what = CIS_AIO_READ, .fd = r->area->fd, .buf = r->buf, .off = from, .done = read_done };
	do
		cis_reqs_push(&r->gets, cis_reqs_pop(&s->gets));
	while (goes_along(s, r, &to));
	r->op.len = to - from;
	cis_area_hold(r->area);
	cis_aio_push(&s->aio, &r->op);
}

/* The map says now whether it is there; later, it may have been moved, and is read where it was. */
void cis_get(struct cis_pagefile *s, struct cis_area *a, struct cis_store_req *req)
{
	const uint8_t *at;

	if (!cis_area_has(a, req->loc)) {
		cis_pagefile_finish(s, req, -ENOENT);
		return;
	}
	at = in_memory(s, a, req->loc);
	if (at) {
		cis_pagefile_finish(s, req, give(at, CIS_RECORD_MAX, a, req));
		return;
	}
	req->progress = bytes_of(a, req);
	cis_area_pin(a, cis_segment_of(req->loc));
	cis_reqs_push(&s->gets, req);
}

static struct cis_reading *free_reading(struct cis_pagefile *s)
{
	for (unsigned i = 0; i < CIS_READS; i++)
		if (!s->reading[i].area)
			return &s->reading[i];
	return NULL;
}

void cis_gets_go(struct cis_pagefile *s)
{
	struct cis_reading *r;

	while (s->gets.first && (r = free_reading(s)))
		read_next(s, r);
}
