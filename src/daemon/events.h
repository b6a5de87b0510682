/* The event stream: what happened to guests, one JSON object a line.  Control thread only. */
#ifndef CIS_DAEMON_EVENTS_H
#define CIS_DAEMON_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cis_guest;
struct cis_events;

/** struct cis_listener - somebody who reads the stream; the events fill it, its owner empties it */
struct cis_listener {
	char guest[80]; /* only this one's events; "" for all */
	char *text;	/* lines not yet taken, @len bytes */
	size_t len, room;
	bool dropped; /* read too slowly: what follows is lost, so it is closed */
	void (*ready)(struct cis_listener *l);
	struct cis_listener *next;
};

int cis_events_create(struct cis_events **ret);
void cis_events_destroy(struct cis_events *ev);

void cis_events_listen(struct cis_events *ev, struct cis_listener *l);
void cis_events_leave(struct cis_events *ev, struct cis_listener *l);

/** cis_events_guest() - @event happened to a guest; its pid and error are added where they belong. */
void cis_events_guest(struct cis_events *ev, const char *event, const struct cis_guest *g);

/** cis_events_failed() - guest.failed, with the reason; @log: in the log too. */
void cis_events_failed(struct cis_events *ev, const struct cis_guest *g, const char *message, bool log);

/** cis_events_trace() - record.stopped. */
void cis_events_trace(struct cis_events *ev, const struct cis_guest *g, const char *path, uint64_t pages);

#endif
