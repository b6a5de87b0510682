/* The thread's last error, behind cis_error(). */
#ifndef CIS_CLIENT_LAST_ERROR_H
#define CIS_CLIENT_LAST_ERROR_H

#include "base/error.h"

/** cis_last_error_set() - keep "WHERE: " and the reason.  Return: @r. */
int cis_last_error_set(const char *where, int r, const struct cis_error *err);

#endif
