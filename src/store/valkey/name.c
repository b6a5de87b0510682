/* valkey://[[USER]:PASSWORD@]HOST[:PORT],...[/DB][?KEY=VALUE[&KEY=VALUE]]: the part behind the hosts. */
#include <stdlib.h>
#include <string.h>

#include "store/valkey/valkey.h"

#define DB_MAX	     65535u
#define REPLICAS_MAX 15u

static const struct cis_hosts_syntax syntax = { "valkey:", 6379, true };

/* Up to one of @ends. */
static bool number(const char **at, const char *ends, unsigned max, unsigned *ret)
{
	size_t digits = strspn(*at, "0123456789");

	if (!digits || digits > 9 || ((*at)[digits] && !strchr(ends, (*at)[digits])))
		return false;
	*ret = (unsigned)strtoul(*at, NULL, 10);
	*at += digits;
	return *ret <= max;
}

/* @at: behind a '?' or a '&'.  Return: what is wrong, or NULL. */
static const char *parse_key(struct vk_opts *o, const char **at)
{
	const char *value = *at;
	unsigned n;

	if (!strncmp(*at, "db=", 3)) {
		value += 3;
		if (!number(&value, "&", DB_MAX, &o->db))
			return "db is a number up to 65535";
	} else if (!strncmp(*at, "replicas=", 9)) {
		value += 9;
		if (!number(&value, "&", REPLICAS_MAX, &n))
			return "replicas is a number up to 15";
		o->replicas = (int)n;
	} else {
		return "db=N or replicas=N is expected";
	}
	*at = value;
	return NULL;
}

static const char *parse(struct vk_opts *o, const char **at)
{
	const char *why = NULL;

	if (**at == '/') {
		++*at;
		if (**at && **at != '?' && !number(at, "?", DB_MAX, &o->db))
			return "behind the slash stands the number of the database, up to 65535";
	}
	if (!**at)
		return NULL;
	do {
		++*at;
		why = parse_key(o, at);
	} while (!why && **at == '&');
	return why;
}

int vk_name_parse(const char *rest, struct vk_opts *ret, struct cis_error *err)
{
	struct vk_opts o = { .replicas = -1 };
	const char *at, *why;
	int rc = cis_hosts_parse(&syntax, rest, &o.hosts, &at, err);

	if (rc)
		return rc;
	why = parse(&o, &at);
	if (why) {
		cis_hosts_fini(&o.hosts);
		return cis_hosts_refuse(&syntax, rest, at, why, err);
	}
	*ret = o;
	return 0;
}
