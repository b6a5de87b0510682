/* The rest of a name:  ["bytes=" SIZE ","] STORE { "+" ["bytes=" SIZE ","] STORE } */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "store/pages.h"
#include "store/tier/tier.h"

#define BYTES_MIN (1u << 20)

void tier_name_fini(struct tier_name *name)
{
	for (unsigned i = 0; i < name->nr; i++)
		free(name->level[i].name);
}

/* Others are part of a path or of a password. */
static bool begins_level(const char *plus)
{
	return *plus == '+' && (!strncmp(plus + 1, "bytes=", strlen("bytes=")) || cis_pages_is_name(plus + 1));
}

static const char *end_of_level(const char *at)
{
	while (*at && !begins_level(at))
		at++;
	return at;
}

static int parse_bytes(const char **at, uint64_t *ret)
{
	size_t len = strcspn(*at, ",+");
	char text[32] = "";

	if (len < sizeof(text))
		memcpy(text, *at, len);
	*at += len + ((*at)[len] == ',');
	return cis_size_parse(text, ret) || *ret < BYTES_MIN ? -EINVAL : 0;
}

static int check_level(const struct tier_name *name, unsigned i, struct cis_error *err)
{
	const char *text = name->level[i].name;
	int rc = cis_pages_check(text, err);

	if (!rc && !strncmp(text, "tier:", strlen("tier:")))
		rc = cis_fail(err, EINVAL, "a tier has no tiers: name all stores one after the other");
	if (!rc && cis_pages_is_stash(text))
		rc = cis_fail(err, EINVAL, "memory is in front of each store anyhow");
	for (unsigned k = 0; k < i && !rc; k++)
		if (!strcmp(name->level[k].name, text))
			rc = cis_fail(err, EINVAL, "this is the same as store %u", k + 1);
	return rc;
}

static int parse_level(const char **at, struct tier_name *name, struct cis_error *err)
{
	const char *end;
	unsigned i = name->nr;

	if (!strncmp(*at, "bytes=", strlen("bytes="))) {
		*at += strlen("bytes=");
		if (parse_bytes(at, &name->level[i].bytes))
			return cis_fail(err, EINVAL, "bytes is a size from 1M on, with K, M, G or T");
	}
	end = end_of_level(*at);
	name->level[i].name = strndup(*at, (size_t)(end - *at));
	if (!name->level[i].name)
		return cis_fail(err, ENOMEM, "out of memory");
	name->nr++;
	*at = *end ? end + 1 : end;
	if (*end && !name->level[i].bytes)
		return cis_fail(err, EINVAL, "bytes=SIZE, is missing before it: only the last one takes whatever comes");
	if (!*end && name->level[i].bytes)
		return cis_fail(err, EINVAL, "the last one takes whatever comes, and has no bytes=");
	return check_level(name, i, err);
}

int tier_name_parse(const char *rest, struct tier_name *ret, struct cis_error *err)
{
	const char *at = rest;

	*ret = (struct tier_name){ 0 };
	do {
		unsigned i = ret->nr;
		int rc;

		if (i == TIER_LEVELS)
			return cis_fail(err, EINVAL, "store tier: more than %u stores", TIER_LEVELS);
		rc = parse_level(&at, ret, err);
		if (rc)
			return cis_fail_prefix(err, -rc, "store tier: store %u", i + 1);
	} while (*at);
	return ret->nr > 1 ? 0 : cis_fail(err, EINVAL, "store tier: two stores at least, as bytes=1G,STORE+STORE");
}
