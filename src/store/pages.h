/* The kinds of stores of pages.  Internal to this folder; store.h is what others use. */
#ifndef CIS_STORE_PAGES_H
#define CIS_STORE_PAGES_H

#include "store/store.h"

/**
 * struct cis_pages_kind - one kind
 * @scheme: what its names begin with, the colon included
 * @check:  is the rest of a name right?
 * @open:   as cis_pages_open()
 * @probe:  as cis_pages_probe()
 */
struct cis_pages_kind {
	const char *scheme;
	int (*check)(const char *rest, struct cis_error *err);
	int (*open)(const char *rest, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err);
	int (*probe)(const char *rest, uint64_t timeout_ns, struct cis_error *err);
};

extern const struct cis_pages_kind cis_pages_file, cis_pages_memcached, cis_pages_tier, cis_pages_valkey;

/** cis_pages_is_name() - does it begin as the name of a store does? */
bool cis_pages_is_name(const char *text);

#endif
