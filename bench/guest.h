/* A child process whose memory is registered with userfaultfd: the guest of the fault and fill benchmarks. */
#ifndef CIS_BENCH_GUEST_H
#define CIS_BENCH_GUEST_H

#include <stdint.h>
#include <sys/types.h>

#define BENCH_WRITE 0x80000000u /* beside a page's number */

enum bench_memory { BENCH_ANONYMOUS, BENCH_MEMFD, BENCH_ALLOCATED };

/**
 * struct bench_guest - one child
 * @uffd:  of its memory, duplicated here
 * @hva:   where its memory is there
 * @alias: BENCH_ALLOCATED: the same memory here, its pages allocated; else NULL
 * @view:  not BENCH_ANONYMOUS: the same memory here
 * @ns:    shared: how long each touch took
 */
struct bench_guest {
	pid_t pid;
	int uffd, go, done;
	uint64_t hva, bytes;
	char *alias, *view;
	uint32_t *ns;
	uint64_t ns_bytes;
};

/** bench_guest_start() - @bytes of memory on @cpu (-1: any), nothing resident; exits with a message when it cannot. */
void bench_guest_start(struct bench_guest *g, uint64_t bytes, enum bench_memory memory, int cpu);

/**
 * bench_guest_touch() - let it read one byte of each page of @pgno, or write one with BENCH_WRITE, in that order, and wait until it has
 *
 * Each touch's time is in g->ns[i] then, in nanoseconds.
 */
void bench_guest_touch(struct bench_guest *g, const uint32_t *pgno, uint32_t nr);

void bench_guest_end(struct bench_guest *g);

#endif
