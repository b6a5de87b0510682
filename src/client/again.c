#include "client/again.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/sock.h"

#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 1000

struct cis_again {
	char *socket;
	char *text; /* behind the '+' of a client that was served before */
	int conn, stop, fds[2];
	size_t nr_fds;
	bool is_served;
	pid_t pid;
	pthread_t thread;
};

enum heard { NOTHING, LOST, REFUSED };

/* The daemon says one byte, once; what follows it is no concern of ours. */
static enum heard listen_to(struct cis_again *a)
{
	char byte;
	ssize_t n = recv(a->conn, &byte, 1, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? NOTHING : LOST;
	if (!n)
		return LOST;
	if (byte == 'k')
		a->is_served = true;
	return byte == 'e' && !a->is_served ? REFUSED : NOTHING;
}

/* Return: true when it is to stop. */
static bool pause_for(const struct cis_again *a, int ms)
{
	struct pollfd p = { .fd = a->stop, .events = POLLIN };
	int n;

	do {
		n = poll(&p, 1, ms);
	} while (n < 0 && errno == EINTR);
	return n;
}

/*
 * Who was served before says so by a '+': a daemon that waits for it knows it, and one that expects another guest at this path,
 * whose memory is not to become this one's, refuses.
 */
static int say_again(const struct cis_again *a, int fd)
{
	const char *text = a->is_served ? a->text : a->text + 1;

	return cis_sock_send_all(fd, text, strlen(text), a->fds, a->nr_fds);
}

static bool connect_again(const struct cis_again *a)
{
	int fd, r = cis_sock_connect(a->socket, SOCK_STREAM, &fd, NULL);

	if (r)
		return false;
	r = say_again(a, fd);
	if (!r && dup3(fd, a->conn, O_CLOEXEC) < 0)
		r = -errno;
	close(fd);
	return !r;
}

/* Until it is there or this is to stop.  A daemon that hangs up at once is not asked in a loop. */
static bool come_back(const struct cis_again *a, int *pause_ms)
{
	do {
		if (pause_for(a, *pause_ms))
			return false;
		*pause_ms = *pause_ms * 2 < PAUSE_MAX_MS ? *pause_ms * 2 : PAUSE_MAX_MS;
	} while (!connect_again(a));
	return true;
}

static void *watch(void *arg)
{
	struct cis_again *a = arg;
	int pause_ms = PAUSE_MIN_MS;

	for (;;) {
		struct pollfd p[2] = { { .fd = a->stop, .events = POLLIN }, { .fd = a->conn, .events = POLLIN } };
		int n = poll(p, 2, pause_ms > PAUSE_MIN_MS ? PAUSE_MAX_MS : -1);
		enum heard heard = p[1].revents ? listen_to(a) : NOTHING;

		if (n < 0)
			continue;
		if (p[0].revents || heard == REFUSED)
			return NULL;
		if (!n)
			pause_ms = PAUSE_MIN_MS; /* it has stayed for a while */
		if (heard == LOST && !come_back(a, &pause_ms))
			return NULL;
	}
}

static void destroy(struct cis_again *a)
{
	if (a->stop >= 0)
		close(a->stop);
	free(a->socket);
	free(a->text);
	free(a);
}

static struct cis_again *create(const struct cis_again_opts *opts)
{
	struct cis_again *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->conn = opts->conn;
	memcpy(a->fds, opts->fds, sizeof(a->fds));
	a->nr_fds = opts->nr_fds;
	a->is_served = opts->is_served;
	a->pid = getpid();
	a->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	a->socket = strdup(opts->socket);
	a->text = malloc(strlen(opts->text) + 2);
	if (a->stop >= 0 && a->socket && a->text) {
		*a->text = '+';
		strcpy(a->text + 1, opts->text);
		return a;
	}
	destroy(a);
	return NULL;
}

int cis_again_start(const struct cis_again_opts *opts, struct cis_again **ret, struct cis_error *err)
{
	struct cis_again *a = create(opts);
	sigset_t all, old;
	int r;

	if (!a)
		return cis_fail(err, ENOMEM, "no memory or no descriptor to watch the connection");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&a->thread, NULL, watch, a);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		destroy(a);
		return cis_fail(err, r, "a thread to watch the connection: %s", strerror(r));
	}
	*ret = a;
	return 0;
}

void cis_again_stop(struct cis_again *a)
{
	if (!a)
		return;
	if (a->pid == getpid()) {
		eventfd_write(a->stop, 1);
		pthread_join(a->thread, NULL);
	}
	destroy(a);
}
