/* An engine without shards and without a keeper, for what one engine leaves to the next. */
#ifndef CIS_FUZZ_ENGINE_H
#define CIS_FUZZ_ENGINE_H

#include "check.h"
#include "daemon/awake.h"
#include "daemon/events.h"
#include "daemon/guest_int.h"
#include "daemon/request.h"

static struct cis_config config;
static struct cis_workers *workers;
static struct cis_events *events;

static const struct cis_guest_note here = { .id = "here", .serial = 7, .image_path = (char *)"/i", .socket = (char *)"/s",
					    .kind = (char *)"client", .store = (char *)"" };

static inline void prepare(void)
{
	FUZZ_CHECK(!cis_config_init(&config) && !cis_workers_create(1, &workers) && !cis_events_create(&events));
}

/* @has_guest: one that lives, of serial 7. */
static inline void begin(struct cis_engine *e, bool has_guest)
{
	struct cis_guest *g;

	*e = (struct cis_engine){ .config = &config, .workers = workers, .events = events };
	FUZZ_CHECK(!cis_awake_create(0, &e->awake));
	if (has_guest)
		FUZZ_CHECK(!cis_guest_of_note(e, &here, &g, NULL));
}

static inline void finish(struct cis_engine *e)
{
	while (e->nr_guests) {
		cis_guest_release(e->guests[0]);
		cis_guest_forget(e->guests[0]);
	}
	free(e->guests);
	free(e->handed);
	cis_awake_destroy(e->awake);
}

/* All that an engine says of its guests, in one text. */
static inline char *show(struct cis_engine *e)
{
	json_t *list = json_array();
	char *text;

	for (size_t i = 0; i < e->nr_guests; i++) {
		json_t *j = cis_guest_render(e->guests[i]);

		FUZZ_CHECK(j);
		json_array_append_new(list, j);
	}
	text = json_dumps(list, JSON_SORT_KEYS);
	json_decref(list);
	FUZZ_CHECK(text);
	return text;
}

#endif
