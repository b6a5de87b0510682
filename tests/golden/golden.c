/*
 * The C side of the golden files: makes them, and tells what it reads in one.
 *
 *   golden make DIR            write every golden image and trace
 *   golden read IMAGE [OUT]    open, verify, export to OUT; what the image says as JSON on stdout
 *   golden trace TRACE
 *
 * A refusal is its text on stderr and exit status 1.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "image/image.h"
#include "image/source.h"
#include "image/trace.h"
#include "image/write.h"

#define PAGE 4096

static int die(const struct cis_error *err)
{
	fprintf(stderr, "%s\n", err->text);
	return 1;
}

/* --- a guest in memory --- */

struct guest {
	struct cis_image_source src;
	uint8_t *mem;
	const uint8_t *present; /* a byte a block of 4 KiB, NULL: all there */
};

static struct guest *guest_of(struct cis_image_source *src)
{
	return (struct guest *)src;
}

static int guest_next_data(struct cis_image_source *src, uint64_t from, uint64_t *ret_start,
			   uint64_t *ret_end, struct cis_error *err)
{
	const uint8_t *present = guest_of(src)->present;
	uint64_t nr = (src->guest_bytes + PAGE - 1) / PAGE, first = from / PAGE, end;

	while (first < nr && present && !present[first])
		first++;
	if (from >= src->guest_bytes || first >= nr)
		return -ENXIO;
	for (end = first; end < nr && (!present || present[end]); end++)
		continue;
	*ret_start = from > first * PAGE ? from : first * PAGE;
	*ret_end = end * PAGE < src->guest_bytes ? end * PAGE : src->guest_bytes;
	return 0;
}

static int guest_read(struct cis_image_source *src, uint64_t off, void *buf, size_t len,
		      struct cis_error *err)
{
	memcpy(buf, guest_of(src)->mem + off, len);
	return 0;
}

static void guest_close(struct cis_image_source *src)
{
	free(guest_of(src)->mem);
}

static uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return *seed >> 33;
}

/* Blocks as guests have them: zeros, one word, sparse, pointers, text, noise. */
static void fill_block(uint8_t *block, unsigned kind, uint64_t *seed)
{
	static const char words[] =
		"the page fault handler reads a chunk of the image and verifies its checksum ";
	uint64_t *w = (uint64_t *)block, same = 0x0101010101010101u * (1 + next_random(seed) % 255);

	memset(block, 0, PAGE);
	for (size_t i = 0; i < PAGE / 8; i++) {
		uint64_t r = next_random(seed);

		if (kind == 1)
			w[i] = same;
		else if (kind == 2 && r % 16 == 0)
			w[i] = r;
		else if (kind == 3)
			w[i] = 0xffff888000000000u + r % 64 * 64;
		else if (kind == 4)
			memcpy(block + 8 * i, words + r % (sizeof(words) - 8), 8);
		else if (kind == 5)
			w[i] = r << 31 ^ next_random(seed);
	}
}

static int guest_init(struct guest *g, uint64_t bytes, uint64_t seed)
{
	static const unsigned kinds[] = { 0, 0, 1, 2, 2, 3, 3, 4, 4, 5 };
	uint64_t nr = (bytes + PAGE - 1) / PAGE;

	*g = (struct guest){ .src = { .guest_bytes = bytes, .next_data = guest_next_data, .read = guest_read,
				      .close = guest_close },
			     .mem = malloc(nr * PAGE) };
	if (!g->mem)
		return -ENOMEM;
	for (uint64_t i = 0; i < nr; i++)
		fill_block(g->mem + i * PAGE, kinds[next_random(&seed) % 10], &seed);
	return 0;
}

/* --- the golden files --- */

/** struct golden - one file: how it is made; @parent names another one */
struct golden {
	const char *name;
	uint64_t bytes;
	uint64_t seed;
	struct cis_write_opts opts;
	const char *parent;
	int regions;
};

static const uint32_t hot[] = { 7, 8, 9, 3, 30, 31, 12, 40 }, hot_huge[] = { 2, 0 };
static const uint32_t hot_small[] = { 7, 10, 8, 9, 4, 3, 0 }; /* 10 and 0 are zeros, 4 one word */
#define HOT .hot = hot, .nr_hot = 8

static const struct golden goldens[] = {
	{ "raw", 50 * PAGE, 1, { .codec = CIS_CODEC_RAW, .chunk_shift = 12, HOT }, NULL, 0 },
	{ "mask",
	  50 * PAGE - 100,
	  2,
	  { .codec = CIS_CODEC_MASK, HOT, .state = "a state blob", .state_bytes = 12, .producer = "golden" },
	  NULL,
	  1 },
	{ "lz4", 50 * PAGE, 3, { .codec = CIS_CODEC_LZ4, .chunk_shift = 13, HOT }, NULL, 0 },
	{ "zstd", 50 * PAGE, 4, { .codec = CIS_CODEC_ZSTD, HOT }, NULL, 0 },
	{ "zstd-dict", 150 * PAGE, 5, { .codec = CIS_CODEC_ZSTD_DICT, .chunk_shift = 12 }, NULL, 0 },
	{ "deflate", 50 * PAGE, 6, { .codec = CIS_CODEC_DEFLATE, HOT }, NULL, 0 },
	{ "deflate-canned",
	  100 * PAGE,
	  7,
	  { .codec = CIS_CODEC_DEFLATE_CANNED, .chunk_shift = 12 },
	  NULL,
	  0 },
	{ "small",
	  12 * PAGE,
	  17,
	  { .codec = CIS_CODEC_MASK,
	    .chunk_shift = 13,
	    .hot = hot_small,
	    .nr_hot = 7,
	    .state = "state",
	    .state_bytes = 5,
	    .producer = "golden" },
	  NULL,
	  1 },
	{ "tiny", 1, 8, { .codec = CIS_CODEC_MASK, .chunk_shift = 21 }, NULL, 0 },
	{ "zeros", 1 << 20, 0, { .codec = CIS_CODEC_MASK }, NULL, 0 },
	{ "huge-pages",
	  1100 * PAGE,
	  9,
	  { .codec = CIS_CODEC_ZSTD, .page_shift = 21, .hot = hot_huge, .nr_hot = 2 },
	  NULL,
	  0 },
	{ "child", 60 * PAGE, 10, { .codec = CIS_CODEC_LZ4, .holes_inherit = 1 }, "raw", 0 },
	{ "grandchild",
	  60 * PAGE,
	  11,
	  { .codec = CIS_CODEC_MASK, .holes_inherit = 1, .compare = 1, HOT },
	  "child",
	  0 },
};

static int make_one(const char *dir, const struct golden *want, struct cis_error *err)
{
	static const struct cis_region_entry regions[] = {
		{ 0, 0, 8 * PAGE, "pc.ram" }, { 8 * PAGE, 0x100000000, 4 * PAGE, "pc.ram-high" }
	};
	struct cis_write_opts opts = want->opts;
	char path[400], parent[400];
	uint8_t present[60] = { 0 };
	struct guest g;
	int rc = guest_init(&g, want->bytes, want->seed);

	if (rc)
		return cis_fail(err, ENOMEM, "no memory");
	if (!want->seed)
		memset(g.mem, 0, want->bytes);
	if (want->seed == 9) /* huge pages: the middle one is zeros, most of the last */
		memset(g.mem + (1 << 18), 0, want->bytes - (3 << 17));
	if (want->regions) {
		g.src.regions = regions;
		g.src.nr_regions = 2;
	}
	for (unsigned i = 0; i < 60; i++)
		present[i] = (i + want->seed) % 4 == 0;
	snprintf(path, sizeof(path), "%s/%s.img", dir, want->name);
	snprintf(parent, sizeof(parent), "%s/%s.img", dir, want->parent ? want->parent : "");
	opts.size = sizeof(opts);
	if (want->parent) {
		g.present = present;
		rc = cis_image_open(parent, NULL, &opts.parent, err);
	}
	if (!rc)
		rc = cis_image_write(path, &g.src, &opts, err);
	cis_image_unref(opts.parent);
	cis_source_close(&g.src);
	return rc;
}

static int make_all(const char *dir)
{
	uint32_t pages[] = { 5, 3, 4, 49, 0 };
	struct cis_trace trace = { .page_shift = 12, .guest_bytes = 50 * PAGE, .nr = 5, .pgno = pages };
	struct cis_error err = { 0 };
	char path[400];

	for (size_t i = 0; i < sizeof(goldens) / sizeof(goldens[0]); i++)
		if (make_one(dir, &goldens[i], &err))
			return die(&err);
	snprintf(path, sizeof(path), "%s/order.trace", dir);
	memset(trace.image_id, 0x5a, sizeof(trace.image_id));
	return cis_trace_save(path, &trace, &err) ? die(&err) : 0;
}

/* --- what an image says --- */

static void print_string(const char *text, size_t len)
{
	putchar('"');
	for (size_t i = 0; i < len; i++)
		printf("\\u%04x", (unsigned char)text[i]);
	putchar('"');
}

static void print_facts(const struct cis_image *img, const void *state, size_t state_len)
{
	const struct cis_image_info *i = cis_image_info(img);
	char id[65], parent[65];

	cis_hex_print(i->id, 32, id);
	cis_hex_print(i->parent_id, 32, parent);
	printf("{\"id\": \"%s\", \"parent\": ", id);
	printf(i->parent ? "\"%s\"" : "null", parent);
	printf(", \"depth\": %u, \"guest_bytes\": %llu, \"page_shift\": %u, \"chunk_shift\": %u, \"codec\": "
	       "%u",
	       i->depth, (unsigned long long)i->guest_bytes, i->page_shift, i->chunk_shift, i->codec);
	printf(", \"touched\": [");
	for (uint64_t k = 0; k < i->nr_touched; k++)
		printf("%s%llu", k ? ", " : "", (unsigned long long)cis_image_touched(img, k));
	printf("], \"hot_order\": [");
	for (uint64_t k = 0; k < i->nr_hot; k++)
		printf("%s%llu", k ? ", " : "", (unsigned long long)cis_image_hot_page(img, k));
	printf("], \"cold\": %llu, \"same\": %llu, \"inherit\": %llu, \"regions\": [",
	       (unsigned long long)i->nr_cold, (unsigned long long)i->nr_same,
	       (unsigned long long)i->nr_inherit);
	for (size_t k = 0; k < i->nr_regions; k++) {
		const struct cis_region_entry *r = &i->regions[k];

		printf("%s[%llu, %llu, %llu, ", k ? ", " : "", (unsigned long long)r->offset,
		       (unsigned long long)r->gpa, (unsigned long long)r->bytes);
		print_string(r->name, strlen(r->name));
		putchar(']');
	}
	printf("], \"provenance\": ");
	print_string(i->provenance, strlen(i->provenance));
	printf(", \"state\": ");
	print_string(state, state_len);
	printf("}\n");
}

static int read_image(const char *path, const char *out)
{
	struct cis_error err = { 0 };
	struct cis_image *img;
	void *state = NULL;
	size_t state_len = 0;
	int rc = cis_image_open(path, NULL, &img, &err);

	if (rc)
		return die(&err);
	rc = cis_image_verify(img, NULL, NULL, &err);
	if (!rc && cis_image_info(img)->state_bytes)
		rc = cis_image_read_state(img, &state, &state_len, &err);
	if (!rc && out)
		rc = cis_image_export(img, out, NULL, NULL, &err);
	if (!rc)
		print_facts(img, state, state_len);
	free(state);
	cis_image_unref(img);
	return rc ? die(&err) : 0;
}

static int read_trace(const char *path)
{
	struct cis_error err = { 0 };
	struct cis_trace t;
	char id[65];

	if (cis_trace_load(path, &t, &err))
		return die(&err);
	cis_hex_print(t.image_id, 32, id);
	printf("{\"page_shift\": %u, \"guest_bytes\": %llu, \"image\": \"%s\", \"pages\": [", t.page_shift,
	       (unsigned long long)t.guest_bytes, id);
	for (uint64_t i = 0; i < t.nr; i++)
		printf("%s%u", i ? ", " : "", t.pgno[i]);
	printf("]}\n");
	cis_trace_fini(&t);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "make"))
		return make_all(argv[2]);
	if ((argc == 3 || argc == 4) && !strcmp(argv[1], "read"))
		return read_image(argv[2], argc == 4 ? argv[3] : NULL);
	if (argc == 3 && !strcmp(argv[1], "trace"))
		return read_trace(argv[2]);
	fprintf(stderr, "usage: golden make DIR | read IMAGE [OUT] | trace TRACE\n");
	return 2;
}
