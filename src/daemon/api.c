#include "daemon/api.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/request.h"
#include "daemon/text.h"
#include "os/sock.h"

#define BODY_MAX     ((size_t)64 << 10)
#define CONNECTIONS  256u /* beside one for each guest: who runs them may wait for the end of each */
#define STREAM_BLOCK 16384
#define LOOK_NS	     1000000000u

struct cis_api {
	struct cis_engine *engine;
	struct MHD_Daemon *mhd;
	struct cis_request *waiting;
	bool closing, resumed, let_go;
	uint64_t next_look_ns; /* for clients that have hung up */
};

static const struct {
	const char *code;
	unsigned status;
} codes[] = {
	{ "bad_request", 400 }, { "no_permission", 403 }, { "not_found", 404 },	    { "bad_method", 405 },
	{ "exists", 409 },	{ "wrong_state", 409 },	  { "too_large", 413 },	    { "image_refused", 422 },
	{ "internal", 500 },	{ "upgrade_failed", 500 }, { "unsupported", 501 },	  { "busy", 503 },	    { "timeout", 504 },
	{ "no_room", 507 },
};

/* Waiting. */

static void stop_waiting(struct cis_request *req)
{
	if (!req->suspended)
		return;
	if (req->engine->handover.asked == req)
		req->engine->handover.asked = NULL;
	if (req->engine->drain_asked == req)
		req->engine->drain_asked = NULL;
	*req->prev = req->next;
	if (req->next)
		req->next->prev = req->prev;
	if (req->guest)
		cis_guest_unwatch(req->guest, &req->watch);
	req->guest = NULL;
	req->suspended = false;
	req->api->resumed = true;
	MHD_resume_connection(req->conn);
}

void cis_request_wait(struct cis_request *req, uint64_t until_ns)
{
	struct cis_request **head = &req->api->waiting;

	assert(!req->suspended && !req->api->closing);
	req->until_ns = until_ns;
	req->suspended = req->waited = true;
	req->next = *head;
	req->prev = head;
	if (*head)
		(*head)->prev = &req->next;
	*head = req;
	MHD_suspend_connection(req->conn);
}

void cis_request_answer(struct cis_request *req, unsigned status, json_t *json)
{
	req->status = status;
	req->json = json;
	req->answered = true;
	stop_waiting(req);
}

void cis_request_refuse(struct cis_request *req, const char *code, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL;
	unsigned status = 500;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (!strcmp(codes[i].code, code))
			status = codes[i].status;
	cis_request_answer(req, status, json_pack("{s:{s:s, s:o}}", "error", "code", code, "message",
						   cis_text_json(text ? text : "out of memory")));
}

void cis_request_error(struct cis_request *req, int rc, const struct cis_error *err)
{
	const char *code = "internal";

	switch (-rc) {
	case EEXIST:
	case EADDRINUSE:
		code = "exists";
		break;
	case ENOENT:
	case ENOTDIR:
		code = "not_found";
		break;
	case EACCES:
	case EPERM:
	case EROFS:
		code = "no_permission";
		break;
	case EOPNOTSUPP:
		code = "unsupported";
		break;
	case EMEDIUMTYPE:
	case EBADMSG:
	case EPROTONOSUPPORT:
	case ENOLINK:
	case ELOOP:
		code = "image_refused";
		break;
	case EINVAL:
	case EALREADY:
		code = "wrong_state";
		break;
	case ENAMETOOLONG:
		code = "bad_request";
		break;
	case EBUSY:
	case ENOTCONN:
	case EMFILE:
	case ENFILE:
		code = "busy";
		break;
	case ENOMEM:
	case ENOSPC:
	case EDQUOT:
		code = "no_room";
	}
	cis_request_refuse(req, code, "%s", err->text);
}

/* Event streams. */

/* It ends after its request: the response is freed last. */
struct stream {
	struct cis_listener listener;
	struct cis_events *events;
	struct cis_request *req;
};

static void stream_ready(struct cis_listener *l)
{
	stop_waiting(((struct stream *)l)->req);
}

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct stream *s = cls;
	struct cis_listener *l = &s->listener;
	size_t n = l->len < max ? l->len : max;

	(void)pos;
	if (l->dropped || s->req->api->closing || s->req->api->let_go)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (!n) {
		cis_request_wait(s->req, 0);
		return 0;
	}
	memcpy(buf, l->text, n);
	memmove(l->text, l->text + n, l->len - n);
	l->len -= n;
	return (ssize_t)n;
}

static void stream_free(void *cls)
{
	struct stream *s = cls;

	cis_events_leave(s->events, &s->listener);
	free(s);
}

void cis_request_stream(struct cis_request *req, const char *guest)
{
	struct stream *s = calloc(1, sizeof(*s));

	if (!s) {
		cis_request_refuse(req, "no_room", "out of memory");
		return;
	}
	s->req = req;
	s->events = req->engine->events;
	s->listener.ready = stream_ready;
	snprintf(s->listener.guest, sizeof(s->listener.guest), "%s", guest ? guest : "");
	cis_events_listen(req->engine->events, &s->listener);
	req->listener = &s->listener;
	req->answered = true;
	req->status = 200;
}

/* Transport. */

static enum MHD_Result reply(struct cis_request *req)
{
	struct MHD_Response *resp;
	const char *type = "application/json";
	enum MHD_Result rc;

	if (req->listener) {
		type = "application/x-ndjson";
		resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read, req->listener,
							 stream_free);
		if (!resp)
			stream_free(req->listener);
	} else if (req->text) {
		type = "text/plain; version=0.0.4";
		resp = MHD_create_response_from_buffer(strlen(req->text), req->text, MHD_RESPMEM_MUST_FREE);
		req->text = NULL;
	} else {
		char *body = req->json ? json_dumps(req->json, JSON_COMPACT | JSON_PRESERVE_ORDER) : strdup("");

		if (!body)
			return MHD_NO;
		resp = MHD_create_response_from_buffer(strlen(body), body, MHD_RESPMEM_MUST_FREE);
	}
	if (!resp)
		return MHD_NO;
	MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (req->api->let_go)
		MHD_add_response_header(resp, MHD_HTTP_HEADER_CONNECTION, "close");
	rc = MHD_queue_response(req->conn, req->status, resp);
	MHD_destroy_response(resp);
	return rc;
}

static void take_body(struct cis_request *req, const char *data, size_t len)
{
	char *more;

	if (req->too_large || req->no_room)
		return;
	if (req->body_len + len > BODY_MAX) {
		req->too_large = true;
		return;
	}
	more = realloc(req->body, req->body_len + len + 1);
	if (!more) {
		req->no_room = true;
		return;
	}
	req->body = more;
	memcpy(more + req->body_len, data, len);
	req->body_len += len;
	more[req->body_len] = 0;
}

/* Whoever got hold of the socket, by a mode that is too generous or a descriptor passed on, must still be one of these. */
static bool may_ask(struct MHD_Connection *conn)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct cis_peer peer;

	return info && !cis_sock_peer(info->connect_fd, &peer) && (!peer.uid || peer.uid == geteuid());
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
			      const char *version, const char *data, size_t *data_len, void **state)
{
	struct cis_api *api = cls;
	struct cis_request *req = *state;

	(void)version;
	if (!req) { /* who asks only now asks the next engine */
		req = api->let_go ? NULL : calloc(1, sizeof(*req));
		if (!req)
			return MHD_NO;
		req->api = api;
		req->engine = api->engine;
		req->conn = conn;
		*state = req;
		return MHD_YES;
	}
	if (*data_len) {
		take_body(req, data, *data_len);
		*data_len = 0;
		return MHD_YES;
	}
	req->method = method;
	req->path = url;
	if (req->is_cut)
		return MHD_NO;
	if (req->answered)
		return reply(req);
	if (!may_ask(conn))
		cis_request_refuse(req, "no_permission", "only root and the user of the daemon may ask");
	else if (req->too_large)
		cis_request_refuse(req, "too_large", "a body has at most %zu bytes", BODY_MAX);
	else if (req->no_room)
		cis_request_refuse(req, "no_room", "out of memory");
	else if (api->closing)
		cis_request_refuse(req, "wrong_state", "the daemon is stopping");
	else
		cis_route(req);
	return req->answered && !req->waited ? reply(req) : MHD_YES; /* else it waits, and we are called again */
}

static void completed(void *cls, struct MHD_Connection *conn, void **state, enum MHD_RequestTerminationCode why)
{
	struct cis_request *req = *state;

	(void)cls;
	(void)conn;
	(void)why;
	if (!req)
		return;
	json_decref(req->json);
	free(req->text);
	free(req->body);
	free(req);
	*state = NULL;
}

static void mhd_log(void *cls, const char *fmt, va_list ap)
{
	char text[256];

	(void)cls;
	vsnprintf(text, sizeof(text), fmt, ap);
	cis_log(CIS_LOG_DEBUG, "http: %s", text);
}

int cis_api_create(struct cis_engine *e, int listen_fd, struct cis_api **ret, struct cis_error *err)
{
	struct cis_api *api = calloc(1, sizeof(*api));

	if (!api) {
		close(listen_fd);
		return cis_fail(err, ENOMEM, "out of memory");
	}
	api->engine = e;
	api->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, handle, api,
				    MHD_OPTION_EXTERNAL_LOGGER, mhd_log, NULL, MHD_OPTION_LISTEN_SOCKET, listen_fd,
				    MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS + e->config->guests,
				    MHD_OPTION_NOTIFY_COMPLETED, completed, api, MHD_OPTION_END);
	if (!api->mhd) {
		close(listen_fd);
		free(api);
		return cis_fail(err, EIO, "the HTTP server does not start");
	}
	*ret = api;
	return 0;
}

/* End the wait of a request, whatever it waits for. */
static void turn_away(struct cis_request *req, const char *code, const char *why)
{
	if (req->listener) {
		req->listener->dropped = true;
		stop_waiting(req);
	} else {
		cis_request_refuse(req, code, "%s", why);
	}
}

void cis_api_destroy(struct cis_api *api)
{
	if (!api)
		return;
	api->closing = true;
	while (api->waiting)
		turn_away(api->waiting, "wrong_state", "the daemon is stopping");
	MHD_run(api->mhd);
	MHD_stop_daemon(api->mhd); /* closes its descriptor; the keeper's goes on listening */
	free(api);
}

void cis_api_let_go(struct cis_api *api)
{
	MHD_socket fd = MHD_quiesce_daemon(api->mhd);

	api->let_go = true;
	if (fd != MHD_INVALID_SOCKET)
		close(fd);
	while (api->waiting) {
		struct cis_request *req = api->waiting;

		req->is_cut = !req->answered;
		if (req->listener)
			req->listener->dropped = true;
		stop_waiting(req);
	}
}

bool cis_api_is_idle(const struct cis_api *api)
{
	return !MHD_get_daemon_info(api->mhd, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

/* A waiting connection is not looked at by the server, so a client that has left would keep its place until the wait ends. */
static void drop_hung_up(struct cis_api *api)
{
	for (struct cis_request *req = api->waiting, *next; req; req = next) {
		const union MHD_ConnectionInfo *info = MHD_get_connection_info(req->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
		struct pollfd p = { .fd = info ? info->connect_fd : -1 };

		next = req->next;
		if (poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR))
			turn_away(req, "wrong_state", "the client has left");
	}
}

int cis_api_fd(const struct cis_api *api)
{
	return MHD_get_daemon_info(api->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

static uint64_t first_deadline(const struct cis_api *api)
{
	uint64_t at = UINT64_MAX;

	for (const struct cis_request *req = api->waiting; req; req = req->next)
		if (req->until_ns && req->until_ns < at)
			at = req->until_ns;
	return at;
}

int cis_api_timeout_ms(const struct cis_api *api)
{
	MHD_UNSIGNED_LONG_LONG mhd;
	uint64_t at = first_deadline(api), now;
	int wait = -1;

	if (at != UINT64_MAX) {
		now = cis_now_ns(NULL);
		wait = at <= now ? 0 : (int)((at - now) / 1000000) + 1;
	}
	if (MHD_get_timeout(api->mhd, &mhd) == MHD_YES && (wait < 0 || mhd < (unsigned)wait))
		wait = (int)mhd;
	return wait;
}

void cis_api_run(struct cis_api *api)
{
	struct cis_request *req = api->waiting, *next;
	uint64_t now = cis_now_ns(NULL);

	for (; req; req = next) {
		next = req->next;
		if (!req->until_ns || req->until_ns > now)
			continue;
		if (req->timed_out)
			req->timed_out(req);
		else
			cis_request_refuse(req, "timeout", "guest %s is %s still", req->guest->id,
					   cis_guest_state_name(req->guest->state));
	}
	if (now >= api->next_look_ns) {
		drop_hung_up(api);
		api->next_look_ns = now + LOOK_NS;
	}
	do { /* what one request resumes, a stream or its own wait, is for the next run, which nothing else would bring on */
		api->resumed = false;
		MHD_run(api->mhd);
	} while (api->resumed);
}
