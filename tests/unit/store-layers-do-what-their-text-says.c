/* Each layer by its text: which requests it meets, what it does to them, and what a wrong text is told. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "pages.h"
#include "store/layer.h"

#define BLOCK 4096u
#define BLOCKS 64u

static int object;

static void make_object(void)
{
	char path[] = "/var/tmp/cistern-layers.XXXXXX";
	uint8_t block[BLOCK];

	object = mkstemp(path);
	assert_true(object >= 0);
	unlink(path);
	for (unsigned i = 0; i < BLOCKS; i++) {
		for (unsigned k = 0; k < BLOCK; k++)
			block[k] = (uint8_t)(i + 1 + (k / 2048) * 100);
		assert_int_equal(write(object, block, BLOCK), BLOCK);
	}
}

struct rig {
	struct cis_layers *layers;
	struct cis_store *store;
};

static struct cis_store *open_store(struct cis_layers *layers)
{
	struct cis_store *store;
	struct cis_error err;

	assert_int_equal(cis_store_file_open(object, &store, &err), 0);
	assert_int_equal(cis_layers_open(layers, store, &store, &err), 0);
	return store;
}

static void rig_open(struct rig *r, const char *text)
{
	struct cis_error err = { .text = "" };

	if (cis_layers_parse(text, &r->layers, &err))
		fail_msg("%s: %s", text, err.text);
	assert_string_equal(cis_layers_text(r->layers), text);
	r->store = open_store(r->layers);
}

static void rig_close(struct rig *r)
{
	cis_store_close(r->store);
	cis_layers_unref(r->layers);
}

static int get(struct rig *r, unsigned block, uint8_t *buf)
{
	return cis_store_get(r->store, (struct cis_key){ 0 }, (uint64_t)block * BLOCK, buf, BLOCK);
}

/* What happens to @n requests, one letter each: . good, E an error. */
static const char *run(const char *text, unsigned n)
{
	static char line[200];
	uint8_t buf[BLOCK];
	struct rig r;

	rig_open(&r, text);
	for (unsigned i = 0; i < n; i++)
		line[i] = get(&r, i, buf) ? 'E' : '.';
	line[n] = 0;
	rig_close(&r);
	return line;
}

static void which_requests(void **state)
{
	char first[200];

	assert_string_equal(run("fault", 3), "EEE");
	assert_string_equal(run("fault:every=3", 10), "..E..E..E.");
	assert_string_equal(run("fault:from=4", 6), "...EEE");
	assert_string_equal(run("fault:from=4,every=2", 8), "...E.E.E");
	assert_string_equal(run("fault:off=8K,len=8K", 6), "..EE..");
	assert_string_equal(run("fault:off=8K,len=8K,every=2", 6), "...E..");
	assert_string_equal(run("fault:off=8K,len=1", 4), "..E.");
	assert_string_equal(run("fault:off=8191,len=1", 4), ".E..");
	assert_string_equal(run("fault:off=8K", 4), "..EE");
	assert_string_equal(run("fault:op=get,every=2", 4), ".E.E");
	assert_string_equal(run("fault:op=put", 4), "....");
	assert_string_equal(run("fault:op=any", 4), "EEEE");
	assert_string_equal(run("fault:chance=100%", 4), "EEEE");
	assert_string_equal(run("fault:for=60s", 1), "E");
	strcpy(first, run("fault:chance=0.3,seed=7", 60));
	assert_string_equal(run("fault:chance=30%,seed=7", 60), first);
	assert_non_null(strchr(first, 'E'));
	assert_non_null(strchr(first, '.'));
	assert_string_not_equal(run("fault:chance=0.3,seed=8", 60), first);
	assert_string_equal(run("fault:every=2+fault:every=3", 12), ".E.EEE.E.EEE"); /* the inner one sees the odd ones alone */
}

/* The first request starts it, and what lies before now - for is over. */
static void for_a_time(void **state)
{
	uint8_t buf[BLOCK];
	uint64_t start;
	struct rig r;

	rig_open(&r, "fault:for=20ms");
	start = cis_now_ns(NULL);
	assert_int_equal(get(&r, 0, buf), -EIO);
	while (get(&r, 0, buf))
		;
	assert_true(cis_now_ns(NULL) >= start + 20000000);
	assert_int_equal(get(&r, 0, buf), 0);
	rig_close(&r);
}

static void counted_over_all_handles(void **state)
{
	struct cis_store *other;
	uint8_t buf[BLOCK];
	struct rig r;

	rig_open(&r, "fault:every=2");
	other = open_store(r.layers);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(get(&r, i, buf), 0);
		assert_int_equal(cis_store_get(other, (struct cis_key){ 0 }, 0, buf, BLOCK), -EIO);
	}
	cis_store_close(other);
	rig_close(&r);
}

static void while_a_file_is_there(void **state)
{
	char path[] = "/var/tmp/cistern-trigger.XXXXXX", text[200];
	int fd = mkstemp(path);
	uint8_t buf[BLOCK];
	struct rig r;

	snprintf(text, sizeof(text), "fault:trigger=%s,errno=ESTALE,from=2", path);
	rig_open(&r, text);
	assert_int_equal(get(&r, 0, buf), 0);
	assert_int_equal(get(&r, 0, buf), -ESTALE);
	unlink(path);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(get(&r, 0, buf), 0);
	assert_int_equal(close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0);
	assert_int_equal(get(&r, 0, buf), -ESTALE);
	unlink(path);
	close(fd);
	rig_close(&r);
}

struct waited {
	struct cis_store_req req;
	int done, err;
	uint8_t buf[BLOCK];
};

static void waited_done(struct cis_store_req *req, int err)
{
	struct waited *w = req->ctx;

	w->done++;
	w->err = err;
}

static void begin(struct rig *r, struct waited *w, unsigned block, uint64_t deadline_ns)
{
	struct cis_store_req *req = &w->req;

	*w = (struct waited){ .req = { .op = CIS_STORE_GET, .off = (uint64_t)block * BLOCK, .len = BLOCK, .buf = w->buf,
				       .deadline_ns = deadline_ns, .done = waited_done, .ctx = w } };
	cis_store_submit(r->store, &req, 1);
}

static void hangs(void **state)
{
	static struct waited a, b, c;
	uint64_t now = cis_now_ns(NULL);
	struct rig r;

	rig_open(&r, "delay:time=1us+fault:how=hang,every=2");
	begin(&r, &a, 0, 0);
	begin(&r, &b, 0, 0);
	begin(&r, &c, 0, 0);
	while (!a.done || !c.done)
		cis_store_wait(r.store, 0);
	assert_int_equal(a.err | c.err, 0);
	cis_store_wait(r.store, cis_now_ns(NULL) + 1000000);
	assert_int_equal(b.done, 0);
	cis_store_cancel(r.store, &b.req);
	assert_int_equal(b.done, 1);
	assert_int_equal(b.err, -ECANCELED);
	begin(&r, &b, 0, now + 5000000);
	while (!b.done) {
		struct pollfd p = { .fd = cis_store_fd(r.store), .events = POLLIN };

		assert_int_equal(poll(&p, 1, 20000), 1);
		cis_store_reap(r.store);
	}
	assert_int_equal(b.err, -ETIMEDOUT);
	assert_true(cis_now_ns(NULL) >= now + 5000000);
	rig_close(&r);
}

/* Each has a timer, and whoever waits has an epoll of his own: a reaper that is only called when that says so gets all answers. */
static void as_many_layers_as_there_may_be(void **state)
{
	static struct waited w[3];
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct rig r;

	rig_open(&r, "delay:time=1us+delay:time=2us+delay:time=3us+delay:time=4us+delay:time=5us+delay:time=6us+delay:time=7us+"
		     "fault:every=2,errno=ENODEV");
	assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, cis_store_fd(r.store), &ev), 0);
	for (unsigned i = 0; i < 3; i++)
		begin(&r, &w[i], i, 0);
	while (!w[0].done || !w[1].done || !w[2].done) {
		assert_int_equal(epoll_wait(ep, &ev, 1, 20000), 1);
		cis_store_reap(r.store);
	}
	assert_int_equal(w[0].err, 0);
	assert_int_equal(w[1].err, -ENODEV);
	assert_int_equal(w[2].err, 0);
	assert_int_equal(w[2].buf[0], 3);
	rig_close(&r);
	close(ep);
}

static void comes_short(void **state)
{
	uint8_t buf[BLOCK];
	struct rig r;

	rig_open(&r, "fault:how=short");
	memset(buf, 0xee, BLOCK);
	assert_int_equal(get(&r, 4, buf), -ENODATA);
	assert_int_equal(buf[0], 5);
	assert_int_equal(buf[BLOCK - 1], 0xee);
	rig_close(&r);
}

/* An order that only the delays make: the one that is submitted first is let off. */
static void order_changes(void **state)
{
	static struct waited a, b;
	uint64_t start = cis_now_ns(NULL);
	struct rig r;

	rig_open(&r, "delay:time=30ms,off=0,len=4096");
	begin(&r, &a, 0, 0);
	begin(&r, &b, 1, 0);
	assert_int_equal(a.done, 0);
	while (!b.done)
		cis_store_wait(r.store, 0);
	assert_int_equal(a.done, 0);
	while (!a.done)
		cis_store_wait(r.store, 0);
	assert_true(cis_now_ns(NULL) >= start + 30000000);
	rig_close(&r);
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

#define DRAWS 100000u

/* What the layer draws, without waiting for it. */
static const uint64_t *draw(struct cis_layer_opts *o)
{
	static uint64_t drawn[DRAWS];
	struct cis_layer l = { .ctx = o };
	struct cis_store_req req = { .op = CIS_STORE_GET, .len = 1 };

	assert_int_equal(cis_layer_delay.check(o, NULL), 0);
	for (unsigned i = 0; i < DRAWS; i++) {
		struct cis_held h = { .req = &req };

		assert_true(cis_layer_delay.ops.enter(&l, &h));
		cis_layer_delay.ops.leave(&l, &h, 1000);
		drawn[i] = h.due_ns - 1000;
	}
	qsort(drawn, DRAWS, sizeof(drawn[0]), by_value);
	return drawn;
}

static void near(uint64_t value, uint64_t wanted)
{
	assert_in_range(value, wanted * 97 / 100, wanted * 103 / 100);
}

static void delays_are_distributed(void **state)
{
	const uint64_t *d = draw(&(struct cis_layer_opts){ .p50_ns = 1000000, .p99_ns = 20000000 });

	near(d[DRAWS / 2], 1000000);
	assert_in_range(d[DRAWS / 100 * 99], 18500000, 21500000);
	d = draw(&(struct cis_layer_opts){ .p50_ns = 1000000, .p99_ns = 5000000, .how = 1 });
	near(d[DRAWS / 2], 1000000);
	near(d[DRAWS / 100 * 99], 5000000);
	near(d[0], 291000); /* p50 - ln 2 * (p99 - p50) / ln 50 */
	d = draw(&(struct cis_layer_opts){ .min_ns = 1000000, .max_ns = 3000000 });
	near(d[DRAWS / 2], 2000000);
	assert_true(d[0] >= 1000000 && d[DRAWS - 1] <= 3000000);
	d = draw(&(struct cis_layer_opts){ .time_ns = 5000 });
	assert_true(d[0] == 5000 && d[DRAWS - 1] == 5000);
}

/* Bits of @buf that differ from block @block as it is. */
static unsigned bits_off(unsigned block, const uint8_t *buf)
{
	uint8_t good[BLOCK];
	unsigned bits = 0;

	assert_int_equal(pread(object, good, BLOCK, (off_t)block * BLOCK), BLOCK);
	for (unsigned i = 0; i < BLOCK; i++)
		bits += (unsigned)__builtin_popcount(good[i] ^ buf[i]);
	return bits;
}

static void bytes_are_wrong(void **state)
{
	uint8_t buf[BLOCK];
	struct rig r;

	rig_open(&r, "corrupt:every=2");
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(get(&r, i, buf), 0);
		assert_int_equal(bits_off(i, buf), i % 2);
	}
	rig_close(&r);
	rig_open(&r, "corrupt:how=stale");
	assert_int_equal(get(&r, 7, buf), 0);
	assert_int_equal(bits_off(6, buf), 0);
	assert_int_equal(cis_store_get(r.store, (struct cis_key){ 0 }, 100, buf, BLOCK), 0);
	assert_int_equal(bits_off(0, buf), 0);
	rig_close(&r);
	rig_open(&r, "corrupt:how=zeros");
	assert_int_equal(get(&r, 7, buf), 0);
	for (unsigned i = 0; i < BLOCK; i++)
		assert_int_equal(buf[i], 0);
	rig_close(&r);
	rig_open(&r, "corrupt:how=torn");
	assert_int_equal(get(&r, 7, buf), 0);
	for (unsigned i = 0; i < BLOCK; i++)
		assert_int_equal(buf[i], 8);
	rig_close(&r);
}

/* Only the bytes that are asked for count. */
static void wrong_where_it_is_looked_at(void **state)
{
	static struct waited w;
	struct cis_store_req *req = &w.req;
	struct rig r;

	rig_open(&r, "corrupt");
	for (unsigned i = 0; i < 200; i++) {
		w = (struct waited){ .req = { .op = CIS_STORE_GET, .len = BLOCK, .skip = 100, .want = 3, .buf = w.buf,
					      .done = waited_done, .ctx = &w } };
		cis_store_submit(r.store, &req, 1);
		while (!w.done)
			cis_store_wait(r.store, 0);
		assert_true(w.buf[100] != 1 || w.buf[101] != 1 || w.buf[102] != 1);
	}
	rig_close(&r);
}

/* Around a store of pages. */

static const struct cis_key page_key = { { 5, 6 }, 1 << 24 }, other_key = { { 5, 6 }, 2 << 24 };

static void pages_through(const char *text, void (*test)(struct pages_rig *r))
{
	struct pages_place p;
	struct pages_rig r;

	assert_true(pages_subjects[0].start(&p));
	pages_open(&r, p.url, text, NULL);
	test(&r);
	pages_close(&r);
	pages_subjects[0].stop(&p);
}

static void puts_fail(struct pages_rig *r)
{
	uint32_t loc, other;

	assert_int_equal(pages_put(r, page_key, 10, &loc), 0);
	assert_int_equal(pages_get(r, page_key, loc, 10), 0);
	assert_int_equal(pages_put(r, other_key, 10, &other), -ENOSPC);
	assert_int_equal(pages_get(r, other_key, other, 1), -ENOENT);
	assert_int_equal(pages_delete(r, page_key, loc), 0);
}

static void deletes_fail(struct pages_rig *r)
{
	uint32_t loc;

	assert_int_equal(pages_put(r, page_key, 10, &loc), 0);
	assert_int_equal(pages_delete(r, page_key, loc), -EIO);
	assert_int_equal(pages_get(r, page_key, loc, 10), 0);
}

static void values_come_short(struct pages_rig *r)
{
	uint32_t loc;

	assert_int_equal(pages_put(r, page_key, 10, &loc), 0);
	assert_int_equal(pages_get(r, page_key, loc, 10), -ENODATA);
	assert_int_equal(pages_put(r, other_key, 4000, &loc), 0);
	assert_int_equal(pages_get(r, other_key, loc, 4000), -ENODATA); /* which half of the room would not have held */
}

/* It is there, though nobody was told: a delete takes care of it. */
static void puts_are_given_up(struct pages_rig *r)
{
	struct pages_op put;

	pages_op_init(&put, r, CIS_STORE_PUT, page_key, 10);
	pages_submit_one(&put);
	while (!put.req.loc)
		cis_store_wait(r->store, cis_now_ns(NULL) + 1000000);
	assert_int_equal(put.done, 0);
	cis_store_cancel(r->store, &put.req);
	assert_int_equal(put.err, -ECANCELED);
	assert_int_equal(pages_get(r, page_key, put.req.loc, 10), 0);
	assert_int_equal(pages_delete(r, page_key, put.req.loc), 0);
	assert_int_equal(pages_get(r, page_key, put.req.loc, 1), -ENOENT);
}

/* What a get of that has instead of the value: its bits that are wrong, and -1 when the length is. */
static int page_bits_off(struct pages_rig *r, struct cis_key key, uint32_t loc, uint32_t len)
{
	struct pages_op get;
	uint8_t right[CIS_VALUE_MAX];
	int bits = 0;

	pages_op_init(&get, r, CIS_STORE_GET, key, CIS_VALUE_MAX);
	get.req.loc = loc;
	assert_int_equal(pages_do(&get), 0);
	pages_fill(&key, right, len);
	for (uint32_t i = 0; i < len; i++)
		bits += __builtin_popcount(right[i] ^ get.buf[i]);
	assert_int_equal(get.buf[len], 0xee);
	return get.req.got == len ? bits : -1;
}

static void values_are_flipped(struct pages_rig *r)
{
	uint32_t loc;

	assert_int_equal(pages_put(r, page_key, 3, &loc), 0);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(page_bits_off(r, page_key, loc, 3), 1);
}

static void values_are_confused(struct pages_rig *r)
{
	uint32_t loc, other;

	assert_int_equal(pages_put(r, page_key, 1000, &loc), 0);
	assert_int_equal(pages_put(r, other_key, 1000, &other), 0);
	assert_int_equal(page_bits_off(r, page_key, loc, 1000), 0); /* there is no other yet */
	assert_true(page_bits_off(r, other_key, other, 1000) > 1000);
	assert_int_equal(pages_delete(r, other_key, other), 0);
	assert_int_equal(pages_put(r, other_key, 900, &other), 0);
	assert_int_equal(page_bits_off(r, page_key, loc, 1000) != 0, 1);
	assert_int_equal(page_bits_off(r, page_key, loc, 1000), 0);
}

static void claimed_and_dropped(struct pages_rig *r)
{
	uint32_t loc;

	assert_int_equal(pages_put(r, page_key, 10, &loc), 0);
	assert_int_equal(cis_store_claim(r->store, &page_key, loc), -ENOENT); /* it is there */
	r->store->ops->drop(r->store, page_key.ns);
	assert_int_equal(pages_get(r, page_key, loc, 1), -ENOENT);
}

static void around_stores_of_pages(void **state)
{
	struct cis_error err;
	struct cis_store *store;

	pages_through("fault:op=put,every=2,errno=ENOSPC", puts_fail);
	pages_through("fault:op=delete", deletes_fail);
	pages_through("fault:how=short,op=get", values_come_short);
	pages_through("delay:op=put,time=3600s", puts_are_given_up);
	pages_through("corrupt", values_are_flipped);
	pages_through("corrupt:how=stale", values_are_confused);
	pages_through("delay:time=1us+corrupt:from=1000", claimed_and_dropped);
	assert_int_equal(cis_store_file_open(object, &store, &err), 0);
	assert_int_equal(cis_store_throttle_open(store, 1 << 30, &store, &err), 0);
	assert_null(store->ops->drop); /* as has the one below */
	cis_store_close(store);
}

static void refusals(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "falt", "character 1: 'falt' is none of fault, delay, corrupt" },
		{ "fault+", "character 7: '' is none of fault, delay, corrupt" },
		{ "+fault", "character 1: '' is none of fault, delay, corrupt" },
		{ "fault:", "character 7: '' is not KEY=VALUE" },
		{ "fault:every", "character 7: 'every' is not KEY=VALUE" },
		{ "fault:every=3,", "character 15: '' is not KEY=VALUE" },
		{ "fault:evry=3", "character 7: fault has no key 'evry'" },
		{ "corrupt:errno=EIO", "character 9: corrupt has no key 'errno'" },
		{ "fault:every=0", "character 13: every: '0' is not a number from 1 on" },
		{ "fault:every=-1", "character 13: every: '-1' is not a number from 1 on" },
		{ "fault:every=99999999999999999999", "every: '99999999999999999999' is not a number" },
		{ "fault:seed=x", "character 12: seed: 'x' is not a number from 0 on" },
		{ "fault:chance=0", "chance: '0' is not a probability above 0 and up to 1 or 100%" },
		{ "fault:chance=101%", "chance: '101%' is not a probability" },
		{ "fault:chance=nan", "chance: 'nan' is not a probability" },
		{ "fault:errno=EWHAT", "errno: 'EWHAT' is not the name of an error, as EIO" },
		{ "fault:errno=ECANCELED", "errno: 'ECANCELED' is not the name of an error" },
		{ "fault:errno=EIO,how=hang", "character 1: errno goes with how=error alone" },
		{ "fault:how=often", "how: 'often' is none of error|short|hang" },
		{ "fault:how=", "how: '' is none of error|short|hang" },
		{ "fault:op=set", "op: 'set' is none of any|get|put|delete" },
		{ "fault:trigger=x", "trigger: 'x' is not an absolute path" },
		{ "fault:off=x", "off: 'x' is not a size, as 4096 or 64K" },
		{ "fault:for=5", "for: '5' is not a time up to a day, as 20ms or 1.5s" },
		{ "fault:for=inf", "for: 'inf' is not a time" },
		{ "fault:for=9999999999s", "for: '9999999999s' is not a time" },
		{ "delay", "character 1: delay wants one of: time; min and max; p50 and p99" },
		{ "fault+delay:time=1ms,p50=2ms", "character 7: delay wants one of" },
		{ "delay:min=3ms,max=2ms", "min must be less than max" },
		{ "delay:p50=3ms", "p50 and p99 go together" },
		{ "delay:time=1ms,shape=exponential", "shape goes with p50 and p99 alone" },
		{ "delay:p50=1ms,p99=7ms,shape=exponential", "with shape=exponential p99 is at most 6.6 times p50" },
		{ "fault+fault+fault+fault+fault+fault+fault+fault+fault", "more than 8" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct cis_layers *layers;
		struct cis_error err = { .text = "taken" };

		if (!cis_layers_parse(bad[i].text, &layers, &err) || !strstr(err.text, bad[i].why))
			fail_msg("'%s': %s", bad[i].text, err.text);
	}
}

static void no_layers(void **state)
{
	uint8_t buf[BLOCK];
	struct rig r;

	rig_open(&r, "");
	assert_int_equal(get(&r, 0, buf), 0);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(which_requests),	    cmocka_unit_test(for_a_time),
		cmocka_unit_test(counted_over_all_handles), cmocka_unit_test(while_a_file_is_there),
		cmocka_unit_test(hangs),		    cmocka_unit_test(comes_short),
		cmocka_unit_test(as_many_layers_as_there_may_be),
		cmocka_unit_test(order_changes),	    cmocka_unit_test(delays_are_distributed),
		cmocka_unit_test(bytes_are_wrong),	    cmocka_unit_test(wrong_where_it_is_looked_at),
		cmocka_unit_test(refusals),		    cmocka_unit_test(no_layers),
		cmocka_unit_test(around_stores_of_pages),
	};

	make_object();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
