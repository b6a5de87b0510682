#include "daemon/text.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/meta.h"

json_t *cis_text_json(const char *text)
{
	_cleanup_free_ char *copy = strdup(text);
	size_t len = copy ? strlen(copy) : 0, n;

	for (size_t at = 0; at < len; at += n) {
		n = cis_text_sequence(copy + at, len - at);
		if (n)
			continue;
		copy[at] = '?';
		n = 1;
	}
	return copy ? json_string(copy) : NULL;
}
