/* One connection to a server: found, made, greeted, read, written. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/lookup.h"
#include "store/memcached/memcached.h"

#define READS 4 /* of MC_IN, at once */

void mc_conn_init(struct mc_conn *c, struct mc_server *server, enum mc_lane lane)
{
	c->server = server;
	c->lane = lane;
	c->fd = -1;
	TAILQ_INIT(&c->backlog);
	TAILQ_INIT(&c->flights);
}

static void watch(struct mc_conn *c, int op, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	if (epoll_ctl(c->server->mc->remote.epoll, op, fd, &ev))
		mc_conn_break(c, strerror(errno));
	else
		c->events = events;
}

/* In the order in which they were: what was sent first is sent first again. */
static void take_back(struct mc_conn *c)
{
	struct mc_flight *f;

	while ((f = TAILQ_LAST(&c->flights, mc_flights))) {
		TAILQ_REMOVE(&c->flights, f, next);
		for (unsigned i = f->nr; i-- > 0;) {
			struct mc_item *item = f->item[i];

			if (!item)
				continue;
			item->flight = NULL;
			TAILQ_INSERT_HEAD(&c->backlog, &item->item, at);
			item->item.in = &c->backlog;
		}
		free(f);
	}
	c->nr = c->asks = 0;
}

static void forget_lookup(struct mc_conn *c)
{
	if (c->lookup)
		epoll_ctl(c->server->mc->remote.epoll, EPOLL_CTL_DEL, cis_lookup_fd(c->lookup), NULL);
	cis_lookup_forget(c->lookup);
	c->lookup = NULL;
}

void mc_conn_close(struct mc_conn *c)
{
	forget_lookup(c);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->state = MC_DOWN;
	take_back(c);
	free(c->out);
	c->out = NULL;
	c->out_at = c->out_end = c->out_size = 0;
	c->in_at = c->in_end = 0;
	c->value_bytes = c->value_left = 0;
}

void mc_conn_break(struct mc_conn *c, const char *why)
{
	char name[CIS_HOST_TEXT_MAX];

	if (c->state == MC_DOWN)
		return;
	cis_host_text(c->server->host.name, c->server->host.port, name);
	cis_fail(&c->server->mc->why, EIO, "memcached %s: %s", name, why);
	mc_conn_close(c);
	c->retry_ns = cis_now_ns(NULL) + cis_remote_backoff(c->failures++);
}

/* Making one. */

static int connect_socket(int fd, const struct sockaddr *sa, socklen_t len)
{
	return connect(fd, sa, len) && errno != EINPROGRESS ? -1 : 0;
}

static int connect_unix(struct mc_conn *c)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	memcpy(sun.sun_path, c->server->host.name, sizeof(sun.sun_path)); /* it ends before: the name was checked */
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return c->fd < 0 ? -1 : connect_socket(c->fd, (struct sockaddr *)&sun, sizeof(sun));
}

static int connect_tcp(struct mc_conn *c, const char *address)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV }, *ai;
	char port[8];
	int on = 1, rc;

	snprintf(port, sizeof(port), "%u", c->server->host.port);
	if (getaddrinfo(address, port, &hints, &ai)) {
		errno = EINVAL;
		return -1;
	}
	c->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd >= 0) {
		setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	}
	rc = c->fd < 0 ? -1 : connect_socket(c->fd, ai->ai_addr, ai->ai_addrlen);
	freeaddrinfo(ai);
	return rc;
}

static void connect_to(struct mc_conn *c, const char *address)
{
	c->state = MC_CONNECTING;
	c->since_ns = cis_now_ns(NULL);
	if (c->server->host.port ? connect_tcp(c, address) : connect_unix(c))
		mc_conn_break(c, strerror(errno));
	else
		watch(c, EPOLL_CTL_ADD, c->fd, EPOLLOUT);
}

static void start(struct mc_conn *c)
{
	const struct cis_host *host = &c->server->host;
	int rc;

	if (!host->port || !cis_lookup_needed(host->name)) {
		connect_to(c, host->name);
		return;
	}
	c->state = MC_LOOKUP;
	c->since_ns = cis_now_ns(NULL);
	rc = cis_lookup_start(host->name, &c->lookup);
	if (rc)
		mc_conn_break(c, strerror(-rc));
	else
		watch(c, EPOLL_CTL_ADD, cis_lookup_fd(c->lookup), EPOLLIN);
}

static void looked_up(struct mc_conn *c)
{
	char address[CIS_ADDRESS_TEXT_MAX];
	int rc = cis_lookup_result(c->lookup, c->failures, address);

	if (rc) {
		mc_conn_break(c, rc == -ENOENT ? "there is no such host" : "its address cannot be found out at present");
		return;
	}
	forget_lookup(c);
	connect_to(c, address);
}

static void connected(struct mc_conn *c)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) || err) {
		mc_conn_break(c, strerror(err ? err : errno));
		return;
	}
	c->state = MC_GREETING;
	c->blocked = false;
	mc_ask(c, cis_now_ns(NULL));
}

/* Writing. */

bool mc_conn_print(struct mc_conn *c, const char *text, size_t len)
{
	if (c->out_size - c->out_end < len && c->out_at) {
		memmove(c->out, c->out + c->out_at, c->out_end - c->out_at);
		c->out_end -= c->out_at;
		c->out_at = 0;
	}
	if (c->out_size - c->out_end < len) {
		size_t size = (c->out_end + len) * 2;
		char *out = realloc(c->out, size);

		if (!out) {
			mc_conn_break(c, "out of memory");
			return false;
		}
		c->out = out;
		c->out_size = size;
	}
	memcpy(c->out + c->out_end, text, len);
	c->out_end += len;
	return true;
}

static void write_out(struct mc_conn *c)
{
	while (c->out_at < c->out_end) {
		ssize_t n = send(c->fd, c->out + c->out_at, c->out_end - c->out_at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN) {
			mc_conn_break(c, strerror(errno));
			return;
		}
		if (n < 0) {
			c->blocked = true;
			return;
		}
		c->out_at += (size_t)n;
	}
	c->out_at = c->out_end = 0;
}

/* Reading. */

/* Return: whether something has come. */
static bool read_in(struct mc_conn *c)
{
	ssize_t n;

	memmove(c->in, c->in + c->in_at, c->in_end - c->in_at);
	c->in_end -= c->in_at;
	c->in_at = 0;
	do
		n = recv(c->fd, c->in + c->in_end, sizeof(c->in) - c->in_end, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		c->in_end += (size_t)n;
	else if (!n || errno != EAGAIN)
		mc_conn_break(c, n ? strerror(errno) : "closed the connection");
	return n > 0;
}

static void read_some(struct mc_conn *c)
{
	for (int i = 0; i < READS && read_in(c); i++) {
		const char *wrong = mc_read(c);

		if (wrong)
			mc_conn_break(c, wrong);
		if (wrong || TAILQ_EMPTY(&c->flights))
			return;
	}
}

void mc_conn_event(struct mc_conn *c, uint32_t events)
{
	if (c->state == MC_LOOKUP) {
		looked_up(c);
	} else if (c->state == MC_CONNECTING) {
		connected(c);
	} else if (c->state != MC_DOWN) {
		c->blocked &= !(events & EPOLLOUT);
		if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
			read_some(c);
	}
}

/* Return: when something is to be done without the server; UINT64_MAX: never. */
static uint64_t alarm_of(const struct mc_conn *c)
{
	const struct mc_flight *first = TAILQ_FIRST(&c->flights);
	const struct mc *mc = c->server->mc;

	switch (c->state) {
	case MC_DOWN:
		return !TAILQ_EMPTY(&c->backlog) || (mc->probing && c->lane == MC_PUTS) ? c->retry_ns : UINT64_MAX;
	case MC_READY:
		return first ? first->sent_ns + MC_STALL_NS : UINT64_MAX;
	default:
		return c->since_ns + MC_GREET_NS;
	}
}

uint64_t mc_conn_drive(struct mc_conn *c, uint64_t now)
{
	uint32_t events;

	if (now >= alarm_of(c) && c->state == MC_DOWN)
		start(c);
	else if (now >= alarm_of(c))
		mc_conn_break(c, c->state == MC_LOOKUP ? "its address cannot be found out at present" : "does not answer");
	if (c->state == MC_READY)
		mc_items_send(c, now);
	if (c->state >= MC_GREETING && !c->blocked)
		write_out(c);
	if (c->state < MC_GREETING)
		return alarm_of(c);
	events = EPOLLIN | (c->blocked ? (uint32_t)EPOLLOUT : 0);
	if (events != c->events)
		watch(c, EPOLL_CTL_MOD, c->fd, events);
	return alarm_of(c);
}
