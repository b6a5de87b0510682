/* When a layer does its work.  The counters are of all handles together, so a rate is that of the store, not of a thread. */
#include <unistd.h>

#include "base/clock.h"
#include "store/layer.h"

/* Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014: one step of it. */
uint64_t cis_layer_random(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static bool in_range(const struct cis_when *w, const struct cis_store_req *req)
{
	uint64_t from = req->off + req->skip, to = from + (req->want ? req->want : req->len);

	if (!w->off && !w->len)
		return true; /* that of no bytes too */
	return to > w->off && (!w->len || from < w->off || from - w->off < w->len);
}

/* The time runs from the first request on; with a trigger anew each time that it is there again. */
static bool in_time(struct cis_when *w)
{
	uint64_t now = cis_now_ns(NULL), none = 0;

	if (atomic_compare_exchange_strong(&w->since_ns, &none, now))
		return true;
	return now - none < w->for_ns;
}

bool cis_when_now(struct cis_when *w, const struct cis_store_req *req, uint64_t *ret_random)
{
	uint64_t nr;

	if ((w->op && req->op != (enum cis_store_op)(w->op - 1)) || !in_range(w, req))
		return false;
	if (w->trigger && access(w->trigger, F_OK)) {
		atomic_store(&w->since_ns, 0);
		return false;
	}
	if (w->for_ns && !in_time(w))
		return false;
	nr = atomic_fetch_add(&w->nr, 1) + 1;
	if (nr < w->from || (w->every && nr % w->every))
		return false;
	*ret_random = cis_layer_random(cis_layer_random(w->seed) + nr);
	if (w->chance > 0 && (double)(*ret_random >> 11) * 0x1p-53 >= w->chance)
		return false;
	*ret_random = cis_layer_random(*ret_random); /* one that says nothing about having passed */
	return true;
}
