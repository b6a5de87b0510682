/* cistern image export: back to a raw memory file, and to the monitor's state. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/images.h"
#include "cli/output.h"

static const char *state_path;

static const struct cli_option options[] = {
	{ "state", CLI_STRING, "FILE", "write the monitor's device state there; MEMORY may then be left out",
	  &state_path },
	CLI_OPTION_STORE,
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

static int write_all(int fd, const char *bytes, size_t len)
{
	while (len) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static int export_state(const struct cis_image *img, const char *path, struct cis_error *err)
{
	_cleanup_free_ void *state = NULL;
	size_t len;
	int r = cis_image_read_state(img, &state, &len, err);

	if (r)
		return r;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	r = write_all(fd, state, len);
	if (close(fd) && !r)
		r = -errno;
	return r ? cis_fail(err, -r, "%s: %s", path, strerror(-r)) : 0;
}

static int report(const struct cis_image_info *info, const char *memory)
{
	char size[32];

	if (cli_json) {
		return cli_print_json(json_pack("{s:o*,s:o*,s:I}", "path",
						memory ? cli_json_text(memory) : NULL, "state",
						state_path ? cli_json_text(state_path) : NULL, "guest_bytes",
						(json_int_t)info->guest_bytes));
	}
	if (memory)
		printf("%s: %s of guest memory\n", memory,
		       cis_size_print(info->guest_bytes, size, sizeof(size)));
	if (state_path)
		printf("%s: %s of device state\n", state_path,
		       cis_size_print(info->state_bytes, size, sizeof(size)));
	return CLI_OK;
}

static int run(int argc, char **argv)
{
	const char *memory = argc > 1 ? argv[1] : NULL;
	struct cis_image *img;
	struct cis_error err;
	int r = 0;

	if (!memory && !state_path)
		return cli_usage("neither MEMORY nor --state is given");
	if (cli_store_check())
		return CLI_USAGE;
	if (cli_image_open(argv[0], &img, &err))
		return cli_fail(&err);
	if (state_path)
		r = export_state(img, state_path, &err);
	if (!r && memory)
		r = export(img, memory, &err);
	int status = r ? cli_fail(&err) : report(cis_image_info(img), memory);

	cis_image_unref(img);
	return status;
}

const struct cli_command cli_image_export = { "image export",
					      "IMAGE [MEMORY]",
					      "Write an image back to a raw sparse memory file",
					      options,
					      1,
					      2,
					      run };
