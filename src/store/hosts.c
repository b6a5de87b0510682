#include "store/hosts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#define HEX   "0123456789abcdefABCDEF"

/** struct parser - @at: what is read next */
struct parser {
	const struct cis_hosts_syntax *syntax;
	const char *text, *at;
	struct cis_hosts *hosts;
	struct cis_error *err;
};

int cis_hosts_refuse(const struct cis_hosts_syntax *syntax, const char *text, const char *at, const char *why,
		     struct cis_error *err)
{
	return cis_fail(err, EINVAL, "name of a store, %s..., character %zu: %s", syntax->scheme,
			strlen(syntax->scheme) + (size_t)(at - text) + 1, why);
}

static int refuse(const struct parser *p, const char *why)
{
	return cis_hosts_refuse(p->syntax, p->text, p->at, why, p->err);
}

static int hex(char c)
{
	const char *at = c ? strchr(HEX, c) : NULL;

	return !at ? -1 : at - HEX < 16 ? (int)(at - HEX) : (int)(at - HEX) - 6;
}

/* Up to @end, with %XX put back. */
static int parse_bytes(struct parser *p, const char *end, char *ret, size_t max)
{
	size_t n = 0;

	while (p->at < end) {
		int c = (unsigned char)*p->at, high = c == '%' ? hex(p->at[1]) : 0, low = c == '%' && high >= 0 ? hex(p->at[2]) : 0;

		if (high < 0 || low < 0)
			return refuse(p, "% is followed by two hexadecimal digits");
		if (c == '%')
			c = high * 16 + low;
		if (!c || n == max)
			return refuse(p, c ? "this is too long" : "a NUL cannot be part of it");
		ret[n++] = (char)c;
		p->at += *p->at == '%' ? 3 : 1;
	}
	ret[n] = 0;
	return 0;
}

static int parse_login(struct parser *p)
{
	const char *end = p->at + strcspn(p->at, "/?"), *sign = memrchr(p->at, '@', (size_t)(end - p->at));
	const char *colon = sign ? memchr(p->at, ':', (size_t)(sign - p->at)) : NULL;
	int rc;

	if (!sign)
		return 0;
	if (!p->syntax->login)
		return refuse(p, "this kind of store knows no users and passwords");
	if (!colon || colon + 1 == sign)
		return refuse(p, "before the @ stands a password, behind a colon");
	rc = parse_bytes(p, colon, p->hosts->user, CIS_HOST_LOGIN_MAX);
	p->at += !rc;
	if (!rc)
		rc = parse_bytes(p, sign, p->hosts->password, CIS_HOST_LOGIN_MAX);
	p->at += !rc;
	return rc;
}

static struct cis_host *add(struct parser *p)
{
	struct cis_host *host = realloc(p->hosts->host, (p->hosts->nr + 1) * sizeof(*host));

	if (!host)
		return NULL;
	p->hosts->host = host;
	return memset(&host[p->hosts->nr++], 0, sizeof(*host));
}

static int parse_port(struct parser *p, struct cis_host *host)
{
	unsigned long port = 0;
	size_t digits;

	host->port = p->syntax->port;
	if (*p->at != ':')
		return 0;
	digits = strspn(++p->at, "0123456789");
	if (digits && digits < 6)
		port = strtoul(p->at, NULL, 10);
	if (!port || port > UINT16_MAX)
		return refuse(p, "a port is a number from 1 to 65535");
	host->port = (uint16_t)port;
	p->at += digits;
	return 0;
}

static int parse_host(struct parser *p)
{
	bool bracket = *p->at == '[';
	size_t len = bracket ? strspn(++p->at, HEX ":.%" ALNUM "-_") : strspn(p->at, ALNUM ".-_");
	struct cis_host *host = add(p);

	if (!host)
		return cis_fail(p->err, ENOMEM, "name of a store: out of memory");
	if (!len || len > CIS_HOST_NAME_MAX)
		return refuse(p, "a host name or address is expected, an address with colons in brackets");
	memcpy(host->name, p->at, len);
	p->at += len;
	if (bracket && *p->at++ != ']') {
		p->at--;
		return refuse(p, "the bracket is not closed");
	}
	return parse_port(p, host);
}

static int parse_hosts(struct parser *p)
{
	int rc = parse_host(p);

	while (!rc && *p->at == ',') {
		p->at++;
		rc = p->hosts->nr < CIS_HOSTS_MAX ? parse_host(p) : refuse(p, "there are more than 64 hosts");
	}
	if (!rc && *p->at && *p->at != '/' && *p->at != '?')
		return refuse(p, "this is neither a part of a host's name nor ends it");
	return rc;
}

static int parse_path(struct parser *p)
{
	struct cis_host *host = add(p);

	if (!host)
		return cis_fail(p->err, ENOMEM, "name of a store: out of memory");
	if (!p->at[1] || p->at[1] == '?')
		return cis_hosts_refuse(p->syntax, p->text, p->at + 1, "a path is expected", p->err);
	return parse_bytes(p, p->at + strcspn(p->at, "?"), host->name, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
}

int cis_hosts_parse(const struct cis_hosts_syntax *syntax, const char *text, struct cis_hosts *ret, const char **ret_rest,
		    struct cis_error *err)
{
	struct cis_hosts hosts = { 0 };
	struct parser p = { .syntax = syntax, .text = text, .at = text, .hosts = &hosts, .err = err };
	int rc;

	if (strncmp(text, "//", 2))
		return refuse(&p, "two slashes are expected");
	p.at += 2;
	rc = parse_login(&p);
	if (!rc)
		rc = *p.at == '/' ? parse_path(&p) : parse_hosts(&p);
	if (rc) {
		cis_hosts_fini(&hosts);
		return rc;
	}
	*ret = hosts;
	*ret_rest = p.at;
	return 0;
}

void cis_hosts_fini(struct cis_hosts *hosts)
{
	explicit_bzero(hosts->password, sizeof(hosts->password));
	free(hosts->host);
	hosts->host = NULL;
	hosts->nr = 0;
}

void cis_host_text(const char *name, uint16_t port, char ret[CIS_HOST_TEXT_MAX])
{
	snprintf(ret, CIS_HOST_TEXT_MAX, !port ? "%s" : strchr(name, ':') ? "[%s]:%u" : "%s:%u", name, port);
}
