/* The codec: what the command line asks for, or what the planner finds. */
#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/images.h"
#include "image/plan.h"

#define LEVEL_MAX      22 /* of any codec: zstd's */
#define SAMPLE_BYTES   (4 << 20)
#define HOT_SAMPLE_MIN (1 << 20)
#define DICT_CHUNK_MAX 14 /* 16 KiB: for larger chunks a dictionary gains nothing (measured) */

static bool wants_dict(const struct cli_codec_wish *wish, unsigned chunk_shift)
{
	return !strcmp(wish->dict, "on") || (!strcmp(wish->dict, "auto") && chunk_shift <= DICT_CHUNK_MAX);
}

static void by_wish(const struct cli_codec_wish *wish, struct cis_write_opts *opts)
{
	static const enum cis_codec plain[] = { CIS_CODEC_RAW, CIS_CODEC_MASK, CIS_CODEC_LZ4, CIS_CODEC_ZSTD,
						CIS_CODEC_DEFLATE };

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		if (!strcmp(cis_codec_name(plain[i]), wish->codec))
			opts->codec = plain[i];
	opts->level = wish->has_level ? (int)wish->level : 0;
	if (opts->codec == CIS_CODEC_ZSTD && wants_dict(wish, opts->chunk_shift))
		opts->codec = CIS_CODEC_ZSTD_DICT;
	if (opts->codec == CIS_CODEC_DEFLATE && !wish->has_level)
		opts->codec = CIS_CODEC_DEFLATE_CANNED;
}

static int measure(const struct cli_codec_wish *wish, const struct cis_plan_sample *sample,
		   const char *folder, struct cis_plan_codec *c, size_t *nr, struct cis_plan_host *host,
		   struct cis_error *err)
{
	size_t kept = 0;
	int r = 0;

	*host = (struct cis_plan_host){ (double)wish->read_rate, (double)wish->install_rate, wish->workers };
	if (!wish->read_rate)
		r = cis_plan_measure_read(folder, sample->bytes, sample->len, &host->read_rate, err);
	/* Installing costs the same whatever the codec: without userfaultfd the choice is made without it. */
	if (!r && !wish->install_rate &&
	    cis_plan_measure_install(sample->chunk_bytes, &host->install_rate, err))
		host->install_rate = INFINITY;
	for (size_t i = 0; i < *nr && !r; i++) {
		if (c[i].codec == CIS_CODEC_ZSTD_DICT && !strcmp(wish->dict, "off"))
			continue;
		r = cis_plan_measure_codec(sample, &c[i], err);
		if (r == -ENODATA) /* too little to train on: not a candidate */
			r = 0;
		else if (!r)
			c[kept++] = c[i];
	}
	*nr = kept;
	return r;
}

static void print_plan(const struct cis_plan_codec *c, size_t nr, size_t best,
		       const struct cis_plan_host *host, const char *reason)
{
	char installs[32] = "not measured (no userfaultfd)";

	if (isfinite(host->install_rate))
		snprintf(installs, sizeof(installs), "%.0f MB/s a thread", host->install_rate / 1e6);
	printf("plan: reads %.0f MB/s, installs %s, %u workers; ms for each GiB that a restore needs\n",
	       host->read_rate / 1e6, installs, host->workers);
	printf("  %-15s %5s %7s %12s %7s %7s %8s %7s\n", "codec", "level", "ratio", "decode MB/s", "read",
	       "decode", "install", "total");
	for (size_t i = 0; i < nr; i++) {
		struct cis_plan_cost cost = cis_plan_cost(&c[i], host, 1 << 30);

		printf("%c %-15s %5d %7.2f %12.0f %7.0f %7.0f %8.0f %7.0f\n", i == best ? '*' : ' ',
		       cis_codec_name(c[i].codec), c[i].level, c[i].ratio, c[i].decode_rate / 1e6,
		       cost.read_s * 1e3, cost.decode_s * 1e3, cost.install_s * 1e3, cost.total_s * 1e3);
	}
	printf("%s: %s\n", cis_codec_name(c[best].codec), reason);
}

static json_t *plan_json(const struct cis_plan_codec *c, size_t nr, size_t best,
			 const struct cis_plan_host *host, const char *reason)
{
	json_t *rows = json_array(), *install;

	install = isfinite(host->install_rate) ? json_real(host->install_rate) : json_null();
	for (size_t i = 0; i < nr; i++) {
		struct cis_plan_cost cost = cis_plan_cost(&c[i], host, 1 << 30);

		json_array_append_new(rows, json_pack("{s:s,s:i,s:f,s:f,s:f,s:f}", "codec",
						      cis_codec_name(c[i].codec), "level", c[i].level,
						      "ratio", c[i].ratio, "encode_bytes_s", c[i].encode_rate,
						      "decode_bytes_s", c[i].decode_rate, "total_s_gib",
						      cost.total_s));
	}
	return json_pack("{s:f,s:o,s:i,s:o,s:s,s:s}", "read_bytes_s", host->read_rate, "install_bytes_s",
			 install, "workers", (int)host->workers, "candidates", rows, "choice",
			 cis_codec_name(c[best].codec), "reason", reason);
}

static int by_plan(const struct cli_codec_wish *wish, const struct cis_plan_sample *sample,
		   const char *folder, struct cis_write_opts *opts, json_t **ret_plan, struct cis_error *err)
{
	struct cis_plan_codec c[CIS_PLAN_MAX];
	size_t nr = cis_plan_candidates(sample->chunk_bytes, c), best;
	struct cis_plan_host host;
	char reason[200];
	int r = measure(wish, sample, folder, c, &nr, &host, err);

	if (r)
		return r;
	best = cis_plan_choose(c, nr, &host);
	cis_plan_reason(c, nr, best, &host, reason, sizeof(reason));
	if (cli_json)
		*ret_plan = plan_json(c, nr, best, &host, reason);
	else
		print_plan(c, nr, best, &host, reason);
	opts->codec = c[best].codec;
	opts->level = c[best].level;
	return 0;
}

/* Of the hot pages when there are enough to tell: these decide how soon the guest runs. */
static int take_sample(struct cis_image_source *src, const struct cis_write_opts *opts,
		       struct cis_plan_sample *ret, struct cis_error *err)
{
	size_t chunk_bytes = (size_t)1 << opts->chunk_shift;

	if (opts->nr_hot << opts->page_shift >= HOT_SAMPLE_MIN) {
		int r = cis_plan_sample_hot(src, opts->hot, opts->nr_hot, opts->page_shift, chunk_bytes,
					    SAMPLE_BYTES, ret, err);

		if (r || ret->len >= HOT_SAMPLE_MIN)
			return r == -ENODATA ?
				       cis_plan_sample_take(src, chunk_bytes, SAMPLE_BYTES, ret, err) :
				       r;
		cis_plan_sample_fini(ret);
	}
	return cis_plan_sample_take(src, chunk_bytes, SAMPLE_BYTES, ret, err);
}

int cli_check_level(const char *codec, uint64_t level)
{
	if (level == CLI_NO_LEVEL)
		return CLI_OK;
	if (!codec || !strcmp(codec, "auto"))
		return cli_usage("--level wants a --codec");
	if (!strcmp(codec, "raw") || !strcmp(codec, "mask"))
		return cli_usage("--level: codec %s has no levels", codec);
	if (!level || level > LEVEL_MAX)
		return cli_usage("--level: %llu is not a level of codec %s", (unsigned long long)level,
				 codec);
	return CLI_OK;
}

int cli_codec_choose(const struct cli_codec_wish *wish, struct cis_image_source *src, const char *image,
		     struct cis_write_opts *opts, json_t **ret_plan, struct cis_error *err)
{
	_cleanup_free_ char *copy = strdup(image);
	struct cis_plan_sample sample;
	int r;

	if (!copy)
		return cis_fail(err, ENOMEM, "%s: no memory", image);
	if (strcmp(wish->codec, "auto")) {
		by_wish(wish, opts);
		return 0;
	}
	r = take_sample(src, opts, &sample, err);
	if (r == -ENODATA) { /* nothing to encode, so nothing to choose */
		opts->codec = CIS_CODEC_LZ4;
		return 0;
	}
	if (!r) {
		r = by_plan(wish, &sample, dirname(copy), opts, ret_plan, err);
		cis_plan_sample_fini(&sample);
	}
	return r;
}
