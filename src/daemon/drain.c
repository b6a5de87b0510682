#include "daemon/drain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/guest_int.h"
#include "daemon/request.h"

#define LET_GO "it needs the daemon no more"

/* Does anything of ours have to be there for it? */
static bool depends(const struct cis_guest *g)
{
	return g->state != CIS_GUEST_GONE && g->state != CIS_GUEST_INDEPENDENT && g->conn && !g->leaving;
}

/* Why it cannot be made independent, whatever is done; NULL: it can. */
static const char *obstacle(const struct cis_guest *g)
{
	if (g->stalled)
		return g->error;
	if (!g->begun)
		return NULL; /* its handshake is under way */
	if (g->memory.kind == CIS_KIND_PRIVATE)
		return "its memory is private: what it gives back would read as its base again";
	return g->record ? "it is being recorded" : NULL;
}

/* What it lacks still. */
static void describe(struct cis_guest *g, char *buf, size_t room)
{
	const char *why = obstacle(g);
	uint64_t n[CIS_PAGE_STATES];

	if (why) {
		snprintf(buf, room, "guest %s: %s", g->id, why);
		return;
	}
	cis_guest_pages(g, n);
	snprintf(buf, room, "guest %s: %llu of %llu pages are not there yet%s%s", g->id,
		 (unsigned long long)(n[CIS_PAGE_ABSENT] + n[CIS_PAGE_BUSY]), (unsigned long long)g->nr_pages, *g->error ? ": " : "", g->error);
}

static void fill_up(struct cis_guest *g)
{
	if (g->draining || !g->begun || obstacle(g))
		return;
	cis_guest_drains(g, true);
	g->fill = CIS_FILL_ALL;
	cis_guest_note_changed(g);
	cis_seat_fill(g->seat, CIS_FILL_ALL);
}

/* All that @match, parted by semicolons; malloc'ed, NULL when there is none. */
static char *name_all(struct cis_engine *e, bool (*match)(const struct cis_guest *g))
{
	char *text = NULL, one[600];
	size_t len, n = 0;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; f && i < e->nr_guests; i++) {
		if (!depends(e->guests[i]) || !match(e->guests[i]))
			continue;
		describe(e->guests[i], one, sizeof(one));
		fprintf(f, "%s%s", n++ ? "; " : "", one);
	}
	if (f)
		fclose(f);
	if (n)
		return text;
	free(text);
	return NULL;
}

static bool has_obstacle(const struct cis_guest *g)
{
	return obstacle(g) != NULL;
}

static bool is_any(const struct cis_guest *g)
{
	(void)g;
	return true;
}

static bool any_depends(const struct cis_engine *e)
{
	for (size_t i = 0; i < e->nr_guests; i++)
		if (depends(e->guests[i]))
			return true;
	return false;
}

/* From the end, as a guest that has no seat any more goes from the table. */
static json_t *let_go_all(struct cis_engine *e)
{
	json_t *names = json_array();

	for (size_t i = e->nr_guests; i-- > 0;)
		if (i < e->nr_guests && e->guests[i]->state == CIS_GUEST_INDEPENDENT && !e->guests[i]->leaving) {
			json_array_insert_new(names, 0, json_string(e->guests[i]->id));
			cis_guest_end(e->guests[i], LET_GO);
		}
	return names;
}

static void refuse(struct cis_engine *e, const char *code, char *names)
{
	struct cis_request *req = e->drain_asked;

	e->drain_asked = NULL;
	for (size_t i = 0; i < e->nr_guests && !e->drain_stop; i++)
		if (e->guests[i]->draining)
			cis_guest_drains(e->guests[i], false);
	cis_request_refuse(req, code, "%s", names ? names : "out of memory");
	free(names);
}

static void timed_out(struct cis_request *req)
{
	refuse(req->engine, "timeout", name_all(req->engine, is_any));
}

static void look_for_request(struct cis_engine *e)
{
	char *names = name_all(e, has_obstacle);
	struct cis_request *req = e->drain_asked;

	if (names) {
		refuse(e, "wrong_state", names);
		return;
	}
	for (size_t i = 0; i < e->nr_guests; i++)
		if (depends(e->guests[i]))
			fill_up(e->guests[i]);
	if (any_depends(e))
		return;
	e->drain_asked = NULL;
	cis_request_answer(req, 200, json_pack("{s:o}", "drained", let_go_all(e)));
}

void cis_drain_ask(struct cis_engine *e, struct cis_request *req, uint64_t timeout_ms)
{
	if (e->drain_asked) {
		cis_request_refuse(req, "busy", "the daemon is being drained already");
		return;
	}
	e->drain_asked = req;
	req->timed_out = timed_out;
	cis_request_wait(req, timeout_ms ? cis_now_ns(NULL) + timeout_ms * 1000000u : 0);
	look_for_request(e);
}

void cis_drain_stop(struct cis_engine *e)
{
	e->drain_stop = true;
	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		if (depends(g) && obstacle(g))
			cis_log(CIS_LOG_WARN, "guest=%s keeps the daemon from ending: %s", g->id, obstacle(g));
	}
	cis_drain_look(e);
}

void cis_drain_look(struct cis_engine *e)
{
	if (e->mode != CIS_ENGINE_SERVES)
		return;
	if (e->drain_asked)
		look_for_request(e);
	if (!e->drain_stop)
		return;
	for (size_t i = 0; i < e->nr_guests; i++)
		if (depends(e->guests[i]))
			fill_up(e->guests[i]);
	json_decref(let_go_all(e));
}
