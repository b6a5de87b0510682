/* Codecs zstd and zstd-dict: one Zstandard frame a chunk. */
#include <errno.h>
#include <stdlib.h>
#include <zdict.h>
#include <zstd.h>

#include "base/le.h"
#include "codec/ops.h"

#define DICT_BYTES    (110u << 10) /* what zstd's own trainer makes by default */
#define LEVEL_DEFAULT 3

struct cis_zstd_dict {
	size_t len;
	ZSTD_DDict *ddict; /* shared by all decoders, read-only */
	uint8_t bytes[];
};

struct zstd_decoder {
	ZSTD_DCtx *dctx;
	const ZSTD_DDict *ddict;
};

static int set_parameters(ZSTD_CCtx *cctx, int level, const struct cis_zstd_dict *dict)
{
	if (ZSTD_isError(ZSTD_CCtx_setParameter(cctx, ZSTD_c_compressionLevel, level)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(cctx, ZSTD_c_checksumFlag, 0)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(cctx, ZSTD_c_dictIDFlag, 0)))
		return -ENOMEM;
	if (dict && ZSTD_isError(ZSTD_CCtx_loadDictionary(cctx, dict->bytes, dict->len)))
		return -ENOMEM;
	return 0;
}

static int encoder_open(int level, const struct cis_zstd_dict *dict, void **ret_state, struct cis_error *err)
{
	ZSTD_CCtx *cctx;

	if (level < ZSTD_minCLevel() || level > ZSTD_maxCLevel())
		return cis_fail(err, EINVAL, "zstd has no level %d: use 1 to %d", level, ZSTD_maxCLevel());
	cctx = ZSTD_createCCtx();
	if (!cctx || set_parameters(cctx, level ? level : LEVEL_DEFAULT, dict)) {
		ZSTD_freeCCtx(cctx);
		return cis_fail(err, ENOMEM, "encoder zstd: out of memory");
	}
	*ret_state = cctx;
	return 0;
}

static int zstd_encoder_open(int level, size_t chunk_max, struct cis_codec_params *params, void **ret_state,
			     struct cis_error *err)
{
	return encoder_open(level, NULL, ret_state, err);
}

static int zstd_dict_encoder_open(int level, size_t chunk_max, struct cis_codec_params *params,
				  void **ret_state, struct cis_error *err)
{
	if (!params || !params->dict)
		return cis_fail(err, EINVAL, "codec zstd-dict needs a trained dictionary");
	return encoder_open(level, params->dict, ret_state, err);
}

static void zstd_encoder_close(void *state)
{
	ZSTD_freeCCtx(state);
}

static size_t zstd_encode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t cap)
{
	size_t len = ZSTD_compress2(state, dst, cap, src, src_len);

	return ZSTD_isError(len) ? 0 : len;
}

static int decoder_open(const ZSTD_DDict *ddict, void **ret_state)
{
	struct zstd_decoder *dec = malloc(sizeof(*dec));

	if (!dec)
		return -ENOMEM;
	dec->ddict = ddict;
	dec->dctx = ZSTD_createDCtx();
	if (!dec->dctx) {
		free(dec);
		return -ENOMEM;
	}
	*ret_state = dec;
	return 0;
}

static int zstd_decoder_open(struct cis_codec_params *params, void **ret_state)
{
	return decoder_open(NULL, ret_state);
}

static int zstd_dict_decoder_open(struct cis_codec_params *params, void **ret_state)
{
	return params && params->dict ? decoder_open(params->dict->ddict, ret_state) : 0;
}

static void zstd_decoder_close(void *state)
{
	struct zstd_decoder *dec = state;

	ZSTD_freeDCtx(dec->dctx);
	free(dec);
}

/* Exactly one frame that is not a skippable one: zstd by itself would also decode several, one after the other. */
static int is_one_frame(const uint8_t *src, size_t src_len)
{
	return src_len >= 4 && cis_le32(src) == ZSTD_MAGICNUMBER &&
	       ZSTD_findFrameCompressedSize(src, src_len) == src_len;
}

static int zstd_decode(void *state, const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_len)
{
	struct zstd_decoder *dec = state;
	size_t len;

	if (!is_one_frame(src, src_len))
		return -EBADMSG;
	if (dec->ddict)
		len = ZSTD_decompress_usingDDict(dec->dctx, dst, dst_len, src, src_len, dec->ddict);
	else
		len = ZSTD_decompressDCtx(dec->dctx, dst, dst_len, src, src_len);
	return len == dst_len ? 0 : -EBADMSG;
}

int cis_zstd_dict_load(const void *bytes, size_t len, struct cis_zstd_dict **ret, struct cis_error *err)
{
	struct cis_zstd_dict *dict;

	if (!ZSTD_getDictID_fromDict(bytes, len))
		return cis_fail(err, EBADMSG, "codec parameters: not a Zstandard dictionary");
	dict = malloc(sizeof(*dict) + len);
	if (!dict)
		return cis_fail(err, ENOMEM, "codec parameters: out of memory");
	memcpy(dict->bytes, bytes, len);
	dict->len = len;
	dict->ddict = ZSTD_createDDict(bytes, len);
	if (!dict->ddict) {
		free(dict);
		return cis_fail(err, EBADMSG, "codec parameters: the Zstandard dictionary does not load");
	}
	*ret = dict;
	return 0;
}

int cis_zstd_dict_train(const void *samples, const size_t *sizes, size_t nr, struct cis_zstd_dict **ret,
			struct cis_error *err)
{
	void *buf;
	size_t len;
	int rc;

	if (nr > UINT32_MAX)
		return cis_fail(err, EINVAL, "training: %zu samples are too many", nr);
	buf = malloc(DICT_BYTES);
	if (!buf)
		return cis_fail(err, ENOMEM, "training: out of memory");
	len = ZDICT_trainFromBuffer(buf, DICT_BYTES, samples, sizes, (unsigned)nr);
	if (ZDICT_isError(len))
		rc = cis_fail(err, ENODATA, "training a Zstandard dictionary on %zu samples: %s", nr,
			      ZDICT_getErrorName(len));
	else
		rc = cis_zstd_dict_load(buf, len, ret, err);
	free(buf);
	return rc;
}

const void *cis_zstd_dict_bytes(const struct cis_zstd_dict *dict, size_t *ret_len)
{
	*ret_len = dict->len;
	return dict->bytes;
}

void cis_zstd_dict_free(struct cis_zstd_dict *dict)
{
	if (!dict)
		return;
	ZSTD_freeDDict(dict->ddict);
	free(dict);
}

const struct cis_codec_ops cis_zstd_ops = {
	.name = "zstd",
	.encoder_open = zstd_encoder_open,
	.encoder_close = zstd_encoder_close,
	.encode = zstd_encode,
	.decoder_open = zstd_decoder_open,
	.decoder_close = zstd_decoder_close,
	.decode = zstd_decode,
	.needs_state = 1,
};

const struct cis_codec_ops cis_zstd_dict_ops = {
	.name = "zstd-dict",
	.encoder_open = zstd_dict_encoder_open,
	.encoder_close = zstd_encoder_close,
	.encode = zstd_encode,
	.decoder_open = zstd_dict_decoder_open,
	.decoder_close = zstd_decoder_close,
	.decode = zstd_decode,
	.needs_state = 1,
};
