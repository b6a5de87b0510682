/*
 * The addresses of a host, looked up by a thread of its own: the resolver blocks for as long as its servers take.
 * Internal to this folder.
 */
#ifndef CIS_STORE_LOOKUP_H
#define CIS_STORE_LOOKUP_H

#include <netinet/in.h>
#include <stdbool.h>

#define CIS_ADDRESS_TEXT_MAX 64 /* with the name of an interface */
#define CIS_ADDRESSES_MAX    8

struct cis_lookup;

/** cis_lookup_needed() - is it a name, and not an address? */
bool cis_lookup_needed(const char *host);

/** cis_lookup_start() - Return: 0 or -errno. */
int cis_lookup_start(const char *host, struct cis_lookup **ret);

/** cis_lookup_fd() - readable when it is finished. */
int cis_lookup_fd(const struct cis_lookup *lookup);

/**
 * cis_lookup_result() - once, when it is finished
 * @nth: which of its addresses, of which there may be fewer: they are counted round
 *
 * Return: 0; -ENOENT (there is no such host), -EAGAIN (nobody knows at present), -EINPROGRESS.
 */
int cis_lookup_result(const struct cis_lookup *lookup, unsigned nth, char ret[CIS_ADDRESS_TEXT_MAX]);

/** cis_lookup_forget() - finished or not; NULL-safe. */
void cis_lookup_forget(struct cis_lookup *lookup);

#endif
