/*
 * The way back, for a keeper that became another program which then fails to come up.
 *
 * The program that it was is a descriptor, so it is there though its file may be replaced by now. It is executed with the same
 * table, whose descriptors nobody has touched: from a place that sees an error, or from the handler of the signal that a bug raises.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/keep_exec.h"
#include "daemon/keeper.h"

extern char **environ;

static const int bugs[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };

static struct {
	int fd; /* 0: there is none */
	char name[4096];
	char **argv;
} former;

static int offered = -1;

void keep_back_offer(const char *name)
{
	char text[4200];

	offered = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (offered < 0)
		return; /* it does without */
	snprintf(text, sizeof(text), "%d:%s", offered, name);
	setenv(KEEP_FORMER_ENV, text, 1);
	fcntl(offered, F_SETFD, 0);
}

void keep_back_withdraw(void)
{
	unsetenv(KEEP_FORMER_ENV);
	if (offered >= 0)
		close(offered);
	offered = -1;
}

bool keep_back_can(void)
{
	return former.fd;
}

const char *keep_back_why(void)
{
	return keep_back_can() ? NULL : getenv(KEEP_BACK_ENV);
}

/* Only what a signal handler may call. */
static void execute(void)
{
	former.argv[0] = former.name;
	fexecve(former.fd, former.argv, environ);
}

static void on_bug(int sig)
{
	execute();
	raise(sig); /* its handler was reset */
}

static void catch_bugs(void (*handler)(int))
{
	struct sigaction act = { .sa_handler = handler, .sa_flags = (int)SA_RESETHAND | SA_NODEFER };

	for (size_t i = 0; i < sizeof(bugs) / sizeof(*bugs); i++)
		sigaction(bugs[i], &act, NULL);
}

void cis_keeper_guard(char **argv)
{
	const char *at = getenv(KEEP_FORMER_ENV), *name = at ? strchr(at, ':') : NULL;
	int fd;

	if (!name || !getenv(KEEP_TABLE_ENV))
		return;
	fd = fcntl(atoi(at), F_DUPFD_CLOEXEC, KEEP_FREE_FROM);
	if (fd < 0)
		return;
	close(atoi(at));
	former.fd = fd;
	snprintf(former.name, sizeof(former.name), "%s", name + 1);
	unsetenv(KEEP_FORMER_ENV);
	former.argv = argv;
	setenv(KEEP_BACK_ENV, "it was ended by a signal while it came up", 1);
	catch_bugs(on_bug);
}

void cis_keeper_go_back(const char *why)
{
	if (!keep_back_can())
		return;
	cis_log(CIS_LOG_ERROR, "keeper: it becomes the program again that it was, as this one cannot come up");
	setenv(KEEP_BACK_ENV, why, 1);
	execute();
	cis_log(CIS_LOG_ERROR, "keeper: %s: %s", former.name, strerror(errno));
}

void keep_back_settle(void)
{
	const char *unused = getenv(KEEP_FORMER_ENV);

	if (unused)
		close(atoi(unused));
	unsetenv(KEEP_FORMER_ENV);
	unsetenv(KEEP_BACK_ENV);
	if (!keep_back_can())
		return;
	catch_bugs(SIG_DFL);
	close(former.fd);
	former.fd = 0;
}
