/* cistern image optimize: rewrite an image by recorded traces, or with another page size. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/images.h"
#include "cli/output.h"

static struct {
	struct cli_list traces;
	const char *page;
	uint64_t workers;
} opt;

static const struct cli_option options[] = {
	{ "trace", CLI_LIST, "FILE",
	  "recorded first touches; of several, pages that at least half of them touched become hot",
	  &opt.traces },
	{ "page", CLI_CHOICE, "4K|2M", "unit of classes and order (default: as it is)", &opt.page },
	{ "workers", CLI_NUMBER, "N", "threads to encode (default: one a CPU)", &opt.workers },
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

/* The hot order as it is, for a rewrite without traces. */
static int keep_hot(const struct cis_image *img, unsigned page_shift, struct cli_hot *ret,
		    struct cis_error *err)
{
	const struct cis_image_info *info = cis_image_info(img);
	unsigned up = page_shift > info->page_shift ? page_shift - info->page_shift : 0;
	unsigned down = info->page_shift > page_shift ? info->page_shift - page_shift : 0;
	uint32_t *pgno = malloc(((info->nr_hot << down) + 1) * sizeof(*pgno));
	uint64_t nr = 0;

	if (!pgno)
		return cis_fail(err, ENOMEM, "%s: no memory for its hot pages", info->path);
	for (uint64_t i = 0; i < info->nr_hot; i++)
		for (uint64_t part = 0; part >> down == 0; part++)
			pgno[nr++] = (uint32_t)((cis_image_hot_page(img, i) << down | part) >> up);
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

/* Inherited pages of a child stay inherited, unless the page size changes: then it no longer fits its parent.
 */
static int rewrite(struct cis_image *img, struct cis_image_source *src, const struct cli_hot *hot,
		   unsigned page_shift, const char *out, struct cis_error *err)
{
	const struct cis_image_info *info = cis_image_info(img);
	_cleanup_free_ char *producer = producer_of(info);
	_cleanup_free_ void *state = NULL;
	struct cli_progress progress;
	struct cis_write_opts w = {
		.size = sizeof(w),
		.page_shift = page_shift,
		.chunk_shift = info->chunk_shift,
		.codec = info->codec,
		.hot = hot->pgno,
		.nr_hot = hot->nr,
		.producer = producer,
		.workers = (unsigned)opt.workers,
		.progress = cli_progress,
		.progress_ctx = &progress,
	};
	uint64_t room;
	int r = cis_image_read_state(img, &state, &w.state_bytes, err);

	if (r && r != -ENODATA)
		return r;
	w.state = state;
	if (page_shift == info->page_shift)
		w.parent = info->parent;
	w.compare = w.parent != NULL;
	r = cli_quota_room(out, &room, err);
	if (r)
		return r;
	w.max_bytes = room == UINT64_MAX ? 0 : room ? room : 1;
	cli_progress_start(&progress);
	r = cis_image_write(out, src, &w, err);
	cli_progress_end(&progress);
	return r == -EDQUOT && room != UINT64_MAX ? cli_quota_refuse(out, room, &progress, err) : r;
}

static int optimize(struct cis_image *img, const char *out, struct cis_error *err)
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
		r = rewrite(img, src, &hot, page_shift, out, err);
		cis_source_close(src);
	}
	free(hot.pgno);
	return r;
}

static int run(int argc, char **argv)
{
	struct cis_image *img, *made = NULL;
	struct cis_error err;
	int status;

	if (!opt.traces.nr && !opt.page)
		return cli_usage("wants a --trace or a --page");
	if (opt.workers > 256)
		return cli_usage("--workers: %llu is more than 256", (unsigned long long)opt.workers);
	if (!opt.workers)
		opt.workers = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
	if (cli_image_open(argv[0], &img, &err))
		return cli_fail(&err);
	if (optimize(img, argv[1], &err) ||
	    cis_image_open(argv[1], &(struct cis_image_dirs){ &cli_images, 1 }, &made, &err))
		status = cli_fail(&err);
	else
		status = cli_image_print(made, NULL);
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
