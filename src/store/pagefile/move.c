/*
 * Making room: what is left in the segment with the least is copied to where puts go, a piece of it at a time, and when a copy is on the
 * disk the one who knows whether the value is wanted says so (opts.moved).  The segment stays as it is until then, and until the last get
 * that began there has come back.
 */
#include <errno.h>
#include <string.h>

#include "store/pagefile/pagefile.h"

#define UNITS	 (CIS_SEGMENT / CIS_LOG_UNIT)
#define WORTH_IT (CIS_SEGMENT / 4 * 3) /* as cis_log_victim() has it */
#define TIDY_MIN (8ull * CIS_SEGMENT)

static void next_piece(struct cis_moving *m);

static bool is_written(const struct cis_pagefile *s, const struct cis_area *a, uint32_t segment)
{
	for (unsigned i = 0; i < CIS_WRITES; i++)
		if (s->writing[i].area == a && s->writing[i].off / CIS_SEGMENT == segment)
			return false;
	return true;
}

static void begin(struct cis_moving *m, struct cis_area *a, uint32_t segment)
{
	m->area = a;
	m->segment = segment;
	m->unit = (uint32_t)((uint64_t)segment * UNITS);
	m->end = m->unit + UNITS;
	m->learns = a->segment[segment].claimed;
	m->failed = false;
	cis_area_hold(a);
	cis_area_pin(a, segment);
	next_piece(m);
}

/* Return: whether there is a segment that has begun to be emptied, or waits for what the kernel has yet to do there. */
static bool find(struct cis_pagefile *s, struct cis_area *a)
{
	const struct cis_segment *seg;
	uint32_t segment;

	cis_log_limit(a->log, cis_log_used(a->log)); /* room is short */
	segment = cis_log_victim(a->log);
	if (segment == CIS_LOG_NONE) {
		a->tired = true;
		return false;
	}
	seg = &a->segment[segment];
	if (seg->held < cis_log_segment_live(a->log, segment) && is_written(s, a, segment))
		begin(&s->moving, a, segment);
	return true;
}

static bool gains(struct cis_pagefile *s, struct cis_area *a)
{
	if (cis_area_gives_back(a))
		return true;
	if (!s->moved || !a->locked || a->tired)
		return false;
	return s->moving.state != CIS_MOVE_IDLE || find(s, a);
}

/* What the others of the handle give up is for all. */
bool cis_move_want(struct cis_pagefile *s, struct cis_area *a)
{
	bool any = gains(s, a);

	for (unsigned i = 0; !any && i < CIS_AREA_BUCKETS; i++)
		for (struct cis_area *b = s->area[i]; b && !any; b = b->next)
			any = gains(s, b);
	return any;
}

/* What an engine before has left looks emptier than it is. */
void cis_move_tidy(struct cis_pagefile *s, struct cis_area *a)
{
	uint64_t used = cis_log_used(a->log);

	if (used >= TIDY_MIN && cis_log_live(a->log) < used / 2 && !a->nr_claimed)
		gains(s, a);
}

static void end(struct cis_moving *m)
{
	struct cis_area *a = m->area;
	uint32_t left = cis_log_segment_live(a->log, m->segment) - a->segment[m->segment].held;

	m->state = CIS_MOVE_IDLE;
	m->area = NULL;
	m->store->again = true;
	if (m->failed || (left && !m->learns))
		a->tired = true;
	else if (m->learns)
		cis_area_learnt(a, m->segment);
	if (m->learns && !m->failed && left < WORTH_IT && !a->dropped)
		begin(m, a, m->segment);
	else
		cis_move_tidy(m->store, a);
	cis_area_unpin(a, m->segment);
	cis_area_let_go(a);
}

static void read_done(struct cis_aio_op *op, int res)
{
	struct cis_moving *m = (struct cis_moving *)op;

	if (res == -EINVAL && cis_area_go_buffered(m->area, &m->buffered)) {
		cis_aio_push(&m->store->aio, op);
		return;
	}
	m->store->again = true;
	m->state = CIS_MOVE_COPYING;
	m->failed = res < 0 || (uint64_t)res < op->len;
}

static void next_piece(struct cis_moving *m)
{
	struct cis_area *a = m->area;
	uint64_t off, to = cis_log_off(m->end);

	m->nr = m->nr_written = 0;
	m->buffered = false;
	m->unit = m->failed || a->dropped ? m->end : cis_map_next(a->map, m->unit, m->end);
	if (m->unit == m->end) {
		end(m);
		return;
	}
	off = cis_log_off(m->unit) & ~(uint64_t)(CIS_SECTOR - 1);
	to = to - off < CIS_MOVE_BYTES ? to : off + CIS_MOVE_BYTES;
	m->op = (struct cis_aio_op){ .what = CIS_AIO_READ, .fd = a->fd, .buf = m->buf, .off = off, .len = to - off, .done = read_done };
	m->state = CIS_MOVE_READING;
	cis_aio_push(&m->store->aio, &m->op);
}

static int copy(struct cis_moving *m, uint64_t id, const uint8_t *record, uint32_t bytes)
{
	struct cis_writing *w;
	uint32_t to;
	uint8_t *at;
	int rc = cis_place(m->store, m->area, bytes, true, &to, &at);

	if (rc)
		return rc;
	memcpy(at, record, bytes);
	w = m->area->gather;
	if (!w->nr_moves++)
		w->move = m->nr;
	m->move[m->nr++] = (struct cis_move){ .id = id, .from = m->unit, .to = to };
	return 0;
}

/*
 * The value at m->unit.  Return: 0: it is dealt with, as is one whose record is damaged, which stays; -ENODATA: it goes on behind what
 * was read; or why it cannot be copied.
 */
static int look_at(struct cis_moving *m)
{
	struct cis_area *a = m->area;
	uint64_t at = cis_log_off(m->unit) - m->op.off, id;
	const uint8_t *record = m->buf + at;
	uint32_t bytes, len;

	if (cis_record_read(record, a->ns, &id, &len))
		return 0;
	bytes = cis_record_bytes(len);
	if (at + bytes > m->op.len)
		return m->op.off + m->op.len < cis_log_off(m->end) ? -ENODATA : 0;
	if (!cis_area_learn(a, m->unit, bytes) || m->learns)
		return 0;
	return copy(m, id, record, bytes);
}

static void copy_piece(struct cis_moving *m)
{
	uint32_t to = (uint32_t)((m->op.off + m->op.len) / CIS_LOG_UNIT);
	int rc = 0;

	if (m->area->dropped || m->failed)
		m->unit = to;
	while ((m->unit = cis_map_next(m->area->map, m->unit, to)) < to) {
		rc = look_at(m);
		if (rc)
			break;
		m->unit++;
	}
	if (rc == -EAGAIN)
		return; /* there is no buffer: go on here when one is written */
	m->failed |= rc && rc != -ENODATA;
	m->state = CIS_MOVE_WRITING;
}

void cis_move_written(struct cis_pagefile *s, uint32_t first, uint32_t nr, int err)
{
	for (uint32_t i = first; i < first + nr; i++)
		s->moving.move[i].err = err;
	s->moving.nr_written += nr;
}

/* A value that was deleted meanwhile is in no map. */
static void settle_move(struct cis_moving *m, const struct cis_move *v)
{
	struct cis_area *a = m->area;
	struct cis_key key = { .ns = { a->ns[0], a->ns[1] }, .id = v->id };
	bool wanted = !v->err && cis_area_has(a, v->from) && m->store->moved(m->store->ctx, &key, v->from, v->to);

	m->failed |= v->err != 0;
	cis_area_free(a, wanted ? v->from : v->to);
}

void cis_move_go(struct cis_pagefile *s)
{
	struct cis_moving *m = &s->moving;

	if (m->state == CIS_MOVE_COPYING)
		copy_piece(m);
	if (m->state != CIS_MOVE_WRITING || m->nr_written < m->nr)
		return;
	for (uint32_t i = 0; i < m->nr && !m->area->dropped; i++)
		settle_move(m, &m->move[i]);
	next_piece(m);
}
