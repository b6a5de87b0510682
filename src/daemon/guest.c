#include "daemon/guest.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/drain.h"
#include "daemon/events.h"
#include "daemon/guest_int.h"
#include "daemon/ledger.h"
#include "daemon/log.h"
#include "daemon/request.h"
#include "image/trace.h"
#include "os/memfd.h"
#include "os/pidfd.h"
#include "os/sock.h"
#include "os/uffd.h"
#include <signal.h>
#include <unistd.h>

static const char *const state_names[] = { "expected", "filling", "filled", "independent", "gone" };

const char *cis_guest_state_name(enum cis_guest_state state)
{
	return state_names[state];
}

int cis_guest_state_parse(const char *text)
{
	for (int i = CIS_GUEST_EXPECTED; i <= CIS_GUEST_GONE; i++)
		if (!strcmp(text, state_names[i]))
			return i;
	return -EINVAL;
}

const char *cis_guest_shown_state(const struct cis_guest *g)
{
	return g->stalled ? "stalled" : state_names[g->state];
}

bool cis_guest_id_ok(const char *id)
{
	size_t n = strlen(id);

	if (!n || n > CIS_GUEST_ID_MAX || !isalnum((unsigned char)id[0]))
		return false;
	return strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == n;
}

static void call_watches(struct cis_guest *g, bool deleted)
{
	struct cis_guest_watch *w = g->watches, *next;

	for (; w; w = next) {
		next = w->next; /* it may take itself off */
		w->changed(w, deleted ? NULL : g);
	}
}

void cis_guest_watch(struct cis_guest *g, struct cis_guest_watch *watch)
{
	watch->next = g->watches;
	g->watches = watch;
}

void cis_guest_unwatch(struct cis_guest *g, struct cis_guest_watch *watch)
{
	for (struct cis_guest_watch **at = &g->watches; *at; at = &(*at)->next)
		if (*at == watch) {
			*at = watch->next;
			return;
		}
}

void cis_guest_move(struct cis_guest *g, enum cis_guest_state state)
{
	static const char *const event[] = { "guest.expected", "guest.connected", "guest.filled", "guest.independent",
					     "guest.gone" };

	if (state < g->state)
		return;
	if (state != g->state) {
		g->state = state;
		cis_guest_note_changed(g);
	}
	cis_events_guest(g->engine->events, event[state], g);
	call_watches(g, false);
}

void cis_guest_depends(struct cis_guest *g)
{
	if (g->state != CIS_GUEST_INDEPENDENT)
		return;
	g->state = CIS_GUEST_FILLING;
	cis_guest_move(g, CIS_GUEST_FILLED);
}

static void free_guest(struct cis_guest *g)
{
	free(g->image_path);
	free(g->socket);
	free(g->kind);
	free(g->store);
	free(g->trace);
	free(g->regions);
	free(g);
}

void cis_guest_forget(struct cis_guest *g)
{
	cis_guest_table_remove(g);
	g->engine->has_forgotten = true;
	call_watches(g, true);
	cis_metrics_forget(g->engine, &g->last.stats);
	cis_ledger_forget(g);
	free_guest(g);
}

void cis_guest_release(struct cis_guest *g)
{
	struct cis_engine *e = g->engine;
	bool speaks = e->has_keeper && e->mode != CIS_ENGINE_LEARNS; /* until then they are another engine's */

	cis_guest_tell_unnamed(g);
	cis_guest_close(g);
	g->stalled = false;
	if (g->conn && speaks)
		cis_keeper_link_release(e->link, g->conn->id);
	cis_conn_drop(g->conn);
	if (g->listening && speaks)
		cis_keeper_link_unlisten(e->link, g->serial);
	g->listening = false;
	if (g->image)
		cis_engine_image_put(e, g->image);
	g->image = NULL;
	if (g->layers)
		cis_engine_layers_put(e, g->layers);
	g->layers = NULL;
}

/* Return: whether there was one too many. */
static bool drop_oldest_gone(struct cis_engine *e)
{
	struct cis_guest *oldest = NULL;
	size_t gone = 0;

	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		if (g->state != CIS_GUEST_GONE)
			continue;
		gone++;
		if (!oldest || g->serial < oldest->serial)
			oldest = g;
	}
	if (gone <= CIS_GONE_MAX)
		return false;
	cis_guest_forget(oldest);
	return true;
}

void cis_guests_drop_gone(struct cis_engine *e)
{
	while (!cis_ledger_is_unread(e) && drop_oldest_gone(e))
		;
}

void cis_guest_bury(struct cis_guest *g)
{
	cis_ledger_bury(g);
	cis_guest_release(g);
	cis_guest_move(g, CIS_GUEST_GONE);
	if (g->deleted)
		cis_guest_forget(g);
	else
		cis_guests_drop_gone(g->engine);
}

static void drop_trace(struct cis_guest *g)
{
	free(g->trace);
	g->trace = NULL;
	g->has_trace = false;
}

void cis_guest_end(struct cis_guest *g, const char *why)
{
	if (g->state == CIS_GUEST_GONE || g->leaving)
		return;
	if (why)
		snprintf(g->error, sizeof(g->error), "%s", why);
	if (g->seat) {
		cis_seat_report(g->seat, &g->last);
		if (g->last.recording) {
			drop_trace(g);
			g->has_trace = !cis_seat_record_stop(g->seat, &g->trace, &g->nr_trace);
		}
		g->leaving = true;
		cis_seat_leave(g->seat); /* the rest when it has left */
		return;
	}
	cis_guest_peek(g);
	cis_guest_bury(g);
}

static char *default_socket(const struct cis_engine *e, const char *id)
{
	const char *control = e->config->control, *slash = strrchr(control, '/');
	char *path;

	return asprintf(&path, "%.*s/guests/%s.sock", (int)(slash - control), control, id) < 0 ? NULL : path;
}

static struct cis_guest *make(struct cis_engine *e, const char *id, const struct cis_guest_opts *opts, uint64_t serial)
{
	struct cis_guest *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->engine = e;
	snprintf(g->id, sizeof(g->id), "%s", id);
	g->serial = serial;
	g->memory.uffd = g->memory.memfd = -1;
	g->image_path = strdup(opts->image);
	g->socket = opts->socket ? strdup(opts->socket) : default_socket(e, id);
	g->kind = strdup(opts->kind);
	g->store = strdup(opts->store ? opts->store : e->config->store_layers);
	g->policy = opts->policy;
	g->fill = opts->fill;
	g->record = opts->record;
	g->budget = opts->budget;
	g->pinned = opts->pinned;
	g->share = UINT64_MAX;
	if (opts->ns)
		memcpy(g->ns, opts->ns, sizeof(g->ns));
	else if (getrandom(g->ns, sizeof(g->ns), 0) != sizeof(g->ns))
		cis_give_up("no random numbers: %s", strerror(errno));
	if (!g->image_path || !g->socket || !g->kind || !g->store) {
		free_guest(g);
		return NULL;
	}
	return g;
}

static int open_layers(struct cis_guest *g, const struct cis_guest_opts *opts, struct cis_error *err)
{
	if (opts->store && *opts->store)
		return cis_layers_parse(opts->store, &g->layers, err);
	if (!opts->store)
		g->layers = cis_layers_ref(g->engine->layers);
	return 0;
}

static int make_of_note(struct cis_engine *e, const struct cis_guest_note *note, struct cis_guest **ret, struct cis_error *err)
{
	bool own_store = strcmp(note->store, e->config->store_layers) != 0;
	struct cis_guest_opts opts = { .image = note->image_path, .socket = note->socket, .kind = note->kind,
				       .store = own_store ? note->store : NULL, .policy = note->policy, .fill = note->fill,
				       .record = note->record, .budget = note->budget, .pinned = note->pinned,
				       .ns = note->has_ns ? note->ns : NULL };
	struct cis_guest *g = make(e, note->id, &opts, note->serial);
	int rc = g ? open_layers(g, &opts, err) : cis_fail(err, ENOMEM, "out of memory for guest %s", note->id);

	if (!rc && cis_guest_table_insert(g))
		rc = cis_fail(err, ENOMEM, "out of memory for guest %s", note->id);
	if (!rc) {
		*ret = g;
	} else if (g) {
		cis_guest_release(g);
		free_guest(g);
	}
	return rc;
}

int cis_guest_of_note(struct cis_engine *e, const struct cis_guest_note *note, struct cis_guest **ret, struct cis_error *err)
{
	struct cis_guest *g;
	int rc;

	if (cis_guest_find(e, note->id))
		return cis_fail(err, EEXIST, "guest %s is there already", note->id);
	if (cis_guest_by_serial(e, note->serial)) /* by which its listener and its connection are known */
		return cis_fail(err, EEXIST, "guest %s has the serial of another", note->id);
	rc = make_of_note(e, note, &g, err);
	if (rc)
		return rc;
	memcpy(g->image_id, note->image_id, sizeof(g->image_id));
	g->has_image_id = true;
	if (g->serial > e->next_serial)
		e->next_serial = g->serial;
	*ret = g;
	return 0;
}

static size_t live_guests(const struct cis_engine *e)
{
	size_t n = 0;

	for (size_t i = 0; i < e->nr_guests; i++)
		n += e->guests[i]->state != CIS_GUEST_GONE;
	return n;
}

static int listen_for(struct cis_guest *g, const struct cis_guest_opts *opts, struct cis_error *err)
{
	struct cis_wire_listen listen = { .mode = 0600, .uid = opts->uid, .gid = opts->gid };
	_cleanup_free_ char *note = NULL;
	int rc;

	if (strlen(g->socket) >= sizeof(listen.path))
		return cis_fail(err, ENAMETOOLONG, "%s: a socket's path has at most %zu characters", g->socket,
				sizeof(listen.path) - 1);
	strcpy(listen.path, g->socket);
	note = cis_guest_note_text(g);
	if (!note)
		return cis_fail(err, ENOMEM, "out of memory for guest %s", g->id);
	listen.note = note;
	listen.note_len = strlen(note);
	if (!opts->socket) {
		char *slash = strrchr(g->socket, '/');

		*slash = 0;
		mkdir(g->socket, 0755);
		*slash = '/';
	}
	rc = cis_keeper_link_listen(g->engine->link, g->serial, &listen);
	return rc ? cis_fail(err, -rc, "%s: %s", g->socket, strerror(-rc)) : 0;
}

int cis_guest_put(struct cis_engine *e, const char *id, const struct cis_guest_opts *opts, struct cis_guest **ret,
		  struct cis_error *err)
{
	struct cis_guest *g = cis_guest_find(e, id);
	int rc;

	if (g && g->state != CIS_GUEST_GONE)
		return cis_fail(err, EEXIST, "guest %s is there already, %s", id, cis_guest_state_name(g->state));
	if (!e->has_keeper)
		return cis_fail(err, ENOTCONN, "the keeper is gone: start cisternd again, it takes over and serves new guests");
	if (e->stopping)
		return cis_fail(err, EBUSY, "the daemon is stopping");
	if (live_guests(e) >= e->config->guests)
		return cis_fail(err, EBUSY, "%u guests are served already (guests in cisternd.conf)", e->config->guests);
	if (cis_engine_is_short(e))
		return cis_fail(err, EMFILE, "the daemon has no descriptors left for another guest: raise LimitNOFILE");
	if (g)
		cis_guest_forget(g);
	g = make(e, id, opts, ++e->next_serial);
	if (!g)
		return cis_fail(err, ENOMEM, "out of memory for guest %s", id);
	rc = open_layers(g, opts, err);
	if (!rc)
		rc = cis_guest_open_image(g, err);
	if (!rc)
		rc = cis_guest_table_insert(g) ? cis_fail(err, ENOMEM, "out of memory for guest %s", id) : 0;
	if (!rc) {
		rc = listen_for(g, opts, err);
		if (rc)
			cis_guest_table_remove(g);
	}
	if (rc) {
		cis_guest_release(g);
		free_guest(g);
		return rc;
	}
	*ret = g;
	return 0;
}

int cis_guest_delete(struct cis_guest *g, bool force, struct cis_error *err)
{
	bool serves = g->state == CIS_GUEST_FILLING || g->state == CIS_GUEST_FILLED;

	if (serves && !force)
		return cis_fail(err, EBUSY, "guest %s is %s: its monitor would read zeros for absent pages; force kills it "
				"first", g->id, cis_guest_state_name(g->state));
	if (serves) {
		int pidfd = g->conn ? g->conn->pidfd : -1, rc = pidfd >= 0 ? cis_pidfd_kill(pidfd, SIGKILL) : -ESRCH;

		if (rc && rc != -ESRCH)
			return cis_fail(err, -rc, "guest %s: its monitor, process %d, cannot be killed: %s", g->id,
					(int)g->peer.pid, strerror(-rc));
		if (pidfd < 0 && !(g->conn && g->conn->eof))
			return cis_fail(err, ESRCH, "guest %s: its monitor is not known as a process here, end it yourself",
					g->id);
	}
	if (!g->deleted)
		cis_events_guest(g->engine->events, "guest.deleted", g);
	g->deleted = true;
	if (g->state == CIS_GUEST_GONE)
		cis_guest_forget(g);
	else
		cis_guest_end(g, NULL);
	return 0;
}

int cis_guest_record_start(struct cis_guest *g, struct cis_error *err)
{
	int rc;

	if (g->state == CIS_GUEST_GONE || g->leaving)
		return cis_fail(err, EINVAL, "guest %s is gone", g->id);
	if (!g->seat) {
		if (g->record)
			return cis_fail(err, EALREADY, "guest %s will be recorded from its first touch on already", g->id);
		g->record = true; /* from its first touch on */
	} else {
		rc = cis_seat_record_start(g->seat);
		if (rc)
			return cis_fail(err, -rc, "guest %s: %s", g->id,
					rc == -EALREADY ? "is being recorded already" : strerror(-rc));
		drop_trace(g);
		g->record = true;
		cis_guest_note_changed(g);
		cis_guest_filled(g, CIS_FILL_NONE); /* the fill pauses, and who waits for it would touch nothing */
	}
	cis_events_guest(g->engine->events, "record.started", g);
	return 0;
}

/* The trace that was recorded so far; the caller frees it. */
static int take_trace(struct cis_guest *g, struct cis_trace *ret, struct cis_error *err)
{
	if (g->has_trace) {
		ret->pgno = g->trace;
		ret->nr = g->nr_trace;
		g->trace = NULL;
		g->has_trace = false;
		return 0;
	}
	if (!g->seat || g->leaving || cis_seat_record_stop(g->seat, &ret->pgno, &ret->nr))
		return cis_fail(err, EINVAL, "guest %s is not being recorded", g->id);
	return 0;
}

int cis_guest_record_stop(struct cis_guest *g, const char *path, uint64_t *ret_pages, struct cis_error *err)
{
	struct cis_trace trace = { .page_shift = g->page_shift, .guest_bytes = g->nr_pages << g->page_shift };
	int rc = take_trace(g, &trace, err);

	if (rc)
		return rc;
	g->record = false;
	cis_guest_note_changed(g);
	memcpy(trace.image_id, g->image_id, sizeof(trace.image_id));
	rc = cis_trace_save(path, &trace, err);
	if (rc) { /* kept, so that another path may be tried */
		g->trace = trace.pgno;
		g->nr_trace = trace.nr;
		g->has_trace = true;
		return rc;
	}
	*ret_pages = trace.nr;
	cis_events_trace(g->engine->events, g, path, trace.nr);
	cis_trace_fini(&trace);
	return 0;
}

bool cis_guest_report(struct cis_guest *g, struct cis_seat_report *ret)
{
	if (g->seat && !g->leaving)
		cis_seat_report(g->seat, ret);
	else
		*ret = g->last;
	return g->regions != NULL;
}

void cis_guest_pages(const struct cis_guest *g, uint64_t *ret)
{
	if (g->seat)
		cis_seat_pages(g->seat, ret);
	else
		memcpy(ret, g->last_pages, sizeof(g->last_pages));
}

uint64_t cis_guest_resident(const struct cis_guest *g)
{
	uint64_t n[CIS_PAGE_STATES];

	cis_guest_pages(g, n);
	return (n[CIS_PAGE_RESIDENT] + n[CIS_PAGE_CLEAN]) << g->page_shift;
}

uint64_t cis_guest_stashed(const struct cis_guest *g)
{
	uint64_t n[CIS_PAGE_STATES];

	cis_guest_pages(g, n);
	return (n[CIS_PAGE_STASHED] + n[CIS_PAGE_INFLIGHT]) << g->page_shift;
}

uint64_t cis_guest_far(const struct cis_guest *g)
{
	uint64_t n[CIS_PAGE_STATES];

	cis_guest_pages(g, n);
	return n[CIS_PAGE_FAR] << g->page_shift;
}

/*
 * A monitor whose process we cannot hold (it lives in another PID namespace) closes its connection when it ends, but old
 * Firecrackers close it right after the handshake.  A zero page offered at an address that no region has tells them
 * apart: the kernel looks for the process first.
 */
static bool is_dead(const struct cis_guest *g)
{
	uint64_t done;

	return cis_uffd_zero(g->memory.uffd, 4096, 4096, &done) == -ESRCH;
}

/* The keeper tells of processes that end, while there is one. */
static bool has_ended(const struct cis_guest *g)
{
	if (!g->conn)
		return false;
	if (g->conn->pidfd >= 0)
		return !g->engine->has_keeper && cis_pidfd_has_exited(g->conn->pidfd);
	return (g->conn->eof || !g->engine->has_keeper) && is_dead(g);
}

/* A client that stops half way would keep the guest's own monitor out. */
static bool is_late(const struct cis_guest *g)
{
	return g->conn && !g->conn->note && !g->accepted &&
	       cis_now_ns(NULL) - g->conn->since_ns > g->engine->config->handshake_ms * 1000000ull;
}

/* An image that was not there when an engine began to follow another may be by now. */
static void look_for_image(struct cis_guest *g)
{
	struct cis_error err;

	if (cis_guest_open_image(g, &err))
		snprintf(g->error, sizeof(g->error), "%s", err.text);
	else
		*g->error = 0;
}

void cis_guest_tick(struct cis_engine *e)
{
	struct cis_error err;

	for (size_t i = 0; e->mode == CIS_ENGINE_SERVES && i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		cis_guest_tell_unnamed(g);
		if (g->state == CIS_GUEST_EXPECTED && !g->image && !g->conn)
			look_for_image(g);
		if (is_late(g)) {
			cis_fail(&err, ETIMEDOUT, "its handshake is not complete after %u ms", e->config->handshake_ms);
			cis_guest_refuse(g, &err);
		}
		if (g->stalled)
			cis_guest_try(g);
		if (g->accepted && !g->leaving && g->conn && has_ended(g)) {
			cis_guest_end(g, NULL);
			return; /* the table may have changed; the others next time */
		}
	}
	cis_drain_look(e);
}
