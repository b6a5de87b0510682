#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "image/file.h"
#include "image/open.h"

static int bad_chunk(const struct cis_image *img, uint64_t chunk, const struct cis_chunk_loc *loc,
		     const char *what, struct cis_error *err)
{
	return cis_fail(err, EBADMSG, "%s: chunk %llu (bytes %llu .. %llu, codec %s): %s", img->path,
			(unsigned long long)chunk, (unsigned long long)loc->off,
			(unsigned long long)(loc->off + loc->stored_bytes), cis_codec_name(loc->codec), what);
}

int cis_image_unpack(const struct cis_image *img, struct cis_decoder *dec, uint64_t chunk, const void *stored,
		     void *raw, struct cis_error *err)
{
	struct cis_chunk_loc loc;

	cis_image_chunk(img, chunk, &loc);
	if (cis_decode(dec, loc.codec, stored, loc.stored_bytes, raw, loc.raw_bytes))
		return bad_chunk(img, chunk, &loc, "does not decode to its length (format 5)", err);
	return 0;
}

int cis_image_check(const struct cis_image *img, uint64_t chunk, const void *raw, struct cis_error *err)
{
	struct cis_chunk_loc loc;

	cis_image_chunk(img, chunk, &loc);
	if (cis_chunk_checksum(chunk, raw, loc.raw_bytes) != loc.checksum)
		return bad_chunk(img, chunk, &loc, "its checksum does not match (format 4)", err);
	return 0;
}

int cis_image_decode(const struct cis_image *img, struct cis_decoder *dec, uint64_t chunk, const void *stored,
		     void *raw, struct cis_error *err)
{
	int rc = cis_image_unpack(img, dec, chunk, stored, raw, err);

	return rc ? rc : cis_image_check(img, chunk, raw, err);
}

/* One image of the chain, with the last chunk of each section: pages by number alternate between the two. */
struct level {
	struct cis_decoder *dec;
	uint8_t *stored;
	struct window {
		uint8_t *raw;
		uint64_t chunk;
		uint32_t raw_bytes;
		bool valid;
	} hot, cold;
};

struct cis_image_reader {
	struct cis_image *img;
	struct level level[CIS_IMAGE_DEPTH_MAX + 1]; /* by depth */
};

static int open_level(struct level *l, const struct cis_image *img)
{
	size_t chunk = (size_t)1 << img->h.chunk_shift;

	l->stored = malloc(chunk);
	l->hot.raw = malloc(chunk);
	l->cold.raw = malloc(chunk);
	if (!l->stored || !l->hot.raw || !l->cold.raw)
		return -ENOMEM;
	return cis_decoder_create(chunk, img->meta.params, &l->dec);
}

int cis_image_reader_create(struct cis_image *img, struct cis_image_reader **ret)
{
	struct cis_image_reader *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->img = cis_image_ref(img);
	for (const struct cis_image *i = img; i; i = i->parent) {
		int rc = open_level(&r->level[i->h.depth], i);

		if (rc) {
			cis_image_reader_destroy(r);
			return rc;
		}
	}
	*ret = r;
	return 0;
}

void cis_image_reader_destroy(struct cis_image_reader *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i <= CIS_IMAGE_DEPTH_MAX; i++) {
		cis_decoder_destroy(r->level[i].dec);
		free(r->level[i].stored);
		free(r->level[i].hot.raw);
		free(r->level[i].cold.raw);
	}
	cis_image_unref(r->img);
	free(r);
}

static int load_chunk(struct level *l, struct window *w, const struct cis_image *img, uint64_t chunk,
		      struct cis_error *err)
{
	struct cis_chunk_loc loc;

	if (w->valid && w->chunk == chunk)
		return 0;
	w->valid = false;
	cis_image_chunk(img, chunk, &loc);
	int rc = cis_image_pread(img, l->stored, loc.stored_bytes, loc.off, err);

	if (!rc)
		rc = cis_image_decode(img, l->dec, chunk, l->stored, w->raw, err);
	if (rc)
		return rc;
	w->chunk = chunk;
	w->raw_bytes = loc.raw_bytes;
	w->valid = true;
	return 0;
}

static void fill_word(uint8_t *buf, uint64_t word, size_t len)
{
	for (size_t i = 0; i < len; i += sizeof(word))
		memcpy(buf + i, &word, sizeof(word));
}

int cis_image_read_page(struct cis_image_reader *r, uint64_t pgno, void *buf, struct cis_error *err)
{
	size_t page = (size_t)1 << r->img->h.page_shift;
	struct cis_page_loc loc;

	cis_image_locate(r->img, pgno, &loc);
	if (loc.cls == CIS_CLASS_ZERO || loc.cls == CIS_CLASS_SAME) {
		fill_word(buf, htole64(loc.word), page);
		return 0;
	}
	struct level *l = &r->level[loc.img->h.depth];
	struct window *w = loc.cls == CIS_CLASS_HOT ? &l->hot : &l->cold;

	for (size_t done = 0; done < page; loc.chunk++, loc.at = 0) {
		int rc = load_chunk(l, w, loc.img, loc.chunk, err);

		if (rc)
			return rc;
		size_t n = w->raw_bytes - loc.at < page - done ? w->raw_bytes - loc.at : page - done;

		memcpy((uint8_t *)buf + done, w->raw + loc.at, n);
		done += n;
	}
	return 0;
}

int cis_image_read_state(const struct cis_image *img, void **ret, size_t *ret_len, struct cis_error *err)
{
	const struct cis_part *state = &img->h.state;

	if (!state->bytes)
		return cis_fail(err, ENODATA, "%s: has no state blob", img->path);
	void *buf = malloc(state->bytes);

	if (!buf)
		return cis_fail(err, ENOMEM, "%s: no memory for a state of %llu bytes", img->path,
				(unsigned long long)state->bytes);
	int rc = cis_image_pread(img, buf, state->bytes, state->off, err);

	if (!rc && cis_crc64(0, buf, state->bytes) != state->crc)
		rc = cis_fail(err, EBADMSG,
			      "%s: bytes %llu .. %llu: the state blob is damaged: state_crc (format 3)",
			      img->path, (unsigned long long)state->off,
			      (unsigned long long)(state->off + state->bytes));
	if (rc) {
		free(buf);
		return rc;
	}
	*ret = buf;
	*ret_len = state->bytes;
	return 0;
}
