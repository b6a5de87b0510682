#include "store/memcached/say.h"

#include <string.h>

static bool begins(const char *line, size_t len, const char *with)
{
	size_t n = strlen(with);

	return len >= n && !memcmp(line, with, n);
}

static bool is(const char *line, size_t len, const char *what)
{
	return len == strlen(what) && begins(line, len, what);
}

/* The word at *@at, which is moved behind it and one blank.  Return: its length, 0 if there is none. */
static size_t word(const char **at, const char *end)
{
	const char *begin = *at, *blank = memchr(begin, ' ', (size_t)(end - begin));

	*at = blank ? blank + 1 : end;
	return (size_t)((blank ? blank : end) - begin);
}

static bool number(const char *text, size_t len, uint32_t *ret)
{
	uint64_t n = 0;

	if (!len || len > 10)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		n = n * 10 + (uint64_t)(text[i] - '0');
	}
	*ret = (uint32_t)n;
	return n <= UINT32_MAX;
}

/* VALUE key flags bytes, and perhaps a number more that nobody has asked for. */
static enum mc_word value(const char *line, size_t len, struct mc_said *ret)
{
	const char *at = line + strlen("VALUE "), *end = line + len, *bytes;
	size_t n;

	ret->name = at;
	ret->len = word(&at, end);
	if (!ret->len || !word(&at, end))
		return MC_WRONG;
	bytes = at;
	n = word(&at, end);
	return number(bytes, n, &ret->bytes) ? MC_VALUE : MC_WRONG;
}

static enum mc_word stat(const char *line, size_t len, struct mc_said *ret)
{
	const char *at = line + strlen("STAT "), *end = line + len;

	ret->name = at;
	ret->len = word(&at, end);
	ret->value = at;
	ret->value_len = (size_t)(end - at);
	return ret->len ? MC_STAT : MC_WRONG;
}

enum mc_word mc_say(const char *line, size_t len, struct mc_said *ret)
{
	static const struct {
		const char *line;
		enum mc_word is;
	} known[] = { { "END", MC_END }, { "STORED", MC_STORED }, { "DELETED", MC_DELETED }, { "NOT_FOUND", MC_NOT_FOUND },
		      { "ERROR", MC_REFUSED } };

	if (begins(line, len, "VALUE "))
		return value(line, len, ret);
	if (begins(line, len, "STAT "))
		return stat(line, len, ret);
	if (begins(line, len, "SERVER_ERROR out of memory storing"))
		return MC_FULL;
	if (begins(line, len, "SERVER_ERROR object too large"))
		return MC_LARGE;
	if (begins(line, len, "SERVER_ERROR"))
		return MC_BUSY;
	if (begins(line, len, "CLIENT_ERROR"))
		return MC_REFUSED;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (is(line, len, known[i].line))
			return known[i].is;
	return MC_WRONG;
}

void mc_info_add(struct mc_info *info, const struct mc_said *stat)
{
	if (is(stat->name, stat->len, "evictions") && (is(stat->value, stat->value_len, "on") || is(stat->value, stat->value_len, "off"))) {
		info->asked = true;
		info->evicts = is(stat->value, stat->value_len, "on");
	} else if (is(stat->name, stat->len, "slab_automove")) {
		info->moves = !is(stat->value, stat->value_len, "0");
	} else if (begins(stat->name, stat->len, "extstore_")) {
		info->extends = true;
	}
}
