/*
 * The store file: one read-only file.
 *
 * A get first asks the page cache without waiting (RWF_NOWAIT), which is what a warm image needs and costs one system
 * call.  The rest goes to an io_uring: requests that are aligned as the disk wants them past the page cache, since large
 * direct reads reach three times the rate of buffered ones (limits.md), others through it.  Where the kernel gives no
 * io_uring, reads block.
 *
 * A deadline is kept by one timer in the ring, set to the earliest; a read past its own is cancelled.  The kernel lets go of
 * a read from a disk only when the disk answers, and done cannot come before that: the buffer is still being written to.
 */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"

#define DEPTH 64u
#define RING  (DEPTH * 2) /* room for a cancel of each */
#define ALIGN 4096u
#define REAPS 2u /* at once: each is decoded and installed from done, while others of the thread wait */

/* cis_store_req.flags */
#define BUFFERED 1u /* the direct read was refused: through the page cache */
#define TIMED	 2u
#define CANCELED 4u

struct file {
	struct cis_store store;
	int fd;	    /* through the page cache */
	int direct; /* past it, or -1 where the file system cannot */
	int event;  /* eventfd: the ring has completions */
	int has_ring; /* made at the first read that needs it: most images are warm; -1: the kernel gives none */
	struct io_uring ring;
	unsigned in_ring;   /* reads */
	unsigned in_kernel; /* of these */
	bool is_read[RING]; /* by number of the entry, which counts from 0 */
	unsigned pushed, sent;
	uint64_t alarm_ns; /* when the timer is set to; 0: not set */
	struct __kernel_timespec alarm;
	struct cis_store_req *live;		  /* in the ring, by next */
	struct cis_store_req *queue, **queue_end; /* waiting for room in the ring, in order */
};

static struct file *file_of(struct cis_store *store)
{
	return (struct file *)store;
}

static struct io_uring_sqe *entry(struct file *f, bool is_read)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&f->ring);

	if (sqe)
		f->is_read[f->pushed++ % RING] = is_read;
	return sqe;
}

static void ring_push(struct file *f, struct cis_store_req *req)
{
	struct io_uring_sqe *sqe = entry(f, true); /* there is one: fill_ring() has looked */
	uint64_t off = req->off + req->progress;
	char *buf = (char *)req->buf + req->progress;
	uint32_t len = req->len - req->progress;
	int direct = f->direct >= 0 && !(req->flags & BUFFERED) && !((off | len | (uintptr_t)buf) % ALIGN);

	io_uring_prep_read(sqe, direct ? f->direct : f->fd, buf, len, off);
	io_uring_sqe_set_data(sqe, req);
	req->next = f->live;
	f->live = req;
	f->in_ring++;
}

static void queue_push(struct file *f, struct cis_store_req *req)
{
	req->next = NULL;
	*f->queue_end = req;
	f->queue_end = &req->next;
}

static struct cis_store_req *queue_pop(struct file *f)
{
	struct cis_store_req *req = f->queue;

	f->queue = req->next;
	if (!f->queue)
		f->queue_end = &f->queue;
	return req;
}

static void ring_make(struct file *f)
{
	f->has_ring = -1;
	f->pushed = f->sent = 0;
	f->alarm_ns = 0;
	if (io_uring_queue_init(RING, &f->ring, 0))
		return;
	if (io_uring_register_eventfd(&f->ring, f->event)) {
		io_uring_queue_exit(&f->ring);
		return;
	}
	f->has_ring = 1;
}

/*
 * The kernel may refuse entries for want of memory, and what it has not taken never completes.  Return: false when it has taken no
 * read, so that nothing would ever come back here.
 */
static bool ring_submit(struct file *f)
{
	int n = io_uring_submit(&f->ring);

	for (; n > 0; n--)
		f->in_kernel += f->is_read[f->sent++ % RING];
	return f->in_kernel || !f->in_ring;
}

/* Another one is made when the next read needs it. */
static void ring_give_up(struct file *f)
{
	io_uring_queue_exit(&f->ring);
	f->has_ring = 0;
	while (f->live) {
		struct cis_store_req *req = f->live;

		f->live = req->next;
		queue_push(f, req);
	}
	f->in_ring = 0;
}

static int stopped(const struct cis_store_req *req)
{
	return req->flags & TIMED ? -ETIMEDOUT : req->flags & CANCELED ? -ECANCELED : 0;
}

/* Without a ring the read is done here and now, which holds up the caller's thread for its time. */
static void read_blocking(struct file *f, struct cis_store_req *req)
{
	while (!stopped(req) && req->progress < req->len) {
		ssize_t n = pread(f->fd, (char *)req->buf + req->progress, req->len - req->progress,
				  (off_t)(req->off + req->progress));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			req->done(req, n ? -errno : -ENODATA);
			return;
		}
		req->progress += (uint32_t)n;
	}
	req->done(req, stopped(req));
}

static uint64_t earliest(const struct cis_store_req *req, uint64_t at)
{
	for (; req; req = req->next)
		if (req->deadline_ns && !stopped(req) && req->deadline_ns < at)
			at = req->deadline_ns;
	return at;
}

static void set_alarm(struct file *f)
{
	uint64_t at = earliest(f->live, earliest(f->queue, UINT64_MAX));
	struct io_uring_sqe *sqe;

	if (at == UINT64_MAX || (f->alarm_ns && f->alarm_ns <= at))
		return;
	sqe = entry(f, false);
	if (!sqe)
		return; /* with the next submission */
	f->alarm.tv_sec = (long long)(at / 1000000000u);
	f->alarm.tv_nsec = (long long)(at % 1000000000u);
	io_uring_prep_timeout(sqe, &f->alarm, 0, IORING_TIMEOUT_ABS);
	io_uring_sqe_set_data(sqe, f);
	f->alarm_ns = at;
}

static void fill_ring(struct file *f)
{
	while (f->queue && f->in_ring < DEPTH && io_uring_sq_space_left(&f->ring))
		ring_push(f, queue_pop(f));
}

/* Whatever is to be done: into the ring, and to the kernel. */
static void queue_drain(struct file *f)
{
	if (f->queue && !f->has_ring)
		ring_make(f);
	if (f->has_ring > 0) {
		fill_ring(f);
		set_alarm(f);
		if (ring_submit(f))
			return;
		ring_give_up(f);
	}
	while (f->queue)
		read_blocking(f, queue_pop(f));
}

/* Return: 1 when the request is finished, with *ret_err; 0 when the ring has to do it. */
static int read_cached(struct file *f, struct cis_store_req *req, int *ret_err)
{
	uint32_t want = req->want ? req->want : req->len;
	struct iovec iov = { (char *)req->buf + req->skip, want };
	ssize_t n = preadv2(f->fd, &iov, 1, (off_t)(req->off + req->skip), RWF_NOWAIT);

	if (n < 0) {
		if (errno == EAGAIN || errno == EOPNOTSUPP)
			return 0;
		*ret_err = -errno;
		return 1;
	}
	*ret_err = 0;
	return (uint32_t)n == want; /* what is cached in part is read again, whole and aligned */
}

static void file_submit(struct cis_store *store, struct cis_store_req **reqs, size_t n)
{
	struct file *f = file_of(store);
	int err, queued = 0;

	for (size_t i = 0; i < n; i++) {
		struct cis_store_req *req = reqs[i];

		req->progress = 0;
		req->flags = 0;
		if (req->op != CIS_STORE_GET) {
			req->done(req, -EROFS);
		} else if (read_cached(f, req, &err)) {
			req->done(req, err);
		} else {
			queue_push(f, req);
			queued = 1;
		}
	}
	if (queued)
		queue_drain(f);
}

static void live_remove(struct file *f, struct cis_store_req *req)
{
	struct cis_store_req **p = &f->live;

	while (*p != req)
		p = &(*p)->next;
	*p = req->next;
	f->in_ring--;
	f->in_kernel--;
}

static void again(struct file *f, struct cis_store_req *req)
{
	if (stopped(req))
		req->done(req, stopped(req));
	else
		queue_push(f, req);
}

/* One completion.  A short read goes on where it stopped; a direct read that is refused is repeated through the cache. */
static void complete(struct file *f, struct cis_store_req *req, int res)
{
	bool refused = res == -EINVAL && !(req->flags & BUFFERED);

	live_remove(f, req);
	if (res > 0)
		req->progress += (uint32_t)res;
	if (refused)
		req->flags |= BUFFERED;
	if (refused || res == -EINTR || res == -EAGAIN || (res > 0 && req->progress < req->len))
		again(f, req);
	else if (res == -ECANCELED && stopped(req))
		req->done(req, stopped(req));
	else
		req->done(req, res > 0 ? 0 : res ? res : -ENODATA);
}

/* To be submitted by the caller. */
static void ring_cancel(struct file *f, struct cis_store_req *req, unsigned why)
{
	struct io_uring_sqe *sqe = stopped(req) ? NULL : entry(f, false);

	if (!sqe)
		return; /* it is cancelled already, or there is no room: next time */
	req->flags |= why;
	io_uring_prep_cancel(sqe, req, 0);
	io_uring_sqe_set_data(sqe, NULL);
}

/* Return: whether it was there; done has come then. */
static bool queue_drop(struct file *f, struct cis_store_req *req, int why)
{
	for (struct cis_store_req **p = &f->queue; *p; p = &(*p)->next)
		if (*p == req) {
			*p = req->next;
			if (!*p)
				f->queue_end = p;
			req->done(req, why);
			return true;
		}
	return false;
}

static void expire(struct file *f)
{
	uint64_t now = earliest(f->live, earliest(f->queue, UINT64_MAX)) == UINT64_MAX ? 0 : cis_now_ns(NULL);
	struct cis_store_req *req;

	for (req = f->live; req && now; req = req->next)
		if (req->deadline_ns && now >= req->deadline_ns)
			ring_cancel(f, req, TIMED);
	for (req = f->queue; req && now;) {
		bool late = req->deadline_ns && now >= req->deadline_ns;

		if (late)
			queue_drop(f, req, -ETIMEDOUT);
		req = late ? f->queue : req->next; /* done may have changed the queue */
	}
}

static void file_reap(struct cis_store *store)
{
	struct file *f = file_of(store);
	struct io_uring_cqe *cqe;
	uint64_t count, one = 1;

	if (f->has_ring < 1)
		return;
	if (read(f->event, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	for (unsigned i = 0; i < REAPS && f->has_ring > 0 && !io_uring_peek_cqe(&f->ring, &cqe); i++) {
		void *what = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&f->ring, cqe);
		if (what == f)
			f->alarm_ns = 0;
		else if (what)
			complete(f, what, res); /* done may submit, and the ring be given up for it */
	}
	if (f->has_ring > 0 && io_uring_cq_ready(&f->ring) && write(f->event, &one, sizeof(one)) < 0)
		return; /* cannot be: it holds far more */
	expire(f);
	queue_drain(f);
}

static void file_wait(struct cis_store *store, uint64_t deadline_ns)
{
	struct file *f = file_of(store);
	struct io_uring_cqe *cqe;

	if (f->in_ring && !deadline_ns) {
		io_uring_wait_cqe(&f->ring, &cqe);
	} else if (f->in_ring) {
		uint64_t now = cis_now_ns(NULL), left = deadline_ns > now ? deadline_ns - now : 0;
		struct __kernel_timespec ts = { (long long)(left / 1000000000u), (long long)(left % 1000000000u) };

		io_uring_wait_cqe_timeout(&f->ring, &cqe, &ts);
	}
	file_reap(store);
}

static void file_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct file *f = file_of(store);

	if (queue_drop(f, req, -ECANCELED))
		return;
	ring_cancel(f, req, CANCELED);
	queue_drain(f);
}

static int file_fd(struct cis_store *store)
{
	return file_of(store)->event;
}

static void file_close(struct cis_store *store)
{
	struct file *f = file_of(store);

	if (f->has_ring > 0)
		io_uring_queue_exit(&f->ring);
	close(f->event);
	if (f->direct >= 0)
		close(f->direct);
	close(f->fd);
	free(f);
}

static const struct cis_store_ops file_ops = {
	.ops_size = sizeof(struct cis_store_ops),
	.name = "file",
	.submit = file_submit,
	.fd = file_fd,
	.reap = file_reap,
	.wait = file_wait,
	.cancel = file_cancel,
	.close = file_close,
};

int cis_store_file_open(int fd, struct cis_store **ret, struct cis_error *err)
{
	struct file *f = calloc(1, sizeof(*f));
	char path[32];
	int rc;

	if (!f)
		return cis_fail(err, ENOMEM, "store file: out of memory");
	f->store.ops = &file_ops;
	f->queue_end = &f->queue;
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (f->fd < 0) {
		rc = cis_fail(err, errno, "store file: %s", strerror(errno));
		goto fail;
	}
	f->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->event < 0) {
		rc = cis_fail(err, errno, "store file: eventfd: %s", strerror(errno));
		goto fail_fd;
	}
	/* A descriptor of its own: O_DIRECT is a flag of the open file, which the duplicate shares. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	f->direct = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
	*ret = &f->store;
	return 0;
fail_fd:
	close(f->fd);
fail:
	free(f);
	return rc;
}
