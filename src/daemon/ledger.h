/*
 * The ledger: what engines leave to each other beside the states of guests, in a file that the keeper holds.
 *
 *	0	64 KiB	sums (gone.h: ENGINE, STATS), slot 0
 *	65536	64 KiB	slot 1
 *	131072	64 KiB	a guest that has gone (GONE, STATS), or nothing; and so on
 *
 * An engine that follows a crash lists what the one before listed, and counts on from its sums.  Each step leaves the whole
 * right: a guest that goes is written before the keeper is told to forget it, and while the keeper knows it, what is written of it
 * does not count; the sums that a forgotten guest is part of name it, so that it is not counted twice before its slot is
 * cleared.  Sums are written in turns, the valid slot with the higher number counts.
 *
 * Control thread of the engine that serves, or stands still.  The others leave it alone.
 */
#ifndef CIS_DAEMON_LEDGER_H
#define CIS_DAEMON_LEDGER_H

#include "daemon/engine.h"

struct cis_ledger;
struct cis_guest;

/** cis_ledger_use() - the keeper says where it is; @fd is its own.  ctx is the engine. */
void cis_ledger_use(void *ctx, int fd);

/** cis_ledger_scan() - this engine begins to serve: from now on guests that go are written.  Quick: nothing else is read. */
void cis_ledger_scan(struct cis_engine *e);

/**
 * cis_ledger_open() - it serves, and knows all that it was told: guests, and what was handed over
 * @is_truth: the engine before has crashed: what the ledger says is all there is of guests that have gone
 */
void cis_ledger_open(struct cis_engine *e, bool is_truth);

/** cis_ledger_is_unread() - it has to be before a guest is forgotten. */
bool cis_ledger_is_unread(const struct cis_engine *e);

/** cis_ledger_bury() - a guest is about to be released. */
void cis_ledger_bury(struct cis_guest *g);

/** cis_ledger_forget() - it is listed no more, and part of the sums. */
void cis_ledger_forget(struct cis_guest *g);

/** cis_ledger_awake() - for how long CPUs were kept awake, as the ledger knows it: shown, it never falls. */
uint64_t cis_ledger_awake(struct cis_engine *e);

void cis_ledger_destroy(struct cis_ledger *l);

#endif
