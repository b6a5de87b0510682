#include <string.h>

#include "image/meta.h"

/* Length of the UTF-8 sequence at @p, 0 when it is none: the table 3-7 of the Unicode standard. */
static size_t sequence(const unsigned char *p, size_t left)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t len = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

	if ((p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || len > left)
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0;
	else if (p[0] == 0xed)
		high = 0x9f;
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f;
	for (size_t i = 1; i < len; i++, low = 0x80, high = 0xbf)
		if (p[i] < low || p[i] > high)
			return 0;
	return len;
}

bool cis_text_ok(const char *text, size_t len, const char *allowed)
{
	for (size_t at = 0, n; at < len; at += n) {
		const unsigned char *p = (const unsigned char *)text + at;

		n = sequence(p, len - at);
		if (!n || !*p || ((*p < 32 || *p == 127) && !strchr(allowed, *p)))
			return false;
	}
	return true;
}
