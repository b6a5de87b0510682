/*
 * What every benchmark shares: a pinned thread, alternating runs, medians, one table and one JSON object a figure.
 *
 * A benchmark is a program of main(): bench_open(), then for each case bench_measure() over our way and the bare ways
 * of the same run, then bench_figure() for each number, then bench_close().  Environment:
 *
 *   JSON=file      appends {"bench","case","value","unit","baseline","ratio"}, one a line
 *   BENCH_CPU=n    pins to that CPU instead of the last one allowed
 *   BENCH_QUICK=1  fewest rounds: for trying the program, not for figures
 */
#ifndef CIS_BENCH_BENCH_H
#define CIS_BENCH_BENCH_H

#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define BENCH_ROUNDS_MAX 1001

/**
 * struct bench_way - one of the ways that are compared with each other
 * @run:     does the work once; what it needs is set up before
 * @before:  untimed, directly before each run; may be NULL
 * @ctx:     for both
 * @seconds: filled by bench_measure(), one entry a round
 * @nr:      rounds
 * @median:  of @seconds
 */
struct bench_way {
	void (*run)(void *ctx);
	void (*before)(void *ctx);
	void *ctx;
	double seconds[BENCH_ROUNDS_MAX];
	size_t nr;
	double median;
};

/** struct bench - the running program; one, single-threaded */
struct bench {
	const char *name;
	FILE *json;
	int quick;
	int cpu;
	cpu_set_t allowed;
};

/** bench_open() - pins this thread, opens the JSON file; exits with a message when it cannot. */
void bench_open(struct bench *b, const char *name);
void bench_close(struct bench *b);

/** bench_unpin() - let this thread, and what it starts, run on every CPU that it was allowed before bench_open(). */
void bench_unpin(struct bench *b);

/** bench_now() - CLOCK_MONOTONIC in seconds. */
double bench_now(void);

/** bench_median() - of @nr values, which are sorted in place; nr >= 1. */
double bench_median(double *values, size_t nr);

/**
 * bench_measure() - run all ways by turns, so that a noisy minute hits all alike
 * @seconds: how long to go on in all; at least 5 rounds whatever it says (1 with BENCH_QUICK)
 *
 * One untimed round comes first.  The order turns by one each round.
 */
void bench_measure(struct bench *b, struct bench_way *ways, size_t nr, double seconds);

/** bench_ratio() - median over the rounds of a's speed to b's: above 1 when @a is the faster. */
double bench_ratio(const struct bench_way *a, const struct bench_way *b);

/** bench_title() - a heading over the rows that follow. */
void bench_title(struct bench *b, const char *title);

/**
 * bench_figure() - one row of the table, one object in the JSON file
 * @what:     the case
 * @value:    ours
 * @unit:     "GB/s", "us", "x"
 * @baseline: of the bare loop in the same run, same unit; NAN without one
 * @ratio:    ours to the baseline, as the case defines it; NAN without one
 */
void bench_figure(struct bench *b, const char *what, double value, const char *unit, double baseline, double ratio);

/** bench_skip() - exit status 77 after the reason, which must be true of the machine. */
void bench_skip(struct bench *b, const char *reason) __attribute__((noreturn));

#endif
