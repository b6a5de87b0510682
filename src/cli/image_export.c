/* cistern image export: back to a raw memory file. */
#include <stdio.h>

#include "base/size.h"
#include "cli/images.h"
#include "cli/output.h"

static const struct cli_option options[] = {
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

static int export(struct cis_image *img, const char *memory, struct cis_error *err)
{
	struct cli_progress progress;
	int r;

	cli_progress_start(&progress);
	r = cis_image_export(img, memory, cli_progress, &progress, err);
	cli_progress_end(&progress);
	return r;
}

static int run(int argc, char **argv)
{
	struct cis_image *img;
	struct cis_error err;
	int status = CLI_OK;
	char size[32];

	if (cli_image_open(argv[0], &img, &err))
		return cli_fail(&err);
	const struct cis_image_info *info = cis_image_info(img);

	if (export(img, argv[1], &err))
		status = cli_fail(&err);
	else if (cli_json)
		status = cli_print_json(json_pack("{s:s,s:I}", "path", argv[1], "guest_bytes",
						  (json_int_t)info->guest_bytes));
	else
		printf("%s: %s of guest memory\n", argv[1],
		       cis_size_print(info->guest_bytes, size, sizeof(size)));
	cis_image_unref(img);
	return status;
}

const struct cli_command cli_image_export = {
	"image export", "IMAGE MEMORY", "Write an image back to a raw sparse memory file", options, 2, 2, run
};
