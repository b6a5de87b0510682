/* The wrapper throttle: a medium of a given rate before any store; for benchmarks and for trying policies. */
#include "store/store.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

struct held {
	struct cis_store_req *req;
	uint64_t due_ns;
	int err;
	int have; /* the inner store is done */
	struct cis_store_req inner;
	struct throttle *owner;
	struct held *next;
};

struct throttle {
	struct cis_store store;
	struct cis_store *inner;
	uint64_t bytes_per_sec;
	uint64_t free_ns; /* when the medium has sent all that was asked of it so far */
	int timer;
	struct held *first, **end; /* in order of due time */
};

static struct throttle *throttle_of(struct cis_store *store)
{
	return (struct throttle *)store;
}

static void arm(struct throttle *t)
{
	struct itimerspec spec = { 0 };

	if (t->first) {
		spec.it_value.tv_sec = (time_t)(t->first->due_ns / 1000000000u);
		spec.it_value.tv_nsec = (long)(t->first->due_ns % 1000000000u);
	}
	timerfd_settime(t->timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void inner_done(struct cis_store_req *req, int err)
{
	struct held *h = req->ctx;

	h->have = 1;
	h->err = err;
}

static void throttle_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct throttle *t = throttle_of(store);

	for (size_t i = 0; i < n; i++) {
		struct held *h = calloc(1, sizeof(*h));
		struct cis_store_req *inner;
		uint64_t now = cis_now_ns(NULL);

		if (!h) {
			reqs[i]->done(reqs[i], -ENOMEM);
			continue;
		}
		if (t->free_ns < now)
			t->free_ns = now;
		t->free_ns += (uint64_t)((double)reqs[i]->len * 1e9 / (double)t->bytes_per_sec);
		*h = (struct held){ .req = reqs[i], .due_ns = t->free_ns, .owner = t, .inner = *reqs[i] };
		h->inner.done = inner_done;
		h->inner.ctx = h;
		*t->end = h;
		t->end = &h->next;
		inner = &h->inner;
		cis_store_submit(t->inner, &inner, 1);
	}
	arm(t);
}

static void throttle_reap(struct cis_store *store)
{
	struct throttle *t = throttle_of(store);
	uint64_t ticks;

	if (read(t->timer, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
		return;
	cis_store_reap(t->inner);
	while (t->first && t->first->have && t->first->due_ns <= cis_now_ns(NULL)) {
		struct held *h = t->first;

		t->first = h->next;
		if (!t->first)
			t->end = &t->first;
		h->req->done(h->req, h->err);
		free(h);
	}
	arm(t);
}

static void throttle_wait(struct cis_store *store, uint64_t deadline_ns)
{
	struct throttle *t = throttle_of(store);

	while (t->first && !t->first->have)
		cis_store_wait(t->inner, deadline_ns);
	if (t->first) {
		uint64_t until = t->first->due_ns, now = cis_now_ns(NULL);

		if (deadline_ns && deadline_ns < until)
			until = deadline_ns;
		if (until > now) {
			struct pollfd p = { .fd = t->timer, .events = POLLIN };
			struct timespec ts = { (time_t)((until - now) / 1000000000u), (long)((until - now) % 1000000000u) };

			ppoll(&p, 1, &ts, NULL);
		}
	}
	throttle_reap(store);
}

static void throttle_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct throttle *t = throttle_of(store);

	for (struct held *h = t->first; h; h = h->next)
		if (h->req == req) {
			h->due_ns = 0;
			if (!h->have)
				cis_store_cancel(t->inner, &h->inner);
		}
	arm(t);
}

static int throttle_fd(struct cis_store *store)
{
	return throttle_of(store)->timer;
}

static void throttle_close(struct cis_store *store)
{
	struct throttle *t = throttle_of(store);

	cis_store_close(t->inner);
	close(t->timer);
	free(t);
}

static const struct cis_store_ops throttle_ops = {
	.ops_size = sizeof(struct cis_store_ops),
	.name = "throttle",
	.submit = throttle_submit,
	.fd = throttle_fd,
	.reap = throttle_reap,
	.wait = throttle_wait,
	.cancel = throttle_cancel,
	.close = throttle_close,
};

int cis_store_throttle_open(struct cis_store *inner, uint64_t bytes_per_sec, struct cis_store **ret,
			    struct cis_error *err)
{
	struct throttle *t = calloc(1, sizeof(*t));

	if (!t || !bytes_per_sec) {
		cis_store_close(inner);
		free(t);
		return t ? cis_fail(err, EINVAL, "store throttle: a rate of 0 bytes/s never ends")
			 : cis_fail(err, ENOMEM, "store throttle: out of memory");
	}
	t->store.ops = &throttle_ops;
	t->inner = inner;
	t->bytes_per_sec = bytes_per_sec;
	t->end = &t->first;
	t->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (t->timer < 0) {
		int rc = cis_fail(err, errno, "store throttle: timerfd: %s", strerror(errno));

		cis_store_close(inner);
		free(t);
		return rc;
	}
	*ret = &t->store;
	return 0;
}
