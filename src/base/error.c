#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int cis_fail(struct cis_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		err->code = code;
		va_start(ap, fmt);
		vsnprintf(err->text, sizeof(err->text), fmt, ap);
		va_end(ap);
	}
	return -code;
}

int cis_fail_prefix(struct cis_error *err, int code, const char *fmt, ...)
{
	char prefix[200], rest[sizeof(err->text)];
	va_list ap;

	if (!err)
		return -code;
	va_start(ap, fmt);
	vsnprintf(prefix, sizeof(prefix), fmt, ap);
	va_end(ap);
	memcpy(rest, err->text, sizeof(rest));
	err->code = code;
	if (snprintf(err->text, sizeof(err->text), "%s: %s", prefix, rest) >= (int)sizeof(err->text))
		strcpy(err->text + sizeof(err->text) - 4, "...");
	return -code;
}
