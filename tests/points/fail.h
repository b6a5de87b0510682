/* The next calls of this program that can fail (fail.c). */
#ifndef TESTS_POINTS_FAIL_H
#define TESTS_POINTS_FAIL_H

#include <stdbool.h>

/** fail_at() - the @nth wrapped call from now on fails, 1 is the next; 0: none. */
void fail_at(long nth);

/** fail_has() - did it, since fail_at()? */
bool fail_has(void);

#endif
