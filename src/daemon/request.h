/* One request to the control interface, between transport (api.c) and what is done about it (routes.c). */
#ifndef CIS_DAEMON_REQUEST_H
#define CIS_DAEMON_REQUEST_H

#include <jansson.h>
#include <microhttpd.h>

#include "daemon/events.h"
#include "daemon/guest.h"

/**
 * struct cis_request - owned by the transport
 * @answered: a status was set; else the request waits and its connection is suspended
 * @waited:   it was suspended, so its answer is sent when it is resumed
 * @text:     an answer that is not JSON, malloc'ed; NULL otherwise
 * @watch:    of the guest that it waits for
 * @until_ns: when the waiting ends with a time-out, 0: never
 */
struct cis_request {
	struct cis_api *api;
	struct cis_engine *engine;
	struct MHD_Connection *conn;
	const char *method, *path;
	char *body;
	size_t body_len;
	bool too_large, no_room;
	bool is_cut; /* hung up on without an answer: the client asks the next engine */

	bool answered;
	unsigned status;
	json_t *json;
	char *text;

	bool suspended, waited;
	struct cis_guest_watch watch;
	struct cis_guest *guest; /* that it waits for */
	enum cis_guest_state want;
	bool is_put;
	uint64_t until_ns;
	void (*timed_out)(struct cis_request *req); /* NULL: it waits for its guest's state */
	struct cis_listener *listener; /* an event stream */
	struct cis_request *next, **prev; /* all waiting ones */
};

/** cis_request_answer() - takes the reference of @json, which may be NULL (no body). */
void cis_request_answer(struct cis_request *req, unsigned status, json_t *json);

/** cis_request_refuse() - the error object; @code is one of doc/api.md's. */
void cis_request_refuse(struct cis_request *req, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** cis_request_error() - the error object for a negative errno with its text. */
void cis_request_error(struct cis_request *req, int rc, const struct cis_error *err);

/** cis_request_wait() - suspend it until cis_request_answer(), or @until_ns. */
void cis_request_wait(struct cis_request *req, uint64_t until_ns);

/** cis_request_stream() - answer with the event stream from now on. */
void cis_request_stream(struct cis_request *req, const char *guest);

/** cis_route() - do what is asked. */
void cis_route(struct cis_request *req);

/** cis_metrics_text() - Prometheus text, malloc'ed; NULL without memory. */
char *cis_metrics_text(struct cis_engine *e);

/** cis_metrics_forget() - a guest is forgotten: what it counted stays in the sums, which never fall. */
void cis_metrics_forget(struct cis_engine *e, const struct cis_pager_stats *stats);

#endif
