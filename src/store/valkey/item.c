/*
 * Requests: to which connection they go, and what their answers mean.
 *
 * That a key is not there would cost a guest its page, so it is not taken from a server that may have been replaced without
 * knowing it.  In a cluster another one is asked for the map first; otherwise the server is asked again what it is.
 *
 * A put is acknowledged when as many replicas have it as are to, by WAIT, which says so of all that its connection has written before.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "store/valkey/valkey.h"

#define DELAY_MAX_NS (200 * VK_MS)
#define MOVES	     5u /* redirections that are followed at once */

void vk_item_queue(struct cis_remote *r, struct cis_remote_item *item)
{
	struct vk_item *i = vk_item_of(item);
	const struct cis_key *key = &item->req->key;
	uint64_t hash = item->req->op == CIS_STORE_DROP ? key->id : (key->id >> 30) % VK_HASHES;

	/* Without a brace, which would mean something to a cluster. */
	item->key_len = (unsigned)snprintf(item->key, sizeof(item->key), "cis:%016" PRIx64 "%016" PRIx64 ":%" PRIx64, key->ns[0], key->ns[1], hash);
	i->field_len = (unsigned)snprintf(i->field, sizeof(i->field), "%" PRIx64, key->id);
	i->slot = vk_slot(item->key, item->key_len);
	cis_remote_place(r, item, &((struct vk *)r)->waiting);
}

void vk_item_let_go(struct cis_remote_item *item)
{
	struct vk_item *i = vk_item_of(item);

	if (i->flight)
		i->flight->item = NULL;
	i->flight = NULL;
}

void vk_item_finish(struct vk *vk, struct vk_item *item, int err)
{
	cis_remote_finish(&vk->remote, &item->item, err);
}

void vk_item_again(struct vk *vk, struct vk_item *item)
{
	cis_remote_place(&vk->remote, &item->item, &vk->waiting);
	vk->again = true;
}

void vk_items_again(struct vk *vk, struct cis_remote_items *items)
{
	while (!TAILQ_EMPTY(items))
		vk_item_again(vk, vk_item_of(TAILQ_FIRST(items)));
}

static void later(struct vk *vk, struct vk_item *item)
{
	uint64_t delay = VK_RETRY_MIN_NS << (item->tries < 5 ? item->tries : 5);

	item->tries++;
	item->retry_ns = cis_now_ns(NULL) + (delay < DELAY_MAX_NS ? delay : DELAY_MAX_NS);
	vk_item_again(vk, item);
}

uint64_t vk_items_route(struct vk *vk, uint64_t now)
{
	struct cis_remote_item *waiting, *next;
	uint64_t at = UINT64_MAX;

	if (vk->mode == VK_UNKNOWN)
		return at;
	for (waiting = TAILQ_FIRST(&vk->waiting); waiting; waiting = next) {
		struct vk_item *item = vk_item_of(waiting);
		struct vk_node *node = vk_node_of(vk, item);

		next = TAILQ_NEXT(waiting, at);
		if (item->doubt.map && !vk_settled(vk, &item->doubt))
			continue;
		if (item->retry_ns > now) {
			at = item->retry_ns < at ? item->retry_ns : at;
		} else if (node) {
			node->used_ns = now;
			cis_remote_place(&vk->remote, waiting,
					 &node->conn[waiting->req->op == CIS_STORE_GET ? VK_GETS : VK_PUTS].backlog);
		} else { /* nobody has that slot */
			vk_map_want(vk, NULL);
			item->doubt = (struct vk_doubt){ vk->map_asked + 1, NULL };
			item->retry_ns = item->tries++ ? now + DELAY_MAX_NS : now;
		}
	}
	return at;
}

/* Answers. */

static void failed(struct vk_conn *c, struct vk_item *item, const redisReply *reply)
{
	struct vk *vk = c->node->vk;
	struct vk_redirect to;
	struct vk_node *node;

	switch (vk_error(reply->str, (size_t)reply->len, &to)) {
	case VK_ERR_MOVED:
	case VK_ERR_ASK:
		node = vk->mode == VK_CLUSTER ? vk_node_said(c->node, to.name, to.port) : NULL;
		if (node && !strncmp(reply->str, "ASK", 3))
			item->asked = node;
		else if (node)
			vk_map_moved(vk, to.slot, node);
		else
			vk_demoted(c->node); /* it has become part of a cluster */
		if (item->tries++ < MOVES)
			vk_item_again(vk, item);
		else
			later(vk, item);
		break;
	case VK_ERR_REPLICA:
		vk_demoted(c->node);
		later(vk, item);
		break;
	case VK_ERR_AGAIN:
		if (vk->mode == VK_CLUSTER)
			vk_map_want(vk, c->node);
		later(vk, item);
		break;
	case VK_ERR_FULL:
		vk_item_finish(vk, item, -ENOSPC);
		break;
	case VK_ERR_DENIED:
		vk_item_finish(vk, item, -EACCES);
		break;
	default:
		vk_item_finish(vk, item, -EIO);
	}
}

/* Return: whether it was none of the answers that all requests may get. */
static bool common(struct vk_flight *f, const redisReply *reply)
{
	struct vk_conn *c = f->conn;

	if (!f->item)
		return true;
	if (reply && reply->type != REDIS_REPLY_ERROR) {
		c->failures = 0;
		return false;
	}
	if (reply)
		failed(c, f->item, reply);
	else
		vk_item_again(c->node->vk, f->item);
	return true;
}

static void nonsense(struct vk_flight *f)
{
	vk_conn_break(f->conn, "does not answer as Valkey does");
	later(f->conn->node->vk, f->item);
}

static void not_there(struct vk_node *node, struct vk_item *item)
{
	struct vk *vk = node->vk;
	bool single = vk->mode != VK_CLUSTER;

	if (item->missed && (single || vk_settled(vk, &(struct vk_doubt){ item->doubt.map, node }))) {
		vk_item_finish(vk, item, -ENOENT);
		return;
	}
	item->missed = true;
	if (!single)
		vk_doubt(&item->doubt, node);
	if (item->tries++ < MOVES)
		vk_item_again(vk, item);
	else
		later(vk, item);
}

static void get_answer(struct vk_flight *f, const redisReply *reply)
{
	struct vk *vk = f->conn->node->vk;
	struct cis_store_req *req;

	if (common(f, reply))
		return;
	req = f->item->item.req;
	if (reply->type == REDIS_REPLY_NIL) {
		not_there(f->conn->node, f->item);
	} else if (reply->type != REDIS_REPLY_STRING) {
		nonsense(f);
	} else if ((size_t)reply->len > req->len) {
		vk_item_finish(vk, f->item, -EMSGSIZE);
	} else {
		memcpy(req->buf, reply->str, (size_t)reply->len);
		req->got = (uint32_t)reply->len;
		vk_item_finish(vk, f->item, 0);
	}
}

static void put_answer(struct vk_flight *f, const redisReply *reply)
{
	if (common(f, reply))
		return;
	if (reply->type != REDIS_REPLY_INTEGER)
		nonsense(f);
	else if (f->item->safe)
		cis_remote_place(&f->conn->node->vk->remote, &f->item->item, &f->conn->unacked);
	else
		vk_item_finish(f->conn->node->vk, f->item, 0);
}

/* Of one that was sent before, the answer may have been lost that it was there. */
static void delete_answer(struct vk_flight *f, const redisReply *reply)
{
	if (common(f, reply))
		return;
	if (reply->type != REDIS_REPLY_INTEGER)
		nonsense(f);
	else
		vk_item_finish(f->conn->node->vk, f->item, reply->integer || f->item->sent > 1 ? 0 : -ENOENT);
}

static void drop_answer(struct vk_flight *f, const redisReply *reply)
{
	if (common(f, reply))
		return;
	if (reply->type != REDIS_REPLY_INTEGER)
		nonsense(f);
	else
		vk_item_finish(f->conn->node->vk, f->item, 0);
}

/* Puts and the replicas that are to have them. */

/* Return: how many; -1: that is not known yet. */
static int replicas_needed(const struct vk_conn *c)
{
	const struct vk_node *node = c->node;
	struct vk *vk = node->vk;

	if (vk->opts.replicas >= 0)
		return vk->opts.replicas;
	if (node->info.replicas)
		return 1;
	return vk->mode == VK_CLUSTER && node->alone.map && !vk_settled(vk, &node->alone) ? -1 : 0;
}

static void wait_send(struct vk_conn *c);

static void wait_answer(struct vk_flight *f, const redisReply *reply)
{
	struct vk_conn *c = f->conn;
	struct vk *vk = c->node->vk;
	int needed = replicas_needed(c);

	c->waits--;
	if (!reply)
		return;
	if (reply->type != REDIS_REPLY_INTEGER) { /* it is not a primary any more */
		vk_items_again(vk, &c->unacked);
		vk_demoted(c->node);
	} else if (needed >= 0 && reply->integer >= needed) {
		cis_remote_finish_all(&vk->remote, &c->unacked, 0);
	} else if (!c->waits && !TAILQ_EMPTY(&c->unacked)) {
		vk_conn_info(c);
		wait_send(c);
	}
}

static void wait_send(struct vk_conn *c)
{
	char needed[16];
	int n = replicas_needed(c);

	snprintf(needed, sizeof(needed), "%d", n < 1 ? 1 : n);
	if (VK_SEND(c, wait_answer, "WAIT", needed, VK_WAIT_MS))
		c->waits++;
}

/* Sending. */

/* "OK"; if not, the answer to what follows says why. */
static void asking_answer(struct vk_flight *f, const redisReply *reply)
{
}

static bool send_item(struct vk_conn *c, struct vk_item *item)
{
	static const struct {
		const char *name;
		int argc;
		void (*answer)(struct vk_flight *, const redisReply *);
	} commands[] = { { "HGET", 3, get_answer }, { "HSET", 4, put_answer }, { "HDEL", 3, delete_answer }, { "UNLINK", 2, drop_answer } };
	const struct cis_store_req *req = item->item.req;
	const char *argv[] = { commands[req->op].name, item->item.key, item->field, req->buf };
	size_t len[] = { strlen(argv[0]), item->item.key_len, item->field_len, req->len };

	if (item->missed && c->node->vk->mode == VK_SINGLE)
		vk_conn_info(c); /* its answer comes first */
	if (item->asked && !VK_SEND(c, asking_answer, "ASKING"))
		return false;
	cis_remote_place(&c->node->vk->remote, &item->item, NULL);
	if (!vk_conn_send(c, item, commands[req->op].answer, commands[req->op].argc, argv, len)) {
		vk_item_again(c->node->vk, item);
		return false;
	}
	item->asked = NULL;
	item->sent++;
	return true;
}

/* Return: whether the put may go now. */
static bool put_may_go(struct vk_conn *c, struct vk_item *item, uint64_t now)
{
	struct vk_node *node = c->node;

	if (now >= node->info_ns + VK_INFO_NS && !node->info_asked)
		vk_conn_info(c);
	item->safe = replicas_needed(c) > 0;
	return replicas_needed(c) >= 0;
}

void vk_items_send(struct vk_conn *c, uint64_t now)
{
	bool safe = false;

	while (c->state == VK_READY && !c->wrong && c->nr_flights < VK_WINDOW && !TAILQ_EMPTY(&c->backlog)) {
		struct vk_item *item = vk_item_of(TAILQ_FIRST(&c->backlog));
		bool put = item->item.req->op == CIS_STORE_PUT;

		if (put && !put_may_go(c, item, now))
			break;
		if (put && c->node->info.evicts) {
			vk_item_finish(c->node->vk, item, -EPERM);
			continue;
		}
		if (!send_item(c, item))
			break;
		safe |= put && item->safe;
	}
	if (safe)
		wait_send(c);
}
