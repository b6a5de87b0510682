/*
 * One record of the keeper: a file with two slots of sections (sections.h) and the client's bytes behind them.
 *
 *	0	64 KiB	slot 0
 *	65536	64 KiB	slot 1
 *	131072		bytes, as they came; only appended to
 *
 * A record is written whole into the slot that is not the newest, so whoever is killed while writing leaves the former one.
 * The valid slot with the higher sequence number counts; it says how many of the bytes are meant, and their checksum.
 */
#ifndef CIS_DAEMON_KEEP_RECORD_H
#define CIS_DAEMON_KEEP_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "os/proc.h"
#include "os/sock.h"

#define KEEP_FDS_MAX 8

enum keep_kind { KEEP_LISTENER = 1, KEEP_CONN = 2, KEEP_KEEPER = 3 };

enum keep_fd_kind { KEEP_FD_UFFD = 1, KEEP_FD_FILE = 2, KEEP_FD_OTHER = 3 };

/** struct keep_fd - what a descriptor is; dev and ino tell files apart, but only since Linux 5.13 userfaultfds */
struct keep_fd {
	uint32_t kind;
	uint64_t dev, ino;
};

enum keep_flag { KEEP_EOF = 1, KEEP_EXITED = 2, KEEP_RELEASED = 4 };

/**
 * struct keep_record - all that a record says; what does not belong to its kind is zero
 *
 * @start:      of the peer's process; 0: not known
 * @listen:     as cis_wire_listen_put() writes it
 * @bytes_len:  bytes of the client that are meant, of which the last @unread may still be in its socket
 * @state_bytes: 0: no state memfd; @state_name: 'm' or 'n', as an upgrade replaces it
 * @next_conn, @generation: of the keeper when it wrote this
 */
struct keep_record {
	uint32_t kind;
	uint64_t seq, id, listener;
	struct cis_peer peer;
	uint64_t start;
	char boot[CIS_BOOT_BYTES];
	const void *listen, *note;
	size_t listen_len, note_len;
	bool has_note;
	uint64_t bytes_len, bytes_crc, unread;
	uint32_t flags, error;
	uint64_t state_bytes, state_name;
	struct keep_fd fds[KEEP_FDS_MAX];
	size_t nr_fds;
	uint64_t dev, ino; /* of a listener's socket file */
	uint64_t next_conn, generation;
};

/** keep_fd_look() - what is it?  Return: 0 or -errno. */
int keep_fd_look(int fd, struct keep_fd *ret);

/** keep_record_write() - @seq is the newest one's, and counted up.  Return: 0, -ENOMEM, -E2BIG, of the file. */
int keep_record_write(int fd, uint64_t *seq, const struct keep_record *record);
/** keep_bytes_write() - append @len bytes; @crc is carried on. */
int keep_bytes_write(int fd, uint64_t at, const void *bytes, size_t len, uint64_t *crc);

/**
 * keep_record_read() - the newest whole slot
 * @ret_buf: what the record points into; freed by the caller
 *
 * Return: 0; -EBADMSG (neither slot is whole), -EPROTO (a section makes no sense), -ENOMEM, ...
 */
int keep_record_read(int fd, struct keep_record *ret, void **ret_buf, struct cis_error *err);
/** keep_bytes_read() - the client's; malloc'ed.  Return: 0, -EBADMSG (checksum), -ENOMEM, ... */
int keep_bytes_read(int fd, const struct keep_record *record, void **ret, struct cis_error *err);

#endif
