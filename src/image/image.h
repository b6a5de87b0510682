/*
 * Reading images: doc/format.md is the law.
 *
 * An open image is immutable and may be used by any thread at once.  It holds its metadata in memory (about
 * half a byte a guest page, 8 more a hot page, 16 a chunk) and an open descriptor for its data, never a
 * mapping: a bad disk must be an error, not a SIGBUS.
 */
#ifndef CIS_IMAGE_IMAGE_H
#define CIS_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "codec/codec.h"

#define CIS_IMAGE_ID_BYTES  32
#define CIS_IMAGE_DEPTH_MAX 8

enum cis_class { CIS_CLASS_ZERO, CIS_CLASS_SAME, CIS_CLASS_HOT, CIS_CLASS_COLD, CIS_CLASS_INHERIT };

const char *cis_class_name(enum cis_class cls);

struct cis_image;

/**
 * struct cis_image_medium - what reads the files of images in the place of pread()
 * @open:  a handle for one file; @fd is the image's
 * @read:  all of it.  Return: 0 or -errno
 *
 * An image that is opened with one is read by one thread at a time.
 */
struct cis_image_medium {
	int (*open)(const struct cis_image_medium *medium, int fd, void **ret_handle, struct cis_error *err);
	int (*read)(void *handle, void *buf, uint32_t len, uint64_t off);
	void (*close)(void *handle);
};

/**
 * struct cis_image_dirs - where parents are looked up, beside the folder of the image itself
 * @medium: by what they and the image are read, or NULL; outlives the images
 */
struct cis_image_dirs {
	const char *const *path;
	size_t nr;
	const struct cis_image_medium *medium;
};

/**
 * cis_image_open() - read and check header and metadata, open the chain of parents
 * @dirs: searched for parents by image id, or NULL
 * @ret:  one reference
 *
 * No data is read.  Return: 0; -ENOENT, -EACCES, ... of the file; -EMEDIUMTYPE
 * (not an image), -EBADMSG (damaged), -EPROTONOSUPPORT (a newer writer),
 * -ENOLINK (no such parent), -ELOOP (chain too deep), -ENOMEM.  The text names
 * the file, the place in it and the paragraph of the format.
 */
int cis_image_open(const char *path, const struct cis_image_dirs *dirs, struct cis_image **ret,
		   struct cis_error *err);

#define CIS_IMAGE_BLANK	    "blank:"
#define CIS_IMAGE_BLANK_MAX ((uint64_t)1 << 40)

/**
 * cis_image_blank() - an image that is in no folder, all of whose pages are zeros
 * @name: "blank:" and a size, "blank:4G", which alone says what is in it, the id too
 *
 * Return: 0; -EINVAL (the size); -ENOMEM, -EMFILE.
 */
int cis_image_blank(const char *name, struct cis_image **ret, struct cis_error *err);

/** cis_image_blank_bytes() - of the memory that a name says.  Return: 0 or -EINVAL. */
int cis_image_blank_bytes(const char *name, uint64_t *ret_bytes, struct cis_error *err);

/** cis_image_name_is_blank() - is that the name of one, whatever its size is? */
bool cis_image_name_is_blank(const char *name);

struct cis_image *cis_image_ref(struct cis_image *img);
void cis_image_unref(struct cis_image *img);

/** struct cis_region_entry - format 6.5; @name is owned by the image */
struct cis_region_entry {
	uint64_t offset;
	uint64_t gpa;
	uint64_t bytes;
	const char *name;
};

/** struct cis_image_info - what the header says; pointers are owned by the image */
struct cis_image_info {
	const char *path;
	uint8_t id[CIS_IMAGE_ID_BYTES];
	uint8_t parent_id[CIS_IMAGE_ID_BYTES];
	struct cis_image *parent; /* NULL without one */
	unsigned depth;
	uint64_t guest_bytes;
	unsigned page_shift, chunk_shift;
	uint64_t nr_pages, nr_zero, nr_same, nr_hot, nr_cold, nr_inherit;
	uint64_t nr_touched; /* pages of the working set that have no chunk */
	uint64_t nr_hot_chunks, nr_cold_chunks;
	uint64_t hot_off, hot_bytes, cold_off, cold_bytes, state_off, state_bytes, file_bytes;
	unsigned codec;
	uint64_t ignorable;
	const struct cis_region_entry *regions;
	size_t nr_regions;
	const char *provenance; /* "" when there is none */
	size_t memory_bytes;	/* what this image holds in memory, parents not counted */
};

const struct cis_image_info *cis_image_info(const struct cis_image *img);

/** cis_image_fd() - descriptor to pread stored chunks from; owned by the image. */
int cis_image_fd(const struct cis_image *img);

/** cis_image_class() - class of a page in this image itself (CIS_CLASS_INHERIT is not followed). */
enum cis_class cis_image_class(const struct cis_image *img, uint64_t pgno);

/**
 * struct cis_page_loc - where a page comes from, parents followed
 * @img:   the image of the chain that has it
 * @cls:   never CIS_CLASS_INHERIT
 * @word:  of a same page
 * @chunk: first chunk of a hot or cold page, in @img's numbers
 * @at:    offset of the page in that chunk's raw bytes (0 when the page spans chunks)
 */
struct cis_page_loc {
	const struct cis_image *img;
	enum cis_class cls;
	uint64_t word;
	uint64_t chunk;
	uint32_t at;
};

/** cis_image_locate() - O(1) but for a hot page: O(log nr_hot).  pgno < nr_pages. */
void cis_image_locate(const struct cis_image *img, uint64_t pgno, struct cis_page_loc *ret);

/** struct cis_chunk_loc - format 6.4; @off is from the start of the file */
struct cis_chunk_loc {
	uint64_t off;
	uint64_t checksum;
	uint32_t stored_bytes;
	uint32_t raw_bytes;
	unsigned codec;
};

void cis_image_chunk(const struct cis_image *img, uint64_t chunk, struct cis_chunk_loc *ret);

/**
 * cis_image_chunk_pages() - the pages whose first byte lies in a chunk
 * @max:      room in @ret_pgno; 2^(21-12) = 512 is always enough
 * @ret_pgno: page numbers in the order of the chunk's raw bytes
 *
 * Return: how many; the page number i starts at i * page size (0 or 1 pages
 * when a page spans chunks).
 */
size_t cis_image_chunk_pages(const struct cis_image *img, uint64_t chunk, size_t max, uint64_t *ret_pgno);

/** cis_image_hot_page() - page number at place @i of the hot order (i < nr_hot). */
uint64_t cis_image_hot_page(const struct cis_image *img, uint64_t i);

/** cis_image_touched() - number @i of the working set's pages without a chunk, ascending (i < nr_touched). */
uint64_t cis_image_touched(const struct cis_image *img, uint64_t i);

/** cis_image_params() - codec parameters for cis_decoder_create(); borrowed, may be NULL. */
struct cis_codec_params *cis_image_params(const struct cis_image *img);

/**
 * cis_image_decode() - decode one stored chunk and verify it
 * @dec:    this thread's decoder for @img
 * @stored: as read, cis_chunk_loc.stored_bytes long
 * @raw:    room for cis_chunk_loc.raw_bytes; rubbish after an error
 *
 * Return: 0, or -EBADMSG with the chunk, its place in the file and what is wrong.
 */
int cis_image_decode(const struct cis_image *img, struct cis_decoder *dec, uint64_t chunk, const void *stored,
		     void *raw, struct cis_error *err);

/**
 * cis_image_unpack(), cis_image_check() - the two halves of cis_image_decode()
 *
 * For who wants to time them, or to check a raw chunk where it lies.
 */
int cis_image_unpack(const struct cis_image *img, struct cis_decoder *dec, uint64_t chunk, const void *stored,
		     void *raw, struct cis_error *err);
int cis_image_check(const struct cis_image *img, uint64_t chunk, const void *raw, struct cis_error *err);

/**
 * struct cis_image_reader - reads whole pages one after the other; one thread
 *
 * For export, verify and tools: keeps the last chunk of each image of the
 * chain decoded.  Not the way of the pager.
 */
struct cis_image_reader;
int cis_image_reader_create(struct cis_image *img, struct cis_image_reader **ret);
void cis_image_reader_destroy(struct cis_image_reader *r);

/** cis_image_read_page() - page @pgno into @buf.  Return: 0, -EIO..., -EBADMSG. */
int cis_image_read_page(struct cis_image_reader *r, uint64_t pgno, void *buf, struct cis_error *err);

/** cis_image_read_state() - the VMM's state blob, malloc'ed, checked.  Return: 0, -ENODATA (none). */
int cis_image_read_state(const struct cis_image *img, void **ret, size_t *ret_len, struct cis_error *err);

#endif
