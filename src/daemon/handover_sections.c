/*
 * What an engine hands over beside what the keeper holds: guests that have gone and are still listed, sums.
 *
 *	ENGINE	JSON: awake_ns; STATS of all guests that are forgotten follow
 *	GONE	JSON: note, error, pid, pages by state, regions, recorded, fill; STATS and TRACE of it may follow
 *	ERROR	JSON: serial, error: what a guest that is served is listed with
 *	STATS	those 64-bit words of struct cis_pager_stats that are not 0, as pairs of index and value: fields are only
 *		added at its end
 *	TRACE	page numbers, 32 bits each
 *
 * It is for the same machine, so numbers are in its byte order.  Guests wait neither while gone ones are written, which is done
 * before, nor while they are read, which is done afterwards.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/awake.h"
#include "daemon/guest_int.h"
#include "daemon/handover.h"
#include "daemon/sections.h"

#define STATS_WORDS (sizeof(struct cis_pager_stats) / sizeof(uint64_t))

enum tag { TAG_ENGINE = 1, TAG_GONE, TAG_ERROR, TAG_STATS, TAG_TRACE };

/* Takes the reference. */
static void add_json(struct cis_sections *s, enum tag tag, uint32_t flags, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	if (text)
		cis_sections_add(s, tag, flags, text, strlen(text));
	else
		s->error = -ENOMEM;
	free(text);
	json_decref(j);
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

static void add_stats(struct cis_sections *s, const struct cis_pager_stats *stats)
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
	cis_sections_add(s, TAG_STATS, 0, pairs, n * sizeof(*pairs));
}

static void add_gone(struct cis_sections *s, struct cis_guest *g)
{
	char *note = cis_guest_note_text(g);

	add_json(s, TAG_GONE, 0,
		 json_pack("{s:s, s:s, s:i, s:o, s:o, s:I, s:I, s:I, s:I, s:i}", "note", note ? note : "", "error", g->error, "pid",
			   (int)g->peer.pid, "pages", numbers_of(g->last_pages, CIS_PAGE_STATES), "regions",
			   regions_of(g), "recorded", (json_int_t)g->last.recorded, "fill_done", (json_int_t)g->last.fill_done,
			   "fill_total", (json_int_t)g->last.fill_total, "nr_pages", (json_int_t)g->nr_pages, "page_shift",
			   (int)g->page_shift));
	free(note);
	add_stats(s, &g->last.stats);
	if (g->has_trace)
		cis_sections_add(s, TAG_TRACE, 0, g->trace, g->nr_trace * sizeof(*g->trace));
}

static void add_all_gone(struct cis_engine *e, struct cis_sections *s)
{
	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		if (g->state != CIS_GUEST_GONE || g->handed)
			continue;
		add_gone(s, g);
		g->handed = true;
	}
}

void cis_handover_prepare(struct cis_engine *e)
{
	cis_sections_fini(&e->handover_sections);
	e->handover_sections = (struct cis_sections){ 0 };
	e->has_forgotten = false;
	for (size_t i = 0; i < e->nr_guests; i++)
		e->guests[i]->handed = false;
	add_all_gone(e, &e->handover_sections);
}

int cis_handover_write(struct cis_engine *e, int *ret_fd, struct cis_error *err)
{
	struct cis_sections *s = &e->handover_sections;
	int rc;

	if (e->has_forgotten) /* one that was written is there no more */
		cis_handover_prepare(e);
	add_all_gone(e, s);
	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		if (g->state != CIS_GUEST_GONE && *g->error)
			add_json(s, TAG_ERROR, 0, json_pack("{s:I, s:s}", "serial", (json_int_t)g->serial, "error", g->error));
	}
	add_json(s, TAG_ENGINE, CIS_SECTION_MUST, json_pack("{s:I}", "awake_ns", (json_int_t)cis_awake_held_ns(e->awake)));
	add_stats(s, &e->past);
	rc = cis_sections_seal(s, "cistern-handover", ret_fd);
	cis_sections_fini(s);
	*s = (struct cis_sections){ 0 };
	return rc ? cis_fail(err, -rc, "what is handed over: %s", strerror(-rc)) : 0;
}

/* Reading. */

static uint64_t number(const json_t *j, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(j, key));

	return n > 0 ? (uint64_t)n : 0;
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

static void read_error(char *buf, size_t room, const json_t *j)
{
	const char *text = json_string_value(json_object_get(j, "error"));

	snprintf(buf, room, "%s", text ? text : "");
}

static int read_gone(struct cis_engine *e, const json_t *j, struct cis_guest **ret, struct cis_error *err)
{
	const char *text = json_string_value(json_object_get(j, "note"));
	const json_t *pages = json_object_get(j, "pages");
	struct cis_guest_note *note;
	struct cis_guest *g;
	int rc = cis_guest_note_parse(text ? text : "", text ? strlen(text) : 0, &note, err);

	if (rc)
		return rc;
	rc = cis_guest_of_note(e, note, &g, err);
	cis_guest_note_destroy(note);
	if (rc)
		return rc;
	cis_guest_release(g); /* the layers are of no use any more */
	g->state = CIS_GUEST_GONE;
	g->peer.pid = (pid_t)number(j, "pid");
	g->nr_pages = number(j, "nr_pages");
	g->page_shift = (unsigned)number(j, "page_shift");
	g->last.recorded = number(j, "recorded");
	g->last.fill_done = number(j, "fill_done");
	g->last.fill_total = number(j, "fill_total");
	for (size_t i = 0; i < CIS_PAGE_STATES; i++)
		g->last_pages[i] = number_at(pages, i);
	read_error(g->error, sizeof(g->error), j);
	read_regions(g, json_object_get(j, "regions"));
	*ret = g;
	return 0;
}

static void read_trace(struct cis_guest *g, const struct cis_section *s)
{
	g->trace = malloc(s->len + 1);
	if (!g->trace)
		return; /* a trace is advice */
	memcpy(g->trace, s->bytes, s->len);
	g->nr_trace = s->len / sizeof(*g->trace);
	g->has_trace = true;
}

static void read_stats(struct cis_pager_stats *to, const struct cis_section *s)
{
	const uint64_t *pairs = s->bytes;

	for (size_t i = 0; i + 1 < s->len / sizeof(*pairs); i += 2)
		if (pairs[i] < STATS_WORDS)
			((uint64_t *)to)[pairs[i]] = pairs[i + 1];
}

/* @of: the guest that the sections before were of, or NULL: the engine. */
static int read_section(struct cis_engine *e, const struct cis_section *s, struct cis_guest **of, struct cis_error *err)
{
	json_t *j = s->tag <= TAG_ERROR ? json_loadb(s->bytes, s->len, 0, NULL) : NULL;
	struct cis_guest *g;
	int rc = 0;

	if (s->tag <= TAG_ERROR && !json_is_object(j)) {
		rc = cis_fail(err, EBADMSG, "section %u is no object", s->tag);
	} else if (s->tag == TAG_ENGINE) {
		*of = NULL;
		cis_awake_carry(e->awake, number(j, "awake_ns"));
	} else if (s->tag == TAG_GONE) {
		*of = NULL;
		rc = read_gone(e, j, of, err);
	} else if (s->tag == TAG_ERROR && (g = cis_guest_by_serial(e, number(j, "serial"))) && !*g->error) {
		read_error(g->error, sizeof(g->error), j);
	} else if (s->tag == TAG_STATS) {
		read_stats(*of ? &(*of)->last.stats : &e->past, s);
	} else if (s->tag == TAG_TRACE && *of && !(*of)->has_trace) {
		read_trace(*of, s);
	}
	json_decref(j);
	return rc;
}

int cis_handover_check(struct cis_engine *e, int fd, struct cis_error *err)
{
	struct cis_sections_reader r;
	struct cis_section s;
	int rc = cis_sections_load(fd, true, &e->handed, &e->handed_len, err);

	if (!rc)
		rc = cis_sections_open(e->handed, e->handed_len, &r, err);
	while (!rc && cis_sections_next(&r, &s))
		if ((!s.tag || s.tag > TAG_TRACE) && s.flags & CIS_SECTION_MUST)
			rc = cis_fail(err, EPROTONOSUPPORT, "section %u has to be known, and is not", s.tag);
	return rc;
}

void cis_handover_read(struct cis_engine *e)
{
	struct cis_sections_reader r;
	struct cis_guest *of = NULL;
	struct cis_section s;
	struct cis_error err;

	if (!e->handed || cis_sections_open(e->handed, e->handed_len, &r, NULL))
		return;
	while (cis_sections_next(&r, &s))
		if (read_section(e, &s, &of, &err))
			cis_log(CIS_LOG_WARN, "of what was handed over, something is lost: %s", err.text);
	free(e->handed);
	e->handed = NULL;
}
