#include <errno.h>
#include <stdlib.h>

#include "codec/ops.h"

#define PARAM_BYTES_MAX (1u << 20) /* format 6.6 */

static struct cis_codec_params *params_alloc(void)
{
	struct cis_codec_params *params = calloc(1, sizeof(*params));

	if (params)
		params->refs = 1;
	return params;
}

int cis_codec_train(enum cis_codec codec, const void *samples, const size_t *sizes, size_t nr, int level,
		    struct cis_codec_params **ret, struct cis_error *err)
{
	struct cis_codec_params *params;
	int rc;

	if (codec != CIS_CODEC_ZSTD_DICT && codec != CIS_CODEC_DEFLATE_CANNED)
		return cis_fail(err, EINVAL, "codec %s has nothing to train", cis_codec_name(codec));
	params = params_alloc();
	if (!params)
		return cis_fail(err, ENOMEM, "training: out of memory");
	if (codec == CIS_CODEC_ZSTD_DICT)
		rc = cis_zstd_dict_train(samples, sizes, nr, &params->dict, err);
	else
		rc = cis_canned_train(samples, sizes, nr, &params->canned, err);
	if (rc) {
		cis_codec_params_unref(params);
		return rc;
	}
	*ret = params;
	return 0;
}

int cis_codec_params_load(const void *dict, size_t dict_len, const void *canned, size_t canned_len,
			  struct cis_codec_params **ret, struct cis_error *err)
{
	struct cis_codec_params *params;
	int rc = 0;

	if (dict_len > PARAM_BYTES_MAX || canned_len > PARAM_BYTES_MAX)
		return cis_fail(err, EBADMSG, "codec parameters of over %u bytes (format 6.6)", PARAM_BYTES_MAX);
	params = params_alloc();
	if (!params)
		return cis_fail(err, ENOMEM, "codec parameters: out of memory");
	if (dict)
		rc = cis_zstd_dict_load(dict, dict_len, &params->dict, err);
	if (!rc && canned)
		rc = cis_canned_load(canned, canned_len, &params->canned, err);
	if (rc) {
		cis_codec_params_unref(params);
		return rc;
	}
	*ret = params;
	return 0;
}

const void *cis_codec_params_bytes(const struct cis_codec_params *params, enum cis_codec codec, size_t *ret_len)
{
	if (codec == CIS_CODEC_ZSTD_DICT && params->dict)
		return cis_zstd_dict_bytes(params->dict, ret_len);
	if (codec == CIS_CODEC_DEFLATE_CANNED && params->canned)
		return cis_canned_bytes(params->canned, ret_len);
	*ret_len = 0;
	return NULL;
}

struct cis_codec_params *cis_codec_params_ref(struct cis_codec_params *params)
{
	__atomic_fetch_add(&params->refs, 1, __ATOMIC_RELAXED);
	return params;
}

void cis_codec_params_unref(struct cis_codec_params *params)
{
	if (!params || __atomic_sub_fetch(&params->refs, 1, __ATOMIC_ACQ_REL))
		return;
	cis_zstd_dict_free(params->dict);
	cis_canned_free(params->canned);
	free(params);
}
