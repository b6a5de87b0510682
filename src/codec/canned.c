/*
 * Codec deflate-canned: DEFLATE with one set of Huffman tables for all chunks of an image, and the block header, which
 * holds them, stored once (format 5.2).
 *
 * We write the header in one fixed form of 171 bytes: three empty blocks with fixed codes (30 bits), then the header of
 * a final dynamic block, in which the 286 + 30 code lengths stand as codes of 4 bits without run lengths.  That ends on
 * a byte, so a chunk starts with its first symbol and decoding needs nothing of the header once its tables are built.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "codec/inflate.h"
#include "codec/isal.h"
#include "codec/ops.h"

#define HIST_BITS    12 /* format 5.2: matches reach back 4 KiB at most */
#define HIST_BYTES   (1 << HIST_BITS)
#define LIT_LENS     286
#define DISTS        30
#define DISTS_NEAR   24 /* distance symbols up to 4096 */
#define LENGTHS      (LIT_LENS + DISTS)
#define PREFIX_BITS  104
#define HEADER_BYTES 171
#define SAMPLE_MIN   4096

struct cis_canned {
	struct isal_hufftables tables; /* for encoding; without a header */
	int can_encode;                /* the header is in the form that we write */
	size_t len;
	uint8_t bytes[];
};

struct canned_encoder {
	struct isal_hufftables tables;
	struct isal_zstream stream;
	uint8_t room[];
};

static const uint8_t extra_bits[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
				       2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};

static void put_bits(uint8_t *buf, size_t *at, unsigned value, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++, ++*at)
		if (value >> i & 1)
			buf[*at / 8] |= (uint8_t)(1u << (*at % 8));
}

static unsigned reverse4(unsigned v)
{
	return (v & 1) << 3 | (v & 2) << 1 | (v & 4) >> 1 | (v & 8) >> 3;
}

/* Everything before the code lengths: PREFIX_BITS bits, a multiple of 8. */
static void put_prefix(uint8_t *buf, size_t *at)
{
	for (int i = 0; i < 3; i++)
		put_bits(buf, at, 1 << 1, 10); /* not final, fixed codes; end of block is seven zeros */
	put_bits(buf, at, 1 | 2 << 1, 3);      /* final, dynamic codes */
	put_bits(buf, at, LIT_LENS - 257, 5);
	put_bits(buf, at, DISTS - 1, 5);
	put_bits(buf, at, 19 - 4, 4);
	put_bits(buf, at, 0, 9); /* no run-length symbols 16, 17, 18 */
	for (int i = 0; i < 16; i++)
		put_bits(buf, at, 4, 3);
}

static void header_write(const uint8_t *lengths, uint8_t *ret_header)
{
	size_t at = 0;

	memset(ret_header, 0, HEADER_BYTES);
	put_prefix(ret_header, &at);
	for (int i = 0; i < LENGTHS; i++)
		put_bits(ret_header, &at, reverse4(lengths[i]), 4);
}

/* The code lengths of a header of the form that we write; -EINVAL for any other. */
static int header_read(const uint8_t *header, size_t len, uint8_t *ret_lengths)
{
	uint8_t prefix[PREFIX_BITS / 8] = {0};
	size_t at = 0;

	put_prefix(prefix, &at);
	if (len != HEADER_BYTES || memcmp(header, prefix, sizeof(prefix)))
		return -EINVAL;
	for (int i = 0; i < LENGTHS; i++) {
		unsigned nibble = header[PREFIX_BITS / 8 + i / 2] >> (i % 2 * 4) & 15;

		ret_lengths[i] = (uint8_t)reverse4(nibble);
	}
	return 0;
}

/* ISA-L keeps match lengths with their extra bits: take the first length of each symbol. */
static void tables_lengths(const struct isal_hufftables *tables, uint8_t *ret_lengths)
{
	int match = 3;

	memcpy(ret_lengths, tables->lit_table_sizes, 257);
	for (int i = 0; i < 28; i++) {
		ret_lengths[257 + i] = (uint8_t)((tables->len_table[match - 3] & 31) - extra_bits[i]);
		match += 1 << extra_bits[i];
	}
	ret_lengths[285] = (uint8_t)(tables->len_table[255] & 31);
	memcpy(ret_lengths + LIT_LENS, tables->dcodes_sizes, DISTS);
}

/*
 * The tables whose code lengths are these.  A histogram of 2^(15 - length) has
 * exactly them as its best code when they are complete; that it came out so is
 * checked.
 */
static int tables_from_lengths(const uint8_t *lengths, struct isal_hufftables *ret_tables)
{
	struct isal_huff_histogram *hist = calloc(1, sizeof(*hist));
	uint8_t got[LENGTHS];
	int rc;

	if (!hist)
		return -ENOMEM;
	for (int i = 0; i < LIT_LENS; i++)
		hist->lit_len_histogram[i] = UINT64_C(1) << (15 - lengths[i]);
	for (int i = 0; i < DISTS; i++)
		hist->dist_histogram[i] = UINT64_C(1) << (15 - lengths[LIT_LENS + i]);
	rc = isal_create_hufftables(ret_tables, hist);
	free(hist);
	if (rc)
		return -EINVAL;
	tables_lengths(ret_tables, got);
	if (memcmp(got, lengths, LENGTHS))
		return -EINVAL;
	/* No header, and zeros for it all the same: ISA-L ORs its first byte into the stream without looking at counts. */
	memset(ret_tables->deflate_hdr, 0, sizeof(ret_tables->deflate_hdr));
	ret_tables->deflate_hdr_count = 0;
	ret_tables->deflate_hdr_extra_bits = 0;
	return 0;
}

/* Does the input end where the header of a final block with tables does, without output before? */
static int header_is_whole(struct inflate_state *inflate, const uint8_t *header, size_t len)
{
	uint8_t out[16];

	isal_inflate_init(inflate);
	inflate->next_in = (uint8_t *)header;
	inflate->avail_in = (uint32_t)len;
	inflate->next_out = out;
	inflate->avail_out = sizeof(out);
	return isal_inflate(inflate) == ISAL_DECOMP_OK && inflate->block_state == ISAL_BLOCK_CODED &&
	       inflate->bfinal && !inflate->avail_in && !inflate->read_in_length && !inflate->tmp_in_size &&
	       !inflate->total_out;
}

/* ISA-L makes smaller, slower tables when less than 4 KiB follow the header, so zeros do. */
static int inflate_tables(struct inflate_state *inflate, const uint8_t *header, size_t len)
{
	size_t padded = len + 2 * HIST_BYTES;
	uint8_t *buf = calloc(1, padded);

	if (!buf)
		return -ENOMEM;
	memcpy(buf, header, len);
	isal_inflate_init(inflate);
	inflate->next_in = buf;
	inflate->avail_in = (uint32_t)padded;
	isal_inflate(inflate);
	inflate->next_in = NULL;
	free(buf);
	return 0;
}

int cis_canned_load(const void *bytes, size_t len, struct cis_canned **ret, struct cis_error *err)
{
	struct inflate_state *inflate = malloc(sizeof(*inflate));
	struct cis_canned *canned = calloc(1, sizeof(*canned) + len);
	uint8_t lengths[LENGTHS];
	int whole;

	if (!inflate || !canned) {
		free(inflate);
		free(canned);
		return cis_fail(err, ENOMEM, "codec parameters: out of memory");
	}
	whole = header_is_whole(inflate, bytes, len);
	free(inflate);
	if (!whole) {
		free(canned);
		return cis_fail(err, EBADMSG, "codec parameters: not a DEFLATE header that ends on a byte (format 5.2)");
	}
	memcpy(canned->bytes, bytes, len);
	canned->len = len;
	canned->can_encode = !header_read(bytes, len, lengths) && !tables_from_lengths(lengths, &canned->tables);
	*ret = canned;
	return 0;
}

static void histogram_add(struct isal_huff_histogram *hist, const uint8_t *sample, size_t len)
{
	len = len > ISAL_READS_BEYOND ? len - ISAL_READS_BEYOND : 0; /* the sample is not copied for the last bytes */
	for (size_t at = 0; at < len; at += INT_MAX)
		isal_update_histogram((uint8_t *)sample + at, (int)(len - at < INT_MAX ? len - at : INT_MAX), hist);
	isal_leave();
}

int cis_canned_train(const void *samples, const size_t *sizes, size_t nr, struct cis_canned **ret,
		     struct cis_error *err)
{
	struct isal_huff_histogram *hist = calloc(1, sizeof(*hist));
	struct isal_hufftables tables;
	uint8_t lengths[LENGTHS], header[HEADER_BYTES];
	size_t at = 0;
	int rc;

	if (!hist)
		return cis_fail(err, ENOMEM, "training: out of memory");
	for (size_t i = 0; i < nr; at += sizes[i++])
		histogram_add(hist, (const uint8_t *)samples + at, sizes[i]);
	for (int i = DISTS_NEAR; i < DISTS; i++)
		hist->dist_histogram[i] = 0; /* the encoder's window is smaller than the trainer's */
	rc = at < SAMPLE_MIN || isal_create_hufftables(&tables, hist);
	free(hist);
	if (rc)
		return cis_fail(err, ENODATA, "training DEFLATE tables on %zu bytes: too little", at);
	tables_lengths(&tables, lengths);
	header_write(lengths, header);
	return cis_canned_load(header, sizeof(header), ret, err);
}

const void *cis_canned_bytes(const struct cis_canned *canned, size_t *ret_len)
{
	*ret_len = canned->len;
	return canned->bytes;
}

void cis_canned_free(struct cis_canned *canned)
{
	free(canned);
}

static int canned_encoder_open(int level, size_t chunk_max, struct cis_codec_params *params, void **ret_state,
			       struct cis_error *err)
{
	struct canned_encoder *enc;

	if (!params || !params->canned)
		return cis_fail(err, EINVAL, "codec deflate-canned needs trained tables");
	if (!params->canned->can_encode)
		return cis_fail(err, EINVAL, "these DEFLATE tables are of another writer: they can only be read");
	enc = malloc(sizeof(*enc) + isal_input_room(chunk_max));
	if (!enc)
		return cis_fail(err, ENOMEM, "encoder deflate-canned: out of memory");
	enc->tables = params->canned->tables;
	isal_deflate_init(&enc->stream);
	*ret_state = enc;
	return 0;
}

static size_t canned_encode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t cap)
{
	struct canned_encoder *enc = state;
	struct isal_zstream *stream = &enc->stream;
	int rc;

	/* Not the stateless call: that one puts blocks of its own around repeated bytes. */
	isal_deflate_reset(stream);
	stream->hufftables = &enc->tables;
	stream->hist_bits = HIST_BITS;
	stream->end_of_stream = 1;
	stream->next_in = isal_input(enc->room, src, src_len);
	stream->avail_in = (uint32_t)src_len;
	stream->next_out = dst;
	stream->avail_out = (uint32_t)cap;
	rc = isal_deflate(stream);
	isal_leave();
	return rc == COMP_OK && stream->internal_state.state == ZSTATE_END ? stream->total_out : 0;
}

static int canned_decoder_open(struct cis_codec_params *params, void **ret_state)
{
	struct inflate_state *inflate;

	if (!params || !params->canned)
		return 0;
	inflate = malloc(sizeof(*inflate));
	if (!inflate)
		return -ENOMEM;
	if (inflate_tables(inflate, params->canned->bytes, params->canned->len)) {
		free(inflate);
		return -ENOMEM;
	}
	*ret_state = inflate;
	return 0;
}

static int canned_decode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	struct inflate_state *inflate = state;

	inflate_rewind(inflate);
	inflate->block_state = ISAL_BLOCK_CODED; /* in the final block, behind its header */
	inflate->bfinal = 1;
	return inflate_chunk(inflate, src, src_len, dst, dst_len);
}

const struct cis_codec_ops cis_canned_ops = {
	.name = "deflate-canned",
	.encoder_open = canned_encoder_open,
	.encoder_close = free,
	.encode = canned_encode,
	.decoder_open = canned_decoder_open,
	.decoder_close = free,
	.decode = canned_decode,
	.needs_state = 1,
};
