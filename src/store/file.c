/*
 * The store file: one read-only file.
 *
 * A get first asks the page cache without waiting (RWF_NOWAIT), which is what a warm image needs and costs one system
 * call.  The rest is read aside (aio.h): requests that are aligned as the disk wants them past the page cache, since large
 * direct reads reach three times the rate of buffered ones (limits.md), others through it.
 *
 * A read past its deadline is cancelled.  The kernel lets go of a read from a disk only when the disk answers, and done cannot
 * come before that: the buffer is still being written to.
 */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/aio.h"

#define ALIGN 4096u
#define REAPS 2u /* at once: each is decoded and installed from done, while others of the thread wait */

/** struct reading - a get that was not in the page cache; @stopped: -ETIMEDOUT or -ECANCELED, once the kernel is asked to let go */
struct reading {
	struct cis_aio_op op;
	struct cis_store_req *req;
	struct file *file;
	struct reading *prev, *next;
	int stopped;
};

struct file {
	struct cis_store store;
	int fd;	    /* through the page cache */
	int direct; /* past it, or -1 where the file system cannot */
	struct cis_aio aio;
	struct reading *first;
	uint64_t earliest_ns; /* no deadline is before it */
};

static struct file *file_of(struct cis_store *store)
{
	return (struct file *)store;
}

static void unlist(struct reading *r)
{
	*(r->prev ? &r->prev->next : &r->file->first) = r->next;
	if (r->next)
		r->next->prev = r->prev;
}

static void finish(struct reading *r, int err)
{
	struct cis_store_req *req = r->req;

	free(r);
	req->done(req, err);
}

/* A direct read that is refused is repeated through the cache. */
static void read_done(struct cis_aio_op *op, int res)
{
	struct reading *r = (struct reading *)op;

	if (res == -EINVAL && op->fd != r->file->fd && !r->stopped) {
		op->fd = r->file->fd;
		cis_aio_push(&r->file->aio, op);
		return;
	}
	unlist(r);
	if (res < 0 && r->stopped)
		res = r->stopped;
	finish(r, res < 0 ? res : (uint64_t)res < op->len ? -ENODATA : 0);
}

static void read_aside(struct file *f, struct cis_store_req *req)
{
	struct reading *r = calloc(1, sizeof(*r));
	bool direct = f->direct >= 0 && !((req->off | req->len | (uintptr_t)req->buf) % ALIGN);

	if (!r) {
		req->done(req, -ENOMEM);
		return;
	}
	*r = (struct reading){ .req = req, .file = f, .next = f->first };
	r->op = (struct cis_aio_op){ .what = CIS_AIO_READ, .fd = direct ? f->direct : f->fd, .buf = req->buf, .off = req->off,
				     .len = req->len, .done = read_done };
	if (f->first)
		f->first->prev = r;
	f->first = r;
	cis_aio_push(&f->aio, &r->op);
	if (req->deadline_ns && req->deadline_ns < f->earliest_ns)
		f->earliest_ns = req->deadline_ns;
}

static void flush(struct file *f)
{
	if (f->earliest_ns != UINT64_MAX)
		cis_aio_alarm(&f->aio, f->earliest_ns);
	cis_aio_flush(&f->aio);
}

/* Return: 1 when the request is finished, with *ret_err; 0 when it has to be read aside. */
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
	int err, aside = 0;

	for (size_t i = 0; i < n; i++) {
		struct cis_store_req *req = reqs[i];

		if (req->op != CIS_STORE_GET) {
			req->done(req, -EROFS);
		} else if (read_cached(f, req, &err)) {
			req->done(req, err);
		} else {
			read_aside(f, req);
			aside = 1;
		}
	}
	if (aside)
		flush(f);
}

/* Return: whether it had not begun; it is in no list then, and to be finished. */
static bool stop(struct reading *r, int why)
{
	if (r->stopped)
		return false;
	r->stopped = why;
	if (!cis_aio_stop(&r->file->aio, &r->op))
		return false;
	unlist(r);
	return true;
}

/* Done may change the list, so it is called when all are found. */
static void expire(struct file *f)
{
	uint64_t now = f->earliest_ns == UINT64_MAX ? 0 : cis_now_ns(NULL);
	struct reading *next, *late = NULL;

	if (now < f->earliest_ns)
		return;
	f->earliest_ns = UINT64_MAX;
	for (struct reading *r = f->first; r; r = next) {
		uint64_t deadline = r->stopped || !r->req->deadline_ns ? UINT64_MAX : r->req->deadline_ns;

		next = r->next;
		if (deadline > now) {
			f->earliest_ns = deadline < f->earliest_ns ? deadline : f->earliest_ns;
		} else if (stop(r, -ETIMEDOUT)) {
			r->next = late;
			late = r;
		}
	}
	for (; late; late = next) {
		next = late->next;
		finish(late, -ETIMEDOUT);
	}
}

static void file_reap(struct cis_store *store)
{
	struct file *f = file_of(store);

	cis_aio_reap(&f->aio, REAPS);
	expire(f);
	flush(f);
}

static void file_wait(struct cis_store *store, uint64_t deadline_ns)
{
	cis_aio_wait(&file_of(store)->aio, deadline_ns);
	file_reap(store);
}

static void file_cancel(struct cis_store *store, struct cis_store_req *req)
{
	struct file *f = file_of(store);

	for (struct reading *r = f->first; r; r = r->next)
		if (r->req == req) {
			if (stop(r, -ECANCELED))
				finish(r, -ECANCELED);
			else
				flush(f);
			return;
		}
}

static int file_fd(struct cis_store *store)
{
	return file_of(store)->aio.event;
}

static void file_close(struct cis_store *store)
{
	struct file *f = file_of(store);

	cis_aio_fini(&f->aio);
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
	f->earliest_ns = UINT64_MAX;
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (f->fd < 0) {
		rc = cis_fail(err, errno, "store file: %s", strerror(errno));
		goto fail;
	}
	rc = cis_aio_init(&f->aio);
	if (rc) {
		rc = cis_fail(err, -rc, "store file: eventfd: %s", strerror(-rc));
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
