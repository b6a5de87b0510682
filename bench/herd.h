/*
 * A herd: many guests of a cisternd, all in this process, each with a userfaultfd, a connection and a thread of its own that
 * touches one page after another that it never touched before, at a given pace, and notes how long each took.
 */
#ifndef CIS_BENCH_HERD_H
#define CIS_BENCH_HERD_H

#include <stdatomic.h>
#include <stdint.h>

#include "daemon.h"

struct bench_herd;

/**
 * bench_herd_create() - make their image in @folder, start the daemon and have @nr guests of @bytes each served
 * @set: as for bench_daemon_start()
 *
 * The guests end with this process, which is their monitor, and the daemon after them: so a herd wants one of its own.
 */
struct bench_herd *bench_herd_create(const char *folder, unsigned nr, uint64_t bytes, const char *const *set);

const struct bench_daemon *bench_herd_daemon(const struct bench_herd *herd);

/** bench_herd_pace() - from now on each of the guests [from, to) touches a page every @pause_ns; 0: without a pause. */
void bench_herd_pace(struct bench_herd *herd, unsigned from, unsigned to, uint64_t pause_ns);
/** bench_herd_rest() - nobody touches anything any more when it returns. */
void bench_herd_rest(struct bench_herd *herd);

/** bench_herd_epoch() - forget what was noted, and note from now on. */
void bench_herd_epoch(struct bench_herd *herd);

/** struct bench_herd_times - of the touches of guests [from, to) that ended since the epoch began, in ns */
struct bench_herd_times {
	uint64_t touches, p50, p99, longest;
};

void bench_herd_times(struct bench_herd *herd, unsigned from, unsigned to, struct bench_herd_times *ret);

#endif
