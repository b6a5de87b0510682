/* What the files of the keeper share. */
#ifndef CIS_DAEMON_KEEPER_INT_H
#define CIS_DAEMON_KEEPER_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"
#include "daemon/keep.h"
#include "daemon/keeper.h"
#include "daemon/wire.h"

#define KEEPER_BUCKETS	  1024
#define KEEPER_BYTES_MAX  (128u << 10) /* of a connection; what a handshake may have */
#define KEEPER_BYTES_ALL  (256ull << 20) /* of all connections */
#define KEEPER_CONNS_MAX  1024	       /* of a listener; more are closed at once */
#define KEEPER_CONNS_ALL  65536	       /* of all listeners */
#define KEEPER_FDS_FREE   16	       /* descriptors that no client can take: for engines, and what they hand over */
#define KEEPER_READ_BYTES (16u << 10)
#define KEEPER_ENGINES	  6 /* one serves, one stands by, others leave: each finishes what clients asked of it */

/** struct watch - a descriptor in the epoll set; fd is -1 when it is not watched any more */
struct watch {
	struct cis_keeper *k;
	int fd;
	void (*ready)(struct watch *w, uint32_t events);
};

struct engine;
struct conn;

/**
 * struct untold - something that engines have to be told about
 * @tell: send what @e was not told yet, in order, and return 0 when all is (it may free its object then),
 *        or -EAGAIN, -EPIPE, ...
 * @in:   its place in the queue of each engine, by slot
 */
struct untold {
	int (*tell)(struct engine *e, struct untold *u);
	struct {
		struct untold *next;
		bool queued;
	} in[KEEPER_ENGINES];
};

enum engine_role { ENGINE_NONE, ENGINE_SERVES, ENGINE_STANDS_BY, ENGINE_LEAVES };

/** what an engine has to be told beside listeners and connections: before these, and after them in this order */
enum engine_due {
	DUE_ROLE = 1,
	DUE_REPLAYED = 2,
	DUE_UPGRADING = 4,
	DUE_QUIESCE = 8,
	DUE_TAKE = 16,
	DUE_RESUME = 32,
	DUE_GO = 64,
	DUE_LET_GO = 128,
	DUE_STOP = 256,
	DUE_EXECED = 512,
	DUE_LEDGER = 1024,
	DUE_HEIR = 2048,
};

/** struct answer - to a request of an engine: errno, 0, and why */
struct answer {
	int error;
	char text[400];
};

/** struct gone - something that a standby was told of and that is there no more: RELEASED or UNLISTENED */
struct gone {
	enum cis_wire_type type;
	uint64_t id;
};

/**
 * struct engine - one engine, and what it was told
 *
 * @process: its pidfd
 * @pid:     0: not our child (attached), or its end has been seen
 * @kill_ns: when it is killed; 0: it is not
 * @has_ended: its process has; what it said before is still heard
 * @upgrading: what UPGRADING or RESUME says; @execed: what EXECED says
 */
struct engine {
	struct watch wire, process;
	unsigned slot;
	enum engine_role role;
	pid_t pid;
	uint64_t generation, started_ns, kill_ns, paused_ns;
	struct cis_wire_hello hello;
	bool has_hello, is_full, has_ended;
	unsigned due; /* enum engine_due */
	struct untold *untold, **untold_end;
	struct gone *gone;
	size_t nr_gone, room_gone;
	struct answer upgrading, execed;
};

enum handover_step { HANDOVER_NONE, HANDOVER_HELLO, HANDOVER_LOAD, HANDOVER_PAUSE, HANDOVER_TAKE, HANDOVER_UNDO };

/**
 * struct handover - keeper_handover.c
 * @program:      of the standby; that of all engines to come once it serves
 * @has_quiesced: the engine that serves was told to pause, so it has to be told to go on
 * @sections:     what it handed over, -1
 * @why:          of UNDO
 */
struct handover {
	enum handover_step step;
	struct engine *standby;
	char *program;
	uint64_t deadline_ns, paused_ns;
	bool has_quiesced;
	int sections;
	int error;
	char why[400];
};

/**
 * struct exec - keeper_exec.c
 * @program:  that the keeper is to become; NULL: nobody has asked
 * @pid:      of the one that is asked what it is, 0: it has ended
 * @is_known: it is a keeper
 */
struct exec {
	char *program;
	pid_t pid;
	struct watch out;
	char said[100];
	size_t len;
	bool is_known;
	uint64_t deadline_ns;
};

/** struct listener - error is not 0: could not be bound; freed once the engine that asked knows */
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
	struct keep_mark keep;
	uint64_t waits_for; /* a connection, by number; no engine is told of such a listener */
	bool told[KEEPER_ENGINES];
};

/** struct told - what an engine knows of a connection */
struct told {
	bool connection, note, error, eof, exited, state;
	size_t bytes, fds;
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
	uint64_t start; /* of the peer's process, cis_proc_start(); 0: not known */
	struct keep_mark keep;

	uint8_t *bytes;
	size_t len, room;
	int fds[CIS_WIRE_FDS_MAX];
	size_t nr_fds;
	int sock_fd, pidfd; /* open while the connection is, watched or not */
	int state_fd, swap_fd; /* the second is to replace the first */
	uint64_t state_bytes, swap_bytes;
	int state_error;
	void *note;
	size_t note_len;
	int error;
	const char *why;
	bool is_guest, is_eof, is_exited, wants_state;
	unsigned nr_engines; /* that have served and ended since it was over */
	bool is_orphan; /* not all of it is here: it is held, and engines are told that it waits */
	uint64_t waits_for; /* it came where that one is waited for; 0: it is one of its own */
	struct cis_wire_listen where; /* it came from, without a note */

	struct told told[KEEPER_ENGINES];
};

/**
 * struct will - what an engine has left that outlived its keeper (keep_heir.c)
 * @wire:  -1: there is none
 * @conns: that it knows
 */
struct will {
	int wire, pidfd;
	pid_t pid;
	uint64_t generation;
	struct cis_wire_hello hello;
	uint64_t *conns;
	size_t nr, room;
};

struct cis_keeper {
	int epoll, spare;
	struct watch signals;
	cis_clock_fn clock;
	void *clock_ctx;
	bool is_stopping, was_ready; /* an engine has served since the keeper's start */
	int old_oom;
	struct keep keep;
	struct watch heir; /* where the next keeper asks; answered by an engine that outlives this one */
	struct will will;

	struct engine engines[KEEPER_ENGINES];
	struct engine *serving; /* NULL while there is none */
	uint64_t generation;
	char **argv, **envp; /* of engines; NULL: none is started */
	uint64_t restart_ns, pause_ns; /* when the next is started, 0: none is due; what was waited before the last */
	int status; /* of the last engine */
	struct handover handover;
	struct exec exec;
	uint64_t upgrade_ns;

	int control_fd;
	char *control_path;
	dev_t control_dev;
	ino_t control_ino;

	struct listener *listeners;
	struct conn *buckets[KEEPER_BUCKETS];
	size_t nr_guests; /* connections that have said something */
	size_t nr_conns, nr_bytes;
	uint64_t next_conn;
	uint64_t refusal_ns; /* when the next refusal may be logged */
	size_t nr_refusals;  /* that were not */

	uint8_t read_buf[KEEPER_READ_BYTES];
	struct cis_wire_buf wire_buf;
};

/* keeper.c */
int watch_add(struct cis_keeper *k, struct watch *w, int fd, uint32_t events, void (*ready)(struct watch *, uint32_t));
/** watch_remove() - the descriptor stays open.  Explicitly: a duplicate elsewhere would keep it in the set. */
void watch_remove(struct watch *w);
void watch_close(struct watch *w);

/** keeper_is_short() - @fd is one of the last that this process may have. */
bool keeper_is_short(int fd);
/** keeper_refused() - a client was; at most one line a second. */
void keeper_refused(struct cis_keeper *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline uint64_t keeper_now(const struct cis_keeper *k)
{
	return k->clock(k->clock_ctx);
}

static inline bool has_engine(const struct cis_keeper *k)
{
	return k->serving && k->serving->wire.fd >= 0;
}

/* keeper_engine.c */
void engine_tell(struct engine *e, struct untold *u);
void engine_untell(struct engine *e, struct untold *u);
/** engines_tell() - everyone who can be told, and is not on its way out. */
void engines_tell(struct cis_keeper *k, struct untold *u);
void engines_untell(struct cis_keeper *k, struct untold *u);
/** engines_flush() - tell all that is untold, as far as the wires take it. */
void engines_flush(struct cis_keeper *k);
void engine_flush(struct engine *e);
/** engine_answer() - @due is DUE_UPGRADING, DUE_RESUME or DUE_EXECED; NULL-safe. */
void engine_answer(struct engine *e, enum engine_due due, int error, const char *text);
int engine_send(struct engine *e, const struct cis_wire_msg *msg);
/** engine_connect() - @e gets a wire (its own, also on failure), and everything is untold. */
int engine_connect(struct cis_keeper *k, struct engine *e, int fd, enum engine_role role);
/** engine_resume() - the same for one that was told everything already. */
int engine_resume(struct cis_keeper *k, struct engine *e, int fd, uint64_t generation, const struct cis_wire_hello *hello);
/** engine_hear_out() - it is gone, but not what it said before; its wire is closed then. */
void engine_hear_out(struct engine *e);
void engine_close(struct engine *e);
/** engine_let_go() - it does not serve any more, is told so, and nothing else. */
void engine_let_go(struct engine *e);
/** engine_tell_gone() - tell @e, a standby, that what it knows is there no more. */
void engine_tell_gone(struct engine *e, enum cis_wire_type type, uint64_t id);
/** engine_free() - a slot in which there is no engine; NULL: none. */
struct engine *engine_free(struct cis_keeper *k);

/* keeper_process.c */
void oom_lower(struct cis_keeper *k);
int engine_start(struct cis_keeper *k, struct engine *e, enum engine_role role, const char *program, struct cis_error *err);
/**
 * engine_adopt() - one that serves already, and was told everything
 * @wire:  its own when it succeeds, as is @pidfd
 * @pidfd: -1: @pid is our child, so its number is its own
 *
 * Return: 0 or -errno.
 */
int engine_adopt(struct cis_keeper *k, int wire, pid_t pid, int pidfd, uint64_t generation, const struct cis_wire_hello *hello);
/** engine_kill() - at once; its end is seen by its pidfd.  For one that is not our child: its wire is closed. */
void engine_kill(struct engine *e);
/** engine_gone() - wire and process are: its slot is free, and another engine is started where one is wanted. */
void engine_gone(struct engine *e, const char *how);
/** engines_deadline() - when engines_tick() has something to do; UINT64_MAX: never. */
uint64_t engines_deadline(const struct cis_keeper *k);
void engines_tick(struct cis_keeper *k);
void argv_free(char **argv);

/* keeper_handover.c */
/** handover_begin() - UPGRADE. */
void handover_begin(struct cis_keeper *k, const struct cis_wire_msg *msg);
/** handover_hello() - of the standby. */
void handover_hello(struct engine *e);
/** handover_obey() - all else that the standby says. */
void handover_obey(struct engine *e, const struct cis_wire_msg *msg);
/** handover_quiesced() - QUIESCE has been sent. */
void handover_quiesced(struct cis_keeper *k);
/** handover_take() - HANDOVER; handover_swap() - SWAP: of the engine that serves; they may take the descriptor out of @msg. */
void handover_take(struct cis_keeper *k, struct cis_wire_msg *msg);
void handover_swap(struct cis_keeper *k, struct conn *c, struct cis_wire_msg *msg);
/** handover_fail() - end the standby; when it is gone, the engine that serves is told. */
void handover_fail(struct cis_keeper *k, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/** handover_gone() - of any engine. */
void handover_gone(struct engine *e, const char *how);
uint64_t handover_deadline(const struct cis_keeper *k);
void handover_tick(struct cis_keeper *k);
/** keeper_program() - the path in UPGRADE or EXEC, checked; malloc'ed.  Return: 0, -EINVAL, -ENOENT, -EACCES, ... */
int keeper_program(const struct cis_keeper *k, const struct cis_wire_msg *msg, char **ret, struct cis_error *err);

/* keeper_exec.c */
/** exec_begin() - EXEC. */
void exec_begin(struct cis_keeper *k, const struct cis_wire_msg *msg);
/** exec_tick() - become another program, once it has said that it can be one and everything is quiet. */
void exec_tick(struct cis_keeper *k);
uint64_t exec_deadline(const struct cis_keeper *k);
void exec_close(struct cis_keeper *k);

/* keep_heir.c */
void keep_will_fini(struct will *will);

/* keeper_listen.c */
void listener_open(struct cis_keeper *k, uint64_t id, const struct cis_wire_listen *listen);
void listener_close(struct cis_keeper *k, uint64_t id);
void listeners_close(struct cis_keeper *k);
/** listeners_untell() - @e was told nothing. */
void listeners_untell(struct engine *e);
/** listeners_drop_failed() - nobody is there any more who asked for them. */
void listeners_drop_failed(struct cis_keeper *k);
void listener_left(struct cis_keeper *k, uint64_t id);
void control_close(struct cis_keeper *k);
/** listener_adopt() - one of a keeper before; @fd is its own, -1: bind it again.  Return: NULL: not possible, which was said. */
struct listener *listener_adopt(struct cis_keeper *k, uint64_t id, const struct cis_wire_listen *listen, int fd);
struct listener *listener_find(struct cis_keeper *k, uint64_t id);
/** listener_wait() - for the client of connection @conn to come again; what goes wrong is logged. */
void listener_wait(struct cis_keeper *k, uint64_t conn, const struct cis_wire_listen *listen);
/** listener_waiting() - NULL: none is. */
struct listener *listener_waiting(struct cis_keeper *k, uint64_t conn);
/** listener_end() - NULL-safe. */
void listener_end(struct listener *l);
/** keeper_folder() - make the folder of @path.  Return: 0 or -errno. */
int keeper_folder(const char *path);

/* keeper_conn.c */
/** conn_new() - an empty one; NULL when there is no memory. */
struct conn *conn_new(struct cis_keeper *k, uint64_t id, uint64_t listener);
/** conn_watch() - for what its client says and for its end.  Return: 0 or -errno. */
int conn_watch(struct conn *c);
/** conn_append() - bytes of its client.  Return: 0, -EMSGSIZE, -ENOMEM. */
int conn_append(struct conn *c, const void *bytes, size_t len);
/** conn_changed() - write it down and tell engines; may release it. */
void conn_changed(struct conn *c);
/** conn_open() - @fd is its own, also on failure. */
int conn_open(struct cis_keeper *k, const struct listener *l, int fd);
/** conn_identify() - who is at the other end of its socket. */
void conn_identify(struct conn *c);
int conn_watch_sock(struct conn *c);
struct conn *conn_find(struct cis_keeper *k, uint64_t id);
void conn_make_state(struct conn *c, uint64_t bytes);
/** conn_note() - of @by, who knows it. */
void conn_note(struct conn *c, const struct engine *by, const void *note, size_t len);
void conn_say(struct conn *c, const void *text, size_t len);
void conn_release(struct cis_keeper *k, struct conn *c);
/** conns_untell() - @e was told nothing. */
void conns_untell(struct engine *e);
/** conns_drop() - release those that @match. */
void conns_drop(struct cis_keeper *k, bool (*match)(const struct conn *c));
void conns_each(struct cis_keeper *k, void (*fn)(struct conn *c));
bool conn_is_silent(const struct conn *c);
bool conn_is_over(const struct conn *c);
/** conn_is_done() - it is, and no engine need look at it any more. */
bool conn_is_done(const struct conn *c);
/** conns_engine_gone() - the one that served has closed its wire. */
void conns_engine_gone(struct cis_keeper *k);
bool conn_is_any(const struct conn *c);

#endif
