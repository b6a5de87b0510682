/* What the files of the pager share. */
#ifndef CIS_PAGER_INTERNAL_H
#define CIS_PAGER_INTERNAL_H

#include <pthread.h>

#include "base/bitmap.h"
#include "pager/pager.h"
#include "pager/stash.h"

#define CIS_NEIGHBOUR_ZEROS 16u /* zero pages installed with one that faulted, 64 KiB as a chunk */

struct cis_fault;

/** struct cis_deferred - a fault that has to be tried again */
struct cis_deferred {
	uint64_t pgno, since_ns;
	uint64_t due_ns; /* UINT64_MAX: waits for the job that has the page, not for time */
	unsigned tries;
};

/**
 * struct cis_fetch - chunks being read for a fault
 *
 * Pages that somebody waits for are BUSY with cookie @id meanwhile; faults on
 * other pages of the same chunks find it by @img and @chunk and join it.
 */
struct cis_fetch {
	struct cis_pager *p;
	uint32_t id;
	const struct cis_image *img; /* of the chain, so it lives as long as the pager */
	uint64_t chunk;
	unsigned nr_chunks;
	unsigned tries, damaged;	       /* reads that failed; those of them whose bytes were wrong */
	unsigned fault_tries;		       /* of the faults that wait for it: installs without memory add up */
	uint64_t since_ns, start_ns, retry_ns; /* retry_ns: not in flight, waits for that time; else 0 */
	uint64_t begun_ns;
	uint64_t overdue_ns; /* in flight: its store should have given it up before then; 0: may take for ever */
	uint64_t span_off;		       /* of the first stored byte in the buffer */
	struct cis_iobuf *buf;
	struct cis_store_req req;
	int in_flight;
	bool timed; /* by stage */
	struct cis_fetch *next;
};

#define CIS_EVICT_PAGES 64u

/**
 * struct cis_evict_job - pages to be reclaimed: claimed and settled by the shard (reclaim.c), done by a worker (evict.c)
 *
 * In between each word is HELD, and the worker's to change but for a REMOVE, which takes its page away.
 */
struct cis_evict_job {
	struct cis_pager *p;
	enum cis_codec codec;
	uint32_t seq; /* evictions of the guest when it was claimed */
	size_t nr;
	uint64_t pgno[CIS_EVICT_PAGES]; /* ascending */
	uint64_t was[CIS_EVICT_PAGES];	/* what it was claimed with, HELD */
	uint64_t word[CIS_EVICT_PAGES]; /* what the worker has made of it */
	enum cis_evicted { CIS_EVICT_KEPT, CIS_EVICT_PROTECTED, CIS_EVICT_OUT } how[CIS_EVICT_PAGES];
	size_t at;
	bool copied; /* all are; what is left is to punch */
	bool no_room;
	uint64_t nr_zero, nr_clean;
};

/** struct cis_get - a page that is being read, its word FAR and COMING */
struct cis_get {
	struct cis_pager *p;
	uint64_t pgno, word;
	uint64_t since_ns, begun_ns;
	uint64_t retry_ns; /* not in flight: when it is tried again; else 0 */
	unsigned tries;
	bool write, cancelled;
	struct cis_store_req req;
	struct cis_get *next;
	_Alignas(8) char value[CIS_VALUE_MAX];
};

/** struct cis_delete - a copy that nobody wants */
struct cis_delete {
	struct cis_pager *p;
	struct cis_store_req req;
	struct cis_delete *next;
};

/** struct cis_put - a value that is being written; its word is INFLIGHT, unless it is an orphan */
struct cis_put {
	struct cis_pager *p;
	uint64_t pgno, word;
	uint32_t loc; /* in the stash */
	bool orphan;  /* the page has come back, or was removed */
	bool cancelled;
	struct cis_store_req req;
	struct cis_put *next;
};

/** struct cis_reclaim - of a pager; the shard's */
struct cis_reclaim {
	struct cis_reclaim_opts o;
	bool on;
	bool claimed;	      /* the stash knows all that lies in it */
	uint64_t budget;      /* pages */
	uint32_t *fifo;	      /* a ring: pages in the order in which they came, those that have gone among them */
	uint64_t fifo_slots;  /* at least nr_pages, whole chunks, each of which is given back when all of it has gone */
	uint64_t head, tail;  /* of it; slot number n is in n % nr_pages */
	uint64_t *listed;     /* bitmap: it is in the list, so each page once at most */
	uint64_t *unsure; /* bits: of pages in the stash, that a put may have left in the store all the same, under the same key */
	uint8_t *chances;     /* by page: turns for which it stays in the list, and << 4 how many it was given last */
	uint64_t scanned;     /* pages below were looked at, whether they are resident; those that come are listed as they come */
	struct cis_stash stash;
	unsigned jobs_out;
	uint64_t full_ns;     /* the stash had no room: not before then */
	uint32_t seq;	      /* evictions */

	/* the store */
	struct cis_get *gets; /* under way, or waiting to be tried again */
	unsigned nr_gets;
	struct cis_put *puts; /* under way */
	unsigned nr_puts;
	uint64_t put_bytes;   /* of these, in the stash */
	uint64_t cursor, cursor_end; /* of the segment of the stash that is being written out; 0: none */
	bool held;	      /* values in that segment were passed over since reclaim is at them */
	bool idle;	      /* the last step found nothing to write: what there is was held, and comes with what is stashed next */
	uint64_t put_ns, put_pause_ns; /* the store has refused one: not before then, and how long */
	struct cis_delete *dels; /* asked for, not submitted yet */
	unsigned nr_dels, nr_deleting;
	struct cis_trend {
		int64_t step[32]; /* between the last faults */
		unsigned nr;	  /* of them ever */
		uint64_t last;
		unsigned window;  /* pages ahead */
		uint64_t used;	  /* faults of the guest until it was used last */
		uint64_t probe;	  /* page number + 1; 0: none is out */
	} trend[8];
	uint64_t trend_uses;
	uint64_t forget_at;   /* page that cis_pager_forget_far() has come to */
	bool forget_failed;   /* the store does not delete any more */
};

struct cis_pager {
	struct cis_pager_opts o; /* as created, but for regions and image, which are kept below */
	struct cis_region *regions;
	size_t nr_regions;
	struct cis_image *image;
	unsigned page_shift;
	uint64_t nr_pages;
	bool is_gone, is_detached, running; /* running: in cis_pager_run() */
	bool paused;
	uint64_t generation; /* of the engine that made this pager */
	uint64_t *reported;    /* bitmap of pages that failed and were told; NULL before the first */
	uint64_t *stalled;     /* and of those that somebody waits for; likewise */
	uint64_t nr_stalled;
	bool kill_told;
	uint64_t trouble_told_ns;
	uint64_t now_ns; /* when the clock was last read: good enough where nothing slow came between */
	uint32_t next_id; /* of jobs and fetches; never 0 */

	struct cis_deferred *deferred;
	size_t nr_deferred, max_deferred;
	bool retrying;	  /* in cis_fault_retry(), which a store that completes at once would enter again */
	bool waiters_due; /* a job has ended: the next pass looks at those that waited for one */

	/*
	 * Not 0: the kernel has said EAGAIN, so it installs nothing anywhere before events are read.  Everything is put
	 * off to this time; cis_pager_run() reads first and then clears it.
	 */
	uint64_t blocked_ns;

	uint64_t nr_left, left_ns; /* events in the ring that the last run had no time for; when the first was read */
	uint64_t faulted_ns; /* when faults were acted on last */
	uint64_t refaults; /* read by others */
	uint64_t slice_ns;	   /* what the last run took; 0: next to nothing */
	unsigned slice_events;

	struct cis_fetch *fetches; /* under way or waiting to be retried */
	struct cis_fetch *spare;
	unsigned nr_fetches;

	/*
	 * Taken for reading by a worker around "look at the words, install", for writing by the shard around reading
	 * events.  A REMOVE that was read lets the guest go on and zap the range; an install decided on before it and
	 * done after it would bring old content back (vmm-protocols.md hazard 6).
	 */
	pthread_rwlock_t gate;
	uint64_t pages_installed; /* claimed pages made RESIDENT, by workers too */

	/* fill */
	enum cis_fill want, have;
	const struct cis_image *fill_img;
	uint64_t fill_chunk; /* the next one to hand out, of fill_img */
	uint64_t fill_touched;
	bool scan_more, touch_more; /* broken off, there is more to look at */
	uint64_t sweep;	     /* next page of the final pass */
	uint64_t sweep_missed;
	bool fill_busy; /* too many reads are under way for one more of the sweep */
	uint64_t again_ns, pause_ns; /* not before then; the pause before it */
	uint64_t trouble_ns, trouble_pause_ns; /* likewise, as a read failed; 0: none did of late */
	unsigned jobs_out, hot_jobs_out;
	uint64_t fill_done, fill_total;

	/* recording */
	uint64_t *seen; /* bitmap; NULL when not recording */
	uint32_t *trace; /* nr_pages entries, in the state memfd when its layout has them */
	uint64_t nr_trace;

	struct cis_pager_stats *stats; /* likewise */

	uint64_t pages[CIS_PAGE_STATES]; /* words by state, as the shard has written them: pages_installed of BUSY are RESIDENT */
	struct cis_reclaim reclaim;	 /* with a stash of a state of layout 3, else all zeros */
};

static inline uint64_t cis_page_bytes(const struct cis_pager *p)
{
	return (uint64_t)1 << p->page_shift;
}

static inline uint64_t cis_pager_now(struct cis_pager *p)
{
	p->now_ns = p->o.clock(p->o.clock_ctx);
	return p->now_ns;
}

/* Words are written by the shard alone and read by workers. */
static inline uint64_t cis_word_load(const struct cis_pager *p, uint64_t pgno)
{
	return __atomic_load_n(&p->o.state.words[pgno], __ATOMIC_ACQUIRE);
}

/* One writer, and readers on other threads. */
static inline void cis_count(uint64_t *count, int by)
{
	__atomic_store_n(count, *count + (uint64_t)by, __ATOMIC_RELAXED);
}

/* What there is to do about a page: one that reclaim is at, or that is on its way back, is BUSY whatever its state. */
static inline enum cis_page_state cis_page_state_at(const struct cis_pager *p, uint64_t pgno)
{
	uint64_t word = cis_word_load(p, pgno);

	return cis_word_flags(word) ? CIS_PAGE_BUSY : cis_word_state(word);
}

static inline bool cis_word_resident(uint64_t word)
{
	return cis_word_state(word) == CIS_PAGE_RESIDENT || cis_word_state(word) == CIS_PAGE_CLEAN;
}

static inline bool cis_word_stashed(uint64_t word)
{
	return cis_word_state(word) == CIS_PAGE_STASHED || cis_word_state(word) == CIS_PAGE_INFLIGHT;
}

/** cis_word_counted() - the shard has changed a word, or hears of it. */
static inline void cis_word_counted(struct cis_pager *p, uint64_t from, uint64_t to)
{
	cis_count(&p->pages[cis_word_state(from)], -1);
	cis_count(&p->pages[cis_word_state(to)], 1);
}

static inline void cis_word_store(struct cis_pager *p, uint64_t pgno, uint64_t word)
{
	cis_word_counted(p, cis_word_load(p, pgno), word);
	__atomic_store_n(&p->o.state.words[pgno], word, __ATOMIC_RELEASE);
}

/* Change the state, keep the generation; flags go. */
static inline void cis_page_set(struct cis_pager *p, uint64_t pgno, enum cis_page_state state, uint32_t cookie)
{
	cis_word_store(p, pgno, cis_word_make(state, cis_word_generation(cis_word_load(p, pgno)), cookie));
}

/** cis_page_claim() - it is ABSENT, and BUSY with @cookie from now on. */
void cis_page_claim(struct cis_pager *p, uint64_t pgno, uint32_t cookie);

/** cis_page_give_back() - a page that was claimed with @cookie and not installed is ABSENT again. */
void cis_page_give_back(struct cis_pager *p, uint64_t pgno, uint32_t cookie);

uint32_t cis_pager_new_id(struct cis_pager *p);
void cis_pager_set_gone(struct cis_pager *p);

/** cis_region_of_page() - the region that has the page, or NULL when no region does. */
const struct cis_region *cis_region_of_page(const struct cis_pager *p, uint64_t pgno);
/** cis_region_of_hva() - and the page number there. */
const struct cis_region *cis_region_of_hva(const struct cis_pager *p, uint64_t hva, uint64_t *ret_pgno);

static inline uint64_t cis_hva_of_page(const struct cis_pager *p, const struct cis_region *r, uint64_t pgno)
{
	return r->hva + (pgno << p->page_shift) - r->offset;
}

/* install.c: kernel calls on runs of pages, and their words. */

/**
 * cis_install_run() - put @nr pages from @src into the guest; any thread, a worker under the gate
 * @pgno:     first page; all in region @r, and their words BUSY with @cookie
 * @src:      in the region's alias, where they belong: content is complete there
 * @ret_done: pages that are in place now, from the first on, also on error
 *
 * A page that is there already counts as done: it has the same content or a newer one.
 *
 * Words of copied pages are RESIDENT after the kernel has them.  Where there is an alias, all are
 * RESIDENT before the first is mapped, and stay so when mapping fails: a fault maps them.  Words
 * that are BUSY afterwards were not installed (cis_page_give_back()).
 *
 * Return: 0; -EAGAIN (the address space is changing: events are waiting, or will
 * be done soon); -ESRCH (the guest is gone); -ENOENT (not mapped or not ours any
 * more); -ENOMEM, ...
 */
int cis_install_run(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, const char *src,
		    uint32_t cookie, uint64_t *ret_done);

/** cis_install_zero() - likewise, zeros; on the shard, words may be anything.  @zero: CIS_SPAN_MAX zeros. */
int cis_install_zero(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, const char *zero,
		     uint64_t *ret_done);

/**
 * cis_install_clean() - one page of copied memory that is FAR and COMING: CLEAN, and protected against writes
 *
 * Return: as cis_install_run(), but for -EEXIST, with which nothing is done.
 */
int cis_install_clean(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, const char *src, uint64_t *ret_done);

/** cis_install_room() - before the alias of pages is written to: that they have memory.  Return: 0 or -ENOMEM. */
int cis_install_room(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr);

/** cis_install_map() - likewise, what lies in the region's memfd already; words are left alone. */
int cis_install_map(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, uint64_t *ret_done);

/* events.c */

/** cis_remove_mark() - the pages of [start, end) are REMOVED. */
void cis_remove_mark(struct cis_pager *p, uint64_t start, uint64_t end);

/* adopt.c */

/** cis_adopt() - the state was another engine's: act on what it had read, and take over what it was at.  Return: 0 or -EBADMSG. */
int cis_adopt(struct cis_pager *p, struct cis_error *err);

/* fault.c */

/** struct cis_fault - a thread of the guest waits for a page */
struct cis_fault {
	uint64_t pgno;
	uint64_t since_ns; /* when its event was read; 0: the fill's, nobody waits */
	unsigned tries;
	bool minor; /* the page is in the region's memfd already */
	bool protected; /* the page is there, and protected against the write */
	bool write;
};

void cis_fault(struct cis_pager *p, const struct cis_fault *f);

/** cis_fault_trouble() - an install for a fault ended with @rc: put the fault off, drop it or fail it. */
void cis_fault_trouble(struct cis_pager *p, const struct cis_fault *f, int rc);

/** cis_fault_busy() - too many reads are under way: put it off, until one ends (UINT64_MAX) or to a time; the fill comes back by itself. */
void cis_fault_busy(struct cis_pager *p, const struct cis_fault *f, uint64_t due_ns);

/** cis_fault_fail() - the page cannot be produced: act on the policy.  The fill's: only if no later try can bring it either. */
void cis_fault_fail(struct cis_pager *p, const struct cis_fault *f, const struct cis_error *err);

/** cis_fault_answered() - count one that is over, and its time; @class: of the statistics, by what answered it. */
void cis_fault_answered(struct cis_pager *p, const struct cis_fault *f, uint64_t *class);

/** cis_fault_waits() - is a fault on the page put off? */
bool cis_fault_waits(const struct cis_pager *p, uint64_t pgno);

/** cis_fault_retry() - those put off that are due; with @job_over also those that waited for a job. */
void cis_fault_retry(struct cis_pager *p, bool job_over);
uint64_t cis_fault_deadline(const struct cis_pager *p);

/** cis_page_is_zero() - absent, in the region, and zero in the image. */
bool cis_page_is_zero(const struct cis_pager *p, const struct cis_region *r, uint64_t pgno);

/** cis_zeros_bring() - install @nr pages that are so, words before and after.  Return: as cis_install_zero(). */
int cis_zeros_bring(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, uint64_t *ret_done);


/* record.c */

/** cis_record_touch() - note the first touch of a page, when recording. */
void cis_record_touch(struct cis_pager *p, uint64_t pgno);
/** cis_record_adopt() - go on with what another engine was recording.  Return: 0, -ENOMEM, -EBADMSG. */
int cis_record_adopt(struct cis_pager *p, struct cis_error *err);
void cis_record_free(struct cis_pager *p);

/* fetch.c */
/** cis_read_trouble() - count a read that ended with @code. */
void cis_read_trouble(struct cis_pager *p, int code);
/** cis_trouble_tell() - tell of something that will be tried again. */
void cis_trouble_tell(struct cis_pager *p, enum cis_trouble what, const struct cis_error *err);
/** cis_read_deadline() - when a read that begins at @now is given up; 0: never. */
uint64_t cis_read_deadline(const struct cis_pager *p, uint64_t now);
void cis_fetch_start(struct cis_pager *p, const struct cis_fault *f, const struct cis_page_loc *loc);
void cis_fetch_retry(struct cis_pager *p);
uint64_t cis_fetch_deadline(const struct cis_pager *p);
bool cis_fetch_quiesce(struct cis_pager *p);

/** struct cis_span - a run of stored chunks as one read */
struct cis_span {
	uint64_t off;	/* in the file, a multiple of 4096 */
	uint32_t len;	/* a multiple of 4096 */
	uint32_t skip, want; /* where the stored chunks are in it */
};

void cis_span_of(const struct cis_image *img, uint64_t chunk, unsigned nr_chunks, struct cis_span *ret);

/** cis_unit_chunks() - chunks that belong together because a page spans them, or 1. */
static inline unsigned cis_unit_chunks(const struct cis_pager *p, const struct cis_image *img)
{
	unsigned chunk_shift = cis_image_info(img)->chunk_shift;

	return p->page_shift > chunk_shift ? 1u << (p->page_shift - chunk_shift) : 1;
}

/** struct cis_unit - chunks that are decoded together: one, or all that a page spans */
struct cis_unit {
	const struct cis_image *img;
	uint64_t chunk;
	unsigned nr_chunks;
	const char *span; /* the stored bytes around them */
	uint64_t span_off; /* in the file */
};

/**
 * cis_unit_unpack() - decode a unit
 * @raw: where to; NULL: where it costs least, which is @scratch->raw, or for a raw chunk the span itself
 *
 * Not verified yet: cis_unit_check() is next.  Return: 0 or -EBADMSG, -ENOMEM.
 */
int cis_unit_unpack(const struct cis_unit *unit, struct cis_scratch *scratch, char *raw, const char **ret_raw,
		    struct cis_error *err);

/** cis_unit_check() - compare the checksums.  Return: 0 or -EBADMSG. */
int cis_unit_check(const struct cis_unit *unit, const char *raw, struct cis_error *err);

/* reclaim.c */

/** cis_reclaim_init() - for a state that has a stash.  Return: 0 or -ENOMEM. */
int cis_reclaim_init(struct cis_pager *p);
void cis_reclaim_fini(struct cis_pager *p);

/** cis_reclaim_memory() - bytes that the list may take, and the stash's bookkeeping; what lies in the stash is apart. */
size_t cis_reclaim_memory(const struct cis_pager *p);

/** cis_reclaim_list() - those of them that are resident have come, in this order.  Filled in place they may be so and not be mapped. */
void cis_reclaim_list(struct cis_pager *p, uint64_t pgno, uint64_t nr);

/** cis_reclaim_came_back() - somebody has asked for a page that went as eviction number @seq. */
void cis_reclaim_came_back(struct cis_pager *p, uint64_t pgno, uint32_t seq);

/** cis_reclaim_make_room() - @nr pages are about to come; 0: they have come. */
void cis_reclaim_make_room(struct cis_pager *p, unsigned nr);

/** cis_reclaim_room() - pages that may come beside those that somebody waits for. */
uint64_t cis_reclaim_room(const struct cis_pager *p);

/** cis_reclaim_spare() - pages that may come though nobody waits for them: beyond that reclaim would begin, and undo what a fill does. */
uint64_t cis_reclaim_spare(const struct cis_pager *p);

/** cis_reclaim_step() - a bounded piece of what is to be done in any case. */
void cis_reclaim_step(struct cis_pager *p);
/** cis_reclaim_wants() - there is a job for a worker. */
bool cis_reclaim_wants(const struct cis_pager *p);
uint64_t cis_reclaim_deadline(const struct cis_pager *p);

/* clean.c */

/** cis_clean() - if the stash is short of room, empty a segment of it: at most 48 values, 50 us.  Return: whether anything has moved. */
bool cis_clean(struct cis_pager *p);

/* prefetch.c */

/** cis_prefetch() - a page was asked for, and is back or on its way: bring those that are likely to be next. */
void cis_prefetch(struct cis_pager *p, const struct cis_region *r, uint64_t pgno);

#define CIS_BRING_MAX 64u

/**
 * cis_stash_bring() - from the stash into the guest, @nr pages of one region, all stashed
 * @ret_done: pages from the first one on
 *
 * Return: as cis_install_run(); -EBADMSG (the stash is damaged) or -ENOMEM with @err and nothing done.
 */
int cis_stash_bring(struct cis_pager *p, const struct cis_region *r, uint64_t pgno, uint64_t nr, uint64_t *ret_done, struct cis_error *err);

/* far.c: pages that are in the store. */

void cis_fault_far(struct cis_pager *p, const struct cis_fault *f);
void cis_far_retry(struct cis_pager *p);
uint64_t cis_far_deadline(const struct cis_pager *p);
/** cis_far_delete() - the store's copy of the page that @word speaks of. */
void cis_far_delete(struct cis_pager *p, uint64_t pgno, uint32_t generation, uint32_t loc);
/** cis_far_flush() - submit the deletes that were asked for. */
void cis_far_flush(struct cis_pager *p);
/** cis_far_claim() - tell the store which of its values are wanted.  Return: 0 or -errno. */
int cis_far_claim(struct cis_pager *p, struct cis_error *err);
/** cis_far_quiesce() - give up what is under way.  Return: true when nothing is. */
bool cis_far_quiesce(struct cis_pager *p);

/* writeback.c: from the stash to the store. */

void cis_writeback_step(struct cis_pager *p);
uint64_t cis_writeback_deadline(const struct cis_pager *p);
/** cis_writeback_orphan() - the value at @loc is being written, and not wanted any more. */
void cis_writeback_orphan(struct cis_pager *p, uint32_t loc);
/** cis_writeback_undo() - a page has left the stash and is not going to be put: delete what a put before may have left. */
void cis_writeback_undo(struct cis_pager *p, uint64_t pgno, uint32_t generation);
bool cis_writeback_quiesce(struct cis_pager *p);

static inline struct cis_key cis_page_key(const struct cis_pager *p, uint64_t pgno, uint32_t generation)
{
	return (struct cis_key){ .ns = { p->reclaim.o.ns[0], p->reclaim.o.ns[1] }, .id = cis_value_id(pgno, generation) };
}

/* remote.c: pages that are not in the guest. */

void cis_fault_stashed(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r);
/** cis_page_unprotect() - a page that is there may be written to again; one that was CLEAN is RESIDENT.  Return: of the kernel's call. */
int cis_page_unprotect(struct cis_pager *p, const struct cis_region *r, uint64_t pgno);
/** cis_fault_protected() - a write to a page that is there. */
void cis_fault_protected(struct cis_pager *p, const struct cis_fault *f, const struct cis_region *r);
/** cis_remote_forget() - the page's word was @word, and is not any more: what is kept of it outside goes. */
void cis_remote_forget(struct cis_pager *p, uint64_t pgno, uint64_t word);

/**
 * cis_remote_next() - the next value that a word names, from byte @at of the stash on, which goes behind it
 *
 * What was freed lies between them.  Return: NULL: there is none before @end.
 */
const struct cis_value *cis_remote_next(const struct cis_pager *p, uint64_t *at, uint64_t end, uint64_t *ret_word);

/** cis_remote_quiesce() - give up what is under way between stash and store.  Return: true when nothing is. */
bool cis_remote_quiesce(struct cis_pager *p);

/** cis_remote_adopt() - words of another engine: which pages are where.  Return: 0 or -EBADMSG. */
int cis_remote_adopt(struct cis_pager *p, struct cis_error *err);

/* attach.c */

/** cis_attach() - be told of missing pages and of writes to protected ones, where there is a view.  Return: 0, -EOPNOTSUPP, -ENOMEM, ... */
int cis_attach(struct cis_pager *p, struct cis_error *err);

/* fill.c */
void cis_fill_sweep(struct cis_pager *p);
/** cis_fill_again() - pages may have gone, or may come back: what is there still is seen by another sweep. */
void cis_fill_again(struct cis_pager *p);
/** cis_fill_trouble() - a read for it failed, and is left to later: pause, longer each time. */
void cis_fill_trouble(struct cis_pager *p, const struct cis_error *err);
uint64_t cis_fill_deadline(const struct cis_pager *p);

#endif
