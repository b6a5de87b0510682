#include "daemon/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/api.h"
#include "daemon/awake.h"
#include "daemon/events.h"
#include "daemon/guest_int.h"
#include "daemon/handover.h"
#include "daemon/harden.h"
#include "daemon/heir.h"
#include "daemon/ledger.h"
#include "daemon/log.h"
#include "os/uffd.h"

#define FDS_FREE     64 /* for requests, and what is not thought of */
#define TICK_MS	     1000
#define LINK_BATCH   64
#define EPOLL_EVENTS 16

/* Images. */

static int chain_dirs(const char *list, char *copy, size_t len, const char **dirs, size_t max)
{
	size_t n = 0;
	char *at, *save = NULL;

	if (strlen(list) >= len)
		return 0;
	strcpy(copy, list);
	for (at = strtok_r(copy, ":", &save); at && n < max; at = strtok_r(NULL, ":", &save))
		dirs[n++] = at;
	return (int)n;
}

static void close_everywhere(struct cis_engine *e, struct cis_image *img)
{
	/* Parents were opened for this image alone, so nobody else reads them. */
	for (struct cis_image *i = img; i; i = cis_image_info(i)->parent)
		for (unsigned s = 0; s < e->nr_shards; s++)
			cis_shard_forget(e->shards[s], i, NULL);
	cis_workers_forget(e->workers);
	cis_image_unref(img);
}

/* Images do not change: the file that is open already is not read again, which counts when a thousand guests are taken over. */
static struct cis_image_use *image_of_file(struct cis_engine *e, const struct stat *st)
{
	for (size_t i = 0; i < e->nr_images; i++) {
		struct cis_image_use *u = &e->images[i];

		if (u->dev == st->st_dev && u->ino == st->st_ino && u->bytes == st->st_size &&
		    !memcmp(&u->mtime, &st->st_mtim, sizeof(u->mtime)) && !memcmp(&u->ctime, &st->st_ctim, sizeof(u->ctime)))
			return u;
	}
	return NULL;
}

int cis_engine_image(struct cis_engine *e, const char *path, struct cis_image **ret, struct cis_error *err)
{
	char copy[4096];
	const char *dirs[16];
	struct cis_image_dirs search = {
		.path = dirs, .nr = (size_t)chain_dirs(e->config->images, copy, sizeof(copy), dirs, 16)
	};
	struct stat st = { 0 };
	bool is_blank = cis_image_name_is_blank(path);
	struct cis_image_use *use = is_blank || stat(path, &st) ? NULL : image_of_file(e, &st), *more;
	struct cis_image *img;
	int rc;

	if (use) {
		use->guests++;
		*ret = use->img;
		return 0;
	}
	rc = is_blank ? cis_image_blank(path, &img, err) : cis_image_open(path, &search, &img, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < e->nr_images; i++)
		if (!memcmp(cis_image_info(e->images[i].img)->id, cis_image_info(img)->id, CIS_IMAGE_ID_BYTES)) {
			cis_image_unref(img);
			e->images[i].guests++;
			*ret = e->images[i].img;
			return 0;
		}
	more = realloc(e->images, (e->nr_images + 1) * sizeof(*more));
	if (!more) {
		cis_image_unref(img);
		return cis_fail(err, ENOMEM, "%s: out of memory", path);
	}
	e->images = more;
	if (fstat(cis_image_fd(img), &st))
		st.st_ino = 0; /* no file has that */
	e->images[e->nr_images++] = (struct cis_image_use){
		.img = img, .guests = 1, .dev = st.st_dev, .ino = st.st_ino, .bytes = st.st_size, .mtime = st.st_mtim,
		.ctime = st.st_ctim,
	};
	*ret = img;
	return 0;
}

void cis_engine_image_put(struct cis_engine *e, struct cis_image *img)
{
	for (size_t i = 0; i < e->nr_images; i++) {
		if (e->images[i].img != img)
			continue;
		if (--e->images[i].guests)
			return;
		e->images[i] = e->images[--e->nr_images];
		close_everywhere(e, img);
		return;
	}
}

void cis_engine_layers_put(struct cis_engine *e, struct cis_layers *layers)
{
	if (layers != e->layers) {
		for (unsigned s = 0; s < e->nr_shards; s++)
			cis_shard_forget(e->shards[s], NULL, layers);
		cis_workers_forget(e->workers);
	}
	cis_layers_unref(layers);
}

/* The kernel gives the lowest number that is free.  Each thread opens four for an image that it has not read before. */
bool cis_engine_is_short(const struct cis_engine *e)
{
	rlim_t want = FDS_FREE + 4 * (e->nr_shards + cis_workers_nr(e->workers));
	struct rlimit files;
	int fd = fcntl(e->epoll, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return true;
	close(fd);
	return !getrlimit(RLIMIT_NOFILE, &files) && (rlim_t)fd + want >= files.rlim_cur;
}

struct cis_shard *cis_engine_shard(struct cis_engine *e)
{
	struct cis_shard *best = e->shards[0];

	for (unsigned i = 1; i < e->nr_shards; i++)
		if (cis_shard_seats(e->shards[i]) < cis_shard_seats(best))
			best = e->shards[i];
	return best;
}

/* Start and end. */

static int start_threads(struct cis_engine *e, struct cis_error *err)
{
	unsigned cpus = (unsigned)get_nprocs();
	unsigned workers = e->config->workers ? e->config->workers : cpus;
	unsigned shards = e->config->shards ? e->config->shards : cpus > 2 ? cpus / 2 : 1;
	int rc = cis_workers_create(workers, &e->workers);

	if (rc)
		return cis_fail(err, -rc, "%u workers: %s", workers, strerror(-rc));
	e->shards = calloc(shards, sizeof(*e->shards));
	if (!e->shards)
		return cis_fail(err, ENOMEM, "out of memory");
	for (; e->nr_shards < shards; e->nr_shards++) {
		rc = cis_shard_create(e->nr_shards, e->workers, &e->box, e->awake, &e->shards[e->nr_shards]);
		if (rc)
			return cis_fail(err, -rc, "shard %u: %s", e->nr_shards, strerror(-rc));
	}
	return 0;
}

int cis_engine_watch(const struct cis_engine *e, int op, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	return epoll_ctl(e->epoll, op, fd, &ev) ? -errno : 0;
}

/* Clients wait until all guests are known; but what may fail does so now. */
static int watch_all(struct cis_engine *e, struct cis_error *err)
{
	if (cis_engine_watch(e, EPOLL_CTL_ADD, e->box.event, EPOLLIN) || cis_engine_watch(e, EPOLL_CTL_ADD, cis_keeper_link_fd(e->link), EPOLLIN) ||
	    cis_engine_watch(e, EPOLL_CTL_ADD, cis_api_fd(e->api), 0))
		return cis_fail(err, errno, "epoll: %s", strerror(errno));
	return 0;
}

static int start(struct cis_engine *e, int wire, struct cis_error *err)
{
	int rc = cis_mailbox_init(&e->box);

	if (rc)
		return cis_fail(err, -rc, "eventfd: %s", strerror(-rc));
	e->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (e->epoll < 0)
		return cis_fail(err, errno, "epoll: %s", strerror(errno));
	if (cis_events_create(&e->events) || cis_awake_create(e->config->awake_ms, &e->awake))
		return cis_fail(err, ENOMEM, "out of memory");
	if (*e->config->store_layers) {
		rc = cis_layers_parse(e->config->store_layers, &e->layers, err);
		if (rc)
			return rc;
		cis_log(CIS_LOG_WARN, "stores fail on purpose: %s (store_layers)", e->config->store_layers);
	}
	cis_host_budget_open(e);
	rc = cis_harden_engine(e->config, err); /* what needs privilege has been opened; threads inherit what is left */
	if (!rc)
		rc = start_threads(e, err);
	if (rc)
		return rc;
	rc = cis_keeper_link_create(wire, &cis_guest_link_ops, e, &e->link);
	if (!rc)
		rc = cis_standby_hello(e);
	if (rc)
		return cis_fail(err, -rc, "wire to the keeper: %s", strerror(-rc));
	e->has_keeper = true;
	rc = cis_api_create(e, CIS_WIRE_CONTROL_FD, &e->api, err);
	return rc ? rc : watch_all(e, err);
}

static void end(struct cis_engine *e)
{
	cis_api_destroy(e->api);
	cis_ledger_destroy(e->ledger); /* it says what was, if anybody asks */
	e->ledger = NULL;
	while (e->nr_guests)
		cis_guest_forget(e->guests[0]); /* all are gone */
	free(e->guests);
	for (unsigned i = 0; i < e->nr_shards; i++)
		cis_shard_destroy(e->shards[i]);
	free(e->shards);
	cis_workers_destroy(e->workers);
	free(e->images);
	cis_layers_unref(e->layers);
	cis_keeper_link_destroy(e->link);
	cis_awake_destroy(e->awake);
	cis_host_budget_close(e);
	cis_events_destroy(e->events);
	if (e->epoll >= 0)
		close(e->epoll);
	cis_mailbox_fini(&e->box);
}

/* The control thread. */

static bool all_gone(const struct cis_engine *e)
{
	for (size_t i = 0; i < e->nr_guests; i++)
		if (e->guests[i]->state != CIS_GUEST_GONE)
			return false;
	return true;
}

/* Another engine serves, and nobody waits for an answer of this one any more; or this one cannot follow. */
static bool is_over(const struct cis_engine *e)
{
	const struct cis_handover *h = &e->handover;

	return h->step == CIS_HANDOVER_OVER && (h->exit || cis_api_is_idle(e->api) || cis_now_ns(NULL) >= h->until_ns);
}

static int shorter(int a, int b)
{
	return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

static void loop(struct cis_engine *e)
{
	struct epoll_event ev[EPOLL_EVENTS];
	uint64_t next_tick = 0;
	bool more = false, has_api = false;

	while (!is_over(e) && (!e->stopping || !all_gone(e)) && !cis_heir_is_alone(e)) {
		int wait = shorter(shorter(cis_awake_tick(e->awake), has_api ? cis_api_timeout_ms(e->api) : -1), TICK_MS);

		epoll_wait(e->epoll, ev, EPOLL_EVENTS, more ? 0 : wait);
		if (e->has_keeper) {
			more = cis_keeper_link_run(e->link, LINK_BATCH);
			if (!e->has_keeper) {
				cis_engine_watch(e, EPOLL_CTL_DEL, cis_keeper_link_fd(e->link), 0);
				more = false;
			}
		}
		cis_heir_look(e);
		cis_mailbox_run(&e->box);
		if (cis_now_ns(NULL) >= next_tick) {
			cis_guest_tick(e);
			cis_host_budget_tick(e);
			cis_daemon_log_tick();
			next_tick = cis_now_ns(NULL) + TICK_MS * 1000000ull;
		}
		if (!has_api && e->mode != CIS_ENGINE_LEARNS)
			has_api = !cis_engine_watch(e, EPOLL_CTL_MOD, cis_api_fd(e->api), EPOLLIN);
		if (has_api)
			cis_api_run(e->api); /* last, as what comes before may answer requests */
	}
}

/* What the kernel cannot do is said once, at the start, where the operator looks. */
static int check_kernel(struct cis_error *err)
{
	uint64_t features;
	int rc = cis_uffd_features(&features);

	if (rc == -EPERM || rc == -EACCES) {
		/* Monitors make the descriptors; the engine only uses them. */
		cis_log(CIS_LOG_INFO, "no permission to make a userfaultfd here; guests' monitors need it, the daemon does not");
		return 0;
	}
	if (rc)
		return cis_fail(err, -rc, "this kernel has no userfaultfd (%s): run 'cistern doctor'", strerror(-rc));
	if (!(features & UFFD_FEATURE_POISON))
		cis_log(CIS_LOG_WARN, "this kernel has no UFFDIO_POISON (Linux 6.6): the policy poison kills the guest");
	return 0;
}

int cis_engine_main(const struct cis_config *config, int wire)
{
	struct cis_engine e = { .config = config, .epoll = -1, .heir = { -1, -1, false }, .started_ns = cis_now_ns(NULL), .keeper_pid = getppid(),
				.layout = config->state_layout ? config->state_layout : CIS_STATE_LAYOUT_MAX };
	struct cis_error err;
	int rc = check_kernel(&err);

	if (!rc)
		rc = start(&e, wire, &err);
	if (rc) {
		cis_log(CIS_LOG_ERROR, "engine: %s", err.text);
		return 1;
	}
	cis_log(CIS_LOG_INFO, "engine: version %s, for %s, %u shards, %u workers", CISTERN_VERSION, config->control, e.nr_shards,
		cis_workers_nr(e.workers));
	loop(&e);
	if (e.handover.step == CIS_HANDOVER_OVER)
		_exit(e.handover.exit); /* guests are another engine's: whatever is given back here could only do harm */
	cis_log(CIS_LOG_INFO, "engine: the last guest has gone");
	if (cis_heir_is_alone(&e))
		_exit(0); /* who is expected is so by the daemon that comes */
	end(&e);
	return 0;
}
