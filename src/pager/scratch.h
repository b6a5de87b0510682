/* Buffers and decoders of one thread, so that a fault or a job allocates nothing. */
#ifndef CIS_PAGER_SCRATCH_H
#define CIS_PAGER_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#include "codec/codec.h"
#include "image/image.h"

#define CIS_SPAN_MAX ((size_t)2 << 20) /* raw bytes of a read: a huge page, or the bulk of a fill job */

/**
 * struct cis_iobuf - room for the stored bytes of one read
 * @data: aligned for direct I/O; @bytes long, two fill-up blocks included
 */
struct cis_iobuf {
	struct cis_iobuf *next;
	char *data;
	size_t bytes;
};

/** struct cis_scratch - of a shard or a worker; one thread */
struct cis_scratch {
	char *raw;	  /* CIS_SPAN_MAX, decoded bytes */
	const char *zero; /* CIS_SPAN_MAX zeros, never written */
	struct cis_iobuf *free[2]; /* small and large */
	unsigned nr_free[2], nr_out[2];
	struct {
		struct cis_codec_params *params; /* the decoder holds a reference, so the address stays its own */
		struct cis_decoder *dec;
	} decoder[8];
	unsigned next_decoder;
	struct cis_encoder *encoder[CIS_CODEC_COUNT]; /* of single pages */
	char *value;	/* room for a page that was encoded */
};

int cis_scratch_create(struct cis_scratch **ret);
void cis_scratch_destroy(struct cis_scratch *s);

/** cis_scratch_get() - a buffer for a read of up to CIS_SPAN_MAX bytes; NULL without memory. */
struct cis_iobuf *cis_scratch_get(struct cis_scratch *s, size_t bytes);
void cis_scratch_put(struct cis_scratch *s, struct cis_iobuf *buf);

/**
 * cis_scratch_left() - buffers of this size that its user may take beside those that are out
 *
 * Of those up to 64 KiB 512 in all, of larger ones 24: 85 MiB a thread at most.  Whoever can do without asks first;
 * cis_scratch_get() does not count.
 */
unsigned cis_scratch_left(const struct cis_scratch *s, size_t bytes);

/** cis_scratch_decoder() - this thread's decoder for an image, or for what needs no parameters (NULL); NULL without memory. */
struct cis_decoder *cis_scratch_decoder(struct cis_scratch *s, const struct cis_image *img);

/** cis_scratch_encoder() - this thread's encoder of pages of 4 KiB, and s->value is there; NULL without memory. */
struct cis_encoder *cis_scratch_encoder(struct cis_scratch *s, enum cis_codec codec);

#endif
