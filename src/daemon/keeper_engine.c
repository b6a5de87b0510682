/* The wires to engines: telling them, doing what they ask for. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"
#include "base/point.h"
#include "daemon/keeper_int.h"

/* After an engine has closed its wire, for it to end by itself, which says more of the reason. */
#define LINGER_NS	  5000000000ull
#define STANDBY_LINGER_NS 100000000ull

void engine_tell(struct engine *e, struct untold *u)
{
	if (u->in[e->slot].queued || e->wire.fd < 0 || e->role == ENGINE_LEAVES)
		return;
	u->in[e->slot].queued = true;
	u->in[e->slot].next = NULL;
	*e->untold_end = u;
	e->untold_end = &u->in[e->slot].next;
}

void engine_untell(struct engine *e, struct untold *u)
{
	struct untold **p = &e->untold;

	if (!u->in[e->slot].queued)
		return;
	while (*p != u)
		p = &(*p)->in[e->slot].next;
	*p = u->in[e->slot].next;
	if (!*p)
		e->untold_end = p;
	u->in[e->slot].queued = false;
}

void engines_tell(struct cis_keeper *k, struct untold *u)
{
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		engine_tell(&k->engines[i], u);
}

void engines_untell(struct cis_keeper *k, struct untold *u)
{
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		engine_untell(&k->engines[i], u);
}

void engine_answer(struct engine *e, enum engine_due due, int error, const char *text)
{
	struct answer *a;

	if (!e)
		return;
	a = due == DUE_EXECED ? &e->execed : &e->upgrading;
	a->error = error;
	snprintf(a->text, sizeof(a->text), "%s", text);
	e->due |= due;
}

/* Without memory for the message it is tried again, as when the wire is full: what is not told would be lost. */
int engine_send(struct engine *e, const struct cis_wire_msg *msg)
{
	int r = e && e->wire.fd >= 0 ? cis_wire_send(e->wire.fd, msg) : -EPIPE;

	return r == -ENOBUFS || r == -ENOMEM ? -EAGAIN : r;
}

/* What a test may stop at. */
static void reach_point(enum cis_wire_type said)
{
	if (said == CIS_WIRE_REPLAYED)
		CIS_POINT(keeper_replayed);
	else if (said == CIS_WIRE_QUIESCE)
		CIS_POINT(keeper_quiesced);
	else if (said == CIS_WIRE_TAKE)
		CIS_POINT(keeper_taken);
	else if (said == CIS_WIRE_GO)
		CIS_POINT(keeper_go);
	else if (said == CIS_WIRE_LET_GO)
		CIS_POINT(keeper_let_go);
	else if (said == CIS_WIRE_RESUME)
		CIS_POINT(keeper_resumed);
}

static int tell_due(struct engine *e, enum engine_due due, const struct cis_wire_msg *msg)
{
	int r;

	if (!(e->due & due))
		return 0;
	r = engine_send(e, msg);
	if (r)
		return r;
	e->due &= ~due;
	reach_point(msg->type);
	return 0;
}

static int tell_gone(struct engine *e)
{
	int r = 0;

	for (; e->nr_gone && !r; e->nr_gone -= !r) {
		const struct gone *g = &e->gone[e->nr_gone - 1];

		r = engine_send(e, &(struct cis_wire_msg){ .type = g->type, .id = g->id });
	}
	return r;
}

static int tell_quiesce(struct engine *e)
{
	struct cis_keeper *k = e->wire.k;
	uint8_t hello[CIS_WIRE_HELLO_BYTES];
	int r;

	if (!(e->due & DUE_QUIESCE))
		return 0;
	cis_wire_hello_put(&k->handover.standby->hello, hello);
	r = tell_due(e, DUE_QUIESCE,
		     &(struct cis_wire_msg){ .type = CIS_WIRE_QUIESCE, .body = hello, .body_len = sizeof(hello) });
	if (!r)
		handover_quiesced(k);
	return r;
}

static int tell_answer(struct engine *e, enum engine_due due, enum cis_wire_type type, const struct answer *a)
{
	return tell_due(e, due, &(struct cis_wire_msg){ .type = type, .error = (uint32_t)a->error, .body = a->text,
							.body_len = strlen(a->text) });
}

/* Not before the other one knows that it is let go: without a keeper it would go on, and two would serve. */
static int tell_go(struct engine *e)
{
	struct cis_keeper *k = e->wire.k;
	uint64_t paused_ns = keeper_now(k) - e->paused_ns;

	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		if (k->engines[i].wire.fd >= 0 && k->engines[i].due & DUE_LET_GO)
			return 0; /* its wire is full, and is watched */
	return tell_due(e, DUE_GO, &(struct cis_wire_msg){ .type = CIS_WIRE_GO, .arg = paused_ns });
}

static int tell_ledger(struct engine *e)
{
	int fd = e->due & DUE_LEDGER ? keep_ledger(e->wire.k) : -1;

	if (fd < 0)
		e->due &= ~(unsigned)DUE_LEDGER; /* it does without */
	return tell_due(e, DUE_LEDGER, &(struct cis_wire_msg){ .type = CIS_WIRE_LEDGER, .fds = &fd, .nr_fds = 1 });
}

static int tell_heir(struct engine *e)
{
	struct cis_keeper *k = e->wire.k;
	int fds[] = { k->heir.fd, k->keep.lock };

	if (fds[0] < 0 || fds[1] < 0)
		e->due &= ~(unsigned)DUE_HEIR;
	return tell_due(e, DUE_HEIR, &(struct cis_wire_msg){ .type = CIS_WIRE_HEIR, .fds = fds, .nr_fds = 2 });
}

/* Where one engine follows another. */
static int tell_succession(struct engine *e)
{
	struct cis_wire_msg take = { .type = CIS_WIRE_TAKE, .fds = &e->wire.k->handover.sections, .nr_fds = 1 };
	int r = tell_answer(e, DUE_UPGRADING, CIS_WIRE_UPGRADING, &e->upgrading);

	if (!r)
		r = tell_quiesce(e);
	if (!r)
		r = tell_due(e, DUE_TAKE, &take);
	if (!r)
		r = tell_answer(e, DUE_RESUME, CIS_WIRE_RESUME, &e->upgrading);
	if (!r)
		r = tell_answer(e, DUE_EXECED, CIS_WIRE_EXECED, &e->execed);
	if (!r)
		r = tell_go(e);
	return r ? r : tell_due(e, DUE_LET_GO, &(struct cis_wire_msg){ .type = CIS_WIRE_LET_GO });
}

/* Whoever has not said what it is gets nothing of a guest's.  Return: 0, -EAGAIN, ... */
static int tell_all(struct engine *e)
{
	uint64_t role = e->role == ENGINE_STANDS_BY ? CIS_WIRE_STANDBY : CIS_WIRE_SERVE;
	int r = tell_due(e, DUE_ROLE, &(struct cis_wire_msg){ .type = CIS_WIRE_ROLE, .arg = role });

	if (r || !e->has_hello)
		return r;
	r = tell_ledger(e);
	if (!r)
		r = tell_heir(e);
	while (e->untold && !r) {
		struct untold *u = e->untold;

		engine_untell(e, u);
		r = u->tell(e, u);
		if (r)
			engine_tell(e, u); /* goes on where it stopped */
	}
	if (!r)
		r = tell_gone(e);
	if (!r)
		r = tell_due(e, DUE_REPLAYED, &(struct cis_wire_msg){ .type = CIS_WIRE_REPLAYED, .arg = e->generation });
	if (!r)
		r = tell_succession(e);
	return r ? r : tell_due(e, DUE_STOP, &(struct cis_wire_msg){ .type = CIS_WIRE_STOP });
}

static void do_listen(struct cis_keeper *k, const struct cis_wire_msg *msg)
{
	struct cis_wire_listen listen;

	if (!cis_wire_listen_get(msg->body, msg->body_len, &listen))
		listener_open(k, msg->id, &listen);
	else
		cis_log(CIS_LOG_ERROR,
			"keeper: the engine asked for a listener in a way that makes no sense; ignored");
}

/* Return: false when it has to go. */
static bool take_hello(struct engine *e, const struct cis_wire_msg *msg)
{
	const char *why = msg->type != CIS_WIRE_HELLO ? "its first word is not HELLO" :
			  cis_wire_hello_get(msg->body, msg->body_len, &e->hello) ? "its HELLO makes no sense" :
			  e->hello.wire != CIS_WIRE_VERSION ? "it is of another version of what keeper and engine say" : NULL;

	e->has_hello = !why;
	if (e->role == ENGINE_STANDS_BY && why)
		handover_fail(e->wire.k, EPROTO, "the new engine is no engine: %s", why);
	else if (e->role == ENGINE_STANDS_BY)
		handover_hello(e);
	else if (why)
		cis_log(CIS_LOG_ERROR, "keeper: the engine is refused and ended: %s", why);
	return !why;
}

static void engine_is_ready(struct cis_keeper *k)
{
	k->was_ready = true;
	keep_say(k, "READY=1\nSTATUS=serving");
}

static void note_and_say(struct conn *c, struct engine *e, const struct cis_wire_msg *msg)
{
	size_t say = msg->arg < msg->body_len ? (size_t)msg->arg : 0, len = msg->body_len - say;

	conn_note(c, e, msg->body, len);
	conn_say(c, (const char *)msg->body + len, say);
}

/* A connection that is not known any more was released while the request was on its way. */
static void obey_serving(struct cis_keeper *k, struct engine *e, struct cis_wire_msg *msg)
{
	struct conn *c = conn_find(k, msg->id);

	if (msg->type == CIS_WIRE_LISTEN)
		do_listen(k, msg);
	else if (msg->type == CIS_WIRE_UNLISTEN)
		listener_close(k, msg->id);
	else if (msg->type == CIS_WIRE_READY)
		engine_is_ready(k);
	else if (msg->type == CIS_WIRE_UPGRADE)
		handover_begin(k, msg);
	else if (msg->type == CIS_WIRE_EXEC)
		exec_begin(k, msg);
	else if (msg->type == CIS_WIRE_HANDOVER)
		handover_take(k, msg);
	else if (c && msg->type == CIS_WIRE_SWAP)
		handover_swap(k, c, msg);
	else if (c && msg->type == CIS_WIRE_STATE)
		conn_make_state(c, msg->arg);
	else if (c && msg->type == CIS_WIRE_NOTE)
		note_and_say(c, e, msg);
	else if (c && msg->type == CIS_WIRE_SAY)
		conn_say(c, msg->body, msg->body_len < CIS_WIRE_SAY_MAX ? msg->body_len : CIS_WIRE_SAY_MAX);
	else if (c && msg->type == CIS_WIRE_RELEASE)
		conn_release(k, c);
}

/* What an engine says that was let go is not heard any more. */
static void obey(struct engine *e, struct cis_wire_msg *msg)
{
	if (e->role == ENGINE_SERVES)
		obey_serving(e->wire.k, e, msg);
	else if (e->role == ENGINE_STANDS_BY)
		handover_obey(e, msg);
}

static void wire_lost(struct engine *e, int r)
{
	bool is_standby = e->role == ENGINE_STANDS_BY;

	if (is_standby && r != -EPIPE)
		handover_fail(e->wire.k, EPROTO, "the new engine %s", r == -EPROTONOSUPPORT ?
			      "speaks another version of what keeper and engine say" : "cannot be understood");
	else if (r != -EPIPE)
		cis_log(CIS_LOG_ERROR, "keeper: the engine cannot be understood: %s; it is ended", strerror(-r));
	engine_close(e);
	if (r != -EPIPE)
		engine_kill(e);
	else if (e->pid)
		e->kill_ns = keeper_now(e->wire.k) + (is_standby ? STANDBY_LINGER_NS : LINGER_NS);
}

/* Return: false when nothing more has come. */
static bool take_message(struct engine *e)
{
	struct cis_wire_msg msg;
	int r = cis_wire_recv(e->wire.fd, &e->wire.k->wire_buf, &msg);

	if (r == -EAGAIN)
		return false;
	if (!r && msg.fds_lost) { /* only SWAP and HANDOVER bring descriptors */
		handover_fail(e->wire.k, ENOBUFS, "the keeper has no descriptor left for what the engine hands over");
		return true;
	}
	if (r) {
		wire_lost(e, r);
		return false;
	}
	if (e->has_hello) {
		obey(e, &msg);
	} else if (!take_hello(e, &msg)) {
		engine_close(e);
		engine_kill(e);
	}
	cis_fds_close(msg.fds, msg.nr_fds); /* that nobody took */
	return e->wire.fd >= 0;
}

void engine_hear_out(struct engine *e)
{
	while (e->wire.fd >= 0 && take_message(e))
		;
	engine_close(e);
}

void engine_flush(struct engine *e)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &e->wire };
	int r;

	if (e->wire.fd < 0)
		return;
	r = tell_all(e);
	if (r && r != -EAGAIN) {
		engine_hear_out(e);
		return;
	}
	if (e->is_full == (r == -EAGAIN))
		return;
	e->is_full = r == -EAGAIN;
	if (e->is_full)
		ev.events |= EPOLLOUT;
	epoll_ctl(e->wire.k->epoll, EPOLL_CTL_MOD, e->wire.fd, &ev);
}

void engines_flush(struct cis_keeper *k)
{
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		engine_flush(&k->engines[i]);
}

/* When it is only writable, there is nothing to take, and the loop goes on telling. */
static void wire_ready(struct watch *w, uint32_t events)
{
	take_message((struct engine *)((char *)w - offsetof(struct engine, wire)));
}

void engine_close(struct engine *e)
{
	struct cis_keeper *k = e->wire.k;

	if (e->wire.fd < 0)
		return;
	while (e->untold)
		engine_untell(e, e->untold);
	watch_close(&e->wire);
	free(e->gone);
	e->gone = NULL;
	e->nr_gone = e->room_gone = 0;
	if (e == k->serving) {
		listeners_drop_failed(k);
		conns_engine_gone(k);
	}
	if (!e->pid)
		engine_gone(e, "has closed its wire");
}

void engine_let_go(struct engine *e)
{
	while (e->untold)
		engine_untell(e, e->untold);
	e->role = ENGINE_LEAVES;
	e->due = DUE_LET_GO;
}

void engine_tell_gone(struct engine *e, enum cis_wire_type type, uint64_t id)
{
	size_t room = e->room_gone ? 2 * e->room_gone : 16;
	struct gone *gone = e->gone;

	if (e->wire.fd < 0)
		return;
	if (e->nr_gone == e->room_gone) {
		gone = realloc(gone, room * sizeof(*gone));
		if (!gone) {
			handover_fail(e->wire.k, ENOMEM, "no memory to tell the new engine what has gone");
			return;
		}
		e->gone = gone;
		e->room_gone = room;
	}
	gone[e->nr_gone++] = (struct gone){ type, id };
}

struct engine *engine_free(struct cis_keeper *k)
{
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		if (k->engines[i].role == ENGINE_NONE)
			return &k->engines[i];
	return NULL;
}

int engine_connect(struct cis_keeper *k, struct engine *e, int fd, enum engine_role role)
{
	int flags = fcntl(fd, F_GETFL), r;

	r = flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : watch_add(k, &e->wire, fd, EPOLLIN, wire_ready);
	if (r) {
		close(fd);
		return r;
	}
	e->role = role;
	e->generation = ++k->generation;
	e->started_ns = keeper_now(k);
	e->has_hello = e->is_full = e->has_ended = false;
	e->due = DUE_ROLE | DUE_LEDGER | DUE_HEIR | DUE_REPLAYED | (k->is_stopping && role == ENGINE_SERVES ? DUE_STOP : 0);
	e->untold = NULL;
	e->untold_end = &e->untold;
	if (role == ENGINE_SERVES)
		k->serving = e;
	listeners_untell(e);
	conns_untell(e);
	return 0;
}

int engine_resume(struct cis_keeper *k, struct engine *e, int fd, uint64_t generation, const struct cis_wire_hello *hello)
{
	int r = watch_add(k, &e->wire, fd, EPOLLIN, wire_ready);

	if (r)
		return r;
	e->role = ENGINE_SERVES;
	e->generation = generation;
	e->started_ns = keeper_now(k);
	e->has_hello = true;
	e->hello = *hello;
	e->due = DUE_LEDGER | DUE_HEIR; /* the keeper before may not have known of them */
	e->untold_end = &e->untold;
	k->serving = e;
	return 0;
}

int cis_keeper_attach(struct cis_keeper *k, int fd, struct cis_error *err)
{
	struct engine *e = engine_free(k);
	int r;

	if (k->serving)
		return cis_fail(err, EBUSY, "keeper: there is an engine already");
	r = engine_connect(k, e, fd, ENGINE_SERVES);
	if (r)
		return cis_fail(err, -r, "keeper: the wire: %s", strerror(-r));
	engines_flush(k);
	return 0;
}
