#include "image/plan.h"

#include <stdio.h>

#define SAME_SPEED 1.05 /* measured: five runs of one decoder on a busy host lie within 5 % */

struct cis_plan_cost cis_plan_cost(const struct cis_plan_codec *c, const struct cis_plan_host *host,
				   double bytes)
{
	struct cis_plan_cost cost = {
		.read_s = bytes / (c->ratio * host->read_rate),
		.decode_s = bytes / (c->decode_rate * host->workers),
		.install_s = bytes / (host->install_rate * host->workers),
	};

	cost.total_s = (cost.read_s > cost.decode_s ? cost.read_s : cost.decode_s) + cost.install_s;
	return cost;
}

size_t cis_plan_choose(const struct cis_plan_codec *c, size_t nr, const struct cis_plan_host *host)
{
	double fastest = cis_plan_cost(&c[0], host, 1).total_s;
	size_t best = nr;

	for (size_t i = 1; i < nr; i++) {
		double s = cis_plan_cost(&c[i], host, 1).total_s;

		if (s < fastest)
			fastest = s;
	}
	for (size_t i = 0; i < nr; i++)
		if (cis_plan_cost(&c[i], host, 1).total_s <= fastest * SAME_SPEED &&
		    (best == nr || c[i].ratio > c[best].ratio))
			best = i;
	return best;
}

const char *cis_plan_reason(const struct cis_plan_codec *c, size_t nr, size_t best,
			    const struct cis_plan_host *host, char *buf, size_t len)
{
	struct cis_plan_cost cost = cis_plan_cost(&c[best], host, 1 << 30);
	const char *limit = cost.read_s > cost.decode_s ? "reading" : "decoding";
	size_t fastest = 0;

	for (size_t i = 1; i < nr; i++)
		if (cis_plan_cost(&c[i], host, 1).total_s < cis_plan_cost(&c[fastest], host, 1).total_s)
			fastest = i;
	if (fastest == best)
		snprintf(buf, len, "the fastest restore, %.0f ms a GiB, limited by %s", cost.total_s * 1e3,
			 limit);
	else
		snprintf(buf, len,
			 "the smallest image of those within 5 %% of the fastest (%s), %.0f ms a GiB, "
			 "limited by %s",
			 cis_codec_name(c[fastest].codec), cost.total_s * 1e3, limit);
	return buf;
}
