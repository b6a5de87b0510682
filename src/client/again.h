/* Connecting again: a daemon that was killed and started again finds its clients anew, doc/client.md. */
#ifndef CIS_CLIENT_AGAIN_H
#define CIS_CLIENT_AGAIN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct cis_again;

/**
 * struct cis_again_opts - what is said again
 * @socket:    path of the guest's socket
 * @conn:      the connection, the caller's; when it is lost, this number refers to the next one
 * @text:      the handshake, terminated
 * @fds:       its descriptors, the caller's
 * @is_served: the daemon has said so already
 *
 * Strings are copied.
 */
struct cis_again_opts {
	const char *socket;
	int conn;
	const char *text;
	int fds[2];
	size_t nr_fds;
	bool is_served;
};

/**
 * cis_again_start() - a thread that watches the connection, with all signals blocked
 *
 * It goes on until it is stopped, or the daemon refuses a client that it never served.  A child made by fork() does not have
 * it.  Return: 0, -ENOMEM, -EAGAIN (no thread), -EMFILE.
 */
int cis_again_start(const struct cis_again_opts *opts, struct cis_again **ret, struct cis_error *err);

/** cis_again_stop() - and wait for its end; the connection stays.  NULL-safe, and in a child of fork() too. */
void cis_again_stop(struct cis_again *again);

#endif
