/* The test build's half of base/point.h. */
#include "base/point.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
#define X(name) #name,
	CIS_POINTS_ALL(X)
#undef X
};

static enum cis_point armed = CIS_POINT_NR;
static atomic_long left;
static int signal_no;
static char token[4096];

void (*cis_point_hook)(enum cis_point point);

const char *cis_point_name(enum cis_point point)
{
	return names[point];
}

void cis_point_hit(enum cis_point point)
{
	if (cis_point_hook)
		cis_point_hook(point);
	if (point != armed || (*token && access(token, F_OK)) || atomic_fetch_sub(&left, 1) != 1)
		return;
	if (!*token || !unlink(token))
		kill(getpid(), signal_no);
}

static void end(const char *what, const char *text)
{
	fprintf(stderr, "CISTERN_POINT: %s '%s'\n", what, text);
	_exit(2);
}

static void arm(const char *text)
{
	char name[64] = "", what[8] = "kill";
	long n = 1;

	if (sscanf(text, "%63[a-z_]:%ld:%7s", name, &n, what) < 1 || n < 1)
		end("not NAME[:N[:kill|stop]]:", text);
	for (armed = 0; armed < CIS_POINT_NR && strcmp(names[armed], name); armed++)
		;
	if (armed == CIS_POINT_NR)
		end("no such point:", name);
	if (strcmp(what, "kill") && strcmp(what, "stop"))
		end("neither kill nor stop:", what);
	signal_no = strcmp(what, "kill") ? SIGSTOP : SIGKILL;
	atomic_store(&left, n);
}

/* The value of a variable in an environment as /proc tells it, or NULL. */
static const char *find(const char *env, size_t len, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = env; at < env + len; at += strlen(at) + 1)
		if (!strncmp(at, name, n) && at[n] == '=')
			return at + n + 1;
	return NULL;
}

static size_t read_environ(pid_t pid, char *buf, size_t max)
{
	char path[40];
	size_t len = 0;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && len < max - 1 && (n = read(fd, buf + len, max - 1 - len)) > 0)
		len += (size_t)n;
	if (fd >= 0)
		close(fd);
	buf[len] = 0;
	return len;
}

__attribute__((constructor)) static void look(int argc, char **argv)
{
	static char env[128 << 10];
	size_t len = read_environ(getpid(), env, sizeof(env));
	const char *text;

	if (argc == 2 && !strcmp(argv[1], "--points")) {
		for (int i = 0; i < CIS_POINT_NR; i++)
			puts(names[i]);
		exit(0);
	}
	if (!find(env, len, "CISTERN_POINT"))
		len = read_environ(getppid(), env, sizeof(env));
	text = find(env, len, "CISTERN_POINT_TOKEN");
	if (text && strlen(text) < sizeof(token))
		strcpy(token, text);
	text = find(env, len, "CISTERN_POINT");
	if (text)
		arm(text);
}
