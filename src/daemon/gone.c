#include "daemon/gone.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest_int.h"
#include "daemon/text.h"

#define STATS_WORDS (sizeof(struct cis_pager_stats) / sizeof(uint64_t))

void cis_json_put(struct cis_sections *s, enum cis_gone_tag tag, uint32_t flags, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	if (text)
		cis_sections_add(s, tag, flags, text, strlen(text));
	else
		s->error = -ENOMEM;
	free(text);
	json_decref(j);
}

uint64_t cis_json_number(const json_t *j, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(j, key));

	return n > 0 ? (uint64_t)n : 0;
}

void cis_json_error(const json_t *j, char *buf, size_t room)
{
	const char *text = json_string_value(json_object_get(j, "error"));

	snprintf(buf, room, "%s", text ? text : "");
}

void cis_stats_put(struct cis_sections *s, const struct cis_pager_stats *stats)
{
	uint64_t pairs[2 * STATS_WORDS];
	size_t n = 0;

	for (size_t i = 0; i < STATS_WORDS; i++) {
		uint64_t word = ((const uint64_t *)stats)[i];

		if (!word)
			continue;
		pairs[n++] = i;
		pairs[n++] = word;
	}
	cis_sections_add(s, CIS_TAG_STATS, 0, pairs, n * sizeof(*pairs));
}

void cis_stats_get(const struct cis_section *s, struct cis_pager_stats *ret)
{
	const uint64_t *pairs = s->bytes;

	for (size_t i = 0; i + 1 < s->len / sizeof(*pairs); i += 2)
		if (pairs[i] < STATS_WORDS)
			((uint64_t *)ret)[pairs[i]] = pairs[i + 1];
}

static json_t *numbers_of(const uint64_t *n, size_t nr)
{
	json_t *list = json_array();

	for (size_t i = 0; i < nr; i++)
		json_array_append_new(list, json_integer((json_int_t)n[i]));
	return list;
}

static json_t *regions_of(const struct cis_guest *g)
{
	json_t *list = json_array();

	for (size_t i = 0; i < g->nr_regions; i++) {
		const struct cis_region *r = &g->regions[i];

		json_array_append_new(list, numbers_of((uint64_t[]){ r->hva, r->bytes, r->offset, (uint64_t)r->kind, r->huge }, 5));
	}
	return list;
}

void cis_gone_put(struct cis_sections *s, struct cis_guest *g)
{
	char *note = cis_guest_note_text(g);

	cis_json_put(s, CIS_TAG_GONE, 0,
		     json_pack("{s:I, s:s, s:o, s:i, s:o, s:o, s:I, s:I, s:I, s:I, s:i}", "serial", (json_int_t)g->serial, "note",
			       note ? note : "", "error", cis_text_json(g->error), "pid", (int)g->peer.pid, "pages",
			       numbers_of(g->last_pages, CIS_PAGE_STATES), "regions", regions_of(g), "recorded",
			       (json_int_t)g->last.recorded, "fill_done", (json_int_t)g->last.fill_done, "fill_total",
			       (json_int_t)g->last.fill_total, "nr_pages", (json_int_t)g->nr_pages, "page_shift",
			       (int)g->page_shift));
	free(note);
	cis_stats_put(s, &g->last.stats);
}

static uint64_t number_at(const json_t *list, size_t i)
{
	json_int_t n = json_integer_value(json_array_get(list, i));

	return n > 0 ? (uint64_t)n : 0;
}

static void read_regions(struct cis_guest *g, const json_t *list)
{
	size_t nr = json_array_size(list);

	g->regions = nr ? calloc(nr, sizeof(*g->regions)) : NULL;
	g->nr_regions = g->regions ? nr : 0;
	for (size_t i = 0; i < g->nr_regions; i++) {
		const json_t *r = json_array_get(list, i);
		uint64_t kind = number_at(r, 3);

		g->regions[i] = (struct cis_region){
			.hva = number_at(r, 0), .bytes = number_at(r, 1), .offset = number_at(r, 2),
			.kind = kind <= CIS_KIND_PRIVATE ? (enum cis_kind)kind : CIS_KIND_ANONYMOUS, .huge = number_at(r, 4) != 0,
		};
	}
}

/* Both are 0 where the guest's image was never there. */
static bool is_size(uint64_t nr_pages, uint64_t page_shift)
{
	if (!page_shift)
		return !nr_pages;
	return (page_shift == 12 || page_shift == 21) && nr_pages <= CIS_HANDSHAKE_GUEST_MAX >> page_shift;
}

int cis_gone_get(struct cis_engine *e, const json_t *j, struct cis_guest **ret, struct cis_error *err)
{
	const char *text = json_string_value(json_object_get(j, "note"));
	const json_t *pages = json_object_get(j, "pages");
	uint64_t serial = cis_json_number(j, "serial");
	struct cis_guest_note *note;
	struct cis_guest *g;
	int rc;

	if (!is_size(cis_json_number(j, "nr_pages"), cis_json_number(j, "page_shift")))
		return cis_fail(err, EBADMSG, "a gone guest has no number of pages that there is");
	rc = cis_guest_note_parse(text ? text : "", text ? strlen(text) : 0, &note, err);
	if (rc)
		return rc;
	if (serial && serial != note->serial)
		rc = cis_fail(err, EBADMSG, "a gone guest has two numbers, %llu and %llu", (unsigned long long)serial, (unsigned long long)note->serial);
	else
		rc = cis_guest_of_note(e, note, &g, err);
	cis_guest_note_destroy(note);
	if (rc)
		return rc;
	cis_guest_release(g); /* the layers are of no use any more */
	g->state = CIS_GUEST_GONE;
	g->peer.pid = (pid_t)cis_json_number(j, "pid");
	g->nr_pages = cis_json_number(j, "nr_pages");
	g->page_shift = (unsigned)cis_json_number(j, "page_shift");
	g->last.recorded = cis_json_number(j, "recorded");
	g->last.fill_done = cis_json_number(j, "fill_done");
	g->last.fill_total = cis_json_number(j, "fill_total");
	for (size_t i = 0; i < CIS_PAGE_STATES; i++)
		g->last_pages[i] = number_at(pages, i);
	cis_json_error(j, g->error, sizeof(g->error));
	read_regions(g, json_object_get(j, "regions"));
	*ret = g;
	return 0;
}
