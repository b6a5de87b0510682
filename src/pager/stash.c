#include "pager/stash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "pager/state.h"

#define PAGE  4096u
#define SPARE 16u /* empty segments that keep their memory: to get it back costs more than copying a page */
#define LOOKS 64u /* at segments, when one has become empty */

int cis_value_check(const struct cis_value *v, uint64_t id, uint64_t room)
{
	if (room < sizeof(*v) || v->id != id || !v->stored_bytes || v->stored_bytes > PAGE || cis_value_bytes(v) > room ||
	    v->codec >= CIS_CODEC_COUNT)
		return -EBADMSG;
	return 0;
}

int cis_value_unpack(const struct cis_value *v, struct cis_decoder *dec, void *raw)
{
	if (cis_decode(dec, v->codec, v + 1, v->stored_bytes, raw, PAGE))
		return -EBADMSG;
	return cis_chunk_checksum(v->id, raw, PAGE) == v->checksum ? 0 : -EBADMSG;
}

int cis_stash_init(struct cis_stash *s, char *area, uint64_t bytes, uint64_t limit)
{
	*s = (struct cis_stash){ .area = area, .bytes = bytes, .open = CIS_LOG_NONE };
	pthread_mutex_init(&s->lock, NULL);
	s->queue = calloc(bytes / CIS_STASH_SEGMENT, sizeof(*s->queue));
	s->queued = calloc(bytes / CIS_STASH_SEGMENT, sizeof(*s->queued));
	s->backed = calloc(bytes / CIS_STASH_SEGMENT, sizeof(*s->backed));
	return s->queue && s->queued && s->backed ? cis_log_create(bytes, CIS_STASH_SEGMENT, limit, &s->log) : -ENOMEM;
}

void cis_stash_fini(struct cis_stash *s)
{
	if (!s->area)
		return;
	cis_log_destroy(s->log);
	free(s->queue);
	free(s->queued);
	free(s->backed);
	pthread_mutex_destroy(&s->lock);
	s->area = NULL;
}

static uint64_t slots(const struct cis_stash *s)
{
	return s->bytes / CIS_STASH_SEGMENT;
}

/* One that is there already, emptied and filled again since, keeps its place. */
static void enqueue(struct cis_stash *s, uint32_t segment)
{
	if (s->queued[segment])
		return;
	s->queued[segment] = true;
	s->queue[s->tail++ % slots(s)] = segment;
}

static uint32_t segment_of(uint32_t loc)
{
	return (uint32_t)(cis_log_off(loc) / CIS_STASH_SEGMENT);
}

static void takes_memory(struct cis_stash *s, uint32_t segment)
{
	if (s->backed[segment])
		return;
	s->backed[segment] = true;
	s->nr_backed++;
	if (segment >= s->end)
		s->end = s->look = segment + 1;
}

static void opened(struct cis_stash *s, uint32_t segment)
{
	if (s->open != segment && s->open != CIS_LOG_NONE)
		enqueue(s, s->open);
	s->open = segment;
}

void cis_stash_seal(struct cis_stash *s)
{
	pthread_mutex_lock(&s->lock);
	cis_log_seal(s->log);
	opened(s, CIS_LOG_NONE);
	pthread_mutex_unlock(&s->lock);
}

void cis_stash_requeue(struct cis_stash *s, uint32_t loc)
{
	uint32_t segment = segment_of(loc);

	pthread_mutex_lock(&s->lock);
	if (segment != s->open)
		enqueue(s, segment);
	pthread_mutex_unlock(&s->lock);
}

uint64_t cis_stash_oldest(struct cis_stash *s)
{
	uint64_t ret = 0;

	pthread_mutex_lock(&s->lock);
	while (!ret && s->head < s->tail) {
		uint32_t segment = s->queue[s->head++ % slots(s)];

		s->queued[segment] = false;
		if (segment != s->open && cis_log_segment_live(s->log, segment))
			ret = segment ? (uint64_t)segment * CIS_STASH_SEGMENT : CIS_LOG_UNIT;
	}
	pthread_mutex_unlock(&s->lock);
	return ret;
}

static uint32_t alloc(struct cis_stash *s, uint32_t bytes, bool spare)
{
	uint32_t loc;

	pthread_mutex_lock(&s->lock);
	loc = cis_log_alloc(s->log, bytes, spare);
	if (loc) {
		opened(s, segment_of(loc));
		takes_memory(s, segment_of(loc));
	}
	pthread_mutex_unlock(&s->lock);
	return loc;
}

uint32_t cis_stash_put(struct cis_stash *s, const struct cis_value *v, const void *stored)
{
	uint32_t loc = alloc(s, cis_value_bytes(v), false);
	char *at = s->area + cis_log_off(loc);

	if (!loc)
		return 0;
	memcpy(at, v, sizeof(*v));
	memcpy(at + sizeof(*v), stored, v->stored_bytes);
	return loc;
}

uint32_t cis_stash_copy(struct cis_stash *s, uint32_t loc)
{
	const struct cis_value *v = cis_stash_at(s, loc);
	uint32_t to = alloc(s, cis_value_bytes(v), true);

	if (to)
		memcpy(cis_stash_at(s, to), v, cis_value_bytes(v));
	return to;
}

bool cis_stash_victim(struct cis_stash *s, uint64_t *ret_from, uint64_t *ret_end)
{
	uint32_t segment;

	pthread_mutex_lock(&s->lock);
	segment = cis_log_victim(s->log);
	pthread_mutex_unlock(&s->lock);
	if (segment == CIS_LOG_NONE)
		return false;
	*ret_from = segment ? (uint64_t)segment * CIS_STASH_SEGMENT : CIS_LOG_UNIT;
	*ret_end = ((uint64_t)segment + 1) * CIS_STASH_SEGMENT;
	return true;
}

/* The lowest are used again first, so it goes downwards; each call a few steps, as there is one for each that becomes empty. */
static void give_back(struct cis_stash *s)
{
	uint64_t keep = cis_log_used(s->log) / CIS_STASH_SEGMENT + SPARE;

	for (unsigned i = 0; i < LOOKS && s->nr_backed > keep; i++) {
		uint32_t segment = s->look = (s->look ? s->look : s->end) - 1;

		if (!s->backed[segment] || segment == s->open || cis_log_segment_live(s->log, segment))
			continue;
		madvise(s->area + (uint64_t)segment * CIS_STASH_SEGMENT, CIS_STASH_SEGMENT, MADV_REMOVE);
		s->backed[segment] = false;
		s->nr_backed--;
	}
}

void cis_stash_free(struct cis_stash *s, uint32_t loc)
{
	uint32_t bytes = cis_value_bytes(cis_stash_at(s, loc));

	pthread_mutex_lock(&s->lock);
	if (cis_log_free(s->log, loc, bytes) != CIS_LOG_NONE || !cis_log_live(s->log))
		give_back(s);
	pthread_mutex_unlock(&s->lock);
}

int cis_stash_claim(struct cis_stash *s, uint32_t loc, uint64_t id)
{
	uint64_t off = cis_log_off(loc);
	const struct cis_value *v = cis_stash_at(s, loc);

	if (!loc || off + sizeof(*v) > s->bytes || cis_value_check(v, id, s->bytes - off) ||
	    !cis_log_claim(s->log, loc, cis_value_bytes(v)))
		return -EBADMSG;
	enqueue(s, segment_of(loc));
	takes_memory(s, segment_of(loc));
	return 0;
}

void cis_stash_limit(struct cis_stash *s, uint64_t limit)
{
	pthread_mutex_lock(&s->lock);
	cis_log_limit(s->log, limit);
	pthread_mutex_unlock(&s->lock);
}

uint64_t cis_stash_used(struct cis_stash *s)
{
	uint64_t used;

	pthread_mutex_lock(&s->lock);
	used = cis_log_used(s->log);
	pthread_mutex_unlock(&s->lock);
	return used;
}

uint64_t cis_stash_live(struct cis_stash *s)
{
	uint64_t live;

	pthread_mutex_lock(&s->lock);
	live = cis_log_live(s->log);
	pthread_mutex_unlock(&s->lock);
	return live;
}
