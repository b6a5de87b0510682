/* cistern image map: guest memory by class, to look at. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/images.h"
#include "cli/picture.h"

#define SVG_COLUMNS 256
#define SVG_ROWS    256
#define PNG_COLUMNS 512 /* a pixel a page up to 8 GiB of 4 KiB pages, 2 MiB a row */
#define PNG_ROWS    4096

static struct {
	const char *svg, *png;
	uint64_t width;
} opt;

static const struct cli_option options[] = {
	{ "svg", CLI_STRING, "FILE", "draw it into an SVG file instead", &opt.svg },
	{ "png", CLI_STRING, "FILE", "draw it into a PNG file instead, a pixel a page where that fits",
	  &opt.png },
	{ "width", CLI_NUMBER, "N", "columns of the picture (default: the terminal's, 64 elsewhere)",
	  &opt.width },
	CLI_OPTION_IMAGES,
	CLI_OPTION_END,
};

static void terminal_size(unsigned *ret_columns, unsigned *ret_rows)
{
	struct winsize w;

	*ret_columns = 64;
	*ret_rows = 64;
	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col >= 16 && w.ws_row >= 8) {
		*ret_columns = w.ws_col;
		*ret_rows = 2u * (w.ws_row - 3u);
	}
	if (opt.width)
		*ret_columns = (unsigned)opt.width;
}

static json_t *map_json(const struct cli_picture *pic, const struct cis_image_info *info)
{
	json_t *cells = json_array();

	for (uint64_t i = 0; i < pic->used; i++)
		json_array_append_new(cells, json_string(cis_class_name(pic->cell[i])));
	return json_pack("{s:i,s:I,s:I,s:o}", "columns", (int)pic->columns, "pages_per_cell",
			 (json_int_t)pic->pages_per_cell, "page_bytes", (json_int_t)1 << info->page_shift,
			 "cells", cells);
}

static int to_terminal(const struct cis_image *img, struct cis_error *err)
{
	bool colour = isatty(STDOUT_FILENO);
	unsigned columns, rows;
	struct cli_picture pic;
	int status = CLI_OK;

	terminal_size(&columns, &rows);
	if (cli_picture_make(img, columns, rows, &pic)) {
		cis_fail(err, ENOMEM, "no memory for a picture");
		return cli_fail(err);
	}
	if (cli_json) {
		status = cli_print_json(map_json(&pic, cis_image_info(img)));
	} else {
		cli_picture_print(&pic, colour);
		cli_picture_legend(&pic, cis_image_info(img), colour);
	}
	cli_picture_fini(&pic);
	return status;
}

static int to_file(const struct cis_image *img, bool png, const char *path, struct cis_error *err)
{
	unsigned columns = opt.width ? (unsigned)opt.width : png ? PNG_COLUMNS : SVG_COLUMNS;
	struct cli_picture pic;
	int r;

	if (cli_picture_make(img, columns, png ? PNG_ROWS : SVG_ROWS, &pic))
		return cis_fail(err, ENOMEM, "%s: no memory for a picture", path);
	r = png ? cli_picture_png(&pic, path, err) : cli_picture_svg(&pic, cis_image_info(img), path, err);
	cli_picture_fini(&pic);
	return r;
}

static int run(int argc, char **argv)
{
	struct cis_image *img;
	struct cis_error err;
	int status = CLI_OK;

	if (opt.width > 4096)
		return cli_usage("--width: %llu is more than 4096", (unsigned long long)opt.width);
	if (cli_image_open(argv[0], &img, &err))
		return cli_fail(&err);
	if ((opt.svg && to_file(img, false, opt.svg, &err)) || (opt.png && to_file(img, true, opt.png, &err)))
		status = cli_fail(&err);
	else if (!opt.svg && !opt.png)
		status = to_terminal(img, &err);
	cis_image_unref(img);
	return status;
}

const struct cli_command cli_image_map = { "image map", "IMAGE", "Draw guest memory by class", options, 1,
					   1,		run };
