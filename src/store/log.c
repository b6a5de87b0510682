#include "store/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SPARE 2u /* segments that only moves may open, so that there is always room to make room */

struct cis_log {
	uint64_t bytes, limit;
	uint32_t segment; /* bytes of each */
	uint32_t nr;
	uint32_t open;	    /* where values are allocated, or CIS_LOG_NONE */
	uint32_t open_at;   /* bytes of it that are taken */
	uint32_t next;	    /* all below it are used */
	uint32_t nr_used;   /* segments with a live value, and the open one */
	uint64_t live;
	uint32_t *seg_live; /* bytes, of each; in memory that is only there where it was touched */
};

static uint32_t rounded(uint32_t bytes)
{
	return (bytes + CIS_LOG_UNIT - 1) & ~(CIS_LOG_UNIT - 1);
}

static uint32_t segment_of(const struct cis_log *log, uint32_t loc)
{
	return (uint32_t)(cis_log_off(loc) / log->segment);
}

int cis_log_create(uint64_t bytes, uint32_t segment, uint64_t limit, struct cis_log **ret)
{
	struct cis_log *log;

	if (!segment || (segment & (segment - 1)) || !bytes || bytes % segment || bytes / CIS_LOG_UNIT > UINT32_MAX)
		return -EINVAL;
	log = calloc(1, sizeof(*log));
	if (!log)
		return -ENOMEM;
	*log = (struct cis_log){ .bytes = bytes, .segment = segment, .nr = (uint32_t)(bytes / segment), .open = CIS_LOG_NONE };
	log->seg_live = mmap(NULL, log->nr * sizeof(uint32_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (log->seg_live == MAP_FAILED) {
		free(log);
		return -ENOMEM;
	}
	cis_log_limit(log, limit);
	*ret = log;
	return 0;
}

void cis_log_destroy(struct cis_log *log)
{
	if (!log)
		return;
	munmap(log->seg_live, log->nr * sizeof(uint32_t));
	free(log);
}

void cis_log_limit(struct cis_log *log, uint64_t limit)
{
	log->limit = limit < log->bytes ? limit : log->bytes;
}

/* The lowest that is free: the area stays as small as it can, and memory that was used lately is used again. */
static bool open_next(struct cis_log *log, bool spare)
{
	uint64_t may = log->limit / log->segment;

	if (!spare)
		may = may > SPARE ? may - SPARE : 1;
	if (log->nr_used >= may || log->nr_used == log->nr)
		return false;
	while (log->seg_live[log->next])
		log->next++;
	log->open = log->next++;
	log->open_at = log->open ? 0 : CIS_LOG_UNIT; /* loc 0 is none */
	log->nr_used++;
	return true;
}

static void unused(struct cis_log *log, uint32_t seg)
{
	log->nr_used--;
	if (seg < log->next)
		log->next = seg;
}

uint32_t cis_log_seal(struct cis_log *log)
{
	uint32_t was = log->open;

	log->open = CIS_LOG_NONE;
	if (was != CIS_LOG_NONE && !log->seg_live[was])
		unused(log, was);
	return was;
}

uint32_t cis_log_alloc(struct cis_log *log, uint32_t bytes, bool spare)
{
	uint32_t need = rounded(bytes), loc;

	if (!need || need > log->segment - CIS_LOG_UNIT)
		return 0;
	if (log->open != CIS_LOG_NONE && log->segment - log->open_at < need)
		cis_log_seal(log);
	if (log->open == CIS_LOG_NONE && !open_next(log, spare))
		return 0;
	loc = (uint32_t)(((uint64_t)log->open * log->segment + log->open_at) / CIS_LOG_UNIT);
	log->open_at += need;
	log->seg_live[log->open] += need;
	log->live += need;
	return loc;
}

uint32_t cis_log_room(const struct cis_log *log)
{
	return log->open == CIS_LOG_NONE ? 0 : log->segment - log->open_at;
}

void cis_log_align(struct cis_log *log, uint32_t bytes)
{
	if (log->open != CIS_LOG_NONE)
		log->open_at = (log->open_at + bytes - 1) & ~(bytes - 1);
}

bool cis_log_claim(struct cis_log *log, uint32_t loc, uint32_t bytes)
{
	uint32_t need = rounded(bytes), seg = segment_of(log, loc);

	if (!loc || !need || seg >= log->nr || cis_log_off(loc) % log->segment + need > log->segment ||
	    log->seg_live[seg] + need > log->segment)
		return false;
	if (!log->seg_live[seg])
		log->nr_used++;
	log->seg_live[seg] += need;
	log->live += need;
	return true;
}

uint32_t cis_log_free(struct cis_log *log, uint32_t loc, uint32_t bytes)
{
	uint32_t need = rounded(bytes), seg = segment_of(log, loc);

	log->seg_live[seg] -= need;
	log->live -= need;
	if (log->seg_live[seg] || seg == log->open)
		return CIS_LOG_NONE;
	unused(log, seg);
	return seg;
}

uint32_t cis_log_victim(const struct cis_log *log)
{
	uint32_t best = CIS_LOG_NONE, live = log->segment / 4 * 3;
	uint64_t short_of = log->limit / log->segment;

	if (log->nr_used + SPARE + 1 < short_of)
		return CIS_LOG_NONE;
	for (uint32_t i = 0; i < log->nr; i++)
		if (i != log->open && log->seg_live[i] && log->seg_live[i] < live) {
			best = i;
			live = log->seg_live[i];
		}
	return best;
}

uint32_t cis_log_segment_bytes(const struct cis_log *log)
{
	return log->segment;
}

uint64_t cis_log_live(const struct cis_log *log)
{
	return log->live;
}

uint64_t cis_log_used(const struct cis_log *log)
{
	return (uint64_t)log->nr_used * log->segment;
}

uint32_t cis_log_segment_live(const struct cis_log *log, uint32_t segment)
{
	return log->seg_live[segment];
}

uint64_t cis_log_memory(const struct cis_log *log)
{
	return sizeof(*log) + (uint64_t)log->nr * sizeof(uint32_t);
}
