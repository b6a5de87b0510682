/*
 * Who has what: finding the primary among the hosts of the name, and the map of a cluster.
 *
 * A map is asked for when there is reason to doubt the one that is here: a server that was lost, that does not answer, or that
 * says something which only a primary may say.  Whoever must not act on an old map notes the number of the next one and
 * waits for it, and the server in doubt is not the one that is asked.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/valkey/valkey.h"

#define MAP_EVERY_NS  (100 * VK_MS) /* on account of redirections, each of which mends the map by itself */
#define MAP_DOUBT_NS  (10 * VK_MS)  /* while servers contradict each other */
#define MAP_AGAIN_NS  (50 * VK_MS)  /* after one that could not be had */
#define NODE_LAST_NS  (60000 * VK_MS)
#define MAP_ASKERS    3u	    /* connections that are made at once to ask for it */

struct vk_node *vk_node_get(struct vk *vk, const char *name, uint16_t port)
{
	struct vk_node *node;

	TAILQ_FOREACH(node, &vk->nodes, next)
		if (node->port == port && !strcmp(node->name, name))
			return node;
	node = calloc(1, sizeof(*node));
	if (!node)
		return NULL;
	node->vk = vk;
	strcpy(node->name, name);
	node->port = port;
	node->saves = -1;
	node->used_ns = cis_now_ns(NULL);
	for (int lane = 0; lane < VK_LANES; lane++)
		vk_conn_init(&node->conn[lane], node, (enum vk_lane)lane);
	TAILQ_INSERT_TAIL(&vk->nodes, node, next);
	return node;
}

void vk_node_free(struct vk_node *node)
{
	struct vk *vk = node->vk;

	for (int lane = 0; lane < VK_LANES; lane++)
		vk_conn_break(&node->conn[lane], "is not needed any more");
	TAILQ_REMOVE(&vk->nodes, node, next);
	free(node);
}

struct vk_node *vk_node_of(const struct vk *vk, const struct vk_item *item)
{
	if (item->asked)
		return item->asked;
	return vk->mode == VK_CLUSTER ? vk->slot[item->slot] : vk->primary;
}

bool vk_wanted(const struct vk_conn *c)
{
	const struct vk *vk = c->node->vk;

	if (!TAILQ_EMPTY(&c->backlog))
		return true;
	if (vk->mode == VK_UNKNOWN)
		return c->node->seed && c->lane == VK_GETS && (vk->probing || !TAILQ_EMPTY(&vk->waiting));
	return vk->probing && c->lane == VK_PUTS && (c->node == vk->primary || c->node->slots);
}

/* One server. */

static void doubt_primary(struct vk *vk)
{
	struct vk_node *node, *old = vk->primary;

	vk->mode = VK_UNKNOWN;
	vk->primary = NULL;
	for (int lane = 0; lane < VK_LANES; lane++)
		vk_items_again(vk, &old->conn[lane].backlog);
	TAILQ_FOREACH(node, &vk->nodes, next)
		if (node->conn[VK_GETS].state == VK_READY)
			vk_conn_info(&node->conn[VK_GETS]);
}

void vk_demoted(struct vk_node *node)
{
	struct vk *vk = node->vk;

	if (vk->mode == VK_CLUSTER) {
		vk_map_want(vk, node);
		return;
	}
	if (vk->mode == VK_SINGLE && node == vk->primary)
		doubt_primary(vk);
	for (int lane = 0; lane < VK_LANES; lane++)
		vk_conn_break(&node->conn[lane], "is a replica, and no other host of the name is a primary");
}

void vk_met(struct vk_conn *c)
{
	struct vk_node *node = c->node;
	struct vk *vk = node->vk;

	if (vk->mode == VK_CLUSTER)
		return;
	if (!node->info.cluster && !node->info.primary) {
		vk_demoted(node);
	} else if (vk->mode == VK_UNKNOWN && node->info.cluster) {
		if (!vk->slot)
			vk->slot = calloc(VK_SLOTS, sizeof(*vk->slot));
		if (!vk->slot) {
			vk_conn_break(c, "out of memory");
			return;
		}
		vk->mode = VK_CLUSTER;
		vk_map_want(vk, NULL);
	} else if (vk->mode == VK_UNKNOWN) {
		vk->mode = VK_SINGLE;
		vk->primary = node;
	}
	vk->again = true;
}

/* Nobody else can do what it cannot: none of the other hosts is there or on its way. */
static bool hopeless(const struct vk *vk)
{
	const struct vk_node *node;

	TAILQ_FOREACH(node, &vk->nodes, next)
		if (node->conn[VK_GETS].state != VK_DOWN)
			return false;
	return true;
}

void vk_lost(struct vk_conn *c)
{
	struct vk_node *node = c->node;
	struct vk *vk = node->vk;

	vk_items_again(vk, &c->unacked);
	if (c->refused)
		cis_remote_finish_all(&vk->remote, &c->backlog, -c->refused);
	if (vk->mode == VK_CLUSTER && node->slots)
		vk_map_want(vk, node);
	if (vk->mode == VK_SINGLE && node == vk->primary)
		doubt_primary(vk);
	if (vk->mode == VK_UNKNOWN && c->refused && hopeless(vk))
		cis_remote_finish_all(&vk->remote, &vk->waiting, -c->refused);
	vk->again = true;
}

/* A cluster. */

void vk_map_want(struct vk *vk, struct vk_node *not)
{
	vk->refresh = true;
	vk->refresh_ns = 0;
	if (not)
		vk->map_not = not;
}

void vk_doubt(struct vk_doubt *doubt, struct vk_node *node)
{
	vk_map_want(node->vk, node);
	*doubt = (struct vk_doubt){ node->vk->map_asked + 1, node };
}

/* Nobody can have been elected in its place: that takes other primaries. */
static bool only_primary(const struct vk *vk, const struct vk_node *it)
{
	const struct vk_node *node;

	TAILQ_FOREACH(node, &vk->nodes, next)
		if (node != it && node->slots)
			return false;
	return true;
}

/* The latest map counts, by which requests go: one that somebody else told before may have been followed by its own. */
bool vk_settled(struct vk *vk, const struct vk_doubt *doubt)
{
	if (doubt->map <= vk->map_got && (vk->map_by != doubt->node || only_primary(vk, doubt->node)))
		return true;
	if (!vk->refresh && !vk->map_from) { /* it was told by the one in doubt */
		vk_map_want(vk, doubt->node);
		vk->refresh_ns = vk->map_ns + MAP_DOUBT_NS;
	}
	return false;
}

static void own(struct vk *vk, unsigned slot, struct vk_node *node)
{
	if (vk->slot[slot])
		vk->slot[slot]->slots--;
	vk->slot[slot] = node;
	if (node)
		node->slots++;
}

void vk_map_moved(struct vk *vk, uint16_t slot, struct vk_node *to)
{
	own(vk, slot, to);
	if (vk->refresh)
		return;
	vk->refresh = true;
	vk->refresh_ns = vk->map_ns + MAP_EVERY_NS;
}

/* A server that another one has named; "": itself. */
struct vk_node *vk_node_said(struct vk_node *by, const char *name, uint16_t port)
{
	if (*name)
		return vk_node_get(by->vk, name, port);
	return by->port ? vk_node_get(by->vk, by->name, port) : by;
}

static void apply_range(void *ctx, unsigned first, unsigned last, const char *name, uint16_t port)
{
	struct vk_node *by = ctx, *node = vk_node_said(by, name, port);

	if (node)
		node->map = by->vk->map_got;
	for (unsigned slot = first; slot <= last; slot++)
		own(by->vk, slot, node); /* NULL when there is no memory for it: not known */
}

static void leave(struct vk *vk, struct cis_remote_items *items, const struct vk_node *node)
{
	struct cis_remote_item *item, *next;

	for (item = TAILQ_FIRST(items); item; item = next) {
		next = TAILQ_NEXT(item, at);
		if (vk_node_of(vk, vk_item_of(item)) != node)
			vk_item_again(vk, vk_item_of(item));
	}
}

/* What waits for a server that is not the primary any more, even for its answer if that does not come. */
static void leave_old(struct vk_conn *c, uint64_t now)
{
	struct vk *vk = c->node->vk;
	const struct vk_flight *first = TAILQ_FIRST(&c->flights);
	struct vk_flight *f;

	leave(vk, &c->backlog, c->node);
	leave(vk, &c->unacked, c->node);
	if (!first || now < first->sent_ns + VK_SUSPECT_NS)
		return;
	TAILQ_FOREACH(f, &c->flights, next)
		if (f->item && vk_node_of(vk, f->item) != c->node)
			vk_item_again(vk, f->item);
}

static void map_answer(struct vk_flight *f, const redisReply *reply)
{
	struct vk_node *by = f->conn->node, *node;
	struct vk *vk = by->vk;

	if (vk->map_from != by || vk->map_ns != f->sent_ns)
		return; /* it took too long, and another was asked */
	vk->map_from = NULL;
	vk->again = true;
	if (!reply || vk_ranges(reply, NULL, NULL)) {
		vk->refresh = true;
		vk->refresh_ns = f->sent_ns + MAP_AGAIN_NS;
		return;
	}
	vk->map_by = by;
	vk->map_got = vk->map_asked;
	for (unsigned slot = 0; slot < VK_SLOTS; slot++)
		own(vk, slot, NULL);
	vk_ranges(reply, apply_range, by);
	TAILQ_FOREACH(node, &vk->nodes, next)
		for (int lane = 0; lane < VK_LANES; lane++)
			leave_old(&node->conn[lane], f->sent_ns);
}

static bool can_tell(const struct vk_conn *c, uint64_t now)
{
	const struct vk_flight *first = TAILQ_FIRST(&c->flights);

	return c->state == VK_READY && !c->wrong && (!first || now < first->sent_ns + VK_SUSPECT_NS);
}

static struct vk_conn *asker_but(struct vk *vk, const struct vk_node *one, const struct vk_node *other, uint64_t now)
{
	struct vk_node *node;

	TAILQ_FOREACH(node, &vk->nodes, next)
		if (node != one && node != other && can_tell(&node->conn[VK_GETS], now))
			return &node->conn[VK_GETS];
	return NULL;
}

/* Another one each time, if possible: so whatever is in doubt is settled by the second map at the latest. */
static struct vk_conn *asker(struct vk *vk, uint64_t now)
{
	struct vk_conn *c = asker_but(vk, vk->map_by, vk->map_not, now);

	if (!c)
		c = asker_but(vk, vk->map_by, NULL, now);
	if (!c)
		c = asker_but(vk, vk->map_not, NULL, now);
	if (!c && vk->map_not && only_primary(vk, vk->map_not))
		c = asker_but(vk, NULL, NULL, now);
	return c;
}

/* Return: when a connection to ask on can be tried again. */
static uint64_t connect_asker(struct vk *vk, uint64_t now)
{
	struct vk_node *node;
	uint64_t at = UINT64_MAX;
	unsigned under_way = 0;

	TAILQ_FOREACH(node, &vk->nodes, next)
		under_way += node->conn[VK_GETS].state != VK_DOWN && node->conn[VK_GETS].state != VK_READY;
	TAILQ_FOREACH(node, &vk->nodes, next) {
		struct vk_conn *c = &node->conn[VK_GETS];

		if (c->state != VK_DOWN || under_way >= MAP_ASKERS)
			continue;
		if (now >= c->retry_ns) {
			vk_conn_start(c);
			under_way++;
		} else if (c->retry_ns < at) {
			at = c->retry_ns;
		}
	}
	return at;
}

uint64_t vk_map_drive(struct vk *vk, uint64_t now)
{
	struct vk_conn *c;

	if (vk->mode != VK_CLUSTER)
		return UINT64_MAX;
	if (vk->map_from) {
		if (now < vk->map_ns + VK_SUSPECT_NS)
			return vk->map_ns + VK_SUSPECT_NS;
		vk->map_not = vk->map_from;
		vk->map_from = NULL;
		vk->refresh = true;
	}
	if (!vk->refresh)
		return UINT64_MAX;
	if (now < vk->refresh_ns)
		return vk->refresh_ns;
	c = asker(vk, now);
	if (!c || !VK_SEND(c, map_answer, "CLUSTER", "SLOTS"))
		return connect_asker(vk, now);
	vk->map_ns = TAILQ_LAST(&c->flights, vk_flights)->sent_ns;
	vk->map_from = c->node;
	vk->map_not = NULL;
	vk->map_asked++;
	vk->refresh = false;
	vk_conn_write(c);
	return vk->map_ns + VK_SUSPECT_NS;
}

/* Servers that have left the cluster, once nobody is there who was sent to them. */
void vk_map_prune(struct vk *vk, uint64_t now)
{
	struct vk_node *node, *next;
	struct cis_remote_item *item;

	for (node = TAILQ_FIRST(&vk->nodes); node; node = next) {
		next = TAILQ_NEXT(node, next);
		if (node->seed || node->slots || node->map == vk->map_got || now < node->used_ns + NODE_LAST_NS)
			continue;
		TAILQ_FOREACH(item, &vk->remote.all, all)
			if (vk_item_of(item)->asked == node || vk_item_of(item)->doubt.node == node)
				break;
		if (item || !TAILQ_EMPTY(&node->conn[VK_GETS].backlog) || !TAILQ_EMPTY(&node->conn[VK_PUTS].backlog))
			continue;
		vk->map_from = vk->map_from == node ? NULL : vk->map_from;
		vk->map_not = vk->map_not == node ? NULL : vk->map_not;
		vk->map_by = vk->map_by == node ? NULL : vk->map_by;
		vk_node_free(node);
	}
}
