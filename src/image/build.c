#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "image/writer.h"

/* What the writer's output is called (format 6.7): changes when equal input gives other bytes. */
#define WRITER "cistern-1"

/* The metadata while it is put together; @len is known before @buf is allocated. */
struct build {
	uint8_t *buf;
	uint64_t len;
};

static uint8_t *add_record(struct build *b, enum cis_tag tag, uint32_t flags, uint64_t bytes)
{
	uint64_t off = b->len;
	uint8_t *at;

	b->len += 16 + cis_align(bytes, 8);
	if (!b->buf)
		return NULL;
	at = b->buf + off;
	cis_put_le32(at, tag);
	cis_put_le32(at + 4, flags);
	cis_put_le64(at + 8, bytes);
	return at + 16;
}

static void put_words(uint8_t *p, const uint64_t *words, uint64_t nr)
{
	for (uint64_t i = 0; p && i < nr; i++)
		cis_put_le64(p + 8 * i, words[i]);
}

static void add_fixed(struct build *b, const struct cis_writer *w)
{
	uint64_t words = cis_bitmap_words(w->h.nr_pages);
	const uint32_t *order = w->hot_order.items;
	uint8_t *p;

	p = add_record(b, CIS_TAG_CLASSES, CIS_RECORD_MUST_KNOW, 4 * 8 * words);
	put_words(p, w->classes, 4 * words);
	p = add_record(b, CIS_TAG_HOT_ORDER, CIS_RECORD_MUST_KNOW, 4 * w->hot_order.nr);
	for (uint64_t i = 0; p && i < w->hot_order.nr; i++)
		cis_put_le32(p + 4 * i, order[i]);
	p = add_record(b, CIS_TAG_SAME_WORDS, CIS_RECORD_MUST_KNOW, 8 * w->same.nr);
	put_words(p, w->same.items, w->same.nr);
	p = add_record(b, CIS_TAG_CHUNKS, CIS_RECORD_MUST_KNOW, 16 * w->chunks.nr);
	put_words(p, w->chunks.items, 2 * w->chunks.nr);
}

static void add_regions(struct build *b, const struct cis_image_source *src)
{
	uint64_t bytes = 0;

	if (!src->nr_regions)
		return;
	for (size_t i = 0; i < src->nr_regions; i++)
		bytes += 32 + cis_align(strlen(src->regions[i].name), 8);
	uint8_t *p = add_record(b, CIS_TAG_REGIONS, 0, bytes);

	for (size_t i = 0; p && i < src->nr_regions; i++) {
		const struct cis_region_entry *r = &src->regions[i];
		size_t len = strlen(r->name);

		cis_put_le64(p, r->offset);
		cis_put_le64(p + 8, r->gpa);
		cis_put_le64(p + 16, r->bytes);
		cis_put_le64(p + 24, len);
		memcpy(p + 32, r->name, len);
		p += 32 + cis_align(len, 8);
	}
}

static unsigned codecs_used(const struct cis_writer *w)
{
	const struct cis_chunk_entry *c = w->chunks.items;
	unsigned used = 0;

	for (uint64_t i = 0; i < w->chunks.nr; i++)
		used |= 1u << (c[i].word >> CIS_CHUNK_CODEC_SHIFT);
	return used;
}

/* There is at most one: that of the codec that was asked for. */
static void add_params(struct build *b, const struct cis_writer *w)
{
	size_t len = 0;
	const void *bytes = cis_codec_params_bytes(w->params, w->o.codec, &len);
	uint8_t *p = add_record(b, CIS_TAG_PARAMS, CIS_RECORD_MUST_KNOW, 16 + cis_align(len, 8));

	if (!p)
		return;
	cis_put_le64(p, w->o.codec);
	cis_put_le64(p + 8, len);
	memcpy(p + 16, bytes, len);
}

static void add_provenance(struct build *b, const char *producer)
{
	static const char writer[] = "writer=" WRITER "\n";
	size_t len = producer ? strlen(producer) + sizeof("producer=\n") - 1 : 0;
	char *p = (char *)add_record(b, CIS_TAG_PROVENANCE, 0, len + sizeof(writer) - 1);

	if (!p)
		return;
	if (producer) {
		p = stpcpy(p, "producer=");
		p = stpcpy(p, producer);
		*p++ = '\n';
	}
	memcpy(p, writer, sizeof(writer) - 1);
}

static void add_touched(struct build *b, const struct cis_writer *w)
{
	uint64_t nr = cis_bitmap_count(w->touched, w->h.nr_pages), at = 0;
	uint8_t *p;

	if (!nr)
		return;
	p = add_record(b, CIS_TAG_TOUCHED, 0, 4 * nr);
	for (uint64_t i = 0; p && i < nr; i++, at++) {
		at = cis_bitmap_next(w->touched, w->h.nr_pages, at);
		cis_put_le32(p + 4 * i, (uint32_t)at);
	}
}

static void add_all(struct build *b, const struct cis_writer *w)
{
	b->len = 0;
	add_fixed(b, w);
	add_regions(b, w->src);
	if (w->h.must_know & CIS_MUST_KNOW_DICT)
		add_params(b, w);
	add_provenance(b, w->o.producer);
	add_touched(b, w);
}

static int check_texts(const struct cis_writer *w)
{
	const char *producer = w->o.producer;

	if (producer &&
	    (strlen(producer) > CIS_PROVENANCE_MAX / 2 || !cis_text_ok(producer, strlen(producer), "")))
		return cis_fail(w->err, EINVAL, "producer: too long or not clean UTF-8 (format 6.7)");
	for (size_t i = 0; i < w->src->nr_regions; i++) {
		const char *name = w->src->regions[i].name;

		if (strlen(name) > CIS_REGION_NAME_MAX || !cis_text_ok(name, strlen(name), ""))
			return cis_fail(w->err, EINVAL,
					"region %zu: its name is too long or not clean UTF-8 (format 6.5)",
					i);
	}
	return 0;
}

static void set_counts(struct cis_writer *w)
{
	const unsigned trained = 1u << CIS_CODEC_ZSTD_DICT | 1u << CIS_CODEC_DEFLATE_CANNED;

	w->h.nr_hot = w->hot_order.nr;
	w->h.nr_same = w->same.nr;
	w->h.nr_cold = cis_bitmap_count(w->cold, w->h.nr_pages);
	w->h.nr_inherit = cis_bitmap_count(w->inherit, w->h.nr_pages);
	if (codecs_used(w) & trained)
		w->h.must_know |= CIS_MUST_KNOW_DICT;
	if (w->src->nr_regions)
		w->h.ignorable |= CIS_IGNORABLE_REGIONS;
}

int cis_writer_metadata(struct cis_writer *w, void **ret)
{
	struct build b = { 0 };
	int rc = check_texts(w);

	if (rc)
		return rc;
	set_counts(w);
	add_all(&b, w);
	if (b.len > CIS_META_BYTES_MAX)
		return cis_fail(w->err, EFBIG,
				"%s: metadata of %llu bytes: more than 2^32; take larger chunks (format 3)",
				w->out.path, (unsigned long long)b.len);
	b.buf = calloc(1, b.len);
	if (!b.buf)
		return cis_fail(w->err, ENOMEM, "%s: no memory for its metadata", w->out.path);
	add_all(&b, w);
	w->h.meta.bytes = b.len;
	w->h.meta.crc = cis_crc64(0, b.buf, b.len);
	*ret = b.buf;
	return 0;
}
