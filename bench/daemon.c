#include "daemon.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshots.h"

#define UP_TRIES 2000
#define SET_MAX	 16

static char build[4000];

const char *bench_build_find(void)
{
	static const char *const programs[] = {"cisternd", "cistern", "cistern-fakevmm"};
	ssize_t n = readlink("/proc/self/exe", build, sizeof(build) - 1);
	char path[4100];

	if (n < 0)
		return NULL;
	build[n] = 0;
	for (int up = 0; up < 2; up++)
		*strrchr(build, '/') = 0;
	for (size_t i = 0; i < sizeof(programs) / sizeof(*programs); i++) {
		snprintf(path, sizeof(path), "%s/%s", build, programs[i]);
		if (access(path, X_OK))
			return NULL;
	}
	return build;
}

pid_t bench_start(const char *program, char *const argv[], bool quiet)
{
	pid_t pid = fork();
	char path[4200];

	if (pid < 0)
		bench_die("fork", strerror(errno));
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM); /* a benchmark that gives up leaves nothing behind */
	snprintf(path, sizeof(path), "%s/%s", build, program);
	if (quiet && (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr)))
		_exit(127);
	execv(path, argv);
	_exit(127);
}

void bench_run(const char *program, char *const argv[])
{
	int status;
	pid_t pid = bench_start(program, argv, true);

	if (waitpid(pid, &status, 0) != pid || status)
		bench_die(argv[1], "failed");
}

static bool listens(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), r;

	if (strlen(path) >= sizeof(addr.sun_path))
		bench_die(path, "too long for a socket: choose another TMPDIR");
	strcpy(addr.sun_path, path);
	r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	close(fd);
	return !r;
}

void bench_daemon_start(struct bench_daemon *d, const char *folder, const char *const *set)
{
	char *argv[2 * SET_MAX + 4] = {"cisternd", "--control", d->control};
	int n = 3;

	for (; *set && n < 2 * SET_MAX; set++) {
		argv[n++] = "--set";
		argv[n++] = (char *)*set;
	}
	snprintf(d->control, sizeof(d->control), "%s/control.sock", folder);
	d->keeper = bench_start("cisternd", argv, true);
	for (int i = 0; !listens(d->control); i++) {
		if (i == UP_TRIES || waitpid(d->keeper, NULL, WNOHANG))
			bench_die("cisternd", "does not come up");
		poll(NULL, 0, 5);
	}
}

void bench_daemon_end(struct bench_daemon *d)
{
	kill(d->keeper, SIGTERM);
	waitpid(d->keeper, NULL, 0);
}

pid_t bench_daemon_engine(const struct bench_daemon *d)
{
	char path[64];
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)d->keeper, (int)d->keeper);
	f = fopen(path, "r");
	if (!f)
		bench_die(path, strerror(errno));
	if (fscanf(f, "%d", &pid) != 1)
		pid = 0;
	fclose(f);
	return pid;
}

uint64_t bench_memory_of(pid_t pid, const char *what)
{
	char path[64], line[256];
	unsigned long long kb = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, what, strlen(what)) && line[strlen(what)] == ':')
			sscanf(line + strlen(what) + 1, "%llu", &kb);
	if (f)
		fclose(f);
	return kb << 10;
}
