/*
 * The part of a store's name that says where its servers are:
 *
 *	//[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]]...	a HOST with colons stands in brackets
 *	//[[USER]:PASSWORD@]/PATH/TO/SOCKET
 *
 * Bytes of USER, PASSWORD and PATH may be written %XX.  Internal to this folder.
 */
#ifndef CIS_STORE_HOSTS_H
#define CIS_STORE_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CIS_HOSTS_MAX	   64
#define CIS_HOST_NAME_MAX  255
#define CIS_HOST_LOGIN_MAX 512

/** struct cis_host - @port: 0: @name is the path of a socket */
struct cis_host {
	char name[CIS_HOST_NAME_MAX + 1];
	uint16_t port;
};

struct cis_hosts {
	struct cis_host *host;
	unsigned nr;
	char user[CIS_HOST_LOGIN_MAX + 1], password[CIS_HOST_LOGIN_MAX + 1]; /* "": none */
};

/** struct cis_hosts_syntax - @scheme: with its colon; @port: where none is given; @login: may there be a password? */
struct cis_hosts_syntax {
	const char *scheme;
	uint16_t port;
	bool login;
};

/**
 * cis_hosts_parse() - read the servers of a name
 * @text:     what follows the scheme
 * @ret:      to be given to cis_hosts_fini(), unless this fails
 * @ret_rest: where the rest begins: with a '/' (after hosts), a '?' or the end
 *
 * Return: 0, -ENOMEM, or -EINVAL; the reason names the character, and never cites what might be a password.
 */
int cis_hosts_parse(const struct cis_hosts_syntax *syntax, const char *text, struct cis_hosts *ret, const char **ret_rest,
		    struct cis_error *err);
void cis_hosts_fini(struct cis_hosts *hosts);

/** cis_hosts_refuse() - -EINVAL for the character @at of the name whose scheme is followed by @text. */
int cis_hosts_refuse(const struct cis_hosts_syntax *syntax, const char *text, const char *at, const char *why,
		     struct cis_error *err);

#define CIS_HOST_TEXT_MAX (CIS_HOST_NAME_MAX + 16)

/** cis_host_text() - "host:port", "[::1]:port" or the path. */
void cis_host_text(const char *name, uint16_t port, char ret[CIS_HOST_TEXT_MAX]);

#endif
