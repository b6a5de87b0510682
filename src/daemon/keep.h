/*
 * What the keeper leaves behind for a keeper to come.
 *
 * Of every connection and listener there is a record (keep_record.h), kept up to date as things change, and under systemd
 * every descriptor is in its descriptor store.  Names: `ctl` the control socket, `l3` a listener and `l3.r` its record,
 * `c12.s` the socket of a connection, `c12.r` its record, `c12.m` or `c12.n` its state memfd, `c12.0`... what its client handed over.
 * `ledger` is what engines leave to each other beside the states of guests.
 * Records, state memfds and ledger are files of these names in the keep folder where there is one, so that they outlive the
 * service too; else they are memfds, and in the store with the rest.
 *
 * The order makes each instant good to be killed at: what a client sends is left in its socket until its descriptors are
 * stored and the record says so; a socket without a record has said nothing yet, and says itself where it came from.
 */
#ifndef CIS_DAEMON_KEEP_H
#define CIS_DAEMON_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct cis_keeper;
struct conn;
struct listener;

#define KEEP_STORE_MAX 12288 /* names that fit the one environment string in which they come back; FileDescriptorStoreMax= */
#define KEEP_NAME_BYTES 32
#define KEEP_LEDGER	"ledger"
#define KEEP_HEIR	"heir" /* the socket on which the next keeper asks for an engine that is left */
#define KEEP_FREE_FROM	16 /* descriptors above are out of the way of those that an engine finds under fixed numbers */

/**
 * struct keep_mark - what was written and stored of a connection or listener
 * @fd:     its record, -1 while there is none
 * @seq:    of the newest slot
 * @bytes:  of the client's, in the record; and their checksum
 * @nr_fds: descriptors of the client that the record knows
 * @stored: bit N: descriptor N is in the service manager's store; above them KEEP_BIT_
 * @filed:  likewise: it is a file in the folder
 */
struct keep_mark {
	int fd;
	uint64_t seq, bytes, crc;
	size_t nr_fds;
	unsigned stored, filed;
	char state; /* 'm' or 'n': the name of its state; 0: it has none */
	bool is_failed; /* no record can be made; that was said */
};

/* Bits of keep_mark.stored; those below are the client's descriptors. */
enum { KEEP_BIT_SOCK = 8, KEEP_BIT_RECORD, KEEP_BIT_STATE, KEEP_BIT_STATE_N };

/** struct keep_name - a descriptor that was left behind, under its name; -1 once it has been taken */
struct keep_name {
	char name[KEEP_NAME_BYTES];
	int fd;
	unsigned where; /* KEEP_IS_ */
};

enum { KEEP_IS_STORED = 1, KEEP_IS_FILED = 2 };

/** struct keep_names - sorted once all are in */
struct keep_names {
	struct keep_name *names;
	size_t nr, room;
};

/** struct keep - part of the keeper; all zeros and -1 is one that keeps nothing */
struct keep {
	int notify; /* -1: no service manager */
	char *manager;
	int dir; /* -1: no folder */
	int lock; /* the engine has it too */
	char *path; /* of the folder */
	struct keep_names found; /* while they are read */
	size_t nr_stored, max_stored;
	bool is_full; /* and that was said */
	bool is_gathering; /* whether there is an engine, which knows of everything, is seen at the end */
	bool is_leaving; /* for another program in place, which is given the sockets of those that said nothing yet, too */
	char boot[37];
	int control_fd; /* of a keeper before, until it is asked for */
	struct keep_mark control;
	struct keep_mark ledger;
};

void keep_init(struct keep *keep);
void keep_fini(struct keep *keep);

/** keep_put() - into the store, where there is one, and it is neither there nor a file already. */
void keep_put(struct cis_keeper *k, struct keep_mark *m, unsigned bit, const char *name, int fd);
/** keep_drop() - out of it again, if it is there. */
void keep_drop(struct cis_keeper *k, struct keep_mark *m, unsigned bit, const char *name);
/** keep_say() - to the service manager, where there is one: "READY=1" and the like. */
void keep_say(struct cis_keeper *k, const char *text);

/**
 * keep_file() - a new file for a record or a state: in the folder, or a memfd, to be put into the store
 * @bytes: 0: it grows as it is written to
 *
 * Return: 0 or -errno.
 */
int keep_file(struct cis_keeper *k, struct keep_mark *m, unsigned bit, const char *name, uint64_t bytes, int *ret_fd);
/** keep_remove() - the file, or what is in the store. */
void keep_remove(struct cis_keeper *k, struct keep_mark *m, unsigned bit, const char *name);

/** keep_conn_name() - "c12.s"; @what is one of 'r', 's', 'm', 'n', '0'... */
void keep_conn_name(char name[KEEP_NAME_BYTES], uint64_t id, char what);
void keep_listener_name(char name[KEEP_NAME_BYTES], uint64_t id, bool is_record);

struct keep_fd;
/** keep_recover_fd() - the descriptor that is @want, out of @c's process.  Return: -1: it cannot be had. */
int keep_recover_fd(const struct conn *c, const struct keep_fd *want);
/** keep_wait_for() - bind the path again where @c, which has no socket, came from. */
void keep_wait_for(struct conn *c);
/** keep_came_again() - something came on such a path: @c may be released. */
void keep_came_again(struct conn *c);

/* Called by the keeper where something changes. */

/** keep_conn_opened() - at once after accepting it: until then nobody else has its socket. */
void keep_conn_opened(struct conn *c);
/**
 * keep_conn_changed() - write down what is known now, after storing what it refers to
 * @unread: bytes at the end of what is known that are still in the socket
 */
void keep_conn_changed(struct conn *c, size_t unread);
/** keep_conn_state() - make its state memfd, @bytes long.  Return: 0 or -errno. */
int keep_conn_state(struct conn *c, uint64_t bytes, int *ret_fd);
/** keep_conn_stateless() - it does not get one after all. */
void keep_conn_stateless(struct conn *c);
/** keep_conn_swap() - what an engine made to replace its state is made fit to be kept; @fd is the caller's, and may be another then. */
int keep_conn_swap(struct conn *c, uint64_t bytes, int *fd);
/** keep_conn_swapped() - @c's state is that now. */
void keep_conn_swapped(struct conn *c);
void keep_conn_released(struct conn *c);
void keep_listener_changed(struct listener *l);
void keep_listener_closed(struct listener *l);
/** keep_control() - the control socket of a keeper before, if it is bound to @path; the caller's.  Return: -1: there is none. */
int keep_control(struct cis_keeper *k, const char *path);
void keep_control_changed(struct cis_keeper *k);

/** keep_ledger() - the file, made if there is none; the keep's.  Return: -1: it cannot be. */
int keep_ledger(struct cis_keeper *k);
/** keep_ledger_end() - nobody follows: it is removed. */
void keep_ledger_end(struct cis_keeper *k);

/** names_add() - @fd is its own, also on failure.  Return: 0, -ENOMEM, -EEXIST. */
int names_add(struct keep_names *n, const char *name, int fd, unsigned where);
void names_sort(struct keep_names *n);
/** names_join() - those of @more that @n, which is sorted, does not have; the others are closed.  @more is empty then. */
void names_join(struct keep_names *n, struct keep_names *more);
struct keep_name *names_find(struct keep_names *n, const char *name);
/** names_inherit() - those that systemd, or ourselves before an exec, handed over.  Return: as keep_exec_names(). */
int names_inherit(struct keep_names *n);
/** names_inherit_one() - a duplicate of @from, which stays open.  Return: 0 or -errno. */
int names_inherit_one(struct keep_names *n, const char *name, int from, unsigned where);
void names_fini(struct keep_names *n);

/**
 * keep_folder_open() - the folder, made if need be, and its lock
 * @is_wish: where it cannot be, nothing is kept in files
 * @n:       what an engine holds that has outlived its keeper, and is to be taken over (keep_heir_resume()); sorted
 *
 * Return: 0; -EXDEV (not a tmpfs), -EPERM (not ours alone), -EBUSY (another daemon, or an engine that cannot be taken over), ...
 */
int keep_folder_open(struct cis_keeper *k, struct keep_names *n, const char *path, bool is_wish, struct cis_error *err);
/** keep_folder_names() - add what is there under names that @n does not have; @n is sorted then. */
void keep_folder_names(struct keep *keep, struct keep_names *n);
/** keep_lock_note() - who has the lock, for whoever finds it taken. */
void keep_lock_note(struct cis_keeper *k);

/* keep_heir.c */

/** keep_heir_listen() - where the next keeper asks; @fd: bound by a keeper before, -1: now. */
void keep_heir_listen(struct cis_keeper *k, int fd);
void keep_heir_end(struct cis_keeper *k);
/**
 * keep_heir_ask() - somebody has the lock: is it an engine that has outlived its keeper?
 *
 * Return: 0: it has left its will, and @n has what it holds; -EPIPE (a keeper lives), -ETIMEDOUT (no answer), -ECONNREFUSED,
 * -EPROTONOSUPPORT (another version), ...
 */
int keep_heir_ask(struct cis_keeper *k, struct keep_names *n);
/** keep_heir_resume() - its guests are restored: it is the engine.  Return: 0, also when there is none, or -errno. */
int keep_heir_resume(struct cis_keeper *k);

#endif
