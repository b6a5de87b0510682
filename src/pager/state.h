/*
 * The state memfd of a guest: what must outlive the engine.
 *
 *	0		header, 4096 bytes: magic, layout, generation, sizes, checksum; ring indices
 *	ring_off	ring of userfault events, read straight from the kernel into it
 *	...		layout 2: statistics
 *	words_off	one 8-byte word a page
 *	...		layout 2: the trace being recorded, 4 bytes a page
 *	stash_off	layout 3: the stash, where reclaimed pages wait; a hole where nothing lies
 *
 * doc/state.md has it byte by byte.  The keeper creates and sizes it and holds a descriptor; the engine alone writes it, from the guest's shard.  Each word is
 * written before the step that it allows, so a new engine finds what the dead one was about to do.
 */
#ifndef CIS_PAGER_STATE_H
#define CIS_PAGER_STATE_H

#include <stddef.h>
#include <stdint.h>
#include <linux/userfaultfd.h>

#include "base/error.h"

/* Layouts that are known. */
#define CIS_STATE_LAYOUT_MIN 1u
#define CIS_STATE_LAYOUT_MAX 3u
#define CIS_RING_SLOTS	 1024u /* 32 KiB */
#define CIS_STATS_ROOM	 32768u
#define CIS_STASH_SEGMENT (256u << 10)
#define CIS_STASH_MAX ((256ull << 30) - CIS_STASH_SEGMENT) /* what a page's cookie can say, in units of 64 bytes */

/**
 * enum cis_page_state - the states of architecture.md
 *
 * A zeroed state memfd is a guest with nothing resident.
 */
enum cis_page_state {
	CIS_PAGE_ABSENT,   /* the image is the authority */
	CIS_PAGE_BUSY,	   /* being installed; the cookie says by whom */
	CIS_PAGE_RESIDENT, /* the guest is */
	CIS_PAGE_CLEAN,	   /* the guest, and it is unwritten since it was installed */
	CIS_PAGE_REMOVED,  /* given back by the guest: zeros from now on */
	CIS_PAGE_POISONED, /* cannot be produced */
	/* Layout 3. */
	CIS_PAGE_STASHED, /* reclaimed: the stash is the authority; the cookie says where */
	CIS_PAGE_INFLIGHT, /* likewise, and it is being written to the store */
	CIS_PAGE_FAR,	  /* reclaimed: the store is; the cookie is the store's loc.  Likewise of a CLEAN page: both have it */
	CIS_PAGE_STATES
};

/*
 * Beside a state, in its byte; layout 3.
 *
 * HELD: a reclaim job is at the page.  With RESIDENT or CLEAN it may be copying it, with any other state the page is to be punched, or
 * has been: its authority is already what the state says.  Nothing is installed there, and who faults waits for the job.
 *
 * COMING, with STASHED or FAR: being installed from there.  After a crash the page may be in the guest, or not.
 */
#define CIS_WORD_HELD	0x80u
#define CIS_WORD_COMING 0x40u
#define CIS_WORD_FLAGS	(CIS_WORD_HELD | CIS_WORD_COMING)

const char *cis_page_state_name(enum cis_page_state state);

/*
 * A page word: bits 0-5 state, 6-7 flags, 8-31 generation, 32-63 cookie.  The generation rises with every REMOVE, so that a
 * completion that began before it is known for stale.
 */
static inline enum cis_page_state cis_word_state(uint64_t word)
{
	return (enum cis_page_state)(word & 0x3f);
}

static inline unsigned cis_word_flags(uint64_t word)
{
	return word & CIS_WORD_FLAGS;
}

static inline uint32_t cis_word_generation(uint64_t word)
{
	return (uint32_t)(word >> 8) & 0xffffff;
}

static inline uint32_t cis_word_cookie(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

static inline uint64_t cis_word_make(enum cis_page_state state, uint32_t generation, uint32_t cookie)
{
	return (uint64_t)state | (uint64_t)(generation & 0xffffff) << 8 | (uint64_t)cookie << 32;
}

/*
 * The cookie of a RESIDENT page of private memory that was given zeros of its own: what its base has is another content, and is
 * not mapped should the page fault again.
 */
#define CIS_RESIDENT_ZERO 1u

/** struct cis_state_header - as in the memfd, in the host's byte order: it never leaves the host */
struct cis_state_header {
	char magic[8]; /* "CISSTATE" */
	uint32_t layout;
	uint32_t ring_slots;
	uint64_t generation; /* of the engine that serves it */
	uint64_t nr_pages;
	uint64_t ring_off, words_off, bytes;
	uint64_t checksum; /* of the fields above */

	/* Written by the shard.  Slots [tail, head) hold events not yet acted on; all others are zeroed. */
	_Alignas(64) uint64_t ring_head;
	uint64_t ring_tail;

	/* Likewise.  Not in layout 1, where they are zero; but filled_by in both. */
	uint64_t stats_bytes; /* of the statistics that are in use; all beyond are zero */
	uint64_t nr_trace;
	uint32_t recording; /* 0 or 1 */
	uint32_t filled;    /* enum cis_fill: the level that is complete */
	uint32_t filled_by; /* enum cis_filled_by */

	/* The key of what is sealed in stores, once there is one.  The page is locked in memory, and nobody prints it. */
	uint32_t has_key;
	uint8_t key[32];
};

/**
 * enum cis_filled_by - how pages of shared memory come in
 *
 * An engine that takes over does as the one before: content that is decoded in place would
 * overwrite what a copied page, killed before its word said RESIDENT, has become since.
 */
enum cis_filled_by {
	CIS_FILLED_UNKNOWN, /* no shared memory, or an engine that did not say */
	CIS_FILLED_BY_COPY,
	CIS_FILLED_IN_PLACE,
};

/** struct cis_state - a mapped state memfd; one shard writes it */
struct cis_state {
	struct cis_state_header *header;
	struct uffd_msg *ring;
	uint64_t *words;
	void *stats;	 /* CIS_STATS_ROOM bytes; NULL in layout 1 */
	uint32_t *trace; /* nr_pages entries; NULL in layout 1 */
	char *stash;	 /* NULL before layout 3 */
	uint64_t stash_bytes;
	uint64_t bytes;
};

/** cis_state_bytes() - size of the memfd for a guest of @nr_pages pages, in a layout that is known. */
uint64_t cis_state_bytes(unsigned layout, uint64_t nr_pages);

/**
 * cis_state_init() - write the header of a new state memfd: zeroed, but for what another engine's cis_state_init() came to
 * @map: cis_state_bytes(layout, nr_pages) of it, mapped shared; unmapped by the caller in the end
 */
void cis_state_init(void *map, unsigned layout, uint64_t nr_pages, uint64_t generation, struct cis_state *ret);

/**
 * cis_state_lock() - keep header and ring in memory, so that reading events never waits for a page of its own
 *
 * Return: 0, or -ENOMEM, -EPERM where the limit of locked memory is too low; they are present then, but may be swapped.
 */
int cis_state_lock(const struct cis_state *st);

/**
 * cis_state_adopt() - check one that another engine has left
 *
 * Return: 0; -ENODATA (no engine has finished cis_state_init(), so none has served its
 * guest: do that), -EBADMSG (magic, checksum, sizes, a word or an index that no
 * engine writes), -EPROTONOSUPPORT (a layout that is not known).
 */
int cis_state_adopt(void *map, uint64_t bytes, struct cis_state *ret, struct cis_error *err);

/**
 * cis_state_convert() - write another layout of a state
 * @from:       of cis_state_adopt() or cis_state_init(); not changed
 * @map:        as for cis_state_init(), of @layout; never that of @from
 * @generation: of the engine that is going to serve it
 *
 * Words and events go over, and what both layouts have; layout 1 forgets statistics and
 * trace.  The new one can be adopted only when it is complete.
 *
 * Return: 0, -EPROTONOSUPPORT for a layout that is not known, -EBUSY where pages are out of
 * the guest, which the other layout has no words for.
 */
int cis_state_convert(const struct cis_state *from, void *map, unsigned layout, uint64_t generation, struct cis_state *ret,
		      struct cis_error *err);

/** cis_state_set_generation() - of the engine that serves it now; at each instant one of both can be adopted. */
void cis_state_set_generation(struct cis_state *st, uint64_t generation);

/**
 * cis_ring_room() - where the next events go, and how many fit there in one piece
 *
 * The kernel's read() writes into it; cis_ring_commit() makes them part of the
 * ring.  Between the two the slots are in the memfd but not counted: a new
 * engine looks there for events with a type.
 */
struct uffd_msg *cis_ring_room(struct cis_state *st, size_t *ret_max);
void cis_ring_commit(struct cis_state *st, size_t n);

static inline uint64_t cis_ring_used(const struct cis_state *st)
{
	return st->header->ring_head - st->header->ring_tail;
}

/** cis_ring_at() - event number @i from the tail (i < used). */
static inline struct uffd_msg *cis_ring_at(struct cis_state *st, uint64_t i)
{
	return &st->ring[(st->header->ring_tail + i) % CIS_RING_SLOTS];
}

/** cis_ring_drop() - the first @n events have been acted on. */
void cis_ring_drop(struct cis_state *st, size_t n);

/** cis_ring_clear() - drop all events, and all that were not committed. */
void cis_ring_clear(struct cis_state *st);

#endif
