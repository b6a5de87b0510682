/* A guest as the API shows it. */
#include <string.h>

#include "base/size.h"
#include "daemon/guest.h"
#include "daemon/text.h"

static json_t *regions(const struct cis_guest *g)
{
	json_t *list = json_array();

	for (size_t i = 0; i < g->nr_regions; i++) {
		const struct cis_region *r = &g->regions[i];

		json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:i, s:s}", "base", (json_int_t)r->hva, "bytes",
						      (json_int_t)r->bytes, "offset", (json_int_t)r->offset, "page_bytes",
						      r->huge ? 2 << 20 : 4096, "memory", cis_kind_name(r->kind)));
	}
	return list;
}

static json_t *pages(struct cis_guest *g)
{
	uint64_t n[CIS_PAGE_STATES];

	cis_guest_pages(g, n);
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)g->nr_pages, "absent",
			 (json_int_t)(n[CIS_PAGE_ABSENT] + n[CIS_PAGE_BUSY]), "resident",
			 (json_int_t)(n[CIS_PAGE_RESIDENT] + n[CIS_PAGE_CLEAN]), "removed", (json_int_t)n[CIS_PAGE_REMOVED],
			 "poisoned", (json_int_t)n[CIS_PAGE_POISONED], "stashed",
			 (json_int_t)(n[CIS_PAGE_STASHED] + n[CIS_PAGE_INFLIGHT]), "far", (json_int_t)n[CIS_PAGE_FAR]);
}

static json_t *memory(struct cis_guest *g, const struct cis_seat_report *rep)
{
	json_t *j = json_pack("{s:I, s:I, s:I, s:I}", "resident_bytes", (json_int_t)cis_guest_resident(g), "stashed_bytes",
			      (json_int_t)cis_guest_stashed(g), "stash_bytes", (json_int_t)rep->stash_bytes, "far_bytes",
			      (json_int_t)cis_guest_far(g));

	if (cis_guest_is_limited(g) && g->state != CIS_GUEST_GONE)
		json_object_set_new(j, "budget_bytes", json_integer((json_int_t)cis_guest_limit(g)));
	return j;
}

static void add_figures(json_t *j, struct cis_guest *g, const struct cis_seat_report *rep)
{
	const struct cis_pager_stats *s = &rep->stats;
	uint64_t installed = s->pages_demand + s->pages_neighbour + s->pages_filled + s->pages_zero;

	json_object_set_new(j, "regions", regions(g));
	json_object_set_new(j, "pages", pages(g));
	json_object_set_new(j, "memory", memory(g, rep));
	json_object_set_new(j, "faults", json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "zero", (json_int_t)s->faults_zero, "demand",
						   (json_int_t)(s->faults_demand + s->faults_same), "neighbour",
						   (json_int_t)s->pages_neighbour, "removed", (json_int_t)s->faults_removed,
						   "stashed", (json_int_t)s->faults_stashed, "far", (json_int_t)s->faults_far,
						   "count", (json_int_t)s->fault_ns.count));
	json_object_set_new(j, "prefetch", json_pack("{s:I, s:I, s:I}", "pages", (json_int_t)s->pages_prefetched, "probes",
						     (json_int_t)s->probes, "hits", (json_int_t)s->probe_hits));
	json_object_set_new(j, "bytes", json_pack("{s:I, s:I}", "read", (json_int_t)s->bytes_read, "installed",
						  (json_int_t)(installed << g->page_shift)));
	json_object_set_new(j, "fill_progress", json_pack("{s:I, s:I}", "done", (json_int_t)rep->fill_done, "total",
							  (json_int_t)rep->fill_total));
}

static json_t *shown_budget(const struct cis_guest *g)
{
	json_t *j = cis_budget_json(&g->budget);
	char store[CIS_BUDGET_PAGES_MAX + 1];

	cis_pages_show(g->budget.pages, store, sizeof(store));
	if (*store)
		json_object_set_new(j, "pages", json_string(store));
	return j;
}

json_t *cis_guest_render(struct cis_guest *g)
{
	struct cis_seat_report rep = { 0 };
	char id[2 * CIS_IMAGE_ID_BYTES + 1];
	bool connected = cis_guest_report(g, &rep);
	uint64_t recorded = g->has_trace ? g->nr_trace : rep.recorded;
	bool recording = g->seat ? rep.recording : g->record && g->state == CIS_GUEST_EXPECTED;
	json_t *j;

	cis_hex_print(g->image_id, sizeof(g->image_id), id);
	j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id", g->id, "state", cis_guest_shown_state(g),
		      "socket", g->socket, "image", g->image_path, "image_id", id, "kind", g->kind, "policy",
		      cis_policy_name(g->policy), "fill", cis_fill_name(g->fill), "store", g->store);
	if (connected && g->peer.pid)
		json_object_set_new(j, "pid", json_integer(g->peer.pid));
	if (connected)
		add_figures(j, g, &rep);
	json_object_set_new(j, "record", json_pack("{s:s, s:I}", "state", recording ? "on" : "off", "pages",
						   (json_int_t)recorded));
	json_object_set_new(j, "budget", shown_budget(g));
	json_object_set_new(j, "pinned", json_boolean(g->pinned));
	if (*g->error)
		json_object_set_new(j, "error", cis_text_json(g->error));
	return j;
}
