/* The layer delay: answers that come later than the store below gives them; each by itself, so their order may change. */
#include <errno.h>
#include <math.h>

#include "store/layer.h"

enum shape { LOGNORMAL, EXPONENTIAL };

#define Z99 2.3263478740408408 /* of the standard normal distribution: 99 % are below it */

/* A number in (0, 1). */
static double unit(uint64_t random)
{
	return ((double)(random >> 11) + 0.5) * 0x1p-53;
}

static double normal(uint64_t random)
{
	double r = sqrt(-2 * log(unit(random))); /* Box and Muller, 1958 */

	return r * cos(2 * M_PI * unit(cis_layer_random(random)));
}

/* Exponential: never less than a, then with a mean of m; ln 2 m after a are half of them, ln 100 m after it 99 %. */
static double drawn_ns(const struct cis_layer_opts *o, uint64_t random)
{
	double p50 = (double)o->p50_ns, p99 = (double)o->p99_ns, mean;

	if (o->max_ns)
		return (double)o->min_ns + unit(random) * (double)(o->max_ns - o->min_ns);
	if (!o->p99_ns)
		return (double)o->time_ns;
	if (o->how == LOGNORMAL)
		return p50 * exp(normal(random) * log(p99 / p50) / Z99);
	mean = (p99 - p50) / log(50);
	return p50 - mean * log(2) - mean * log(unit(random));
}

static bool delay_enter(struct cis_layer *l, struct cis_held *h)
{
	struct cis_layer_opts *o = l->ctx;
	uint64_t random;

	if (cis_when_now(&o->when, h->req, &random))
		h->choice = (uint64_t)fmin(drawn_ns(o, random), 3600e9);
	return true;
}

static void delay_leave(struct cis_layer *l, struct cis_held *h, uint64_t now)
{
	if (h->choice)
		h->due_ns = now + h->choice;
}

static const struct cis_layer_key keys[] = {
	{ "time", CIS_KEY_TIME, offsetof(struct cis_layer_opts, time_ns), NULL },
	{ "min", CIS_KEY_TIME, offsetof(struct cis_layer_opts, min_ns), NULL },
	{ "max", CIS_KEY_TIME, offsetof(struct cis_layer_opts, max_ns), NULL },
	{ "p50", CIS_KEY_TIME, offsetof(struct cis_layer_opts, p50_ns), NULL },
	{ "p99", CIS_KEY_TIME, offsetof(struct cis_layer_opts, p99_ns), NULL },
	{ "shape", CIS_KEY_WORD, offsetof(struct cis_layer_opts, how), "lognormal|exponential" },
	{ 0 },
};

static int delay_check(struct cis_layer_opts *o, struct cis_error *err)
{
	int fixed = !!o->time_ns, uniform = o->min_ns || o->max_ns, curve = o->p50_ns || o->p99_ns;

	if (fixed + uniform + curve != 1)
		return cis_fail(err, EINVAL, "delay wants one of: time; min and max; p50 and p99");
	if (uniform && o->min_ns >= o->max_ns)
		return cis_fail(err, EINVAL, "min must be less than max");
	if (curve && (!o->p50_ns || o->p50_ns >= o->p99_ns))
		return cis_fail(err, EINVAL, "p50 and p99 go together, and p50 must be more than 0 and less than p99");
	if (o->how == EXPONENTIAL && !curve)
		return cis_fail(err, EINVAL, "shape goes with p50 and p99 alone");
	if (o->how == EXPONENTIAL && (double)o->p99_ns * log(2) > (double)o->p50_ns * log(100))
		return cis_fail(err, EINVAL, "with shape=exponential p99 is at most 6.6 times p50");
	return 0;
}

const struct cis_layer_kind cis_layer_delay = {
	.name = "delay", .keys = keys, .check = delay_check, .ops = { .enter = delay_enter, .leave = delay_leave }
};
