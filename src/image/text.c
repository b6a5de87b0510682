#include <string.h>

#include "image/meta.h"

/* The table 3-7 of the Unicode standard. */
size_t cis_text_sequence(const char *text, size_t left)
{
	const unsigned char *p = (const unsigned char *)text;
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
		char c = text[at];

		n = cis_text_sequence(text + at, len - at);
		if (!n || !c || (((unsigned char)c < 32 || c == 127) && !strchr(allowed, c)))
			return false;
	}
	return true;
}
