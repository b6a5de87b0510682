#include "client/last_error.h"

#include <stdio.h>
#include <string.h>

#include "cistern/cistern.h"

static __thread char last[480];

int cis_last_error_set(const char *where, int r, const struct cis_error *err)
{
	snprintf(last, sizeof(last), "%s: %s", where, err->text[0] ? err->text : strerror(-r));
	return r;
}

const char *cis_error(void)
{
	return last;
}

const char *cis_version(void)
{
	return CISTERN_VERSION;
}
