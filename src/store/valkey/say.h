/* What servers say: the parts of it that are read by us and not by hiredis.  All of it may be wrong, or hostile. */
#ifndef CIS_STORE_VALKEY_SAY_H
#define CIS_STORE_VALKEY_SAY_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/hosts.h"

#define VK_SLOTS	 16384u
#define VK_RANGES_MAX	 VK_SLOTS
#define VK_LAG_MAX_SECONDS 10u /* of a replica that counts, as in Redis' min-replicas-max-lag */

/** struct vk_bound - hiredis' functions that make replies, and ours */
struct vk_bound {
	redisReplyObjectFunctions theirs, ours;
};

/** vk_bound() - arrays of @reader are no longer than any that is of use; @bound lives as long as it. */
void vk_bound(struct vk_bound *bound, redisReader *reader);

/** vk_slot() - the slot of a cluster that a key without braces is in (CRC16/XMODEM, cluster specification). */
uint16_t vk_slot(const char *key, size_t len);

enum vk_error {
	VK_ERR_MOVED,	/* the slot is another server's */
	VK_ERR_ASK,	/* the key may be on its way to another server */
	VK_ERR_AGAIN,	/* later, or elsewhere once the cluster has made up its mind */
	VK_ERR_REPLICA, /* a replica does not do that */
	VK_ERR_FULL,
	VK_ERR_DENIED, /* user, password, or what the user may do */
	VK_ERR_OTHER,
};

/** struct vk_redirect - of MOVED and ASK; @name "": the server that said it */
struct vk_redirect {
	uint16_t slot, port;
	char name[CIS_HOST_NAME_MAX + 1];
};

/** vk_error() - what an error reply means; a redirection that cannot be read is VK_ERR_OTHER. */
enum vk_error vk_error(const char *text, size_t len, struct vk_redirect *ret);

/**
 * struct vk_info - of INFO
 * @evicts:   drops keys by itself when memory is short
 * @keeps:    writes an append-only file
 * @replicas: that are in step
 */
struct vk_info {
	bool cluster, primary, evicts, keeps;
	unsigned replicas;
};

/** vk_info() - Return: 0, or -EPROTO when it does not say all of this. */
int vk_info(const char *text, struct vk_info *ret);

/** vk_range_fn() - @first > @last: a replica, which has no slots; @name "": the server that said it */
typedef void (*vk_range_fn)(void *ctx, unsigned first, unsigned last, const char *name, uint16_t port);

/**
 * vk_ranges() - of CLUSTER SLOTS: which primary has which slots, and which replicas there are
 * @fn: NULL: only check.  Called only when all of it can be read
 *
 * Return: 0 or -EPROTO.
 */
int vk_ranges(const redisReply *reply, vk_range_fn fn, void *ctx);

#endif
