/* Serving begins: what a handshake brought is looked at, opened and mapped. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/drain.h"
#include "daemon/events.h"
#include "daemon/guest_int.h"
#include "daemon/handover.h"
#include "daemon/log.h"
#include "os/memfd.h"
#include "os/pidfd.h"
#include "os/uffd.h"

#define PAGES_NAMED 10u /* that failed, of a guest, in the log in a second */

int cis_guest_open_image(struct cis_guest *g, struct cis_error *err)
{
	const struct cis_image_info *info;
	struct cis_image *img;
	int rc = g->image ? 0 : cis_engine_image(g->engine, g->image_path, &img, err);

	if (rc || g->image)
		return rc;
	info = cis_image_info(img);
	if (g->has_image_id && memcmp(g->image_id, info->id, sizeof(g->image_id))) {
		cis_engine_image_put(g->engine, img);
		return cis_fail(err, ESTALE, "%s: is not the image that the guest began with", g->image_path);
	}
	memcpy(g->image_id, info->id, sizeof(g->image_id));
	g->has_image_id = true;
	g->nr_pages = info->nr_pages;
	g->page_shift = info->page_shift;
	g->image = img;
	return 0;
}

/*
 * What is decoded in place lies in the file before it is whole and verified.  The kernel keeps guests from it only where minor
 * faults are watched, and nothing in a handshake says so: it is done here, and changes nothing where it was done already.
 */
static int watch_minor(struct cis_guest *g, struct cis_error *err)
{
	const struct cis_guest_layout *layout = cis_handshake_layout(g->conn->hs);

	for (size_t i = 0; i < layout->nr_regions; i++) {
		int rc = cis_uffd_register(g->memory.uffd, layout->regions[i].hva, layout->regions[i].bytes,
					   UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);

		if (rc)
			return cis_fail(err, EPROTO, "region %zu cannot be watched for minor faults, which memory needs that is filled in "
					"place: %s (UFFD_FEATURE_MINOR_SHMEM)", i, strerror(-rc));
	}
	return 0;
}

/* Decided once, when nothing has been installed: afterwards one could not tell. */
static int choose_way(struct cis_guest *g, struct cis_error *err)
{
	const uint64_t minor = UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS;
	bool copied = g->memory.kind == CIS_KIND_SHARED && !cis_handshake_layout(g->conn->hs)->allocated;
	struct stat st;
	int rc;

	g->in_place = false;
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
	rc = watch_minor(g, err);
	g->in_place = !rc;
	return rc;
}

int cis_guest_accept(struct cis_guest *g, struct cis_error *err)
{
	struct cis_guest_layout *layout = cis_handshake_layout(g->conn->hs);
	const struct cis_image_info *info;
	struct cis_guest_image fit;
	int rc = cis_guest_open_image(g, err);

	if (rc)
		return rc;
	info = cis_image_info(g->image);
	fit = (struct cis_guest_image){
		.path = g->image_path, .guest_bytes = info->guest_bytes, .page_shift = info->page_shift,
		.blocks = info->regions, .nr_blocks = info->nr_regions,
	};
	rc = cis_guest_take_fds(layout, g->conn->fds, g->conn->nr_fds, &g->memory, err);
	if (!rc)
		rc = cis_guest_fit_image(layout, &fit, err);
	if (!rc)
		rc = cis_guest_check_budget(g, err);
	if (!rc && !g->adopted)
		rc = choose_way(g, err);
	g->accepted = !rc;
	return rc;
}

static int map_state(struct cis_guest *g, struct cis_error *err)
{
	struct cis_conn *c = g->conn;
	void *map;
	int rc;

	if (g->state_map.header)
		return 0;
	rc = cis_memfd_map(c->state_fd, 0, c->state_bytes, &map);
	if (rc)
		return cis_fail(err, -rc, "state memfd: mmap: %s", strerror(-rc));
	g->state_map = (struct cis_state){ .header = map, .bytes = c->state_bytes };
	return 0;
}

bool cis_guest_may_be_reclaimed(const struct cis_guest *g)
{
	return g->memory.kind == CIS_KIND_SHARED && g->page_shift == 12 && !g->memory.can_shrink;
}

/* One mapping serves both: to fill in place, and to reclaim. */
static int map_memory(struct cis_guest *g, struct cis_error *err)
{
	struct stat st;
	int rc;

	if ((!g->in_place && !cis_guest_may_be_reclaimed(g)) || g->map)
		return 0;
	if (g->memory.memfd < 0)
		return cis_fail(err, EBADF, "memfd: is not there");
	if (fstat(g->memory.memfd, &st))
		return cis_fail(err, errno, "memfd: %s", strerror(errno));
	rc = cis_memfd_map(g->memory.memfd, 0, (uint64_t)st.st_size, &g->map);
	if (rc)
		return cis_fail(err, -rc, "memfd: mmap of %llu bytes: %s", (unsigned long long)st.st_size, strerror(-rc));
	g->map_bytes = (uint64_t)st.st_size;
	return 0;
}

static int make_regions(struct cis_guest *g, struct cis_error *err)
{
	const struct cis_guest_layout *layout = cis_handshake_layout(g->conn->hs);

	if (!g->regions) /* those of a guest that was closed are kept, to be shown */
		g->regions = calloc(layout->nr_regions, sizeof(*g->regions));
	if (!g->regions)
		return cis_fail(err, ENOMEM, "out of memory for %zu regions", layout->nr_regions);
	g->nr_regions = layout->nr_regions;
	for (size_t i = 0; i < g->nr_regions; i++) {
		const struct cis_guest_region *r = &layout->regions[i];
		char *at = g->map ? (char *)g->map + r->offset : NULL;

		g->regions[i] = (struct cis_region){
			.hva = r->hva, .bytes = r->bytes, .offset = r->image_offset,
			.kind = g->memory.kind, .huge = r->page_bytes > 4096,
			.alias = g->in_place ? at : NULL, .view = cis_guest_may_be_reclaimed(g) ? at : NULL,
		};
	}
	return 0;
}

int cis_guest_open(struct cis_guest *g, struct cis_error *err)
{
	int rc = g->accepted ? cis_guest_open_image(g, err) : cis_guest_accept(g, err);

	if (!rc)
		rc = map_state(g, err);
	if (!rc)
		rc = map_memory(g, err);
	return rc ? rc : make_regions(g, err);
}

static void lock_state(struct cis_guest *g, const struct cis_state *st)
{
	int rc = g->is_locked ? 0 : cis_state_lock(st);

	if (rc)
		cis_log(CIS_LOG_DEBUG, "guest=%s its event ring is not locked in memory: %s", g->id, strerror(-rc));
	g->is_locked = true;
}

void cis_guest_preview(struct cis_guest *g)
{
	struct cis_state st;

	if (!cis_state_adopt(g->state_map.header, g->state_map.bytes, &st, NULL))
		lock_state(g, &st);
}

/* @st is of a layout that has them. */
static void read_figures(struct cis_guest *g, const struct cis_state *st)
{
	size_t bytes = st->header->stats_bytes < sizeof(g->last.stats) ? st->header->stats_bytes : sizeof(g->last.stats);

	memset(&g->last.stats, 0, sizeof(g->last.stats));
	memcpy(&g->last.stats, st->stats, bytes);
	g->last.recorded = st->header->nr_trace;
}

void cis_guest_peek(struct cis_guest *g)
{
	struct cis_conn *c = g->conn;
	struct cis_state st;
	void *map;

	if (g->seat || g->is_known || !c || c->state_fd < 0 || cis_memfd_map(c->state_fd, 0, c->state_bytes, &map))
		return;
	g->is_known = true; /* nobody changes it until it is served */
	if (!cis_state_adopt(map, c->state_bytes, &st, NULL)) {
		memset(g->last_pages, 0, sizeof(g->last_pages));
		for (uint64_t i = 0; i < st.header->nr_pages; i++)
			g->last_pages[cis_word_state(st.words[i])]++;
		if (st.stats)
			read_figures(g, &st);
	}
	cis_memfd_unmap(map, c->state_bytes);
}

void cis_guest_close(struct cis_guest *g)
{
	cis_seat_destroy(g->seat);
	g->seat = NULL;
	cis_memfd_unmap(g->state_map.header, g->state_map.bytes);
	g->state_map = (struct cis_state){ 0 };
	g->is_locked = false;
	cis_memfd_unmap(g->map, g->map_bytes);
	g->map = NULL;
}

/* Notices of the shard. */

/* A damaged image fails a guest page by page: the first ones are named, the others counted, so that others are heard too. */
static bool may_name_page(struct cis_guest *g)
{
	if (g->nr_pages_named == PAGES_NAMED) {
		g->nr_pages_unnamed++;
		return false;
	}
	g->nr_pages_named++;
	return true;
}

void cis_guest_tell_unnamed(struct cis_guest *g)
{
	if (g->nr_pages_unnamed)
		cis_log(CIS_LOG_ERROR, "guest=%s %llu more pages, the last one: %s", g->id, (unsigned long long)g->nr_pages_unnamed,
			g->error);
	g->nr_pages_named = 0;
	g->nr_pages_unnamed = 0;
}

static void page_failed(struct cis_guest *g, const struct cis_notice *n)
{
	static const char *const what[] = {
		[CIS_OUTCOME_POISON] = "page poisoned", [CIS_OUTCOME_KILL] = "guest killed",
		[CIS_OUTCOME_STALL] = "whoever touched it waits", [CIS_OUTCOME_LEFT] = "left out until it is touched",
	};
	char text[sizeof(n->err.text) + 64];
	int pidfd = g->conn ? g->conn->pidfd : -1, rc = 0;
	bool log = may_name_page(g);

	if (n->outcome == CIS_OUTCOME_KILL)
		rc = pidfd >= 0 ? cis_pidfd_kill(pidfd, SIGKILL) : -ESRCH;
	if (n->outcome == CIS_OUTCOME_KILL && !rc)
		cis_seat_killed(g->seat);
	snprintf(text, sizeof(text), "%s, %s", n->err.text, rc ? "guest could not be killed and waits" : what[n->outcome]);
	if (log)
		cis_log(CIS_LOG_ERROR, "guest=%s page=%llu %s", g->id, (unsigned long long)n->pgno, text);
	cis_events_failed(g->engine->events, g, text, log);
	snprintf(g->error, sizeof(g->error), "%.*s", (int)sizeof(g->error) - 1, text);
}

static void store_trouble(struct cis_guest *g, const struct cis_notice *n)
{
	switch (n->what) {
	case CIS_TROUBLE_FAULT:
		cis_log(CIS_LOG_WARN, "guest=%s %s, trying again for up to %u ms", g->id, n->err.text,
			g->engine->config->store_deadline_ms);
		break;
	case CIS_TROUBLE_FILL:
		cis_log(CIS_LOG_WARN, "guest=%s %s, the fill pauses and tries again", g->id, n->err.text);
		break;
	case CIS_TROUBLE_PUT:
		cis_log(CIS_LOG_WARN, "guest=%s %s, pages wait in its stash and are tried again", g->id, n->err.text);
		break;
	}
}

static void recovered(struct cis_guest *g)
{
	cis_log(CIS_LOG_INFO, "guest=%s all pages that it waited for have come, it goes on", g->id);
	cis_events_guest(g->engine->events, "guest.recovered", g);
	*g->error = 0;
}

/* The namespace names it there; nobody is going to ask for it. */
static void tell_litter(const struct cis_guest *g, const struct cis_error *err)
{
	char store[CIS_BUDGET_PAGES_MAX + 1];

	cis_pages_show(g->budget.pages, store, sizeof(store));
	cis_log(CIS_LOG_WARN, "guest=%s its pages stay in %s, namespace %016llx%016llx: %s", g->id, store, (unsigned long long)g->ns[0],
		(unsigned long long)g->ns[1], err->text);
}

static void left(struct cis_guest *g, const struct cis_error *err)
{
	struct cis_engine *e = g->engine;
	bool was_paused = g->paused;

	if (err->code)
		tell_litter(g, err);
	cis_guest_pages(g, g->last_pages);
	cis_guest_bury(g);
	cis_handover_left(e, was_paused);
	cis_drain_look(e);
}

/* A guest may have got a budget since the shard said that it needs us no more. */
static void filled(struct cis_guest *g, enum cis_fill level)
{
	if (level == CIS_FILL_ALL && !cis_seat_is_filled(g->seat))
		return;
	if (!g->leaving)
		cis_guest_filled(g, level);
	if (level == CIS_FILL_ALL)
		cis_drain_look(g->engine);
}

static void notice(void *arg)
{
	struct cis_notice *n = arg;
	struct cis_guest *g = n->ctx;

	switch (n->type) {
	case CIS_NOTICE_FILLED:
		filled(g, n->level);
		break;
	case CIS_NOTICE_FAILED:
		page_failed(g, n);
		break;
	case CIS_NOTICE_TROUBLE:
		store_trouble(g, n);
		break;
	case CIS_NOTICE_RECOVERED:
		recovered(g);
		break;
	case CIS_NOTICE_GONE:
		cis_guest_end(g, NULL);
		break;
	case CIS_NOTICE_LEFT:
		left(g, &n->err);
		break;
	case CIS_NOTICE_PAUSED:
		cis_handover_paused(g);
		break;
	}
	free(n);
}

int cis_guest_convert(struct cis_guest *g, unsigned layout, int *ret_fd, struct cis_state *ret, struct cis_error *err)
{
	uint64_t bytes = cis_state_bytes(layout, g->nr_pages);
	int fd, rc = cis_memfd_create("cistern-state-copy", bytes, 4096, &fd);
	void *map;

	if (rc)
		return cis_fail(err, -rc, "guest %s: state of layout %u: %s", g->id, layout, strerror(-rc));
	rc = cis_memfd_map(fd, 0, bytes, &map);
	if (rc) {
		close(fd);
		return cis_fail(err, -rc, "guest %s: state of layout %u: mmap: %s", g->id, layout, strerror(-rc));
	}
	rc = cis_state_convert(&g->state_map, map, layout, g->engine->generation, ret, err);
	if (rc) {
		cis_memfd_unmap(map, bytes);
		close(fd);
	} else {
		*ret_fd = fd;
	}
	return rc;
}

/* Return: -ENODATA: no size of a state of this guest. */
static int begin_state(struct cis_guest *g, struct cis_error *err)
{
	uint64_t bytes = g->state_map.bytes;

	for (unsigned layout = CIS_STATE_LAYOUT_MIN; layout <= CIS_STATE_LAYOUT_MAX; layout++)
		if (bytes == cis_state_bytes(layout, g->nr_pages)) {
			cis_state_init(g->state_map.header, layout, g->nr_pages, g->engine->generation, &g->state_map);
			return 0;
		}
	return cis_fail(err, ENODATA, "state memfd: %llu bytes are not of a guest of %llu pages", (unsigned long long)bytes,
			(unsigned long long)g->nr_pages);
}

/*
 * A state memfd that no engine has finished to begin with is of a guest that none has served.
 *
 * Return: 0 and whether there is something to adopt, or -errno.
 */
static int check_state(struct cis_guest *g, bool *ret_adopt, struct cis_error *err)
{
	int rc = cis_state_adopt(g->state_map.header, g->state_map.bytes, &g->state_map, err);

	*ret_adopt = !rc;
	if (rc == -ENODATA)
		rc = begin_state(g, err);
	if (!rc && g->state_map.header->nr_pages != g->nr_pages)
		rc = cis_fail(err, EBADMSG, "state memfd: of a guest of %llu pages, not %llu",
			      (unsigned long long)g->state_map.header->nr_pages, (unsigned long long)g->nr_pages);
	return rc;
}

static const struct cis_reclaim_opts *first_reclaim(const struct cis_guest *g, struct cis_reclaim_opts *room)
{
	*room = cis_guest_reclaim_opts(g);
	if (g->conn->exited) /* its pages are only to be forgotten */
		room->budget_pages = UINT64_MAX;
	return cis_guest_may_be_away(g) ? room : NULL;
}

/* One that turns out not to be reclaimable (its state is of an older layout, or the kernel cannot) takes no part in the host's budget. */
static int make_seat(struct cis_guest *g, struct cis_seat_opts *opts, struct cis_error *err)
{
	struct cis_shard *shard = cis_engine_shard(g->engine);
	struct cis_reclaim_opts reclaim;
	int rc;

	cis_host_budget_admit(g);
	opts->reclaim = first_reclaim(g, &reclaim);
	rc = cis_seat_create(shard, opts, &g->seat, err);
	if (rc != -EOPNOTSUPP || g->share == UINT64_MAX || cis_budget_limit(&g->budget) != UINT64_MAX)
		return rc;
	g->share = UINT64_MAX;
	g->host.is_refused = true;
	opts->reclaim = first_reclaim(g, &reclaim);
	return cis_seat_create(shard, opts, &g->seat, err);
}

int cis_guest_seat(struct cis_guest *g, struct cis_error *err)
{
	struct cis_engine *e = g->engine;
	struct cis_seat_opts opts = {
		.pager = {
			.regions = g->regions, .nr_regions = g->nr_regions, .image = g->image,
			.neighbours = e->config->neighbours, .policy = g->policy, .can_kill = g->conn->pidfd >= 0,
			.tries = e->config->tries, .store_deadline_ns = e->config->store_deadline_ms * 1000000ull,
			.generation = e->generation,
		},
		.uffd = g->memory.uffd, .layers = g->layers, .fault_rate = e->config->fault_rate,
		.fault_burst = e->config->fault_burst, .fill = g->fill, .detach = e->config->detach, .record = g->record,
		.pages = g->budget.pages, .notice = notice, .ctx = g,
	};
	int rc = g->seat ? 0 : check_state(g, &opts.pager.adopt, err);

	if (rc || g->seat)
		return rc;
	lock_state(g, &g->state_map);
	opts.pager.state = g->state_map;
	return make_seat(g, &opts, err);
}

static void note(struct cis_guest *g, bool ack)
{
	char *text;

	if (!g->conn || !g->engine->has_keeper)
		return;
	text = cis_guest_note_text(g);
	if (!text)
		cis_give_up("no memory to note what became of guest %s", g->id);
	if (cis_keeper_link_note(g->engine->link, g->conn->id, text, ack))
		cis_log(CIS_LOG_ERROR, "guest=%s: cannot be noted; an engine that follows will know it as it was", g->id);
	free(text);
}

void cis_guest_note_changed(struct cis_guest *g)
{
	note(g, false);
}

void cis_guest_note_acked(struct cis_guest *g)
{
	g->acked = true;
	note(g, cis_handshake_layout(g->conn->hs)->ack);
}

void cis_guest_begin(struct cis_guest *g)
{
	if (!g->begun)
		*g->error = 0;
	if (!g->begun && g->policy == CIS_POLICY_KILL && g->conn->pidfd < 0)
		cis_log(CIS_LOG_WARN, "guest=%s its monitor is not known as a process here, so it cannot be killed: whoever touches a page "
			"that cannot be produced waits", g->id);
	g->begun = true;
	if (g->listening)
		cis_keeper_link_unlisten(g->engine->link, g->serial);
	g->listening = g->stalled = false;
	if (g->state < CIS_GUEST_FILLING)
		cis_guest_move(g, CIS_GUEST_FILLING);
	cis_seat_sit(g->seat);
	if (!g->adopted)
		cis_host_budget_divide(g->engine);
	if (g->fill == CIS_FILL_NONE || g->record) /* a fill would take first touches away, so it waits */
		cis_guest_filled(g, CIS_FILL_NONE);
}
