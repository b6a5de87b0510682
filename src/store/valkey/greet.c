/* What a connection begins with: who we are, and whether the server is fit for pages. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "store/valkey/valkey.h"

static void refuse(struct vk_conn *c, int code, const char *why)
{
	c->refused = code;
	vk_conn_break(c, why);
}

static void auth_answer(struct vk_flight *f, const redisReply *reply)
{
	struct vk_redirect r;

	if (!reply || reply->type == REDIS_REPLY_STATUS)
		return;
	if (reply->type != REDIS_REPLY_ERROR)
		vk_conn_break(f->conn, "does not answer as Valkey does");
	else if (vk_error(reply->str, (size_t)reply->len, &r) == VK_ERR_AGAIN)
		vk_conn_break(f->conn, "takes no more connections");
	else
		refuse(f->conn, EACCES, "refuses the user or the password");
}

static void select_answer(struct vk_flight *f, const redisReply *reply)
{
	struct vk_redirect r;

	if (!reply || reply->type == REDIS_REPLY_STATUS)
		return;
	if (reply->type == REDIS_REPLY_ERROR && vk_error(reply->str, (size_t)reply->len, &r) == VK_ERR_OTHER)
		refuse(f->conn, EINVAL, "has no database of that number (a cluster has only number 0)");
}

/* CONFIG GET save: ["save", "3600 1 300 100"]; the user may be forbidden to ask. */
static void saves_answer(struct vk_flight *f, const redisReply *reply)
{
	f->conn->node->saves = -1;
	if (reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && reply->element[1]->type == REDIS_REPLY_STRING)
		f->conn->node->saves = reply->element[1]->len > 0;
}

static void info_refused(struct vk_conn *c, const redisReply *reply)
{
	struct vk_redirect r;
	enum vk_error is = vk_error(reply->str, (size_t)reply->len, &r);

	if (is == VK_ERR_AGAIN)
		vk_conn_break(c, "takes no more connections");
	else if (*c->node->vk->opts.hosts.password)
		refuse(c, EACCES, "does not tell this user whether pages are safe there: allow it the command INFO");
	else
		refuse(c, EACCES, "wants a user and a password, or takes none but local connections (protected mode)");
}

static void info_answer(struct vk_flight *f, const redisReply *reply)
{
	struct vk_conn *c = f->conn;
	struct vk_node *node = c->node;
	struct vk_info info;

	node->info_asked = false;
	if (!reply || c->wrong)
		return;
	if (reply->type == REDIS_REPLY_ERROR) {
		info_refused(c, reply);
		return;
	}
	if (reply->type != REDIS_REPLY_STRING || vk_info(reply->str, &info)) {
		vk_conn_break(c, "does not answer as Valkey does");
		return;
	}
	/* A primary that has lost its replicas may be one that has lost everybody, and been replaced: others must know. */
	if (!info.replicas && (node->info.replicas || (c->lane == VK_PUTS && c->state == VK_GREETING)))
		vk_doubt(&node->alone, node);
	node->info = info;
	node->info_ns = f->sent_ns;
	c->state = VK_READY;
	vk_met(c);
}

void vk_conn_info(struct vk_conn *c)
{
	c->node->info_asked = VK_SEND(c, info_answer, "INFO");
}

void vk_greet(struct vk_conn *c)
{
	const struct vk_opts *o = &c->node->vk->opts;
	char db[16];

	snprintf(db, sizeof(db), "%u", o->db);
	if (*o->hosts.user)
		VK_SEND(c, auth_answer, "AUTH", o->hosts.user, o->hosts.password);
	else if (*o->hosts.password)
		VK_SEND(c, auth_answer, "AUTH", o->hosts.password);
	if (o->db)
		VK_SEND(c, select_answer, "SELECT", db);
	if (c->node->vk->probing)
		VK_SEND(c, saves_answer, "CONFIG", "GET", "save");
	vk_conn_info(c);
}
