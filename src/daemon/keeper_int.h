/* What the files of the keeper share. */
#ifndef CIS_DAEMON_KEEPER_INT_H
#define CIS_DAEMON_KEEPER_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/keeper.h"
#include "daemon/wire.h"

#define KEEPER_BUCKETS	     1024
#define KEEPER_BYTES_MAX     (128u << 10) /* of a connection; what a handshake may have */
#define KEEPER_CONNS_MAX     1024	  /* of a listener; more are closed at once */
#define KEEPER_READ_BYTES    (16u << 10)

/** struct watch - a descriptor in the epoll set; fd is -1 when it is not watched any more */
struct watch {
	struct cis_keeper *k;
	int fd;
	void (*ready)(struct watch *w, uint32_t events);
};

/**
 * struct untold - something that the engine has to be told about
 * @tell: send what was not told yet, in order, and return 0 when all is (it may free its object then),
 *        or -EAGAIN, -EPIPE, ...
 */
struct untold {
	struct untold *next;
	bool queued;
	int (*tell)(struct cis_keeper *k, struct untold *u);
};

/** struct listener - error is not 0: could not be bound; freed once the engine knows */
struct listener {
	struct watch watch; /* first */
	struct untold untold;
	struct listener *next;
	uint64_t id;
	struct cis_wire_listen listen; /* its note is owned */
	dev_t dev;
	ino_t ino;
	size_t nr_conns;
	int error;
	char why[400];
	bool is_told;
};

/**
 * struct conn - a connection of a client, and all that it has
 *
 * What is held stays until the engine releases it, whatever was told already.
 */
struct conn {
	struct watch sock, pid;
	struct untold untold;
	struct conn *next; /* of its bucket */
	uint64_t id, listener;
	struct cis_peer peer;

	uint8_t *bytes;
	size_t len, room;
	int fds[CIS_WIRE_FDS_MAX];
	size_t nr_fds;
	int sock_fd, pidfd; /* open while the connection is, watched or not */
	int state_fd;
	uint64_t state_bytes;
	int state_error;
	int error;
	const char *why;
	bool is_guest, is_eof, is_exited, wants_state;

	struct {
		bool connection, error, eof, exited, state;
		size_t bytes, fds;
	} told;
};

struct cis_keeper {
	int epoll, spare;
	struct watch signals, wire, engine;
	pid_t engine_pid; /* 0: none of ours */
	uint64_t generation;
	int status;
	bool is_stopping, stop_told, replay_told, wire_full;
	int old_oom;

	struct listener *listeners;
	struct conn *buckets[KEEPER_BUCKETS];
	size_t nr_guests; /* connections that have said something */
	uint64_t next_conn;
	struct untold *untold, **untold_end;

	uint8_t read_buf[KEEPER_READ_BYTES];
	struct cis_wire_buf wire_buf;
};

/* keeper.c */
int watch_add(struct cis_keeper *k, struct watch *w, int fd, uint32_t events,
	      void (*ready)(struct watch *, uint32_t));
/**
 * watch_remove() - the descriptor stays open.  Explicitly: a duplicate elsewhere would keep it in the set.
 */
void watch_remove(struct watch *w);
void oom_set(int score);

static inline bool has_engine(const struct cis_keeper *k)
{
	return k->wire.fd >= 0;
}

/* keeper_engine.c */
void engine_tell(struct cis_keeper *k, struct untold *u);
void engine_untell(struct cis_keeper *k, struct untold *u);
/** engine_flush() - tell all that is untold, as far as the wire takes it. */
void engine_flush(struct cis_keeper *k);
void engine_stop(struct cis_keeper *k);
void engine_close(struct cis_keeper *k);
int engine_send(struct cis_keeper *k, const struct cis_wire_msg *msg);

/* keeper_listen.c */
void listener_open(struct cis_keeper *k, uint64_t id, const struct cis_wire_listen *listen);
void listener_close(struct cis_keeper *k, uint64_t id);
void listeners_close(struct cis_keeper *k);
void listeners_untell(struct cis_keeper *k);
void listener_left(struct cis_keeper *k, uint64_t id);

/* keeper_conn.c */
/** conn_open() - @fd is its own, also on failure. */
int conn_open(struct cis_keeper *k, uint64_t listener, int fd);
struct conn *conn_find(struct cis_keeper *k, uint64_t id);
void conn_make_state(struct conn *c, uint64_t bytes);
void conn_say(struct conn *c, const void *text, size_t len);
void conn_release(struct cis_keeper *k, struct conn *c);
void conns_untell(struct cis_keeper *k);
/** conns_drop() - release those that @match. */
void conns_drop(struct cis_keeper *k, bool (*match)(const struct conn *c));
bool conn_is_silent(const struct conn *c);
bool conn_is_over(const struct conn *c);
bool conn_is_any(const struct conn *c);

#endif
