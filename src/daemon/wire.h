/*
 * What keeper and engine say to each other: packets on a SOCK_SEQPACKET pair.
 *
 * A packet is a head of 32 bytes, little-endian, a body and descriptors:
 *
 *	0	u32	type
 *	4	u32	version, CIS_WIRE_VERSION
 *	8	u64	id: of a listener, chosen by the engine, or of a connection, chosen by the keeper;
 *			never used twice
 *	16	u64	arg
 *	24	u32	errno, 0 unless something failed
 *	28	u32	bytes of the body
 *
 * An engine is started to serve, or to stand by beside the one that serves (doc/design/005-survive.md).  It says HELLO first.
 *
 * engine to keeper:
 *
 *	HELLO		body struct cis_wire_hello: versions and features; before anything else
 *	LISTEN		id listener; body struct cis_wire_listen
 *	UNLISTEN	id listener: close and remove the socket; its connections stay
 *	STATE		id connection, arg bytes: make its state memfd
 *	NOTE		id connection, body: keep these bytes with it for the engine's successor, instead of earlier ones;
 *			but its last arg bytes are sent to the client once the others are kept: so an engine that dies has
 *			either said it and noted that, or neither
 *	SAY		id connection, body: send these bytes to the client
 *	RELEASE		id connection: forget it and close all that it has
 *	READY		serving; from a standby: arg 1, all that was replayed is valid; arg 2, all of TAKE is, too
 *	REFUSE		from a standby instead of READY: errno and reason; it ends then
 *	UPGRADE		body: path of the binary to replace this engine with (empty: the same again)
 *	SWAP		id connection, arg bytes; the descriptor of a state memfd in the layout that the standby knows: held
 *			instead of the old one once the standby has taken over, dropped if it does not
 *	HANDOVER	answers QUIESCE: the descriptor of a sealed memfd of sections (sections.h), or errno and reason
 *	HELD		id connection, arg enum cis_wire_held: descriptors of that. An engine that has outlived its keeper says to the
 *			one that asks for it: HELLO (id its process, arg which engine it was), HELD..., READY, before anything else
 *	EXEC		body: path of the binary that the keeper itself becomes, in place, and all
 *			engines to come (empty: that of engines)
 *
 * keeper to engine:
 *
 *	ROLE		arg: enum cis_wire_role; before anything else
 *	LISTENING	id listener; errno 0: body as in LISTEN, else the reason: it is forgotten
 *	CONNECTION	id connection, arg listener; body pid, uid and gid; descriptor: pidfd of the client,
 *			if it is known.  Sent when the client has said something: one that only connects is
 *			not the engine's business
 *	NOTED		id connection, body: the NOTE of an engine before; after its CONNECTION, before its BYTES;
 *			to a standby also whenever the engine that serves notes something
 *	RELEASED	to a standby: id connection: the engine that serves has released it
 *	UNLISTENED	to a standby: id listener: likewise
 *	BYTES		id connection, arg place of the body in the stream; descriptors that came with it
 *	BROKEN		id connection, errno and reason: too many bytes or descriptors; what it sent is
 *			dropped
 *			errno CIS_WIRE_ORPHAN: it was served before, and its descriptors were lost: it waits; if its
 *			client comes again, BYTES follow from place 0
 *	EOF		id connection: the client closed its end
 *	EXITED		id connection: the client's process has ended
 *	STATE_MADE	id connection, arg bytes; errno, or the memfd
 *	REPLAYED	arg: which engine of this keeper it is, from 1; all that was there before has been
 *			said
 *	STOP		serve no new guests, and end when there is none left
 *	UPGRADING	to the engine that asked: errno 0: the standby has been started; else why not, or why it
 *			failed before QUIESCE was said
 *	QUIESCE		to the engine that serves: pause; body the HELLO of the standby; HANDOVER is the answer
 *	TAKE		to the standby: the descriptor of HANDOVER; swapped state memfds come as STATE_MADE before it
 *	RESUME		to the engine that was told to pause: errno and reason: the hand-over has failed, go on
 *	LET_GO		to it: the standby serves; end, and release nothing
 *	GO		to the standby: serve; arg: nanoseconds since QUIESCE was said
 *	LEDGER		a descriptor: the file in which engines leave to each other what no guest's state has (ledger.h); another
 *			may come later
 *	HEIR		two descriptors: the socket on which another keeper will ask, should this one die, and the lock of the folder
 *	EXECED		errno and reason why the keeper did not become another; 0 from the new one
 *
 * A new engine is told everything again as if it had just happened, then REPLAYED: that is all there is to
 * starting one.  A standby is told all news too, and asks for nothing before GO.
 */
#ifndef CIS_DAEMON_WIRE_H
#define CIS_DAEMON_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "os/sock.h"

#define CIS_WIRE_VERSION    2u
#define CIS_WIRE_FD         3 /* where the engine finds its end of the pair */
#define CIS_WIRE_CONTROL_FD 4 /* the listening control socket, bound by the keeper */
#define CIS_WIRE_CONTROL_BACKLOG 1024 /* of clients that wait while one engine follows another */
#define CIS_WIRE_HEAD_BYTES 32u
#define CIS_WIRE_BODY_MAX   (32u << 10)
#define CIS_WIRE_FDS_MAX    8u /* a message, and a connection */
#define CIS_WIRE_STATE_MAX  (512ull << 30) /* of the largest guest: words, trace and stash */
#define CIS_WIRE_NOTE_MAX   (24u << 10)
#define CIS_WIRE_SAY_MAX    1024u
#define CIS_WIRE_ORPHAN     61 /* ENODATA */

enum cis_wire_type {
	CIS_WIRE_LISTEN = 1,
	CIS_WIRE_UNLISTEN,
	CIS_WIRE_STATE,
	CIS_WIRE_SAY,
	CIS_WIRE_RELEASE,
	CIS_WIRE_HELLO,
	CIS_WIRE_NOTE,
	CIS_WIRE_READY,
	CIS_WIRE_REFUSE,
	CIS_WIRE_UPGRADE,
	CIS_WIRE_SWAP,
	CIS_WIRE_HANDOVER,
	CIS_WIRE_EXEC,
	CIS_WIRE_HELD,

	CIS_WIRE_LISTENING = 64,
	CIS_WIRE_CONNECTION,
	CIS_WIRE_BYTES,
	CIS_WIRE_BROKEN,
	CIS_WIRE_EOF,
	CIS_WIRE_EXITED,
	CIS_WIRE_STATE_MADE,
	CIS_WIRE_REPLAYED,
	CIS_WIRE_STOP,
	CIS_WIRE_ROLE,
	CIS_WIRE_NOTED,
	CIS_WIRE_UPGRADING,
	CIS_WIRE_QUIESCE,
	CIS_WIRE_TAKE,
	CIS_WIRE_RESUME,
	CIS_WIRE_LET_GO,
	CIS_WIRE_GO,
	CIS_WIRE_EXECED,
	CIS_WIRE_RELEASED,
	CIS_WIRE_UNLISTENED,
	CIS_WIRE_LEDGER,
	CIS_WIRE_HEIR,
};

enum cis_wire_role { CIS_WIRE_SERVE, CIS_WIRE_STANDBY };

/** enum cis_wire_held - what HELD has: of a connection that it is there, its client's descriptors, ...; the last three of none */
enum cis_wire_held {
	CIS_HELD_CONN,
	CIS_HELD_CLIENT,
	CIS_HELD_STATE,
	CIS_HELD_PROCESS,
	CIS_HELD_CONTROL,
	CIS_HELD_LOCK,
	CIS_HELD_SOCK,
};

/** struct cis_wire_msg - one packet; body and fds point into the buffers of its receiver or sender */
struct cis_wire_msg {
	uint32_t type;
	uint64_t id, arg;
	uint32_t error;
	const void *body;
	size_t body_len;
	const int *fds;
	size_t nr_fds;
	bool fds_lost; /* it had some, and this process has no room for them; receiving only */
};

/**
 * cis_wire_send() - the whole packet or nothing.  Return: 0, -EAGAIN when @fd is non-blocking and full,
 * -EPIPE, ...
 */
int cis_wire_send(int fd, const struct cis_wire_msg *msg);

/** struct cis_wire_buf - room for one received packet */
struct cis_wire_buf {
	uint8_t bytes[CIS_WIRE_HEAD_BYTES + CIS_WIRE_BODY_MAX];
	int fds[CIS_WIRE_FDS_MAX];
};

/**
 * cis_wire_recv() - one packet, without waiting
 * @ret: points into @buf; its descriptors are the caller's.  Where this process has no room for them they are closed,
 *       and fds_lost says so
 *
 * Return: 0; -EAGAIN; -EPIPE (the other end is closed); -EPROTO (not a packet of
 * ours), -EPROTONOSUPPORT (one of another version): its descriptors are closed; ...
 */
int cis_wire_recv(int fd, struct cis_wire_buf *buf, struct cis_wire_msg *ret);

/**
 * struct cis_wire_listen - a socket on which a guest is expected
 * @note: bytes that the keeper keeps for the engine's successor, which needs to know what it was for
 */
struct cis_wire_listen {
	uint32_t mode, uid, gid; /* uid and gid: UINT32_MAX leaves them */
	char path[108];
	const void *note;
	size_t note_len;
};

/** cis_wire_listen_put() - into @buf of CIS_WIRE_BODY_MAX.  Return: 0, -ENAMETOOLONG, -E2BIG (note). */
int cis_wire_listen_put(const struct cis_wire_listen *listen, void *buf, size_t *ret_len);
/** cis_wire_listen_get() - note points into @body.  Return: 0 or -EPROTO. */
int cis_wire_listen_get(const void *body, size_t len, struct cis_wire_listen *ret);

/**
 * struct cis_wire_hello - what an engine is and knows
 * @layout_min, @layout_max: of state memfds that it can adopt
 * @features: bits of what a predecessor may hand over; none yet
 * @version:  of the program, for people
 */
struct cis_wire_hello {
	uint32_t wire, layout_min, layout_max;
	uint64_t features;
	char version[32];
};

#define CIS_WIRE_HELLO_BYTES 52u
void cis_wire_hello_put(const struct cis_wire_hello *hello, void *buf);
/** cis_wire_hello_get() - Return: 0 or -EPROTO. */
int cis_wire_hello_get(const void *body, size_t len, struct cis_wire_hello *ret);

#define CIS_WIRE_PEER_BYTES 12u
void cis_wire_peer_put(const struct cis_peer *peer, void *buf);
/** cis_wire_peer_get() - Return: 0 or -EPROTO. */
int cis_wire_peer_get(const void *body, size_t len, struct cis_peer *ret);

#endif
