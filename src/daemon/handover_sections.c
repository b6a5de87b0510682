/*
 * What an engine hands over beside what the keeper holds (gone.h).  Guests wait neither while gone ones are written, which is done
 * before, nor while they are read, which is done afterwards.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/awake.h"
#include "daemon/gone.h"
#include "daemon/guest_int.h"
#include "daemon/handover.h"
#include "daemon/request.h"
#include "daemon/text.h"

static void add_all_gone(struct cis_engine *e, struct cis_sections *s)
{
	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_guest *g = e->guests[i];

		if (g->state != CIS_GUEST_GONE || g->handed)
			continue;
		cis_gone_put(s, g);
		if (g->has_trace)
			cis_sections_add(s, CIS_TAG_TRACE, 0, g->trace, g->nr_trace * sizeof(*g->trace));
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
			cis_json_put(s, CIS_TAG_ERROR, 0, json_pack("{s:I, s:o}", "serial", (json_int_t)g->serial, "error", cis_text_json(g->error)));
	}
	cis_json_put(s, CIS_TAG_ENGINE, CIS_SECTION_MUST, json_pack("{s:I}", "awake_ns", (json_int_t)cis_awake_held_ns(e->awake)));
	cis_stats_put(s, &e->past);
	rc = cis_sections_seal(s, "cistern-handover", ret_fd);
	cis_sections_fini(s);
	*s = (struct cis_sections){ 0 };
	return rc ? cis_fail(err, -rc, "what is handed over: %s", strerror(-rc)) : 0;
}

/* Reading. */

static void read_trace(struct cis_guest *g, const struct cis_section *s)
{
	const uint32_t *pgno = s->bytes;

	for (size_t i = 0; i < s->len / sizeof(*pgno); i++)
		if (pgno[i] >= g->nr_pages)
			return; /* a trace is advice */
	g->trace = malloc(s->len + 1);
	if (!g->trace)
		return;
	memcpy(g->trace, s->bytes, s->len);
	g->nr_trace = s->len / sizeof(*g->trace);
	g->has_trace = true;
}

/* Of a guest that cannot be listed they count in the sums all the same. */
static void read_stats(struct cis_engine *e, struct cis_guest *of, const struct cis_section *s)
{
	struct cis_pager_stats stats = { 0 };

	cis_stats_get(s, &stats);
	if (of)
		of->last.stats = stats;
	else
		cis_metrics_forget(e, &stats);
}

/* @of: the guest that the sections before were of, or NULL: the engine. */
static int read_section(struct cis_engine *e, const struct cis_section *s, struct cis_guest **of, struct cis_error *err)
{
	json_t *j = s->tag <= CIS_TAG_ERROR ? json_loadb(s->bytes, s->len, 0, NULL) : NULL;
	struct cis_guest *g;
	int rc = 0;

	if (s->tag <= CIS_TAG_ERROR && !json_is_object(j)) {
		rc = cis_fail(err, EBADMSG, "section %u is no object", s->tag);
	} else if (s->tag == CIS_TAG_ENGINE) {
		*of = NULL;
		cis_awake_carry(e->awake, cis_json_number(j, "awake_ns"));
	} else if (s->tag == CIS_TAG_GONE) {
		*of = NULL;
		rc = cis_gone_get(e, j, of, err);
	} else if (s->tag == CIS_TAG_ERROR && (g = cis_guest_by_serial(e, cis_json_number(j, "serial"))) && !*g->error) {
		cis_json_error(j, g->error, sizeof(g->error));
	} else if (s->tag == CIS_TAG_STATS) {
		read_stats(e, *of, s);
	} else if (s->tag == CIS_TAG_TRACE && *of && !(*of)->has_trace) {
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
		if ((!s.tag || s.tag > CIS_TAG_TRACE) && s.flags & CIS_SECTION_MUST)
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
