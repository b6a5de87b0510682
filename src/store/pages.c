/* Stores of pages by name. */
#include "store/pages.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* memory: is the stash. */

static int memory_check(const char *rest, struct cis_error *err)
{
	return *rest ? cis_fail(err, EINVAL, "memory: is a whole name") : 0;
}

static int memory_open(const char *rest, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err)
{
	return cis_fail(err, ENOTSUP, "memory: is the stash, which each guest has: there is nothing to be opened");
}

static int memory_probe(const char *rest, uint64_t timeout_ns, struct cis_error *err)
{
	return memory_check(rest, err);
}

static const struct cis_pages_kind cis_pages_memory = {
	.scheme = "memory:",
	.check = memory_check,
	.open = memory_open,
	.probe = memory_probe,
};

/* sealed: is another one, and a key. */

static int sealed_check(const char *rest, struct cis_error *err)
{
	if (cis_pages_is_stash(rest) || cis_pages_sealed_in(rest))
		return cis_fail(err, EINVAL, "sealed: stands before the name of a store that is elsewhere");
	return cis_pages_check(rest, err);
}

static int sealed_open(const char *rest, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err)
{
	return cis_fail(err, ENOTSUP, "sealed: is opened with the key of a guest");
}

static int sealed_probe(const char *rest, uint64_t timeout_ns, struct cis_error *err)
{
	return sealed_check(rest, err) ? -EINVAL : cis_pages_probe(rest, timeout_ns, err);
}

static const struct cis_pages_kind cis_pages_sealed = {
	.scheme = "sealed:",
	.check = sealed_check,
	.open = sealed_open,
	.probe = sealed_probe,
};

const char *cis_pages_sealed_in(const char *url)
{
	size_t len = strlen(cis_pages_sealed.scheme);

	return strncmp(url, cis_pages_sealed.scheme, len) ? NULL : url + len;
}

static const struct cis_pages_kind *const kinds[] = {
	&cis_pages_file,
	&cis_pages_memcached,
	&cis_pages_memory,
	&cis_pages_tier,
	&cis_pages_valkey,
	&cis_pages_sealed,
	NULL,
};

static const struct cis_pages_kind *kind_of(const char *url, const char **ret_rest, struct cis_error *err)
{
	size_t word = strspn(url, "abcdefghijklmnopqrstuvwxyz");

	for (size_t i = 0; kinds[i]; i++) {
		size_t len = strlen(kinds[i]->scheme);

		if (strncmp(url, kinds[i]->scheme, len))
			continue;
		*ret_rest = url + len;
		return kinds[i];
	}
	if (url[word] == ':')
		cis_fail(err, EINVAL, "'%.*s' is not a kind of store of pages; cistern-stores(7) has them", (int)word, url);
	else /* which may begin with a password */
		cis_fail(err, EINVAL, "this is not the name of a store of pages; cistern-stores(7) has them");
	return NULL;
}

bool cis_pages_is_name(const char *text)
{
	for (size_t i = 0; kinds[i]; i++)
		if (!strncmp(text, kinds[i]->scheme, strlen(kinds[i]->scheme)))
			return true;
	return false;
}

bool cis_pages_is_stash(const char *url)
{
	return !strcmp(url, cis_pages_memory.scheme);
}

int cis_pages_check(const char *url, struct cis_error *err)
{
	const char *rest;
	const struct cis_pages_kind *kind = kind_of(url, &rest, err);

	return kind ? kind->check(rest, err) : -EINVAL;
}

/* Whatever lies before the last @ may be a password, or that of another store with it. */
void cis_pages_show(const char *url, char *buf, size_t size)
{
	const char *begin = strstr(url, "//"), *end = strrchr(url, '@');

	if (begin && end && end > begin)
		snprintf(buf, size, "%.*s***%s", (int)(begin + 2 - url), url, end);
	else
		snprintf(buf, size, "%s", url);
}

int cis_pages_open(const char *url, const struct cis_pages_opts *opts, struct cis_store **ret, struct cis_error *err)
{
	const char *rest;
	const struct cis_pages_kind *kind = kind_of(url, &rest, err);

	return kind ? kind->open(rest, opts, ret, err) : -EINVAL;
}

int cis_pages_probe(const char *url, uint64_t timeout_ns, struct cis_error *err)
{
	const char *rest;
	const struct cis_pages_kind *kind = kind_of(url, &rest, err);

	if (!kind)
		return -EINVAL;
	if (err)
		*err = (struct cis_error){ 0 };
	return kind->probe(rest, timeout_ns, err);
}
