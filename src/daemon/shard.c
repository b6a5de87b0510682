#include "daemon/shard_int.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "daemon/awake.h"

#define EVENTS	    64

static int watch(struct cis_shard *shard, int fd, void *ptr)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = ptr };

	return epoll_ctl(shard->epoll, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static int watch_store(struct cis_stores *stores, int fd)
{
	struct cis_shard *shard = (struct cis_shard *)((char *)stores - offsetof(struct cis_shard, stores));

	return watch(shard, fd, stores);
}

static int watch_page_store(struct cis_page_stores *stores, int fd)
{
	struct cis_shard *shard = (struct cis_shard *)((char *)stores - offsetof(struct cis_shard, page_stores));

	return watch(shard, fd, stores);
}

static void serve_round(struct cis_shard *shard)
{
	struct cis_turn *turn;

	cis_turns_round(&shard->turns);
	while ((turn = cis_turns_next(&shard->turns)))
		cis_seat_serve((struct cis_seat *)turn);
}

static void ready_due(struct cis_shard *shard)
{
	struct cis_seat *seat = shard->timed, *next;
	uint64_t now;

	if (!seat)
		return;
	now = cis_now_ns(NULL);
	for (; seat; seat = next) {
		next = seat->next_timed;
		if (cis_seat_deadline(seat) > now)
			continue;
		cis_seat_due(seat, now);
	}
}

/* How long to wait, or NULL for ever. */
static const struct timespec *timeout_of(const struct cis_shard *shard, struct timespec *ts)
{
	uint64_t at = cis_turns_any(&shard->turns) ? 0 : UINT64_MAX, now;

	for (const struct cis_seat *seat = shard->timed; seat && at; seat = seat->next_timed)
		if (cis_seat_deadline(seat) < at)
			at = cis_seat_deadline(seat);
	if (at == UINT64_MAX)
		return NULL;
	now = at ? cis_now_ns(NULL) : 0;
	at = at > now ? at - now : 0;
	ts->tv_sec = (time_t)(at / 1000000000u);
	ts->tv_nsec = (long)(at % 1000000000u);
	return ts;
}

static void reap_stores(struct cis_shard *shard)
{
	for (size_t i = 0; i < shard->stores.nr; i++)
		cis_store_reap(shard->stores.entry[i].store);
}

static void *shard_main(void *arg)
{
	struct cis_shard *shard = arg;
	struct epoll_event ev[EVENTS];

	while (!shard->stop) {
		struct timespec ts;
		int n = epoll_pwait2(shard->epoll, ev, EVENTS, timeout_of(shard, &ts), NULL);
		bool mail = false;

		for (int i = 0; i < n; i++) {
			if (ev[i].data.ptr == &shard->box)
				mail = true;
			else if (ev[i].data.ptr == &shard->stores)
				reap_stores(shard);
			else if (ev[i].data.ptr == &shard->page_stores)
				cis_page_stores_reap(&shard->page_stores);
			else if (ev[i].data.ptr)
				cis_seat_event(ev[i].data.ptr, ev[i].events);
		}
		ready_due(shard);
		if (mail)
			cis_mailbox_run(&shard->box); /* a seat that leaves is taken off the list */
		serve_round(shard);
	}
	return NULL;
}

int cis_shard_create(unsigned nr, struct cis_workers *workers, struct cis_mailbox *control,
		     struct cis_awake *awake, struct cis_shard **ret)
{
	struct cis_shard *shard = calloc(1, sizeof(*shard));
	char name[16];
	int rc;

	if (!shard)
		return -ENOMEM;
	shard->workers = workers;
	shard->control = control;
	shard->awake = awake;
	shard->stores.watch = watch_store;
	shard->page_stores.watch = watch_page_store;
	cis_turns_init(&shard->turns, cis_now_ns, NULL);
	rc = cis_scratch_create(&shard->scratch);
	if (rc)
		goto fail;
	rc = cis_mailbox_init(&shard->box);
	if (rc)
		goto fail_scratch;
	shard->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (shard->epoll < 0) {
		rc = -errno;
		goto fail_box;
	}
	rc = watch(shard, shard->box.event, &shard->box);
	if (!rc)
		rc = -pthread_create(&shard->thread, NULL, shard_main, shard);
	if (rc)
		goto fail_epoll;
	snprintf(name, sizeof(name), "cis-shard-%u", nr);
	pthread_setname_np(shard->thread, name);
	*ret = shard;
	return 0;
fail_epoll:
	close(shard->epoll);
fail_box:
	cis_mailbox_fini(&shard->box);
fail_scratch:
	cis_scratch_destroy(shard->scratch);
fail:
	free(shard);
	return rc;
}

static void stop(void *arg)
{
	((struct cis_shard *)arg)->stop = true;
}

void cis_shard_destroy(struct cis_shard *shard)
{
	if (!shard)
		return;
	assert(!atomic_load(&shard->seats));
	cis_mailbox_post(&shard->box, stop, shard);
	pthread_join(shard->thread, NULL);
	cis_stores_fini(&shard->stores);
	close(shard->epoll);
	cis_mailbox_fini(&shard->box);
	cis_scratch_destroy(shard->scratch);
	free(shard);
}

struct forget {
	struct cis_shard *shard;
	const struct cis_image *img;
	const struct cis_layers *layers;
};

static void forget(void *arg)
{
	struct forget *f = arg;

	cis_stores_drop(&f->shard->stores, f->img, f->layers);
}

void cis_shard_forget(struct cis_shard *shard, const struct cis_image *img, const struct cis_layers *layers)
{
	struct forget f = { shard, img, layers };

	cis_mailbox_call(&shard->box, forget, &f);
}

unsigned cis_shard_seats(const struct cis_shard *shard)
{
	return atomic_load(&shard->seats);
}
