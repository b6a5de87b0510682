/*
 * The planner: which codec makes the fastest restore, by costs measured on this host rather than by habit.
 *
 *	seconds = max(bytes / (ratio x read), bytes / (decode x workers)) + install
 *
 * after Sabre (OSDI'24, section 2): reading and decoding overlap, installing follows.  The choice is a pure
 *function of the measured numbers; measuring stands apart, in plan_codec.c and plan_host.c.
 */
#ifndef CIS_IMAGE_PLAN_H
#define CIS_IMAGE_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "codec/codec.h"
#include "image/source.h"

#define CIS_PLAN_MAX 8

/**
 * struct cis_plan_codec - a candidate and what was measured of it; rates in raw bytes a second, of one thread
 * @decode_rate: includes verifying the checksum
 * @ratio:       raw bytes by stored bytes
 */
struct cis_plan_codec {
	enum cis_codec codec;
	int level;
	double ratio;
	double encode_rate;
	double decode_rate;
};

/**
 * struct cis_plan_host - what the host can do
 * @read_rate:     bytes a second from the folder of the image
 * @install_rate:  bytes a second into the guest, by one thread
 * @workers:       threads that decode and install
 */
struct cis_plan_host {
	double read_rate;
	double install_rate;
	unsigned workers;
};

/** struct cis_plan_cost - of restoring a given number of raw bytes with one candidate, in seconds */
struct cis_plan_cost {
	double read_s, decode_s, install_s, total_s;
};

/** cis_plan_cost() - the formula above. */
struct cis_plan_cost cis_plan_cost(const struct cis_plan_codec *c, const struct cis_plan_host *host,
				   double bytes);

/**
 * cis_plan_choose() - the cheapest candidate
 * @c:  @nr candidates, at least 1
 *
 * What is within 5 % of the fastest counts as equally fast (measurements
 * differ by as much from run to run); of those the one that stores least is
 * taken, and of equals the first.
 */
size_t cis_plan_choose(const struct cis_plan_codec *c, size_t nr, const struct cis_plan_host *host);

/** cis_plan_reason() - why @best is the choice, as a sentence of numbers; into @buf, which is returned. */
const char *cis_plan_reason(const struct cis_plan_codec *c, size_t nr, size_t best,
			    const struct cis_plan_host *host, char *buf, size_t len);

/**
 * struct cis_plan_sample - non-zero pages of a source, evenly spread, as chunks
 * @bytes: @len bytes, a multiple of 4096; owned, freed by cis_plan_sample_fini()
 */
struct cis_plan_sample {
	uint8_t *bytes;
	size_t len;
	size_t chunk_bytes;
};

/**
 * cis_plan_sample_take() - read up to @max_bytes of sample
 *
 * Pages that an image does not store as chunks (zero, one repeated word) are
 * left out.  Blocks of chunk size are visited in bit-reversed order, so that
 * they are evenly spread wherever the sample gets full; at most 64 times
 * @max_bytes are read.  Return: 0, -ENODATA when all that was seen is zero.
 */
int cis_plan_sample_take(struct cis_image_source *src, size_t chunk_bytes, size_t max_bytes,
			 struct cis_plan_sample *ret, struct cis_error *err);

/**
 * cis_plan_sample_hot() - the same of the pages that a restore reads first, in their order
 * @pgno: @nr page numbers in units of 2^@page_shift; those past the end are passed over
 *
 * Return: 0, -ENODATA when none of them has content.
 */
int cis_plan_sample_hot(struct cis_image_source *src, const uint32_t *pgno, uint64_t nr, unsigned page_shift,
			size_t chunk_bytes, size_t max_bytes, struct cis_plan_sample *ret,
			struct cis_error *err);
void cis_plan_sample_fini(struct cis_plan_sample *sample);

/**
 * cis_plan_measure_codec() - encode and decode the sample
 * @c: codec and level in, the measured rest out
 *
 * Processor time and the best of a few runs, so that what else runs on the host
 * counts little.
 * Return: 0, -ENODATA (codec cannot be trained on so little), -ENOMEM.
 */
int cis_plan_measure_codec(const struct cis_plan_sample *sample, struct cis_plan_codec *c,
			   struct cis_error *err);

/** cis_plan_candidates() - codecs worth measuring at a chunk size, into @ret (CIS_PLAN_MAX).  Return: how
 * many. */
size_t cis_plan_candidates(size_t chunk_bytes, struct cis_plan_codec *ret);

/**
 * cis_plan_measure_read() - rate of a folder in bytes a second, past the page cache
 *
 * Reads @len bytes that it wrote into a temporary file there, four requests at a time.
 */
int cis_plan_measure_read(const char *folder, const void *bytes, size_t len, double *ret_rate,
			  struct cis_error *err);

/** cis_plan_measure_install() - UFFDIO_COPY into anonymous memory, in ranges of @chunk_bytes.  Return: 0 or
 * as cis_uffd_open(). */
int cis_plan_measure_install(size_t chunk_bytes, double *ret_rate, struct cis_error *err);

#endif
