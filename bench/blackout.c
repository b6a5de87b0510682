/*
 * How long guests stand still while the daemon is replaced under them: by a hand-over (cistern upgrade), and by a take-over
 * after kill -9 of the engine.
 *
 * Every guest has a thread that touches a page which it never touched before, again and again.  Blackout is the longest touch
 * from the moment before the replacement begins until all guests have been answered after it, less the median of a quiet time.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "client/api.h"
#include "herd.h"
#include "snapshots.h"

#define BYTES	     (64ull << 20)
#define ROUNDS	     9
#define TOUCHES	     2000u     /* a second, of all guests together: far from busy */
#define ALONE	     4	       /* as if there were so many: a guest has only so many pages */
#define UPGRADE_BAR  20.0      /* ms, with 100 guests */
#define KILL_BAR     100.0
#define QUIET_NS     500000000 /* before and after */

static void pause_ns(uint64_t ns)
{
	nanosleep(&(struct timespec){(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}, NULL);
}

static void upgrade(struct bench_herd *herd)
{
	struct cis_api *api;
	struct cis_error err;
	json_t *body = json_object();

	if (cis_api_open(bench_herd_daemon(herd)->control, &api, &err) ||
	    cis_api_call(api, "POST", "/v1/upgrade", body, NULL, &err))
		bench_die("upgrade", err.text);
	cis_api_close(api);
	json_decref(body);
}

/* The one that serves, by its own word; waits for the next while there is none. */
static pid_t serving(struct bench_herd *herd)
{
	struct cis_api *api;
	struct cis_error err;
	json_t *health;
	pid_t pid;

	if (cis_api_open(bench_herd_daemon(herd)->control, &api, &err))
		bench_die("control socket", err.text);
	while (cis_api_call(api, "GET", "/v1/health", NULL, &health, &err))
		pause_ns(1000000);
	pid = (pid_t)json_integer_value(json_object_get(health, "engine_pid"));
	json_decref(health);
	cis_api_close(api);
	return pid;
}

static void kill_engine(struct bench_herd *herd)
{
	pid_t old = serving(herd);

	kill(old, SIGKILL);
	while (serving(herd) == old)
		pause_ns(1000000);
}

/* Return: the blackout in ms; @ret_usual: p50 of a touch before it, in us. */
static double blackout(struct bench_herd *herd, unsigned nr, void (*replace)(struct bench_herd *), double *ret_usual)
{
	struct bench_herd_times quiet, times;

	bench_herd_epoch(herd);
	pause_ns(QUIET_NS);
	bench_herd_times(herd, 0, nr, &quiet);
	bench_herd_epoch(herd);
	replace(herd);
	pause_ns(QUIET_NS);
	bench_herd_times(herd, 0, nr, &times);
	if (!quiet.touches || !times.touches)
		bench_die("the herd", "touched nothing: this machine is too busy");
	*ret_usual = (double)quiet.p50 / 1e3;
	return fmax(0, ((double)times.longest - (double)quiet.p50) / 1e6);
}

static void rounds(struct bench *b, struct bench_herd *herd, unsigned nr, const char *name, double bar,
		   void (*replace)(struct bench_herd *))
{
	double ms[ROUNDS], usual[ROUNDS], worst = 0;
	unsigned n = b->quick ? 1 : ROUNDS;
	char what[120];

	for (unsigned i = 0; i < n; i++) {
		ms[i] = blackout(herd, nr, replace, &usual[i]);
		worst = fmax(worst, ms[i]);
	}
	snprintf(what, sizeof(what), "%s, %u guests: median", name, nr);
	bench_figure(b, what, bench_median(ms, n), "ms", bar, bench_median(ms, n) / bar);
	snprintf(what, sizeof(what), "%s, %u guests: worst of %u", name, nr, n);
	bench_figure(b, what, worst, "ms", NAN, NAN);
	snprintf(what, sizeof(what), "%s, %u guests: usual touch, p50", name, nr);
	bench_figure(b, what, bench_median(usual, n), "us", NAN, NAN);
}

/* In a process and a folder of its own: the daemon ends when its guests' monitor has, somewhat later. */
static void measure(struct bench *b, unsigned nr)
{
	static const char *const set[] = {"neighbours=no", "awake_ms=0", "guests=2000", NULL};
	struct bench_herd *herd;
	char folder[4300];
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("fork", strerror(errno));
	if (pid) {
		if (waitpid(pid, &status, 0) != pid || status)
			bench_die("a herd", "failed");
		return;
	}
	snprintf(folder, sizeof(folder), "%s/%u", bench_folder(), nr);
	if (mkdir(folder, 0700))
		bench_die(folder, strerror(errno));
	herd = bench_herd_create(folder, nr, BYTES, set);
	bench_herd_pace(herd, 0, nr, nr < ALONE ? 1000000000ull * ALONE / TOUCHES : 1000000000ull * nr / TOUCHES);
	rounds(b, herd, nr, "upgrade", UPGRADE_BAR, upgrade);
	rounds(b, herd, nr, "kill -9", KILL_BAR, kill_engine);
	fflush(NULL);
	_exit(0);
}

int main(void)
{
	static const unsigned herds[] = {1, 10, 100, 300, 1000};
	struct bench b;

	bench_open(&b, "blackout");
	bench_unpin(&b); /* the daemon and the guests use what there is */
	if (!bench_build_find())
		bench_skip(&b, "cisternd, cistern or cistern-fakevmm is not beside this program");
	bench_title(&b, "longest touch of guests of 64 MiB while the engine is replaced, less the usual; bars: 20 ms for an "
			"upgrade with 100 guests, 100 ms after kill -9");
	for (size_t i = 0; i < sizeof(herds) / sizeof(*herds); i++)
		measure(&b, herds[i]);
	bench_close(&b);
	return 0;
}
