/*
 * Keeping CPUs from idling deeply while guests fault.
 *
 * A handler on a core that has gone idle answers in 35 to 45 us, in 11 when the kernel may not put cores to sleep
 * (limits.md).  So /dev/cpu_dma_latency is held at 0 from a guest's fault until none has come for a while; the metrics say
 * for how long.
 */
#ifndef CIS_DAEMON_AWAKE_H
#define CIS_DAEMON_AWAKE_H

#include <stdint.h>

struct cis_awake;

/** cis_awake_create() - @quiet_ms: let go that long after the last fault; 0: never hold.  Return: 0 or -ENOMEM. */
int cis_awake_create(unsigned quiet_ms, struct cis_awake **ret);
void cis_awake_destroy(struct cis_awake *a);

/** cis_awake_touch() - a guest faults or is about to; any thread. */
void cis_awake_touch(struct cis_awake *a);

/** cis_awake_tick() - let go when it is time; control thread.  Return: milliseconds to the next tick, -1: none needed. */
int cis_awake_tick(struct cis_awake *a);

/** cis_awake_carry() - that long it was held by an engine before. */
void cis_awake_carry(struct cis_awake *a, uint64_t ns);

/** cis_awake_held_ns() - for how long it was held in all. */
uint64_t cis_awake_held_ns(struct cis_awake *a);

#endif
