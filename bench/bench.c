#include "bench.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS_MIN 5

static int last_cpu(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return -1;
	for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--)
		if (CPU_ISSET(cpu, &set))
			return cpu;
	return -1;
}

static void pin(struct bench *b)
{
	const char *wish = getenv("BENCH_CPU");
	cpu_set_t set;

	sched_getaffinity(0, sizeof(b->allowed), &b->allowed);
	b->cpu = wish ? atoi(wish) : last_cpu();
	CPU_ZERO(&set);
	if (b->cpu >= 0 && b->cpu < CPU_SETSIZE)
		CPU_SET(b->cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		fprintf(stderr, "%s: pin to CPU %d: %s\n", b->name, b->cpu, strerror(errno));
		exit(1);
	}
}

void bench_open(struct bench *b, const char *name)
{
	const char *path = getenv("JSON");

	*b = (struct bench){.name = name, .quick = getenv("BENCH_QUICK") != NULL};
	setvbuf(stdout, NULL, _IOLBF, 0);
	pin(b);
	if (path && *path) {
		b->json = fopen(path, "a");
		if (!b->json) {
			fprintf(stderr, "%s: %s: %s\n", name, path, strerror(errno));
			exit(1);
		}
	}
	printf("bench %s, CPU %d%s\n", name, b->cpu, b->quick ? ", quick: figures mean little" : "");
}

void bench_unpin(struct bench *b)
{
	sched_setaffinity(0, sizeof(b->allowed), &b->allowed);
}

void bench_close(struct bench *b)
{
	if (b->json && fclose(b->json)) {
		fprintf(stderr, "%s: %s: %s\n", b->name, getenv("JSON"), strerror(errno));
		exit(1);
	}
}

double bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *values, size_t nr)
{
	qsort(values, nr, sizeof(*values), by_value);
	return nr % 2 ? values[nr / 2] : (values[nr / 2 - 1] + values[nr / 2]) / 2;
}

static double median_of(const double *values, size_t nr)
{
	double copy[BENCH_ROUNDS_MAX];

	memcpy(copy, values, nr * sizeof(*values));
	return bench_median(copy, nr);
}

static double run_once(struct bench_way *way)
{
	double start;

	if (way->before)
		way->before(way->ctx);
	start = bench_now();
	way->run(way->ctx);
	return bench_now() - start;
}

void bench_measure(struct bench *b, struct bench_way *ways, size_t nr, double seconds)
{
	size_t least = b->quick ? 1 : ROUNDS_MIN, round = 0;
	double end;

	for (size_t i = 0; i < nr; i++)
		run_once(&ways[i]);
	end = bench_now() + (b->quick ? 0 : seconds);
	while (round < least || (round < BENCH_ROUNDS_MAX && bench_now() < end)) {
		for (size_t i = 0; i < nr; i++) {
			struct bench_way *way = &ways[(round + i) % nr];

			way->seconds[round] = run_once(way);
		}
		round++;
	}
	for (size_t i = 0; i < nr; i++) {
		ways[i].nr = round;
		ways[i].median = median_of(ways[i].seconds, round);
	}
}

double bench_ratio(const struct bench_way *a, const struct bench_way *b)
{
	double ratios[BENCH_ROUNDS_MAX];

	for (size_t i = 0; i < a->nr; i++)
		ratios[i] = b->seconds[i] / a->seconds[i];
	return bench_median(ratios, a->nr);
}

void bench_title(struct bench *b, const char *title)
{
	printf("\n%s\n%-56s %12s %-6s %12s %8s\n", title, "case", "value", "unit", "baseline", "ratio");
}

static void print_number(double value, int width)
{
	if (isnan(value))
		printf(" %*s", width, "-");
	else
		printf(" %*.*f", width, fabs(value) < 10 ? 3 : fabs(value) < 1000 ? 2 : 0, value);
}

static void json_string(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', f);
		fputc((unsigned char)*s < ' ' ? ' ' : *s, f);
	}
	fputc('"', f);
}

static void json_number(FILE *f, const char *key, double value)
{
	if (isfinite(value))
		fprintf(f, ",\"%s\":%.6g", key, value);
	else
		fprintf(f, ",\"%s\":null", key);
}

void bench_figure(struct bench *b, const char *what, double value, const char *unit, double baseline, double ratio)
{
	printf("%-56s", what);
	print_number(value, 12);
	printf(" %-6s", unit);
	print_number(baseline, 12);
	print_number(ratio, 8);
	putchar('\n');
	if (!b->json)
		return;
	fputs("{\"bench\":", b->json);
	json_string(b->json, b->name);
	fputs(",\"case\":", b->json);
	json_string(b->json, what);
	json_number(b->json, "value", value);
	fputs(",\"unit\":", b->json);
	json_string(b->json, unit);
	json_number(b->json, "baseline", baseline);
	json_number(b->json, "ratio", ratio);
	fputs("}\n", b->json);
}

void bench_skip(struct bench *b, const char *reason)
{
	printf("%s: skipped: %s\n", b->name, reason);
	bench_close(b);
	exit(77);
}
