/* cistern image show: what an image holds and what a restore will read. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "cli/images.h"

#define STATE_BYTES_SHOWN 32

static const struct cli_option options[] = {
	CLI_OPTION_STORE,
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

/** struct section - what the chunks of the hot or cold section sum up to, by codec */
struct section {
	const char *name;
	uint64_t chunks, raw_bytes, stored_bytes;
	struct {
		uint64_t chunks, raw_bytes, stored_bytes;
	} by[CIS_CODEC_COUNT];
};

static void sum_section(const struct cis_image *img, uint64_t first, uint64_t nr, struct section *s)
{
	for (uint64_t i = first; i < first + nr; i++) {
		struct cis_chunk_loc loc;

		cis_image_chunk(img, i, &loc);
		s->chunks++;
		s->raw_bytes += loc.raw_bytes;
		s->stored_bytes += loc.stored_bytes;
		if (loc.codec >= CIS_CODEC_COUNT) /* refused when opened; counted in no row */
			continue;
		s->by[loc.codec].chunks++;
		s->by[loc.codec].raw_bytes += loc.raw_bytes;
		s->by[loc.codec].stored_bytes += loc.stored_bytes;
	}
}

static void sum_sections(const struct cis_image *img, struct section s[2])
{
	const struct cis_image_info *info = cis_image_info(img);

	s[0] = (struct section){ .name = "hot" };
	s[1] = (struct section){ .name = "cold" };
	sum_section(img, 0, info->nr_hot_chunks, &s[0]);
	sum_section(img, info->nr_hot_chunks, info->nr_cold_chunks, &s[1]);
}

static double ratio(uint64_t raw, uint64_t stored)
{
	return stored ? (double)raw / (double)stored : 0;
}

/** struct class_row - pages of one class */
struct class_row {
	enum cis_class cls;
	uint64_t pages;
};

static size_t class_rows(const struct cis_image_info *info, struct class_row rows[5])
{
	const struct class_row all[] = {
		{ CIS_CLASS_ZERO, info->nr_zero },	 { CIS_CLASS_SAME, info->nr_same },
		{ CIS_CLASS_HOT, info->nr_hot },	 { CIS_CLASS_COLD, info->nr_cold },
		{ CIS_CLASS_INHERIT, info->nr_inherit },
	};

	memcpy(rows, all, sizeof(all));
	return info->depth ? 5 : 4;
}

static const char *size(uint64_t bytes)
{
	static char buf[8][32];
	static unsigned next;

	next = (next + 1) % 8; /* so that one printf can have several */
	return cis_size_print(bytes, buf[next], sizeof(buf[next]));
}

static void print_head(const struct cis_image_info *info)
{
	char id[2 * CIS_IMAGE_ID_BYTES + 1];

	cis_hex_print(info->id, sizeof(info->id), id);
	printf("%s\n  id        %s\n", cli_clean(info->path), id);
	printf("  guest     %s: %" PRIu64 " pages of %s\n", size(info->guest_bytes), info->nr_pages,
	       size((uint64_t)1 << info->page_shift));
	printf("  file      %s, %.2f times smaller; chunks of %s, codec %s\n", size(info->file_bytes),
	       ratio(info->guest_bytes, info->file_bytes), size((uint64_t)1 << info->chunk_shift),
	       cis_codec_name(info->codec));
	for (const struct cis_image *p = info->parent; p; p = cis_image_info(p)->parent) {
		cis_hex_print(cis_image_info(p)->id, CIS_IMAGE_ID_BYTES, id);
		printf("  parent    %s (%.16s)\n", cli_clean(cis_image_info(p)->path), id);
	}
	if (info->state_bytes)
		printf("  state     %s\n", size(info->state_bytes));
}

static void print_classes(const struct cis_image_info *info)
{
	struct class_row rows[5];
	size_t nr = class_rows(info, rows);

	printf("\n  %-8s %12s %12s %8s\n", "class", "pages", "bytes", "share");
	for (size_t i = 0; i < nr; i++)
		printf("  %-8s %12" PRIu64 " %12s %6.1f %%\n", cis_class_name(rows[i].cls), rows[i].pages,
		       size(rows[i].pages << info->page_shift), 100 * ratio(rows[i].pages, info->nr_pages));
}

static void print_sections(const struct section s[2])
{
	printf("\n  %-8s %-15s %10s %12s %12s %7s\n", "section", "codec", "chunks", "raw", "stored", "ratio");
	for (size_t k = 0; k < 2; k++) {
		for (unsigned c = 0; c < CIS_CODEC_COUNT; c++)
			if (s[k].by[c].chunks)
				printf("  %-8s %-15s %10" PRIu64 " %12s %12s %7.2f\n", s[k].name,
				       cis_codec_name(c), s[k].by[c].chunks, size(s[k].by[c].raw_bytes),
				       size(s[k].by[c].stored_bytes),
				       ratio(s[k].by[c].raw_bytes, s[k].by[c].stored_bytes));
		printf("  %-8s %-15s %10" PRIu64 " %12s %12s %7.2f\n", s[k].name, "all", s[k].chunks,
		       size(s[k].raw_bytes), size(s[k].stored_bytes),
		       ratio(s[k].raw_bytes, s[k].stored_bytes));
	}
}

static void print_rest(const struct cis_image_info *info, const struct section s[2])
{
	printf("\n  a restore reads %s before the guest runs (%s of memory), and %s%s more as it is "
	       "touched\n",
	       size(s[0].stored_bytes), size(s[0].raw_bytes), s[1].stored_bytes ? "up to " : "",
	       size(s[1].stored_bytes));
	if (info->nr_touched)
		printf("  %" PRIu64 " more pages of the working set are zero or one repeated word\n",
		       info->nr_touched);
	for (size_t i = 0; i < info->nr_regions; i++)
		printf("%s  %-12.32s offset %#14" PRIx64 "  guest address %#14" PRIx64 "  %s\n",
		       i ? "" : "\n", *info->regions[i].name ? cli_clean(info->regions[i].name) : "region",
		       info->regions[i].offset, info->regions[i].gpa, size(info->regions[i].bytes));
	if (!*info->provenance)
		return;
	printf("\n");
	for (const char *line = info->provenance; *line;) {
		size_t len = strcspn(line, "\n");

		printf("  %.*s\n", (int)len, cli_clean(line));
		line += len + (line[len] == '\n');
	}
}

static json_t *classes_json(const struct cis_image_info *info)
{
	struct class_row rows[5];
	size_t nr = class_rows(info, rows);
	json_t *obj = json_object();

	for (size_t i = 0; i < nr; i++)
		json_object_set_new(obj, cis_class_name(rows[i].cls),
				    json_integer((json_int_t)rows[i].pages));
	return obj;
}

static json_t *section_json(const struct section *s)
{
	json_t *by = json_object();

	for (unsigned c = 0; c < CIS_CODEC_COUNT; c++)
		if (s->by[c].chunks)
			json_object_set_new(by, cis_codec_name(c),
					    json_pack("{s:I,s:I,s:I}", "chunks", (json_int_t)s->by[c].chunks,
						      "raw_bytes", (json_int_t)s->by[c].raw_bytes,
						      "stored_bytes", (json_int_t)s->by[c].stored_bytes));
	return json_pack("{s:I,s:I,s:I,s:o}", "chunks", (json_int_t)s->chunks, "raw_bytes",
			 (json_int_t)s->raw_bytes, "stored_bytes", (json_int_t)s->stored_bytes, "codecs", by);
}

static json_t *regions_json(const struct cis_image_info *info)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < info->nr_regions; i++)
		json_array_append_new(rows, json_pack("{s:o,s:I,s:I,s:I}", "name",
						      cli_json_text(info->regions[i].name), "offset",
						      (json_int_t)info->regions[i].offset, "gpa",
						      (json_int_t)info->regions[i].gpa, "bytes",
						      (json_int_t)info->regions[i].bytes));
	return rows;
}

static json_t *parents_json(const struct cis_image_info *info)
{
	json_t *rows = json_array();
	char id[2 * CIS_IMAGE_ID_BYTES + 1];

	for (const struct cis_image *p = info->parent; p; p = cis_image_info(p)->parent) {
		cis_hex_print(cis_image_info(p)->id, CIS_IMAGE_ID_BYTES, id);
		json_array_append_new(rows, json_pack("{s:o,s:s}", "path",
						      cli_json_text(cis_image_info(p)->path), "id", id));
	}
	return rows;
}

static json_t *image_json(const struct cis_image_info *info, const struct section s[2])
{
	char id[2 * CIS_IMAGE_ID_BYTES + 1];

	cis_hex_print(info->id, sizeof(info->id), id);
	return json_pack("{s:o,s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:I,s:I,s:I,s:o,s:{s:o,s:o},s:o,s:o,s:o}", "path",
			 cli_json_text(info->path), "id", id, "guest_bytes", (json_int_t)info->guest_bytes,
			 "file_bytes", (json_int_t)info->file_bytes, "pages", (json_int_t)info->nr_pages,
			 "page_bytes", (json_int_t)1 << info->page_shift, "chunk_bytes",
			 (json_int_t)1 << info->chunk_shift, "codec", cis_codec_name(info->codec),
			 "state_bytes", (json_int_t)info->state_bytes, "restore_bytes",
			 (json_int_t)s[0].stored_bytes, "touched_pages", (json_int_t)info->nr_touched,
			 "classes", classes_json(info), "sections", "hot", section_json(&s[0]), "cold",
			 section_json(&s[1]), "regions", regions_json(info), "parents", parents_json(info),
			 "provenance", cli_json_text(info->provenance));
}

int cli_image_print(struct cis_image *img, json_t *plan)
{
	const struct cis_image_info *info = cis_image_info(img);
	struct section s[2];

	sum_sections(img, s);
	if (cli_json) {
		json_t *obj = image_json(info, s);

		if (plan)
			json_object_set(obj, "plan", plan);
		return cli_print_json(obj);
	}
	print_head(info);
	print_classes(info);
	print_sections(s);
	print_rest(info, s);
	return CLI_OK;
}

static int run(int argc, char **argv)
{
	struct cis_image *img;
	struct cis_error err;
	int status;

	if (cli_store_check())
		return CLI_USAGE;
	if (cli_image_open(argv[0], &img, &err))
		return cli_fail(&err);
	status = cli_image_print(img, NULL);
	cis_image_unref(img);
	return status;
}

const struct cli_command cli_image_show = {
	"image show", "IMAGE", "Say what an image holds and what a restore will read", options, 1, 1, run
};
