/* Histograms of latencies: log-linear buckets, 8 to a power of two, so a quantile is at most 12.5 % off. */
#ifndef CIS_BASE_HIST_H
#define CIS_BASE_HIST_H

#include <stdint.h>

#define CIS_HIST_SUB	 8
#define CIS_HIST_BUCKETS (40 * CIS_HIST_SUB)

/**
 * struct cis_hist - counts of values by size
 *
 * One writer; readers on other threads may see a count that is a little old.
 * Values are in nanoseconds unless said otherwise; up to 2^40, larger ones
 * count in the last bucket.
 */
struct cis_hist {
	uint64_t count;
	uint64_t sum;
	uint64_t max;
	uint64_t bucket[CIS_HIST_BUCKETS];
};

void cis_hist_add(struct cis_hist *hist, uint64_t value);
void cis_hist_merge(struct cis_hist *into, const struct cis_hist *from);

/** cis_hist_quantile() - upper bound of the bucket that holds quantile @q in (0, 1]; 0 when empty. */
uint64_t cis_hist_quantile(const struct cis_hist *hist, double q);

/** cis_hist_bound() - largest value that counts in bucket @i. */
uint64_t cis_hist_bound(unsigned i);

#endif
