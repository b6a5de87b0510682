/* Is a mapping as empty as the daemon takes it to be?  A page that is there already never faults, so it would keep what it holds. */
#ifndef CIS_CLIENT_UNTOUCHED_H
#define CIS_CLIENT_UNTOUCHED_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/**
 * cis_untouched_check() - refuse a mapping with present pages
 * @fd: file behind it, -1 for anonymous memory
 *
 * Return: 0; -EEXIST (says where); -EINVAL (not mapped).
 */
int cis_untouched_check(void *addr, uint64_t bytes, int fd, uint64_t fd_offset, struct cis_error *err);

#endif
