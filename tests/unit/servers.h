/* Real servers for tests: each in a folder of its own, on a socket there and maybe a port; they end with the test. */
#ifndef TESTS_UNIT_SERVERS_H
#define TESTS_UNIT_SERVERS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define SERVER_ARGS 48

struct server {
	pid_t pid;
	char dir[64];
	char sock[96];
	unsigned port; /* 0: none */
	unsigned bus;  /* of a cluster */
	char url[128];
};

/* A port that nobody has at this instant, and the kernel does not give out again soon. */
static inline unsigned server_port(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	close(fd);
	return ntohs(sin.sin_port);
}

static inline void server_dir(struct server *s)
{
	*s = (struct server){ 0 };
	strcpy(s->dir, "/tmp/cistern-server.XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->sock, sizeof(s->sock), "%s/sock", s->dir);
}

/* Servers do not outlive the test, however it ends. */
static inline void server_exec(struct server *s, const char *const *argv)
{
	char log[96];
	int fd;

	snprintf(log, sizeof(log), "%s/log", s->dir);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, 1);
	dup2(fd, 2);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

static inline void server_signal(const struct server *s, int sig)
{
	assert_int_equal(kill(s->pid, sig), 0);
}

static inline void server_kill(struct server *s)
{
	if (s->pid <= 0)
		return;
	kill(s->pid, SIGKILL);
	assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
	s->pid = 0;
}

static inline void server_remove(struct server *s)
{
	char command[96];

	server_kill(s);
	snprintf(command, sizeof(command), "rm -rf %s", s->dir);
	assert_int_equal(system(command), 0);
}

/* Between two looks at something that tells nobody when it changes. */
static inline void server_pause(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

static inline bool server_ended(struct server *s)
{
	int status;

	if (waitpid(s->pid, &status, WNOHANG) != s->pid)
		return false;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		check_skip("a server that this tests with is not installed: tools/install-deps.sh check");
	s->pid = 0;
	return true;
}

#endif
