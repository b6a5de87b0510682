/* What the keeper tells of guests, and what is done about it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/drain.h"
#include "daemon/events.h"
#include "daemon/guest_int.h"
#include "daemon/handover.h"
#include "daemon/heir.h"
#include "daemon/ledger.h"
#include "daemon/log.h"
#include "os/sock.h"

static void turn_away(struct cis_conn *c, const char *why)
{
	cis_keeper_link_refuse(c->engine->link, c->id, why);
	cis_conn_drop(c);
}

void cis_guest_refuse(struct cis_guest *g, const struct cis_error *err)
{
	cis_log(CIS_LOG_WARN, "guest=%s pid=%d: handshake refused: %s", g->id, (int)g->peer.pid, err->text);
	cis_events_failed(g->engine->events, g, err->text, true);
	snprintf(g->error, sizeof(g->error), "%s", err->text);
	cis_guest_close(g);
	free(g->regions);
	g->regions = NULL;
	g->accepted = g->in_place = false;
	turn_away(g->conn, err->text);
}

/* Its memory is held by the keeper, so it can wait; its connection is never given up for this. */
static void stall(struct cis_guest *g, const struct cis_error *err)
{
	bool again = g->stalled && !strcmp(g->error, err->text);

	cis_guest_close(g);
	cis_guest_peek(g);
	g->stalled = true;
	snprintf(g->error, sizeof(g->error), "%s", err->text);
	if (again)
		return;
	cis_log(CIS_LOG_ERROR, "guest=%s pid=%d: cannot be served, waits, and is tried again every second: %s", g->id,
		(int)g->peer.pid, err->text);
	cis_events_failed(g->engine->events, g, err->text, true);
	if (g->conn->trouble.code != CIS_WIRE_ORPHAN) /* what it said is not known here: the note before stays right */
		cis_guest_note_changed(g);
}

/* Whoever was served by an engine before waits; anybody else may come again. */
static void fail(struct cis_guest *g, const struct cis_error *err)
{
	if (g->adopted)
		stall(g, err);
	else
		cis_guest_refuse(g, err);
}

void cis_guest_filled(struct cis_guest *g, enum cis_fill level)
{
	if (!g->acked)
		cis_guest_note_acked(g);
	if (g->state < CIS_GUEST_FILLED)
		cis_guest_move(g, CIS_GUEST_FILLED);
	if (level == CIS_FILL_ALL)
		cis_guest_move(g, CIS_GUEST_INDEPENDENT);
}

/* Guests and their connections. */

static void take_note(struct cis_guest *g, const struct cis_guest_note *n)
{
	g->adopted = true;
	g->in_place = n->in_place;
	g->acked = n->acked;
	g->record = n->record;
	g->policy = n->policy;
	g->stalled = n->stalled;
	g->budget = n->budget;
	g->pinned = n->pinned;
	if (n->has_ns)
		memcpy(g->ns, n->ns, sizeof(g->ns));
	if (n->state > g->state)
		g->state = n->state;
}

static void attach(struct cis_conn *c, struct cis_guest *g)
{
	c->guest = g;
	g->conn = c;
	g->peer = c->peer;
}

/* Nobody would tell of it again: a guest that is served would be served no more. */
static void must_learn(int rc)
{
	if (rc == -ENOMEM)
		cis_give_up("no memory to learn of a guest");
}

/* One that was served before.  Return: false: it cannot be known, and stays with the keeper. */
static bool attach_noted(struct cis_conn *c)
{
	struct cis_guest *g = cis_guest_by_serial(c->engine, c->note->serial);
	struct cis_error err;
	int rc = g ? 0 : cis_guest_of_note(c->engine, c->note, &g, &err);

	must_learn(rc);
	if (rc) {
		cis_log(CIS_LOG_ERROR, "connection %llu, pid %d: cannot be served: %s", (unsigned long long)c->id, (int)c->peer.pid,
			err.text);
		return false;
	}
	if (g->conn && g->conn != c) {
		cis_log(CIS_LOG_ERROR, "guest=%s has two connections; the second, pid %d, is left alone", g->id, (int)c->peer.pid);
		return false;
	}
	attach(c, g);
	take_note(g, c->note);
	return true;
}

/* Return: false: it is nobody's, and gone. */
static bool attach_new(struct cis_conn *c)
{
	struct cis_guest *g = cis_guest_by_serial(c->engine, c->listener);
	struct cis_error err;

	/* A connection that was silent when its guest's socket was closed may speak long after the guest has gone. */
	if (!g || g->state != CIS_GUEST_EXPECTED || g->conn) {
		turn_away(c, "this guest is being served already");
		return false;
	}
	attach(c, g);
	if (cis_engine_is_short(c->engine)) {
		cis_fail(&err, EMFILE, "the daemon has no descriptors left for another guest");
		cis_guest_refuse(g, &err);
		return false;
	}
	return true;
}

static int ask_state(struct cis_guest *g, struct cis_error *err)
{
	int rc = cis_keeper_link_state(g->engine->link, g->conn->id, cis_state_bytes(g->engine->layout, g->nr_pages));

	return rc ? cis_fail(err, -rc, "keeper: %s", strerror(-rc)) : 0;
}

static int accept_now(struct cis_guest *g, struct cis_error *err)
{
	int rc = cis_guest_accept(g, err);

	if (rc)
		return rc;
	if (!g->adopted)
		cis_guest_note_changed(g); /* before there is anything that an engine that follows must take care of */
	return g->conn->state_fd < 0 ? ask_state(g, err) : 0;
}

static void serve(struct cis_guest *g)
{
	struct cis_error err;
	int rc = cis_guest_open(g, &err);

	if (!rc)
		rc = cis_guest_seat(g, &err);
	if (rc)
		fail(g, &err);
	else
		cis_guest_begin(g);
}

/* Its monitor ended while nobody served it: what a store has of it would stay there for ever. */
static void seat_to_forget(struct cis_guest *g)
{
	struct cis_error err;

	if (!*g->budget.pages || g->seat || g->conn->state_fd < 0 || !g->conn->complete)
		return;
	if (cis_guest_open(g, &err) || cis_guest_seat(g, &err))
		cis_log(CIS_LOG_WARN, "guest=%s its pages stay in its store: %s", g->id, err.text);
}

static void exited(struct cis_guest *g)
{
	struct cis_error err;

	if (g->adopted)
		seat_to_forget(g);
	if (g->accepted || g->adopted) { /* it was the guest, however short it lived */
		cis_guest_end(g, NULL);
		return;
	}
	cis_fail(&err, EPROTO, "the monitor ended before its guest was served");
	cis_guest_refuse(g, &err);
}

void cis_guest_advance(struct cis_guest *g)
{
	struct cis_conn *c = g->conn;
	struct cis_error err;

	if (!c || g->leaving)
		return;
	if (c->exited) {
		exited(g);
		return;
	}
	if (g->seat) {
		if (!g->begun)
			cis_guest_begin(g);
		return;
	}
	if (c->trouble.code) {
		fail(g, &c->trouble);
		return;
	}
	if (c->complete && !g->accepted && accept_now(g, &err)) {
		fail(g, &err);
		return;
	}
	if (g->accepted && c->state_error) {
		cis_fail(&err, c->state_error, "state memfd: %s", strerror(c->state_error));
		c->state_error = 0;
		fail(g, &err);
	} else if (g->accepted && c->state_fd >= 0) {
		serve(g);
	}
}

void cis_guest_try(struct cis_guest *g)
{
	struct cis_error err;

	if (g->accepted && g->conn && g->conn->state_fd < 0 && ask_state(g, &err))
		return;
	cis_guest_advance(g);
}

/* What was said of a connection is acted on when it is this engine's turn. */
static void settle(struct cis_conn *c)
{
	if (c->engine->mode != CIS_ENGINE_SERVES)
		return;
	if (!c->guest && c->note)
		return;
	if (c->guest || attach_new(c))
		cis_guest_advance(c->guest);
}

static void settle_noted(struct cis_conn *c, void *arg)
{
	(void)arg;
	if (c->note)
		settle(c);
}

static void settle_new(struct cis_conn *c, void *arg)
{
	(void)arg;
	if (!c->note)
		settle(c);
}

void cis_guests_settle(struct cis_engine *e)
{
	cis_conns_each(e, settle_noted, NULL);
	cis_conns_each(e, settle_new, NULL);
	cis_guest_tick(e);
	cis_host_budget_tick(e);
}

/* What the keeper says. */

static void expect_of_note(struct cis_engine *e, uint64_t listener, const struct cis_wire_listen *listen)
{
	struct cis_guest_note *note = NULL;
	struct cis_guest *g;
	struct cis_error err;
	int rc = cis_guest_note_parse(listen->note, listen->note_len, &note, &err);

	if (!rc && (note->serial != listener || note->state != CIS_GUEST_EXPECTED))
		rc = cis_fail(&err, EBADMSG, "note: of another listener, or of a guest that is expected no more");
	if (!rc)
		rc = cis_guest_of_note(e, note, &g, &err);
	cis_guest_note_destroy(note);
	must_learn(rc);
	if (rc) {
		e->has_unread_note = true;
		cis_log(CIS_LOG_ERROR, "%s: whoever is expected there cannot be: %s", listen->path, err.text);
	} else {
		g->listening = true;
	}
}

static void on_listening(void *ctx, uint64_t listener, const struct cis_wire_listen *listen, int error, const char *why)
{
	struct cis_engine *e = ctx;
	struct cis_guest *g = cis_guest_by_serial(e, listener);

	if (!g && !error && e->mode != CIS_ENGINE_SERVES) {
		expect_of_note(e, listener, listen);
		return;
	}
	if (!g || g->state != CIS_GUEST_EXPECTED) { /* deleted or given up meanwhile */
		if (!error)
			cis_keeper_link_unlisten(e->link, listener);
		return;
	}
	if (!error) {
		g->listening = true;
		if (!g->unbound)
			cis_guest_move(g, CIS_GUEST_EXPECTED);
		g->unbound = false;
		return;
	}
	snprintf(g->error, sizeof(g->error), "%s", why);
	g->listen_error = error;
	cis_guest_release(g);
	cis_guest_forget(g);
}

static void on_connection(void *ctx, uint64_t conn, uint64_t listener, const struct cis_peer *peer, int pidfd)
{
	struct cis_engine *e = ctx;
	struct cis_conn *c = cis_conn_create(e, conn, listener, peer, pidfd);

	if (c) {
		settle(c);
		return;
	}
	if (e->mode != CIS_ENGINE_SERVES)
		must_learn(-ENOMEM);
	cis_log(CIS_LOG_WARN, "connection %llu, pid %d: refused: out of memory", (unsigned long long)conn, (int)peer->pid);
	cis_keeper_link_refuse(e->link, conn, "out of memory");
}

static void on_noted(void *ctx, uint64_t conn, const void *text, size_t len)
{
	struct cis_conn *c = cis_conn_find(ctx, conn);
	struct cis_guest_note *note;
	struct cis_error err;
	int rc = c ? cis_guest_note_parse(text, len, &note, &err) : 0;

	if (!c)
		return;
	must_learn(rc);
	if (rc) {
		c->engine->has_unread_note = true;
		cis_log(CIS_LOG_ERROR, "connection %llu, pid %d: cannot be served: %s", (unsigned long long)conn, (int)c->peer.pid,
			err.text);
		return;
	}
	cis_guest_note_destroy(c->note);
	c->note = note;
	if (c->guest)
		take_note(c->guest, note);
	else
		attach_noted(c);
}

static void on_bytes(void *ctx, uint64_t conn, uint64_t at, const void *bytes, size_t len, const int *fds, size_t nr_fds)
{
	struct cis_conn *c = cis_conn_find(ctx, conn);
	int rc;

	(void)at;
	if (!c) {
		cis_fds_close(fds, nr_fds);
		return;
	}
	rc = cis_conn_feed(c, bytes, len, fds, nr_fds);
	if (c->note)
		must_learn(rc);
	settle(c);
}

static void on_broken(void *ctx, uint64_t conn, int error, const char *why)
{
	struct cis_conn *c = cis_conn_find(ctx, conn);

	if (!c || (c->guest && c->guest->seat))
		return;
	cis_fail(&c->trouble, error, "%s", why);
	settle(c);
}

static void on_eof(void *ctx, uint64_t conn)
{
	struct cis_conn *c = cis_conn_find(ctx, conn);

	if (!c)
		return;
	c->eof = true;
	if (!c->complete && !c->trouble.code)
		cis_handshake_end(c->hs, &c->trouble);
	settle(c);
}

static void on_exited(void *ctx, uint64_t conn)
{
	struct cis_conn *c = cis_conn_find(ctx, conn);

	if (!c)
		return;
	c->exited = true;
	settle(c);
}

static void on_state(void *ctx, uint64_t conn, int error, int memfd, uint64_t bytes)
{
	struct cis_conn *c = cis_conn_find(ctx, conn);

	if (!c || (c->guest && c->guest->seat)) {
		if (memfd >= 0)
			close(memfd);
		return;
	}
	if (c->guest)
		cis_guest_close(c->guest); /* it was mapped; another one is to be used */
	cis_conn_set_state(c, error, memfd, bytes);
	settle(c);
}

/* From now on only those that are there are served, and with the last of them the engine ends. */
static void stop_expecting(struct cis_engine *e, const char *why)
{
	e->stopping = true;
	for (size_t i = e->nr_guests; i-- > 0;)
		if (i < e->nr_guests && e->guests[i]->state == CIS_GUEST_EXPECTED)
			cis_guest_end(e->guests[i], why);
}

static void on_stop(void *ctx)
{
	struct cis_engine *e = ctx;

	cis_log(CIS_LOG_INFO, "stopping: no new guests");
	stop_expecting(e, "the daemon was stopped");
	if (e->config->stop_drains)
		cis_drain_stop(e);
}

static void on_lost(void *ctx)
{
	struct cis_engine *e = ctx;

	e->has_keeper = false;
	if (e->mode == CIS_ENGINE_LEARNS) { /* the guests are not this engine's */
		e->handover = (struct cis_handover){ .step = CIS_HANDOVER_OVER, .exit = 1 };
		return;
	}
	if (e->mode == CIS_ENGINE_STANDS_STILL && e->handover.step != CIS_HANDOVER_OVER)
		cis_handover_resume(e, ECONNRESET, "the keeper is gone");
	else if (e->handover.step == CIS_HANDOVER_ASKED)
		cis_handover_upgrading(e, ECONNRESET, "the keeper is gone");
	if (e->handover.step == CIS_HANDOVER_NONE && cis_heir_wait(e)) {
		cis_log(CIS_LOG_ERROR, "the keeper is gone: guests are served, no new ones are taken until cisternd is started again, which "
			"takes over");
		return;
	}
	cis_log(CIS_LOG_ERROR, "the keeper is gone: guests are served, no new ones are taken");
	listen(CIS_WIRE_CONTROL_FD, CIS_WIRE_CONTROL_BACKLOG); /* whoever connects is told that it is this process */
	stop_expecting(e, "the keeper is gone");
}

const struct cis_keeper_link_ops cis_guest_link_ops = {
	.listening = on_listening,
	.connection = on_connection,
	.bytes = on_bytes,
	.broken = on_broken,
	.eof = on_eof,
	.exited = on_exited,
	.state = on_state,
	.replayed = cis_standby_replayed,
	.stop = on_stop,
	.lost = on_lost,
	.role = cis_standby_role,
	.noted = on_noted,
	.upgrading = cis_handover_upgrading,
	.quiesce = cis_handover_quiesce,
	.take = cis_standby_take,
	.resume = cis_handover_resume,
	.let_go = cis_handover_let_go,
	.go = cis_standby_go,
	.execed = cis_handover_execed,
	.released = cis_standby_released,
	.unlistened = cis_standby_unlistened,
	.ledger = cis_ledger_use,
	.heir = cis_heir_known,
};
