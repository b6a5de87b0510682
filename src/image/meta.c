#include "image/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"

/* One record of section 6: where its payload is, and what is known about all tags. */
struct record {
	uint8_t *payload;
	uint64_t bytes;
	bool there;
};

struct parse {
	const char *path;
	const struct cis_header *h;
	struct cis_error *err;
	struct record rec[CIS_TAG_COUNT];
	struct cis_meta meta;
};

static const char *const sections[CIS_TAG_COUNT] = { "6", "6.1", "6.2", "6.3", "6.4", "6.5", "6.6", "6.7",
						      "6.8" };

static int bad(const struct parse *p, unsigned tag, const char *what)
{
	return cis_fail(p->err, EBADMSG, "%s: metadata record %u: %s (format %s)", p->path, tag, what,
			sections[tag]);
}

static int bad_at(const struct parse *p, uint64_t at, const char *what)
{
	return cis_fail(p->err, EBADMSG, "%s: byte %llu: metadata record: %s (format 6)", p->path,
			(unsigned long long)(p->h->meta.off + at), what);
}

static bool all_zero(const uint8_t *p, size_t len)
{
	while (len)
		if (p[--len])
			return false;
	return true;
}

/* Notes a record that we know; refuses one that we do not know and must. */
static int note_record(struct parse *p, uint64_t at, uint32_t tag, uint32_t flags, uint64_t bytes)
{
	bool must_know = tag <= CIS_TAG_CHUNKS || tag == CIS_TAG_PARAMS;

	if (flags & ~(uint32_t)CIS_RECORD_MUST_KNOW)
		return bad_at(p, at + 4, "unknown flags");
	if (tag >= CIS_TAG_COUNT && flags)
		return cis_fail(p->err, EPROTONOSUPPORT,
				"%s: metadata record %u is of a newer writer (format 6)", p->path, tag);
	if (tag >= CIS_TAG_COUNT)
		return 0;
	if (must_know != !!flags)
		return bad(p, tag, "wrong flags");
	p->rec[tag] = (struct record){ (uint8_t *)p->meta.buf + at + 16, bytes, true };
	return 0;
}

static int find_records(struct parse *p)
{
	const uint8_t *b = p->meta.buf;
	uint64_t end = p->h->meta.bytes, at = 0;
	uint32_t last = 0;

	while (at < end) {
		if (end - at < 16)
			return bad_at(p, at, "no room for its head");
		uint32_t tag = cis_le32(b + at), flags = cis_le32(b + at + 4);
		uint64_t bytes = cis_le64(b + at + 8), padded = cis_align(bytes, 8);

		if (tag <= last)
			return bad_at(p, at, "tags do not ascend");
		if (bytes > end - at - 16 || padded > end - at - 16)
			return bad_at(p, at + 8, "longer than the metadata");
		if (!all_zero(b + at + 16 + bytes, padded - bytes))
			return bad_at(p, at + 16 + bytes, "fill bytes are not zeros");
		int rc = note_record(p, at, tag, flags, bytes);

		if (rc)
			return rc;
		last = tag;
		at += 16 + padded;
	}
	for (unsigned i = CIS_TAG_CLASSES; i <= CIS_TAG_CHUNKS; i++)
		if (!p->rec[i].there)
			return bad(p, i, "missing");
	return 0;
}

static void fix_words(uint64_t *words, uint64_t nr)
{
	for (uint64_t i = 0; i < nr; i++)
		words[i] = le64toh(words[i]);
}

static int check_disjoint(const struct parse *p, uint64_t words)
{
	const struct cis_meta *m = &p->meta;

	for (uint64_t i = 0; i < words; i++) {
		uint64_t hc = m->hot[i] | m->cold[i], si = m->same[i] | m->inherit[i];

		if ((m->hot[i] & m->cold[i]) | (m->same[i] & m->inherit[i]) | (hc & si))
			return bad(p, CIS_TAG_CLASSES, "a page has two classes");
		if (i == words - 1 && p->h->nr_pages % 64 && (hc | si) >> (p->h->nr_pages % 64))
			return bad(p, CIS_TAG_CLASSES, "a bit beyond the last page is set");
	}
	return 0;
}

static int parse_classes(struct parse *p)
{
	const struct cis_header *h = p->h;
	uint64_t words = cis_bitmap_words(h->nr_pages);
	uint64_t *map = (uint64_t *)p->rec[CIS_TAG_CLASSES].payload;
	struct cis_meta *m = &p->meta;

	if (p->rec[CIS_TAG_CLASSES].bytes != words * 4 * 8)
		return bad(p, CIS_TAG_CLASSES, "its length does not fit the number of pages");
	fix_words(map, 4 * words);
	m->hot = map;
	m->cold = map + words;
	m->same = map + 2 * words;
	m->inherit = map + 3 * words;
	int rc = check_disjoint(p, words);

	if (rc)
		return rc;
	if (cis_rank_init(&m->hot_rank, m->hot, h->nr_pages) ||
	    cis_rank_init(&m->cold_rank, m->cold, h->nr_pages) ||
	    cis_rank_init(&m->same_rank, m->same, h->nr_pages))
		return cis_fail(p->err, ENOMEM, "%s: no memory for its metadata", p->path);
	if (m->hot_rank.total != h->nr_hot || m->cold_rank.total != h->nr_cold ||
	    m->same_rank.total != h->nr_same || cis_bitmap_count(m->inherit, h->nr_pages) != h->nr_inherit)
		return bad(p, CIS_TAG_CLASSES, "the counts of bits are not those of the header");
	return 0;
}

/* Checks the order and turns it round: for 4 bytes a hot page, a page finds its place without a search. */
static int parse_hot_order(struct parse *p)
{
	uint64_t nr = p->h->nr_hot;
	uint32_t *order = (uint32_t *)p->rec[CIS_TAG_HOT_ORDER].payload;

	if (p->rec[CIS_TAG_HOT_ORDER].bytes != nr * 4)
		return bad(p, CIS_TAG_HOT_ORDER, "its length does not fit the number of hot pages");
	p->meta.hot_order = order;
	p->meta.hot_place = malloc(nr * 4 + 1);
	if (!p->meta.hot_place)
		return cis_fail(p->err, ENOMEM, "%s: no memory for its hot order", p->path);
	memset(p->meta.hot_place, 0xff, nr * 4);
	for (uint64_t i = 0; i < nr; i++) {
		order[i] = le32toh(order[i]);
		if (order[i] >= p->h->nr_pages || !cis_bit_test(p->meta.hot, order[i]))
			return bad(p, CIS_TAG_HOT_ORDER, "a page in it is not hot");
		uint32_t *place = &p->meta.hot_place[cis_rank_before(&p->meta.hot_rank, order[i])];

		if (*place != UINT32_MAX) /* never a place: 2^32 hot pages do not fit the metadata */
			return bad(p, CIS_TAG_HOT_ORDER, "a page is in it twice");
		*place = (uint32_t)i;
	}
	return 0;
}

static int parse_same_words(struct parse *p)
{
	uint64_t *words = (uint64_t *)p->rec[CIS_TAG_SAME_WORDS].payload;

	if (p->rec[CIS_TAG_SAME_WORDS].bytes != p->h->nr_same * 8)
		return bad(p, CIS_TAG_SAME_WORDS, "its length does not fit the number of same pages");
	fix_words(words, p->h->nr_same);
	for (uint64_t i = 0; i < p->h->nr_same; i++)
		if (!words[i])
			return bad(p, CIS_TAG_SAME_WORDS, "a word is zero");
	p->meta.same_words = words;
	return 0;
}

/* The chunks of one section: they fill it, in order, and none is longer than its raw bytes. */
static int check_section(const struct parse *p, uint64_t first, uint64_t nr, uint64_t raw_bytes,
			 uint64_t bytes)
{
	const struct cis_chunk_entry *c = p->meta.chunks + first;
	uint64_t chunk = (uint64_t)1 << p->h->chunk_shift;

	if (!nr)
		return bytes ? bad(p, CIS_TAG_CHUNKS, "a section without chunks is not empty") : 0;
	if (c[0].word & CIS_CHUNK_OFFSET_MASK)
		return bad(p, CIS_TAG_CHUNKS, "the first chunk of a section is not at its start");
	for (uint64_t i = 0; i < nr; i++) {
		uint64_t off = c[i].word & CIS_CHUNK_OFFSET_MASK;
		uint64_t end = i + 1 < nr ? c[i + 1].word & CIS_CHUNK_OFFSET_MASK : bytes;
		uint64_t raw = i + 1 < nr ? chunk : raw_bytes - i * chunk;

		if (c[i].word >> CIS_CHUNK_CODEC_SHIFT >= CIS_CODEC_COUNT)
			return bad(p, CIS_TAG_CHUNKS, "no such codec");
		if (end <= off)
			return bad(p, CIS_TAG_CHUNKS, "offsets do not ascend within the section");
		if (end - off > raw)
			return bad(p, CIS_TAG_CHUNKS, "a stored chunk is longer than its raw bytes");
	}
	return 0;
}

static int parse_chunks(struct parse *p)
{
	const struct cis_header *h = p->h;
	uint64_t nr_hot = cis_header_chunks(h, h->nr_hot), nr_cold = cis_header_chunks(h, h->nr_cold);
	int rc;

	if (p->rec[CIS_TAG_CHUNKS].bytes != (nr_hot + nr_cold) * 16)
		return bad(p, CIS_TAG_CHUNKS, "its length does not fit the number of chunks");
	fix_words((uint64_t *)p->rec[CIS_TAG_CHUNKS].payload, 2 * (nr_hot + nr_cold));
	p->meta.chunks = (const struct cis_chunk_entry *)p->rec[CIS_TAG_CHUNKS].payload;
	p->meta.nr_hot_chunks = nr_hot;
	p->meta.nr_chunks = nr_hot + nr_cold;
	rc = check_section(p, 0, nr_hot, h->nr_hot << h->page_shift, h->hot.bytes);
	return rc ? rc : check_section(p, nr_hot, nr_cold, h->nr_cold << h->page_shift, h->cold.bytes);
}

/* The next entry of records 5 and 6: @fixed bytes, the last 8 of which say how many follow, padded. */
static const uint8_t *next_entry(const struct record *rec, uint64_t *at, unsigned fixed, uint64_t *ret_len)
{
	const uint8_t *e = rec->payload + *at;

	if (rec->bytes - *at < fixed)
		return NULL;
	uint64_t len = cis_le64(e + fixed - 8);

	if (len > rec->bytes || cis_align(len, 8) > rec->bytes - *at - fixed ||
	    !all_zero(e + fixed + len, cis_align(len, 8) - len))
		return NULL;
	*at += fixed + cis_align(len, 8);
	*ret_len = len;
	return e;
}

static int add_region(struct parse *p, const uint8_t *e, uint64_t len, char **names, uint64_t *end)
{
	struct cis_region_entry *r = &p->meta.regions[p->meta.nr_regions++];

	*r = (struct cis_region_entry){ cis_le64(e), cis_le64(e + 8), cis_le64(e + 16), *names };
	if (len > CIS_REGION_NAME_MAX || !cis_text_ok((const char *)e + 32, len, ""))
		return bad(p, CIS_TAG_REGIONS, "a name is too long or not clean UTF-8");
	if (!r->bytes || r->offset < *end || r->offset > p->h->guest_bytes ||
	    r->bytes > p->h->guest_bytes - r->offset || r->gpa + r->bytes < r->gpa)
		return bad(p, CIS_TAG_REGIONS,
			   "a region is empty, overlaps, does not ascend or lies outside");
	*end = r->offset + r->bytes;
	memcpy(*names, e + 32, len);
	(*names)[len] = '\0';
	*names += len + 1;
	return 0;
}

/* One allocation: the table, then the names.  Both are bounded by what they take in the file. */
static int parse_regions(struct parse *p)
{
	const struct record *rec = &p->rec[CIS_TAG_REGIONS];
	uint64_t at = 0, len, end = 0, max = rec->bytes / 32;

	if (rec->there != !!(p->h->ignorable & CIS_IGNORABLE_REGIONS))
		return bad(p, CIS_TAG_REGIONS, "contradicts the feature bit");
	if (!rec->there)
		return 0;
	p->meta.regions = malloc(max * sizeof(*p->meta.regions) + rec->bytes + max + 1);
	if (!p->meta.regions)
		return cis_fail(p->err, ENOMEM, "%s: no memory for its regions", p->path);
	char *names = (char *)(p->meta.regions + max);

	while (at < rec->bytes) {
		const uint8_t *e = next_entry(rec, &at, 32, &len);
		int rc = e ? add_region(p, e, len, &names, &end)
			   : bad(p, CIS_TAG_REGIONS, "an entry is cut off");

		if (rc)
			return rc;
	}
	return 0;
}

/* Which parameters the chunks need: bit i for codec i. */
static unsigned codecs_used(const struct cis_meta *m)
{
	unsigned used = 0;

	for (uint64_t i = 0; i < m->nr_chunks; i++)
		used |= 1u << (m->chunks[i].word >> CIS_CHUNK_CODEC_SHIFT);
	return used;
}

static int load_params(struct parse *p, const uint8_t *const bytes[2], const uint64_t len[2])
{
	struct cis_error why = { 0 };
	int rc = cis_codec_params_load(bytes[0], len[0], bytes[1], len[1], &p->meta.params, &why);

	if (rc == -ENOMEM)
		return cis_fail(p->err, ENOMEM, "%s: no memory for its codec parameters", p->path);
	return rc ? bad(p, CIS_TAG_PARAMS, why.text) : 0;
}

static int parse_params(struct parse *p)
{
	const struct record *rec = &p->rec[CIS_TAG_PARAMS];
	const unsigned ids[2] = { CIS_CODEC_ZSTD_DICT, CIS_CODEC_DEFLATE_CANNED };
	const uint8_t *bytes[2] = { NULL, NULL };
	uint64_t len[2] = { 0, 0 }, at = 0, n;
	unsigned used = codecs_used(&p->meta), i = 0;

	if (rec->there != !!(p->h->must_know & CIS_MUST_KNOW_DICT))
		return bad(p, CIS_TAG_PARAMS, "contradicts the feature bit");
	while (at < rec->bytes) {
		const uint8_t *e = next_entry(rec, &at, 16, &n);

		if (!e || !n || n > CIS_PARAMS_BYTES_MAX)
			return bad(p, CIS_TAG_PARAMS, "an entry is cut off, empty or too long");
		while (i < 2 && ids[i] != cis_le64(e))
			i++;
		if (i == 2)
			return bad(p, CIS_TAG_PARAMS, "codecs do not ascend, or one has no parameters");
		bytes[i] = e + 16;
		len[i++] = n;
	}
	for (i = 0; i < 2; i++)
		if (used >> ids[i] & 1 && !bytes[i])
			return bad(p, CIS_TAG_PARAMS, "a chunk uses a codec whose parameters are missing");
	return rec->there ? load_params(p, bytes, len) : 0;
}

static int parse_provenance(struct parse *p)
{
	const struct record *rec = &p->rec[CIS_TAG_PROVENANCE];

	if (rec->bytes > CIS_PROVENANCE_MAX || !cis_text_ok((const char *)rec->payload, rec->bytes, "\n"))
		return bad(p, CIS_TAG_PROVENANCE, "too long or not clean UTF-8");
	p->meta.provenance = strndup(rec->there ? (const char *)rec->payload : "", rec->bytes);
	return p->meta.provenance ? 0 : cis_fail(p->err, ENOMEM, "%s: no memory for its provenance", p->path);
}

static int parse_touched(struct parse *p)
{
	const struct record *rec = &p->rec[CIS_TAG_TOUCHED];
	uint32_t *pgno = (uint32_t *)rec->payload;
	uint64_t nr = rec->bytes / 4;

	if (rec->bytes % 4 || nr > p->h->nr_pages)
		return bad(p, CIS_TAG_TOUCHED, "its length is not that of page numbers");
	for (uint64_t i = 0; i < nr; i++) {
		pgno[i] = le32toh(pgno[i]);
		if (pgno[i] >= p->h->nr_pages || (i && pgno[i] <= pgno[i - 1]))
			return bad(p, CIS_TAG_TOUCHED,
				   "a page in it lies beyond the last one or does not ascend");
		if (cis_bit_test(p->meta.hot, pgno[i]) || cis_bit_test(p->meta.cold, pgno[i]))
			return bad(p, CIS_TAG_TOUCHED, "a page in it has a chunk");
	}
	p->meta.touched = pgno;
	p->meta.nr_touched = nr;
	return 0;
}

static size_t memory_of(const struct parse *p)
{
	const struct cis_meta *m = &p->meta;

	return p->h->meta.bytes + 3 * (p->h->nr_pages / 512 + 1) * 8 + p->h->nr_hot * 4 +
	       m->nr_regions * sizeof(*m->regions);
}

int cis_meta_parse(const char *path, const struct cis_header *h, void *buf, struct cis_meta *ret,
		   struct cis_error *err)
{
	struct parse p = { .path = path, .h = h, .err = err, .meta.buf = buf };
	int (*const steps[])(struct parse *) = { find_records,	   parse_classes,    parse_hot_order,
						 parse_same_words, parse_chunks,     parse_regions,
						 parse_params,	   parse_provenance, parse_touched };
	int rc = 0;

	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]) && !rc; i++)
		rc = steps[i](&p);
	p.meta.memory_bytes = memory_of(&p);
	if (rc)
		cis_meta_fini(&p.meta);
	else
		*ret = p.meta;
	return rc;
}

void cis_meta_fini(struct cis_meta *meta)
{
	cis_codec_params_unref(meta->params);
	free(meta->provenance);
	free(meta->regions);
	free(meta->hot_place);
	cis_rank_fini(&meta->same_rank);
	cis_rank_fini(&meta->cold_rank);
	cis_rank_fini(&meta->hot_rank);
	free(meta->buf);
	*meta = (struct cis_meta){ 0 };
}
