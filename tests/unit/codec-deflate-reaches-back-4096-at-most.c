/*
 * A plain inflater, from RFC 1951 alone, walks the streams of both DEFLATE codecs: no match reaches further back than
 * 4096 bytes, and a canned stream is the image's header bytes followed by the chunk's.
 */
#include "codec-params.h"

#define CHUNK_MAX (256u << 10)
#define WINDOW    4096

struct walk {
	const uint8_t *in;
	size_t in_bits, at; /* in bits */
	uint8_t *out;
	size_t out_len;
	size_t farthest;
};

struct code {
	uint16_t count[16]; /* codes of each length */
	uint16_t symbol[288];
};

static unsigned bits(struct walk *w, unsigned nr)
{
	unsigned v = 0;

	for (unsigned i = 0; i < nr; i++, w->at++) {
		assert_true(w->at < w->in_bits);
		v |= (unsigned)(w->in[w->at / 8] >> (w->at % 8) & 1) << i;
	}
	return v;
}

static void code_build(struct code *code, const uint8_t *lengths, unsigned nr)
{
	unsigned start[17] = {0};

	memset(code, 0, sizeof(*code));
	for (unsigned i = 0; i < nr; i++)
		code->count[lengths[i]]++;
	code->count[0] = 0;
	for (unsigned len = 1; len < 16; len++)
		start[len + 1] = start[len] + code->count[len];
	for (unsigned i = 0; i < nr; i++)
		if (lengths[i])
			code->symbol[start[lengths[i]]++] = (uint16_t)i;
}

/* Canonical codes: those of one length are consecutive numbers. */
static unsigned symbol(struct walk *w, const struct code *code)
{
	unsigned value = 0, low = 0, index = 0;

	for (unsigned len = 1; len < 16; len++) {
		value = value << 1 | bits(w, 1);
		if (value - low < code->count[len])
			return code->symbol[index + value - low];
		index += code->count[len];
		low = (low + code->count[len]) << 1;
	}
	fail_msg("no such code");
	return 0;
}

static void put(struct walk *w, uint8_t byte)
{
	assert_true(w->out_len < CHUNK_MAX);
	w->out[w->out_len++] = byte;
}

static void match(struct walk *w, unsigned sym, const struct code *dists)
{
	unsigned n = sym - 257, len, d, distance;

	len = n < 8 ? 3 + n : n == 28 ? 258 : 3 + ((4 + n % 4) << (n / 4 - 1)) + bits(w, n / 4 - 1);
	d = symbol(w, dists);
	distance = d < 4 ? 1 + d : 1 + ((2 + d % 2) << (d / 2 - 1)) + bits(w, d / 2 - 1);
	assert_in_range(distance, 1, w->out_len);
	if (distance > w->farthest)
		w->farthest = distance;
	while (len--)
		put(w, w->out[w->out_len - distance]);
}

static void coded_block(struct walk *w, const struct code *lits, const struct code *dists)
{
	for (unsigned sym = symbol(w, lits); sym != 256; sym = symbol(w, lits)) {
		if (sym < 256)
			put(w, (uint8_t)sym);
		else
			match(w, sym, dists);
	}
}

static void fixed_codes(struct code *lits, struct code *dists)
{
	uint8_t lengths[288];

	for (int i = 0; i < 288; i++)
		lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
	code_build(lits, lengths, 288);
	memset(lengths, 5, 30);
	code_build(dists, lengths, 30);
}

static void dynamic_codes(struct walk *w, struct code *lits, struct code *dists)
{
	static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
	unsigned nr_lits = 257 + bits(w, 5), nr_dists = 1 + bits(w, 5), nr = 4 + bits(w, 4), i;
	uint8_t lengths[320] = {0};
	struct code code;

	for (i = 0; i < nr; i++)
		lengths[order[i]] = (uint8_t)bits(w, 3);
	code_build(&code, lengths, 19);
	for (i = 0; i < nr_lits + nr_dists;) {
		unsigned sym = symbol(w, &code), repeat = 1;
		uint8_t value = (uint8_t)sym;

		if (sym >= 16) {
			value = sym == 16 ? lengths[i - 1] : 0;
			repeat = sym == 16 ? 3 + bits(w, 2) : sym == 17 ? 3 + bits(w, 3) : 11 + bits(w, 7);
		}
		while (repeat--)
			lengths[i++] = value;
		assert_in_range(i, 1, nr_lits + nr_dists);
	}
	code_build(lits, lengths, nr_lits);
	code_build(dists, lengths + nr_lits, nr_dists);
}

static void stored_block(struct walk *w)
{
	unsigned len;

	w->at = (w->at + 7) / 8 * 8;
	len = bits(w, 16);
	assert_int_equal(bits(w, 16), len ^ 0xffff);
	while (len--)
		put(w, (uint8_t)bits(w, 8));
}

static void inflate_all(struct walk *w)
{
	struct code lits, dists;
	unsigned final, type;

	do {
		final = bits(w, 1);
		type = bits(w, 2);
		assert_in_range(type, 0, 2);
		if (type == 0) {
			stored_block(w);
			continue;
		}
		if (type == 1)
			fixed_codes(&lits, &dists);
		else
			dynamic_codes(w, &lits, &dists);
		coded_block(w, &lits, &dists);
	} while (!final);
	assert_int_equal((w->at + 7) / 8, w->in_bits / 8);
	while (w->at < w->in_bits)
		assert_int_equal(bits(w, 1), 0);
}

/* Blocks that come again after 1 to 40 KiB: an encoder with a larger window would reach for them. */
static void far_repeats(uint8_t *buf, size_t len, uint64_t seed)
{
	data_make(DATA_RANDOM, buf, len, seed);
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)"memory page guest of the chunk\n, "[buf[i] % 32]; /* cheap in the trained tables */
	for (size_t at = 2048; at + 512 <= len; at += 512 + data_random(&seed) % 600) {
		size_t back = 100 + data_random(&seed) % (at < 40000 ? at - 100 : 40000);

		memmove(buf + at, buf + at - back, 100 + data_random(&seed) % (back < 400 ? 1 : 400));
	}
	/* And at the window's edge: from one byte less to one byte more. */
	for (size_t at = 8192, i = 0; at + 64 <= len; at += 9000, i++)
		memcpy(buf + at, buf + at - WINDOW - 1 + i % 3, 64);
}

static size_t check_stream(struct cis_encoder *enc, const void *header, size_t header_len, enum cis_codec codec,
			   size_t len, uint64_t seed)
{
	static uint8_t raw[CHUNK_MAX], stream[CHUNK_MAX + 1024], out[CHUNK_MAX];
	struct walk w = {.in = stream, .out = out};
	enum cis_codec got;
	size_t n;

	if (seed % 2)
		far_repeats(raw, len, seed);
	else
		data_make(DATA_SPARSE + seed % 4, raw, len, seed);
	memcpy(stream, header, header_len);
	n = cis_encode(enc, raw, len, stream + header_len, &got);
	assert_int_equal(got, codec);
	w.in_bits = (header_len + n) * 8;
	inflate_all(&w);
	assert_int_equal(w.out_len, len);
	assert_memory_equal(out, raw, len);
	return w.farthest;
}

static void check_encoder(enum cis_codec codec, int level)
{
	struct cis_codec_params *params = params_both();
	const void *header = "";
	size_t header_len = 0, farthest = 0;
	struct cis_encoder *enc;

	if (codec == CIS_CODEC_DEFLATE_CANNED)
		header = cis_codec_params_bytes(params, codec, &header_len);
	assert_int_equal(cis_encoder_create(codec, level, CHUNK_MAX, params, &enc, NULL), 0);
	for (uint64_t seed = 0; seed < 40; seed++) {
		size_t len = seed < 20 ? 65536 : (1 + seed % 4) * 4096 << (seed % 3 * 2);
		size_t far = check_stream(enc, header, header_len, codec, len, seed);

		farthest = far > farthest ? far : farthest;
	}
	/* That it comes near shows that the limit was met, not the data at its end. */
	assert_in_range(farthest, WINDOW - 100, WINDOW);
	cis_encoder_destroy(enc);
	cis_codec_params_unref(params);
}

static void deflate_stays_within_the_window(void **state)
{
	for (int level = 1; level <= 3; level++)
		check_encoder(CIS_CODEC_DEFLATE, level);
}

static void canned_stays_within_the_window(void **state)
{
	check_encoder(CIS_CODEC_DEFLATE_CANNED, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deflate_stays_within_the_window),
		cmocka_unit_test(canned_stays_within_the_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
