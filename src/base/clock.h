/* Time.  Policies take a clock as a function, so that tests can drive it. */
#ifndef CIS_BASE_CLOCK_H
#define CIS_BASE_CLOCK_H

#include <stdint.h>

typedef uint64_t (*cis_clock_fn)(void *ctx);

/** cis_now_ns() - CLOCK_MONOTONIC in nanoseconds; a cis_clock_fn whose ctx is unused. */
uint64_t cis_now_ns(void *ctx);

#endif
