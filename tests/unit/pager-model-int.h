/* What the files of the pager's model share. */
#ifndef TESTS_UNIT_PAGER_MODEL_INT_H
#define TESTS_UNIT_PAGER_MODEL_INT_H

#include "base/point.h"
#include "os/memfd.h"
#include "pager/job.h"
#include "pager-model.h"

/* pager-model-kernel.c */
extern const struct cis_pager_os world_kernel;

uint64_t world_dice(struct world *w, uint64_t n);
/** world_see() - something that must never be. */
void world_see(struct world *w, const char *wrong, uint64_t pgno);
void world_chance(struct world *w);
/** world_watch() - points are chances of this world; NULL: of none. */
void world_watch(struct world *w);
/** world_removing() - is the page within a madvise() that has not returned? */
bool world_removing(const struct world *w, uint64_t pgno);
bool world_in_file(struct world *w, uint64_t pgno);
/** world_vcpu_step(), world_balloon_step() - @quiet: nothing new is begun. */
void world_vcpu_step(struct world *w, struct vcpu *v, bool quiet);
void world_balloon_step(struct world *w, struct balloon *b, bool quiet);

/* pager-model-store.c */
extern const struct cis_store_ops world_pages;

/** world_pages_step() - it answers one request. */
void world_pages_step(struct world *w);
void world_pages_orphaned(struct world *w);
void world_pages_move(struct world *w);
void world_pages_check(struct world *w, uint64_t p);

/* pager-model-death.c */
void world_open_pager(struct world *w, bool adopt);
void world_die(struct world *w);
void world_adopt(struct world *w);
void world_pause_step(struct world *w);
void world_resume(struct world *w);
/** world_reclaim() - tell the pager of the budget that there is now. */
void world_reclaim(struct world *w);

static inline bool world_is_zero(const uint8_t *page)
{
	static const uint8_t zeros[TEST_PAGE];

	return !memcmp(page, zeros, TEST_PAGE);
}

#endif
