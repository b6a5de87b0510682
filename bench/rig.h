/*
 * A restore by the daemon's own code, without its sockets: a shard, workers, and guests that live in this process.
 *
 * Calls are of one thread, which plays the daemon's control thread.
 */
#ifndef CIS_BENCH_RIG_H
#define CIS_BENCH_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/awake.h"
#include "daemon/shard.h"

/** struct rig - one shard and its workers; they run on any CPU, whatever the caller is pinned to */
struct rig {
	struct cis_mailbox control;
	struct cis_workers *workers;
	struct cis_shard *shard;
	struct cis_awake *awake;
};

/** rig_open(), rig_close() - exit with a message when it cannot be. */
void rig_open(struct rig *rig, unsigned workers);
void rig_close(struct rig *rig);

/** rig_forget() - the rig's threads close their handles of an image that no guest uses any more. */
void rig_forget(struct rig *rig, struct cis_image *img);

/**
 * struct rig_guest - a guest's memory, and the seat that serves it
 * @allocated: the memory is a memfd whose pages exist already, as the reserve hands
 *             it out: pages are decoded in place and mapped; else it is anonymous
 * @mem:       where the guest has it
 * @filled:    how far it is filled
 */
struct rig_guest {
	struct rig *rig;
	struct cis_image *image;
	bool allocated;
	uint64_t bytes;
	char *mem, *alias;
	int memfd, uffd, state_fd;
	struct cis_state state;
	struct cis_seat *seat;
	enum cis_fill filled;
	bool left;
	unsigned failed;
};

/** rig_guest_init() - @image is referenced; its guest_bytes is the guest's size. */
void rig_guest_init(struct rig_guest *g, struct rig *rig, struct cis_image *image, bool allocated);
void rig_guest_fini(struct rig_guest *g);

/** rig_guest_prepare() - an empty guest, not yet registered: what a monitor does, and the keeper, before the restore. */
void rig_guest_prepare(struct rig_guest *g);

/** rig_guest_restore() - register the memory, let the daemon's code fill it to @fill, return when it has. */
void rig_guest_restore(struct rig_guest *g, enum cis_fill fill);

/** rig_guest_leave() - the guest ends.  Safe to call for one that is not there. */
void rig_guest_leave(struct rig_guest *g);

#endif
