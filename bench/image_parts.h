/* The parts of bench image that are not about speed. */
#ifndef CIS_BENCH_IMAGE_PARTS_H
#define CIS_BENCH_IMAGE_PARTS_H

#include "bench.h"

/** bench_sizes() - image size of each whole guest by `--codec zstd --level 3`, against zstd -3 of the whole file. */
void bench_sizes(struct bench *b);

/**
 * bench_engine_memory() - what a guest costs the engine in memory, by /proc, of a real cisternd with guests that
 * cistern-fakevmm plays; says so when the programs are not beside this one
 */
void bench_engine_memory(struct bench *b);

#endif
