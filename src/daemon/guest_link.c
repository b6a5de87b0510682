/* What a guest's connection brings: handshake, descriptors, state memfd, and at last its end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/events.h"
#include "daemon/guest_int.h"
#include "os/memfd.h"
#include "os/pidfd.h"
#include "os/sock.h"
#include "os/uffd.h"

static struct cis_guest *by_serial(struct cis_engine *e, uint64_t serial)
{
	for (size_t i = 0; i < e->nr_guests; i++)
		if (e->guests[i]->serial == serial)
			return e->guests[i];
	return NULL;
}

static struct cis_guest *by_conn(struct cis_engine *e, uint64_t conn)
{
	for (size_t i = 0; i < e->nr_guests; i++)
		if (e->guests[i]->has_conn && e->guests[i]->conn == conn)
			return e->guests[i];
	return NULL;
}

void cis_guest_refuse(struct cis_guest *g, const struct cis_error *err)
{
	cis_log(CIS_LOG_WARN, "guest=%s pid=%d: handshake refused: %s", g->id, (int)g->peer.pid, err->text);
	cis_events_failed(g->engine->events, g, err->text);
	snprintf(g->error, sizeof(g->error), "%s", err->text);
	cis_seat_destroy(g->seat);
	g->seat = NULL;
	cis_memfd_unmap(g->state_map.header, g->state_bytes);
	g->state_map = (struct cis_state){ 0 };
	g->state_bytes = 0;
	cis_memfd_unmap(g->alias, g->alias_bytes);
	g->alias = NULL;
	free(g->regions);
	g->regions = NULL;
	cis_fds_close(g->fds, g->nr_fds);
	g->nr_fds = 0;
	cis_handshake_destroy(g->hs);
	g->hs = NULL;
	if (g->pidfd >= 0)
		close(g->pidfd);
	g->pidfd = -1;
	cis_keeper_link_refuse(g->engine->link, g->conn, err->text);
	g->has_conn = false;
}

/* Notices of the shard. */

static void page_failed(struct cis_guest *g, const struct cis_notice *n)
{
	static const char *const outcome[] = { "page poisoned", "left out until it is touched", "whoever touches it waits" };
	char text[sizeof(n->err.text) + 64];
	int rc = 0;

	if (n->kill)
		rc = g->pidfd >= 0 ? cis_pidfd_kill(g->pidfd, SIGKILL) : -ESRCH;
	snprintf(text, sizeof(text), "%s, %s", n->err.text, !n->kill ? outcome[g->policy] :
		 rc ? "guest could not be killed and waits" : "guest killed");
	cis_log(CIS_LOG_ERROR, "guest=%s page=%llu %s", g->id, (unsigned long long)n->pgno, text);
	cis_events_failed(g->engine->events, g, text);
	snprintf(g->error, sizeof(g->error), "%.*s", (int)sizeof(g->error) - 1, text);
}

void cis_guest_filled(struct cis_guest *g, enum cis_fill level)
{
	bool all = level == CIS_FILL_ALL;

	if (!g->acked && cis_handshake_layout(g->hs)->ack)
		cis_keeper_link_ack(g->engine->link, g->conn);
	g->acked = true;
	if (g->state < CIS_GUEST_FILLED)
		cis_guest_move(g, CIS_GUEST_FILLED);
	if (all)
		cis_guest_move(g, CIS_GUEST_INDEPENDENT);
}

static void notice(void *arg)
{
	struct cis_notice *n = arg;
	struct cis_guest *g = n->ctx;

	switch (n->type) {
	case CIS_NOTICE_FILLED:
		if (!g->leaving)
			cis_guest_filled(g, n->level);
		break;
	case CIS_NOTICE_FAILED:
		page_failed(g, n);
		break;
	case CIS_NOTICE_GONE:
		cis_guest_end(g, NULL);
		break;
	case CIS_NOTICE_LEFT:
		cis_guest_pages(g, g->last_pages);
		cis_guest_bury(g);
		break;
	}
	free(n);
}

/* Serving begins. */

static int map_alias(struct cis_guest *g, struct cis_error *err)
{
	const uint64_t minor = UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS;
	bool copied = g->memory.kind == CIS_KIND_SHARED && !cis_handshake_layout(g->hs)->allocated;
	struct stat st;
	int rc;

	if (g->memory.memfd < 0)
		return 0;
	if (fstat(g->memory.memfd, &st))
		return cis_fail(err, errno, "memfd: %s", strerror(errno));
	if (copied && !st.st_blocks)
		return 0; /* copying into fresh memory is cheaper: it need not be zeroed first */
	/* Pages that are in the file cannot be copied to, and without minor faults are read as they are. */
	if (copied && !(g->memory.features & minor))
		return cis_fail(err, EPROTO, "the memfd has pages already, which the guest would read instead of the image's: register "
				"it for minor faults, or hand over an empty one");
	if (g->memory.can_shrink)
		return cis_fail(err, EPERM, "the memfd cannot be sealed against shrinking, so it cannot be filled in place");
	rc = cis_memfd_map(g->memory.memfd, 0, (uint64_t)st.st_size, &g->alias);
	if (rc)
		return cis_fail(err, -rc, "memfd: mmap of %llu bytes: %s", (unsigned long long)st.st_size, strerror(-rc));
	g->alias_bytes = (uint64_t)st.st_size;
	return 0;
}

static int make_regions(struct cis_guest *g, struct cis_error *err)
{
	const struct cis_guest_layout *layout = cis_handshake_layout(g->hs);

	g->nr_regions = layout->nr_regions;
	g->regions = calloc(g->nr_regions, sizeof(*g->regions));
	if (!g->regions)
		return cis_fail(err, ENOMEM, "out of memory for %zu regions", g->nr_regions);
	for (size_t i = 0; i < g->nr_regions; i++) {
		const struct cis_guest_region *r = &layout->regions[i];

		g->regions[i] = (struct cis_region){
			.hva = r->hva, .bytes = r->bytes, .offset = r->image_offset,
			.kind = g->memory.kind, .huge = r->page_bytes > 4096,
			.alias = g->alias ? (char *)g->alias + r->offset : NULL,
		};
	}
	return 0;
}

static int take_seat(struct cis_guest *g, struct cis_error *err)
{
	struct cis_engine *e = g->engine;
	struct cis_seat_opts opts = {
		.pager = {
			.regions = g->regions, .nr_regions = g->nr_regions, .image = g->image, .state = g->state_map,
			.neighbours = e->config->neighbours, .policy = g->policy, .tries = e->config->tries,
		},
		.uffd = g->memory.uffd, .layers = g->layers, .fill = g->fill, .detach = e->config->detach, .record = g->record,
		.notice = notice, .ctx = g,
	};

	return cis_seat_create(cis_engine_shard(e), &opts, &g->seat, err);
}

static void serve(struct cis_guest *g, int memfd)
{
	struct cis_error err;
	void *map;
	int rc = cis_memfd_map(memfd, 0, g->state_bytes, &map);

	close(memfd); /* the mapping stays, and the keeper has a descriptor */
	if (rc) {
		cis_fail(&err, -rc, "state memfd: mmap: %s", strerror(-rc));
		cis_guest_refuse(g, &err);
		return;
	}
	cis_state_init(map, CIS_STATE_LAYOUT_MAX, g->nr_pages, g->engine->generation, &g->state_map);
	rc = cis_state_lock(&g->state_map);
	if (rc)
		cis_log(CIS_LOG_DEBUG, "guest=%s its event ring is not locked in memory: %s", g->id, strerror(-rc));
	rc = map_alias(g, &err);
	if (!rc)
		rc = make_regions(g, &err);
	if (!rc)
		rc = take_seat(g, &err);
	if (rc) {
		cis_guest_refuse(g, &err);
		return;
	}
	*g->error = 0;
	cis_keeper_link_unlisten(g->engine->link, g->serial);
	g->listening = false;
	cis_guest_move(g, CIS_GUEST_FILLING);
	cis_seat_sit(g->seat);
	if (g->fill == CIS_FILL_NONE || g->record) /* a fill would take first touches away, so it waits */
		cis_guest_filled(g, CIS_FILL_NONE);
}

static int accept_handshake(struct cis_guest *g, struct cis_error *err)
{
	const struct cis_image_info *info = cis_image_info(g->image);
	struct cis_guest_layout *layout = cis_handshake_layout(g->hs);
	struct cis_guest_image fit = {
		.path = g->image_path, .guest_bytes = info->guest_bytes, .page_shift = info->page_shift,
		.blocks = info->regions, .nr_blocks = info->nr_regions,
	};
	int rc = cis_guest_take_fds(layout, g->fds, g->nr_fds, &g->memory, err);

	if (!rc)
		rc = cis_guest_fit_image(layout, &fit, err);
	if (rc)
		return rc;
	g->state_bytes = cis_state_bytes(CIS_STATE_LAYOUT_MAX, g->nr_pages);
	rc = cis_keeper_link_state(g->engine->link, g->conn, g->state_bytes);
	return rc ? cis_fail(err, -rc, "keeper: %s", strerror(-rc)) : 0;
}

/* What the keeper says. */

static void on_listening(void *ctx, uint64_t listener, const struct cis_wire_listen *listen, int error, const char *why)
{
	struct cis_guest *g = by_serial(ctx, listener);

	(void)listen;
	if (!g || g->state != CIS_GUEST_EXPECTED) { /* deleted or given up meanwhile */
		if (!error)
			cis_keeper_link_unlisten(((struct cis_engine *)ctx)->link, listener);
		return;
	}
	if (!error) {
		g->listening = true;
		cis_guest_move(g, CIS_GUEST_EXPECTED);
		return;
	}
	snprintf(g->error, sizeof(g->error), "%s", why);
	g->listen_error = error;
	cis_guest_release(g);
	cis_guest_forget(g);
}

static void on_connection(void *ctx, uint64_t conn, uint64_t listener, const struct cis_peer *peer, int pidfd)
{
	struct cis_engine *e = ctx;
	struct cis_guest *g = by_serial(e, listener);

	/* A connection that was silent when its guest's socket was closed may speak long after the guest has gone. */
	if (!g || g->state != CIS_GUEST_EXPECTED || g->has_conn || cis_handshake_create(&g->hs)) {
		if (pidfd >= 0)
			close(pidfd);
		cis_keeper_link_refuse(e->link, conn, "this guest is being served already");
		return;
	}
	g->has_conn = true;
	g->conn = conn;
	g->peer = *peer;
	g->pidfd = pidfd;
	g->eof = g->acked = false;
	g->conn_ns = cis_now_ns(NULL);
}

static void on_bytes(void *ctx, uint64_t conn, uint64_t at, const void *bytes, size_t len, const int *fds, size_t nr_fds)
{
	struct cis_guest *g = by_conn(ctx, conn);
	struct cis_error err;
	bool done = false, was_done;

	(void)at;
	if (!g) {
		cis_fds_close(fds, nr_fds);
		return;
	}
	was_done = cis_handshake_layout(g->hs) != NULL;
	if (nr_fds > CIS_WIRE_FDS_MAX - g->nr_fds || (was_done && nr_fds)) {
		cis_fds_close(fds, nr_fds);
		cis_fail(&err, EPROTO, "more descriptors than a handshake has");
		if (!g->seat)
			cis_guest_refuse(g, &err);
		return;
	}
	memcpy(g->fds + g->nr_fds, fds, nr_fds * sizeof(*fds));
	g->nr_fds += nr_fds;
	if (g->seat)
		return; /* nothing more is expected of it, and nothing is done with it */
	if (cis_handshake_feed(g->hs, bytes, len, &done, &err) || (done && !was_done && accept_handshake(g, &err)))
		cis_guest_refuse(g, &err);
}

static void on_broken(void *ctx, uint64_t conn, int error, const char *why)
{
	struct cis_guest *g = by_conn(ctx, conn);
	struct cis_error err;

	if (!g || g->seat)
		return;
	cis_fail(&err, error, "%s", why);
	cis_guest_refuse(g, &err);
}

static void on_eof(void *ctx, uint64_t conn)
{
	struct cis_guest *g = by_conn(ctx, conn);
	struct cis_error err;

	if (!g)
		return;
	g->eof = true;
	if (!g->seat && cis_handshake_end(g->hs, &err))
		cis_guest_refuse(g, &err);
}

static void on_exited(void *ctx, uint64_t conn)
{
	struct cis_guest *g = by_conn(ctx, conn);
	struct cis_error err;

	if (!g)
		return;
	if (g->state_bytes) { /* its handshake was accepted: it was the guest, however short it lived */
		cis_guest_end(g, NULL);
		return;
	}
	cis_fail(&err, EPROTO, "the monitor ended before its guest was served");
	cis_guest_refuse(g, &err);
}

static void on_state(void *ctx, uint64_t conn, int error, int memfd, uint64_t bytes)
{
	struct cis_guest *g = by_conn(ctx, conn);
	struct cis_error err;

	if (!g || g->seat || bytes != g->state_bytes) {
		if (memfd >= 0)
			close(memfd);
		return;
	}
	if (error) {
		cis_fail(&err, error, "state memfd of %llu bytes: %s", (unsigned long long)g->state_bytes, strerror(error));
		cis_guest_refuse(g, &err);
		return;
	}
	serve(g, memfd);
}

static void on_replayed(void *ctx, uint64_t generation)
{
	((struct cis_engine *)ctx)->generation = generation;
}

/* From now on only those that are there are served, and with the last of them the engine ends. */
static void stop_expecting(struct cis_engine *e, const char *why)
{
	e->stopping = true;
	for (size_t i = e->nr_guests; i-- > 0;)
		if (i < e->nr_guests && e->guests[i]->state == CIS_GUEST_EXPECTED)
			cis_guest_end(e->guests[i], why);
}

static void on_stop(void *ctx)
{
	struct cis_engine *e = ctx;

	cis_log(CIS_LOG_INFO, "stopping: no new guests");
	stop_expecting(e, "the daemon was stopped");
}

static void on_lost(void *ctx)
{
	struct cis_engine *e = ctx;

	cis_log(CIS_LOG_ERROR, "the keeper is gone: guests are served, no new ones are taken");
	e->has_keeper = false;
	stop_expecting(e, "the keeper is gone");
}

const struct cis_keeper_link_ops cis_guest_link_ops = {
	.listening = on_listening,
	.connection = on_connection,
	.bytes = on_bytes,
	.broken = on_broken,
	.eof = on_eof,
	.exited = on_exited,
	.state = on_state,
	.replayed = on_replayed,
	.stop = on_stop,
	.lost = on_lost,
};
