/* What servers say: one line, as the text protocol has it (protocol.txt of memcached).  It may be wrong, or hostile. */
#ifndef CIS_STORE_MEMCACHED_SAY_H
#define CIS_STORE_MEMCACHED_SAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MC_LINE_MAX 2048u /* without its end */

enum mc_word {
	MC_VALUE, /* VALUE key flags bytes: which follow */
	MC_END,
	MC_STORED,
	MC_DELETED,
	MC_NOT_FOUND,
	MC_STAT, /* STAT name value */
	MC_FULL,  /* no memory for one more */
	MC_LARGE, /* none for any of this size */
	MC_BUSY, /* another error of the server: maybe not the next time */
	MC_REFUSED, /* it does not know what that is */
	MC_WRONG,
};

/** struct mc_said - @name: the key or the name, @len bytes of the line; @value: what follows it; @bytes: of the value */
struct mc_said {
	const char *name, *value;
	size_t len, value_len;
	uint32_t bytes;
};

/** mc_say() - @line: @len bytes, without the end of the line. */
enum mc_word mc_say(const char *line, size_t len, struct mc_said *ret);

/**
 * struct mc_info - of STATS
 * @evicts:  drops values when memory is short (no -M); @asked: it has said whether
 * @moves:   drops values when it moves memory between sizes of values (slab_automove)
 * @extends: writes values to a file, whose oldest it drops (ext_path)
 */
struct mc_info {
	bool asked, evicts, moves, extends;
};

/** mc_info_add() - one line of STAT settings or STAT. */
void mc_info_add(struct mc_info *info, const struct mc_said *stat);

/** mc_info_safe() - is what it was given there until it is deleted, or the server ends? */
static inline bool mc_info_safe(const struct mc_info *info)
{
	return info->asked && !info->evicts && !info->moves && !info->extends;
}

#endif
