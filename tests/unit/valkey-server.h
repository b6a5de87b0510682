/* Valkey or Redis, and a cluster of them. */
#ifndef TESTS_UNIT_VALKEY_SERVER_H
#define TESTS_UNIT_VALKEY_SERVER_H

#include <hiredis/hiredis.h>

#include "servers.h"

/* Commands of the test itself. */

static inline redisReply *valkey_vask(const struct server *s, const char *format, va_list ap)
{
	redisContext *c = redisConnectUnix(s->sock);
	redisReply *reply = c && !c->err ? redisvCommand(c, format, ap) : NULL;

	if (c)
		redisFree(c);
	return reply;
}

/* NULL: it does not answer. */
static inline redisReply *valkey_ask(const struct server *s, const char *format, ...)
{
	va_list ap;
	redisReply *reply;

	va_start(ap, format);
	reply = valkey_vask(s, format, ap);
	va_end(ap);
	return reply;
}

static inline void valkey_do(const struct server *s, const char *format, ...)
{
	va_list ap;
	redisReply *reply;

	va_start(ap, format);
	reply = valkey_vask(s, format, ap);
	va_end(ap);
	assert_non_null(reply);
	if (reply->type == REDIS_REPLY_ERROR)
		fail_msg("%s: %s", format, reply->str);
	freeReplyObject(reply);
}

/* Until what it answers contains @text. */
static inline void valkey_until(const struct server *s, const char *text, const char *format, ...)
{
	bool is = false;

	while (!is) {
		va_list ap;
		redisReply *reply;

		va_start(ap, format);
		reply = valkey_vask(s, format, ap);
		va_end(ap);
		is = reply && reply->str && strstr(reply->str, text);
		if (reply)
			freeReplyObject(reply);
		if (!is)
			server_pause();
	}
}

/* Its log, shown when it does not start. */
static inline void valkey_exec(struct server *s, const char *const *more)
{
	char port[16], bus[16];
	const char *argv[SERVER_ARGS] = { "redis-server", "--port", port, "--unixsocket", s->sock, "--dir", s->dir, "--save", "",
					  "--daemonize", "no", "--bind", "127.0.0.1" };
	size_t n = 13;

	snprintf(port, sizeof(port), "%u", s->port);
	snprintf(bus, sizeof(bus), "%u", s->bus);
	if (s->bus) {
		argv[n++] = "--cluster-port";
		argv[n++] = bus;
	}
	for (; more && *more; more++)
		argv[n++] = *more;
	server_exec(s, argv);
}

static inline bool valkey_answers(struct server *s)
{
	while (!server_ended(s)) {
		redisReply *reply = valkey_ask(s, "PING");

		if (reply) {
			freeReplyObject(reply);
			return true;
		}
		server_pause();
	}
	return false;
}

/* @tcp: on a port too.  @more: further arguments, up to a NULL. */
static inline void valkey_start(struct server *s, bool tcp, bool cluster, const char *const *more)
{
	server_dir(s);
	for (int i = 0; i < 20; i++) {
		s->port = tcp ? server_port() : 0;
		s->bus = cluster ? server_port() : 0;
		valkey_exec(s, more);
		if (!valkey_answers(s))
			continue; /* somebody else took the port meanwhile */
		if (tcp)
			snprintf(s->url, sizeof(s->url), "valkey://127.0.0.1:%u", s->port);
		else
			snprintf(s->url, sizeof(s->url), "valkey://%s", s->sock);
		return;
	}
	fail_msg("%s/log says why the server does not start", s->dir);
}

/* The same again, after it has ended. */
static inline void valkey_restart(struct server *s, const char *const *more)
{
	server_kill(s);
	valkey_exec(s, more);
	assert_true(valkey_answers(s));
}

/* A cluster: @n primaries, and as many replicas behind them. */

#define VALKEY_CLUSTER_MAX 12

struct cluster {
	struct server server[VALKEY_CLUSTER_MAX];
	unsigned primaries, nr;
	char url[512];
};

static inline void valkey_id(const struct server *s, char ret[64])
{
	redisReply *reply = valkey_ask(s, "CLUSTER MYID");

	assert_non_null(reply);
	snprintf(ret, 64, "%s", reply->str);
	freeReplyObject(reply);
}

static inline void cluster_form(struct cluster *c)
{
	char id[64], nodes[32];

	snprintf(nodes, sizeof(nodes), "cluster_known_nodes:%u", c->nr);
	for (unsigned i = 0; i < c->nr; i++) {
		valkey_do(&c->server[i], "CLUSTER SET-CONFIG-EPOCH %u", i + 1);
		if (i < c->primaries)
			valkey_do(&c->server[i], "CLUSTER ADDSLOTSRANGE %u %u", 16384 * i / c->primaries,
				  16384 * (i + 1) / c->primaries - 1);
		if (i)
			valkey_do(&c->server[i], "CLUSTER MEET 127.0.0.1 %u %u", c->server[0].port, c->server[0].bus);
	}
	for (unsigned i = 0; i < c->nr; i++)
		valkey_until(&c->server[i], nodes, "CLUSTER INFO");
	for (unsigned i = c->primaries; i < c->nr; i++) {
		valkey_id(&c->server[i - c->primaries], id);
		valkey_do(&c->server[i], "CLUSTER REPLICATE %s", id);
	}
	for (unsigned i = 0; i < c->nr; i++) {
		valkey_until(&c->server[i], "cluster_state:ok", "CLUSTER INFO");
		valkey_until(&c->server[i], i < c->primaries && c->nr > c->primaries ? "state=online" : "role:", "INFO replication");
	}
}

static inline void cluster_start(struct cluster *c, unsigned primaries, bool replicas)
{
	static const char *const args[] = { "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
					    "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0", NULL };

	c->primaries = primaries;
	c->nr = replicas ? 2 * primaries : primaries;
	strcpy(c->url, "valkey://");
	for (unsigned i = 0; i < c->nr; i++) {
		valkey_start(&c->server[i], true, true, args);
		if (i < primaries)
			snprintf(c->url + strlen(c->url), sizeof(c->url) - strlen(c->url), "%s127.0.0.1:%u", i ? "," : "",
				 c->server[i].port);
	}
	cluster_form(c);
}

static inline void cluster_remove(struct cluster *c)
{
	for (unsigned i = 0; i < c->nr; i++)
		server_remove(&c->server[i]);
}

#endif
