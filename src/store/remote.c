#include "store/remote.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/layer.h"

#define REAPS	       4 /* events at once: each may bring some pages, which are installed from done */
#define BACKOFF_MIN_NS 10000000ull
#define BACKOFF_MAX_NS 1000000000ull

static struct cis_remote *remote_of(struct cis_store *store)
{
	return (struct cis_remote *)store;
}

static struct timespec spec_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

int cis_remote_init(struct cis_remote *r, const struct cis_store_ops *ops, const struct cis_remote_kind *kind)
{
	struct epoll_event ev = { .events = EPOLLIN };

	r->store.ops = ops;
	r->kind = kind;
	r->alarm_ns = r->end_ns = UINT64_MAX;
	TAILQ_INIT(&r->all);
	TAILQ_INIT(&r->finished);
	r->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	r->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (r->timer < 0 || r->epoll < 0 || epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->timer, &ev))
		return -errno;
	return 0;
}

void cis_remote_fini(struct cis_remote *r)
{
	if (r->timer >= 0)
		close(r->timer);
	if (r->epoll >= 0)
		close(r->epoll);
}

uint64_t cis_remote_backoff(unsigned failures)
{
	uint64_t delay = failures < 7 ? BACKOFF_MIN_NS << failures : BACKOFF_MAX_NS;

	if (delay > BACKOFF_MAX_NS)
		delay = BACKOFF_MAX_NS;
	return delay / 2 + cis_layer_random(cis_now_ns(NULL)) % (delay / 2);
}

/* Requests. */

void cis_remote_place(struct cis_remote *r, struct cis_remote_item *item, struct cis_remote_items *list)
{
	r->kind->let_go(item);
	if (item->in)
		TAILQ_REMOVE(item->in, item, at);
	item->in = list;
	if (list)
		TAILQ_INSERT_TAIL(list, item, at);
}

void cis_remote_finish(struct cis_remote *r, struct cis_remote_item *item, int err)
{
	item->err = err;
	cis_remote_place(r, item, &r->finished);
	TAILQ_REMOVE(&r->all, item, all);
}

void cis_remote_finish_all(struct cis_remote *r, struct cis_remote_items *items, int err)
{
	while (!TAILQ_EMPTY(items))
		cis_remote_finish(r, TAILQ_FIRST(items), err);
}

static int check(const struct cis_store_req *req)
{
	if (req->op != CIS_STORE_PUT)
		return 0;
	return !req->len ? -EINVAL : req->len > CIS_VALUE_MAX ? -EMSGSIZE : 0;
}

/* Without a brace, which would mean something to a cluster of Valkey. */
static void name_key(struct cis_remote_item *item, const struct cis_key *key)
{
	item->key_len = (unsigned)snprintf(item->key, sizeof(item->key), "cis:%016" PRIx64 "%016" PRIx64 ":%" PRIx64, key->ns[0],
					   key->ns[1], key->id);
}

static void add(struct cis_remote *r, struct cis_store_req *req)
{
	int rc = check(req);
	struct cis_remote_item *item = rc ? NULL : calloc(1, r->kind->item_bytes);

	if (!item) {
		req->done(req, rc ? rc : -ENOMEM);
		return;
	}
	req->loc = 0;
	item->req = req;
	item->end_ns = req->deadline_ns ? req->deadline_ns : cis_now_ns(NULL) + CIS_REMOTE_LAST_NS;
	if (item->end_ns < r->end_ns)
		r->end_ns = item->end_ns;
	name_key(item, &req->key);
	TAILQ_INSERT_TAIL(&r->all, item, all);
	r->kind->queue(r, item);
}

static void expire(struct cis_remote *r, uint64_t now)
{
	struct cis_remote_item *item, *next;

	if (now < r->end_ns)
		return;
	r->end_ns = UINT64_MAX;
	for (item = TAILQ_FIRST(&r->all); item; item = next) {
		next = TAILQ_NEXT(item, all);
		if (item->end_ns <= now)
			cis_remote_finish(r, item, item->req->deadline_ns ? -ETIMEDOUT : -EIO);
		else if (item->end_ns < r->end_ns)
			r->end_ns = item->end_ns;
	}
}

static void deliver(struct cis_remote *r)
{
	struct cis_remote_item *item;

	if (r->delivering)
		return; /* done has submitted or cancelled something */
	r->delivering = true;
	while ((item = TAILQ_FIRST(&r->finished))) {
		struct cis_store_req *req = item->req;
		int err = item->err;

		TAILQ_REMOVE(&r->finished, item, at);
		free(item);
		r->nr_done++;
		req->done(req, err);
	}
	r->delivering = false;
}

/* One that is set too early costs a look at everything, and seldom; setting it for each request would cost each a call. */
static void arm(struct cis_remote *r, uint64_t at)
{
	struct itimerspec spec = { .it_value = spec_of(at) };

	if (at >= r->alarm_ns)
		return;
	r->alarm_ns = at;
	spec.it_value.tv_nsec += !at; /* 0 would disarm it */
	timerfd_settime(r->timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

void cis_remote_pump(struct cis_remote *r)
{
	uint64_t now = cis_now_ns(NULL), at;

	expire(r, now);
	at = r->kind->drive(r, now);
	arm(r, at < r->end_ns ? at : r->end_ns);
	deliver(r);
}

/* What a store does. */

void cis_remote_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		add(remote_of(store), reqs[i]);
	cis_remote_pump(remote_of(store));
}

int cis_remote_fd(struct cis_store *store)
{
	return remote_of(store)->epoll;
}

void cis_remote_reap(struct cis_store *store)
{
	struct cis_remote *r = remote_of(store);
	struct epoll_event ev[REAPS];
	uint64_t ticks;
	int n = epoll_wait(r->epoll, ev, REAPS, 0);

	for (int i = 0; i < n; i++) {
		if (ev[i].data.ptr)
			r->kind->event(r, ev[i].data.ptr, ev[i].events);
		else if (read(r->timer, &ticks, sizeof(ticks)) > 0)
			r->alarm_ns = UINT64_MAX;
	}
	cis_remote_pump(r);
}

void cis_remote_wait(struct cis_store *store, uint64_t deadline_ns)
{
	struct cis_remote *r = remote_of(store);
	struct pollfd p = { .fd = r->epoll, .events = POLLIN };
	uint64_t before = r->nr_done, now = 0;

	while (!TAILQ_EMPTY(&r->all) && r->nr_done == before) {
		struct timespec ts;

		if (deadline_ns) {
			now = cis_now_ns(NULL);
			ts = spec_of(deadline_ns > now ? deadline_ns - now : 0);
		}
		ppoll(&p, 1, deadline_ns ? &ts : NULL, NULL);
		cis_remote_reap(store);
		if (deadline_ns && now >= deadline_ns)
			return;
	}
}

void cis_remote_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct cis_remote *r = remote_of(store);
	struct cis_remote_item *item;

	TAILQ_FOREACH(item, &r->all, all)
		if (item->req == req) {
			cis_remote_finish(r, item, -ECANCELED);
			break;
		}
	deliver(r);
}
