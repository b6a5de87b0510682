/* memcached. */
#ifndef TESTS_UNIT_MEMCACHED_SERVER_H
#define TESTS_UNIT_MEMCACHED_SERVER_H

#include <sys/un.h>

#include "servers.h"

#define MEMCACHED_SAFE "-M", "-o", "slab_automove=0"

static inline int memcached_connect(const struct server *s)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)s->port) };
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(s->port ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(sun.sun_path, s->sock, sizeof(s->sock));
	assert_true(fd >= 0);
	if (s->port ? connect(fd, (struct sockaddr *)&sin, sizeof(sin)) : connect(fd, (struct sockaddr *)&sun, sizeof(sun))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* One command, up to the line that ends its answer. */
static inline void memcached_do(const struct server *s, const char *command, const char *expected)
{
	int fd = memcached_connect(s);
	char answer[65536];
	size_t len = 0;
	ssize_t n;

	assert_true(fd >= 0 && write(fd, command, strlen(command)) > 0);
	do {
		n = read(fd, answer + len, sizeof(answer) - len - 1);
		assert_true(n > 0);
		len += (size_t)n;
		answer[len] = 0;
	} while (!strstr(answer, expected));
	close(fd);
}

static inline bool memcached_answers(struct server *s)
{
	while (!server_ended(s)) {
		int fd = memcached_connect(s);

		if (fd >= 0) {
			close(fd);
			return true;
		}
		server_pause();
	}
	return false;
}

static inline void memcached_exec(struct server *s, const char *const *more)
{
	char port[16];
	const char *argv[SERVER_ARGS] = { "memcached", "-u", "root", "-U", "0" };
	size_t n = 5;

	snprintf(port, sizeof(port), "%u", s->port);
	argv[n++] = s->port ? "-l" : "-s";
	argv[n++] = s->port ? "127.0.0.1" : s->sock;
	if (s->port) {
		argv[n++] = "-p";
		argv[n++] = port;
	}
	for (; more && *more; more++)
		argv[n++] = *more;
	unlink(s->sock);
	server_exec(s, argv);
}

static inline void memcached_start(struct server *s, bool tcp, const char *const *more)
{
	server_dir(s);
	for (int i = 0; i < 20; i++) {
		s->port = tcp ? server_port() : 0;
		memcached_exec(s, more);
		if (!memcached_answers(s))
			continue; /* somebody else took the port meanwhile */
		if (tcp)
			snprintf(s->url, sizeof(s->url), "memcached://127.0.0.1:%u", s->port);
		else
			snprintf(s->url, sizeof(s->url), "memcached://%s", s->sock);
		return;
	}
	fail_msg("%s/log says why the server does not start", s->dir);
}

/* The same again, after it has ended. */
static inline void memcached_restart(struct server *s, const char *const *more)
{
	server_kill(s);
	memcached_exec(s, more);
	assert_true(memcached_answers(s));
}

#endif
