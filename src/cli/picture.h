/* Pictures of guest memory: cells of pages by class, drawn in a terminal, as SVG or as PNG. */
#ifndef CIS_CLI_PICTURE_H
#define CIS_CLI_PICTURE_H

#include <stdio.h>

#include "image/image.h"

#define CLI_CLASSES 5

/** struct cli_picture - @cell is @columns x @rows of enum cis_class, row after row; @used of them lie in the
 * guest */
struct cli_picture {
	unsigned columns, rows;
	uint64_t used;
	uint64_t pages_per_cell;
	uint8_t *cell;
};

/**
 * cli_picture_make() - the class of most pages of each cell; on a tie the one that a restore cares for more
 * @columns: width
 * @rows:    at most so many; as many pages go into a cell as that takes
 *
 * Return: 0 or -ENOMEM.
 */
int cli_picture_make(const struct cis_image *img, unsigned columns, unsigned rows, struct cli_picture *ret);
void cli_picture_fini(struct cli_picture *pic);

/** cli_picture_print() - in colours when @colour, two rows to a line, else in letters. */
void cli_picture_print(const struct cli_picture *pic, bool colour);

/** cli_picture_legend() - which colour or letter is which class, and how many pages a cell has. */
void cli_picture_legend(const struct cli_picture *pic, const struct cis_image_info *info, bool colour);

/** cli_picture_svg(), cli_picture_png() - write a file.  Return: 0 or -errno. */
int cli_picture_svg(const struct cli_picture *pic, const struct cis_image_info *info, const char *path,
		    struct cis_error *err);
int cli_picture_png(const struct cli_picture *pic, const char *path, struct cis_error *err);

/** cli_class_rgb() - 0xRRGGBB, the same in every kind of picture. */
uint32_t cli_class_rgb(enum cis_class cls);

#endif
