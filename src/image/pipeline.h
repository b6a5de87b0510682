/*
 * Chunks encoded by several threads and handed on in order.  Internal to this layer.
 *
 * One thread, the owner, appends bytes and gets stored chunks back; it encodes too when it would have to
 * wait.  Memory is bounded by the slots of a ring, and what comes out does not depend on the number of
 * workers.
 */
#ifndef CIS_IMAGE_PIPELINE_H
#define CIS_IMAGE_PIPELINE_H

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
 * struct cis_pipeline_opts
 * @workers: threads that encode, the owner counted, 1 at least
 * @sink:    called by the owner's thread, chunk by chunk in order; anything but 0 ends the call
 *           that led to it
 */
struct cis_pipeline_opts {
	enum cis_codec codec;
	int level;
	size_t chunk_bytes;
	struct cis_codec_params *params;
	unsigned workers;
	int (*sink)(void *ctx, const struct cis_stored_chunk *chunk);
	void *ctx;
};

struct cis_pipeline;

int cis_pipeline_create(const struct cis_pipeline_opts *opts, struct cis_pipeline **ret,
			struct cis_error *err);
void cis_pipeline_destroy(struct cis_pipeline *line);

/** cis_pipeline_append() - more bytes of the section, a multiple of 4096.  Return: 0, or the sink's. */
int cis_pipeline_append(struct cis_pipeline *line, const void *bytes, size_t len);

/** cis_pipeline_flush() - the section ends: encode what remains, wait for all.  Return: 0, or the sink's. */
int cis_pipeline_flush(struct cis_pipeline *line);

#endif
