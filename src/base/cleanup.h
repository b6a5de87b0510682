/* Scope clean-up: `_cleanup_(free_ptr) char *s`. */
#ifndef CIS_BASE_CLEANUP_H
#define CIS_BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

static inline void cis_free_ptr(void *p)
{
	free(*(void **)p);
}

static inline void cis_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define _cleanup_free_ _cleanup_(cis_free_ptr)
#define _cleanup_close_ _cleanup_(cis_close_fd)

#endif
