/* Copying bulk data. */
#ifndef CIS_BASE_COPY_H
#define CIS_BASE_COPY_H

#include <stddef.h>

/**
 * cis_copy_past_cache() - memcpy by stores that go past the cache
 * @dst: a multiple of 16, as is @len
 *
 * For many pages whose bytes nobody here reads soon: their lines need not be fetched from memory first, and what the
 * cache holds stays there.  Any thread.
 */
void cis_copy_past_cache(void *dst, const void *src, size_t len);

#endif
