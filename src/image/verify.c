#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/file.h"
#include "image/open.h"
#include "image/write.h"

#define BUFFER_BYTES ((size_t)4 << 20) /* two of the longest chunks */

struct verify {
	const struct cis_image *img;
	struct cis_decoder *dec;
	uint8_t *buf, *raw;
	size_t buf_bytes;
	uint64_t done;
	void (*progress)(uint64_t, uint64_t, void *);
	void *ctx;
	struct cis_error *err;
};

static void report(struct verify *v, uint64_t bytes)
{
	v->done += bytes;
	if (v->progress)
		v->progress(v->done, v->img->info.file_bytes, v->ctx);
}

static int read_at(struct verify *v, uint64_t off, size_t len)
{
	return cis_image_pread(v->img, v->buf, len, off, v->err);
}

static int bad_crc(struct verify *v, const struct cis_part *part, const char *what)
{
	return cis_fail(v->err, EBADMSG, "%s: bytes %llu .. %llu: %s does not match (format 3)", v->img->path,
			(unsigned long long)part->off, (unsigned long long)(part->off + part->bytes), what);
}

/* Reads as many whole chunks as fit.  A chunk's checksum says more than the section's, so it goes first. */
static int verify_section(struct verify *v, const struct cis_part *part, uint64_t chunk, uint64_t end,
			  const char *what)
{
	uint64_t at = part->off, crc = 0;
	struct cis_chunk_loc loc;

	while (chunk < end) {
		uint64_t last = chunk, bytes = 0;

		for (; last < end; last++) {
			cis_image_chunk(v->img, last, &loc);
			if (loc.off + loc.stored_bytes - at > v->buf_bytes)
				break;
			bytes = loc.off + loc.stored_bytes - at;
		}
		int rc = read_at(v, at, (size_t)bytes);

		for (; !rc && chunk < last; chunk++) {
			cis_image_chunk(v->img, chunk, &loc);
			rc = cis_image_decode(v->img, v->dec, chunk, v->buf + (loc.off - at), v->raw, v->err);
		}
		if (rc)
			return rc;
		crc = cis_crc64(crc, v->buf, (size_t)bytes);
		at += bytes;
		report(v, bytes);
	}
	return crc == part->crc ? 0 : bad_crc(v, part, what);
}

static int verify_state(struct verify *v, const struct cis_part *part)
{
	uint64_t crc = 0;

	for (uint64_t at = 0; at < part->bytes;) {
		size_t n = part->bytes - at < v->buf_bytes ? (size_t)(part->bytes - at) : v->buf_bytes;
		int rc = read_at(v, part->off + at, n);

		if (rc)
			return rc;
		crc = cis_crc64(crc, v->buf, n);
		at += n;
		report(v, n);
	}
	return crc == part->crc ? 0 : bad_crc(v, part, "state_crc");
}

static int verify_fill(struct verify *v, const struct cis_part *part)
{
	uint64_t from = part->off + part->bytes;
	size_t len = (size_t)(cis_align(from, CIS_PART_ALIGN) - from);
	int rc = read_at(v, from, len);

	for (size_t i = 0; !rc && i < len; i++)
		if (v->buf[i])
			rc = cis_fail(v->err, EBADMSG,
				      "%s: byte %llu: not zero, but fills up a part (format 2)", v->img->path,
				      (unsigned long long)(from + i));
	return rc;
}

static int verify_all(struct verify *v)
{
	const struct cis_header *h = &v->img->h;
	const struct cis_part *const parts[] = { &h->hot, &h->cold, &h->state, &h->meta };
	uint64_t nr_hot = v->img->meta.nr_hot_chunks;
	int rc = verify_section(v, &h->hot, 0, nr_hot, "hot_crc");

	if (!rc)
		rc = verify_section(v, &h->cold, nr_hot, v->img->meta.nr_chunks, "cold_crc");
	if (!rc)
		rc = verify_state(v, &h->state);
	for (unsigned i = 0; i < 4 && !rc; i++)
		rc = verify_fill(v, parts[i]);
	if (!rc)
		report(v, v->img->info.file_bytes - v->done);
	return rc;
}

int cis_image_verify(struct cis_image *img, void (*progress)(uint64_t, uint64_t, void *), void *ctx,
		     struct cis_error *err)
{
	const struct cis_part *const parts[] = { &img->h.hot, &img->h.cold, &img->h.state };
	size_t chunk = (size_t)1 << img->h.chunk_shift;
	struct verify v = {
		.img = img, .buf_bytes = CIS_PART_ALIGN, .progress = progress, .ctx = ctx, .err = err
	};
	int rc;

	for (unsigned i = 0; i < 3; i++)
		if (v.buf_bytes < parts[i]->bytes)
			v.buf_bytes = parts[i]->bytes < BUFFER_BYTES ? (size_t)parts[i]->bytes : BUFFER_BYTES;
	v.buf = malloc(v.buf_bytes);
	v.raw = malloc(chunk);
	if (!v.buf || !v.raw || cis_decoder_create(chunk, img->meta.params, &v.dec))
		rc = cis_fail(err, ENOMEM, "%s: no memory for a decoder", img->path);
	else
		rc = verify_all(&v);
	cis_decoder_destroy(v.dec);
	free(v.buf);
	free(v.raw);
	return rc;
}
