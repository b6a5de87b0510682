#include "store/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"

int cis_aio_init(struct cis_aio *aio)
{
	*aio = (struct cis_aio){ 0 };
	aio->queue_end = &aio->queue;
	aio->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return aio->event < 0 ? -errno : 0;
}

void cis_aio_fini(struct cis_aio *aio)
{
	if (aio->has_ring > 0)
		io_uring_queue_exit(&aio->ring);
	close(aio->event);
}

bool cis_aio_has_ring(struct cis_aio *aio)
{
	if (aio->has_ring)
		return aio->has_ring > 0;
	aio->has_ring = -1;
	aio->pushed = aio->sent = 0;
	aio->alarm_ns = 0;
	if (io_uring_queue_init(CIS_AIO_RING, &aio->ring, 0))
		return false;
	if (io_uring_register_eventfd(&aio->ring, aio->event)) {
		io_uring_queue_exit(&aio->ring);
		return false;
	}
	aio->has_ring = 1;
	return true;
}

static void queue_push(struct cis_aio *aio, struct cis_aio_op *op)
{
	op->next = NULL;
	*aio->queue_end = op;
	aio->queue_end = &op->next;
}

static struct cis_aio_op *queue_pop(struct cis_aio *aio)
{
	struct cis_aio_op *op = aio->queue;

	aio->queue = op->next;
	if (!aio->queue)
		aio->queue_end = &aio->queue;
	return op;
}

void cis_aio_push(struct cis_aio *aio, struct cis_aio_op *op)
{
	op->progress = 0;
	op->stop = CIS_AIO_GOES_ON;
	queue_push(aio, op);
}

static struct io_uring_sqe *entry(struct cis_aio *aio, bool is_op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&aio->ring);

	if (sqe)
		aio->is_op[aio->pushed++ % CIS_AIO_RING] = is_op;
	return sqe;
}

static void ring_push(struct cis_aio *aio, struct cis_aio_op *op)
{
	struct io_uring_sqe *sqe = entry(aio, true); /* there is one: fill_ring() has looked */
	char *buf = (char *)op->buf + op->progress;
	unsigned len = (unsigned)(op->len - op->progress);

	switch (op->what) {
	case CIS_AIO_READ:
		io_uring_prep_read(sqe, op->fd, buf, len, op->off + op->progress);
		break;
	case CIS_AIO_WRITE:
		io_uring_prep_write(sqe, op->fd, buf, len, op->off + op->progress);
		break;
	case CIS_AIO_PUNCH:
		io_uring_prep_fallocate(sqe, op->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->off, (off_t)op->len);
		break;
	case CIS_AIO_CLOSE: /* maybe of a file without a name, whose blocks that frees */
		io_uring_prep_close(sqe, op->fd);
		sqe->flags |= IOSQE_ASYNC;
	}
	io_uring_sqe_set_data(sqe, op);
	op->next = aio->live;
	aio->live = op;
	aio->in_ring++;
}

static void fill_ring(struct cis_aio *aio)
{
	while (aio->queue && aio->in_ring < CIS_AIO_DEPTH && io_uring_sq_space_left(&aio->ring))
		ring_push(aio, queue_pop(aio));
}

static void stop_ops(struct cis_aio *aio)
{
	if (!aio->to_stop)
		return;
	aio->to_stop = false;
	for (struct cis_aio_op *op = aio->live; op; op = op->next) {
		struct io_uring_sqe *sqe = op->stop == CIS_AIO_TO_STOP ? entry(aio, false) : NULL;

		if (sqe) {
			op->stop = CIS_AIO_STOPPED;
			io_uring_prep_cancel(sqe, op, 0);
			io_uring_sqe_set_data(sqe, NULL);
		} else if (op->stop == CIS_AIO_TO_STOP) {
			aio->to_stop = true; /* there is no room: next time */
		}
	}
}

static void set_alarm(struct cis_aio *aio)
{
	uint64_t at = aio->wanted_ns;
	struct io_uring_sqe *sqe;

	if (!at || (aio->alarm_ns && aio->alarm_ns <= at))
		return;
	sqe = entry(aio, false);
	if (!sqe)
		return; /* with the next submission */
	aio->alarm.tv_sec = (long long)(at / 1000000000u);
	aio->alarm.tv_nsec = (long long)(at % 1000000000u);
	io_uring_prep_timeout(sqe, &aio->alarm, 0, IORING_TIMEOUT_ABS);
	io_uring_sqe_set_data(sqe, aio);
	aio->alarm_ns = at;
}

void cis_aio_alarm(struct cis_aio *aio, uint64_t at_ns)
{
	if (!aio->wanted_ns || at_ns < aio->wanted_ns)
		aio->wanted_ns = at_ns;
}

/*
 * The kernel may refuse entries for want of memory, and what it has not taken never completes.  Return: false when it has taken no
 * op, so that nothing would ever come back here.
 */
static bool ring_submit(struct cis_aio *aio)
{
	int n = io_uring_submit(&aio->ring);

	for (; n > 0; n--)
		aio->in_kernel += aio->is_op[aio->sent++ % CIS_AIO_RING];
	return aio->in_kernel || !aio->in_ring;
}

/* Another one is made when the next op needs it. */
static void ring_give_up(struct cis_aio *aio)
{
	io_uring_queue_exit(&aio->ring);
	aio->has_ring = 0;
	while (aio->live) {
		struct cis_aio_op *op = aio->live;

		aio->live = op->next;
		queue_push(aio, op);
	}
	aio->in_ring = 0;
}

static int64_t call(const struct cis_aio_op *op)
{
	char *buf = (char *)op->buf + op->progress;
	off_t off = (off_t)(op->off + op->progress);
	int64_t n = 0;

	switch (op->what) {
	case CIS_AIO_READ:
		n = pread(op->fd, buf, op->len - op->progress, off);
		break;
	case CIS_AIO_WRITE:
		n = pwrite(op->fd, buf, op->len - op->progress, off);
		break;
	case CIS_AIO_PUNCH:
		n = fallocate(op->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->off, (off_t)op->len);
		break;
	case CIS_AIO_CLOSE:
		n = close(op->fd);
	}
	return n < 0 ? -errno : n;
}

/* One call has been answered.  Return: whether it is to go on: only a part was done, or nothing for no reason of the file's. */
static bool goes_on(struct cis_aio_op *op, int64_t res)
{
	if (op->what == CIS_AIO_CLOSE)
		return false; /* the descriptor is gone whatever it says */
	if (res > 0)
		op->progress += (uint64_t)res;
	return res == -EINTR || res == -EAGAIN || (res > 0 && op->progress < op->len);
}

static void finish(struct cis_aio_op *op, int64_t res)
{
	op->done(op, res < 0 ? (int)res : (int)op->progress);
}

static void do_here(struct cis_aio_op *op)
{
	int64_t res;

	do
		res = call(op);
	while (goes_on(op, res));
	finish(op, res);
}

void cis_aio_flush(struct cis_aio *aio)
{
	if ((aio->queue || aio->wanted_ns || aio->has_ring > 0) && cis_aio_has_ring(aio)) {
		fill_ring(aio);
		stop_ops(aio);
		set_alarm(aio);
		if (ring_submit(aio))
			return;
		ring_give_up(aio);
	}
	while (aio->queue)
		do_here(queue_pop(aio));
}

bool cis_aio_stop(struct cis_aio *aio, struct cis_aio_op *op)
{
	for (struct cis_aio_op **p = &aio->queue; *p; p = &(*p)->next)
		if (*p == op) {
			*p = op->next;
			if (!*p)
				aio->queue_end = p;
			return true;
		}
	if (op->stop == CIS_AIO_GOES_ON)
		op->stop = CIS_AIO_TO_STOP;
	aio->to_stop = true;
	return false;
}

static void live_remove(struct cis_aio *aio, struct cis_aio_op *op)
{
	struct cis_aio_op **p = &aio->live;

	while (*p != op)
		p = &(*p)->next;
	*p = op->next;
	aio->in_ring--;
	aio->in_kernel--;
}

static void complete(struct cis_aio *aio, struct cis_aio_op *op, int res)
{
	live_remove(aio, op);
	if (!goes_on(op, res))
		finish(op, res);
	else if (op->stop)
		finish(op, -ECANCELED);
	else
		queue_push(aio, op);
}

void cis_aio_reap(struct cis_aio *aio, unsigned max)
{
	struct io_uring_cqe *cqe;
	uint64_t count, one = 1;

	if (aio->has_ring < 1 || (read(aio->event, &count, sizeof(count)) < 0 && errno != EAGAIN))
		return;
	for (unsigned i = 0; i < max && aio->has_ring > 0 && !io_uring_peek_cqe(&aio->ring, &cqe); i++) {
		void *what = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&aio->ring, cqe);
		if (what == aio)
			aio->alarm_ns = aio->wanted_ns = 0;
		else if (what)
			complete(aio, what, res); /* done may flush, and the ring be given up for it */
	}
	if (aio->has_ring > 0 && io_uring_cq_ready(&aio->ring) && write(aio->event, &one, sizeof(one)) < 0)
		return; /* cannot be: it holds far more */
}

void cis_aio_wait(struct cis_aio *aio, uint64_t deadline_ns)
{
	struct io_uring_cqe *cqe;

	if (aio->has_ring < 1 || !(aio->in_ring || aio->alarm_ns))
		return;
	if (!deadline_ns) {
		io_uring_wait_cqe(&aio->ring, &cqe);
	} else {
		uint64_t now = cis_now_ns(NULL), left = deadline_ns > now ? deadline_ns - now : 0;
		struct __kernel_timespec ts = { (long long)(left / 1000000000u), (long long)(left % 1000000000u) };

		io_uring_wait_cqe_timeout(&aio->ring, &cqe, &ts);
	}
}
