/*
 * The host's budget: bytes of memory that all guests may have together, what was reclaimed of them included.  Once a second it is divided
 * anew, by the weights of guests and by how much each of them lacks.  Control thread only.
 */
#ifndef CIS_DAEMON_HOST_BUDGET_H
#define CIS_DAEMON_HOST_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cis_engine;
struct cis_guest;

/** struct cis_share - of one guest: what it is to have at least and at most, what it weighs, and what it gets */
struct cis_share {
	uint64_t min_bytes, max_bytes;
	uint64_t weight; /* 1 to 2^32 */
	uint64_t bytes;
};

/**
 * cis_host_divide() - set bytes of each
 *
 * Each gets a multiple of its weight, the same one for all, but never less than its min and never more than its max.  Together they
 * get @total, less up to a byte each, unless all have their max already, or the mins alone are more.
 */
void cis_host_divide(uint64_t total, struct cis_share *shares, size_t nr);

/**
 * struct cis_need - how much a guest lacks, as it is seen once a second
 * @refaults: a second, smoothed: soon up, slowly down
 * @quiet_ms: for how long it has done nothing
 */
struct cis_need {
	uint64_t refaults, quiet_ms;
	bool is_idle;
};

/**
 * cis_need_look() - what has happened in the last @ms
 * @cpu_ms:   that its monitor ran, on all CPUs; UINT64_MAX: nobody knows, and it is never idle
 * @refaults: pages that were reclaimed and asked for again
 * @idle_ms:  who does nothing for so long is idle; 0: never
 */
void cis_need_look(struct cis_need *n, uint64_t ms, uint64_t cpu_ms, uint64_t refaults, uint64_t idle_ms);

/** cis_need_weight() - of a guest of @weight: up to eight times as much where pages come back as soon as they are reclaimed. */
uint64_t cis_need_weight(const struct cis_need *n, unsigned weight);

#define CIS_EASE_MAX 32u /* 64ths */

/** cis_host_ease() - 64ths by which the budget is cut, of @is now; @pressure: of the host, in hundredths of a per cent. */
unsigned cis_host_ease(unsigned is, unsigned pressure);

/** struct cis_guest_host - what is remembered of a guest */
struct cis_guest_host {
	uint64_t refaults, cpu_ms; /* so far */
	struct cis_need need;
	bool is_known;	/* they are of the look before */
	bool is_refused; /* its memory turned out not to be reclaimable */
};

/** struct cis_host_budget - of the engine */
struct cis_host_budget {
	uint64_t bytes; /* UINT64_MAX: none */
	uint64_t divided_bytes; /* what guests whose memory can be reclaimed had to share last */
	uint64_t looked_ns;
	int pressure_fd; /* -1: this kernel does not say */
	unsigned pressure, eased;
	struct cis_share *shares;
	size_t room;
};

void cis_host_budget_open(struct cis_engine *e);
void cis_host_budget_close(struct cis_engine *e);

/** cis_host_budget_set() - from now on; UINT64_MAX: none. */
void cis_host_budget_set(struct cis_engine *e, uint64_t bytes);

/** cis_host_budget_tick() - once a second, of the engine that serves. */
void cis_host_budget_tick(struct cis_engine *e);

/** cis_host_budget_admit() - a guest is about to get its seat: it has a limit from the first page on. */
void cis_host_budget_admit(struct cis_guest *g);

/** cis_host_budget_divide() - a guest has come. */
void cis_host_budget_divide(struct cis_engine *e);

/** cis_host_idle() - guests that are idle now. */
size_t cis_host_idle(const struct cis_engine *e);

#endif
