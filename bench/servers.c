#include "servers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshots.h"
#include "store/store.h"

#define STARTS_NS 10000000000ull

static unsigned free_port(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) || getsockname(fd, (struct sockaddr *)&at, &len))
		bench_die("port", strerror(errno));
	close(fd);
	return ntohs(at.sin_port);
}

static void exec_server(struct bench_server *s, const char *port)
{
	int log = open("/dev/null", O_WRONLY);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(log, STDOUT_FILENO);
	if (!strcmp(s->kind, "valkey"))
		execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", s->folder, (char *)NULL);
	else
		execlp("memcached", "memcached", "-p", port, "-l", "127.0.0.1", "-U", "0", "-M", "-o", "slab_automove=0", "-m", "1024", "-u", "root", "-t", "1", (char *)NULL);
	perror(s->kind);
	_exit(1);
}

void bench_server_start(struct bench_server *s, const char *kind)
{
	struct cis_error err;
	char port[16];

	*s = (struct bench_server){ .kind = kind };
	snprintf(s->folder, sizeof(s->folder), "/var/tmp/cistern-bench-store.XXXXXX");
	if (!mkdtemp(s->folder))
		bench_die(s->folder, strerror(errno));
	if (!strcmp(kind, "file")) {
		snprintf(s->url, sizeof(s->url), "file:%s", s->folder);
		return;
	}
	snprintf(port, sizeof(port), "%u", free_port());
	snprintf(s->url, sizeof(s->url), "%s://127.0.0.1:%s", kind, port);
	s->pid = fork();
	if (s->pid < 0)
		bench_die(kind, strerror(errno));
	if (!s->pid)
		exec_server(s, port);
	if (cis_pages_probe(s->url, STARTS_NS, &err))
		bench_die(s->url, err.text);
}

void bench_server_stop(struct bench_server *s)
{
	char command[300];

	if (s->pid) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	}
	snprintf(command, sizeof(command), "rm -rf %s", s->folder);
	if (system(command))
		bench_die(s->folder, "cannot be removed");
}
