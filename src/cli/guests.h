/* What the commands that talk to the daemon share. */
#ifndef CIS_CLI_GUESTS_H
#define CIS_CLI_GUESTS_H

#include "cli/cli.h"

/** cli_call() - one request at the control socket; @id, when not NULL, replaces the '*' of @path.  As
 * cis_api_call().  A GET is made again when the engine is replaced in the middle of it. */
int cli_call(const char *method, const char *path, const char *id, const json_t *body, json_t **ret,
	     struct cis_error *err);

/** cli_call_once() - likewise, not made again: -ECONNRESET. */
int cli_call_once(const char *method, const char *path, const char *id, const json_t *body, json_t **ret,
		  struct cis_error *err);

/** cli_guest_list() - the array of guests; the caller's. */
int cli_guest_list(json_t **ret, struct cis_error *err);

/** cli_guest_print() - one guest, as text or JSON; takes the reference.  Return: an exit status. */
int cli_guest_print(json_t *guest);

/** cli_guest_print_memory() - its budget and what it has, in one line; with --json as cli_guest_print(). */
int cli_guest_print_memory(json_t *guest);

/** cli_text() - a string of an answer, "" when it is not there; never with control characters.  Lives as long
 * as @obj. */
const char *cli_text(const json_t *obj, const char *key);

/** cli_number() - a number of an answer at "key" or "key.key", -1 when it is not there. */
long long cli_number(const json_t *obj, const char *key);

/** cli_figure() - the same as text, "-" when it is not there, into @buf. */
void cli_figure(const json_t *obj, const char *key, char *buf, size_t len);

/** cli_bytes() - likewise, bytes as people write them. */
void cli_bytes(const json_t *obj, const char *key, char *buf, size_t len);

/** cli_remote() - likewise, what of its memory was reclaimed and has content, wherever that is. */
void cli_remote(const json_t *guest, char *buf, size_t len);

#endif
