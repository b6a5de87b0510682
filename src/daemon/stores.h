/* The store handles of one thread, one for each image that it reads, and for each set of layers that it reads it through. */
#ifndef CIS_DAEMON_STORES_H
#define CIS_DAEMON_STORES_H

#include "image/image.h"
#include "store/layers.h"

/**
 * struct cis_stores - zeros to begin with
 * @watch: have the thread reap a store when its @fd is readable, as long as that is open; 0 or -errno.  NULL: it looks by itself
 */
struct cis_stores {
	int (*watch)(struct cis_stores *s, int fd);
	struct cis_stores_entry {
		struct cis_image *img; /* one reference */
		struct cis_layers *layers; /* one reference, or NULL */
		struct cis_store *store;
	} *entry;
	size_t nr;
};

/** cis_stores_of() - the thread's handle for an image, opened when it is asked for first.  NULL: @err says why. */
struct cis_store *cis_stores_of(struct cis_stores *s, const struct cis_image *img, struct cis_layers *layers,
				struct cis_error *err);

/** cis_stores_fini() - close all; no request is in flight. */
void cis_stores_fini(struct cis_stores *s);

/** cis_stores_keep() - close all but those in @keep. */
void cis_stores_keep(struct cis_stores *s, struct cis_store *const *keep, size_t n);

/** cis_stores_drop() - close those of @img, and those through @layers, which nobody reads any more; each may be NULL. */
void cis_stores_drop(struct cis_stores *s, const struct cis_image *img, const struct cis_layers *layers);

#endif
