/*
 * The store file where the kernel is no help: a read that never ends is given up at its deadline and when it is cancelled, and one
 * that the ring refuses is done without it.
 *
 * The system calls are replaced at link time: preadv2() says that nothing is in the page cache, and io_uring_submit() can refuse.
 * A pipe that nobody writes to is the disk that does not answer.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "store/store.h"

static unsigned refusals; /* still to come */
static int refusal;

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	errno = EAGAIN;
	return -1;
}

int io_uring_submit(struct io_uring *ring)
{
	int (*real)(struct io_uring *) = (int (*)(struct io_uring *))dlsym(RTLD_NEXT, "io_uring_submit");

	if (refusals && io_uring_sq_ready(ring)) {
		refusals--;
		return refusal;
	}
	return real(ring);
}

struct get {
	struct cis_store_req req;
	int done, err;
	uint8_t buf[8192];
};

static void got(struct cis_store_req *req, int err)
{
	struct get *get = req->ctx;

	get->done++;
	get->err = err;
}

static void submit(struct cis_store *store, struct get *get, uint64_t off, uint64_t deadline_ns)
{
	struct cis_store_req *req = &get->req;

	*get = (struct get){ .req = { .op = CIS_STORE_GET, .off = off, .len = 100, .buf = get->buf, .deadline_ns = deadline_ns,
				      .done = got, .ctx = get } };
	cis_store_submit(store, &req, 1);
}

static void drive(struct cis_store *store, const struct get *get)
{
	while (!get->done) {
		struct pollfd p = { .fd = cis_store_fd(store), .events = POLLIN };

		assert_int_equal(poll(&p, 1, 20000), 1);
		cis_store_reap(store);
	}
	assert_int_equal(get->done, 1);
}

static struct cis_store *open_store(int fd)
{
	struct cis_store *store;
	struct cis_error err;

	assert_int_equal(cis_store_file_open(fd, &store, &err), 0);
	return store;
}

static int make_file(void)
{
	char path[] = "/var/tmp/cistern-store.XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(write(fd, &(uint8_t){ (uint8_t)(i / 100) }, 1), 1);
	return fd;
}

static void deadline_of_a_read_that_hangs(void **state)
{
	struct get a, b, c;
	struct cis_store *store;
	uint64_t now = cis_now_ns(NULL);
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	store = open_store(fd[0]);
	submit(store, &a, 0, 0);
	submit(store, &b, 0, now + 20000000);
	submit(store, &c, 0, now + 1000000); /* earlier than the one that the timer was set to */
	drive(store, &c);
	assert_int_equal(c.err, -ETIMEDOUT);
	drive(store, &b);
	assert_int_equal(b.err, -ETIMEDOUT);
	assert_true(cis_now_ns(NULL) >= now + 20000000);
	assert_int_equal(a.done, 0);
	cis_store_cancel(store, &a.req);
	drive(store, &a);
	assert_int_equal(a.err, -ECANCELED);
	cis_store_close(store);
	close(fd[0]);
	close(fd[1]);
}

/* More than the ring holds: those that wait for room have deadlines too, and cancels. */
static void deadline_of_a_read_that_waits_for_room(void **state)
{
	static struct get get[200];
	struct cis_store *store;
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	store = open_store(fd[0]);
	for (size_t i = 0; i < 200; i++)
		submit(store, &get[i], 0, i < 100 ? 0 : cis_now_ns(NULL) + 1000000);
	for (size_t i = 100; i < 200; i++) {
		drive(store, &get[i]);
		assert_int_equal(get[i].err, -ETIMEDOUT);
	}
	for (size_t i = 100; i-- > 0;) {
		assert_int_equal(get[i].done, 0);
		cis_store_cancel(store, &get[i].req);
		drive(store, &get[i]);
		assert_int_equal(get[i].err, -ECANCELED);
	}
	cis_store_close(store);
	close(fd[0]);
	close(fd[1]);
}

static void refused(int how, unsigned times)
{
	struct get get[10];
	int fd = make_file();
	struct cis_store *store = open_store(fd);

	for (int round = 0; round < 3; round++) {
		refusal = how;
		refusals = times;
		for (unsigned i = 0; i < 10; i++)
			submit(store, &get[i], i * 100, cis_now_ns(NULL) + 10000000000u);
		for (unsigned i = 0; i < 10; i++) {
			drive(store, &get[i]);
			assert_int_equal(get[i].err, 0);
			assert_int_equal(get[i].buf[0], i);
			assert_int_equal(get[i].buf[99], i);
		}
	}
	refusals = 0;
	cis_store_close(store);
	close(fd);
}

static void refused_once(void **state)
{
	refused(-EAGAIN, 1);
}

static void refused_often(void **state)
{
	refused(-EBUSY, 7);
	refused(-EAGAIN, 1000);
	refused(0, 5);
}

/* One is in the kernel already, and its end is a second chance for what was refused. */
static void refused_behind_one_that_is_taken(void **state)
{
	struct get a, b;
	struct cis_store *store;
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	store = open_store(fd[0]);
	submit(store, &a, 0, 0);
	refusal = -EAGAIN;
	refusals = 1;
	submit(store, &b, 0, 0);
	assert_int_equal(a.done + b.done, 0);
	assert_int_equal(write(fd[1], b.buf, 100), 100);
	drive(store, &a);
	assert_int_equal(write(fd[1], b.buf, 100), 100);
	drive(store, &b);
	assert_int_equal(a.err | b.err, 0);
	cis_store_close(store);
	close(fd[0]);
	close(fd[1]);
}

/* A ring that is given up with nothing in it leaves no descriptor behind. */
static void nothing_is_left(void **state)
{
	size_t before = check_open_fds();

	refused(-EAGAIN, 3);
	assert_int_equal(check_open_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deadline_of_a_read_that_hangs),
		cmocka_unit_test(deadline_of_a_read_that_waits_for_room),
		cmocka_unit_test(refused_once),
		cmocka_unit_test(refused_often),
		cmocka_unit_test(refused_behind_one_that_is_taken),
		cmocka_unit_test(nothing_is_left),
	};
	struct io_uring ring;

	if (io_uring_queue_init(8, &ring, 0))
		check_skip("this kernel gives no io_uring here");
	io_uring_queue_exit(&ring);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
