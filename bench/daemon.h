/* A cisternd of a benchmark's own, beside the programs that were built with it. */
#ifndef CIS_BENCH_DAEMON_H
#define CIS_BENCH_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct bench_daemon {
	char control[4200];
	pid_t keeper;
};

/** bench_build_find() - the folder with cisternd, cistern and cistern-fakevmm; NULL when one of them is not there. */
const char *bench_build_find(void);

/** bench_start() - one of the programs; @quiet: without its output.  Exits with a message when it cannot. */
pid_t bench_start(const char *program, char *const argv[], bool quiet);

/** bench_run() - start it and wait; exits with a message when it fails. */
void bench_run(const char *program, char *const argv[]);

/** bench_daemon_start() - @set: NULL-terminated "key=value" of its configuration; returns when it listens. */
void bench_daemon_start(struct bench_daemon *d, const char *folder, const char *const *set);
/** bench_daemon_end() - its guests have ended. */
void bench_daemon_end(struct bench_daemon *d);

/** bench_daemon_engine() - the pid of its engine now, 0 between two of them. */
pid_t bench_daemon_engine(const struct bench_daemon *d);

/** bench_memory_of() - bytes of a process, from its smaps_rollup: @what is a line of it, like "Anonymous". */
uint64_t bench_memory_of(pid_t pid, const char *what);

#endif
