/* cistern image quota: how much the image directory may hold. */
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "cli/images.h"

static const struct cli_option options[] = {
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

static int set_quota(const char *size, struct cis_error *err)
{
	uint64_t bytes = 0;

	if (strcmp(size, "none") && (cis_size_parse(size, &bytes) || !bytes))
		return cli_usage("'%s' is not a size, like 500G, nor none", size);
	return cis_dir_set_quota(cli_images, bytes, err) ? cli_fail(err) : CLI_OK;
}

static int run(int argc, char **argv)
{
	char used[32], quota[32];
	struct cis_error err;
	struct cis_dir dir;
	int status = CLI_OK;

	if (argc)
		status = set_quota(argv[0], &err);
	if (status)
		return status;
	if (cis_dir_scan(cli_images, &dir, &err))
		return cli_fail(&err);
	cis_size_print(dir.total_bytes, used, sizeof(used));
	cis_size_print(dir.quota_bytes, quota, sizeof(quota));
	if (cli_json)
		status = cli_print_json(json_pack("{s:o,s:I,s:I}", "path", cli_json_text(dir.path),
						  "total_bytes", (json_int_t)dir.total_bytes, "quota_bytes",
						  (json_int_t)dir.quota_bytes));
	else
		printf("%s: %s used, quota %s\n", cli_clean(dir.path), used,
		       dir.quota_bytes ? quota : "none");
	cis_dir_fini(&dir);
	return status;
}

const struct cli_command cli_image_quota = {
	"image quota", "[SIZE|none]", "Show or set how much the image directory may hold", options, 0, 1, run
};
