#include "daemon/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/point.h"
#include "daemon/awake.h"
#include "daemon/gone.h"
#include "daemon/guest_int.h"
#include "daemon/request.h"
#include "os/file.h"

#define SLOT_BYTES  65536u
#define FIRST_GUEST 2u
#define SEQ_BITS    62u /* no engine counts so far, and what follows it fits JSON */
#define SLOTS	    (FIRST_GUEST + CIS_GONE_MAX + 2) /* one more goes before the oldest is forgotten */

struct cis_ledger {
	int fd;
	bool is_scanned, is_open; /* what is free is known; all was read, and is kept up */
	bool is_failing;
	uint64_t seq, forgotten, awake_ns; /* of the sums; forgotten: the last guest's serial */
	bool used[SLOTS];
	_Alignas(uint64_t) uint8_t buf[SLOT_BYTES]; /* numbers in it are read where they are */
};

/* NULL: it is another engine's now. */
static struct cis_ledger *ours(const struct cis_engine *e)
{
	return e->mode != CIS_ENGINE_LEARNS && e->handover.step != CIS_HANDOVER_OVER ? e->ledger : NULL;
}

static struct cis_ledger *open_of(const struct cis_engine *e)
{
	struct cis_ledger *l = ours(e);

	return l && l->is_open ? l : NULL;
}

/* Takes what @s has.  It is said once that nothing can be written. */
static int put(struct cis_ledger *l, unsigned slot, struct cis_sections *s)
{
	int rc = cis_sections_put(s, l->fd, (uint64_t)slot * SLOT_BYTES, SLOT_BYTES);

	if (rc && !l->is_failing)
		cis_log(CIS_LOG_ERROR, "ledger: %s: counters and gone guests are lost if this engine crashes", strerror(-rc));
	l->is_failing = rc;
	cis_sections_fini(s);
	return rc;
}

static void clear(struct cis_ledger *l, unsigned slot)
{
	if (fallocate(l->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)slot * SLOT_BYTES, SLOT_BYTES))
		cis_log(CIS_LOG_ERROR, "ledger: slot %u: %s", slot, strerror(errno));
	else
		l->used[slot] = false;
}

/* Sums. */

static int write_sums(struct cis_engine *e)
{
	struct cis_ledger *l = e->ledger;
	uint64_t awake_ns = cis_awake_held_ns(e->awake);
	struct cis_sections s = { 0 };
	int rc;

	cis_json_put(&s, CIS_TAG_ENGINE, 0, json_pack("{s:I, s:I, s:I}", "seq", (json_int_t)(l->seq + 1), "awake_ns", (json_int_t)awake_ns,
						      "forgotten", (json_int_t)l->forgotten));
	cis_stats_put(&s, &e->past);
	rc = put(l, (l->seq + 1) % FIRST_GUEST, &s);
	if (rc)
		return rc;
	l->seq++;
	l->awake_ns = awake_ns;
	return 0;
}

/* The section of @tag as JSON; NULL: there is none next. */
static json_t *next_json(struct cis_sections_reader *r, enum cis_gone_tag tag)
{
	struct cis_section s;

	return cis_sections_next(r, &s) && s.tag == tag ? json_loadb(s.bytes, s.len, 0, NULL) : NULL;
}

static void next_stats(struct cis_sections_reader *r, struct cis_pager_stats *ret)
{
	struct cis_section s;

	memset(ret, 0, sizeof(*ret));
	if (cis_sections_next(r, &s) && s.tag == CIS_TAG_STATS)
		cis_stats_get(&s, ret);
}

static int get(struct cis_ledger *l, unsigned slot, struct cis_sections_reader *ret)
{
	return cis_sections_get(l->fd, (uint64_t)slot * SLOT_BYTES, l->buf, SLOT_BYTES, ret, NULL);
}

static void read_sums(struct cis_engine *e, bool is_truth)
{
	struct cis_ledger *l = e->ledger;
	struct cis_pager_stats stats = { 0 };
	struct cis_sections_reader r;

	for (unsigned slot = 0; slot < FIRST_GUEST; slot++) {
		json_t *j = get(l, slot, &r) ? NULL : next_json(&r, CIS_TAG_ENGINE);

		if (j && cis_json_number(j, "seq") > l->seq && !(cis_json_number(j, "seq") >> SEQ_BITS)) {
			l->seq = cis_json_number(j, "seq");
			l->forgotten = cis_json_number(j, "forgotten");
			l->awake_ns = cis_json_number(j, "awake_ns");
			next_stats(&r, &stats);
		}
		json_decref(j);
	}
	if (!is_truth)
		return;
	cis_metrics_forget(e, &stats);
	cis_awake_carry(e->awake, l->awake_ns);
}

/* Guests. */

static int write_guest(struct cis_ledger *l, struct cis_guest *g)
{
	struct cis_sections s = { 0 };
	unsigned slot = FIRST_GUEST;
	int rc;

	while (slot < SLOTS && l->used[slot])
		slot++;
	if (slot == SLOTS)
		return -ENOSPC;
	cis_gone_put(&s, g);
	rc = put(l, slot, &s);
	if (rc)
		return rc;
	l->used[slot] = true;
	g->ledger_slot = slot;
	return 0;
}

/*
 * One whose id another guest has by now, or that this version does not understand, is listed no more, but counted.
 *
 * Return: whether its slot is wanted further.
 */
static bool list_guest(struct cis_engine *e, unsigned slot, const json_t *j, struct cis_sections_reader *r)
{
	struct cis_pager_stats stats;
	struct cis_guest *g;
	struct cis_error err;
	int rc = cis_gone_get(e, j, &g, &err);

	next_stats(r, &stats);
	if (rc) {
		cis_log(CIS_LOG_WARN, "ledger: a guest that had gone is listed no more: %s", err.text);
		cis_metrics_forget(e, &stats);
		e->ledger->forgotten = cis_json_number(j, "serial");
		return write_sums(e) != 0; /* else it is in the sums, and its slot can be cleared */
	}
	g->last.stats = stats;
	g->ledger_slot = slot;
	return true;
}

/* Return: likewise. */
static bool look_at(struct cis_engine *e, unsigned slot, const json_t *j, struct cis_sections_reader *r, bool is_truth)
{
	uint64_t serial = cis_json_number(j, "serial");
	struct cis_guest *g = cis_guest_by_serial(e, serial);

	if (g && g->state == CIS_GUEST_GONE && !g->ledger_slot)
		g->ledger_slot = slot;
	if (g)
		return g->ledger_slot == slot; /* else it lives, or has been written once more since */
	return is_truth && serial != e->ledger->forgotten && list_guest(e, slot, j, r);
}

static void read_guests(struct cis_engine *e, bool is_truth)
{
	struct cis_ledger *l = e->ledger;
	struct cis_sections_reader r;

	for (unsigned slot = FIRST_GUEST; slot < SLOTS; slot++) {
		json_t *j;

		if (!l->used[slot])
			continue;
		j = get(l, slot, &r) ? NULL : next_json(&r, CIS_TAG_GONE);
		if (!(j && look_at(e, slot, j, &r, is_truth)))
			clear(l, slot); /* also what was not written to its end */
		json_decref(j);
	}
}

/* The next that is not a hole: most are, and guests wait meanwhile. */
static unsigned next_written(const struct cis_ledger *l, unsigned slot)
{
	off_t at = lseek(l->fd, (off_t)slot * SLOT_BYTES, SEEK_DATA);

	if (at < 0)
		return errno == ENXIO ? SLOTS : slot;
	return (unsigned)(at / SLOT_BYTES);
}

void cis_ledger_scan(struct cis_engine *e)
{
	struct cis_ledger *l = e->ledger;
	uint8_t head;
	size_t n;

	if (!l)
		return;
	memset(l->used, 0, sizeof(l->used));
	for (unsigned slot = next_written(l, FIRST_GUEST); slot < SLOTS; slot = next_written(l, slot + 1))
		l->used[slot] = !cis_fd_read(l->fd, (uint64_t)slot * SLOT_BYTES, &head, sizeof(head), &n) && n && head;
	l->is_scanned = true;
}

void cis_ledger_open(struct cis_engine *e, bool is_truth)
{
	struct cis_ledger *l = e->ledger;

	if (!l)
		return;
	read_sums(e, is_truth);
	read_guests(e, is_truth);
	l->is_open = true;
	for (size_t i = 0; i < e->nr_guests; i++)
		if (e->guests[i]->state == CIS_GUEST_GONE && !e->guests[i]->ledger_slot)
			write_guest(l, e->guests[i]);
	write_sums(e);
	cis_guests_drop_gone(e);
}

bool cis_ledger_is_unread(const struct cis_engine *e)
{
	return e->ledger && !e->ledger->is_open;
}

void cis_ledger_bury(struct cis_guest *g)
{
	struct cis_ledger *l = ours(g->engine);

	if (!l || !l->is_scanned || write_guest(l, g))
		return;
	CIS_POINT(ledger_buried);
}

void cis_ledger_forget(struct cis_guest *g)
{
	struct cis_ledger *l = open_of(g->engine);

	if (!l)
		return;
	l->forgotten = g->serial;
	if (write_sums(g->engine) || !g->ledger_slot)
		return;
	CIS_POINT(ledger_summed);
	clear(l, g->ledger_slot);
	CIS_POINT(ledger_cleared);
}

uint64_t cis_ledger_awake(struct cis_engine *e)
{
	struct cis_ledger *l = open_of(e);

	if (!l)
		return cis_awake_held_ns(e->awake);
	if (cis_awake_held_ns(e->awake) != l->awake_ns)
		write_sums(e);
	return l->awake_ns;
}

/* Start and end. */

void cis_ledger_use(void *ctx, int fd)
{
	struct cis_engine *e = ctx;
	struct cis_ledger *l = calloc(1, sizeof(*l));

	if (!l) {
		close(fd);
		return; /* the one before, if any, is used on */
	}
	for (size_t i = 0; i < e->nr_guests; i++)
		e->guests[i]->ledger_slot = 0;
	cis_ledger_destroy(e->ledger);
	e->ledger = l;
	l->fd = fd;
	if (e->mode != CIS_ENGINE_SERVES)
		return;
	cis_ledger_scan(e);
	cis_ledger_open(e, false);
}

void cis_ledger_destroy(struct cis_ledger *l)
{
	if (!l)
		return;
	close(l->fd);
	free(l);
}
