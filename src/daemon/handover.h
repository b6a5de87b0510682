/*
 * One engine follows another: after a crash, or beside one that serves (doc/design/005-survive.md).  Control thread only.
 *
 * The callbacks are those of the link; ctx is the engine.
 */
#ifndef CIS_DAEMON_HANDOVER_H
#define CIS_DAEMON_HANDOVER_H

#include "daemon/engine.h"

struct cis_guest;

/* standby.c: the engine that follows. */

/** cis_standby_describe() - what this engine is. */
void cis_standby_describe(const struct cis_engine *e, struct cis_wire_hello *ret);
/** cis_standby_hello() - say so.  Return: of the wire. */
int cis_standby_hello(struct cis_engine *e);
void cis_standby_role(void *ctx, enum cis_wire_role role);
void cis_standby_replayed(void *ctx, uint64_t generation);
void cis_standby_take(void *ctx, int sections);
void cis_standby_go(void *ctx, uint64_t paused_ns);
void cis_standby_released(void *ctx, uint64_t conn);
void cis_standby_unlistened(void *ctx, uint64_t listener);

/* handover.c: the engine that is followed. */

/**
 * cis_handover_ask() - be replaced
 * @exec: the binary, NULL: the same again; @keeper: that becomes the keeper, instead
 *
 * The request waits, and is answered by what comes of it.
 */
void cis_handover_ask(struct cis_engine *e, struct cis_request *req, const char *exec, bool keeper);

/** cis_handover_paused(), cis_handover_left() - a guest's seat stands still, or has left, perhaps after it stood still. */
void cis_handover_paused(struct cis_guest *g);
void cis_handover_left(struct cis_engine *e, bool was_paused);

void cis_handover_upgrading(void *ctx, int error, const char *why);
void cis_handover_quiesce(void *ctx, const struct cis_wire_hello *successor);
void cis_handover_resume(void *ctx, int error, const char *why);
void cis_handover_let_go(void *ctx);
void cis_handover_execed(void *ctx, int error, const char *why);

/* handover_sections.c: what is handed over beside what the keeper holds. */

/** cis_handover_prepare() - what can be written before guests stand still. */
void cis_handover_prepare(struct cis_engine *e);
int cis_handover_write(struct cis_engine *e, int *ret_fd, struct cis_error *err);
/** cis_handover_check() - Return: 0, or why it cannot be understood. */
int cis_handover_check(struct cis_engine *e, int fd, struct cis_error *err);
/** cis_handover_read() - what was checked, when guests run again. */
void cis_handover_read(struct cis_engine *e);

#endif
