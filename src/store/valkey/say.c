#include "store/valkey/say.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* hiredis takes memory for as many elements as are announced. */
static void *make_array(const redisReadTask *task, int elements)
{
	struct vk_bound *bound = task->privdata;

	return elements > (int)VK_RANGES_MAX ? NULL : bound->theirs.createArray(task, elements);
}

void vk_bound(struct vk_bound *bound, redisReader *reader)
{
	bound->theirs = bound->ours = *reader->fn;
	bound->ours.createArray = make_array;
	reader->fn = &bound->ours;
	reader->privdata = bound;
}

uint16_t vk_slot(const char *key, size_t len)
{
	static const uint16_t nibble[16] = { 0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
					     0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef };
	uint16_t crc = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t byte = (uint8_t)key[i];

		crc = (uint16_t)(crc << 4) ^ nibble[(crc >> 12) ^ (byte >> 4)];
		crc = (uint16_t)(crc << 4) ^ nibble[(crc >> 12) ^ (byte & 15)];
	}
	return crc % VK_SLOTS;
}

/* A number up to @max that ends at *@ret_end; no sign, no blanks. */
static bool number(const char *text, unsigned long max, unsigned long *ret, const char **ret_end)
{
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 10)
		return false;
	*ret = strtoul(text, NULL, 10);
	*ret_end = text + digits;
	return *ret <= max;
}

/* Names and addresses, as they may stand in a store's name: nothing else is given to a resolver or shown. */
static bool name_ok(const char *name, size_t len)
{
	if (len > CIS_HOST_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && (!name[i] || !strchr(".:-_%", name[i])))
			return false;
	return true;
}

/* "3999 127.0.0.1:6381": the last colon is the port's, as an IPv6 address has no brackets here. */
static bool redirect(const char *text, struct vk_redirect *ret)
{
	unsigned long slot, port;
	const char *end, *colon = strrchr(text, ':');

	if (!number(text, VK_SLOTS - 1, &slot, &end) || *end++ != ' ' || !colon || colon < end)
		return false;
	if (!name_ok(end, (size_t)(colon - end)) || !number(colon + 1, UINT16_MAX, &port, &text) || *text || !port)
		return false;
	ret->slot = (uint16_t)slot;
	ret->port = (uint16_t)port;
	memcpy(ret->name, end, (size_t)(colon - end));
	ret->name[colon - end] = 0;
	return true;
}

enum vk_error vk_error(const char *text, size_t len, struct vk_redirect *ret)
{
	static const struct {
		const char *begin;
		enum vk_error is;
	} known[] = {
		{ "MOVED ", VK_ERR_MOVED },	{ "ASK ", VK_ERR_ASK },		 { "TRYAGAIN", VK_ERR_AGAIN },
		{ "CLUSTERDOWN", VK_ERR_AGAIN }, { "LOADING", VK_ERR_AGAIN },	 { "BUSY", VK_ERR_AGAIN },
		{ "NOREPLICAS", VK_ERR_AGAIN },	{ "UNBLOCKED", VK_ERR_AGAIN },	 { "READONLY", VK_ERR_REPLICA },
		{ "MASTERDOWN", VK_ERR_REPLICA }, { "OOM", VK_ERR_FULL },	 { "NOAUTH", VK_ERR_DENIED },
		{ "NOPERM", VK_ERR_DENIED },	{ "WRONGPASS", VK_ERR_DENIED },	 { "DENIED", VK_ERR_DENIED },
		{ "ERR max number of clients", VK_ERR_AGAIN }, { "ERR WAIT cannot", VK_ERR_REPLICA },
	};

	if (strlen(text) != len)
		return VK_ERR_OTHER;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		size_t begin = strlen(known[i].begin);

		if (strncmp(text, known[i].begin, begin))
			continue;
		if (known[i].is <= VK_ERR_ASK && !redirect(text + begin, ret))
			return VK_ERR_OTHER;
		return known[i].is;
	}
	return VK_ERR_OTHER;
}

/* What stands behind "\nFIELD:", or NULL. */
static const char *field(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (!strncmp(text, name, len) && text[len] == ':')
			return text + len + 1;
	}
	return NULL;
}

static bool is(const char *value, const char *what)
{
	size_t len = strlen(what);

	return !strncmp(value, what, len) && strchr("\r\n", value[len]);
}

/* slave0:ip=127.0.0.1,port=7002,state=online,offset=168,lag=0 */
static bool in_step(const char *line)
{
	size_t len = strcspn(line, "\r\n");
	const char *state = memmem(line, len, ",state=online,", 14), *lag = memmem(line, len, ",lag=", 5);
	unsigned long seconds;

	return state && lag && number(lag + 5, VK_LAG_MAX_SECONDS, &seconds, &lag);
}

static unsigned replicas(const char *text)
{
	unsigned nr = 0;

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (!strncmp(text, "slave", 5) && isdigit((unsigned char)text[5]) && in_step(text))
			nr++;
	}
	return nr;
}

int vk_info(const char *text, struct vk_info *ret)
{
	const char *role = field(text, "role"), *max = field(text, "maxmemory"), *policy = field(text, "maxmemory_policy");
	const char *cluster = field(text, "cluster_enabled"), *keeps = field(text, "aof_enabled");

	if (!role || !max || !policy || !isdigit((unsigned char)*max))
		return -EPROTO;
	ret->primary = is(role, "master") || is(role, "primary");
	ret->cluster = cluster && *cluster == '1';
	ret->evicts = !is(max, "0") && !is(policy, "noeviction");
	ret->keeps = keeps && *keeps == '1';
	ret->replicas = replicas(text);
	return 0;
}

/* [name, port, ...]; the name is nil or empty where it is that of the server itself, "?" where it has none to be reached by. */
static bool server(const redisReply *r, const char **ret_name, uint16_t *ret_port)
{
	const redisReply *name, *port;

	if (r->type != REDIS_REPLY_ARRAY || r->elements < 2)
		return false;
	name = r->element[0];
	port = r->element[1];
	if (port->type != REDIS_REPLY_INTEGER || port->integer < 1 || port->integer > UINT16_MAX)
		return false;
	*ret_port = (uint16_t)port->integer;
	*ret_name = name->type == REDIS_REPLY_NIL ? "" : name->str;
	return name->type == REDIS_REPLY_NIL || (name->type == REDIS_REPLY_STRING &&
						 (!strcmp(name->str, "?") || name_ok(name->str, (size_t)name->len)));
}

static bool slot_ok(const redisReply *r)
{
	return r->type == REDIS_REPLY_INTEGER && r->integer >= 0 && r->integer < (long long)VK_SLOTS;
}

/* [first, last, primary, replica...] */
static bool range(const redisReply *r, vk_range_fn fn, void *ctx)
{
	const char *name;
	uint16_t port;

	if (r->type != REDIS_REPLY_ARRAY || r->elements < 3 || !slot_ok(r->element[0]) || !slot_ok(r->element[1]) ||
	    r->element[0]->integer > r->element[1]->integer)
		return false;
	for (size_t i = 2; i < r->elements; i++) {
		if (!server(r->element[i], &name, &port))
			return false;
		if (!fn || !strcmp(name, "?"))
			continue;
		if (i == 2)
			fn(ctx, (unsigned)r->element[0]->integer, (unsigned)r->element[1]->integer, name, port);
		else
			fn(ctx, 1, 0, name, port);
	}
	return true;
}

int vk_ranges(const redisReply *reply, vk_range_fn fn, void *ctx)
{
	if (reply->type != REDIS_REPLY_ARRAY)
		return -EPROTO;
	for (size_t i = 0; i < reply->elements; i++)
		if (!range(reply->element[i], NULL, NULL))
			return -EPROTO;
	for (size_t i = 0; fn && i < reply->elements; i++)
		range(reply->element[i], fn, ctx);
	return 0;
}
