/*
 * Connections of guests, as the keeper tells of them.  Control thread only.
 *
 * A connection only collects what is said of it.  What is done about that is for guest_link.c, and not before the engine
 * serves: while the keeper tells everything again, and in a standby, facts come in any order.
 */
#ifndef CIS_DAEMON_GUEST_CONN_H
#define CIS_DAEMON_GUEST_CONN_H

#include "daemon/engine.h"
#include "vmm/handshake.h"

/**
 * struct cis_conn - one connection
 * @guest:     that it is, or wants to be, the monitor of; NULL while that is not known
 * @taken:     bytes of its stream so far; of a noted one no more than its handshake had are looked at
 * @complete:  its handshake is
 * @trouble:   what is wrong with it; code 0: nothing
 * @note:      of the engine that served it before, NULL: of none
 * @state_fd:  its state memfd, -1: not made yet; state_error: could not be made
 */
struct cis_conn {
	struct cis_engine *engine;
	uint64_t id, listener;
	struct cis_guest *guest;
	struct cis_peer peer;
	int pidfd;
	uint64_t since_ns;
	struct cis_handshake *hs;
	uint64_t taken;
	int fds[CIS_WIRE_FDS_MAX];
	size_t nr_fds;
	bool complete, eof, exited;
	struct cis_error trouble;
	struct cis_guest_note *note;
	int state_fd, state_error;
	uint64_t state_bytes;
	struct cis_conn *next; /* of its bucket */
};

/** cis_conn_create() - @pidfd is its own, also on failure.  Return: NULL without memory. */
struct cis_conn *cis_conn_create(struct cis_engine *e, uint64_t id, uint64_t listener, const struct cis_peer *peer, int pidfd);
struct cis_conn *cis_conn_find(struct cis_engine *e, uint64_t id);

/** cis_conn_feed() - the next of its stream; the descriptors are its own.  Return: 0, or -errno, which is its trouble from now on. */
int cis_conn_feed(struct cis_conn *c, const void *bytes, size_t len, const int *fds, size_t nr_fds);

/** cis_conn_set_state() - its state memfd has come. */
void cis_conn_set_state(struct cis_conn *c, int error, int memfd, uint64_t bytes);

/** cis_conn_drop() - close what is here of it; the keeper is not told.  NULL-safe. */
void cis_conn_drop(struct cis_conn *c);

/** cis_conns_each() - call @fn for all; it may drop the one that it got, and no other. */
void cis_conns_each(struct cis_engine *e, void (*fn)(struct cis_conn *c, void *arg), void *arg);

#endif
