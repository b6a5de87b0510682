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
 * engine to keeper:
 *
 *	LISTEN		id listener; body struct cis_wire_listen
 *	UNLISTEN	id listener: close and remove the socket; its connections stay
 *	STATE		id connection, arg bytes: make its state memfd
 *	SAY		id connection, body: send these bytes to the client
 *	RELEASE		id connection: forget it and close all that it has
 *
 * keeper to engine:
 *
 *	LISTENING	id listener; errno 0: body as in LISTEN, else the reason: it is forgotten
 *	CONNECTION	id connection, arg listener; body pid, uid and gid; descriptor: pidfd of the client,
 *			if it is known.  Sent when the client has said something: one that only connects is
 *			not the engine's business
 *	BYTES		id connection, arg place of the body in the stream; descriptors that came with it
 *	BROKEN		id connection, errno and reason: too many bytes or descriptors; what it sent is
 *			dropped
 *	EOF		id connection: the client closed its end
 *	EXITED		id connection: the client's process has ended
 *	STATE_MADE	id connection, arg bytes; errno, or the memfd
 *	REPLAYED	arg: which engine of this keeper it is, from 1; all that was there before has been
 *			said
 *	STOP		serve no new guests, and end when there is none left
 *
 * A new engine is told everything again as if it had just happened, then REPLAYED: that is all there is to
 * starting one.
 */
#ifndef CIS_DAEMON_WIRE_H
#define CIS_DAEMON_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "os/sock.h"

#define CIS_WIRE_VERSION    1u
#define CIS_WIRE_FD         3 /* where the engine finds its end of the pair */
#define CIS_WIRE_HEAD_BYTES 32u
#define CIS_WIRE_BODY_MAX   (32u << 10)
#define CIS_WIRE_FDS_MAX    8u /* a message, and a connection */
#define CIS_WIRE_STATE_MAX  (64ull << 30)
#define CIS_WIRE_NOTE_MAX   (24u << 10)
#define CIS_WIRE_SAY_MAX    1024u

enum cis_wire_type {
	CIS_WIRE_LISTEN = 1,
	CIS_WIRE_UNLISTEN,
	CIS_WIRE_STATE,
	CIS_WIRE_SAY,
	CIS_WIRE_RELEASE,

	CIS_WIRE_LISTENING = 64,
	CIS_WIRE_CONNECTION,
	CIS_WIRE_BYTES,
	CIS_WIRE_BROKEN,
	CIS_WIRE_EOF,
	CIS_WIRE_EXITED,
	CIS_WIRE_STATE_MADE,
	CIS_WIRE_REPLAYED,
	CIS_WIRE_STOP,
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
 * @ret: points into @buf; its descriptors are the caller's
 *
 * Return: 0; -EAGAIN; -EPIPE (the other end is closed); -EPROTO (not a packet of
 * ours: its descriptors are closed), ...
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

#define CIS_WIRE_PEER_BYTES 12u
void cis_wire_peer_put(const struct cis_peer *peer, void *buf);
/** cis_wire_peer_get() - Return: 0 or -EPROTO. */
int cis_wire_peer_get(const void *body, size_t len, struct cis_peer *ret);

#endif
