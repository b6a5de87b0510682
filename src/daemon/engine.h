/*
 * The engine: the process that serves faults.  One control thread owns everything here; shards and workers hear of it by
 * messages.
 */
#ifndef CIS_DAEMON_ENGINE_H
#define CIS_DAEMON_ENGINE_H

#include <sys/types.h>
#include <time.h>

#include "daemon/config.h"
#include "daemon/host_budget.h"
#include "daemon/keeper_link.h"
#include "daemon/mailbox.h"
#include "daemon/sections.h"
#include "daemon/shard.h"
#include "daemon/worker.h"

struct cis_api;
struct cis_events;
struct cis_guest;
struct cis_awake;
struct cis_ledger;

struct cis_conn;

#define CIS_ENGINE_BUCKETS 1024u

/** struct cis_image_use - an open image, the file that it was, and how many guests use it */
struct cis_image_use {
	struct cis_image *img;
	unsigned guests;
	dev_t dev;
	ino_t ino;
	off_t bytes;
	struct timespec mtime, ctime;
};

/**
 * enum cis_engine_mode - who acts
 * @CIS_ENGINE_LEARNS:  the keeper tells what there is; facts are collected, nothing is asked for or served.  So it is
 *                      with a standby until it is told to go
 * @CIS_ENGINE_SERVES:  the one that does
 * @CIS_ENGINE_STANDS_STILL: it did, and another may follow; facts are collected
 */
enum cis_engine_mode { CIS_ENGINE_LEARNS, CIS_ENGINE_SERVES, CIS_ENGINE_STANDS_STILL };

struct cis_request;

enum cis_handover_step { CIS_HANDOVER_NONE, CIS_HANDOVER_ASKED, CIS_HANDOVER_PAUSING, CIS_HANDOVER_PAUSED, CIS_HANDOVER_OVER };

/**
 * struct cis_handover - of the engine that serves, to one that follows it (handover.c)
 * @asked:     the request that waits for it; NULL: it has left, or this is not the engine that was asked
 * @pausing:   seats that do not stand still yet
 * @since_ns:  when they were told to
 * @exit:      OVER: status to exit with, and when at the latest
 */
struct cis_handover {
	enum cis_handover_step step;
	struct cis_request *asked;
	struct cis_wire_hello successor;
	size_t pausing;
	uint64_t since_ns, until_ns;
	int exit;
};

/**
 * struct cis_heir - where another keeper asks, should this engine's die (heir.c)
 * @sock, @lock: -1: there is none
 * @is_awaited:  the keeper is gone, and this engine listens there
 */
struct cis_heir {
	int sock, lock;
	bool is_awaited;
};

struct cis_engine {
	const struct cis_config *config;
	struct cis_keeper_link *link;
	bool has_keeper, stopping;
	enum cis_wire_role role;
	enum cis_engine_mode mode;
	struct cis_handover handover;
	struct cis_heir heir;
	struct cis_sections handover_sections; /* begun before guests stand still */
	bool has_forgotten;		       /* a gone guest since then */
	void *handed; /* of the engine before, not read yet */
	size_t handed_len;
	unsigned layout; /* of state memfds that it writes */
	bool has_unread_note; /* of a guest that it cannot know therefore */
	struct cis_mailbox box;
	int epoll;
	struct cis_workers *workers;
	struct cis_shard **shards;
	unsigned nr_shards;
	struct cis_guest **guests; /* by id */
	size_t nr_guests;
	struct cis_guest *by_serial[CIS_ENGINE_BUCKETS];
	struct cis_conn *conns[CIS_ENGINE_BUCKETS];
	struct cis_layers *layers; /* of guests that name none, or NULL */
	struct cis_image_use *images;
	size_t nr_images;
	struct cis_ledger *ledger; /* NULL: the keeper has none */
	struct cis_pager_stats past; /* of all guests that are forgotten */
	struct cis_request *drain_asked; /* who waits for all guests to be independent, or NULL */
	bool drain_stop;		 /* each is let go as soon as it is */
	uint64_t next_serial;
	uint64_t generation;
	uint64_t takeover_ns; /* what taking over took, of what this engine did itself */
	uint64_t started_ns;
	pid_t keeper_pid;
	struct cis_api *api;
	struct cis_events *events;
	struct cis_awake *awake;
	struct cis_host_budget host;
};

/**
 * cis_engine_main() - run an engine until it is told to stop and the last guest has gone
 * @wire: its end of the wire to the keeper
 *
 * Return: exit status.
 */
int cis_engine_main(const struct cis_config *config, int wire);

/**
 * cis_engine_image() - an open image for a guest, shared with other guests of the same image
 *
 * @path may be the name of a blank one.  Return: as cis_image_open() or cis_image_blank().  cis_engine_image_put() gives it back.
 */
int cis_engine_image(struct cis_engine *e, const char *path, struct cis_image **ret, struct cis_error *err);
void cis_engine_image_put(struct cis_engine *e, struct cis_image *img);

/** cis_engine_layers_put() - give back the layers of a guest that has left; stores that were opened through them are closed. */
void cis_engine_layers_put(struct cis_engine *e, struct cis_layers *layers);

/** cis_engine_is_short() - so few descriptors are left that what is being served may come to need them. */
bool cis_engine_is_short(const struct cis_engine *e);

/** cis_engine_watch() - wake the control thread when @fd is ready; @op as of epoll_ctl().  Return: 0 or -errno. */
int cis_engine_watch(const struct cis_engine *e, int op, int fd, uint32_t events);

/** cis_engine_shard() - the one with the fewest guests. */
struct cis_shard *cis_engine_shard(struct cis_engine *e);

#endif
