/*
 * Where the memory comes from that an image is made of: a raw file with holes, an ELF core, another image.
 *
 * One source is used by one thread at a time, ascending except for the pages of the hot section, which are
 * read in trace order.
 */
#ifndef CIS_IMAGE_SOURCE_H
#define CIS_IMAGE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/image.h"

struct cis_image_source {
	uint64_t guest_bytes;
	/* RAM blocks, when the source knows them (ELF cores do); owned by the source. */
	const struct cis_region_entry *regions;
	size_t nr_regions;

	/*
	 * The first extent of data at or after @from: [*ret_start, *ret_end), clipped to guest_bytes.  What
	 * lies between is a hole and is never read.  Return: 0, or -ENXIO when only a hole follows.
	 */
	int (*next_data)(struct cis_image_source *src, uint64_t from, uint64_t *ret_start, uint64_t *ret_end,
			 struct cis_error *err);
	/* Exactly @len bytes at @off; holes read as zeros.  Return: 0 or -errno, never short. */
	int (*read)(struct cis_image_source *src, uint64_t off, void *buf, size_t len, struct cis_error *err);
	void (*close)(struct cis_image_source *src);
};

/** cis_source_raw() - a headerless memory file; holes by SEEK_HOLE, where the file system has them. */
int cis_source_raw(const char *path, struct cis_image_source **ret, struct cis_error *err);

/**
 * cis_source_elf() - an ELF core as QEMU's dump-guest-memory writes it
 *
 * PT_LOAD segments, ascending by physical address, are laid one after the other
 * in the memory file, and become its regions.  Streaming; the file is hostile
 * until proved otherwise.
 */
int cis_source_elf(const char *path, struct cis_image_source **ret, struct cis_error *err);

/** cis_source_image() - all of an image, parents followed; zero pages are holes.  Takes a reference. */
int cis_source_image(struct cis_image *img, struct cis_image_source **ret, struct cis_error *err);

void cis_source_close(struct cis_image_source *src);

#endif
