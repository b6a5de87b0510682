/* Is it there, and safe for pages?  A handle of its own finds out. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "store/valkey/valkey.h"

static int fail(struct cis_error *err, int code, const struct vk_node *node, const char *why)
{
	char name[CIS_HOST_TEXT_MAX];

	cis_host_text(node->name, node->port, name);
	return cis_fail(err, code, "valkey %s: %s", name, why);
}

static int evicts(struct cis_error *err, const struct vk_node *node)
{
	if (!node->port)
		return cis_fail(err, EPERM, "valkey %s: drops pages by itself when memory is short: redis-cli -s %s CONFIG SET "
				"maxmemory-policy noeviction, and the same in its configuration", node->name, node->name);
	return cis_fail(err, EPERM, "valkey %s port %u: drops pages by itself when memory is short: redis-cli -h %s -p %u CONFIG SET "
			"maxmemory-policy noeviction, and the same in its configuration", node->name, node->port, node->name,
			node->port);
}

/* A server that puts go to.  Return: -EINPROGRESS: not known yet. */
static int check_node(const struct vk_node *node, struct cis_error *err)
{
	const struct vk_conn *c = &node->conn[VK_PUTS];
	const struct vk *vk = node->vk;

	if (c->refused)
		return cis_fail(err, c->refused, "%s", vk->why.text);
	if (c->state != VK_READY)
		return -EINPROGRESS;
	if (node->info.evicts)
		return evicts(err, node);
	if (vk->opts.replicas > (int)node->info.replicas)
		return fail(err, EAGAIN, node, "has fewer replicas in step than the key replicas asks for, so that puts would wait");
	if (!node->info.replicas && !node->info.keeps && !node->saves)
		fail(err, 0, node, "has no replica and saves nothing to disk: its pages are lost when it ends");
	return 0;
}

static int check_cluster(const struct vk *vk, struct cis_error *err)
{
	const struct vk_node *node;
	int rc = 0;

	if (!vk->map_got)
		return -EINPROGRESS;
	for (unsigned slot = 0; slot < VK_SLOTS; slot++)
		if (!vk->slot[slot])
			return cis_fail(err, EAGAIN, "valkey: slot %u of the cluster is nobody's: redis-cli --cluster check", slot);
	TAILQ_FOREACH(node, &vk->nodes, next) {
		rc = node->slots ? check_node(node, err) : 0;
		if (rc)
			break;
	}
	return rc;
}

/* Several hosts are those of one service: pages would be in one of two primaries, and be looked for in the other. */
static int check_single(const struct vk *vk, struct cis_error *err)
{
	const struct vk_node *node;

	TAILQ_FOREACH(node, &vk->nodes, next) {
		enum vk_state state = node->conn[VK_GETS].state;

		if (state == VK_LOOKUP || state == VK_GREETING)
			return -EINPROGRESS;
		if (node != vk->primary && node->info_ns && node->info.primary)
			return fail(err, EPERM, node, "is a primary as well, and not of the same cluster as the other hosts");
	}
	return check_node(vk->primary, err);
}

static int check_unknown(const struct vk *vk, struct cis_error *err)
{
	const struct vk_node *node;

	TAILQ_FOREACH(node, &vk->nodes, next)
		if (!node->conn[VK_GETS].refused || node->conn[VK_GETS].state != VK_DOWN)
			return -EINPROGRESS;
	return cis_fail(err, vk->why.code, "%s", vk->why.text);
}

static int check(const struct vk *vk, struct cis_error *err)
{
	if (vk->mode == VK_UNKNOWN)
		return check_unknown(vk, err);
	return vk->mode == VK_SINGLE ? check_single(vk, err) : check_cluster(vk, err);
}

int vk_probe(const char *rest, uint64_t timeout_ns, struct cis_error *err)
{
	uint64_t end = cis_now_ns(NULL) + timeout_ns, now;
	struct cis_error found;
	struct vk *vk;
	int rc = vk_open(rest, &vk, err);

	if (rc)
		return rc;
	vk->probing = true;
	cis_remote_pump(&vk->remote);
	do {
		found = (struct cis_error){ 0 };
		rc = check(vk, &found);
		now = cis_now_ns(NULL);
		if (rc != -EINPROGRESS || now >= end)
			break;
		poll(&(struct pollfd){ .fd = vk->remote.epoll, .events = POLLIN }, 1, (int)((end - now) / VK_MS) + 1);
		cis_store_reap(&vk->remote.store);
	} while (true);
	if (rc == -EINPROGRESS)
		rc = cis_fail(&found, ETIMEDOUT, "%s", vk->why.code ? vk->why.text : "valkey: there was no answer in time");
	if (err)
		*err = found;
	cis_store_close(&vk->remote.store);
	return rc;
}
