/*
 * One engine follows another: after a crash, or beside one that serves (doc/design/005-survive.md).  Control thread only.
 */
#ifndef CIS_DAEMON_HANDOVER_H
#define CIS_DAEMON_HANDOVER_H

#include "daemon/engine.h"

/** cis_handover_hello() - say what this engine is.  Return: of the wire. */
int cis_handover_hello(struct cis_engine *e);

/* Callbacks of the link; ctx is the engine. */
void cis_handover_role(void *ctx, enum cis_wire_role role);
void cis_handover_replayed(void *ctx, uint64_t generation);

#endif
