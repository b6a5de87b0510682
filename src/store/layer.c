#include "store/layer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"

static struct cis_layer *layer_of(struct cis_store *store)
{
	return (struct cis_layer *)store;
}

static void hold(struct cis_layer *l, struct cis_held *h)
{
	h->prev = l->last;
	*(l->last ? &l->last->next : &l->first) = h;
	l->last = h;
}

/* Done may submit or cancel others, so nothing of the list is kept across it. */
static void finish(struct cis_held *h, int err)
{
	struct cis_layer *l = h->layer;
	struct cis_store_req *req = h->req;

	*(h->prev ? &h->prev->next : &l->first) = h->next;
	*(h->next ? &h->next->prev : &l->last) = h->prev;
	l->finished++;
	free(h);
	req->done(req, err);
}

/* When something is to be done about it without the store below: its answer is due, or its deadline has come. */
static uint64_t ripe_ns(const struct cis_held *h)
{
	uint64_t due = h->have ? h->due_ns : UINT64_MAX, deadline = h->req->deadline_ns;

	if (h->given_up)
		return UINT64_MAX; /* the store below comes back by itself */
	return deadline && deadline < due ? deadline : due;
}

static struct cis_held *ripest(const struct cis_layer *l)
{
	struct cis_held *best = NULL;

	for (struct cis_held *h = l->first; h; h = h->next)
		if (ripe_ns(h) != UINT64_MAX && (!best || ripe_ns(h) < ripe_ns(best)))
			best = h;
	return best;
}

static void arm(struct cis_layer *l)
{
	const struct cis_held *h = ripest(l);
	uint64_t at = h ? ripe_ns(h) : 0;
	struct itimerspec spec = { 0 };

	if (h && !at)
		at = 1; /* 0 would disarm it */
	if (at == l->armed_ns)
		return;
	spec.it_value.tv_sec = (time_t)(at / 1000000000u);
	spec.it_value.tv_nsec = (long)(at % 1000000000u);
	timerfd_settime(l->timer, TFD_TIMER_ABSTIME, &spec, NULL);
	l->armed_ns = at;
}

static void give_up(struct cis_held *h, int why)
{
	if (!h->below) {
		finish(h, why);
		return;
	}
	h->given_up = why;
	cis_store_cancel(h->layer->inner, &h->inner);
}

static void inner_done(struct cis_store_req *inner, int err)
{
	struct cis_held *h = inner->ctx;
	struct cis_layer *l = h->layer;
	uint64_t now;

	h->below = false;
	h->req->loc = inner->loc;
	h->req->got = inner->got;
	if (h->given_up) {
		finish(h, h->given_up);
		return;
	}
	h->have = true;
	h->err = err;
	now = cis_now_ns(NULL);
	if (l->ops->leave)
		l->ops->leave(l, h, now);
	if (h->due_ns <= now)
		finish(h, h->err);
}

static void submit_one(struct cis_layer *l, struct cis_store_req *req)
{
	struct cis_held *h = calloc(1, sizeof(*h));
	struct cis_store_req *inner;

	if (!h) {
		req->done(req, -ENOMEM);
		return;
	}
	h->req = req;
	h->layer = l;
	h->inner = *req;
	h->inner.done = inner_done;
	h->inner.ctx = h;
	hold(l, h);
	inner = &h->inner;
	if (l->ops->enter(l, h)) {
		h->below = true;
		cis_store_submit(l->inner, &inner, 1);
		return;
	}
	h->have = h->due_ns != CIS_HELD_FOREVER;
	if (h->have && h->due_ns <= cis_now_ns(NULL))
		finish(h, h->err);
}

static void layer_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct cis_layer *l = layer_of(store);

	for (size_t i = 0; i < n; i++)
		submit_one(l, reqs[i]);
	arm(l);
}

static void layer_reap(struct cis_store *store)
{
	struct cis_layer *l = layer_of(store);
	struct cis_held *h;
	uint64_t ticks;

	if (read(l->timer, &ticks, sizeof(ticks)) > 0)
		l->armed_ns = 0;
	cis_store_reap(l->inner);
	for (h = ripest(l); h; h = ripest(l)) {
		uint64_t now = cis_now_ns(NULL);

		if (ripe_ns(h) > now)
			break;
		if (h->have && h->due_ns <= now)
			finish(h, h->err);
		else
			give_up(h, -ETIMEDOUT);
	}
	arm(l);
}

static void layer_wait(struct cis_store *store, uint64_t deadline_ns)
{
	struct cis_layer *l = layer_of(store);
	struct pollfd p = { .fd = l->epoll, .events = POLLIN };
	uint64_t before = l->finished, now = 0;

	while (l->first && l->finished == before) {
		struct timespec ts;

		if (deadline_ns) {
			now = cis_now_ns(NULL);
			ts.tv_sec = (time_t)(deadline_ns > now ? (deadline_ns - now) / 1000000000u : 0);
			ts.tv_nsec = (long)(deadline_ns > now ? (deadline_ns - now) % 1000000000u : 0);
		}
		ppoll(&p, 1, deadline_ns ? &ts : NULL, NULL);
		layer_reap(store);
		if (deadline_ns && now >= deadline_ns)
			return;
	}
}

static void layer_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct cis_layer *l = layer_of(store);

	for (struct cis_held *h = l->first; h; h = h->next)
		if (h->req == req) {
			if (!h->given_up)
				give_up(h, -ECANCELED);
			break;
		}
	arm(l);
}

static int layer_fd(struct cis_store *store)
{
	return layer_of(store)->epoll;
}

static void layer_close(struct cis_store *store)
{
	struct cis_layer *l = layer_of(store);

	cis_store_close(l->inner);
	if (l->ops->fini)
		l->ops->fini(l);
	if (l->timer >= 0)
		close(l->timer);
	if (l->owns_epoll && l->epoll >= 0)
		close(l->epoll);
	free(l->mine);
	free(l);
}

static int layer_claim(struct cis_store *store, const struct cis_key *key, uint32_t loc)
{
	return cis_store_claim(layer_of(store)->inner, key, loc);
}

static void layer_drop(struct cis_store *store, const uint64_t ns[2])
{
	struct cis_store *inner = layer_of(store)->inner;

	inner->ops->drop(inner, ns);
}

static const struct cis_store_ops layer_ops = {
	.ops_size = sizeof(struct cis_store_ops),
	.name = "layer",
	.submit = layer_submit,
	.fd = layer_fd,
	.reap = layer_reap,
	.wait = layer_wait,
	.cancel = layer_cancel,
	.close = layer_close,
	.claim = layer_claim,
	.drop = layer_drop,
};

static int watch(struct cis_layer *l, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN };

	return fd < 0 ? 0 : epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev);
}

int cis_layer_open(const struct cis_layer_ops *ops, const char *name, void *ctx, struct cis_store *inner,
		   struct cis_store **ret, struct cis_error *err)
{
	struct cis_layer *l = calloc(1, sizeof(*l));
	int rc;

	if (!l) {
		cis_store_close(inner);
		return cis_fail(err, ENOMEM, "store %s: out of memory", name);
	}
	l->store_ops = layer_ops;
	if (!inner->ops->drop)
		l->store_ops.drop = NULL;
	l->store_ops.drops = inner->ops->drops;
	l->store.ops = &l->store_ops;
	l->ops = ops;
	l->ctx = ctx;
	l->inner = inner;
	l->owns_epoll = inner->ops->submit != layer_submit;
	l->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (l->timer < 0)
		l->epoll = -1;
	else
		l->epoll = l->owns_epoll ? epoll_create1(EPOLL_CLOEXEC) : layer_of(inner)->epoll;
	if (l->epoll < 0 || watch(l, l->timer) || (l->owns_epoll && watch(l, cis_store_fd(inner)))) {
		rc = cis_fail(err, errno, "store %s: timer: %s", name, strerror(errno));
		cis_store_close(&l->store);
		return rc;
	}
	*ret = &l->store;
	return 0;
}
