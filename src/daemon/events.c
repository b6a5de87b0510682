#include "daemon/events.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/guest.h"
#include "daemon/text.h"

#define BACKLOG_MAX ((size_t)1 << 20) /* bytes that a slow reader may owe */

struct cis_events {
	struct cis_listener *first;
};

int cis_events_create(struct cis_events **ret)
{
	struct cis_events *ev = calloc(1, sizeof(*ev));

	if (!ev)
		return -ENOMEM;
	*ret = ev;
	return 0;
}

void cis_events_destroy(struct cis_events *ev)
{
	free(ev);
}

void cis_events_listen(struct cis_events *ev, struct cis_listener *l)
{
	l->next = ev->first;
	ev->first = l;
}

void cis_events_leave(struct cis_events *ev, struct cis_listener *l)
{
	for (struct cis_listener **at = &ev->first; *at; at = &(*at)->next)
		if (*at == l) {
			*at = l->next;
			break;
		}
	free(l->text);
	l->text = NULL;
}

static void append(struct cis_listener *l, const char *line, size_t len)
{
	if (l->len + len + 1 > l->room) {
		size_t room = (l->len + len + 1) * 2;
		char *more = room > 2 * BACKLOG_MAX ? NULL : realloc(l->text, room);

		if (!more) {
			l->dropped = true;
			return;
		}
		l->text = more;
		l->room = room;
	}
	memcpy(l->text + l->len, line, len);
	l->text[l->len + len] = '\n';
	l->len += len + 1;
}

/* Takes the reference.  @log: those that listen hear of it in any case. */
static void publish(struct cis_events *ev, const struct cis_guest *g, json_t *event, bool log)
{
	_cleanup_free_ char *line = json_dumps(event, JSON_COMPACT);
	size_t len = line ? strlen(line) : 0;

	json_decref(event);
	if (!line)
		return;
	if (log)
		cis_log(CIS_LOG_INFO, "%s", line);
	for (struct cis_listener *l = ev->first, *next; l; l = next) {
		next = l->next;
		if (*l->guest && strcmp(l->guest, g->id))
			continue;
		append(l, line, len);
		l->ready(l);
	}
}

static json_t *make(const char *event, const struct cis_guest *g)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return json_pack("{s:I, s:s, s:s}", "time_ms", (json_int_t)t.tv_sec * 1000 + t.tv_nsec / 1000000, "event", event,
			 "guest", g->id);
}

void cis_events_guest(struct cis_events *ev, const char *event, const struct cis_guest *g)
{
	json_t *j = make(event, g);

	if (!strcmp(event, "guest.connected") && g->peer.pid)
		json_object_set_new(j, "pid", json_integer(g->peer.pid));
	if (!strcmp(event, "guest.gone") && *g->error)
		json_object_set_new(j, "message", cis_text_json(g->error));
	publish(ev, g, j, true);
}

void cis_events_failed(struct cis_events *ev, const struct cis_guest *g, const char *message, bool log)
{
	json_t *j = make("guest.failed", g);

	json_object_set_new(j, "message", cis_text_json(message));
	publish(ev, g, j, log);
}

void cis_events_trace(struct cis_events *ev, const struct cis_guest *g, const char *path, uint64_t pages)
{
	json_t *j = make("record.stopped", g);

	json_object_set_new(j, "trace", json_string(path));
	json_object_set_new(j, "pages", json_integer((json_int_t)pages));
	publish(ev, g, j, true);
}
