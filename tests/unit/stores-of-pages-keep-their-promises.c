/*
 * What store.h promises of stores of pages, of each of them, alone and with layers around it: each value comes back byte for byte until it
 * is deleted, done comes exactly once, and whatever cannot be done is said.
 */
#include "pages.h"

#define MANY 400

static const struct cis_key a_key = { { 1, 2 }, 7ull << 24 };

static struct cis_key key_of(uint64_t ns, uint64_t id)
{
	return (struct cis_key){ { ns, ~ns }, id << 24 | (id & 0xff) };
}

static struct pages_op *new_ops(size_t n)
{
	struct pages_op *ops = calloc(n, sizeof(*ops));

	assert_non_null(ops);
	return ops;
}

/* All of them at once, in submits of @batch. */
static void submit_all(struct pages_op *ops, size_t n, size_t batch)
{
	for (size_t i = 0; i < n; i += batch) {
		struct pages_op *some[512];
		size_t k;

		for (k = 0; k < batch && i + k < n; k++)
			some[k] = &ops[i + k];
		pages_submit(some, k);
	}
}

/* The same keys and places as @from, for another op. */
static void init_like(struct pages_op *ops, const struct pages_op *from, size_t n, enum cis_store_op what)
{
	for (size_t i = 0; i < n; i++) {
		pages_op_init(&ops[i], from[i].rig, what, from[i].req.key, what == CIS_STORE_GET ? CIS_VALUE_MAX : 0);
		ops[i].req.loc = from[i].req.loc;
	}
}

static void check_got(const struct pages_op *get, const struct pages_op *put)
{
	assert_int_equal(get->err, 0);
	assert_int_equal(get->req.got, put->req.len);
	pages_check(&put->req.key, get->buf, get->req.got);
	assert_int_equal(get->buf[CIS_VALUE_MAX], 0xee);
}

static void sizes(struct pages_rig *r)
{
	struct pages_op *puts = new_ops(pages_most), *others = new_ops(pages_most);

	for (uint32_t i = 0; i < pages_most; i++)
		pages_op_init(&puts[i], r, CIS_STORE_PUT, key_of(5, i), i + 1);
	submit_all(puts, pages_most, 64);
	pages_drive(r, 0);
	init_like(others, puts, pages_most, CIS_STORE_GET);
	submit_all(others, pages_most, 16);
	pages_drive(r, 0);
	for (uint32_t i = 0; i < pages_most; i++) {
		assert_int_equal(puts[i].err, 0);
		check_got(&others[i], &puts[i]);
	}
	init_like(others, puts, pages_most, CIS_STORE_GET);
	for (uint32_t i = 0; i < pages_most; i++)
		others[i].req.len = i + 1 - (i % 2 && i > 1); /* just enough, or a byte too little */
	submit_all(others, pages_most, 64);
	pages_drive(r, 0);
	for (uint32_t i = 0; i < pages_most; i++)
		if (i % 2 && i > 1)
			assert_int_equal(others[i].err, -EMSGSIZE);
		else
			check_got(&others[i], &puts[i]);
	free(puts);
	free(others);
}

static void wrong_sizes(struct pages_rig *r)
{
	uint32_t loc;

	assert_int_equal(pages_put(r, a_key, 0, &loc), -EINVAL);
	assert_int_equal(pages_put(r, a_key, pages_most + 1, &loc), -EMSGSIZE);
	assert_int_equal(pages_get(r, a_key, loc, 1), -ENOENT);
}

static void deleted_is_gone(struct pages_rig *r)
{
	uint32_t loc, other;

	assert_int_equal(pages_get(r, a_key, 0, 1), -ENOENT);
	assert_int_equal(pages_delete(r, a_key, 0), -ENOENT);
	assert_int_equal(pages_put(r, a_key, 1000, &loc), 0);
	assert_int_equal(pages_get(r, a_key, loc, 1000), 0);
	assert_int_equal(pages_delete(r, a_key, loc), 0);
	assert_int_equal(pages_get(r, a_key, loc, 1), -ENOENT);
	assert_int_equal(pages_delete(r, a_key, loc), -ENOENT);
	assert_int_equal(pages_put(r, key_of(1, 8), 900, &other), 0);
	assert_int_equal(pages_get(r, a_key, loc, 1), -ENOENT);
	assert_int_equal(pages_get(r, key_of(1, 8), other, 900), 0);
}

/* The same numbers in two of them, one of which is forgotten. */
static void namespaces_are_apart(struct pages_rig *r)
{
	uint64_t forgotten[] = { 1, ~1ull };
	uint32_t loc[2][50];

	for (uint64_t i = 0; i < 50; i++)
		for (unsigned ns = 0; ns < 2; ns++)
			assert_int_equal(pages_put(r, key_of(ns, i), (uint32_t)(i + 1) * 80, &loc[ns][i]), 0);
	for (uint64_t i = 0; i < 50; i++)
		for (unsigned ns = 0; ns < 2; ns++)
			assert_int_equal(pages_get(r, key_of(ns, i), loc[ns][i], (uint32_t)(i + 1) * 80), 0);
	if (r->store->ops->drop)
		r->store->ops->drop(r->store, forgotten);
	for (uint64_t part = 0; part < r->store->ops->drops; part++)
		assert_int_equal(pages_drop(r, (struct cis_key){ { forgotten[0], forgotten[1] }, part }), 0);
	for (uint64_t i = 0; i < 50; i++) {
		if (!r->store->ops->drop && !r->store->ops->drops)
			assert_int_equal(pages_delete(r, key_of(1, i), loc[1][i]), 0);
		assert_int_equal(pages_get(r, key_of(1, i), loc[1][i], 1), -ENOENT);
		assert_int_equal(pages_get(r, key_of(0, i), loc[0][i], (uint32_t)(i + 1) * 80), 0);
	}
	assert_int_equal(pages_put(r, key_of(1, 3), 77, &loc[1][3]), 0);
	assert_int_equal(pages_get(r, key_of(1, 3), loc[1][3], 77), 0);
}

static void many_in_flight(struct pages_rig *r)
{
	struct pages_op *puts = new_ops(MANY), *more = new_ops(MANY), *gets = new_ops(MANY);

	for (uint32_t i = 0; i < MANY; i++) {
		pages_op_init(&puts[i], r, CIS_STORE_PUT, key_of(i % 7, i), 1 + i * 9);
		pages_op_init(&more[i], r, CIS_STORE_PUT, key_of(i % 3, i + MANY), 4096);
	}
	submit_all(puts, MANY, 100);
	pages_drive(r, 0);
	init_like(gets, puts, MANY, CIS_STORE_GET);
	for (uint32_t i = 0; i < MANY; i += 20) {
		submit_all(&gets[i], 20, 20);
		submit_all(&more[i], 20, 20);
	}
	pages_drive(r, 0);
	for (uint32_t i = 0; i < MANY; i++) {
		check_got(&gets[i], &puts[i]);
		assert_int_equal(more[i].err, 0);
	}
	free(puts);
	free(more);
	free(gets);
}

/* Whether it was stopped or not, it is there or it is not, and a delete makes that certain. */
static void check_stopped(struct pages_op *puts, size_t n, int why)
{
	for (size_t i = 0; i < n; i++) {
		struct cis_store_req *req = &puts[i].req;
		int err;

		assert_int_equal(puts[i].done, 1);
		if (puts[i].err)
			assert_int_equal(puts[i].err, why);
		err = pages_get(puts[i].rig, req->key, req->loc, req->len);
		if (!puts[i].err || err)
			assert_int_equal(err, puts[i].err ? -ENOENT : 0);
		err = pages_delete(puts[i].rig, req->key, req->loc);
		if (!puts[i].err || err)
			assert_int_equal(err, puts[i].err ? -ENOENT : 0);
		assert_int_equal(pages_get(puts[i].rig, req->key, req->loc, 1), -ENOENT);
	}
}

static void canceled(struct pages_rig *r)
{
	struct pages_op *puts = new_ops(MANY), *gets = new_ops(MANY), *kept = new_ops(MANY);

	for (uint32_t i = 0; i < MANY; i++) {
		pages_op_init(&kept[i], r, CIS_STORE_PUT, key_of(i % 3, i), 500 + i);
		pages_op_init(&puts[i], r, CIS_STORE_PUT, key_of(i % 3, i + MANY), 500 + i);
	}
	submit_all(kept, MANY, 64);
	pages_drive(r, 0);
	init_like(gets, kept, MANY, CIS_STORE_GET);
	for (uint32_t i = 0; i < MANY; i++) {
		pages_submit_one(&gets[i]);
		pages_submit_one(&puts[i]);
		if (i % 3 && !gets[i].done)
			cis_store_cancel(r->store, &gets[i].req);
		if (i % 4 && !puts[i / 2].done)
			cis_store_cancel(r->store, &puts[i / 2].req);
	}
	pages_drive(r, 0);
	for (uint32_t i = 0; i < MANY; i++)
		if (gets[i].err)
			assert_int_equal(gets[i].err, -ECANCELED);
		else
			check_got(&gets[i], &kept[i]);
	check_stopped(puts, MANY, -ECANCELED);
	free(puts);
	free(gets);
	free(kept);
}

static void late(struct pages_rig *r)
{
	struct pages_op *puts = new_ops(MANY), *gets = new_ops(MANY), *kept = new_ops(MANY);

	for (uint32_t i = 0; i < MANY; i++)
		pages_op_init(&kept[i], r, CIS_STORE_PUT, key_of(i % 3, i), 500 + i);
	submit_all(kept, MANY, 64);
	pages_drive(r, 0);
	init_like(gets, kept, MANY, CIS_STORE_GET);
	for (uint32_t i = 0; i < MANY; i++) {
		pages_op_init(&puts[i], r, CIS_STORE_PUT, key_of(i % 3, i + MANY), 500 + i);
		puts[i].req.deadline_ns = gets[i].req.deadline_ns = i % 3 ? cis_now_ns(NULL) + i * 1000 : i % 2;
		pages_submit_one(&gets[i]);
		pages_submit_one(&puts[i]);
	}
	pages_drive(r, 0);
	for (uint32_t i = 0; i < MANY; i++)
		if (gets[i].err)
			assert_int_equal(gets[i].err, -ETIMEDOUT);
		else
			check_got(&gets[i], &kept[i]);
	check_stopped(puts, MANY, -ETIMEDOUT);
	free(puts);
	free(gets);
	free(kept);
}

/* A put, from whose done a get, from whose done a delete, from whose done the next put. */
static void chain_goes_on(struct pages_op *op)
{
	struct pages_op old = *op;

	assert_int_equal(op->err, 0);
	switch (old.req.op) {
	case CIS_STORE_PUT:
		init_like(op, &old, 1, CIS_STORE_GET);
		break;
	case CIS_STORE_GET:
		pages_check(&old.req.key, op->buf, old.req.got);
		init_like(op, &old, 1, CIS_STORE_DELETE);
		break;
	case CIS_STORE_DELETE:
		if (old.req.key.id >> 24 == 100)
			return;
		pages_op_init(op, old.rig, CIS_STORE_PUT, key_of(1, (old.req.key.id >> 24) + 1), 1234);
		break;
	case CIS_STORE_DROP:
		fail();
	}
	op->then = chain_goes_on;
	pages_submit_one(op);
}

static void submitted_from_done(struct pages_rig *r)
{
	struct pages_op op;

	pages_op_init(&op, r, CIS_STORE_PUT, key_of(1, 0), 1);
	op.then = chain_goes_on;
	pages_submit_one(&op);
	pages_drive(r, 0);
	assert_int_equal(op.req.key.id >> 24, 100);
}

static struct pages_op *others;

static void cancel_others(struct pages_op *op)
{
	for (size_t i = 0; i < MANY; i++)
		if (!others[i].done)
			cis_store_cancel(op->rig->store, &others[i].req);
}

static void canceled_from_done(struct pages_rig *r)
{
	others = new_ops(MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		pages_op_init(&others[i], r, CIS_STORE_PUT, key_of(1, i), 100 + i);
		others[i].then = cancel_others;
		others[i].done = 1; /* nothing to be cancelled yet */
	}
	for (uint32_t i = 0; i < MANY; i++) {
		others[i].done = 0;
		pages_submit_one(&others[i]);
	}
	pages_drive(r, 0);
	for (uint32_t i = 0; i < MANY; i++)
		others[i].then = NULL;
	check_stopped(others, MANY, -ECANCELED);
	free(others);
}

static void opened_and_closed(struct pages_rig *r)
{
	assert_true(cis_store_fd(r->store) >= 0);
	cis_store_reap(r->store);
	cis_store_wait(r->store, 1);
}

static void with(const struct pages_subject *s, const char *options, void (*test)(struct pages_rig *r))
{
	size_t fds = check_open_fds();
	struct pages_place p;
	struct pages_rig r;
	char url[420];

	printf("# %s\n", s->name);
	if (!s->start(&p))
		return;
	snprintf(url, sizeof(url), "%s%s", p.url, options);
	pages_open(&r, url, s->layers, NULL);
	test(&r);
	pages_close(&r);
	s->stop(&p);
	assert_int_equal(check_open_fds(), fds);
}

static void of_each(void (*test)(struct pages_rig *r))
{
	for (size_t i = 0; i < PAGES_SUBJECTS; i++)
		with(&pages_subjects[i], "", test);
}

#define EACH(test)                       \
	static void each_##test(void **s) \
	{                                \
		of_each(test);           \
	}
EACH(sizes)
EACH(wrong_sizes)
EACH(deleted_is_gone)
EACH(namespaces_are_apart)
EACH(many_in_flight)
EACH(canceled)
EACH(late)
EACH(submitted_from_done)
EACH(canceled_from_done)
EACH(opened_and_closed)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_sizes),		    cmocka_unit_test(each_wrong_sizes),
		cmocka_unit_test(each_deleted_is_gone),	    cmocka_unit_test(each_namespaces_are_apart),
		cmocka_unit_test(each_many_in_flight),	    cmocka_unit_test(each_canceled),
		cmocka_unit_test(each_late),		    cmocka_unit_test(each_submitted_from_done),
		cmocka_unit_test(each_canceled_from_done), cmocka_unit_test(each_opened_and_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
