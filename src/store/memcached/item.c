/* Requests: to which server they go, what is said for them, and what the answers mean. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/layer.h"
#include "store/memcached/memcached.h"

/*
 * For ever: the next engine looks for a page where this one has put it.  By rendezvous hashing (Thaler and Ravishankar, "Using
 * name-based mappings to increase hit rates", 1998): the server whose hash together with the key is highest.  So the order of the
 * names does not matter, and one server more takes its own share of the keys and moves no other.
 */
static struct mc_server *server_of(struct mc *mc, const struct cis_key *key)
{
	uint64_t x = cis_layer_random(cis_layer_random(cis_layer_random(key->ns[0]) ^ key->ns[1]) ^ key->id), best = 0;
	struct mc_server *server = &mc->server[0];

	for (unsigned i = 0; mc->nr > 1 && i < mc->nr; i++) {
		uint64_t weight = cis_layer_random(mc->server[i].hash ^ x);

		if (weight <= best)
			continue;
		best = weight;
		server = &mc->server[i];
	}
	return server;
}

void mc_item_queue(struct cis_remote *r, struct cis_remote_item *item)
{
	struct mc_server *server = server_of((struct mc *)r, &item->req->key);

	cis_remote_place(r, item, &server->conn[item->req->op == CIS_STORE_GET ? MC_GETS : MC_PUTS].backlog);
}

void mc_item_let_go(struct cis_remote_item *item)
{
	struct mc_item *i = mc_item_of(item);
	struct mc_flight *f = i->flight;

	i->flight = NULL;
	for (unsigned n = 0; f && n < f->nr; n++)
		if (f->item[n] == i)
			f->item[n] = NULL;
	if (f && f->current == i)
		f->current = NULL;
}

/* Sending. */

static struct mc_flight *take_off(struct mc_conn *c, enum mc_what what, uint64_t now)
{
	struct mc_flight *f = calloc(1, sizeof(*f));

	if (!f) {
		mc_conn_break(c, "out of memory");
		return NULL;
	}
	f->what = what;
	f->sent_ns = now;
	TAILQ_INSERT_TAIL(&c->flights, f, next);
	return f;
}

static void board(struct mc_conn *c, struct mc_flight *f, struct mc_item *item)
{
	cis_remote_place(&c->server->mc->remote, &item->item, NULL);
	item->flight = f;
	item->sent++;
	f->item[f->nr++] = item;
	c->nr++;
}

void mc_ask(struct mc_conn *c, uint64_t now)
{
	static const char ask[] = "stats settings\r\nstats\r\n";

	if (c->asks)
		return;
	c->said = (struct mc_info){ 0 };
	for (int i = 0; i < MC_STATS; i++) {
		if (!take_off(c, MC_ASK, now))
			return;
		c->asks++;
	}
	mc_conn_print(c, ask, sizeof(ask) - 1);
}

/* Nobody could tell the values of two gets apart, one of which was given up. */
static bool has_key_of(const struct mc_flight *f, const struct mc_item *item)
{
	const struct cis_key *key = &item->item.req->key;

	for (unsigned i = 0; i < f->nr; i++) {
		const struct cis_key *other = &f->item[i]->item.req->key;

		if (other->id == key->id && other->ns[0] == key->ns[0] && other->ns[1] == key->ns[1])
			return true;
	}
	return false;
}

static void send_gets(struct mc_conn *c, uint64_t now)
{
	char line[MC_GROUP * (CIS_REMOTE_KEY_MAX + 1) + 8];
	struct mc_flight *f = take_off(c, MC_GET, now);
	size_t len = 3;

	if (!f)
		return;
	memcpy(line, "get", len);
	while (f->nr < MC_GROUP && !TAILQ_EMPTY(&c->backlog)) {
		struct mc_item *item = mc_item_of(TAILQ_FIRST(&c->backlog));

		if (has_key_of(f, item))
			break;
		line[len++] = ' ';
		memcpy(line + len, item->item.key, item->item.key_len);
		len += item->item.key_len;
		board(c, f, item);
	}
	memcpy(line + len, "\r\n", 2);
	mc_conn_print(c, line, len + 2);
}

static void send_delete(struct mc_conn *c, struct mc_item *item, uint64_t now)
{
	char line[CIS_REMOTE_KEY_MAX + 16];
	int len = snprintf(line, sizeof(line), "delete %s\r\n", item->item.key);
	struct mc_flight *f = take_off(c, MC_DELETE, now);

	if (!f)
		return;
	board(c, f, item);
	mc_conn_print(c, line, (size_t)len);
}

static void send_put(struct mc_conn *c, struct mc_item *item, uint64_t now)
{
	const struct cis_store_req *req = item->item.req;
	char line[CIS_REMOTE_KEY_MAX + 32];
	int len = snprintf(line, sizeof(line), "set %s 0 0 %u\r\n", item->item.key, req->len);
	struct mc_flight *f;

	if (now >= c->server->info_ns + MC_INFO_NS)
		mc_ask(c, now);
	if (!mc_info_safe(&c->server->info)) {
		cis_remote_finish(&c->server->mc->remote, &item->item, -EPERM);
		return;
	}
	f = c->state == MC_READY ? take_off(c, MC_PUT, now) : NULL;
	if (!f)
		return;
	board(c, f, item);
	if (mc_conn_print(c, line, (size_t)len) && mc_conn_print(c, req->buf, req->len))
		mc_conn_print(c, "\r\n", 2);
}

void mc_items_send(struct mc_conn *c, uint64_t now)
{
	while (c->state == MC_READY && c->nr < MC_WINDOW && !TAILQ_EMPTY(&c->backlog)) {
		struct mc_item *item = mc_item_of(TAILQ_FIRST(&c->backlog));

		if (c->lane == MC_GETS)
			send_gets(c, now);
		else if (item->item.req->op == CIS_STORE_PUT)
			send_put(c, item, now);
		else
			send_delete(c, item, now);
	}
}

/* Reading.  Each of these returns NULL, or what is wrong. */

static const char wrong_answer[] = "does not answer as memcached does";

/* All of it is answered; @err is for those that are not over yet. */
static void land(struct mc_conn *c, int err)
{
	struct mc_flight *f = TAILQ_FIRST(&c->flights);

	TAILQ_REMOVE(&c->flights, f, next);
	c->nr -= f->nr;
	for (unsigned i = 0; i < f->nr; i++)
		if (f->item[i])
			cis_remote_finish(&c->server->mc->remote, &f->item[i]->item, err);
	if (f->what != MC_ASK)
		c->failures = 0;
	free(f);
}

static const char *asked(struct mc_conn *c, enum mc_word word, const struct mc_said *said)
{
	struct mc_server *server = c->server;

	if (word == MC_STAT) {
		mc_info_add(&c->said, said);
		return NULL;
	}
	/* One that stands before others may not know what it is asked: gets are for it, puts are not. */
	if (word != MC_END && word != MC_REFUSED)
		return wrong_answer;
	if (!--c->asks) {
		server->info = c->said;
		server->info_ns = TAILQ_FIRST(&c->flights)->sent_ns;
		c->state = MC_READY;
	}
	land(c, 0);
	return NULL;
}

/* Whose value it is.  Return: false: nobody's who has asked. */
static bool find_current(struct mc_flight *f, const struct mc_said *said)
{
	bool given_up = false;

	for (unsigned i = f->at; i < f->nr; i++) {
		struct mc_item *item = f->item[i];

		given_up |= !item;
		if (!item || said->len != item->item.key_len || memcmp(said->name, item->item.key, said->len))
			continue;
		f->at = i + 1;
		f->current = item;
		return true;
	}
	f->current = NULL;
	return given_up;
}

static const char *value_begins(struct mc_conn *c, const struct mc_said *said)
{
	if (said->bytes > CIS_VALUE_MAX || !find_current(TAILQ_FIRST(&c->flights), said))
		return wrong_answer;
	c->value_bytes = said->bytes;
	c->value_left = said->bytes + 2;
	return NULL;
}

static void value_ends(struct mc_conn *c)
{
	struct mc_item *item = TAILQ_FIRST(&c->flights)->current;
	int err;

	if (!item)
		return;
	err = c->value_bytes > item->item.req->len ? -EMSGSIZE : 0;
	if (!err)
		item->item.req->got = c->value_bytes;
	cis_remote_finish(&c->server->mc->remote, &item->item, err);
}

/* Into the buffer of whoever still waits for it, if it fits. */
static const char *value_goes_on(struct mc_conn *c)
{
	const struct mc_item *item = TAILQ_FIRST(&c->flights)->current;
	uint32_t done = c->value_bytes + 2 - c->value_left, n = 1;
	const char *at = c->in + c->in_at;
	size_t have = c->in_end - c->in_at;

	if (done < c->value_bytes) {
		n = c->value_bytes - done < have ? c->value_bytes - done : (uint32_t)have;
		if (item && c->value_bytes <= item->item.req->len)
			memcpy((char *)item->item.req->buf + done, at, n);
	} else if (*at != "\r\n"[done - c->value_bytes]) {
		return wrong_answer;
	}
	c->in_at += n;
	c->value_left -= n;
	if (!c->value_left)
		value_ends(c);
	return NULL;
}

static const char *answered(struct mc_conn *c, enum mc_word word, const struct mc_said *said)
{
	struct mc_flight *f = TAILQ_FIRST(&c->flights);

	if (!f)
		return "says what nobody has asked for";
	if (f->what == MC_ASK)
		return asked(c, word, said);
	if (word == MC_BUSY)
		return "has an error of its own"; /* and is asked again on another connection */
	if (f->what == MC_GET && word == MC_VALUE)
		return value_begins(c, said);
	if (f->what == MC_GET && word == MC_END)
		land(c, -ENOENT);
	else if (f->what == MC_PUT && word == MC_STORED)
		land(c, 0);
	else if (f->what == MC_PUT && (word == MC_FULL || word == MC_LARGE))
		land(c, word == MC_FULL ? -ENOSPC : -EIO);
	else if (f->what == MC_DELETE && word == MC_DELETED)
		land(c, 0);
	else if (f->what == MC_DELETE && word == MC_NOT_FOUND) /* or the answer to the first try was lost */
		land(c, f->item[0] && f->item[0]->sent > 1 ? 0 : -ENOENT);
	else
		return wrong_answer;
	return NULL;
}

/* Return: whether there was a whole line, of which @ret_wrong says what is wrong. */
static bool read_line(struct mc_conn *c, const char **ret_wrong)
{
	const char *line = c->in + c->in_at, *end = memchr(line, '\n', c->in_end - c->in_at);
	struct mc_said said = { 0 };
	size_t len;

	*ret_wrong = c->in_end - c->in_at > MC_LINE_MAX && (!end || end - line > (ptrdiff_t)MC_LINE_MAX) ? wrong_answer : NULL;
	if (!end || *ret_wrong)
		return false;
	len = (size_t)(end - line);
	c->in_at += len + 1;
	if (!len || line[len - 1] != '\r')
		*ret_wrong = wrong_answer;
	else
		*ret_wrong = answered(c, mc_say(line, len - 1, &said), &said);
	return true;
}

const char *mc_read(struct mc_conn *c)
{
	const char *wrong = NULL;
	bool more = true;

	while (!wrong && more && c->in_at < c->in_end) {
		if (c->value_left)
			wrong = value_goes_on(c);
		else
			more = read_line(c, &wrong);
	}
	return wrong;
}
