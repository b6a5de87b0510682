/*
 * Tagged sections in a sealed memfd: what one process hands to the next, and what the keeper notes of a connection.
 *
 *	0	8	magic "CISSECT1"
 *	8	u32	version of the writer's set of sections, 1
 *	12	u32	number of sections
 *	16	u64	bytes in all
 *	24	u64	CRC64 of everything from 32 on
 *	32		sections: u32 tag, u32 flags, u64 bytes, the bytes, zeros up to a multiple of 8
 *
 * Little-endian.  Flag 1 (must know): a reader that does not know the tag refuses the whole; without it, it passes over it.
 * A tag may come more than once; the order is the writer's.
 */
#ifndef CIS_DAEMON_SECTIONS_H
#define CIS_DAEMON_SECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CIS_SECTIONS_MAX ((uint64_t)1 << 30)
#define CIS_SECTION_MUST 1u

struct cis_section {
	uint32_t tag, flags;
	const void *bytes;
	size_t len;
};

/** struct cis_sections - a writer's buffer; zeroed is empty; any thread, one at a time */
struct cis_sections {
	uint8_t *buf;
	size_t len, room;
	uint32_t nr;
	int error; /* the first failure; reported at the end */
};

/** cis_sections_add() - append one; failures are kept for cis_sections_seal(). */
void cis_sections_add(struct cis_sections *s, uint32_t tag, uint32_t flags, const void *bytes, size_t len);
/** cis_sections_finish() - the head; @ret points into @s.  Return: 0, -ENOMEM, -E2BIG. */
int cis_sections_finish(struct cis_sections *s, const void **ret, size_t *ret_len);
/** cis_sections_seal() - finish it as a memfd that nobody can change.  Return: 0, -ENOMEM, -E2BIG, of memfd_create(). */
int cis_sections_seal(struct cis_sections *s, const char *name, int *ret_fd);
/** cis_sections_put() - finish it and write it at @at, where there are @room bytes.  Return: 0, -ENOMEM, -E2BIG, of the file. */
int cis_sections_put(struct cis_sections *s, int fd, uint64_t at, size_t room);
void cis_sections_fini(struct cis_sections *s);

/** struct cis_sections_reader - over bytes that must stay */
struct cis_sections_reader {
	const uint8_t *at, *end;
	uint32_t left;
};

/** cis_sections_open() - check head, sizes and checksum of all.  Return: 0, -EBADMSG, -EPROTONOSUPPORT. */
int cis_sections_open(const void *bytes, size_t len, struct cis_sections_reader *ret, struct cis_error *err);
/** cis_sections_get() - open what cis_sections_put() has written there; @buf of @room bytes must stay.  Return: likewise, of the file. */
int cis_sections_get(int fd, uint64_t at, void *buf, size_t room, struct cis_sections_reader *ret, struct cis_error *err);
/** cis_sections_next() - @ret points into the bytes.  Return: false past the last. */
bool cis_sections_next(struct cis_sections_reader *r, struct cis_section *ret);

/**
 * cis_sections_load() - a descriptor's content, copied out
 * @sealed: refuse one that could still be written
 * @ret:    malloc'ed
 *
 * Return: 0, -EPERM (not sealed), -EFBIG, -ENOMEM, of the file.
 */
int cis_sections_load(int fd, bool sealed, void **ret, size_t *ret_len, struct cis_error *err);

#endif
