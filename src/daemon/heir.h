/*
 * An engine that outlives its keeper, and the keeper that comes after: its heir.
 *
 * The engine serves on.  It holds a socket in the keep folder that its keeper had bound; a keeper that is started finds the
 * folder's lock taken, asks there, and is given what this engine holds of each guest.  What the connection was then is the wire.
 *
 * Control thread of the engine that serves.
 */
#ifndef CIS_DAEMON_HEIR_H
#define CIS_DAEMON_HEIR_H

#include "daemon/engine.h"

/** cis_heir_known() - where an heir will ask, and the folder's lock, which it needs; both are the engine's.  ctx is the engine. */
void cis_heir_known(void *ctx, int sock, int lock);

/** cis_heir_wait() - the keeper is gone.  Return: false: no other can be heard of. */
bool cis_heir_wait(struct cis_engine *e);

/** cis_heir_look() - has one come? */
void cis_heir_look(struct cis_engine *e);

/** cis_heir_told() - it knows all, and has said what this engine does not know. */
void cis_heir_told(struct cis_engine *e);

/** cis_heir_is_alone() - the keeper is gone, and nobody is served any more. */
bool cis_heir_is_alone(const struct cis_engine *e);

#endif
