#include "daemon/handover.h"

#include "base/log.h"
#include "daemon/guest_int.h"

#define SERIAL_SHIFT 32 /* serials of engines of one keeper never meet: some listeners are remembered by silent connections alone */

int cis_handover_hello(struct cis_engine *e)
{
	struct cis_wire_hello hello = { .wire = CIS_WIRE_VERSION, .layout_min = CIS_STATE_LAYOUT_MIN,
					.layout_max = CIS_STATE_LAYOUT_MAX, .version = CISTERN_VERSION };

	return cis_keeper_link_hello(e->link, &hello);
}

void cis_handover_role(void *ctx, enum cis_wire_role role)
{
	((struct cis_engine *)ctx)->role = role;
}

static void count(struct cis_engine *e, size_t *ret_served, size_t *ret_stalled)
{
	*ret_served = *ret_stalled = 0;
	for (size_t i = 0; i < e->nr_guests; i++) {
		*ret_served += e->guests[i]->adopted && e->guests[i]->begun;
		*ret_stalled += e->guests[i]->stalled;
	}
}

static void take_over(struct cis_engine *e)
{
	uint64_t before = cis_now_ns(NULL);
	size_t served, stalled;

	e->mode = CIS_ENGINE_SERVES;
	cis_guests_settle(e);
	cis_keeper_link_ready(e->link, 0);
	count(e, &served, &stalled);
	e->takeover_ns = cis_now_ns(NULL) - before;
	if (served || stalled)
		cis_log(CIS_LOG_WARN, "engine %llu: took over %zu guests in %.1f ms, %zu more are stalled",
			(unsigned long long)e->generation, served, (double)e->takeover_ns / 1e6, stalled);
}

void cis_handover_replayed(void *ctx, uint64_t generation)
{
	struct cis_engine *e = ctx;

	e->generation = generation;
	if (generation << SERIAL_SHIFT > e->next_serial)
		e->next_serial = generation << SERIAL_SHIFT;
	if (e->role == CIS_WIRE_SERVE)
		take_over(e);
}
