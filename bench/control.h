/* Requests to a benchmark's cisternd, and what a monitor says to it. */
#ifndef CIS_BENCH_CONTROL_H
#define CIS_BENCH_CONTROL_H

#include <stdint.h>

#include "daemon.h"

/** bench_call() - one request.  @ret: its body, malloc'ed; NULL: not wanted.  Return: the status, 0: nobody answers. */
int bench_call(const struct bench_daemon *d, const char *method, const char *path, const char *body, char **ret);

/** bench_put() - expect a guest, filled by touches alone.  Its socket is guests/ID.sock. */
void bench_put(const struct bench_daemon *d, const char *id, const char *image);

/** bench_wait() - until the guest is in that state. */
void bench_wait(const struct bench_daemon *d, const char *id, const char *state);

/** bench_connect() - what Firecracker sends: one region, at @hva in the caller's process.  Return: the connection. */
int bench_connect(const struct bench_daemon *d, const char *id, uint64_t hva, uint64_t bytes, int uffd);

#endif
