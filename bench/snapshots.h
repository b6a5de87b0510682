/*
 * Guests for the benchmarks: memory files with the traces of their working sets.
 *
 * CISTERN_BENCH_GUESTS=dir with NAME.raw and NAME.trace: real ones.  Without it one is invented, and called synthetic.
 */
#ifndef CIS_BENCH_SNAPSHOTS_H
#define CIS_BENCH_SNAPSHOTS_H

#include <stddef.h>
#include <stdint.h>

#include "image/trace.h"

#define BENCH_PAGE	 4096u
#define BENCH_SNAPSHOTS_MAX 16

/** struct bench_snapshot - @fd: its memory file; @trace: first touches in their order, nr is 0 without a trace file */
struct bench_snapshot {
	char name[64];
	char path[4096];
	int fd;
	uint64_t bytes;
	struct cis_trace trace;
};

/** struct bench_snapshots - @synthetic: none was given, the only one is invented */
struct bench_snapshots {
	struct bench_snapshot snapshot[BENCH_SNAPSHOTS_MAX];
	size_t nr;
	int synthetic;
};

/** bench_snapshots_open() - by name; says on stdout what they are; exits with a message on failure. */
void bench_snapshots_open(struct bench_snapshots *g);
void bench_snapshots_close(struct bench_snapshots *g);

/** bench_folder() - for files that a benchmark makes: under TMPDIR, else /var/tmp; gone when the program exits. */
const char *bench_folder(void);

/** bench_die() - print the text and the reason, exit with 1. */
void bench_die(const char *what, const char *why) __attribute__((noreturn));

/** bench_must() - likewise when @rc is a -errno; nothing when it is 0. */
void bench_must(int rc, const char *what);

/** bench_drop() - write back and drop a file's pages from the page cache; warns on stderr when any stay. */
void bench_drop(const char *path);

/** bench_warm() - read a whole file, so that its pages are in the page cache. */
void bench_warm(const char *path);

/** bench_pretouch() - touch and free that much memory: a host that took free memory back is paid for it untimed. */
void bench_pretouch(uint64_t bytes);

/** bench_map() - private anonymous memory by 4 KiB pages, not touched. */
char *bench_map(uint64_t bytes);

#endif
