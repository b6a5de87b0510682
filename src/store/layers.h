/*
 * Layers around stores that fail, delay and corrupt, from a text; cistern-store-layers(7) has the syntax.
 *
 * What they count (each 100th request) is counted over all handles that are opened from one struct cis_layers, on whatever
 * threads these are.
 */
#ifndef CIS_STORE_LAYERS_H
#define CIS_STORE_LAYERS_H

#include "store/store.h"

struct cis_layers;

#define CIS_LAYERS_TEXT_MAX 1024 /* bytes of a text */
#define CIS_LAYERS_MAX	    8

/**
 * cis_layers_parse() - "fault:every=100,errno=EIO+delay:p50=1ms,p99=20ms"
 * @text: layers, the first one is the one that requests come to first; "" is none
 * @ret:  one reference
 *
 * Return: 0, -EINVAL (the text says at which character), -E2BIG, -ENOMEM.
 */
int cis_layers_parse(const char *text, struct cis_layers **ret, struct cis_error *err);

/** cis_layers_ref(), cis_layers_unref() - from any thread; NULL-safe. */
struct cis_layers *cis_layers_ref(struct cis_layers *layers);
void cis_layers_unref(struct cis_layers *layers);

/** cis_layers_text() - as it was parsed. */
const char *cis_layers_text(const struct cis_layers *layers);

/**
 * cis_layers_open() - put the layers around a handle
 * @layers: borrowed, for as long as the handle is open; NULL: @inner is the result
 * @inner:  taken over, also on failure
 */
int cis_layers_open(struct cis_layers *layers, struct cis_store *inner, struct cis_store **ret, struct cis_error *err);

#endif
