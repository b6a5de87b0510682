#include "daemon/heir.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/guest_int.h"
#include "daemon/handover.h"
#include "os/sock.h"

#define BACKLOG 8

void cis_heir_known(void *ctx, int sock, int lock)
{
	struct cis_engine *e = ctx;

	if (e->heir.sock >= 0)
		close(e->heir.sock);
	if (e->heir.lock >= 0)
		close(e->heir.lock);
	e->heir = (struct cis_heir){ .sock = sock, .lock = lock };
}

/* One that was not served yet was lost with its socket, or comes again. */
static void drop_unserved(struct cis_conn *c, void *arg)
{
	(void)arg;
	if (!c->note && !(c->guest && c->guest->accepted))
		cis_conn_drop(c);
}

/* Until the heir says that it has bound it again. */
static void unbind(struct cis_guest *g)
{
	g->unbound = g->listening;
	g->listening = false;
	if (g->state == CIS_GUEST_EXPECTED && !g->unbound && !g->conn) /* who asked for it waits for an answer */
		cis_guest_end(g, "the keeper is gone");
}

/* Whoever connects from now on is told who listens: not the keeper that did, whose number may be another's by then. */
bool cis_heir_wait(struct cis_engine *e)
{
	if (e->heir.sock < 0 || e->heir.lock < 0 || listen(e->heir.sock, BACKLOG) ||
	    cis_engine_watch(e, EPOLL_CTL_ADD, e->heir.sock, EPOLLIN))
		return false;
	e->heir.is_awaited = true;
	cis_conns_each(e, drop_unserved, NULL);
	for (size_t i = e->nr_guests; i-- > 0;)
		if (i < e->nr_guests)
			unbind(e->guests[i]);
	return true;
}

bool cis_heir_is_alone(const struct cis_engine *e)
{
	if (!e->heir.is_awaited)
		return false;
	for (size_t i = 0; i < e->nr_guests; i++)
		if (e->guests[i]->state != CIS_GUEST_GONE && (e->guests[i]->state != CIS_GUEST_EXPECTED || e->guests[i]->conn))
			return false;
	return true;
}

/* Saying what is held. */

struct will {
	struct cis_keeper_link *link;
	int rc;
};

static void leave(struct will *w, enum cis_wire_held what, uint64_t conn, const int *fds, size_t nr)
{
	if (!w->rc && nr && fds[0] >= 0)
		w->rc = cis_keeper_link_held(w->link, what, conn, fds, nr);
}

static void leave_conn(struct cis_conn *c, void *arg)
{
	struct will *w = arg;

	if (!w->rc)
		w->rc = cis_keeper_link_held(w->link, CIS_HELD_CONN, c->id, NULL, 0);
	leave(w, CIS_HELD_CLIENT, c->id, c->fds, c->nr_fds);
	leave(w, CIS_HELD_STATE, c->id, &c->state_fd, 1);
	leave(w, CIS_HELD_PROCESS, c->id, &c->pidfd, 1);
}

static int leave_all(struct cis_engine *e, struct cis_keeper_link *link)
{
	struct will w = { .link = link };
	struct cis_wire_hello hello;
	int control = CIS_WIRE_CONTROL_FD;

	cis_standby_describe(e, &hello);
	w.rc = cis_keeper_link_outlived(link, &hello, e->generation);
	leave(&w, CIS_HELD_LOCK, 0, &e->heir.lock, 1);
	leave(&w, CIS_HELD_SOCK, 0, &e->heir.sock, 1);
	leave(&w, CIS_HELD_CONTROL, 0, &control, 1);
	cis_conns_each(e, leave_conn, &w);
	return w.rc ? w.rc : cis_keeper_link_ready(link, 0);
}

static bool may_inherit(int fd, struct cis_peer *ret)
{
	return !cis_sock_peer(fd, ret) && (!ret->uid || ret->uid == geteuid());
}

/* All in one go: what changes afterwards is said on the new wire. */
static int give_all(struct cis_engine *e, int fd, const struct cis_peer *peer)
{
	struct cis_keeper_link *link;
	int rc = cis_keeper_link_create(fd, &cis_guest_link_ops, e, &link);

	if (rc) {
		close(fd);
		return rc;
	}
	rc = leave_all(e, link);
	if (!rc)
		rc = cis_engine_watch(e, EPOLL_CTL_ADD, fd, EPOLLIN);
	if (rc) {
		cis_keeper_link_destroy(link);
		return rc;
	}
	cis_keeper_link_destroy(e->link);
	e->link = link;
	e->has_keeper = true;
	e->keeper_pid = peer->pid;
	e->heir.is_awaited = false;
	cis_engine_watch(e, EPOLL_CTL_DEL, e->heir.sock, 0);
	return 0;
}

void cis_heir_look(struct cis_engine *e)
{
	struct cis_peer peer;
	int fd, rc;

	if (!e->heir.is_awaited || cis_sock_accept(e->heir.sock, &fd))
		return;
	if (!may_inherit(fd, &peer)) {
		cis_log(CIS_LOG_WARN, "engine: process %d of user %u asks for the guests, and is no keeper", (int)peer.pid, (unsigned)peer.uid);
		close(fd);
		return;
	}
	rc = give_all(e, fd, &peer);
	if (rc) /* a daemon that looked whether somebody is there, and has gone */
		cis_log(CIS_LOG_INFO, "engine: process %d asked for the guests, and has gone: %s", (int)peer.pid, strerror(-rc));
	else
		cis_log(CIS_LOG_WARN, "engine: process %d is the keeper from now on", (int)peer.pid);
}

/* What was said to nobody meanwhile is said again. */
void cis_heir_told(struct cis_engine *e)
{
	e->stopping = e->drain_stop = false;
	for (size_t i = e->nr_guests; i-- > 0;) {
		struct cis_guest *g = i < e->nr_guests ? e->guests[i] : NULL;

		if (g && g->conn && (g->accepted || g->adopted)) {
			cis_guest_note_changed(g);
			cis_guest_try(g); /* it may wait for its state */
		} else if (g && g->state == CIS_GUEST_EXPECTED && g->unbound) {
			cis_guest_end(g, "its socket could not be bound again");
		}
	}
	cis_keeper_link_ready(e->link, 0);
}
