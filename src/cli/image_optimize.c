/* cistern image optimize: rewrite an image by recorded traces, with another page size or codec, or without
 * its parent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/images.h"
#include "cli/output.h"

static struct {
	struct cli_list traces;
	const char *page, *codec;
	uint64_t level, workers;
	bool flatten;
} opt = { .level = CLI_NO_LEVEL };

static const struct cli_option options[] = {
	{ "trace", CLI_LIST, "FILE",
	  "recorded first touches; of several, pages that at least half of them touched become hot",
	  &opt.traces },
	{ "page", CLI_CHOICE, "4K|2M", "unit of classes and order (default: as it is)", &opt.page },
	{ "codec", CLI_CHOICE, CLI_CODECS, "how to store it (default: as it is)", &opt.codec },
	{ "level", CLI_NUMBER, "N", "of the codec (default: the codec's)", &opt.level },
	{ "flatten", CLI_FLAG, NULL, "take in what is inherited: OUT has no parent", &opt.flatten },
	{ "workers", CLI_NUMBER, "N", "threads to encode (default: one a CPU)", &opt.workers },
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

/* One page in units of 2^from as pages in units of 2^to. */
static uint64_t add_pages(uint64_t pgno, unsigned from, unsigned to, uint32_t *ret)
{
	uint64_t nr = from > to ? (uint64_t)1 << (from - to) : 1;

	for (uint64_t i = 0; i < nr; i++)
		ret[i] = (uint32_t)(((pgno << from) >> to) + i);
	return nr;
}

/* The working set as it is, for a rewrite without traces. */
static int keep_hot(const struct cis_image *img, unsigned page_shift, struct cli_hot *ret,
		    struct cis_error *err)
{
	const struct cis_image_info *info = cis_image_info(img);
	unsigned parts = info->page_shift > page_shift ? info->page_shift - page_shift : 0;
	uint64_t nr = 0, all = info->nr_hot + info->nr_touched;
	uint32_t *pgno = all ? malloc((all << parts) * sizeof(*pgno)) : NULL;

	if (all && !pgno)
		return cis_fail(err, ENOMEM, "%s: no memory for its hot pages", info->path);
	for (uint64_t i = 0; i < info->nr_hot; i++)
		nr += add_pages(cis_image_hot_page(img, i), info->page_shift, page_shift, pgno + nr);
	for (uint64_t i = 0; i < info->nr_touched; i++)
		nr += add_pages(cis_image_touched(img, i), info->page_shift, page_shift, pgno + nr);
	*ret = (struct cli_hot){ pgno, nr };
	return 0;
}

static char *producer_of(const struct cis_image_info *info)
{
	const char *at = info->provenance;
	static const char key[] = "producer=";

	while (at && strncmp(at, key, strlen(key)))
		at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
	return at ? strndup(at + strlen(key), strcspn(at + strlen(key), "\n")) : NULL;
}

static int choose(struct cis_image_source *src, const char *out, struct cis_write_opts *w, json_t **ret_plan,
		  struct cis_error *err)
{
	const struct cli_codec_wish wish = { .codec = opt.codec,
					     .dict = "auto",
					     .level = opt.level,
					     .has_level = opt.level != CLI_NO_LEVEL,
					     .workers = (unsigned)opt.workers };

	return opt.codec ? cli_codec_choose(&wish, src, out, w, ret_plan, err) : 0;
}

static int write_image(struct cis_image_source *src, const char *out, struct cis_write_opts *w,
		       struct cis_error *err)
{
	struct cli_progress progress;
	uint64_t room;
	int r = cli_quota_room(out, &room, err);

	if (r)
		return r;
	cli_progress_start(&progress);
	w->max_bytes = room == UINT64_MAX ? 0 : room ? room : 1;
	w->progress = cli_progress;
	w->progress_ctx = &progress;
	r = cis_image_write(out, src, w, err);
	cli_progress_end(&progress);
	return r == -EDQUOT && room != UINT64_MAX ? cli_quota_refuse(out, room, &progress, err) : r;
}

/* Inherited pages of a child stay so, unless the page size changes: then it no longer fits its parent. */
static int rewrite(struct cis_image *img, struct cis_image_source *src, const struct cli_hot *hot,
		   unsigned page_shift, const char *out, json_t **ret_plan, struct cis_error *err)
{
	const struct cis_image_info *info = cis_image_info(img);
	_cleanup_free_ char *producer = producer_of(info);
	_cleanup_free_ void *state = NULL;
	struct cis_write_opts w = { .size = sizeof(w),
				    .page_shift = page_shift,
				    .chunk_shift = info->chunk_shift,
				    .codec = info->codec,
				    .hot = hot->pgno,
				    .nr_hot = hot->nr,
				    .hot_window = CIS_HOT_WINDOW,
				    .producer = producer,
				    .workers = (unsigned)opt.workers };
	int r = cis_image_read_state(img, &state, &w.state_bytes, err);

	if (r && r != -ENODATA)
		return r;
	w.state = state;
	if (page_shift == info->page_shift && !opt.flatten)
		w.parent = info->parent;
	w.compare = w.parent != NULL;
	r = choose(src, out, &w, ret_plan, err);
	return r ? r : write_image(src, out, &w, err);
}

static int optimize(struct cis_image *img, const char *out, json_t **ret_plan, struct cis_error *err)
{
	const struct cis_image_info *info = cis_image_info(img);
	unsigned page_shift = !opt.page ? info->page_shift : strcmp(opt.page, "2M") ? 12 : 21;
	struct cis_image_source *src;
	struct cli_hot hot = { 0 };
	int r;

	r = opt.traces.nr ? cli_hot_merge(&opt.traces, info->guest_bytes, page_shift, &hot, err) :
			    keep_hot(img, page_shift, &hot, err);
	if (r)
		return r;
	r = cis_source_image(img, &src, err);
	if (!r) {
		r = rewrite(img, src, &hot, page_shift, out, ret_plan, err);
		cis_source_close(src);
	}
	free(hot.pgno);
	return r;
}

static int check_usage(void)
{
	if (!opt.traces.nr && !opt.page && !opt.codec && !opt.flatten)
		return cli_usage("wants a --trace, --page, --codec or --flatten");
	return opt.workers > CLI_WORKERS_MAX ? cli_usage("--workers: %llu is more than %d",
							 (unsigned long long)opt.workers, CLI_WORKERS_MAX) :
					       cli_check_level(opt.codec, opt.level);
}

static int run(int argc, char **argv)
{
	struct cis_image *img, *made = NULL;
	json_t *plan = NULL;
	struct cis_error err;
	int status = check_usage();

	if (status)
		return status;
	if (!opt.workers)
		opt.workers = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	if (cli_image_open(argv[0], &img, &err))
		return cli_fail(&err);
	if (optimize(img, argv[1], &plan, &err) ||
	    cis_image_open(argv[1], &(struct cis_image_dirs){ .path = &cli_images, .nr = 1 }, &made, &err))
		status = cli_fail(&err);
	else
		status = cli_image_print(made, plan);
	json_decref(plan);
	cis_image_unref(made);
	cis_image_unref(img);
	return status;
}

const struct cli_command cli_image_optimize = { "image optimize",
						"IMAGE OUT",
						"Rewrite an image so that what traces touched is read first",
						options,
						2,
						2,
						run };
