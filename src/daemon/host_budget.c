/*
 * Dividing the host's memory.
 *
 * Nothing outside of a guest sees which of its pages are read (doc/design/008), so how much a guest uses is not known; how much it lacks is:
 * pages that are asked for after they were reclaimed.  Their rate raises a guest's weight.  A guest whose monitor has not run for a while
 * needs nothing, and gets its least.
 */
#include "daemon/host_budget.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/events.h"
#include "daemon/guest_int.h"
#include "os/proc.h"

#define FRACTION     20u    /* bits of the multiple that shares are of weights */
#define REFAULTS     1000u  /* a second: a guest that has so many weighs twice as much */
#define HEAVIER_MAX  8u
#define QUIET_CPU    20u    /* 1/20 of a CPU wakes an idle guest, and 1/100 lets it become idle */
#define QUIET_FAULTS 64u    /* refaults a second that say nothing: timers of the guest's kernel */
#define HARD	     1000u  /* hundredths of a per cent of time in which somebody waits for memory: the budget is cut */
#define SOFT	     100u   /* and is raised again */
#define RISE_WORTH   64u    /* what rises by less than one in so many is not worth telling a shard */
#define FALL_WORTH   256u   /* or falls; all together are above the budget by so little at most */

/* The division. */

static uint64_t share_at(const struct cis_share *s, uint64_t level)
{
	unsigned __int128 bytes = ((unsigned __int128)level * s->weight) >> FRACTION;

	return bytes < s->min_bytes ? s->min_bytes : bytes > s->max_bytes ? s->max_bytes : (uint64_t)bytes;
}

static bool fits(const struct cis_share *shares, size_t nr, uint64_t level, uint64_t total)
{
	for (size_t i = 0; i < nr; i++) {
		uint64_t bytes = share_at(&shares[i], level);

		if (bytes > total)
			return false;
		total -= bytes;
	}
	return true;
}

/* The highest level that fits, bit by bit: shares only grow with it. */
void cis_host_divide(uint64_t total, struct cis_share *shares, size_t nr)
{
	uint64_t level = 0;

	for (uint64_t bit = (uint64_t)1 << 63; bit; bit >>= 1)
		if (fits(shares, nr, level | bit, total))
			level |= bit;
	for (size_t i = 0; i < nr; i++)
		shares[i].bytes = share_at(&shares[i], level);
}

/* Needs. */

static void become_quiet_or_not(struct cis_need *n, uint64_t ms, uint64_t cpu_ms, uint64_t refaults, uint64_t idle_ms)
{
	bool is_known = idle_ms && cpu_ms != UINT64_MAX;
	bool is_quiet = is_known && cpu_ms * 5 * QUIET_CPU <= ms && refaults * 1000 <= QUIET_FAULTS * ms;
	bool is_busy = !is_known || cpu_ms * QUIET_CPU > ms || refaults * 1000 > REFAULTS * ms;

	if (n->is_idle ? is_busy : !is_quiet)
		n->quiet_ms = 0;
	else
		n->quiet_ms += ms;
	n->is_idle = n->is_idle ? !is_busy : is_quiet && n->quiet_ms >= idle_ms;
}

void cis_need_look(struct cis_need *n, uint64_t ms, uint64_t cpu_ms, uint64_t refaults, uint64_t idle_ms)
{
	uint64_t rate = ms ? refaults * 1000 / ms : 0;

	n->refaults = rate > n->refaults ? n->refaults + (rate - n->refaults + 3) / 4 : n->refaults - (n->refaults - rate + 15) / 16;
	become_quiet_or_not(n, ms, cpu_ms, refaults, idle_ms);
}

uint64_t cis_need_weight(const struct cis_need *n, unsigned weight)
{
	uint64_t most = (HEAVIER_MAX - 1) * REFAULTS, more = n->refaults < most ? n->refaults : most;

	return (uint64_t)weight * (REFAULTS + more) / REFAULTS;
}

unsigned cis_host_ease(unsigned is, unsigned pressure)
{
	if (pressure >= HARD)
		return is < CIS_EASE_MAX ? is + 1 : CIS_EASE_MAX;
	return pressure < SOFT && is ? is - 1 : is;
}

/* Guests. */

static uint64_t memory_bytes(const struct cis_guest *g)
{
	return g->nr_pages << g->page_shift;
}

static bool takes_part(const struct cis_guest *g)
{
	return g->seat && g->conn && !g->conn->exited && !g->leaving && !g->draining && !g->host.is_refused && cis_guest_can_be_limited(g);
}

static struct cis_share share_of(const struct cis_guest *g)
{
	uint64_t all = memory_bytes(g), max = cis_budget_limit(&g->budget), min = g->budget.min_bytes;
	struct cis_share s = { .max_bytes = max < all ? max : all, .weight = cis_need_weight(&g->host.need, g->budget.weight) };

	s.min_bytes = min < s.max_bytes ? min : s.max_bytes;
	if (g->host.need.is_idle)
		s.max_bytes = s.min_bytes;
	return s;
}

/* Memory that nobody can take from guests, and what holds that which was taken. */
static void count_taken(const struct cis_engine *e, uint64_t *ret_others, uint64_t *ret_stash)
{
	*ret_others = *ret_stash = 0;
	for (size_t i = 0; i < e->nr_guests; i++) {
		const struct cis_guest *g = e->guests[i];
		uint64_t refaults, stash;

		if (!g->seat)
			continue;
		cis_seat_memory(g->seat, &refaults, &stash);
		*ret_stash += stash;
		*ret_others += takes_part(g) ? 0 : cis_guest_resident(g);
	}
}

/*
 * What there is to divide.  The stash takes half of it at most: pages that do not compress free nothing when they are reclaimed, and to reclaim
 * more for that would take all that guests have, and still free nothing.
 */
static uint64_t to_divide(const struct cis_engine *e)
{
	uint64_t bytes = e->host.bytes - e->host.bytes / 64 * e->host.eased, others, stash;

	count_taken(e, &others, &stash);
	bytes = bytes > others ? bytes - others : 0;
	return bytes - (stash < bytes / 2 ? stash : bytes / 2);
}

static void hold(struct cis_guest *g, uint64_t bytes)
{
	struct cis_error err;
	uint64_t is = g->share;

	if (bytes == is || (bytes != UINT64_MAX && bytes > is && bytes - is <= is / RISE_WORTH) ||
	    (is != UINT64_MAX && bytes < is && is - bytes <= is / FALL_WORTH))
		return;
	if (!cis_guest_hold_to(g, bytes, &err))
		return;
	g->host.is_refused = true;
	cis_log(CIS_LOG_WARN, "guest=%s takes no part in the host's budget: %s", g->id, err.text);
}

static bool make_room(struct cis_host_budget *h, size_t nr)
{
	struct cis_share *more = nr > h->room ? realloc(h->shares, nr * sizeof(*more)) : h->shares;

	if (nr && !more)
		return false;
	h->room = nr > h->room ? nr : h->room;
	h->shares = more;
	return true;
}

static bool is_set(const struct cis_host_budget *h)
{
	return h->bytes != UINT64_MAX;
}

void cis_host_budget_divide(struct cis_engine *e)
{
	struct cis_host_budget *h = &e->host;
	size_t nr = 0;

	if (e->mode != CIS_ENGINE_SERVES || !is_set(h) || !make_room(h, e->nr_guests))
		return; /* without memory they keep what they have */
	h->divided_bytes = to_divide(e);
	for (size_t i = 0; i < e->nr_guests; i++)
		if (takes_part(e->guests[i]))
			h->shares[nr++] = share_of(e->guests[i]);
	cis_host_divide(h->divided_bytes, h->shares, nr);
	nr = 0;
	for (size_t i = 0; i < e->nr_guests; i++)
		if (takes_part(e->guests[i]))
			hold(e->guests[i], h->shares[nr++].bytes);
}

/* Once a second. */

static void look_at(struct cis_guest *g, uint64_t ms)
{
	struct cis_guest_host *h = &g->host;
	uint64_t refaults = 0, stash, cpu_ms = 0;
	bool was_idle = h->need.is_idle, has_cpu = g->peer.pid && !cis_proc_cpu(g->peer.pid, &cpu_ms);

	cis_seat_memory(g->seat, &refaults, &stash);
	if (h->is_known)
		cis_need_look(&h->need, ms, has_cpu && cpu_ms >= h->cpu_ms ? cpu_ms - h->cpu_ms : UINT64_MAX, refaults - h->refaults,
			      g->engine->config->idle_s * 1000ull);
	h->is_known = true;
	h->refaults = refaults;
	h->cpu_ms = cpu_ms;
	if (h->need.is_idle != was_idle)
		cis_events_guest(g->engine->events, was_idle ? "guest.active" : "guest.idle", g);
}

static void look_at_host(struct cis_host_budget *h)
{
	unsigned eased;

	if (h->pressure_fd < 0 || cis_proc_pressure(h->pressure_fd, &h->pressure))
		return;
	eased = cis_host_ease(h->eased, h->pressure);
	if (eased && !h->eased)
		cis_log(CIS_LOG_INFO, "the host is short of memory (%u %% of the time somebody waits for it): its budget is cut", h->pressure / 100);
	h->eased = eased;
}

void cis_host_budget_tick(struct cis_engine *e)
{
	struct cis_host_budget *h = &e->host;
	uint64_t now = cis_now_ns(NULL), ms = (now - h->looked_ns) / 1000000;

	if (e->mode != CIS_ENGINE_SERVES || !is_set(h))
		return;
	h->looked_ns = now;
	look_at_host(h);
	for (size_t i = 0; i < e->nr_guests; i++)
		if (takes_part(e->guests[i]))
			look_at(e->guests[i], ms);
	cis_host_budget_divide(e);
}

void cis_host_budget_admit(struct cis_guest *g)
{
	if (is_set(&g->engine->host) && !g->seat && !g->conn->exited && cis_guest_can_be_limited(g))
		g->share = memory_bytes(g);
}

static void release_all(struct cis_engine *e)
{
	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		if (takes_part(g))
			hold(g, UINT64_MAX);
		g->host = (struct cis_guest_host){ 0 };
	}
	e->host.divided_bytes = 0;
}

void cis_host_budget_set(struct cis_engine *e, uint64_t bytes)
{
	bool was_set = is_set(&e->host);

	e->host.bytes = bytes;
	e->host.eased = 0;
	if (is_set(&e->host))
		cis_host_budget_tick(e);
	else if (was_set)
		release_all(e);
}

size_t cis_host_idle(const struct cis_engine *e)
{
	size_t n = 0;

	for (size_t i = 0; i < e->nr_guests; i++)
		n += takes_part(e->guests[i]) && e->guests[i]->host.need.is_idle;
	return n;
}

void cis_host_budget_open(struct cis_engine *e)
{
	e->host = (struct cis_host_budget){
		.bytes = e->config->host_budget ? e->config->host_budget : UINT64_MAX, .looked_ns = cis_now_ns(NULL),
		.pressure_fd = open("/proc/pressure/memory", O_RDONLY | O_CLOEXEC),
	};
}

void cis_host_budget_close(struct cis_engine *e)
{
	if (e->host.pressure_fd >= 0)
		close(e->host.pressure_fd);
	free(e->host.shares);
}
