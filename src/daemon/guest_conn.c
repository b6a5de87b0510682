#include "daemon/guest_conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/guest_int.h"
#include "daemon/guest_note.h"
#include "os/sock.h"

static struct cis_conn **bucket(struct cis_engine *e, uint64_t id)
{
	return &e->conns[id % CIS_ENGINE_BUCKETS];
}

struct cis_conn *cis_conn_find(struct cis_engine *e, uint64_t id)
{
	struct cis_conn *c = *bucket(e, id);

	while (c && c->id != id)
		c = c->next;
	return c;
}

struct cis_conn *cis_conn_create(struct cis_engine *e, uint64_t id, uint64_t listener, const struct cis_peer *peer, int pidfd)
{
	struct cis_conn *c = calloc(1, sizeof(*c)), **head = bucket(e, id);

	if (!c || cis_handshake_create(&c->hs)) {
		free(c);
		if (pidfd >= 0)
			close(pidfd);
		return NULL;
	}
	c->engine = e;
	c->id = id;
	c->listener = listener;
	c->peer = *peer;
	c->pidfd = pidfd;
	c->state_fd = -1;
	c->since_ns = cis_now_ns(NULL);
	c->next = *head;
	*head = c;
	return c;
}

static void take_fds(struct cis_conn *c, const int *fds, size_t nr)
{
	if (nr > CIS_WIRE_FDS_MAX - c->nr_fds || (c->complete && nr)) {
		cis_fds_close(fds, nr);
		cis_fail(&c->trouble, EPROTO, "more descriptors than a handshake has");
		return;
	}
	memcpy(c->fds + c->nr_fds, fds, nr * sizeof(*fds));
	c->nr_fds += nr;
}

/* What a monitor says after its handshake was accepted is passed over, and must be when it is said again. */
static bool is_served(const struct cis_conn *c)
{
	return c->complete && (c->engine->mode != CIS_ENGINE_SERVES || (c->guest && c->guest->seat));
}

int cis_conn_feed(struct cis_conn *c, const void *bytes, size_t len, const int *fds, size_t nr_fds)
{
	uint64_t room = c->note ? c->note->stream_bytes - c->taken : UINT64_MAX;
	bool done = false;
	int rc;

	if (c->trouble.code == CIS_WIRE_ORPHAN)
		c->trouble.code = 0; /* its client has come again */
	if (c->trouble.code || is_served(c) || (c->note && c->nr_fds + nr_fds > c->note->nr_fds)) {
		cis_fds_close(fds, nr_fds);
		nr_fds = 0;
	}
	if (c->trouble.code || is_served(c))
		return 0;
	take_fds(c, fds, nr_fds);
	if (len > room)
		len = room;
	c->taken += len;
	rc = c->trouble.code ? -c->trouble.code : cis_handshake_feed(c->hs, bytes, len, &done, &c->trouble);
	c->complete |= done;
	return rc;
}

void cis_conn_set_state(struct cis_conn *c, int error, int memfd, uint64_t bytes)
{
	if (c->state_fd >= 0)
		close(c->state_fd);
	c->state_fd = error ? -1 : memfd;
	c->state_error = error;
	c->state_bytes = bytes;
}

void cis_conn_drop(struct cis_conn *c)
{
	struct cis_conn **at;

	if (!c)
		return;
	for (at = bucket(c->engine, c->id); *at != c; at = &(*at)->next)
		;
	*at = c->next;
	if (c->guest)
		c->guest->conn = NULL;
	cis_fds_close(c->fds, c->nr_fds);
	cis_handshake_destroy(c->hs);
	if (c->pidfd >= 0)
		close(c->pidfd);
	if (c->state_fd >= 0)
		close(c->state_fd);
	cis_guest_note_destroy(c->note);
	free(c);
}

void cis_conns_each(struct cis_engine *e, void (*fn)(struct cis_conn *c, void *arg), void *arg)
{
	for (size_t i = 0; i < CIS_ENGINE_BUCKETS; i++)
		for (struct cis_conn *c = e->conns[i], *next; c; c = next) {
			next = c->next;
			fn(c, arg);
		}
}
