/* Does an image belong to this guest?  Only numbers are compared: an image is opened by others. */
#include <errno.h>
#include <string.h>

#include "vmm/handshake.h"

typedef unsigned long long ull;

static int check_pages(const struct cis_guest_region *reg, const struct cis_guest_image *img,
		       struct cis_error *err)
{
	if (reg->page_bytes <= 1ull << img->page_shift)
		return 0;
	return cis_fail(err, EPROTO, "pages of 2 MiB, but the image has pages of 4 KiB: "
			"run `cistern image optimize %s OUT --page 2M` and use OUT", img->path);
}

static bool is_placed(const struct cis_guest_region *reg, const struct cis_guest_image *img)
{
	return img->nr_blocks && (reg->has_gpa || reg->name[0]);
}

/* The block that holds the region's first byte by its guest physical address, else the one of its name. */
static const struct cis_region_entry *find_block(const struct cis_guest_region *reg,
						 const struct cis_guest_image *img)
{
	for (size_t i = 0; i < img->nr_blocks; i++) {
		const struct cis_region_entry *b = &img->blocks[i];

		if (reg->has_gpa ? reg->gpa >= b->gpa && reg->gpa - b->gpa < b->bytes :
				   !strcmp(reg->name, b->name))
			return b;
	}
	return NULL;
}

static int place(struct cis_guest_region *reg, const struct cis_guest_image *img, struct cis_error *err)
{
	const struct cis_region_entry *b = find_block(reg, img);
	uint64_t at;

	if (!b && reg->has_gpa)
		return cis_fail(err, EPROTO, "%s has no memory at guest address 0x%llx", img->path,
				(ull)reg->gpa);
	if (!b)
		return cis_fail(err, EPROTO, "%s has no memory named \"%s\"", img->path, reg->name);
	at = reg->has_gpa ? reg->gpa - b->gpa : 0;
	if (reg->bytes > b->bytes - at)
		return cis_fail(err, EPROTO, "%llu bytes, but %s holds %llu there (\"%s\")", (ull)reg->bytes,
				img->path, (ull)(b->bytes - at), b->name);
	reg->image_offset = b->offset + at;
	if (reg->image_offset % reg->page_bytes)
		return cis_fail(err, EPROTO, "lies at %llu in %s, which is not a multiple of its page size",
				(ull)reg->image_offset, img->path);
	return 0;
}

static int check_shared(const struct cis_guest_layout *layout, struct cis_error *err)
{
	for (size_t i = 1; i < layout->nr_regions; i++)
		for (size_t j = 0; j < i; j++) {
			const struct cis_guest_region *a = &layout->regions[i], *b = &layout->regions[j];

			if (a->image_offset < b->image_offset + b->bytes &&
			    b->image_offset < a->image_offset + a->bytes)
				return cis_fail(err, EPROTO, "handshake: regions %zu and %zu are the same "
						"place of the image", j, i);
		}
	return 0;
}

/* The last page of an image may be longer than what it holds of it. */
static uint64_t round_up(uint64_t bytes, uint64_t page)
{
	return (bytes + page - 1) / page * page;
}

int cis_guest_fit_image(struct cis_guest_layout *layout, const struct cis_guest_image *img,
			struct cis_error *err)
{
	uint64_t page = 1ull << img->page_shift, end = round_up(img->guest_bytes, page);
	size_t nr_placed = 0;

	for (size_t i = 0; i < layout->nr_regions; i++) {
		struct cis_guest_region *reg = &layout->regions[i];
		int r = check_pages(reg, img, err);

		reg->image_offset = reg->offset;
		nr_placed += is_placed(reg, img);
		if (!r && is_placed(reg, img))
			r = place(reg, img, err);
		if (!r && reg->image_offset + reg->bytes > end)
			r = cis_fail(err, EPROTO,
				     "ends at %llu, but %s holds %llu bytes: not an image of this guest",
				     (ull)(reg->image_offset + reg->bytes), img->path, (ull)img->guest_bytes);
		if (r)
			return cis_fail_prefix(err, EPROTO, "handshake: region %zu", i);
	}
	if (nr_placed)
		return check_shared(layout, err);
	if (end - layout->bytes >= page)
		return cis_fail(
			err, EPROTO,
			"handshake: the guest has %llu bytes, %s holds %llu: not an image of this guest",
			(ull)layout->bytes, img->path, (ull)img->guest_bytes);
	return 0;
}
