/* The table of guests: sorted by id, and found by serial. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest_int.h"

/* Return: where @id is, or would be. */
static size_t place_of(const struct cis_engine *e, const char *id)
{
	size_t lo = 0, hi = e->nr_guests;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (strcmp(e->guests[mid]->id, id) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct cis_guest *cis_guest_find(struct cis_engine *e, const char *id)
{
	size_t at = place_of(e, id);

	return at < e->nr_guests && !strcmp(e->guests[at]->id, id) ? e->guests[at] : NULL;
}

static struct cis_guest **bucket(struct cis_engine *e, uint64_t serial)
{
	return &e->by_serial[serial % CIS_ENGINE_BUCKETS];
}

struct cis_guest *cis_guest_by_serial(struct cis_engine *e, uint64_t serial)
{
	struct cis_guest *g = *bucket(e, serial);

	while (g && g->serial != serial)
		g = g->next_serial;
	return g;
}

int cis_guest_table_insert(struct cis_guest *g)
{
	struct cis_engine *e = g->engine;
	size_t at = place_of(e, g->id);
	struct cis_guest **more = realloc(e->guests, (e->nr_guests + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	e->guests = more;
	memmove(&e->guests[at + 1], &e->guests[at], (e->nr_guests - at) * sizeof(*more));
	e->guests[at] = g;
	e->nr_guests++;
	g->next_serial = *bucket(e, g->serial);
	*bucket(e, g->serial) = g;
	return 0;
}

void cis_guest_table_remove(struct cis_guest *g)
{
	struct cis_engine *e = g->engine;
	size_t at = place_of(e, g->id);
	struct cis_guest **p = bucket(e, g->serial);

	memmove(&e->guests[at], &e->guests[at + 1], (--e->nr_guests - at) * sizeof(*e->guests));
	while (*p != g)
		p = &(*p)->next_serial;
	*p = g->next_serial;
}
