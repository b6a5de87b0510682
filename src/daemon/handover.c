/*
 * The engine that is followed: it stands still, hands over, and goes or goes on.
 *
 *	NONE ──request──▶ ASKED ──QUIESCE──▶ PAUSING ──all seats stand still──▶ PAUSED ──LET_GO──▶ OVER
 *	  ▲                 │ UPGRADING with an error  │ RESUME                   │ RESUME
 *	  └─────────────────┴──────────────────────────┴──────────────────────────┘
 */
#include "daemon/handover.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/point.h"
#include "daemon/api.h"
#include "daemon/guest_int.h"
#include "daemon/request.h"
#include "daemon/text.h"
#include "os/memfd.h"

#define LINGER_NS 1000000000u /* for requests that are open */

static void answer_failed(struct cis_engine *e, int error, const char *why)
{
	struct cis_request *req = e->handover.asked;

	e->handover.asked = NULL;
	e->handover.step = CIS_HANDOVER_NONE;
	if (req)
		cis_request_refuse(req, error == EBUSY ? "busy" : "upgrade_failed", "%s", why);
}

void cis_handover_ask(struct cis_engine *e, struct cis_request *req, const char *exec, bool keeper)
{
	int rc;

	if (!e->has_keeper || e->handover.step != CIS_HANDOVER_NONE) {
		cis_request_refuse(req, "busy", "%s", e->has_keeper ? "an upgrade is under way" : "the keeper is gone");
		return;
	}
	cis_request_wait(req, 0);
	e->handover.step = CIS_HANDOVER_ASKED;
	e->handover.asked = req;
	rc = keeper ? cis_keeper_link_exec(e->link, exec) : cis_keeper_link_upgrade(e->link, exec);
	if (rc)
		answer_failed(e, -rc, "the keeper cannot be asked");
}

void cis_handover_upgrading(void *ctx, int error, const char *why)
{
	struct cis_engine *e = ctx;

	if (!error) {
		cis_handover_prepare(e);
		return;
	}
	cis_log(CIS_LOG_ERROR, "no upgrade: %s", why);
	answer_failed(e, error, why);
}

void cis_handover_execed(void *ctx, int error, const char *why)
{
	struct cis_engine *e = ctx;
	struct cis_request *req = e->handover.asked;

	if (error) {
		cis_handover_upgrading(ctx, error, why);
		return;
	}
	e->handover.asked = NULL;
	e->handover.step = CIS_HANDOVER_NONE;
	if (req)
		cis_request_answer(req, 200, json_pack("{s:i}", "keeper_pid", (int)e->keeper_pid));
}

/* The engine that follows does not know the layout: it gets a copy in the newest one that it knows. */
static int convert(struct cis_guest *g, unsigned layout, struct cis_error *err)
{
	struct cis_state copy;
	int fd, rc = cis_guest_convert(g, layout, &fd, &copy, err);

	if (rc)
		return rc;
	if (cis_keeper_link_swap(g->engine->link, g->conn->id, fd, copy.bytes))
		rc = cis_fail(err, EPIPE, "the keeper is gone");
	cis_memfd_unmap(copy.header, copy.bytes);
	close(fd);
	return rc;
}

static int convert_all(struct cis_engine *e, struct cis_error *err)
{
	unsigned max = e->handover.successor.layout_max;
	int rc = 0;

	for (size_t i = 0; i < e->nr_guests && !rc; i++) {
		struct cis_guest *g = e->guests[i];

		if (g->seat && g->state_map.header->layout > max)
			rc = convert(g, max, err);
	}
	return rc;
}

static void hand_over(struct cis_engine *e)
{
	uint64_t still_ns = cis_now_ns(NULL);
	struct cis_error err;
	int fd = -1, rc = convert_all(e, &err);

	if (!rc)
		rc = cis_handover_write(e, &fd, &err);
	e->handover.step = CIS_HANDOVER_PAUSED;
	CIS_POINT(handed_over);
	if (!rc && cis_keeper_link_handover(e->link, fd, 0, NULL))
		rc = cis_fail(&err, EPIPE, "what is handed over cannot be sent");
	if (rc)
		cis_keeper_link_handover(e->link, -1, -rc, err.text);
	if (fd >= 0)
		close(fd);
	cis_log(CIS_LOG_DEBUG, "engine %llu: stood still after %.2f ms, handed over %.2f ms later", (unsigned long long)e->generation,
		(double)(still_ns - e->handover.since_ns) / 1e6, (double)(cis_now_ns(NULL) - still_ns) / 1e6);
}

static void one_less(struct cis_engine *e)
{
	if (e->handover.step == CIS_HANDOVER_PAUSING && !--e->handover.pausing)
		hand_over(e);
}

void cis_handover_paused(struct cis_guest *g)
{
	g->paused = true;
	one_less(g->engine);
}

/* One that was on its way out is waited for likewise, so that it need not be handed over. */
void cis_handover_left(struct cis_engine *e, bool was_paused)
{
	if (!was_paused)
		one_less(e);
}

void cis_handover_quiesce(void *ctx, const struct cis_wire_hello *successor)
{
	struct cis_engine *e = ctx;

	e->handover = (struct cis_handover){ .step = CIS_HANDOVER_PAUSING, .asked = e->handover.asked, .successor = *successor,
					     .since_ns = cis_now_ns(NULL), .pausing = 1 };
	e->mode = CIS_ENGINE_STANDS_STILL;
	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		if (!g->seat)
			continue;
		e->handover.pausing++;
		g->paused = false;
		if (!g->leaving)
			cis_seat_pause(g->seat);
	}
	one_less(e);
}

void cis_handover_resume(void *ctx, int error, const char *why)
{
	struct cis_engine *e = ctx;

	cis_log(CIS_LOG_ERROR, "no upgrade, this engine goes on after %.1f ms: %s",
		(double)(cis_now_ns(NULL) - e->handover.since_ns) / 1e6, why);
	for (size_t i = 0; i < e->nr_guests; i++) {
		e->guests[i]->paused = false;
		if (e->guests[i]->seat && !e->guests[i]->leaving)
			cis_seat_resume(e->guests[i]->seat);
	}
	e->mode = CIS_ENGINE_SERVES;
	answer_failed(e, error, why);
	cis_guests_settle(e);
}

void cis_handover_let_go(void *ctx)
{
	struct cis_engine *e = ctx;
	struct cis_handover *h = &e->handover;
	uint64_t now = cis_now_ns(NULL);
	json_t *from = json_pack("{s:s, s:i, s:I}", "version", CISTERN_VERSION, "pid", (int)getpid(), "engine", (json_int_t)e->generation);

	cis_log(CIS_LOG_INFO, "engine %llu: let go, version %s serves", (unsigned long long)e->generation, h->successor.version);
	h->step = CIS_HANDOVER_OVER;
	h->until_ns = now + LINGER_NS;
	h->exit = 0;
	if (h->asked)
		cis_request_answer(h->asked, 200, json_pack("{s:o, s:{s:o}, s:f}", "from", from, "to", "version",
							   cis_text_json(h->successor.version), "blackout_ms",
							   (double)(now - h->since_ns) / 1e6));
	else
		json_decref(from);
	h->asked = NULL;
	cis_api_let_go(e->api);
}
