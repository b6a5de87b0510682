/*
 * Making guests independent, so that the daemon can end: on request, or when it is told to stop.  Control thread only.
 *
 * A guest that is filled wholly and unregistered needs nothing of ours any more, and is let go.  One that cannot be is named with
 * the reason.  On request it is all or none: only when every guest is independent they are let go.
 */
#ifndef CIS_DAEMON_DRAIN_H
#define CIS_DAEMON_DRAIN_H

#include "daemon/engine.h"

/** cis_drain_ask() - the request waits until all guests are let go, @timeout_ms are over (0: never), or it is clear that some cannot be. */
void cis_drain_ask(struct cis_engine *e, struct cis_request *req, uint64_t timeout_ms);

/** cis_drain_stop() - the daemon is to end: let go each guest as soon as it is independent. */
void cis_drain_stop(struct cis_engine *e);

/** cis_drain_look() - a guest has changed, or a second is over: go on.  Guests may be let go. */
void cis_drain_look(struct cis_engine *e);

#endif
