/*
 * Chunks encoded by several threads and handed on in order.  Internal to this layer.
 *
 * One thread, the owner, appends bytes and gets stored chunks back; it encodes too when it would have to
 * wait.  Memory is bounded by the slots of the ring, and what comes out does not depend on the number of
 * workers.
 */
#ifndef CIS_IMAGE_RING_H
#define CIS_IMAGE_RING_H

#include <stddef.h>
#include <stdint.h>

#include "codec/codec.h"

/** struct cis_stored_chunk - what became of one chunk; @bytes is valid during the call of the sink only */
struct cis_stored_chunk {
	const void *bytes;
	size_t len;
	uint64_t checksum;
	enum cis_codec codec;
};

/**
 * struct cis_ring_opts
 * @workers: threads that encode, the owner counted, 1 at least
 * @sink:    called by the owner's thread, chunk by chunk in order; anything but 0 ends the call
 *           that led to it
 */
struct cis_ring_opts {
	enum cis_codec codec;
	int level;
	size_t chunk_bytes;
	struct cis_codec_params *params;
	unsigned workers;
	int (*sink)(void *ctx, const struct cis_stored_chunk *chunk);
	void *ctx;
};

struct cis_ring;

int cis_ring_create(const struct cis_ring_opts *opts, struct cis_ring **ret, struct cis_error *err);
void cis_ring_destroy(struct cis_ring *ring);

/** cis_ring_append() - more bytes of the section, a multiple of 4096.  Return: 0, or the sink's. */
int cis_ring_append(struct cis_ring *ring, const void *bytes, size_t len);

/** cis_ring_flush() - the section ends: encode what remains, wait for all.  Return: 0, or the sink's. */
int cis_ring_flush(struct cis_ring *ring);

#endif
