#include "image/pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_PER_WORKER 4 /* so that nobody waits while the owner reads the next megabyte */

struct slot {
	uint8_t *raw, *stored;
	size_t raw_len;
	uint64_t chunk;
	struct cis_stored_chunk result;
	bool done; /* under the lock */
};

/*
 * Slots are used round and round; the counters only grow:
 * written <= taken <= filled <= written + nr_slots.
 */
struct cis_pipeline {
	struct cis_pipeline_opts opts;
	struct cis_encoder **encoders; /* one a worker; the owner's is the first */
	struct slot *slots;
	unsigned nr_slots;
	uint64_t filled, written; /* filled is read by workers under the lock */
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	uint64_t taken;
	bool quit;
	unsigned nr_threads;
	struct thread {
		struct cis_pipeline *line;
		struct cis_encoder *enc;
		pthread_t id;
	} *threads;
};

static void encode(struct cis_encoder *enc, struct slot *s)
{
	s->result.len = cis_encode(enc, s->raw, s->raw_len, s->stored, &s->result.codec);
	s->result.bytes = s->stored;
	s->result.checksum = cis_chunk_checksum(s->chunk, s->raw, s->raw_len);
}

/* Called with the lock held and a slot to take; returns with the lock held. */
static void take_one(struct cis_pipeline *line, struct cis_encoder *enc)
{
	struct slot *s = &line->slots[line->taken++ % line->nr_slots];

	pthread_mutex_unlock(&line->lock);
	encode(enc, s);
	pthread_mutex_lock(&line->lock);
	s->done = true;
}

static void *worker(void *arg)
{
	struct thread *t = arg;
	struct cis_pipeline *line = t->line;

	pthread_mutex_lock(&line->lock);
	while (!line->quit) {
		if (line->taken == line->filled) {
			pthread_cond_wait(&line->work, &line->lock);
			continue;
		}
		take_one(line, t->enc);
		pthread_cond_signal(&line->done);
	}
	pthread_mutex_unlock(&line->lock);
	return NULL;
}

/* The oldest slot is written out; while it is not ready the owner encodes what nobody has taken. */
static int retire(struct cis_pipeline *line)
{
	struct slot *s = &line->slots[line->written % line->nr_slots];

	pthread_mutex_lock(&line->lock);
	while (!s->done) {
		if (line->taken < line->filled)
			take_one(line, line->encoders[0]);
		else
			pthread_cond_wait(&line->done, &line->lock);
	}
	s->done = false;
	pthread_mutex_unlock(&line->lock);
	line->written++;
	s->raw_len = 0;
	return line->opts.sink(line->opts.ctx, &s->result);
}

static void submit(struct cis_pipeline *line, struct slot *s)
{
	s->chunk = line->filled;
	pthread_mutex_lock(&line->lock);
	line->filled++;
	pthread_cond_signal(&line->work);
	pthread_mutex_unlock(&line->lock);
}

int cis_pipeline_append(struct cis_pipeline *line, const void *bytes, size_t len)
{
	while (len) {
		if (line->filled - line->written == line->nr_slots) {
			int rc = retire(line);

			if (rc)
				return rc;
		}
		struct slot *s = &line->slots[line->filled % line->nr_slots];
		size_t room = line->opts.chunk_bytes - s->raw_len, n = len < room ? len : room;

		memcpy(s->raw + s->raw_len, bytes, n);
		s->raw_len += n;
		if (s->raw_len == line->opts.chunk_bytes)
			submit(line, s);
		bytes = (const uint8_t *)bytes + n;
		len -= n;
	}
	return 0;
}

int cis_pipeline_flush(struct cis_pipeline *line)
{
	int rc = 0;

	if (line->filled - line->written < line->nr_slots &&
	    line->slots[line->filled % line->nr_slots].raw_len)
		submit(line, &line->slots[line->filled % line->nr_slots]);
	while (!rc && line->written < line->filled)
		rc = retire(line);
	return rc;
}

static int create_slots(struct cis_pipeline *line)
{
	line->slots = calloc(line->nr_slots, sizeof(*line->slots));
	if (!line->slots)
		return -ENOMEM;
	for (unsigned i = 0; i < line->nr_slots; i++) {
		line->slots[i].raw = aligned_alloc(64, line->opts.chunk_bytes);
		line->slots[i].stored = aligned_alloc(64, line->opts.chunk_bytes);
		if (!line->slots[i].raw || !line->slots[i].stored)
			return -ENOMEM;
	}
	return 0;
}

static int create_encoders(struct cis_pipeline *line, struct cis_error *err)
{
	const struct cis_pipeline_opts *o = &line->opts;
	int rc = 0;

	line->encoders = calloc(o->workers, sizeof(*line->encoders));
	if (!line->encoders)
		return cis_fail(err, ENOMEM, "no memory for encoders");
	for (unsigned i = 0; i < o->workers && !rc; i++)
		rc = cis_encoder_create(o->codec, o->level, o->chunk_bytes, o->params, &line->encoders[i],
					err);
	return rc;
}

static int start_threads(struct cis_pipeline *line, struct cis_error *err)
{
	line->threads = calloc(line->opts.workers, sizeof(*line->threads));
	if (!line->threads)
		return cis_fail(err, ENOMEM, "no memory for threads");
	for (unsigned i = 1; i < line->opts.workers; i++) {
		struct thread *t = &line->threads[line->nr_threads];

		*t = (struct thread){ .line = line, .enc = line->encoders[i] };
		int rc = pthread_create(&t->id, NULL, worker, t);

		if (rc)
			return cis_fail(err, rc, "starting encoding thread %u: %s", i, strerror(rc));
		line->nr_threads++;
	}
	return 0;
}

int cis_pipeline_create(const struct cis_pipeline_opts *opts, struct cis_pipeline **ret,
			struct cis_error *err)
{
	struct cis_pipeline *line = calloc(1, sizeof(*line));
	int rc;

	if (!line)
		return cis_fail(err, ENOMEM, "no memory for the writer");
	line->opts = *opts;
	line->nr_slots = opts->workers > 1 ? SLOTS_PER_WORKER * opts->workers : 1;
	pthread_mutex_init(&line->lock, NULL);
	pthread_cond_init(&line->work, NULL);
	pthread_cond_init(&line->done, NULL);
	rc = create_slots(line) ? cis_fail(err, ENOMEM, "no memory for chunks") : create_encoders(line, err);
	if (!rc)
		rc = start_threads(line, err);
	if (rc)
		cis_pipeline_destroy(line);
	else
		*ret = line;
	return rc;
}

void cis_pipeline_destroy(struct cis_pipeline *line)
{
	if (!line)
		return;
	pthread_mutex_lock(&line->lock);
	line->quit = true;
	pthread_cond_broadcast(&line->work);
	pthread_mutex_unlock(&line->lock);
	for (unsigned i = 0; i < line->nr_threads; i++)
		pthread_join(line->threads[i].id, NULL);
	for (unsigned i = 0; line->encoders && i < line->opts.workers; i++)
		cis_encoder_destroy(line->encoders[i]);
	for (unsigned i = 0; line->slots && i < line->nr_slots; i++) {
		free(line->slots[i].raw);
		free(line->slots[i].stored);
	}
	pthread_cond_destroy(&line->done);
	pthread_cond_destroy(&line->work);
	pthread_mutex_destroy(&line->lock);
	free(line->threads);
	free(line->encoders);
	free(line->slots);
	free(line);
}
