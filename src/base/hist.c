#include "base/hist.h"

static unsigned bucket_of(uint64_t v)
{
	if (v < CIS_HIST_SUB)
		return (unsigned)v;
	unsigned top = 63u - (unsigned)__builtin_clzll(v), shift = top - 3;
	unsigned i = (shift + 1) * CIS_HIST_SUB + (unsigned)((v >> shift) & (CIS_HIST_SUB - 1));

	return i < CIS_HIST_BUCKETS ? i : CIS_HIST_BUCKETS - 1;
}

uint64_t cis_hist_bound(unsigned i)
{
	if (i < CIS_HIST_SUB)
		return i;
	unsigned shift = i / CIS_HIST_SUB - 1;

	return ((uint64_t)(CIS_HIST_SUB + i % CIS_HIST_SUB + 1) << shift) - 1;
}

void cis_hist_add(struct cis_hist *hist, uint64_t value)
{
	hist->count++;
	hist->sum += value;
	if (value > hist->max)
		hist->max = value;
	hist->bucket[bucket_of(value)]++;
}

void cis_hist_merge(struct cis_hist *into, const struct cis_hist *from)
{
	into->count += from->count;
	into->sum += from->sum;
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned i = 0; i < CIS_HIST_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

uint64_t cis_hist_quantile(const struct cis_hist *hist, double q)
{
	uint64_t want = (uint64_t)(q * (double)hist->count + 0.999999), seen = 0;

	if (!hist->count)
		return 0;
	if (want < 1)
		want = 1;
	for (unsigned i = 0; i < CIS_HIST_BUCKETS; i++) {
		seen += hist->bucket[i];
		if (seen >= want)
			return cis_hist_bound(i) < hist->max ? cis_hist_bound(i) : hist->max;
	}
	return hist->max;
}
