/*
 * A guest whose socket was lost with the daemon before: its path is bound again, and when its client connects anew and says
 * the same with the same descriptors, it is that guest again.  Of an orphan descriptors were lost too, so it waits until then.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/keep_record.h"
#include "daemon/keeper_int.h"

void keep_wait_for(struct conn *c)
{
	struct cis_wire_listen listen = c->where;

	if (!*listen.path || c->is_exited || listener_waiting(c->sock.k, c->id))
		return;
	listener_wait(c->sock.k, c->id, &listen);
}

static void refuse(struct conn *c, const char *why)
{
	char text[CIS_WIRE_SAY_MAX];
	int n = snprintf(text, sizeof(text), "e%s", why);

	cis_log(CIS_LOG_WARN, "keeper: connection %llu, pid %d: is refused: %s", (unsigned long long)c->id, (int)c->peer.pid, why);
	conn_say(c, text, (size_t)n);
	conn_release(c->sock.k, c);
}

/* A record is the whole truth of what an orphan had. */
static bool has_the_same(const struct conn *c, const struct conn *orphan)
{
	_cleanup_free_ void *buf = NULL;
	struct keep_record r;
	struct keep_fd is;

	if (keep_record_read(orphan->keep.fd, &r, &buf, NULL) || c->nr_fds != r.nr_fds)
		return false;
	for (size_t i = 0; i < c->nr_fds; i++)
		if (keep_fd_look(c->fds[i], &is) || is.kind != r.fds[i].kind || is.ino != r.fds[i].ino || is.dev != r.fds[i].dev)
			return false;
	return true;
}

/* The socket, and the descriptors where any had been lost, change hands. */
static void reunite(struct conn *c, struct conn *orphan)
{
	struct cis_keeper *k = c->sock.k;
	struct listener *l = listener_waiting(k, orphan->id);

	watch_remove(&c->sock);
	orphan->sock_fd = c->sock_fd;
	c->sock_fd = -1;
	if (orphan->is_orphan) {
		cis_fds_close(orphan->fds, orphan->nr_fds);
		memcpy(orphan->fds, c->fds, c->nr_fds * sizeof(*c->fds));
		orphan->nr_fds = c->nr_fds;
		c->nr_fds = 0;
		for (size_t i = 0; i < KEEPER_ENGINES; i++) {
			orphan->told[i].bytes = orphan->told[i].fds = 0;
			orphan->told[i].error = orphan->told[i].state = orphan->told[i].eof = false;
		}
		orphan->error = 0;
	}
	orphan->is_orphan = false;
	orphan->is_eof = c->is_eof;
	conn_release(k, c);
	listener_end(l);
	orphan->keep.nr_fds = 0;
	if (!orphan->is_eof)
		conn_watch_sock(orphan);
	cis_log(CIS_LOG_INFO, "keeper: connection %llu: pid %d is back", (unsigned long long)orphan->id, (int)orphan->peer.pid);
	conn_changed(orphan);
}

/* A client of libcistern that was served before says '+' first: that is not part of what it said then. */
void keep_came_again(struct conn *c)
{
	struct conn *orphan = conn_find(c->sock.k, c->waits_for);
	size_t plus = c->len && *c->bytes == '+', len = c->len - plus;

	if (!orphan || orphan->sock_fd >= 0)
		refuse(c, "the guest that is waited for here is here");
	else if (c->error)
		refuse(c, c->why);
	else if (c->peer.pid != orphan->peer.pid || c->start != orphan->start)
		refuse(c, "another process is waited for here");
	else if (len > orphan->len || memcmp(c->bytes + plus, orphan->bytes, len))
		refuse(c, "this is not what the guest said that is waited for here");
	else if (len < orphan->len)
		return;
	else if (!has_the_same(c, orphan))
		refuse(c, "these are not the descriptors of the guest that is waited for here");
	else
		reunite(c, orphan);
}
