/* Inside the codec layer: what one codec gives to codec.c. */
#ifndef CIS_CODEC_OPS_H
#define CIS_CODEC_OPS_H

#include "codec/codec.h"

/**
 * struct cis_codec_ops - one codec
 * @encoder_open:  state of one thread, or NULL when the codec has none
 * @encode:        stored length, or 0 when it would be over @cap bytes; writes
 *                 at most @cap bytes
 * @decoder_open:  *ret_state stays NULL when @params lack what the codec needs
 * @needs_state:   whether decode must not be called with a NULL state
 * @decode:        0 or -EBADMSG; the lengths were checked by cis_decode()
 */
struct cis_codec_ops {
	const char *name;
	int (*encoder_open)(int level, size_t chunk_max, struct cis_codec_params *params, void **ret_state,
			    struct cis_error *err);
	void (*encoder_close)(void *state);
	size_t (*encode)(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t cap);
	int (*decoder_open)(struct cis_codec_params *params, void **ret_state);
	void (*decoder_close)(void *state);
	int (*decode)(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len);
	int needs_state;
};

extern const struct cis_codec_ops cis_lz4_ops;
extern const struct cis_codec_ops cis_zstd_ops;
extern const struct cis_codec_ops cis_zstd_dict_ops;
extern const struct cis_codec_ops cis_deflate_ops;
extern const struct cis_codec_ops cis_canned_ops;

struct cis_zstd_dict;
struct cis_canned;

struct cis_codec_params {
	unsigned refs; /* atomic; all else is read-only after creation */
	struct cis_zstd_dict *dict;
	struct cis_canned *canned;
};

int cis_zstd_dict_train(const void *samples, const size_t *sizes, size_t nr, struct cis_zstd_dict **ret,
			struct cis_error *err);
int cis_zstd_dict_load(const void *bytes, size_t len, struct cis_zstd_dict **ret, struct cis_error *err);
const void *cis_zstd_dict_bytes(const struct cis_zstd_dict *dict, size_t *ret_len);
void cis_zstd_dict_free(struct cis_zstd_dict *dict);

int cis_canned_train(const void *samples, const size_t *sizes, size_t nr, struct cis_canned **ret,
		     struct cis_error *err);
int cis_canned_load(const void *bytes, size_t len, struct cis_canned **ret, struct cis_error *err);
const void *cis_canned_bytes(const struct cis_canned *canned, size_t *ret_len);
void cis_canned_free(struct cis_canned *canned);

#endif
