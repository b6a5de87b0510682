/*
 * HTTP client of the daemon's control socket; doc/api.md is the law.
 *
 * One connection, of one thread.
 */
#ifndef CIS_CLIENT_API_H
#define CIS_CLIENT_API_H

#include <jansson.h>
#include <stddef.h>

#include "base/error.h"

struct cis_api;

/** cis_api_open() - nothing is connected before the first call.  Return: 0 or -ENOMEM. */
int cis_api_open(const char *socket, struct cis_api **ret, struct cis_error *err);
void cis_api_close(struct cis_api *api);

/**
 * cis_api_call() - one request, its whole answer
 * @method: "GET", "PUT", "PATCH" or "DELETE"
 * @path:   with its query, encoded already
 * @body:   borrowed; NULL for none
 * @ret:    the answer's object, the caller's; NULL when the answer has no body.
 *          May be NULL when it does not matter
 *
 * Return: 0; -ECONNREFUSED, -ENOENT, -EACCES when the daemon cannot be reached;
 * -ECONNRESET when it hung up, with the request done or not: its engine was replaced;
 * for an error object of the daemon the errno that is nearest to its code
 * (-ENOENT not_found, -EEXIST exists, -ETIMEDOUT timeout, ...), with its
 * message as text; -EPROTO for an answer that is not what doc/api.md says.
 */
int cis_api_call(struct cis_api *api, const char *method, const char *path, const json_t *body, json_t **ret,
		 struct cis_error *err);

/** cis_api_code() - the code of the error object that the last call got, or "" when it was not the daemon's.
 */
const char *cis_api_code(const struct cis_api *api);

/** cis_api_escape() - @text as one part of a path or query; malloc'ed, NULL when there is no memory. */
char *cis_api_escape(const char *text);

#endif
