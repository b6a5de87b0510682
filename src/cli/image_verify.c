/* cistern image verify: read and check every byte. */
#include <stdio.h>

#include "cli/images.h"
#include "cli/output.h"

static const struct cli_option options[] = {
	CLI_OPTION_STORE,
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

/* The image and its parents, each on its own: a restore reads them all. */
static int verify_chain(struct cis_image *img, struct cis_error *err)
{
	struct cli_progress progress;
	int r = 0;

	cli_progress_start(&progress);
	for (struct cis_image *p = img; p && !r; p = cis_image_info(p)->parent)
		r = cis_image_verify(p, cli_progress, &progress, err);
	cli_progress_end(&progress);
	return r;
}

static int run(int argc, char **argv)
{
	struct cis_image *img;
	struct cis_error err;
	int status = CLI_OK;

	if (cli_store_check())
		return CLI_USAGE;
	if (cli_image_open(argv[0], &img, &err))
		return cli_fail(&err);
	const struct cis_image_info *info = cis_image_info(img);

	if (verify_chain(img, &err))
		status = cli_fail(&err);
	else if (cli_json)
		status = cli_print_json(json_pack("{s:o,s:b,s:i}", "path", cli_json_text(info->path), "good",
						  1, "parents", (int)info->depth));
	else if (info->depth)
		printf("%s: good, and so %s\n", cli_clean(info->path),
		       info->depth > 1 ? "are its parents" : "is its parent");
	else
		printf("%s: good\n", cli_clean(info->path));
	cis_image_unref(img);
	return status;
}

const struct cli_command cli_image_verify = {
	"image verify", "IMAGE", "Read and check every byte of an image and its parents", options, 1, 1, run
};
