/*
 * One engine hands over to another, both alive: doc/design/005-survive.md.
 *
 *	NONE ──UPGRADE──▶ HELLO ──HELLO──▶ LOAD ──READY 1──▶ PAUSE ──HANDOVER──▶ TAKE ──READY 2──▶ NONE
 *	                    └────────────────┴───────────────┴── anything else ────┴──▶ UNDO ──standby is gone──▶ NONE
 *
 * Nothing is given up before READY 2: whatever happens, the standby is ended and the engine that serves goes on.
 */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/point.h"
#include "daemon/keeper_int.h"
#include "os/pidfd.h"

#define LEAVE_NS 5000000000ull /* for an engine that was let go: it finishes what clients asked for */

static void step_to(struct cis_keeper *k, enum handover_step step)
{
	k->handover.step = step;
	k->handover.deadline_ns = keeper_now(k) + k->upgrade_ns;
}

static void drop_swap(struct conn *c)
{
	if (c->swap_fd >= 0)
		close(c->swap_fd);
	c->swap_fd = -1;
}

static void use_swap(struct conn *c)
{
	if (c->swap_fd < 0)
		return;
	if (c->state_fd >= 0)
		close(c->state_fd);
	c->state_fd = c->swap_fd;
	c->state_bytes = c->swap_bytes;
	c->swap_fd = -1;
	keep_conn_swapped(c);
}

static void finish(struct cis_keeper *k, void (*with_swap)(struct conn *c))
{
	struct handover *h = &k->handover;

	conns_each(k, with_swap);
	if (h->sections >= 0)
		close(h->sections);
	free(h->program);
	*h = (struct handover){ .sections = -1 };
}

/* The standby is wholly gone, and so is whatever it might have done. */
static void undone(struct cis_keeper *k)
{
	struct handover *h = &k->handover;

	cis_log(CIS_LOG_ERROR, "keeper: no hand-over: %s; %s", h->why,
		k->serving ? "the engine that serves goes on" : "another engine is started");
	CIS_POINT(keeper_undone);
	engine_answer(k->serving, h->has_quiesced ? DUE_RESUME : DUE_UPGRADING, h->error, h->why);
	finish(k, drop_swap);
}

void handover_fail(struct cis_keeper *k, int error, const char *fmt, ...)
{
	struct handover *h = &k->handover;
	va_list ap;

	if (h->step == HANDOVER_NONE || h->step == HANDOVER_UNDO)
		return;
	va_start(ap, fmt);
	vsnprintf(h->why, sizeof(h->why), fmt, ap);
	va_end(ap);
	h->error = error;
	h->step = HANDOVER_UNDO;
	if (k->serving)
		k->serving->due &= ~DUE_QUIESCE;
	CIS_POINT(keeper_failed);
	engine_kill(h->standby);
}

void handover_gone(struct engine *e, const char *how)
{
	struct cis_keeper *k = e->wire.k;
	struct handover *h = &k->handover;

	if (h->step == HANDOVER_NONE)
		return;
	if (e == k->serving) {
		handover_fail(k, ECANCELED, "the engine that serves %s", how);
	} else if (e == h->standby) {
		handover_fail(k, ECHILD, "the new engine %s before it was ready", how);
		undone(k);
	}
}

static int check_program(const char *path, struct cis_error *err)
{
	struct stat st;

	if (*path != '/')
		return cis_fail(err, EINVAL, "'%s' is not an absolute path", path);
	if (stat(path, &st))
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return cis_fail(err, EINVAL, "%s: is not a file", path);
	if (access(path, X_OK))
		return cis_fail(err, errno, "%s: cannot be executed: %s", path, strerror(errno));
	return 0;
}

int keeper_program(const struct cis_keeper *k, const struct cis_wire_msg *msg, char **ret, struct cis_error *err)
{
	char *path;
	int r;

	if (!k->argv)
		return cis_fail(err, ENOTSUP, "this keeper did not start its engine, and starts no other");
	if (msg->body_len >= PATH_MAX || memchr(msg->body, 0, msg->body_len))
		return cis_fail(err, EINVAL, "the path of the program makes no sense");
	path = msg->body_len ? strndup(msg->body, msg->body_len) : strdup(k->argv[0]);
	if (!path)
		return cis_fail(err, ENOMEM, "keeper: no memory");
	r = check_program(path, err);
	if (r)
		free(path);
	else
		*ret = path;
	return r;
}

static int begin(struct cis_keeper *k, const struct cis_wire_msg *msg, struct cis_error *err)
{
	struct handover *h = &k->handover;
	struct engine *e = engine_free(k);
	char *program;
	int r;

	if (h->step != HANDOVER_NONE)
		return cis_fail(err, EBUSY, "another hand-over is under way");
	if (k->exec.program)
		return cis_fail(err, EBUSY, "the keeper is about to become another program");
	if (!e)
		return cis_fail(err, EBUSY, "the engines before this one have not ended yet");
	r = keeper_program(k, msg, &program, err);
	if (r)
		return r;
	r = engine_start(k, e, ENGINE_STANDS_BY, program, err);
	if (r) {
		free(program);
		return r;
	}
	h->standby = e;
	h->program = program;
	step_to(k, HANDOVER_HELLO);
	cis_log(CIS_LOG_INFO, "keeper: %s is started, to follow the engine", program);
	return 0;
}

void handover_begin(struct cis_keeper *k, const struct cis_wire_msg *msg)
{
	struct cis_error err = { 0 };

	begin(k, msg, &err);
	if (err.code)
		cis_log(CIS_LOG_ERROR, "keeper: no hand-over: %s", err.text);
	engine_answer(k->serving, DUE_UPGRADING, err.code, err.text);
}

/* The engine that serves writes the layouts from its layout_min to its layout_max, and the standby has to read one of them. */
void handover_hello(struct engine *e)
{
	struct cis_keeper *k = e->wire.k;
	const struct cis_wire_hello *new = &e->hello, *old;

	if (k->handover.step != HANDOVER_HELLO)
		return;
	CIS_POINT(keeper_hello);
	old = &k->serving->hello;
	if (new->layout_min > old->layout_max || new->layout_max < old->layout_min)
		handover_fail(k, EPROTONOSUPPORT,
			      "the new engine, version %s, knows states of layout %u to %u, and version %s, which serves, %u to %u",
			      new->version, new->layout_min, new->layout_max, old->version, old->layout_min, old->layout_max);
	else
		step_to(k, HANDOVER_LOAD);
}

/* From here on it serves; the other one is paused, will not touch a guest again, and is not listened to. */
static void commit(struct cis_keeper *k)
{
	struct handover *h = &k->handover;
	struct engine *old = k->serving, *new = h->standby;

	CIS_POINT(keeper_committing);
	engine_let_go(old);
	engine_flush(old);
	old->kill_ns = keeper_now(k) + LEAVE_NS;
	new->role = ENGINE_SERVES;
	new->paused_ns = h->paused_ns;
	new->due |= DUE_GO | (k->is_stopping ? DUE_STOP : 0);
	k->serving = new;
	k->was_ready = true;
	free(k->argv[0]);
	k->argv[0] = h->program;
	h->program = NULL;
	finish(k, use_swap);
	CIS_POINT(keeper_committed);
	cis_log(CIS_LOG_INFO, "keeper: engine %llu, version %s, serves; guests were paused for %.3f ms",
		(unsigned long long)new->generation, new->hello.version, (double)(keeper_now(k) - new->paused_ns) / 1e6);
}

static void standby_ready(struct engine *e, uint64_t arg)
{
	struct cis_keeper *k = e->wire.k;
	struct handover *h = &k->handover;

	if (h->step == HANDOVER_LOAD && arg == 1 && !(e->due & DUE_REPLAYED)) {
		CIS_POINT(keeper_ready);
		step_to(k, HANDOVER_PAUSE);
		k->serving->due |= DUE_QUIESCE;
	} else if (h->step == HANDOVER_TAKE && arg == 2 && !(e->due & DUE_TAKE)) {
		if (!e->has_ended && !cis_pidfd_has_exited(e->process.fd)) /* else its end is what counts, and is told next */
			commit(k);
	} else {
		handover_fail(k, EPROTO, "the new engine said that it is ready before it can be");
	}
}

void handover_obey(struct engine *e, const struct cis_wire_msg *msg)
{
	struct cis_keeper *k = e->wire.k;

	if (k->handover.step == HANDOVER_UNDO)
		return;
	if (msg->type == CIS_WIRE_READY)
		standby_ready(e, msg->arg);
	else if (msg->type == CIS_WIRE_REFUSE)
		handover_fail(k, msg->error ? (int)msg->error : ECANCELED, "the new engine refuses: %.*s", (int)msg->body_len,
			      (const char *)msg->body);
	else
		handover_fail(k, EPROTO, "the new engine asked for something (type %u) before its turn", msg->type);
}

void handover_quiesced(struct cis_keeper *k)
{
	k->handover.has_quiesced = true;
	k->handover.paused_ns = keeper_now(k);
}

void handover_take(struct cis_keeper *k, struct cis_wire_msg *msg)
{
	struct handover *h = &k->handover;

	if (h->step != HANDOVER_PAUSE || !h->has_quiesced)
		return; /* it has failed meanwhile */
	if (msg->error) {
		handover_fail(k, (int)msg->error, "the engine that serves cannot pause: %.*s", (int)msg->body_len,
			      (const char *)msg->body);
	} else if (msg->nr_fds != 1) {
		handover_fail(k, EPROTO, "the engine that serves handed over %zu descriptors, not one", msg->nr_fds);
	} else {
		h->sections = msg->fds[0];
		msg->nr_fds = 0;
		h->standby->due |= DUE_TAKE;
		step_to(k, HANDOVER_TAKE);
		CIS_POINT(keeper_handed_over);
	}
}

void handover_swap(struct cis_keeper *k, struct conn *c, struct cis_wire_msg *msg)
{
	struct handover *h = &k->handover;
	int r;

	if (h->step != HANDOVER_PAUSE || !c->wants_state || msg->nr_fds != 1)
		return;
	drop_swap(c);
	c->swap_fd = msg->fds[0];
	c->swap_bytes = msg->arg;
	msg->nr_fds = 0;
	r = keep_conn_swap(c, c->swap_bytes, &c->swap_fd);
	if (r) {
		handover_fail(k, -r, "a state in the new layout cannot be kept: %s", strerror(-r));
		return;
	}
	c->told[h->standby->slot].state = false;
	engine_tell(h->standby, &c->untold);
	CIS_POINT(keeper_swapped);
}

uint64_t handover_deadline(const struct cis_keeper *k)
{
	return k->handover.step == HANDOVER_NONE || k->handover.step == HANDOVER_UNDO ? UINT64_MAX : k->handover.deadline_ns;
}

void handover_tick(struct cis_keeper *k)
{
	static const char *const waited[] = {
		[HANDOVER_HELLO] = "the new engine did not say what it is",
		[HANDOVER_LOAD] = "the new engine was not ready",
		[HANDOVER_PAUSE] = "the engine that serves did not pause",
		[HANDOVER_TAKE] = "the new engine did not take over",
	};

	if (handover_deadline(k) <= keeper_now(k))
		handover_fail(k, ETIMEDOUT, "%s within %llu ms", waited[k->handover.step],
			      (unsigned long long)k->upgrade_ns / 1000000);
}
