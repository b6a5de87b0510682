/*
 * The note of a guest: what an engine that follows needs to know of it and cannot find out.
 *
 * JSON, kept by the keeper with the guest's listener (until somebody is served there) and with its connection.  Read with the
 * care that anything gets which another version may have written: keys that are not known are passed over, those that are
 * must be what they should, and a version that is not known is refused.
 */
#ifndef CIS_DAEMON_GUEST_NOTE_H
#define CIS_DAEMON_GUEST_NOTE_H

#include "daemon/guest.h"

/**
 * struct cis_guest_note - as read; strings are its own
 * @stream_bytes, @nr_fds: of its stream, that its handshake had; 0 in the note of a listener
 * @budget, @pinned, @ns: not in those of engines that did not know them
 * @in_place: its memfd is filled in place (see cis_region.alias): decided once
 */
struct cis_guest_note {
	char id[CIS_GUEST_ID_MAX + 1];
	uint64_t serial;
	char *image_path, *socket, *kind, *store;
	uint8_t image_id[CIS_IMAGE_ID_BYTES];
	enum cis_guest_state state;
	enum cis_policy policy;
	enum cis_fill fill;
	bool record, acked, in_place, stalled, pinned;
	struct cis_budget budget;
	bool has_ns;
	uint64_t ns[2];
	uint64_t stream_bytes, nr_fds;
};

/** cis_guest_note_text() - of a guest as it is now, malloc'ed; NULL without memory. */
char *cis_guest_note_text(const struct cis_guest *g);

/** cis_guest_note_parse() - Return: 0, -EPROTONOSUPPORT (a later version), -EBADMSG, -ENOMEM. */
int cis_guest_note_parse(const void *text, size_t len, struct cis_guest_note **ret, struct cis_error *err);
void cis_guest_note_destroy(struct cis_guest_note *note);

#endif
