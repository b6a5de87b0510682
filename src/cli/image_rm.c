/* cistern image rm: refused while a guest uses the image or another one needs it. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/guests.h"
#include "cli/images.h"

static const struct cli_option options[] = {
	CLI_OPTION_IMAGES,
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

/* Without a daemon no guest is served from here. */
static int refuse_used(const struct cis_dir_entry *e, struct cis_error *err)
{
	char id[2 * CIS_IMAGE_ID_BYTES + 1];
	json_t *guests, *guest;
	size_t i;
	int r = cli_guest_list(&guests, err);

	if (r == -ENOENT || r == -ECONNREFUSED)
		return 0;
	if (r)
		return r;
	cis_hex_print(e->id, sizeof(e->id), id);
	json_array_foreach (guests, i, guest) {
		const char *used = json_string_value(json_object_get(guest, "image_id"));
		const char *state = json_string_value(json_object_get(guest, "state"));

		if (used && !strcmp(used, id) && !(state && !strcmp(state, "gone"))) {
			r = cis_fail(err, EBUSY, "%s: guest %s uses it", e->name,
				     json_string_value(json_object_get(guest, "id")));
			break;
		}
	}
	json_decref(guests);
	return r;
}

static int remove_image(const char *path, struct cis_error *err)
{
	_cleanup_free_ char *copy = strdup(path), *copy2 = strdup(path);
	const struct cis_dir_entry *e;
	struct cis_dir dir;
	int r;

	if (!copy || !copy2)
		return cis_fail(err, ENOMEM, "%s: no memory", path);
	r = cis_dir_scan(dirname(copy), &dir, err);
	if (r)
		return r;
	r = cis_dir_find(&dir, basename(copy2), &e, err);
	if (!r && !e->problem)
		r = refuse_used(e, err);
	if (!r)
		r = cis_dir_remove(&dir, e, err);
	cis_dir_fini(&dir);
	return r;
}

static int run(int argc, char **argv)
{
	_cleanup_free_ char *path = NULL;
	struct cis_error err;

	if (cli_image_path(argv[0], &path, &err) || remove_image(path, &err))
		return cli_fail(&err);
	return cli_json ? cli_print_json(json_pack("{s:o}", "removed", cli_json_text(path))) : CLI_OK;
}

const struct cli_command cli_image_rm = { "image rm", "IMAGE", "Delete an image that nobody needs",
					  options,    1,       1,
					  run };
