#include "store/valkey/valkey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "store/pages.h"

void vk_why(struct vk_node *node, int code, const char *why)
{
	char name[CIS_HOST_TEXT_MAX];

	cis_host_text(node->name, node->port, name);
	cis_fail(&node->vk->why, code, "valkey %s: %s", name, why);
}

static uint64_t drive(struct vk_conn *c, uint64_t now)
{
	uint64_t at = vk_conn_alarm(c, now);

	vk_items_send(c, now);
	if (c->ac && c->state == VK_READY && c->wanted & EPOLLOUT && !(c->events & EPOLLOUT))
		vk_conn_write(c); /* at once; what does not fit waits for epoll */
	return at;
}

static uint64_t drive_all(struct vk *vk, uint64_t now)
{
	struct vk_node *node;
	uint64_t at = UINT64_MAX;

	TAILQ_FOREACH(node, &vk->nodes, next)
		for (int lane = 0; lane < VK_LANES; lane++) {
			uint64_t next = drive(&node->conn[lane], now);

			at = next < at ? next : at;
		}
	return at;
}

static uint64_t min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Ends: what comes back has a connection that is not tried again before some time has passed. */
static uint64_t vk_drive(struct cis_remote *r, uint64_t now)
{
	struct vk *vk = (struct vk *)r;
	uint64_t at;

	do {
		vk->again = false;
		at = vk_items_route(vk, now);
		at = min(at, drive_all(vk, now));
		at = min(at, vk_map_drive(vk, now));
	} while (vk->again);
	vk_map_prune(vk, now);
	return at;
}

static void vk_event(struct cis_remote *r, void *which, uint32_t events)
{
	vk_conn_event(which, events);
}

static void vk_close(struct cis_store *store)
{
	struct vk *vk = (struct vk *)store;

	if (!vk)
		return;
	while (!TAILQ_EMPTY(&vk->nodes))
		vk_node_free(TAILQ_FIRST(&vk->nodes));
	cis_remote_fini(&vk->remote);
	cis_hosts_fini(&vk->opts.hosts);
	free(vk->slot);
	free(vk);
}

static const struct cis_store_ops vk_ops = {
	.ops_size = sizeof(struct cis_store_ops),
	.name = "valkey",
	.submit = cis_remote_submit,
	.fd = cis_remote_fd,
	.reap = cis_remote_reap,
	.wait = cis_remote_wait,
	.cancel = cis_remote_cancel,
	.close = vk_close,
	.drops = VK_HASHES,
};

static const struct cis_remote_kind vk_kind = {
	.item_bytes = sizeof(struct vk_item),
	.queue = vk_item_queue,
	.let_go = vk_item_let_go,
	.event = vk_event,
	.drive = vk_drive,
};

static int make_nodes(struct vk *vk)
{
	for (unsigned i = 0; i < vk->opts.hosts.nr; i++) {
		struct vk_node *node = vk_node_get(vk, vk->opts.hosts.host[i].name, vk->opts.hosts.host[i].port);

		if (!node)
			return -ENOMEM;
		node->seed = true;
	}
	return 0;
}

int vk_open(const char *rest, struct vk **ret, struct cis_error *err)
{
	struct vk *vk = calloc(1, sizeof(*vk));
	int rc;

	if (!vk)
		return cis_fail(err, ENOMEM, "store valkey: out of memory");
	rc = vk_name_parse(rest, &vk->opts, err);
	if (rc) {
		free(vk);
		return rc;
	}
	TAILQ_INIT(&vk->nodes);
	TAILQ_INIT(&vk->waiting);
	rc = cis_remote_init(&vk->remote, &vk_ops, &vk_kind);
	if (!rc)
		rc = make_nodes(vk);
	if (rc) {
		cis_fail(err, -rc, "store valkey: %s", strerror(-rc));
		vk_close(&vk->remote.store);
		return rc;
	}
	*ret = vk;
	return 0;
}

static int pages_open(const char *rest, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err)
{
	struct vk *vk;
	int rc = vk_open(rest, &vk, err);

	if (!rc)
		*ret = &vk->remote.store;
	return rc;
}

static int pages_check(const char *rest, struct cis_error *err)
{
	struct vk_opts opts;
	int rc = vk_name_parse(rest, &opts, err);

	if (!rc)
		cis_hosts_fini(&opts.hosts);
	return rc;
}

const struct cis_pages_kind cis_pages_valkey = {
	.scheme = "valkey:",
	.check = pages_check,
	.open = pages_open,
	.probe = vk_probe,
};
