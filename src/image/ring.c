#include "image/ring.h"

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
struct cis_ring {
	struct cis_ring_opts opts;
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
		struct cis_ring *ring;
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
static void take_one(struct cis_ring *ring, struct cis_encoder *enc)
{
	struct slot *s = &ring->slots[ring->taken++ % ring->nr_slots];

	pthread_mutex_unlock(&ring->lock);
	encode(enc, s);
	pthread_mutex_lock(&ring->lock);
	s->done = true;
}

static void *worker(void *arg)
{
	struct thread *t = arg;
	struct cis_ring *ring = t->ring;

	pthread_mutex_lock(&ring->lock);
	while (!ring->quit) {
		if (ring->taken == ring->filled) {
			pthread_cond_wait(&ring->work, &ring->lock);
			continue;
		}
		take_one(ring, t->enc);
		pthread_cond_signal(&ring->done);
	}
	pthread_mutex_unlock(&ring->lock);
	return NULL;
}

/* The oldest slot is written out; while it is not ready the owner encodes what nobody has taken. */
static int retire(struct cis_ring *ring)
{
	struct slot *s = &ring->slots[ring->written % ring->nr_slots];

	pthread_mutex_lock(&ring->lock);
	while (!s->done) {
		if (ring->taken < ring->filled)
			take_one(ring, ring->encoders[0]);
		else
			pthread_cond_wait(&ring->done, &ring->lock);
	}
	s->done = false;
	pthread_mutex_unlock(&ring->lock);
	ring->written++;
	s->raw_len = 0;
	return ring->opts.sink(ring->opts.ctx, &s->result);
}

static void submit(struct cis_ring *ring, struct slot *s)
{
	s->chunk = ring->filled;
	pthread_mutex_lock(&ring->lock);
	ring->filled++;
	pthread_cond_signal(&ring->work);
	pthread_mutex_unlock(&ring->lock);
}

int cis_ring_append(struct cis_ring *ring, const void *bytes, size_t len)
{
	while (len) {
		if (ring->filled - ring->written == ring->nr_slots) {
			int rc = retire(ring);

			if (rc)
				return rc;
		}
		struct slot *s = &ring->slots[ring->filled % ring->nr_slots];
		size_t room = ring->opts.chunk_bytes - s->raw_len, n = len < room ? len : room;

		memcpy(s->raw + s->raw_len, bytes, n);
		s->raw_len += n;
		if (s->raw_len == ring->opts.chunk_bytes)
			submit(ring, s);
		bytes = (const uint8_t *)bytes + n;
		len -= n;
	}
	return 0;
}

int cis_ring_flush(struct cis_ring *ring)
{
	int rc = 0;

	if (ring->filled - ring->written < ring->nr_slots &&
	    ring->slots[ring->filled % ring->nr_slots].raw_len)
		submit(ring, &ring->slots[ring->filled % ring->nr_slots]);
	while (!rc && ring->written < ring->filled)
		rc = retire(ring);
	return rc;
}

static int create_slots(struct cis_ring *ring)
{
	ring->slots = calloc(ring->nr_slots, sizeof(*ring->slots));
	if (!ring->slots)
		return -ENOMEM;
	for (unsigned i = 0; i < ring->nr_slots; i++) {
		ring->slots[i].raw = aligned_alloc(64, ring->opts.chunk_bytes);
		ring->slots[i].stored = aligned_alloc(64, ring->opts.chunk_bytes);
		if (!ring->slots[i].raw || !ring->slots[i].stored)
			return -ENOMEM;
	}
	return 0;
}

static int create_encoders(struct cis_ring *ring, struct cis_error *err)
{
	const struct cis_ring_opts *o = &ring->opts;
	int rc = 0;

	ring->encoders = calloc(o->workers, sizeof(*ring->encoders));
	if (!ring->encoders)
		return cis_fail(err, ENOMEM, "no memory for encoders");
	for (unsigned i = 0; i < o->workers && !rc; i++)
		rc = cis_encoder_create(o->codec, o->level, o->chunk_bytes, o->params, &ring->encoders[i],
					err);
	return rc;
}

static int start_threads(struct cis_ring *ring, struct cis_error *err)
{
	ring->threads = calloc(ring->opts.workers, sizeof(*ring->threads));
	if (!ring->threads)
		return cis_fail(err, ENOMEM, "no memory for threads");
	for (unsigned i = 1; i < ring->opts.workers; i++) {
		struct thread *t = &ring->threads[ring->nr_threads];

		*t = (struct thread){ .ring = ring, .enc = ring->encoders[i] };
		int rc = pthread_create(&t->id, NULL, worker, t);

		if (rc)
			return cis_fail(err, rc, "starting encoding thread %u: %s", i, strerror(rc));
		ring->nr_threads++;
	}
	return 0;
}

int cis_ring_create(const struct cis_ring_opts *opts, struct cis_ring **ret, struct cis_error *err)
{
	struct cis_ring *ring = calloc(1, sizeof(*ring));
	int rc;

	if (!ring)
		return cis_fail(err, ENOMEM, "no memory for the writer");
	ring->opts = *opts;
	ring->nr_slots = opts->workers > 1 ? SLOTS_PER_WORKER * opts->workers : 1;
	pthread_mutex_init(&ring->lock, NULL);
	pthread_cond_init(&ring->work, NULL);
	pthread_cond_init(&ring->done, NULL);
	rc = create_slots(ring) ? cis_fail(err, ENOMEM, "no memory for chunks") : create_encoders(ring, err);
	if (!rc)
		rc = start_threads(ring, err);
	if (rc)
		cis_ring_destroy(ring);
	else
		*ret = ring;
	return rc;
}

void cis_ring_destroy(struct cis_ring *ring)
{
	if (!ring)
		return;
	pthread_mutex_lock(&ring->lock);
	ring->quit = true;
	pthread_cond_broadcast(&ring->work);
	pthread_mutex_unlock(&ring->lock);
	for (unsigned i = 0; i < ring->nr_threads; i++)
		pthread_join(ring->threads[i].id, NULL);
	for (unsigned i = 0; ring->encoders && i < ring->opts.workers; i++)
		cis_encoder_destroy(ring->encoders[i]);
	for (unsigned i = 0; ring->slots && i < ring->nr_slots; i++) {
		free(ring->slots[i].raw);
		free(ring->slots[i].stored);
	}
	pthread_cond_destroy(&ring->done);
	pthread_cond_destroy(&ring->work);
	pthread_mutex_destroy(&ring->lock);
	free(ring->threads);
	free(ring->encoders);
	free(ring->slots);
	free(ring);
}
