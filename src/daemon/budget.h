/* What a guest may have of the host's memory, as an operator says it (doc/api.md) and as its note keeps it. */
#ifndef CIS_DAEMON_BUDGET_H
#define CIS_DAEMON_BUDGET_H

#include <jansson.h>

#include "pager/pager.h"

/*
 * No limit is less: one instruction of a guest may need a dozen pages at once, and what it needs for the next must not push them
 * out before it is done.
 */
#define CIS_BUDGET_LEAST ((uint64_t)1 << 20)

#define CIS_BUDGET_PAGES_MAX 511u /* characters of a store's name */

/**
 * struct cis_budget - of one guest; UINT64_MAX: no limit
 * @max_bytes:    it never has more
 * @target_bytes: it is held to that now, which is not more than @max_bytes
 * @min_bytes:    it is never held to less: neither limit goes below
 * @stash_bytes:  that what was reclaimed of it may take
 * @parked:       it is held to @min_bytes, whatever the others say, until it is not any more
 * @keep_bytes:   with a store of pages, what of that stays in memory; UINT64_MAX: as cis_budget_opts() finds best
 * @pages:        that store's name, or ""
 * @weight:       of the host's budget, beside other guests
 */
struct cis_budget {
	uint64_t max_bytes, target_bytes, min_bytes, stash_bytes, keep_bytes;
	enum cis_codec codec;
	bool sync, prefetch, parked;
	unsigned weight;
	char pages[CIS_BUDGET_PAGES_MAX + 1];
};

#define CIS_WEIGHT_MAX 10000u

extern const struct cis_budget cis_budget_none;

/**
 * cis_budget_read() - change what @j says, a JSON object; keys that it does not have, or that are not known, change nothing
 *
 * Return: 0, or -EINVAL with the reason; nothing is changed then.
 */
int cis_budget_read(struct cis_budget *b, const json_t *j, struct cis_error *err);

/** cis_budget_json() - such an object, with all keys; a new reference. */
json_t *cis_budget_json(const struct cis_budget *b);

/** cis_budget_limit() - bytes that it may have now. */
uint64_t cis_budget_limit(const struct cis_budget *b);

/** cis_budget_opts() - the same for its pager, but for store and namespace. */
struct cis_reclaim_opts cis_budget_opts(const struct cis_budget *b);

#endif
