#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/le.h"
#include "image/format.h"

static const uint8_t magic[8] = { 0x43, 0x49, 0x53, 0x54, 0x45, 0x52, 0x4e, 0x1a };
static const uint8_t no_id[CIS_IMAGE_ID_BYTES];

/* Offsets of section 3. */
enum {
	AT_MAJOR = 8,
	AT_MINOR = 10,
	AT_HEADER_BYTES = 12,
	AT_MUST_KNOW = 16,
	AT_IGNORABLE = 24,
	AT_IMAGE_ID = 32,
	AT_GUEST_BYTES = 64,
	AT_PAGE_SHIFT = 72,
	AT_CHUNK_SHIFT = 76,
	AT_NR_PAGES = 80,
	AT_NR_HOT = 88,
	AT_NR_COLD = 96,
	AT_NR_SAME = 104,
	AT_NR_INHERIT = 112,
	AT_HOT = 120,
	AT_COLD = 144,
	AT_STATE = 168,
	AT_META = 192,
	AT_PARENT_ID = 216,
	AT_DEPTH = 248,
	AT_CODEC = 252,
	AT_RESERVED = 256,
	AT_CRC = 4088,
};

static int bad(struct cis_error *err, const char *path, unsigned at, const char *what)
{
	return cis_fail(err, EBADMSG, "%s: header byte %u: %s (format 3)", path, at, what);
}

uint64_t cis_header_parts(struct cis_header *h)
{
	struct cis_part *parts[] = { &h->hot, &h->cold, &h->state, &h->meta };
	uint64_t at = CIS_HEADER_BYTES;

	for (unsigned i = 0; i < 4; i++) {
		parts[i]->off = at;
		at = cis_align(at + parts[i]->bytes, CIS_PART_ALIGN);
	}
	return at;
}

uint64_t cis_header_chunks(const struct cis_header *h, uint64_t nr_pages)
{
	uint64_t chunk = (uint64_t)1 << h->chunk_shift;

	return ((nr_pages << h->page_shift) + chunk - 1) >> h->chunk_shift;
}

static void get_part(const uint8_t *b, struct cis_part *part)
{
	part->off = cis_le64(b);
	part->bytes = cis_le64(b + 8);
	part->crc = cis_le64(b + 16);
}

static void put_part(uint8_t *b, const struct cis_part *part)
{
	cis_put_le64(b, part->off);
	cis_put_le64(b + 8, part->bytes);
	cis_put_le64(b + 16, part->crc);
}

static void get_fields(const uint8_t *b, struct cis_header *h)
{
	h->minor = cis_le16(b + AT_MINOR);
	h->must_know = cis_le64(b + AT_MUST_KNOW);
	h->ignorable = cis_le64(b + AT_IGNORABLE);
	memcpy(h->image_id, b + AT_IMAGE_ID, sizeof(h->image_id));
	h->guest_bytes = cis_le64(b + AT_GUEST_BYTES);
	h->page_shift = cis_le32(b + AT_PAGE_SHIFT);
	h->chunk_shift = cis_le32(b + AT_CHUNK_SHIFT);
	h->nr_pages = cis_le64(b + AT_NR_PAGES);
	h->nr_hot = cis_le64(b + AT_NR_HOT);
	h->nr_cold = cis_le64(b + AT_NR_COLD);
	h->nr_same = cis_le64(b + AT_NR_SAME);
	h->nr_inherit = cis_le64(b + AT_NR_INHERIT);
	get_part(b + AT_HOT, &h->hot);
	get_part(b + AT_COLD, &h->cold);
	get_part(b + AT_STATE, &h->state);
	get_part(b + AT_META, &h->meta);
	memcpy(h->parent_id, b + AT_PARENT_ID, sizeof(h->parent_id));
	h->depth = cis_le32(b + AT_DEPTH);
	h->codec = cis_le32(b + AT_CODEC);
}

/* What tells another kind of file, a damaged one and a newer one apart; in the order of section 3. */
static int check_kind(const char *path, const uint8_t *b, size_t len, struct cis_error *err)
{
	if (len < sizeof(magic) || memcmp(b, magic, sizeof(magic)))
		return cis_fail(err, EMEDIUMTYPE, "%s: not a Cistern image: no magic at its start (format 3)",
				path);
	if (len < CIS_HEADER_BYTES)
		return cis_fail(err, EBADMSG, "%s: truncated: %zu bytes of a header of 4096 (format 3)", path,
				len);
	if (cis_crc64(0, b, AT_CRC) != cis_le64(b + AT_CRC))
		return bad(err, path, AT_CRC, "header_crc does not match: the header is damaged");
	if (cis_le16(b + AT_MAJOR) != 1)
		return cis_fail(err, EPROTONOSUPPORT,
				"%s: format version %u.%u: this program reads 1.x (format 3)", path,
				cis_le16(b + AT_MAJOR), cis_le16(b + AT_MINOR));
	if (cis_le64(b + AT_MUST_KNOW) & ~CIS_MUST_KNOW_ALL)
		return cis_fail(err, EPROTONOSUPPORT,
				"%s: must-know feature bits %#llx are of a newer writer (format 3.1)", path,
				(unsigned long long)(cis_le64(b + AT_MUST_KNOW) & ~CIS_MUST_KNOW_ALL));
	return 0;
}

static int check_counts(const char *path, const struct cis_header *h, struct cis_error *err)
{
	const uint64_t counts[] = { h->nr_hot, h->nr_cold, h->nr_same, h->nr_inherit };
	uint64_t left = h->nr_pages;

	if (!h->guest_bytes || h->guest_bytes > CIS_GUEST_BYTES_MAX)
		return bad(err, path, AT_GUEST_BYTES, "guest_bytes is not 1 .. 2^44");
	if (h->page_shift != 12 && h->page_shift != 21)
		return bad(err, path, AT_PAGE_SHIFT, "page_shift is neither 12 nor 21");
	if (h->chunk_shift < 12 || h->chunk_shift > 21)
		return bad(err, path, AT_CHUNK_SHIFT, "chunk_shift is not 12 .. 21");
	if (h->nr_pages != ((h->guest_bytes - 1) >> h->page_shift) + 1)
		return bad(err, path, AT_NR_PAGES, "nr_pages does not fit guest_bytes");
	for (unsigned i = 0; i < 4; i++) {
		if (counts[i] > left)
			return bad(err, path, AT_NR_HOT + 8 * i,
				   "the classes have more pages than there are");
		left -= counts[i];
	}
	return 0;
}

static int check_parts(const char *path, const struct cis_header *h, uint64_t file_bytes,
		       struct cis_error *err)
{
	const struct cis_part *const parts[] = { &h->hot, &h->cold, &h->state, &h->meta };
	const uint64_t most[] = { h->nr_hot << h->page_shift, h->nr_cold << h->page_shift,
				  CIS_STATE_BYTES_MAX, CIS_META_BYTES_MAX };
	uint64_t at = CIS_HEADER_BYTES;

	for (unsigned i = 0; i < 4; i++) {
		if (parts[i]->off != at)
			return bad(err, path, AT_HOT + 24 * i,
				   "the part is not where the one before it ends");
		if (parts[i]->bytes > most[i])
			return bad(err, path, AT_HOT + 24 * i + 8, "the part is longer than it may be");
		at = cis_align(at + parts[i]->bytes, CIS_PART_ALIGN);
	}
	if (file_bytes < at)
		return cis_fail(err, EBADMSG, "%s: truncated: %llu bytes, of %llu (format 2)", path,
				(unsigned long long)file_bytes, (unsigned long long)at);
	if (file_bytes > at)
		return cis_fail(err, EBADMSG, "%s: %llu bytes after its end (format 2)", path,
				(unsigned long long)(file_bytes - at));
	return 0;
}

static int check_family(const char *path, const struct cis_header *h, struct cis_error *err)
{
	bool child = h->must_know & CIS_MUST_KNOW_PARENT;

	if (child != !!memcmp(h->parent_id, no_id, sizeof(no_id)))
		return bad(err, path, AT_PARENT_ID, "parent_id contradicts the feature bit");
	if (h->depth > CIS_IMAGE_DEPTH_MAX || child != !!h->depth)
		return bad(err, path, AT_DEPTH, "depth is not 0 without a parent, 1 .. 8 with one");
	if (!child && h->nr_inherit)
		return bad(err, path, AT_NR_INHERIT, "pages inherit, but there is no parent");
	if (h->nr_hot && !(h->ignorable & CIS_IGNORABLE_TRACED))
		return bad(err, path, AT_NR_HOT, "hot pages without a trace");
	if (h->codec >= CIS_CODEC_COUNT)
		return bad(err, path, AT_CODEC, "no such codec");
	return 0;
}

static int check_reserved(const char *path, const uint8_t *b, struct cis_error *err)
{
	for (unsigned i = AT_RESERVED; i < AT_CRC && !cis_le16(b + AT_MINOR); i++)
		if (b[i])
			return bad(err, path, i, "reserved bytes are not zeros");
	return 0;
}

int cis_header_decode(const char *path, const uint8_t *buf, size_t len, uint64_t file_bytes,
		      struct cis_header *ret, struct cis_error *err)
{
	struct cis_header h = { 0 };
	int rc = check_kind(path, buf, len, err);

	if (rc)
		return rc;
	if (cis_le32(buf + AT_HEADER_BYTES) != CIS_HEADER_BYTES)
		return bad(err, path, AT_HEADER_BYTES, "header_bytes is not 4096");
	get_fields(buf, &h);
	rc = check_counts(path, &h, err);
	if (!rc)
		rc = check_parts(path, &h, file_bytes, err);
	if (!rc)
		rc = check_family(path, &h, err);
	if (!rc)
		rc = check_reserved(path, buf, err);
	if (!rc)
		*ret = h;
	return rc;
}

int cis_header_id(const uint8_t buf[CIS_HEADER_BYTES], const void *meta, uint64_t meta_bytes,
		  uint8_t ret_id[CIS_IMAGE_ID_BYTES])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) &&
		 EVP_DigestUpdate(ctx, buf, AT_IMAGE_ID) && EVP_DigestUpdate(ctx, no_id, sizeof(no_id)) &&
		 EVP_DigestUpdate(ctx, buf + AT_GUEST_BYTES, AT_CRC - AT_GUEST_BYTES) &&
		 EVP_DigestUpdate(ctx, meta, meta_bytes) && EVP_DigestFinal_ex(ctx, ret_id, NULL);

	EVP_MD_CTX_free(ctx);
	return ok ? 0 : -ENOMEM;
}

static void put_fields(const struct cis_header *h, uint8_t *b)
{
	memset(b, 0, CIS_HEADER_BYTES);
	memcpy(b, magic, sizeof(magic));
	cis_put_le16(b + AT_MAJOR, 1);
	cis_put_le32(b + AT_HEADER_BYTES, CIS_HEADER_BYTES);
	cis_put_le64(b + AT_MUST_KNOW, h->must_know);
	cis_put_le64(b + AT_IGNORABLE, h->ignorable);
	cis_put_le64(b + AT_GUEST_BYTES, h->guest_bytes);
	cis_put_le32(b + AT_PAGE_SHIFT, h->page_shift);
	cis_put_le32(b + AT_CHUNK_SHIFT, h->chunk_shift);
	cis_put_le64(b + AT_NR_PAGES, h->nr_pages);
	cis_put_le64(b + AT_NR_HOT, h->nr_hot);
	cis_put_le64(b + AT_NR_COLD, h->nr_cold);
	cis_put_le64(b + AT_NR_SAME, h->nr_same);
	cis_put_le64(b + AT_NR_INHERIT, h->nr_inherit);
	put_part(b + AT_HOT, &h->hot);
	put_part(b + AT_COLD, &h->cold);
	put_part(b + AT_STATE, &h->state);
	put_part(b + AT_META, &h->meta);
	memcpy(b + AT_PARENT_ID, h->parent_id, sizeof(h->parent_id));
	cis_put_le32(b + AT_DEPTH, h->depth);
	cis_put_le32(b + AT_CODEC, h->codec);
}

int cis_header_encode(struct cis_header *h, const void *meta, uint8_t buf[CIS_HEADER_BYTES])
{
	int rc;

	put_fields(h, buf);
	rc = cis_header_id(buf, meta, h->meta.bytes, h->image_id);
	if (rc)
		return rc;
	memcpy(buf + AT_IMAGE_ID, h->image_id, sizeof(h->image_id));
	cis_put_le64(buf + AT_CRC, cis_crc64(0, buf, AT_CRC));
	return 0;
}

int cis_header_is_image(const uint8_t *buf, size_t len, const uint8_t id[CIS_IMAGE_ID_BYTES])
{
	return len >= AT_GUEST_BYTES && !memcmp(buf, magic, sizeof(magic)) &&
	       !memcmp(buf + AT_IMAGE_ID, id, CIS_IMAGE_ID_BYTES);
}
