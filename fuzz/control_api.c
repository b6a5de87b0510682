/*
 * The control interface: requests, one after another, to an engine whose keeper grants everything.  libmicrohttpd, which parses
 * HTTP itself, is played by this file: what it would call is called with what the input says.
 *
 * Input: requests separated by a byte 0x1e, each "METHOD PATH[?KEY=VALUE[&...]]\nBODY".  @IMAGE@ stands for the path of an
 * image.  Every request gets exactly one answer, a status of the API and JSON or text; what waits is answered at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "daemon/api.h"
#include "daemon/awake.h"
#include "daemon/events.h"
#include "daemon/guest.h"
#include "daemon/guest_int.h"
#include "daemon/request.h"
#include "image/source.h"
#include "image/write.h"

#define REQUESTS_MAX 16

struct MHD_Response {
	void *buffer, *ctx;
	enum MHD_ResponseMemoryMode mode;
	MHD_ContentReaderCallback read;
	MHD_ContentReaderFreeCallback free_ctx;
	unsigned uses; /* by who made it, and by the connection that it was queued on */
};

struct MHD_Connection {
	char text[4096 + 64];
	char *method, *path, *query, *body;
	void *state;
	bool suspended, resumed, answered;
	int fd;
	unsigned status;
	struct MHD_Response *response;
	union MHD_ConnectionInfo info;
};

static struct {
	MHD_AccessHandlerCallback handle;
	void *handle_ctx;
	MHD_RequestCompletedCallback completed;
	void *completed_ctx;
	union MHD_DaemonInfo info;
} server;

static struct MHD_Connection conns[REQUESTS_MAX];
static struct cis_engine engine;
static struct cis_config config;
static char folder[] = "/tmp/cistern-fuzz-XXXXXX", image[64], memory[64];
static int keeper;

/* The server. */

struct MHD_Daemon *MHD_start_daemon(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback apc, void *apc_ctx,
				    MHD_AccessHandlerCallback handle, void *ctx, ...)
{
	enum MHD_OPTION option;
	va_list ap;

	server.handle = handle;
	server.handle_ctx = ctx;
	va_start(ap, ctx);
	while ((option = va_arg(ap, enum MHD_OPTION)) != MHD_OPTION_END)
		switch (option) {
		case MHD_OPTION_LISTEN_SOCKET:
			(void)va_arg(ap, int);
			break;
		case MHD_OPTION_CONNECTION_LIMIT:
			(void)va_arg(ap, unsigned);
			break;
		case MHD_OPTION_NOTIFY_COMPLETED:
			server.completed = va_arg(ap, MHD_RequestCompletedCallback);
			server.completed_ctx = va_arg(ap, void *);
			break;
		default: /* two pointers */
			(void)va_arg(ap, void *);
			(void)va_arg(ap, void *);
		}
	va_end(ap);
	return (struct MHD_Daemon *)&server;
}

void MHD_stop_daemon(struct MHD_Daemon *d)
{
}

enum MHD_Result MHD_run(struct MHD_Daemon *d)
{
	return MHD_YES;
}

enum MHD_Result MHD_get_timeout(struct MHD_Daemon *d, MHD_UNSIGNED_LONG_LONG *ret)
{
	return MHD_NO;
}

const union MHD_DaemonInfo *MHD_get_daemon_info(struct MHD_Daemon *d, enum MHD_DaemonInfoType type, ...)
{
	return &server.info;
}

const union MHD_ConnectionInfo *MHD_get_connection_info(struct MHD_Connection *c, enum MHD_ConnectionInfoType type, ...)
{
	c->info.connect_fd = c->fd;
	return &c->info;
}

void MHD_suspend_connection(struct MHD_Connection *c)
{
	FUZZ_CHECK(!c->suspended);
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
	static char value[4096];
	size_t n = strlen(key);

	if (kind != MHD_GET_ARGUMENT_KIND)
		return NULL;
	for (const char *at = c->query; at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL)
		if (!strncmp(at, key, n) && at[n] == '=') {
			snprintf(value, sizeof(value), "%.*s", (int)strcspn(at + n + 1, "&"), at + n + 1);
			return value;
		}
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
	return MHD_YES;
}

enum MHD_Result MHD_queue_response(struct MHD_Connection *c, unsigned status, struct MHD_Response *r)
{
	FUZZ_CHECK(!c->answered && status >= 200 && status < 600);
	if (r->buffer && *(char *)r->buffer == '{') {
		json_t *json = json_loads(r->buffer, 0, NULL);

		FUZZ_CHECK(json && (status < 300) == !json_object_get(json, "error"));
		json_decref(json);
	}
	c->answered = true;
	c->status = status;
	c->response = r;
	r->uses++;
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

static void answer(uint64_t id, uint32_t type, uint32_t error, const void *body, size_t len)
{
	cis_wire_send(keeper, &(struct cis_wire_msg){ .type = type, .id = id, .error = error, .body = body, .body_len = len });
}

/* The keeper: listens wherever it is asked to, and nobody comes; it never becomes, or starts, another program. */
static void grant(void)
{
	struct cis_wire_buf buf;
	struct cis_wire_msg msg;

	while (!cis_wire_recv(keeper, &buf, &msg)) {
		cis_fds_close(msg.fds, msg.nr_fds);
		if (msg.type == CIS_WIRE_LISTEN)
			answer(msg.id, CIS_WIRE_LISTENING, 0, msg.body, msg.body_len);
		else if (msg.type == CIS_WIRE_UPGRADE)
			answer(0, CIS_WIRE_UPGRADING, ENOENT, "no", 2);
		else if (msg.type == CIS_WIRE_EXEC)
			answer(0, CIS_WIRE_EXECED, ENOENT, "no", 2);
	}
	cis_keeper_link_run(engine.link, 64);
}

static void make_image(void)
{
	struct cis_write_opts opts = { .size = sizeof(opts), .codec = CIS_CODEC_RAW };
	struct cis_image_source *src;
	struct cis_error err;
	int fd;

	snprintf(memory, sizeof(memory), "%s/memory", folder);
	snprintf(image, sizeof(image), "%s/image", folder);
	fd = open(memory, O_CREAT | O_WRONLY, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, folder, sizeof(folder)) > 0 && !ftruncate(fd, 65536));
	close(fd);
	FUZZ_CHECK(!cis_source_raw(memory, &src, &err) && !cis_image_write(image, src, &opts, &err));
	cis_source_close(src);
	unlink(memory);
}

static void clean_up(void)
{
	unlink(image);
	rmdir(folder);
}

static void open_engine(void)
{
	struct cis_error err;
	int pair[2];

	FUZZ_CHECK(mkdtemp(folder) && !cis_sock_pair(SOCK_SEQPACKET, pair));
	atexit(clean_up);
	FUZZ_CHECK(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
	keeper = pair[1];
	FUZZ_CHECK(!cis_config_init(&config));
	FUZZ_CHECK(!cis_config_set(&config, "traces", folder, &err) && !cis_config_set(&config, "images", folder, &err));
	make_image();
	engine = (struct cis_engine){ .config = &config, .epoll = -1, .has_keeper = true, .mode = CIS_ENGINE_SERVES };
	FUZZ_CHECK(!cis_mailbox_init(&engine.box) && !cis_events_create(&engine.events) && !cis_awake_create(0, &engine.awake));
	FUZZ_CHECK(!cis_workers_create(1, &engine.workers));
	engine.shards = calloc(1, sizeof(*engine.shards));
	engine.nr_shards = 1;
	FUZZ_CHECK(engine.shards && !cis_shard_create(0, engine.workers, &engine.box, engine.awake, engine.shards));
	FUZZ_CHECK(!cis_keeper_link_create(pair[0], &cis_guest_link_ops, &engine, &engine.link));
	FUZZ_CHECK(!cis_api_create(&engine, dup(0), &engine.api, &err));
}

/* Return: false when it is not a request. */
static bool parse(struct MHD_Connection *c, const uint8_t *at, size_t len)
{
	char *token;

	*c = (struct MHD_Connection){ .fd = c->fd };
	if (len >= 4096 || memchr(at, 0, len))
		return false;
	memcpy(c->text, at, len);
	token = strstr(c->text, "@IMAGE@");
	if (token) {
		memmove(token + strlen(image), token + 7, strlen(token + 7) + 1);
		memcpy(token, image, strlen(image));
	}
	c->method = c->text;
	c->body = strchr(c->text, '\n');
	c->path = strchr(c->text, ' ');
	if (!c->body || !c->path || c->path > c->body)
		return false;
	*c->body++ = 0;
	*c->path++ = 0;
	c->query = strchr(c->path, '?');
	if (c->query)
		*c->query++ = 0;
	return true;
}

static void call(struct MHD_Connection *c, const char *data, size_t *len)
{
	FUZZ_CHECK(server.handle(server.handle_ctx, c, c->path, c->method, "HTTP/1.1", data, len, &c->state) == MHD_YES);
}

static void ask(struct MHD_Connection *c)
{
	size_t none = 0, half = strlen(c->body) / 2, rest = strlen(c->body) - half;

	call(c, NULL, &none);
	if (half)
		call(c, c->body, &half);
	if (rest)
		call(c, c->body + strlen(c->body) - rest, &rest);
	call(c, NULL, &none);
}

static void turn(unsigned nr)
{
	grant();
	cis_mailbox_run(&engine.box);
	cis_api_run(engine.api);
	for (unsigned i = 0; i < nr; i++) {
		size_t none = 0;

		if (conns[i].resumed && !conns[i].answered)
			call(&conns[i], NULL, &none);
		conns[i].resumed = false;
	}
}

static void end(unsigned nr)
{
	struct cis_error err;

	while (engine.nr_guests) {
		size_t before = engine.nr_guests;

		FUZZ_CHECK(!cis_guest_delete(engine.guests[0], true, &err));
		turn(nr);
		FUZZ_CHECK(engine.nr_guests < before);
	}
	for (unsigned i = 0; i < nr; i++) {
		struct MHD_Connection *c = &conns[i];

		if (c->suspended) /* its client hangs up; the server lets it go on first */
			c->suspended = false;
		if (c->state)
			server.completed(server.completed_ctx, c, &c->state, MHD_REQUEST_TERMINATED_CLIENT_ABORT);
		if (c->response)
			MHD_destroy_response(c->response);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const uint8_t *at = data, *stop = data + len;
	unsigned nr = 0;
	int pair[2];

	if (!engine.api)
		open_engine();
	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	while (at < stop && nr < REQUESTS_MAX) {
		const uint8_t *next = memchr(at, 0x1e, (size_t)(stop - at));
		size_t n = (size_t)((next ? next : stop) - at);

		conns[nr].fd = pair[0];
		if (parse(&conns[nr], at, n)) {
			ask(&conns[nr++]);
			turn(nr);
		}
		at = next ? next + 1 : stop;
	}
	end(nr);
	close(pair[0]);
	close(pair[1]);
	return 0;
}
