/* Servers that say whatever a test wants them to say, on a port of their own. */
#ifndef TESTS_UNIT_FAKE_H
#define TESTS_UNIT_FAKE_H

#include <pthread.h>
#include <stdatomic.h>

#include "servers.h"

struct fake_command;

/**
 * struct fake - one such server
 * @serve:  what it does on a connection, on a thread of that
 * @answer: to one command; for @serve.  Return: whether to go on
 * @hello:  on connecting; may be NULL.  Return: whether to go on
 * @serving: connections; @accepted: those that have ended as well
 * @fd:     of the latest one, or -1; under @lock
 */
struct fake {
	void (*serve)(struct fake *f, FILE *in, int fd);
	bool (*hello)(struct fake *f, int fd);
	bool (*answer)(struct fake *f, int fd, const struct fake_command *c);
	void *ctx;
	int listener;
	unsigned port;
	pthread_t thread;
	atomic_uint serving, accepted;
	pthread_mutex_t lock;
	int fd;
};

/* The peer may have gone.  Return: whether it has not. */
static inline bool fake_say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) >= 0;
}

/* On the latest connection, unasked. */
static inline void fake_say_now(struct fake *f, const char *text)
{
	pthread_mutex_lock(&f->lock);
	if (f->fd >= 0)
		fake_say(f->fd, text);
	pthread_mutex_unlock(&f->lock);
}

static inline void fake_latest(struct fake *f, int was, int fd)
{
	pthread_mutex_lock(&f->lock);
	if (was < 0 || f->fd == was)
		f->fd = fd;
	pthread_mutex_unlock(&f->lock);
}

struct fake_conn {
	struct fake *fake;
	int fd;
};

static inline void *fake_serve(void *arg)
{
	struct fake_conn *conn = arg;
	struct fake *f = conn->fake;
	FILE *in = fdopen(conn->fd, "r");

	if (in && (!f->hello || f->hello(f, conn->fd)))
		f->serve(f, in, conn->fd);
	fake_latest(f, conn->fd, -1);
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
		fake_latest(f, -1, fd);
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

	pthread_mutex_init(&f->lock, NULL);
	f->fd = -1;
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
	pthread_mutex_destroy(&f->lock);
}

#endif
