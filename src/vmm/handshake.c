#include "vmm/handshake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32 /* of brackets: the real ones have 4 */

/*
 * The stream has no length, so its end is found by counting brackets outside of strings.  Whether it is JSON
 * is asked once, of the whole text.
 */
enum where { BEFORE, INSIDE, STRING, ESCAPE, AFTER, REFUSED };

struct cis_handshake {
	enum where where;
	unsigned depth;
	char *text;
	size_t len, room;
	struct cis_guest_layout layout;
};

int cis_handshake_create(struct cis_handshake **ret)
{
	struct cis_handshake *hs = calloc(1, sizeof(*hs));

	if (!hs)
		return -ENOMEM;
	*ret = hs;
	return 0;
}

void cis_handshake_destroy(struct cis_handshake *hs)
{
	if (!hs)
		return;
	free(hs->layout.regions);
	free(hs->text);
	free(hs);
}

struct cis_guest_layout *cis_handshake_layout(struct cis_handshake *hs)
{
	return hs->where == AFTER ? &hs->layout : NULL;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int scan_inside(struct cis_handshake *hs, char c, struct cis_error *err)
{
	if (c == '"')
		hs->where = STRING;
	else if (c == '[' || c == '{')
		hs->depth++;
	else if (c == ']' || c == '}')
		hs->depth--;
	if (!hs->depth)
		hs->where = AFTER;
	if (hs->depth > DEPTH_MAX)
		return cis_fail(err, EPROTO, "handshake: brackets more than %d deep", DEPTH_MAX);
	return 0;
}

static int scan(struct cis_handshake *hs, char c, struct cis_error *err)
{
	switch (hs->where) {
	case BEFORE:
		if (is_space(c))
			return 0;
		if (c != '[')
			return cis_fail(err, EPROTO,
					"handshake: starts with byte 0x%02x, not with a JSON array",
					(unsigned char)c);
		hs->where = INSIDE;
		hs->depth = 1;
		return 0;
	case INSIDE:
		return scan_inside(hs, c, err);
	case STRING:
		if (c == '"' || c == '\\')
			hs->where = c == '"' ? INSIDE : ESCAPE;
		return 0;
	case ESCAPE:
		hs->where = STRING;
		return 0;
	case AFTER:
		if (is_space(c))
			return 0;
		return cis_fail(err, EPROTO, "handshake: byte 0x%02x after the end of the array",
				(unsigned char)c);
	case REFUSED:
		break;
	}
	return cis_fail(err, EPROTO, "handshake: was refused before");
}

static int keep(struct cis_handshake *hs, const char *bytes, size_t len, struct cis_error *err)
{
	size_t room = hs->room ? hs->room : 1024;
	char *text;

	if (len > CIS_HANDSHAKE_BYTES_MAX - hs->len)
		return cis_fail(err, EPROTO, "handshake: longer than %u bytes", CIS_HANDSHAKE_BYTES_MAX);
	while (room < hs->len + len)
		room *= 2;
	if (room > hs->room) {
		text = realloc(hs->text, room);
		if (!text)
			return cis_fail(err, ENOMEM, "handshake: no memory for %zu bytes", room);
		hs->text = text;
		hs->room = room;
	}
	memcpy(hs->text + hs->len, bytes, len);
	hs->len += len;
	return 0;
}

static int take(struct cis_handshake *hs, const char *bytes, size_t len, struct cis_error *err)
{
	bool was_open = hs->where != AFTER;
	int r = keep(hs, bytes, len, err);

	for (size_t i = 0; i < len && !r; i++)
		r = scan(hs, bytes[i], err);
	if (r || !was_open || hs->where != AFTER)
		return r;
	return cis_layout_parse(hs->text, hs->len, &hs->layout, err);
}

int cis_handshake_feed(struct cis_handshake *hs, const void *bytes, size_t len, bool *ret_done,
		       struct cis_error *err)
{
	int r = take(hs, bytes, len, err);

	if (r) {
		hs->where = REFUSED;
		return r;
	}
	*ret_done = hs->where == AFTER;
	return 0;
}

int cis_handshake_end(const struct cis_handshake *hs, struct cis_error *err)
{
	if (hs->where == AFTER)
		return 0;
	if (!hs->len)
		return cis_fail(err, EPROTO, "handshake: the connection was closed without a byte");
	return cis_fail(err, EPROTO,
			"handshake: the connection was closed after %zu bytes, before the end of the array",
			hs->len);
}
