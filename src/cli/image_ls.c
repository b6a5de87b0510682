/* cistern image ls: the image directory. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/size.h"
#include "cli/images.h"

static const struct cli_option options[] = {
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

static const struct cis_dir_entry *parent_of(const struct cis_dir *dir, const struct cis_dir_entry *e)
{
	for (size_t i = 0; i < dir->nr; i++)
		if (!dir->entry[i].problem && !memcmp(dir->entry[i].id, e->parent_id, sizeof(e->parent_id)))
			return &dir->entry[i];
	return NULL;
}

static void print_entry(const struct cis_dir *dir, const struct cis_dir_entry *e)
{
	char id[2 * CIS_IMAGE_ID_BYTES + 1], guest[32], file[32];
	const char *parent = "-";

	cis_size_print(e->file_bytes, file, sizeof(file));
	if (e->problem) {
		printf("%-24s %-12s %10s %10s  %s\n", cli_clean(e->name), "?", "?", file,
		       cli_clean(e->problem));
		return;
	}
	if (e->depth)
		parent = parent_of(dir, e) ? parent_of(dir, e)->name : "missing";
	cis_hex_print(e->id, sizeof(e->id), id);
	cis_size_print(e->guest_bytes, guest, sizeof(guest));
	printf("%-24s %-12.12s %10s %10s %9" PRIu64 "  %-15s %s\n", cli_clean(e->name), id, guest, file,
	       e->nr_hot, cis_codec_name(e->codec), cli_clean(parent));
}

static void print_dir(const struct cis_dir *dir)
{
	char total[32], quota[32];

	if (dir->nr)
		printf("%-24s %-12s %10s %10s %9s  %-15s %s\n", "NAME", "ID", "GUEST", "FILE", "HOT", "CODEC",
		       "PARENT");
	for (size_t i = 0; i < dir->nr; i++)
		print_entry(dir, &dir->entry[i]);
	cis_size_print(dir->total_bytes, total, sizeof(total));
	cis_size_print(dir->quota_bytes, quota, sizeof(quota));
	printf("%zu images, %s", dir->nr, total);
	if (dir->quota_bytes)
		printf(" of a quota of %s", quota);
	printf(", in %s\n", cli_clean(dir->path));
}

static json_t *entry_json(const struct cis_dir_entry *e)
{
	char id[2 * CIS_IMAGE_ID_BYTES + 1], parent[2 * CIS_IMAGE_ID_BYTES + 1];
	json_t *obj = json_pack("{s:o,s:I,s:I}", "name", cli_json_text(e->name), "file_bytes",
				(json_int_t)e->file_bytes, "mtime_s", (json_int_t)e->mtime_s);

	if (e->problem) {
		json_object_set_new(obj, "problem", cli_json_text(e->problem));
		return obj;
	}
	cis_hex_print(e->id, sizeof(e->id), id);
	json_object_set_new(obj, "id", json_string(id));
	json_object_set_new(obj, "guest_bytes", json_integer((json_int_t)e->guest_bytes));
	json_object_set_new(obj, "page_bytes", json_integer((json_int_t)1 << e->page_shift));
	json_object_set_new(obj, "hot_pages", json_integer((json_int_t)e->nr_hot));
	json_object_set_new(obj, "codec", json_string(cis_codec_name(e->codec)));
	if (e->depth) {
		cis_hex_print(e->parent_id, sizeof(e->parent_id), parent);
		json_object_set_new(obj, "parent_id", json_string(parent));
	}
	return obj;
}

static json_t *dir_json(const struct cis_dir *dir)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < dir->nr; i++)
		json_array_append_new(rows, entry_json(&dir->entry[i]));
	return json_pack("{s:o,s:I,s:I,s:o}", "path", cli_json_text(dir->path), "total_bytes",
			 (json_int_t)dir->total_bytes, "quota_bytes", (json_int_t)dir->quota_bytes, "images",
			 rows);
}

static int run(int argc, char **argv)
{
	struct cis_error err;
	struct cis_dir dir;
	int status = CLI_OK;

	if (cis_dir_scan(cli_images, &dir, &err))
		return cli_fail(&err);
	if (cli_json)
		status = cli_print_json(dir_json(&dir));
	else
		print_dir(&dir);
	cis_dir_fini(&dir);
	return status;
}

const struct cli_command cli_image_ls = { "image ls", "", "List the image directory", options, 0, 0, run };
