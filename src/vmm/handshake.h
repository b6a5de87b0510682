/*
 * What a guest's monitor says when it hands over its memory.
 *
 * Firecracker connects to our socket and sends one JSON array without length, newline or version, and its
 * userfaultfd with the first byte.  One object a region:
 *
 *	base_host_virt_addr	address in the monitor
 *	size			bytes
 *	offset			in the memory file: the sum of the sizes of the regions before
 *	page_size		bytes (v1.12 and later)
 *	page_size_kib		bytes too, whatever its name says (v1.7 and later)
 *
 * Without a page size it is 4096 (v1.1 to v1.6).  Keys that we do not know are ignored.  With a second
 * descriptor, the memory is a memfd mapped shared, in which a region lies at its offset.
 *
 * libcistern sends the same with one more key, "cistern", in the first object; each of its keys may be left
 * out:
 *
 *	kind		"anonymous": one descriptor; "shared" or "private": the memfd, or the base memfd, is
 *			the second
 *	ack		true: answer "k" once the guest is served, or "e" and the reason before closing
 *	allocated	true: the memfd's pages are allocated already, so that they can be filled in place
 *	regions		array of {"name": string, "gpa": guest physical address}, one for each region, both
 *			optional; they place a region in an image by its table instead of by its offset
 *
 * Nothing here waits, reads a descriptor or trusts a number.
 */
#ifndef CIS_VMM_HANDSHAKE_H
#define CIS_VMM_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "image/image.h"
#include "pager/pager.h"

#define CIS_HANDSHAKE_BYTES_MAX   (128u << 10)
#define CIS_HANDSHAKE_REGIONS_MAX 512
#define CIS_HANDSHAKE_NAME_BYTES  64 /* with its NUL */
#define CIS_HANDSHAKE_GUEST_MAX   (1ull << 44) /* bytes, as in an image */

/**
 * struct cis_guest_region - one range of guest memory
 * @hva:          its address in the monitor
 * @offset:       in the memory file, and in the memfd where there is one
 * @image_offset: in the image's memory file: @offset unless cis_guest_fit_image() placed it elsewhere
 * @name, @gpa:   "" and has_gpa false when not said
 *
 * All but gpa are multiples of page_bytes, 4096 or 2 MiB.  No two regions
 * share an address or an offset.
 */
struct cis_guest_region {
	uint64_t hva, bytes, offset, image_offset;
	uint32_t page_bytes;
	bool has_gpa;
	uint64_t gpa;
	char name[CIS_HANDSHAKE_NAME_BYTES];
};

/** struct cis_guest_layout - what was said; owned by the handshake, in the order of the array */
struct cis_guest_layout {
	struct cis_guest_region *regions;
	size_t nr_regions;
	uint64_t bytes; /* of all regions */
	bool has_kind;
	enum cis_kind kind;
	bool ack, allocated;
};

/** struct cis_handshake - one connection's; not thread-safe */
struct cis_handshake;

int cis_handshake_create(struct cis_handshake **ret);
void cis_handshake_destroy(struct cis_handshake *hs);

/**
 * cis_handshake_feed() - take the next bytes of the stream, cut anywhere
 * @ret_done: true when the array is complete and accepted; only white space may follow
 *
 * Memory: the bytes fed, 128 KiB at most; the JSON is parsed once, at its end.
 *
 * Return: 0; -EPROTO with what is wrong, for good: feed nothing more; -ENOMEM.
 */
int cis_handshake_feed(struct cis_handshake *hs, const void *bytes, size_t len, bool *ret_done,
		       struct cis_error *err);

/**
 * cis_handshake_end() - the stream ended.  Return: 0 when it was complete, else -EPROTO with what is missing.
 */
int cis_handshake_end(const struct cis_handshake *hs, struct cis_error *err);

/** cis_handshake_layout() - after cis_handshake_feed() said done; else NULL. */
struct cis_guest_layout *cis_handshake_layout(struct cis_handshake *hs);

/**
 * cis_layout_parse() - the complete text of a handshake
 *
 * The caller frees @ret->regions.  Return: 0, -EPROTO, -ENOMEM.
 */
int cis_layout_parse(const char *text, size_t len, struct cis_guest_layout *ret, struct cis_error *err);

/**
 * struct cis_guest_memory - the descriptors of a guest, known to be what they should
 * @uffd:       userfaultfd, non-blocking
 * @memfd:      -1 for anonymous memory
 * @can_shrink: the memfd cannot be sealed, so its owner may cut it: reading a mapping of it may raise SIGBUS
 * @features:   UFFD_FEATURE_ bits that the monitor asked for
 */
struct cis_guest_memory {
	int uffd, memfd;
	enum cis_kind kind;
	bool can_shrink;
	uint64_t features;
};

/**
 * cis_guest_take_fds() - look at what came with the handshake
 * @fds: borrowed; @ret holds the same numbers.  The caller closes them, also when they are refused
 *
 * A memfd that can be sealed against shrinking is; a userfaultfd that blocks
 * is made non-blocking, because a blocking one cannot be polled.
 *
 * Return: 0, or -EPROTO with the reason.
 */
int cis_guest_take_fds(const struct cis_guest_layout *layout, const int *fds, size_t nr,
		       struct cis_guest_memory *ret, struct cis_error *err);

/**
 * struct cis_guest_image - the numbers of an image that its guest must match
 * @path:   for messages
 * @blocks: its table of regions (format 6.5), may be empty
 */
struct cis_guest_image {
	const char *path;
	uint64_t guest_bytes;
	unsigned page_shift;
	const struct cis_region_entry *blocks;
	size_t nr_blocks;
};

/**
 * cis_guest_fit_image() - is the image one of this guest?  Sets each region's image_offset
 *
 * A region that says its guest physical address or its name is placed by the
 * image's table, if it has one, and must lie in it.  All others lie at their
 * offset; when no region was placed by the table, all together are as large as the image.
 *
 * Return: 0, or -EPROTO with the reason; image_offset is undefined then.
 */
int cis_guest_fit_image(struct cis_guest_layout *layout, const struct cis_guest_image *img,
			struct cis_error *err);

#endif
