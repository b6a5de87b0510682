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
		end("not NAME[:N[:kill|stop|abort]]:", text);
	for (armed = 0; armed < CIS_POINT_NR && strcmp(names[armed], name); armed++)
		;
	if (armed == CIS_POINT_NR)
		end("no such point:", name);
	if (strcmp(what, "kill") && strcmp(what, "stop") && strcmp(what, "abort"))
		end("neither kill nor stop nor abort:", what);
	signal_no = !strcmp(what, "kill") ? SIGKILL : !strcmp(what, "stop") ? SIGSTOP : SIGABRT;
	atomic_store(&left, n);
}

/* As /proc tells it, since constructors may run before the environment is there. */
static bool variable_of(pid_t pid, const char *name, char *ret, size_t max)
{
	static char env[128 << 10];
	char path[40];
	size_t len = 0, n = strlen(name);
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && len < sizeof(env) - 1 && (got = read(fd, env + len, sizeof(env) - 1 - len)) > 0)
		len += (size_t)got;
	if (fd >= 0)
		close(fd);
	env[len] = 0;
	for (const char *at = env; at < env + len; at += strlen(at) + 1)
		if (!strncmp(at, name, n) && at[n] == '=') {
			snprintf(ret, max, "%s", at + n + 1);
			return true;
		}
	return false;
}

bool cis_point_variable(const char *first, const char *name, char *ret, size_t max)
{
	char found[2];

	return variable_of(variable_of(getpid(), first, found, sizeof(found)) ? getpid() : getppid(), name, ret, max);
}

__attribute__((constructor)) static void look(int argc, char **argv)
{
	char text[128];

	if (argc == 2 && !strcmp(argv[1], "--points")) {
		for (int i = 0; i < CIS_POINT_NR; i++)
			puts(names[i]);
		exit(0);
	}
	cis_point_variable("CISTERN_POINT", "CISTERN_POINT_TOKEN", token, sizeof(token));
	if (cis_point_variable("CISTERN_POINT", "CISTERN_POINT", text, sizeof(text)))
		arm(text);
}
