/* The text of a handshake and the daemon's answer to it: doc/client.md. */
#ifndef CIS_CLIENT_HANDSHAKE_H
#define CIS_CLIENT_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/** struct cis_client_region - a region as it is told; @block is owned, may be NULL and needs no escaping */
struct cis_client_region {
	uint64_t addr;
	uint64_t bytes;
	uint64_t offset;
	uint64_t page_bytes;
	uint64_t gpa;
	bool has_gpa;
	char *block;
};

/** struct cis_client_layout - all that is told; the regions are the caller's, at least one */
struct cis_client_layout {
	unsigned mapping; /* enum cis_mapping */
	bool ack;
	bool allocated;
	const struct cis_client_region *regions;
	size_t nr_regions;
};

/**
 * cis_handshake_write() - the JSON array
 * @ret_text: malloc'ed, terminated
 *
 * Return: 0 or -ENOMEM.
 */
int cis_handshake_write(const struct cis_client_layout *layout, char **ret_text);

/**
 * cis_handshake_wait() - wait for the answer
 * @timeout_ms: 0: for ever
 *
 * Return: 0 when the daemon said to go on; -ECONNABORTED with its reason;
 * -ETIMEDOUT; -EPROTO (neither yes nor no).
 */
int cis_handshake_wait(int fd, uint32_t timeout_ms, struct cis_error *err);

#endif
