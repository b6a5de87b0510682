/* Servers that speak Valkey's protocol, but say whatever a test wants them to say. */
#ifndef TESTS_UNIT_VALKEY_FAKE_H
#define TESTS_UNIT_VALKEY_FAKE_H

#include <pthread.h>
#include <stdatomic.h>

#include "servers.h"

#define FAKE_ARGS 6

/** struct fake_command - what it was told; a long argument is cut */
struct fake_command {
	int argc;
	char arg[FAKE_ARGS][128];
	bool asked; /* ASKING came before */
};

/**
 * struct fake - one such server, on a port of its own
 * @answer: on a thread of the connection
 * @hello:  on connecting; may be NULL.  Return: whether to go on
 * @serving: connections; @accepted: those that have ended as well
 * @fd:     of the latest one
 */
struct fake {
	bool (*hello)(struct fake *f, int fd);
	bool (*answer)(struct fake *f, int fd, const struct fake_command *c);
	void *ctx;
	int listener;
	unsigned port;
	pthread_t thread;
	atomic_uint serving, accepted;
	atomic_int fd;
};

/* The peer may have gone.  Return: whether it has not. */
static inline bool fake_say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) >= 0;
}

static inline bool fake_info(int fd, const char *more)
{
	char body[400], text[500];

	snprintf(body, sizeof(body), "# Server\r\nrole:master\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:0\r\n%s\r\n", more);
	snprintf(text, sizeof(text), "$%zu\r\n%s\r\n", strlen(body), body);
	return fake_say(fd, text);
}

static inline bool fake_arg(FILE *in, char *ret, size_t max)
{
	char line[64];
	long len;

	if (!fgets(line, sizeof(line), in) || *line != '$')
		return false;
	len = strtol(line + 1, NULL, 10) + 2;
	for (long i = 0; i < len; i++) {
		int c = getc(in);

		if (c == EOF)
			return false;
		if (i < len - 2 && (size_t)i < max - 1)
			*ret++ = (char)c;
	}
	*ret = 0;
	return true;
}

static inline bool fake_read(FILE *in, struct fake_command *c)
{
	char line[64], other[8];

	if (!fgets(line, sizeof(line), in) || *line != '*')
		return false;
	c->argc = (int)strtol(line + 1, NULL, 10);
	for (int i = 0; i < c->argc; i++)
		if (!fake_arg(in, i < FAKE_ARGS ? c->arg[i] : other, i < FAKE_ARGS ? sizeof(c->arg[i]) : sizeof(other)))
			return false;
	return true;
}

struct fake_conn {
	struct fake *fake;
	int fd;
};

static inline void *fake_serve(void *arg)
{
	struct fake_conn *conn = arg;
	struct fake *f = conn->fake;
	struct fake_command c = { 0 };
	FILE *in = fdopen(conn->fd, "r");
	bool on = in && (!f->hello || f->hello(f, conn->fd));

	while (on && fake_read(in, &c)) {
		if (!strcmp(c.arg[0], "ASKING")) {
			on = fake_say(conn->fd, "+OK\r\n");
			c.asked = true;
		} else {
			on = f->answer(f, conn->fd, &c);
			c.asked = false;
		}
	}
	if (in)
		fclose(in);
	free(conn);
	f->serving--;
	return NULL;
}

static inline void *fake_accept(void *arg)
{
	struct fake *f = arg;
	int fd;

	while ((fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct fake_conn *conn = malloc(sizeof(*conn));
		pthread_t thread;

		*conn = (struct fake_conn){ f, fd };
		f->fd = fd;
		f->serving++;
		f->accepted++;
		pthread_create(&thread, NULL, fake_serve, conn);
		pthread_detach(thread);
	}
	return NULL;
}

static inline void fake_start(struct fake *f)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);

	f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(f->listener, 64), 0);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&sin, &len), 0);
	f->port = ntohs(sin.sin_port);
	assert_int_equal(pthread_create(&f->thread, NULL, fake_accept, f), 0);
}

/* Its clients have closed, or are about to. */
static inline void fake_idle(struct fake *f)
{
	while (f->serving)
		server_pause();
}

static inline void fake_stop(struct fake *f)
{
	shutdown(f->listener, SHUT_RDWR);
	pthread_join(f->thread, NULL);
	fake_idle(f);
	close(f->listener);
}

#endif
