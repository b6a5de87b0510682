/*
 * The engine's end of the wire to its keeper.
 *
 * One thread calls cis_keeper_link_run() and gets the callbacks; the requests may be made by any thread, also
 * from a callback.  A request waits when the wire is full, never for long: the keeper does not wait for the
 * engine.
 */
#ifndef CIS_DAEMON_KEEPER_LINK_H
#define CIS_DAEMON_KEEPER_LINK_H

#include "daemon/wire.h"

struct cis_keeper_link;

/**
 * struct cis_keeper_link_ops - what the keeper tells; those from role() on may be NULL
 *
 * Descriptors that are handed in belong to the engine from then on, -1 where
 * there is none.  Texts and bytes are only there during the call.
 */
struct cis_keeper_link_ops {
	/*
	 * LISTEN is done, or a listener of the engine before: @listen says which.  error: errno and @why,
	 * @listen is NULL.
	 */
	void (*listening)(void *ctx, uint64_t listener, const struct cis_wire_listen *listen, int error,
			  const char *why);
	void (*connection)(void *ctx, uint64_t conn, uint64_t listener, const struct cis_peer *peer,
			   int pidfd);
	/* The stream in order; @at is the place of @bytes in it. */
	void (*bytes)(void *ctx, uint64_t conn, uint64_t at, const void *bytes, size_t len, const int *fds,
		      size_t nr_fds);
	void (*broken)(void *ctx, uint64_t conn, int error, const char *why);
	void (*eof)(void *ctx, uint64_t conn);
	void (*exited)(void *ctx, uint64_t conn);
	/* error: errno, and no descriptor */
	void (*state)(void *ctx, uint64_t conn, int error, int memfd, uint64_t bytes);
	void (*replayed)(void *ctx, uint64_t generation);
	void (*stop)(void *ctx);
	void (*lost)(void *ctx); /* the keeper is gone; nothing more is called */

	/* One engine after another: doc/design/005-survive.md. */
	void (*role)(void *ctx, enum cis_wire_role role);
	void (*noted)(void *ctx, uint64_t conn, const void *note, size_t len);
	/* UPGRADE has begun, error 0, or not: errno and @why.  resume() and execed() say why in the same way. */
	void (*upgrading)(void *ctx, int error, const char *why);
	void (*quiesce)(void *ctx, const struct cis_wire_hello *successor);
	void (*take)(void *ctx, int sections);
	void (*resume)(void *ctx, int error, const char *why);
	void (*let_go)(void *ctx);
	void (*go)(void *ctx, uint64_t paused_ns);
	/* To a standby: what the engine that serves has given up. */
	void (*released)(void *ctx, uint64_t conn);
	void (*unlistened)(void *ctx, uint64_t listener);
	void (*execed)(void *ctx, int error, const char *why);
	void (*ledger)(void *ctx, int fd);
	void (*heir)(void *ctx, int sock, int lock);
};

/** cis_keeper_link_create() - @fd is the link's from now on.  Return: 0, -ENOMEM. */
int cis_keeper_link_create(int fd, const struct cis_keeper_link_ops *ops, void *ctx,
			   struct cis_keeper_link **ret);
void cis_keeper_link_destroy(struct cis_keeper_link *link);

/** cis_keeper_link_fd() - to be polled for reading. */
int cis_keeper_link_fd(const struct cis_keeper_link *link);

/**
 * cis_keeper_link_run() - call back for what has come, at most @max messages.  Return: true when there may be
 * more.
 */
bool cis_keeper_link_run(struct cis_keeper_link *link, unsigned max);

/**
 * cis_keeper_link_listen() - ask for a socket; @listener is the caller's choice.  Return: 0, -ENAMETOOLONG,
 * -E2BIG, -EPIPE.
 */
int cis_keeper_link_listen(struct cis_keeper_link *link, uint64_t listener,
			   const struct cis_wire_listen *listen);
int cis_keeper_link_unlisten(struct cis_keeper_link *link, uint64_t listener);
/** cis_keeper_link_state() - ask for the state memfd of a connection; once. */
int cis_keeper_link_state(struct cis_keeper_link *link, uint64_t conn, uint64_t bytes);

/**
 * cis_keeper_link_note() - what the keeper keeps with a connection for the engine's successor
 * @ack: tell the client, who asked for it, that its guest is served ("k"); the note says that it was told
 *
 * Return: 0, -E2BIG, -EPIPE.
 */
int cis_keeper_link_note(struct cis_keeper_link *link, uint64_t conn, const char *note, bool ack);
/** cis_keeper_link_refuse() - tell such a client why not ("e" and the text), and release the connection. */
int cis_keeper_link_refuse(struct cis_keeper_link *link, uint64_t conn, const char *why);
int cis_keeper_link_release(struct cis_keeper_link *link, uint64_t conn);

/** cis_keeper_link_hello() - what this engine is; before anything else. */
int cis_keeper_link_hello(struct cis_keeper_link *link, const struct cis_wire_hello *hello);
/** cis_keeper_link_outlived() - likewise, to a keeper that asks for an engine whose own is gone. */
int cis_keeper_link_outlived(struct cis_keeper_link *link, const struct cis_wire_hello *hello, uint64_t generation);
/** cis_keeper_link_held() - what it holds; the descriptors stay its own. */
int cis_keeper_link_held(struct cis_keeper_link *link, enum cis_wire_held what, uint64_t conn, const int *fds, size_t nr_fds);
/** cis_keeper_link_ready() - @step 0: serving; 1 and 2: of a standby. */
int cis_keeper_link_ready(struct cis_keeper_link *link, unsigned step);
/** cis_keeper_link_refuse_role() - a standby that cannot take over. */
int cis_keeper_link_refuse_role(struct cis_keeper_link *link, int error, const char *why);
/** cis_keeper_link_upgrade() - @exec: path of the next engine's binary, NULL: the same again. */
int cis_keeper_link_upgrade(struct cis_keeper_link *link, const char *exec);
/** cis_keeper_link_exec() - likewise of the next keeper's. */
int cis_keeper_link_exec(struct cis_keeper_link *link, const char *exec);
/** cis_keeper_link_swap() - another state memfd for a connection; @memfd stays the caller's. */
int cis_keeper_link_swap(struct cis_keeper_link *link, uint64_t conn, int memfd, uint64_t bytes);
/** cis_keeper_link_handover() - the answer to quiesce(): @sections, or errno and @why. */
int cis_keeper_link_handover(struct cis_keeper_link *link, int sections, int error, const char *why);

#endif
