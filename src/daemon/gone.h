/*
 * Guests that have gone and are still listed, and sums, as sections: for an engine that follows, by hand-over or out of the ledger.
 *
 *	ENGINE	JSON: awake_ns; STATS of all guests that are forgotten follow
 *	GONE	JSON: serial, note, error, pid, pages by state, regions, recorded, fill; STATS and TRACE of it may follow
 *	ERROR	JSON: serial, error: what a guest that is served is listed with
 *	STATS	those 64-bit words of struct cis_pager_stats that are not 0, as pairs of index and value: fields are only
 *		added at its end
 *	TRACE	page numbers, 32 bits each
 *
 * They are for the same machine, so numbers are in its byte order.
 */
#ifndef CIS_DAEMON_GONE_H
#define CIS_DAEMON_GONE_H

#include <jansson.h>

#include "daemon/guest.h"
#include "daemon/sections.h"

enum cis_gone_tag { CIS_TAG_ENGINE = 1, CIS_TAG_GONE, CIS_TAG_ERROR, CIS_TAG_STATS, CIS_TAG_TRACE };

/** cis_json_put() - takes the reference of @j; NULL is no memory. */
void cis_json_put(struct cis_sections *s, enum cis_gone_tag tag, uint32_t flags, json_t *j);
/** cis_json_number() - 0 where there is none, and for a negative one. */
uint64_t cis_json_number(const json_t *j, const char *key);
/** cis_json_error() - the text of "error", or an empty one. */
void cis_json_error(const json_t *j, char *buf, size_t room);

void cis_stats_put(struct cis_sections *s, const struct cis_pager_stats *stats);
void cis_stats_get(const struct cis_section *s, struct cis_pager_stats *ret);

/** cis_gone_put() - GONE and STATS. */
void cis_gone_put(struct cis_sections *s, struct cis_guest *g);
/** cis_gone_get() - list the guest of a GONE; its STATS are the next section.  Return: 0, -EEXIST (its id is in use), ... */
int cis_gone_get(struct cis_engine *e, const json_t *j, struct cis_guest **ret, struct cis_error *err);

#endif
