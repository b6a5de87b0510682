/*
 * libmicrohttpd as the control interface sees it: what the library would call is called with what the input says, and what it
 * would refuse is checked.  One client a connection, over a socket that nothing is written to.
 */
#ifndef CIS_FUZZ_CONTROL_HTTP_H
#define CIS_FUZZ_CONTROL_HTTP_H

#include <jansson.h>
#include <microhttpd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

#define HTTP_CONNECTIONS 16

struct MHD_Response {
	void *buffer, *ctx;
	enum MHD_ResponseMemoryMode mode;
	MHD_ContentReaderCallback read;
	MHD_ContentReaderFreeCallback free_ctx;
	unsigned uses; /* by who made it, and by the connection that it was queued on */
};

struct MHD_Connection {
	const char *method, *path;
	char query[1024]; /* KEY=VALUE, each ended by a NUL, then an empty one */
	void *state;
	bool suspended, resumed, answered, closed;
	int fd, client; /* ends of its socket; client -1: it has hung up */
	struct MHD_Response *response;
	union MHD_ConnectionInfo info;
};

static struct MHD_Daemon {
	MHD_AccessHandlerCallback handle;
	void *handle_ctx;
	MHD_RequestCompletedCallback completed;
	void *completed_ctx;
	MHD_LogCallback log;
	void *log_ctx;
	int listen_fd;
	struct MHD_Connection *conns[HTTP_CONNECTIONS];
	unsigned nr, open; /* connections since http_forget(), and those that are not closed */
	union MHD_DaemonInfo info;
} http;

struct MHD_Daemon *MHD_start_daemon(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback apc, void *apc_ctx,
				    MHD_AccessHandlerCallback handle, void *ctx, ...)
{
	enum MHD_OPTION option;
	va_list ap;

	http = (struct MHD_Daemon){ .handle = handle, .handle_ctx = ctx, .listen_fd = -1 };
	va_start(ap, ctx);
	while ((option = va_arg(ap, enum MHD_OPTION)) != MHD_OPTION_END)
		switch (option) {
		case MHD_OPTION_LISTEN_SOCKET:
			http.listen_fd = va_arg(ap, int);
			break;
		case MHD_OPTION_CONNECTION_LIMIT:
			(void)va_arg(ap, unsigned);
			break;
		case MHD_OPTION_NOTIFY_COMPLETED:
			http.completed = va_arg(ap, MHD_RequestCompletedCallback);
			http.completed_ctx = va_arg(ap, void *);
			break;
		case MHD_OPTION_EXTERNAL_LOGGER:
			http.log = va_arg(ap, MHD_LogCallback);
			http.log_ctx = va_arg(ap, void *);
			break;
		default: /* two pointers */
			(void)va_arg(ap, void *);
			(void)va_arg(ap, void *);
		}
	va_end(ap);
	return &http;
}

MHD_socket MHD_quiesce_daemon(struct MHD_Daemon *d)
{
	MHD_socket fd = d->listen_fd;

	d->listen_fd = -1;
	return fd;
}

void MHD_stop_daemon(struct MHD_Daemon *d)
{
	FUZZ_CHECK(!d->open);
	if (d->listen_fd >= 0)
		close(d->listen_fd);
}

enum MHD_Result MHD_get_timeout(struct MHD_Daemon *d, MHD_UNSIGNED_LONG_LONG *ret)
{
	*ret = 5;
	return d->open ? MHD_YES : MHD_NO;
}

const union MHD_DaemonInfo *MHD_get_daemon_info(struct MHD_Daemon *d, enum MHD_DaemonInfoType type, ...)
{
	if (type == MHD_DAEMON_INFO_CURRENT_CONNECTIONS)
		d->info.num_connections = d->open;
	return &d->info;
}

const union MHD_ConnectionInfo *MHD_get_connection_info(struct MHD_Connection *c, enum MHD_ConnectionInfoType type, ...)
{
	c->info.connect_fd = c->fd;
	return &c->info;
}

void MHD_suspend_connection(struct MHD_Connection *c)
{
	FUZZ_CHECK(!c->suspended && !c->closed);
	c->suspended = true;
}

void MHD_resume_connection(struct MHD_Connection *c)
{
	FUZZ_CHECK(c->suspended);
	c->suspended = false;
	c->resumed = true;
}

/* As the library does: the first one of that name. */
const char *MHD_lookup_connection_value(struct MHD_Connection *c, enum MHD_ValueKind kind, const char *key)
{
	size_t n = strlen(key);

	FUZZ_CHECK(kind == MHD_GET_ARGUMENT_KIND);
	for (const char *at = c->query; *at; at += strlen(at) + 1)
		if (!strncmp(at, key, n) && at[n] == '=')
			return at + n + 1;
	return NULL;
}

struct MHD_Response *MHD_create_response_from_buffer(size_t len, void *buffer, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *r = calloc(1, sizeof(*r));

	FUZZ_CHECK(r && strlen(buffer) == len);
	r->uses = 1;
	r->buffer = buffer;
	r->mode = mode;
	return r;
}

struct MHD_Response *MHD_create_response_from_callback(uint64_t size, size_t block, MHD_ContentReaderCallback read,
						       void *ctx, MHD_ContentReaderFreeCallback free_ctx)
{
	struct MHD_Response *r = calloc(1, sizeof(*r));

	FUZZ_CHECK(r);
	r->uses = 1;
	r->read = read;
	r->ctx = ctx;
	r->free_ctx = free_ctx;
	return r;
}

enum MHD_Result MHD_add_response_header(struct MHD_Response *r, const char *name, const char *value)
{
	FUZZ_CHECK(!strpbrk(value, "\r\n"));
	return MHD_YES;
}

void MHD_destroy_response(struct MHD_Response *r)
{
	if (--r->uses)
		return;
	if (r->free_ctx)
		r->free_ctx(r->ctx);
	if (r->mode == MHD_RESPMEM_MUST_FREE)
		free(r->buffer);
	free(r);
}

/* A guest has a text that is called error; metrics alone are no JSON. */
static void check_body(unsigned status, const char *body)
{
	json_t *json = json_loads(body, 0, NULL);

	if (status == 204)
		FUZZ_CHECK(!*body);
	else if (status >= 300)
		FUZZ_CHECK(json_is_object(json_object_get(json, "error")));
	else
		FUZZ_CHECK(*body == '{' ? json_is_object(json) && !json_is_object(json_object_get(json, "error")) : *body == '#');
	json_decref(json);
}

enum MHD_Result MHD_queue_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *r)
{
	FUZZ_CHECK(!c->answered && !c->suspended);
	if (r->buffer)
		check_body(status, r->buffer);
	c->answered = true;
	c->response = r;
	r->uses++;
	return MHD_YES;
}

/* What the library does, for the harness. */

static void http_open(struct MHD_Connection *c, const char *method, const char *path, const char *query)
{
	int pair[2];

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	*c = (struct MHD_Connection){ .method = method, .path = path, .fd = pair[0], .client = pair[1] };
	snprintf(c->query, sizeof(c->query) - 1, "%s", query);
	for (char *at = c->query; (at = strchr(at, '&'));)
		*at++ = 0;
	http.conns[http.nr++] = c;
	http.open++;
}

static void http_hang_up(struct MHD_Connection *c)
{
	if (c->client >= 0)
		close(c->client);
	c->client = -1;
}

static void __attribute__((format(printf, 1, 2))) http_log(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	http.log(http.log_ctx, format, ap);
	va_end(ap);
}

/* The request is over first, then its response goes. */
static void http_close(struct MHD_Connection *c, enum MHD_RequestTerminationCode why)
{
	FUZZ_CHECK(!c->suspended && !c->closed);
	if (why == MHD_REQUEST_TERMINATED_WITH_ERROR)
		http_log("%s", c->path);
	c->closed = true;
	http.completed(http.completed_ctx, c, &c->state, why);
	if (c->response)
		MHD_destroy_response(c->response);
	http_hang_up(c);
	close(c->fd);
	http.open--;
}

/* Return: false: the connection was closed. */
static bool http_call(struct MHD_Connection *c, const char *data, size_t len)
{
	if (http.handle(http.handle_ctx, c, c->path, c->method, "HTTP/1.1", data, &len, &c->state) == MHD_YES)
		return true;
	http_close(c, MHD_REQUEST_TERMINATED_WITH_ERROR);
	return false;
}

/* A stream is read until it waits or ends. */
static void http_stream(struct MHD_Connection *c)
{
	char line[100];
	ssize_t n;

	while ((n = c->response->read(c->response->ctx, 0, line, sizeof(line))) > 0)
		FUZZ_CHECK((size_t)n <= sizeof(line));
	FUZZ_CHECK(n == MHD_CONTENT_READER_END_WITH_ERROR || c->suspended);
	if (n)
		http_close(c, MHD_REQUEST_TERMINATED_WITH_ERROR);
}

/* Goes on with what was resumed and sends what was answered. */
static void http_turn(struct MHD_Connection *c)
{
	if (c->closed || c->suspended)
		return;
	if (c->resumed && !c->answered && !http_call(c, NULL, 0))
		return;
	c->resumed = false;
	if (!c->answered || c->suspended)
		return;
	if (c->response->read)
		http_stream(c);
	else
		http_close(c, MHD_REQUEST_TERMINATED_COMPLETED_OK);
}

enum MHD_Result MHD_run(struct MHD_Daemon *d)
{
	for (unsigned i = 0; i < d->nr; i++)
		http_turn(d->conns[i]);
	return MHD_YES;
}

static void http_forget(void)
{
	FUZZ_CHECK(!http.open);
	http.nr = 0;
}

#endif
