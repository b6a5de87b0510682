/*
 * Codecs: buffer to buffer, one chunk at a time.  doc/format.md section 5 is the law for what they store.
 *
 * An encoder or decoder is a context of one thread; parameters are read-only and shared by all threads.
 */
#ifndef CIS_CODEC_CODEC_H
#define CIS_CODEC_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/** enum cis_codec - ids as stored, doc/format.md section 5 */
enum cis_codec {
	CIS_CODEC_RAW,
	CIS_CODEC_SAME,
	CIS_CODEC_MASK,
	CIS_CODEC_LZ4,
	CIS_CODEC_ZSTD,
	CIS_CODEC_ZSTD_DICT,
	CIS_CODEC_DEFLATE,
	CIS_CODEC_DEFLATE_CANNED,
	CIS_CODEC_COUNT
};

/** cis_codec_name() - "raw", "mask", ... as in the format; "unknown" for any other number. */
const char *cis_codec_name(unsigned codec);

/**
 * struct cis_codec_params - what all chunks of an image share
 *
 * A trained zstd dictionary, DEFLATE tables, or both; opaque, immutable after
 * creation, reference counted.
 */
struct cis_codec_params;

/**
 * cis_codec_train() - learn a dictionary or tables from samples of the data
 * @codec:   CIS_CODEC_ZSTD_DICT or CIS_CODEC_DEFLATE_CANNED
 * @samples: @nr samples one after the other
 * @sizes:   their lengths in bytes
 * @level:   what the encoder will be asked for; neither trainer makes use of it today
 * @ret:     one reference
 *
 * DEFLATE tables after Sabre (OSDI'24, section 3.1, "canned"): one statistics
 * pass, then static tables for all chunks.  We strip the block header from
 * each chunk.
 *
 * Return: 0, -ENODATA when there is too little to learn from, -ENOMEM.
 */
int cis_codec_train(enum cis_codec codec, const void *samples, const size_t *sizes, size_t nr, int level,
		    struct cis_codec_params **ret, struct cis_error *err);

/**
 * cis_codec_params_load() - parameters as an image stores them (format 6.6)
 * @dict, @dict_len:     zstd dictionary, or NULL
 * @canned, @canned_len: DEFLATE header bytes, or NULL
 *
 * Bytes are copied.  They come from a file: anything is refused, nothing is
 * trusted.  Return: 0, -EBADMSG, -ENOMEM.
 */
int cis_codec_params_load(const void *dict, size_t dict_len, const void *canned, size_t canned_len,
			  struct cis_codec_params **ret, struct cis_error *err);

/** cis_codec_params_bytes() - the stored form of one of the two; NULL and 0 when it is not there. */
const void *cis_codec_params_bytes(const struct cis_codec_params *params, enum cis_codec codec, size_t *ret_len);

struct cis_codec_params *cis_codec_params_ref(struct cis_codec_params *params);
void cis_codec_params_unref(struct cis_codec_params *params);

struct cis_encoder;

/**
 * cis_encoder_create()
 * @codec:     what to try; chunks of one repeated word become CIS_CODEC_SAME
 *             and chunks that do not shrink CIS_CODEC_RAW by themselves
 * @level:     0 = the codec's default; lz4: 0 fast, 1..12 HC; zstd: default 3, up
 *             to 22, negative ones too; deflate: default 2, 1..3 of ISA-L;
 *             ignored by raw, mask and deflate-canned
 * @chunk_max: largest chunk in bytes, 4096..2 MiB
 * @params:    referenced; needed by CIS_CODEC_ZSTD_DICT and CIS_CODEC_DEFLATE_CANNED
 *
 * Return: 0, -EINVAL (a level the codec has not, parameters that are missing or
 * can only be read: deflate-canned tables whose header another writer formed),
 * -ENOMEM.
 */
int cis_encoder_create(enum cis_codec codec, int level, size_t chunk_max, struct cis_codec_params *params,
		       struct cis_encoder **ret, struct cis_error *err);
void cis_encoder_destroy(struct cis_encoder *enc);

/**
 * cis_encode() - one chunk
 * @src, @src_len: raw bytes, a multiple of 4096, at most chunk_max
 * @dst:           room for src_len bytes at least
 * @ret_codec:     what it became
 *
 * Return: stored length, 1..src_len.
 */
size_t cis_encode(struct cis_encoder *enc, const void *src, size_t src_len, void *dst, enum cis_codec *ret_codec);

struct cis_decoder;

/** cis_decoder_create() - @params is referenced and may be NULL.  Return: 0 or -ENOMEM. */
int cis_decoder_create(size_t chunk_max, struct cis_codec_params *params, struct cis_decoder **ret);
void cis_decoder_destroy(struct cis_decoder *dec);

/**
 * cis_decode() - one chunk
 * @codec:   as stored; from a file, so any value is possible
 * @dst_len: exact raw length, a multiple of 4096; may be written to at any
 *           time, and holds rubbish after an error
 *
 * Stored bytes come from a file or a peer: they are never trusted.  Never reads
 * outside @src or writes outside @dst.
 *
 * Return: 0, -EBADMSG (does not decode to exactly dst_len bytes),
 * -EOPNOTSUPP (codec not known, or its parameters are missing).
 */
int cis_decode(struct cis_decoder *dec, unsigned codec, const void *src, size_t src_len, void *dst, size_t dst_len);

/** cis_crc64() - CRC-64/XZ of @buf continued from @crc (0 to start).  By ISA-L. */
uint64_t cis_crc64(uint64_t crc, const void *buf, size_t len);

/** cis_chunk_checksum() - of a chunk's raw bytes, format section 4. */
uint64_t cis_chunk_checksum(uint64_t chunk, const void *raw, size_t len);

/**
 * cis_same_word() - is @buf one 8-byte word repeated?
 * @len: a multiple of 8
 *
 * Return: 1 and the word (0 for zeros), or 0.
 */
int cis_same_word(const void *buf, size_t len, uint64_t *ret_word);

#endif
