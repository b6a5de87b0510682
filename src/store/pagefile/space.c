/* The space of an area: what is taken of it, and how it is given back. */
#include <errno.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/le.h"
#include "codec/codec.h"
#include "store/pagefile/area.h"

#define UNITS (CIS_SEGMENT / CIS_LOG_UNIT) /* of a segment */

static uint32_t check_of(const uint64_t ns[2], uint64_t id, uint32_t len)
{
	uint64_t all[] = { ns[0], ns[1], id, len };

	return (uint32_t)cis_crc64(0, all, sizeof(all));
}

void cis_record_write(uint8_t *at, const struct cis_key *key, const void *value, uint32_t len)
{
	cis_put_le64(at, key->id);
	cis_put_le32(at + 8, len);
	cis_put_le32(at + 12, check_of(key->ns, key->id, len));
	memcpy(at + CIS_RECORD_HEAD, value, len);
	memset(at + CIS_RECORD_HEAD + len, 0, cis_record_bytes(len) - CIS_RECORD_HEAD - len);
}

int cis_record_read(const uint8_t *at, const uint64_t ns[2], uint64_t *ret_id, uint32_t *ret_len)
{
	uint64_t id = cis_le64(at);
	uint32_t len = cis_le32(at + 8);

	if (!len || len > CIS_VALUE_MAX || cis_le32(at + 12) != check_of(ns, id, len))
		return -ENOENT;
	*ret_id = id;
	*ret_len = len;
	return 0;
}

/* What the log has of the folder's segments. */
static void count(struct cis_area *a)
{
	uint32_t now = (uint32_t)(cis_log_used(a->log) / CIS_SEGMENT);

	if (now < a->counted)
		a->spare -= a->counted - now < a->spare ? a->counted - now : a->spare;
	atomic_fetch_add(&a->dir->used, now - a->counted); /* modulo 2^32: may be less */
	a->counted = now;
}

static void give_back(struct cis_area *a);

static void free_segment(struct cis_area *a, uint32_t segment)
{
	struct cis_segment *s = &a->segment[segment];
	uint32_t held = s->held;

	cis_area_learnt(a, segment);
	*s = (struct cis_segment){ 0 };
	cis_log_free(a->log, (uint32_t)((uint64_t)segment * UNITS), held);
}

/* It is free whether or not the file system could punch: then the disk keeps it for what is written there next. */
static void punched(struct cis_aio_op *op, int res)
{
	struct cis_punch *p = (struct cis_punch *)op;
	struct cis_area *a = p->area;

	for (uint32_t i = 0; i < p->nr; i++)
		free_segment(a, p->first + i);
	p->nr = 0;
	count(a);
	give_back(a);
	cis_area_let_go(a);
}

static void list(struct cis_area *a, uint32_t segment)
{
	struct cis_segment *s = &a->segment[segment];

	s->listed = true;
	s->prev = CIS_LOG_NONE;
	s->next = a->empty;
	if (s->next != CIS_LOG_NONE)
		a->segment[s->next].prev = segment;
	a->empty = segment;
}

static void unlist(struct cis_area *a, uint32_t segment)
{
	struct cis_segment *s = &a->segment[segment];

	s->listed = false;
	*(s->prev == CIS_LOG_NONE ? &a->empty : &a->segment[s->prev].next) = s->next;
	if (s->next != CIS_LOG_NONE)
		a->segment[s->next].prev = s->prev;
}

/* Those that lie around it are taken along. */
static void punch(struct cis_area *a, uint32_t segment)
{
	struct cis_punch *p = &a->punch;
	uint32_t end = segment + 1;

	while (segment && a->segment[segment - 1].listed)
		segment--;
	while (end < a->nr && a->segment[end].listed)
		end++;
	for (uint32_t i = segment; i < end; i++)
		unlist(a, i);
	*p = (struct cis_punch){ .area = a, .first = segment, .nr = end - segment };
	p->op = (struct cis_aio_op){ .what = CIS_AIO_PUNCH, .fd = a->fd, .off = (uint64_t)segment * CIS_SEGMENT,
				     .len = (uint64_t)p->nr * CIS_SEGMENT, .done = punched };
	cis_area_hold(a);
	cis_aio_push(a->aio, &p->op);
}

/* One at a time: the kernel lets no read of the file begin while it punches. */
static void give_back(struct cis_area *a)
{
	if (a->locked && !a->punch.nr && a->empty != CIS_LOG_NONE)
		punch(a, a->empty);
}

/* If there is nothing in it any more it is to be given back. */
static void settle(struct cis_area *a, uint32_t segment)
{
	const struct cis_segment *s = &a->segment[segment];

	if (s->listed || s->pins || segment == a->open || !s->held || s->held != cis_log_segment_live(a->log, segment))
		return;
	list(a, segment);
	give_back(a);
}

/* What is on the disk and nobody claimed. */
static void settle_unclaimed(struct cis_area *a, uint32_t segment)
{
	uint32_t first = segment ? (uint32_t)((uint64_t)segment * UNITS) : 1; /* there is no loc 0 */

	if (cis_log_segment_live(a->log, segment) || !cis_log_claim(a->log, first, CIS_LOG_UNIT))
		return;
	a->segment[segment].held = CIS_LOG_UNIT;
	list(a, segment);
}

static void settle_found(struct cis_area *a)
{
	off_t off = 0, end;

	while ((off = lseek(a->fd, off, SEEK_DATA)) >= 0 && (end = lseek(a->fd, off, SEEK_HOLE)) > off) {
		for (uint64_t i = (uint64_t)off / CIS_SEGMENT; i < a->nr && i * CIS_SEGMENT < (uint64_t)end; i++)
			settle_unclaimed(a, (uint32_t)i);
		off = end;
	}
	count(a);
}

bool cis_area_lock(struct cis_area *a)
{
	if (a->locked)
		return true;
	if (flock(a->fd, LOCK_EX | LOCK_NB))
		return false;
	a->locked = true;
	settle_found(a);
	give_back(a);
	return true;
}

/* The log has another segment open, or none. */
static void opened(struct cis_area *a, uint32_t segment)
{
	uint32_t before = a->open;

	a->open = segment;
	if (before != segment && before != CIS_LOG_NONE)
		settle(a, before);
}

/* One in which nothing is left is of more use elsewhere. */
static void leave_open(struct cis_area *a)
{
	if (a->open == CIS_LOG_NONE || a->segment[a->open].held < cis_log_segment_live(a->log, a->open))
		return;
	cis_log_seal(a->log);
	opened(a, CIS_LOG_NONE);
}

uint32_t cis_area_take(struct cis_area *a, uint32_t bytes, bool spare)
{
	enum cis_pagedir_taken taken;
	uint32_t loc;

	if (a->spare && !spare) {
		leave_open(a);
		return 0;
	}
	cis_log_limit(a->log, cis_log_used(a->log)); /* in the open segment */
	loc = cis_log_alloc(a->log, bytes, true);
	taken = loc ? CIS_TAKEN_NOT : cis_pagedir_take(a->dir, spare);
	if (taken) {
		cis_log_limit(a->log, cis_log_used(a->log) + CIS_SEGMENT);
		loc = cis_log_alloc(a->log, bytes, true);
		a->counted++;
		a->spare += taken == CIS_TAKEN_SPARE;
	}
	count(a);
	opened(a, loc ? cis_segment_of(loc) : CIS_LOG_NONE);
	if (loc)
		cis_map_set(a->map, loc, bytes / CIS_LOG_UNIT);
	return loc;
}

bool cis_area_has(const struct cis_area *a, uint32_t loc)
{
	return loc && cis_segment_of(loc) < a->nr && cis_map_is_value(a->map, loc);
}

void cis_area_free(struct cis_area *a, uint32_t loc)
{
	uint32_t segment = cis_segment_of(loc), bytes = cis_map_units(a->map, loc) * CIS_LOG_UNIT;
	struct cis_segment *s = &a->segment[segment];

	cis_map_clear(a->map, loc);
	a->tired = false;
	if (cis_log_segment_live(a->log, segment) - s->held != bytes) {
		cis_log_free(a->log, loc, bytes);
		return;
	}
	s->held += bytes;
	settle(a, segment);
}

/* Two units of it, which every value has: what it takes is written in it, and learnt when it is moved. */
int cis_area_claim(struct cis_area *a, uint32_t loc)
{
	uint32_t segment = cis_segment_of(loc);

	if (!loc || segment >= a->nr || loc % UNITS == UNITS - 1 || cis_map_bit(a->map, loc) || cis_map_bit(a->map, loc + 1) ||
	    cis_map_is_value(a->map, loc + 1) || !cis_log_claim(a->log, loc, 2 * CIS_LOG_UNIT))
		return -ENOENT;
	cis_map_set(a->map, loc, 2);
	a->nr_claimed += !a->segment[segment].claimed;
	a->segment[segment].claimed = true;
	count(a);
	return 0;
}

bool cis_area_learn(struct cis_area *a, uint32_t loc, uint32_t bytes)
{
	uint32_t units = bytes / CIS_LOG_UNIT, known = cis_map_units(a->map, loc);

	if (units == known)
		return true;
	if (!a->segment[cis_segment_of(loc)].claimed || units < known || loc % UNITS + units > UNITS ||
	    cis_map_next(a->map, loc + known, loc + units) != loc + units)
		return false;
	cis_log_claim(a->log, loc + known, (units - known) * CIS_LOG_UNIT);
	cis_map_set(a->map, loc, units);
	return true;
}

void cis_area_learnt(struct cis_area *a, uint32_t segment)
{
	a->nr_claimed -= a->segment[segment].claimed;
	a->segment[segment].claimed = false;
}

void cis_area_pin(struct cis_area *a, uint32_t segment)
{
	a->segment[segment].pins++;
}

void cis_area_unpin(struct cis_area *a, uint32_t segment)
{
	a->segment[segment].pins--;
	settle(a, segment);
}
