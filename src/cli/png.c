/* A picture as PNG (ISO/IEC 15948): four bits a cell and a palette, compressed by ISA-L. */
#include <errno.h>
#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/picture.h"

static void put_be32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static void put_chunk(FILE *f, const char *type, const uint8_t *data, uint32_t len)
{
	uint8_t word[4];
	uint32_t crc;

	put_be32(word, len);
	fwrite(word, 1, 4, f);
	fwrite(type, 1, 4, f);
	fwrite(data, 1, len, f);
	crc = crc32_gzip_refl(0, (const unsigned char *)type, 4);
	put_be32(word, crc32_gzip_refl(crc, data, len));
	fwrite(word, 1, 4, f);
}

/* Each row: filter type 0, then two cells a byte.  What lies beyond the guest has the last colour, white. */
static uint8_t *pack_rows(const struct cli_picture *pic, size_t *ret_len)
{
	size_t row_bytes = 1 + (pic->columns + 1) / 2;
	uint8_t *raw = calloc(pic->rows, row_bytes);

	for (unsigned row = 0; raw && row < pic->rows; row++)
		for (unsigned col = 0; col < pic->columns; col++) {
			uint8_t cell = pic->cell[(size_t)row * pic->columns + col];
			uint8_t colour = cell < CLI_CLASSES ? cell : CLI_CLASSES;

			raw[row * row_bytes + 1 + col / 2] |= (uint8_t)(col % 2 ? colour : colour << 4);
		}
	*ret_len = pic->rows * row_bytes;
	return raw;
}

static int compress(uint8_t *raw, size_t len, uint8_t **ret, uint32_t *ret_len)
{
	size_t room = len + len / 8 + 1024;
	struct isal_zstream stream;

	*ret = malloc(room);
	if (!*ret)
		return -ENOMEM;
	isal_deflate_stateless_init(&stream);
	stream.gzip_flag = IGZIP_ZLIB;
	stream.end_of_stream = 1;
	stream.next_in = raw;
	stream.avail_in = (uint32_t)len;
	stream.next_out = *ret;
	stream.avail_out = (uint32_t)room;
	if (isal_deflate_stateless(&stream) != COMP_OK)
		return -ENOSPC;
	*ret_len = stream.total_out;
	return 0;
}

static void write_png(FILE *f, const struct cli_picture *pic, const uint8_t *data, uint32_t len)
{
	static const uint8_t signature[] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
	uint8_t head[13] = { 0 }, palette[3 * (CLI_CLASSES + 1)];

	put_be32(head, pic->columns);
	put_be32(head + 4, pic->rows);
	head[8] = 4; /* bits a cell */
	head[9] = 3; /* of a palette */
	memset(palette, 255, sizeof(palette));
	for (unsigned c = 0; c < CLI_CLASSES; c++) {
		palette[3 * c] = (uint8_t)(cli_class_rgb(c) >> 16);
		palette[3 * c + 1] = (uint8_t)(cli_class_rgb(c) >> 8);
		palette[3 * c + 2] = (uint8_t)cli_class_rgb(c);
	}
	fwrite(signature, 1, sizeof(signature), f);
	put_chunk(f, "IHDR", head, sizeof(head));
	put_chunk(f, "PLTE", palette, sizeof(palette));
	put_chunk(f, "IDAT", data, len);
	put_chunk(f, "IEND", data, 0);
}

int cli_picture_png(const struct cli_picture *pic, const char *path, struct cis_error *err)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t raw_len;
	_cleanup_free_ uint8_t *raw = pack_rows(pic, &raw_len);
	uint32_t len = 0;
	FILE *f;
	int r = raw ? compress(raw, raw_len, &data, &len) : -ENOMEM;

	if (r)
		return cis_fail(err, -r, "%s: %s", path, strerror(-r));
	f = fopen(path, "we");
	if (!f)
		return cis_fail(err, errno, "%s: %s", path, strerror(errno));
	write_png(f, pic, data, len);
	if (ferror(f))
		r = cis_fail(err, EIO, "%s: cannot be written", path);
	if (fclose(f) && !r)
		r = cis_fail(err, errno, "%s: %s", path, strerror(errno));
	return r;
}
