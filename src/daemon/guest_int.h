/* What the files of a guest share. */
#ifndef CIS_DAEMON_GUEST_INT_H
#define CIS_DAEMON_GUEST_INT_H

#include "daemon/guest.h"

/** cis_guest_move() - into a later state: events, watches. */
void cis_guest_move(struct cis_guest *g, enum cis_guest_state state);

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

/** cis_guest_forget() - out of the table, freed; nothing of it is left. */
void cis_guest_forget(struct cis_guest *g);

#endif
