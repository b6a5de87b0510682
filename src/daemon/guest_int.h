/* What the files of a guest share. */
#ifndef CIS_DAEMON_GUEST_INT_H
#define CIS_DAEMON_GUEST_INT_H

#include "daemon/guest.h"
#include "daemon/guest_conn.h"
#include "daemon/guest_note.h"

/* guest_table.c */

/** cis_guest_table_insert() - by id and serial.  Return: 0 or -ENOMEM. */
int cis_guest_table_insert(struct cis_guest *g);
void cis_guest_table_remove(struct cis_guest *g);
struct cis_guest *cis_guest_by_serial(struct cis_engine *e, uint64_t serial);

/* guest.c */

/** cis_guest_of_note() - one that another engine knew, in the table.  Return: 0, -EEXIST, -ENOMEM. */
int cis_guest_of_note(struct cis_engine *e, const struct cis_guest_note *note, struct cis_guest **ret, struct cis_error *err);

/** cis_guest_move() - into a later state: note, events, watches. */
void cis_guest_move(struct cis_guest *g, enum cis_guest_state state);

/** cis_guest_depends() - it has a budget: if it was independent it is not any more, and so no further than filled. */
void cis_guest_depends(struct cis_guest *g);

/** cis_guest_refuse() - refuse its connection; the guest is expected still: somebody else may have knocked. */
void cis_guest_refuse(struct cis_guest *g, const struct cis_error *err);

/** cis_guest_release() - give back everything but its place in the table; the seat has left. */
void cis_guest_release(struct cis_guest *g);

/** cis_guest_filled() - up to @level; NONE: it may run, nothing is installed before it is touched. */
void cis_guest_filled(struct cis_guest *g, enum cis_fill level);

/** cis_guest_end() - it is gone or given up; @why NULL when it just ended. */
void cis_guest_end(struct cis_guest *g, const char *why);

/** cis_guest_bury() - release it and list it as gone, or forget it when it was deleted.  It may be freed. */
void cis_guest_bury(struct cis_guest *g);

/** cis_guests_drop_gone() - forget the oldest of those that have gone while there are too many. */
void cis_guests_drop_gone(struct cis_engine *e);

/** cis_guest_forget() - out of the table, freed; nothing of it is left. */
void cis_guest_forget(struct cis_guest *g);

/* guest_budget.c */

/** cis_guest_check_budget() - if it has one, can its memory be reclaimed, as far as that is known?  Return: 0 or -EINVAL. */
int cis_guest_check_budget(const struct cis_guest *g, struct cis_error *err);

/** cis_guest_may_be_away() - is there a budget, or a store that has pages of it from when there was one? */
bool cis_guest_may_be_away(const struct cis_guest *g);

/** cis_guest_reclaim_opts() - for its pager, as it is now. */
struct cis_reclaim_opts cis_guest_reclaim_opts(const struct cis_guest *g);

/** cis_guest_can_be_limited() - its memory is known, and can be reclaimed. */
bool cis_guest_can_be_limited(const struct cis_guest *g);

/** cis_guest_hold_to() - its share of the host's budget is another; it has a seat.  Return: as cis_pager_reclaim(), and nothing is changed then. */
int cis_guest_hold_to(struct cis_guest *g, uint64_t share, struct cis_error *err);

/** cis_guest_drains() - while it is being drained there is no budget; @yes false: it is not any more. */
void cis_guest_drains(struct cis_guest *g, bool yes);

/* guest_serve.c */

/** cis_guest_open_image() - its image, the same one as ever.  Return: as cis_image_open(), -ESTALE (another one). */
int cis_guest_open_image(struct cis_guest *g, struct cis_error *err);

/** cis_guest_may_be_reclaimed() - can its memory be read and punched by us while its monitor has it mapped?  A budget may come at any time. */
bool cis_guest_may_be_reclaimed(const struct cis_guest *g);

/** cis_guest_accept() - look at its complete handshake.  Return: 0, -EPROTO, ... */
int cis_guest_accept(struct cis_guest *g, struct cis_error *err);

/**
 * cis_guest_open() - all that can be made ready while another engine serves it: image, mappings
 *
 * Again as often as it fails.  Return: 0 or -errno; what was opened stays.
 */
int cis_guest_open(struct cis_guest *g, struct cis_error *err);

/**
 * cis_guest_preview() - look at its state while another engine writes it
 *
 * What is seen may be half way, and is checked when nobody writes any more; but its pages are mapped then, which takes
 * longer than all else.
 */
void cis_guest_preview(struct cis_guest *g);

/** cis_guest_seat() - check its state and make its seat: nobody else serves it any more.  Return: 0 or -errno. */
int cis_guest_seat(struct cis_guest *g, struct cis_error *err);

/**
 * cis_guest_convert() - a copy of its state in another layout
 * @ret_fd, @ret: the caller's to close and to unmap
 */
int cis_guest_convert(struct cis_guest *g, unsigned layout, int *ret_fd, struct cis_state *ret, struct cis_error *err);

/** cis_guest_begin() - serve it from now on. */
void cis_guest_begin(struct cis_guest *g);

/** cis_guest_peek() - what it has counted, and its pages, of one that has no seat: for as long as it gets none. */
void cis_guest_peek(struct cis_guest *g);

/** cis_guest_close() - what cis_guest_open() and cis_guest_seat() have made, but for the image. */
void cis_guest_close(struct cis_guest *g);

/** cis_guest_tell_unnamed() - once a second and at its end: how many pages failed beside those that the log names. */
void cis_guest_tell_unnamed(struct cis_guest *g);

/** cis_guest_note_changed() - tell the keeper, for the engine that follows. */
void cis_guest_note_changed(struct cis_guest *g);

/** cis_guest_note_acked() - likewise, and tell its client that it may run. */
void cis_guest_note_acked(struct cis_guest *g);

/* guest_link.c */

/** cis_guest_advance() - do what its connection is ready for; the engine serves.  It may be freed. */
void cis_guest_advance(struct cis_guest *g);

/** cis_guests_settle() - the engine begins to serve: act on all that it was told. */
void cis_guests_settle(struct cis_engine *e);

/** cis_guest_try() - serve one that is stalled, if it can be now. */
void cis_guest_try(struct cis_guest *g);

#endif
