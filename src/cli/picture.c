#include "cli/picture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

#define OUTSIDE 255 /* a cell beyond the guest's end */

/* Rising with what a class means to a restore; the order in which ties are settled. */
static const struct {
	uint32_t rgb;
	char letter;
} looks[CLI_CLASSES] = {
	[CIS_CLASS_ZERO] = { 0xe8e8e4, '.' },	 [CIS_CLASS_SAME] = { 0xb9c7a5, 's' },
	[CIS_CLASS_HOT] = { 0xd1495b, 'H' },	 [CIS_CLASS_COLD] = { 0x30638e, 'c' },
	[CIS_CLASS_INHERIT] = { 0xedae49, 'i' },
};

static const enum cis_class by_weight[CLI_CLASSES] = { CIS_CLASS_HOT, CIS_CLASS_COLD, CIS_CLASS_INHERIT,
						       CIS_CLASS_SAME, CIS_CLASS_ZERO };

uint32_t cli_class_rgb(enum cis_class cls)
{
	return looks[cls].rgb;
}

static enum cis_class most_of(const struct cis_image *img, uint64_t from, uint64_t to)
{
	uint64_t count[CLI_CLASSES] = { 0 };
	enum cis_class best = CIS_CLASS_HOT;

	for (uint64_t p = from; p < to; p++)
		count[cis_image_class(img, p)]++;
	for (size_t i = 0; i < CLI_CLASSES; i++)
		if (count[by_weight[i]] > count[best])
			best = by_weight[i];
	return best;
}

int cli_picture_make(const struct cis_image *img, unsigned columns, unsigned rows, struct cli_picture *ret)
{
	const struct cis_image_info *info = cis_image_info(img);
	uint64_t cells = (uint64_t)columns * rows;
	struct cli_picture pic = { .columns = columns };

	pic.pages_per_cell = (info->nr_pages + cells - 1) / cells;
	pic.used = (info->nr_pages + pic.pages_per_cell - 1) / pic.pages_per_cell;
	pic.rows = (unsigned)((pic.used + columns - 1) / columns);
	pic.cell = malloc((size_t)pic.rows * columns);
	if (!pic.cell)
		return -ENOMEM;
	memset(pic.cell, OUTSIDE, (size_t)pic.rows * columns);
	for (uint64_t i = 0; i < pic.used; i++) {
		uint64_t from = i * pic.pages_per_cell, to = from + pic.pages_per_cell;

		pic.cell[i] = (uint8_t)most_of(img, from, to < info->nr_pages ? to : info->nr_pages);
	}
	*ret = pic;
	return 0;
}

void cli_picture_fini(struct cli_picture *pic)
{
	free(pic->cell);
	*pic = (struct cli_picture){ 0 };
}

static void print_colour(int ground, uint8_t cell)
{
	if (cell == OUTSIDE)
		printf("\033[%dm", ground + 1); /* the terminal's own */
	else
		printf("\033[%d;2;%u;%u;%um", ground, looks[cell].rgb >> 16, looks[cell].rgb >> 8 & 255,
		       looks[cell].rgb & 255);
}

/* An upper half block has two colours: two rows of cells to a line, so that cells are nearly square. */
static void print_blocks(const struct cli_picture *pic)
{
	for (unsigned row = 0; row < pic->rows; row += 2) {
		for (unsigned col = 0; col < pic->columns; col++) {
			size_t at = (size_t)row * pic->columns + col;

			print_colour(38, pic->cell[at]);
			print_colour(48, row + 1 < pic->rows ? pic->cell[at + pic->columns] : OUTSIDE);
			fputs(pic->cell[at] == OUTSIDE ? " " : "▀", stdout);
		}
		puts("\033[0m");
	}
}

static void print_letters(const struct cli_picture *pic)
{
	for (unsigned row = 0; row < pic->rows; row++) {
		for (unsigned col = 0; col < pic->columns; col++) {
			uint8_t cell = pic->cell[(size_t)row * pic->columns + col];

			if (cell != OUTSIDE)
				putchar(looks[cell].letter);
		}
		putchar('\n');
	}
}

void cli_picture_print(const struct cli_picture *pic, bool colour)
{
	if (colour)
		print_blocks(pic);
	else
		print_letters(pic);
}

void cli_picture_legend(const struct cli_picture *pic, const struct cis_image_info *info, bool colour)
{
	char size[32];

	for (unsigned c = 0; c < CLI_CLASSES; c++) {
		if (c == CIS_CLASS_INHERIT && !info->depth)
			continue;
		if (colour) {
			print_colour(48, (uint8_t)c);
			printf("  \033[0m %s  ", cis_class_name(c));
		} else {
			printf("%c %s  ", looks[c].letter, cis_class_name(c));
		}
	}
	cis_size_print(pic->pages_per_cell << info->page_shift, size, sizeof(size));
	printf("- a cell is %s, in the class of most of its pages\n", size);
}

static void svg_class(FILE *f, const struct cli_picture *pic, uint8_t cls, unsigned px)
{
	bool open = false;

	for (unsigned row = 0; row < pic->rows; row++) {
		const uint8_t *cell = pic->cell + (size_t)row * pic->columns;

		for (unsigned col = 0, run; col < pic->columns; col += run) {
			for (run = 1; col + run < pic->columns && cell[col + run] == cell[col]; run++)
				;
			if (cell[col] != cls)
				continue;
			if (!open)
				fprintf(f, "<path fill=\"#%06x\" d=\"", looks[cls].rgb);
			open = true;
			fprintf(f, "M%u %uh%uv%uh-%uz", col * px, row * px, run * px, px, run * px);
		}
	}
	if (open)
		fputs("\"/>\n", f);
}

static void svg_legend(FILE *f, const struct cli_picture *pic, const struct cis_image_info *info, unsigned px)
{
	const uint64_t pages[CLI_CLASSES] = { info->nr_zero, info->nr_same, info->nr_hot, info->nr_cold,
					      info->nr_inherit };
	unsigned y = pic->rows * px + 12;
	char size[32];

	for (unsigned c = 0, x = 0; c < CLI_CLASSES; c++) {
		if (!pages[c])
			continue;
		cis_size_print(pages[c] << info->page_shift, size, sizeof(size));
		fprintf(f, "<rect x=\"%u\" y=\"%u\" width=\"14\" height=\"14\" fill=\"#%06x\"/>", x, y,
			looks[c].rgb);
		fprintf(f, "<text x=\"%u\" y=\"%u\">%s %s</text>\n", x + 20, y + 12, cis_class_name(c), size);
		x += 150;
	}
}

int cli_picture_svg(const struct cli_picture *pic, const struct cis_image_info *info, const char *path,
		    struct cis_error *err)
{
	unsigned px = 4, width = pic->columns * px > 750 ? pic->columns * px : 750;
	FILE *f = fopen(path, "we");
	int r = 0;

	if (!f)
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	fprintf(f,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %u %u\" font-family=\"sans-serif\" "
		"font-size=\"13\" shape-rendering=\"crispEdges\">\n<title>guest memory by class</title>\n",
		width, pic->rows * px + 34);
	for (uint8_t c = 0; c < CLI_CLASSES; c++)
		svg_class(f, pic, c, px);
	svg_legend(f, pic, info, px);
	fputs("</svg>\n", f);
	if (ferror(f))
		r = cis_fail(err, EIO, "%s: cannot be written", path);
	if (fclose(f) && !r)
		r = cis_fail(err, errno, "%s: %s", path, strerror(errno));
	return r;
}
