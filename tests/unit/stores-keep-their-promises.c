/*
 * What store.h promises, of every store and every layer: done exactly once, with the bytes or with a reason; cancelled, late and
 * re-entered requests too.  Each store is driven by poll() on its descriptor, as a shard does, and by wait, as a worker does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "store/layers.h"

#define OBJECT ((size_t)4 << 20)
#define MANY   300

static int object;

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)((off * 0x9e3779b97f4a7c15u) >> 56);
}

static void make_object(void)
{
	char path[] = "/var/tmp/cistern-stores.XXXXXX";
	uint8_t *bytes = malloc(OBJECT);

	object = mkstemp(path);
	assert_true(object >= 0 && bytes);
	unlink(path);
	for (size_t i = 0; i < OBJECT; i++)
		bytes[i] = byte_at(i);
	assert_int_equal(write(object, bytes, OBJECT), OBJECT);
	assert_int_equal(fsync(object), 0);
	free(bytes);
}

/* Stores. */

static struct cis_store *open_warm(const char *layers, struct cis_layers **ret_layers)
{
	struct cis_store *store;
	struct cis_error err;

	assert_int_equal(cis_store_file_open(object, &store, &err), 0);
	return store;
}

/* Not in the page cache, so that reads go through the ring. */
static struct cis_store *open_cold(const char *layers, struct cis_layers **ret_layers)
{
	posix_fadvise(object, 0, 0, POSIX_FADV_DONTNEED);
	return open_warm(layers, ret_layers);
}

static struct cis_store *open_throttle(const char *layers, struct cis_layers **ret_layers)
{
	struct cis_store *store = open_cold(NULL, NULL);
	struct cis_error err;

	assert_int_equal(cis_store_throttle_open(store, 4ull << 30, &store, &err), 0);
	return store;
}

static struct cis_store *open_layers(const char *layers, struct cis_layers **ret_layers)
{
	struct cis_store *store = open_cold(NULL, NULL);
	struct cis_error err;

	assert_int_equal(cis_layers_parse(layers, ret_layers, &err), 0);
	assert_int_equal(cis_layers_open(*ret_layers, store, &store, &err), 0);
	return store;
}

static const struct subject {
	const char *name;
	struct cis_store *(*open)(const char *layers, struct cis_layers **ret_layers);
	int broken; /* the errno that it ends each request with, else 0 */
} subjects[] = {
	{ "file", open_warm, 0 },
	{ "file, cold", open_cold, 0 },
	{ "throttle", open_throttle, 0 },
	{ "fault:trigger=/nonexistent", open_layers, 0 },
	{ "fault", open_layers, EIO },
	{ "fault:how=short", open_layers, ENODATA },
	{ "delay:time=20us", open_layers, 0 },
	{ "delay:p50=10us,p99=200us", open_layers, 0 },
	{ "delay:min=1us,max=300us+delay:p50=10us,p99=20us,shape=exponential", open_layers, 0 },
	{ "corrupt:trigger=/nonexistent,how=stale", open_layers, 0 },
	{ "corrupt:trigger=/nonexistent+fault:from=1000000+delay:time=1us,every=3", open_layers, 0 },
};

/* A store that is open, and requests to it. */

struct rig {
	struct cis_store *store;
	struct cis_layers *layers;
	const struct subject *subject;
	unsigned done;
};

struct get {
	struct cis_store_req req;
	struct rig *rig;
	unsigned done;
	int err;
	void (*then)(struct get *get);
};

static void rig_open(struct rig *r, const struct subject *subject)
{
	*r = (struct rig){ .subject = subject };
	r->store = subject->open(subject->name, &r->layers);
}

static void rig_close(struct rig *r)
{
	cis_store_close(r->store);
	cis_layers_unref(r->layers);
}

static void got(struct cis_store_req *req, int err)
{
	struct get *get = req->ctx;

	get->done++;
	get->err = err;
	get->rig->done++;
	if (get->then)
		get->then(get);
}

static void get_init(struct get *get, struct rig *r, uint64_t off, uint32_t len)
{
	*get = (struct get){ .rig = r };
	get->req = (struct cis_store_req){ .op = CIS_STORE_GET, .off = off, .len = len, .done = got, .ctx = get };
	assert_int_equal(posix_memalign(&get->req.buf, 4096, (len + 4096u) & ~4095u), 0);
}

static void submit(struct get *get)
{
	struct cis_store_req *req = &get->req;

	cis_store_submit(get->rig->store, &req, 1);
}

static void by_poll(struct rig *r, unsigned until)
{
	while (r->done < until) {
		struct pollfd p = { .fd = cis_store_fd(r->store), .events = POLLIN };

		assert_int_equal(poll(&p, 1, 20000), 1);
		cis_store_reap(r->store);
	}
}

static void by_wait(struct rig *r, unsigned until)
{
	while (r->done < until)
		cis_store_wait(r->store, 0);
}

/* Done once, and with the bytes if it says so.  @also: another end that is right. */
static void check_get(struct get *get, int also)
{
	const struct cis_store_req *req = &get->req;
	uint32_t n = req->want ? req->want : req->len;
	int expected = req->off + req->len > OBJECT ? -ENODATA : 0;

	assert_int_equal(get->done, 1);
	if (get->rig->subject->broken)
		expected = -get->rig->subject->broken;
	if (get->err != expected)
		assert_int_equal(get->err, also);
	for (uint32_t i = 0; !get->err && i < n; i++)
		assert_int_equal(((uint8_t *)req->buf)[req->skip + i], byte_at(req->off + req->skip + i));
	free(req->buf);
}

/* Tests, each of every subject. */

static void sizes(struct rig *r)
{
	static const struct {
		uint64_t off;
		uint32_t len;
	} each[] = { { 0, 1 }, { 0, 4096 }, { 4096, 8192 }, { 12345, 6789 }, { OBJECT - 1, 1 }, { OBJECT - 4096, 4096 },
		     { 0, 2 << 20 }, { 1 << 20, (2 << 20) + 8192 }, { OBJECT - 4096, 8192 }, { OBJECT, 1 }, { 1ull << 40, 4096 } };

	for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
		struct get get;

		get_init(&get, r, each[i].off, each[i].len);
		submit(&get);
		by_poll(r, r->done + !get.done);
		check_get(&get, 0);
	}
}

static void nothing_is_zero_bytes(struct rig *r)
{
	struct get get;

	get_init(&get, r, 4096, 0);
	submit(&get);
	by_wait(r, 1);
	assert_int_equal(get.done, 1);
	if (get.err)
		assert_int_equal(get.err, -r->subject->broken);
	free(get.req.buf);
}

static void part_of_it(struct rig *r)
{
	struct get get;

	get_init(&get, r, 8192, 16384);
	get.req.skip = 5000;
	get.req.want = 3000;
	submit(&get);
	by_poll(r, 1);
	check_get(&get, 0);
}

static void many(struct rig *r, void (*drive)(struct rig *r, unsigned until))
{
	static struct get get[MANY];
	struct cis_store_req *reqs[MANY];

	for (size_t i = 0; i < MANY; i++) {
		get_init(&get[i], r, i * 12288 % (OBJECT - 65536), i % 5 ? 4096 : 65536);
		reqs[i] = &get[i].req;
	}
	cis_store_submit(r->store, reqs, MANY);
	drive(r, MANY);
	for (size_t i = 0; i < MANY; i++)
		check_get(&get[i], 0);
}

static void many_by_poll(struct rig *r)
{
	many(r, by_poll);
}

static void many_by_wait(struct rig *r)
{
	many(r, by_wait);
}

static void what_it_cannot(struct rig *r)
{
	for (int op = CIS_STORE_PUT; op <= CIS_STORE_DELETE; op++) {
		struct get get;

		get_init(&get, r, 0, 4096);
		get.req.op = (enum cis_store_op)op;
		submit(&get);
		by_wait(r, 1);
		assert_int_equal(get.done, 1);
		if (get.err != -EROFS)
			assert_int_equal(get.err, -r->subject->broken);
		free(get.req.buf);
		r->done = 0;
	}
}

static void canceled(struct rig *r)
{
	static struct get get[MANY];

	for (size_t i = 0; i < MANY; i++) {
		get_init(&get[i], r, i * 8192, 8192);
		submit(&get[i]);
		if (!get[i].done && i % 3)
			cis_store_cancel(r->store, &get[i].req);
	}
	by_poll(r, MANY);
	for (size_t i = 0; i < MANY; i++)
		check_get(&get[i], i % 3 ? -ECANCELED : 0);
}

static void late(struct rig *r)
{
	static struct get get[MANY];

	for (size_t i = 0; i < MANY; i++) {
		get_init(&get[i], r, i * 8192, 8192);
		get[i].req.deadline_ns = i % 3 ? cis_now_ns(NULL) + i * 1000 : i % 2;
		submit(&get[i]);
	}
	by_poll(r, MANY);
	for (size_t i = 0; i < MANY; i++)
		check_get(&get[i], -ETIMEDOUT);
}

static struct get *chain;

static void next_of_chain(struct get *get)
{
	size_t i = (size_t)(get - chain);

	if (i + 1 < MANY)
		submit(&chain[i + 1]);
}

static void submitted_from_done(struct rig *r)
{
	chain = calloc(MANY, sizeof(*chain));
	for (size_t i = 0; i < MANY; i++) {
		get_init(&chain[i], r, i * 12288, 4096);
		chain[i].then = next_of_chain;
	}
	submit(&chain[0]);
	by_poll(r, MANY);
	for (size_t i = 0; i < MANY; i++)
		check_get(&chain[i], 0);
	free(chain);
}

static void cancel_the_rest(struct get *get)
{
	for (size_t i = 0; i < MANY; i++)
		if (!chain[i].done)
			cis_store_cancel(get->rig->store, &chain[i].req);
}

static void canceled_from_done(struct rig *r)
{
	struct cis_store_req *reqs[MANY];

	chain = calloc(MANY, sizeof(*chain));
	for (size_t i = 0; i < MANY; i++) {
		get_init(&chain[i], r, i * 12288, 4096);
		reqs[i] = &chain[i].req;
	}
	for (size_t i = 0; i < MANY; i++)
		cis_store_submit(r->store, &reqs[i], 1);
	for (size_t i = 0; i < MANY; i++)
		if (!chain[i].done) {
			chain[i].then = cancel_the_rest;
			break;
		}
	by_poll(r, MANY);
	for (size_t i = 0; i < MANY; i++)
		check_get(&chain[i], -ECANCELED);
	free(chain);
}

static void one_get(struct rig *r)
{
	uint8_t buf[100];
	int rc = cis_store_get(r->store, (struct cis_key){ 0 }, 777, buf, sizeof(buf));

	assert_int_equal(rc, -r->subject->broken);
	if (!rc)
		assert_int_equal(buf[99], byte_at(777 + 99));
}

static void opened_and_closed(struct rig *r)
{
	assert_true(cis_store_fd(r->store) >= 0);
	cis_store_reap(r->store);
	cis_store_wait(r->store, 1);
}

static void of_each(void (*test)(struct rig *r))
{
	for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++) {
		struct rig r;

		printf("# %s\n", subjects[i].name);
		rig_open(&r, &subjects[i]);
		test(&r);
		rig_close(&r);
	}
}

#define EACH(test)                       \
	static void each_##test(void **s) \
	{                                \
		of_each(test);           \
	}
EACH(sizes)
EACH(nothing_is_zero_bytes)
EACH(part_of_it)
EACH(many_by_poll)
EACH(many_by_wait)
EACH(what_it_cannot)
EACH(canceled)
EACH(late)
EACH(submitted_from_done)
EACH(canceled_from_done)
EACH(one_get)
EACH(opened_and_closed)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_sizes),		    cmocka_unit_test(each_nothing_is_zero_bytes),
		cmocka_unit_test(each_part_of_it),	    cmocka_unit_test(each_many_by_poll),
		cmocka_unit_test(each_many_by_wait),	    cmocka_unit_test(each_what_it_cannot),
		cmocka_unit_test(each_canceled),	    cmocka_unit_test(each_late),
		cmocka_unit_test(each_submitted_from_done), cmocka_unit_test(each_canceled_from_done),
		cmocka_unit_test(each_one_get),		    cmocka_unit_test(each_opened_and_closed),
	};

	make_object();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
