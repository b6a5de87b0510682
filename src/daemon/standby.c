/* The engine that follows: after a crash at once, or beside one that serves, when that one has handed over. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/point.h"
#include "daemon/guest_int.h"
#include "daemon/handover.h"
#include "daemon/heir.h"
#include "daemon/ledger.h"

#define SERIAL_SHIFT 32 /* serials of engines of one keeper never meet: some listeners are remembered by silent connections alone */

void cis_standby_describe(const struct cis_engine *e, struct cis_wire_hello *ret)
{
	*ret = (struct cis_wire_hello){ .wire = CIS_WIRE_VERSION, .layout_min = CIS_STATE_LAYOUT_MIN, .layout_max = e->layout,
					.version = CISTERN_VERSION };
}

int cis_standby_hello(struct cis_engine *e)
{
	struct cis_wire_hello hello;

	cis_standby_describe(e, &hello);
	return cis_keeper_link_hello(e->link, &hello);
}

void cis_standby_role(void *ctx, enum cis_wire_role role)
{
	((struct cis_engine *)ctx)->role = role;
}

static void count(struct cis_engine *e, size_t *ret_served, size_t *ret_stalled)
{
	*ret_served = *ret_stalled = 0;
	for (size_t i = 0; i < e->nr_guests; i++) {
		*ret_served += e->guests[i]->adopted && e->guests[i]->begun;
		*ret_stalled += e->guests[i]->stalled;
	}
}

static void serve(struct cis_engine *e, const char *how)
{
	uint64_t before = cis_now_ns(NULL);
	size_t served, stalled;

	e->mode = CIS_ENGINE_SERVES;
	cis_guests_settle(e);
	cis_keeper_link_ready(e->link, 0);
	count(e, &served, &stalled);
	e->takeover_ns = cis_now_ns(NULL) - before;
	if (served || stalled)
		cis_log(CIS_LOG_WARN, "engine %llu: %s %zu guests in %.1f ms, %zu more are stalled",
			(unsigned long long)e->generation, how, served, (double)e->takeover_ns / 1e6, stalled);
}

static void refuse(struct cis_engine *e, int rc, const struct cis_error *err)
{
	cis_log(CIS_LOG_ERROR, "engine %llu: cannot follow: %s", (unsigned long long)e->generation, err->text);
	cis_keeper_link_refuse_role(e->link, -rc, err->text);
	e->handover.step = CIS_HANDOVER_OVER;
	e->handover.exit = 1;
}

/* Return: 0 also for one that the other engine cannot serve either. */
static int open_guest(struct cis_guest *g, bool seat, struct cis_error *err)
{
	struct cis_conn *c = g->conn;
	int rc = 0;

	if (!g->adopted || !c || c->exited)
		return 0;
	if (c->trouble.code)
		rc = cis_fail(err, c->trouble.code, "%s", c->trouble.text);
	else if (c->complete && c->state_fd >= 0)
		rc = cis_guest_open(g, err);
	if (!rc && !seat && g->state_map.header)
		cis_guest_preview(g);
	if (!rc && seat && g->accepted && c->state_fd >= 0)
		rc = cis_guest_seat(g, err);
	if (!rc)
		return 0;
	cis_fail_prefix(err, -rc, "guest %s", g->id);
	cis_guest_close(g);
	return g->stalled ? 0 : rc;
}

static int open_all(struct cis_engine *e, bool seat, struct cis_error *err)
{
	int rc = 0;

	for (size_t i = 0; i < e->nr_guests && !rc; i++)
		rc = open_guest(e->guests[i], seat, err);
	return rc;
}

static void ready(struct cis_engine *e, unsigned step, int rc, const struct cis_error *err)
{
	if (step == 1)
		CIS_POINT(standby_opened);
	else
		CIS_POINT(standby_seated);
	if (!rc && e->has_unread_note)
		refuse(e, -EPROTONOSUPPORT, &(struct cis_error){ .text = "a guest's note cannot be understood, the log says why" });
	else if (rc)
		refuse(e, rc, err);
	else
		cis_keeper_link_ready(e->link, step);
}

void cis_standby_replayed(void *ctx, uint64_t generation)
{
	struct cis_engine *e = ctx;
	struct cis_error err;

	if (e->mode != CIS_ENGINE_LEARNS) {
		cis_heir_told(e);
		return;
	}
	e->generation = generation;
	if (generation << SERIAL_SHIFT > e->next_serial)
		e->next_serial = generation << SERIAL_SHIFT;
	if (e->role == CIS_WIRE_STANDBY) {
		ready(e, 1, open_all(e, false, &err), &err);
		return;
	}
	cis_ledger_scan(e);
	serve(e, "took over");
	cis_ledger_open(e, true);
}

/* The other engine stands still: from here on states are what they will be. */
void cis_standby_take(void *ctx, int sections)
{
	struct cis_engine *e = ctx;
	struct cis_error err;
	int rc = cis_handover_check(e, sections, &err);

	close(sections);
	CIS_POINT(standby_read);
	ready(e, 2, rc ? rc : open_all(e, true, &err), &err);
}

void cis_standby_go(void *ctx, uint64_t paused_ns)
{
	struct cis_engine *e = ctx;

	CIS_POINT(standby_goes);
	cis_ledger_scan(e);
	serve(e, "was handed");
	cis_handover_read(e);
	cis_ledger_open(e, false);
	cis_log(CIS_LOG_INFO, "engine %llu: the guests stood still for %.3f ms until this engine was told to go",
		(unsigned long long)e->generation, (double)paused_ns / 1e6);
}

static void forget(struct cis_guest *g)
{
	cis_guest_release(g);
	cis_guest_forget(g);
}

/* A guest that is not there any more, or a monitor that was refused and whose guest is expected still. */
void cis_standby_released(void *ctx, uint64_t conn)
{
	struct cis_conn *c = cis_conn_find(ctx, conn);
	struct cis_guest *g = c ? c->guest : NULL;

	if (g)
		cis_guest_close(g);
	cis_conn_drop(c);
	if (g && g->listening) {
		free(g->regions);
		g->regions = NULL;
		g->adopted = g->accepted = g->stalled = false;
		g->state = CIS_GUEST_EXPECTED;
	} else if (g) {
		forget(g);
	}
}

void cis_standby_unlistened(void *ctx, uint64_t listener)
{
	struct cis_guest *g = cis_guest_by_serial(ctx, listener);

	if (!g)
		return;
	g->listening = false;
	if (!g->conn) /* else it is served, and its socket is of no use any more */
		forget(g);
}
