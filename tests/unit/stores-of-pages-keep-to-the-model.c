/*
 * Stores of pages against a plain model: thousands of random puts, gets, deletes, cancels and deadlines, in batches that overlap, in
 * namespaces that use the same numbers; in a store with room, and in one that is full again and again and has to make some.
 *
 * A page is in one state at a time, and a put or delete of it on its way alone; gets of it come whenever they like.
 */
#include "pages.h"

#include <liburing.h>

#define NAMESPACES 3u
#define PAGES	   2600u
#define OPS	   128u

enum state { NONE, PUTTING, LIVE, DELETING };

/** struct page - @version: grows with whatever changes it; @unsure: a put or delete of it was given up, and may have been done */
struct page {
	struct cis_key key;
	enum state state;
	uint32_t loc, len;
	unsigned version;
	bool unsure;
};

struct model;

/** struct op - @version: of the page, when it was submitted */
struct op {
	struct pages_op op;
	struct model *m;
	struct page *page;
	unsigned version;
	bool busy, was_live, canceled;
};

struct model {
	struct pages_rig rig;
	const struct pages_subject *subject;
	bool small, submitting;
	uint64_t seed;
	struct page page[NAMESPACES][PAGES];
	struct op op[OPS];
	unsigned bias; /* percent of puts among what changes something */
	unsigned moved, refused_to_move, no_room;
};

static uint32_t pick(struct model *m, uint32_t below)
{
	return pages_pick(&m->seed, below);
}

/* With the loc that is going to be another one.  Layers submit one by one, and values are moved from within. */
static bool is_about_to_be_asked_for(const struct model *m, const struct page *page)
{
	for (unsigned i = 0; m->submitting && i < OPS; i++)
		if (m->op[i].busy && m->op[i].page == page)
			return true;
	return false;
}

static bool moved(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to)
{
	struct model *m = ctx;
	struct page *page = &m->page[key->ns[0] - 1][key->id >> 24];

	assert_int_equal(key->id, page->key.id);
	if (page->state != LIVE || page->loc != from || is_about_to_be_asked_for(m, page) || !pick(m, 50)) {
		m->refused_to_move++;
		return false;
	}
	page->loc = to;
	m->moved++;
	return true;
}

static bool gave_up(const struct op *o)
{
	return o->op.err == -ECANCELED ? o->canceled : o->op.err == -ETIMEDOUT && o->op.req.deadline_ns;
}

static void put_done(struct op *o)
{
	struct page *page = o->page;

	page->state = o->op.err ? NONE : LIVE;
	page->loc = o->op.req.loc;
	page->unsure = o->op.err;
	page->version++;
	if (o->op.err == -ENOSPC)
		o->m->no_room++;
	if (o->op.err && o->op.err != -ENOSPC)
		assert_true(gave_up(o));
	if (o->op.err == -ENOSPC)
		assert_true(o->m->small);
}

/* One that was given up may have been done, so its place is not to be named again. */
static void delete_done(struct op *o)
{
	struct page *page = o->page;

	if (!page->unsure && !gave_up(o))
		assert_int_equal(o->op.err, 0);
	page->state = NONE;
	page->unsure = gave_up(o);
	if (page->unsure)
		page->loc = 0;
	page->version++;
}

static void get_done(struct op *o)
{
	const struct page *page = o->page;
	bool same = o->version == page->version;

	if (gave_up(o) || (page->unsure && o->op.err == -ENOENT))
		return;
	if (o->op.err)
		assert_int_equal(o->op.err, -ENOENT);
	if (same && o->was_live)
		assert_int_equal(o->op.err, 0);
	if (same && page->state == NONE && !page->unsure) /* while it is being put or deleted, either may be */
		assert_int_equal(o->op.err, -ENOENT);
	if (o->op.err)
		return;
	assert_int_equal(o->op.req.got, page->len);
	pages_check(&page->key, o->op.buf, page->len);
}

static void done(struct pages_op *op)
{
	struct op *o = (struct op *)op;

	o->busy = false;
	switch (op->req.op) {
	case CIS_STORE_PUT:
		put_done(o);
		break;
	case CIS_STORE_DELETE:
		delete_done(o);
		break;
	case CIS_STORE_GET:
		get_done(o);
		break;
	case CIS_STORE_DROP:
		fail();
	}
}

static struct op *free_op(struct model *m)
{
	for (unsigned i = 0; i < OPS; i++)
		if (!m->op[i].busy)
			return &m->op[i];
	return NULL;
}

/* The same length each time, so that whatever a get finds is checked against it. */
static uint32_t length_of(struct model *m, const struct page *page)
{
	uint64_t seed = page->key.id ^ page->key.ns[0];

	return 1 + pages_pick(&seed, pages_most);
}

static enum cis_store_op choose(struct model *m, const struct page *page)
{
	if (pick(m, 3) == 0)
		return CIS_STORE_GET;
	if (pick(m, 100) < m->bias)
		return page->state == NONE && !page->unsure ? CIS_STORE_PUT : CIS_STORE_GET;
	return page->state == LIVE || (page->state == NONE && page->unsure) ? CIS_STORE_DELETE : CIS_STORE_GET;
}

/* Return: NULL when all are on their way. */
static struct op *new_op(struct model *m)
{
	struct page *page = &m->page[pick(m, NAMESPACES)][pick(m, PAGES)];
	struct op *o = free_op(m);
	enum cis_store_op what = choose(m, page);

	if (!o)
		return NULL;
	o->m = m;
	o->page = page;
	o->busy = true;
	o->canceled = false;
	o->was_live = page->state == LIVE;
	if (what == CIS_STORE_PUT) {
		page->len = length_of(m, page);
		page->state = PUTTING;
	} else if (what == CIS_STORE_DELETE) {
		page->state = DELETING;
	}
	page->version += what != CIS_STORE_GET;
	o->version = page->version;
	pages_op_init(&o->op, &m->rig, what, page->key, what == CIS_STORE_PUT ? page->len : what == CIS_STORE_GET ? CIS_VALUE_MAX : 0);
	o->op.req.loc = page->loc;
	o->op.then = done;
	if (!pick(m, 40))
		o->op.req.deadline_ns = cis_now_ns(NULL) + pick(m, 200000);
	return o;
}

static void submit_some(struct model *m)
{
	struct pages_op *ops[OPS];
	size_t n = 0, most = 1 + pick(m, 64);
	struct op *o;

	while (n < most && (o = new_op(m)))
		ops[n++] = &o->op;
	m->submitting = true;
	if (n)
		pages_submit(ops, n);
	m->submitting = false;
}

static void cancel_some(struct model *m)
{
	for (unsigned i = 0; i < OPS; i++)
		if (m->op[i].busy && !pick(m, 8)) {
			m->op[i].canceled = true;
			cis_store_cancel(m->rig.store, &m->op[i].op.req);
		}
}

static void forget_one(struct model *m)
{
	unsigned ns = pick(m, NAMESPACES);

	pages_drive(&m->rig, 0);
	if (!m->rig.store->ops->drop)
		return;
	m->rig.store->ops->drop(m->rig.store, m->page[ns][0].key.ns);
	for (unsigned i = 0; i < PAGES; i++) {
		m->page[ns][i].state = NONE;
		m->page[ns][i].unsure = false;
		m->page[ns][i].version++;
	}
}

static void step(struct model *m)
{
	submit_some(m);
	switch (pick(m, 8)) {
	case 0:
		cancel_some(m);
		break;
	case 1:
		pages_drive(&m->rig, 0);
		break;
	case 2:
	case 3:
		pages_drive(&m->rig, pick(m, OPS));
		break;
	default:
		cis_store_reap(m->rig.store);
	}
	if (!pick(m, 800))
		forget_one(m);
}

static void check_all(struct model *m)
{
	for (unsigned ns = 0; ns < NAMESPACES; ns++)
		for (unsigned i = 0; i < PAGES; i++) {
			struct page *page = &m->page[ns][i];

			int err = pages_get(&m->rig, page->key, page->loc, page->len);

			if (!page->unsure || err)
				assert_int_equal(err, page->state == LIVE ? 0 : -ENOENT);
		}
}

static void model_init(struct model *m, const struct pages_subject *subject, bool small, uint64_t seed)
{
	*m = (struct model){ .subject = subject, .small = small, .seed = seed };
	for (unsigned ns = 0; ns < NAMESPACES; ns++)
		for (unsigned i = 0; i < PAGES; i++)
			m->page[ns][i].key = (struct cis_key){ { ns + 1, 99 }, (uint64_t)i << 24 };
}

static void run(const struct pages_subject *subject, bool small, unsigned steps)
{
	static struct model m;
	struct cis_pages_opts opts = { .size = sizeof(opts), .moved = moved, .ctx = &m };
	struct pages_place p;
	char url[420];

	if (!subject->start(&p))
		return;
	snprintf(url, sizeof(url), "%s%s", p.url, small ? subject->small : "");
	model_init(&m, subject, small, small + 1);
	pages_open(&m.rig, url, subject->layers, &opts);
	for (unsigned i = 0; i < steps; i++) {
		m.bias = i / (steps / 8) % 2 ? 30 : 75;
		step(&m);
	}
	pages_drive(&m.rig, 0);
	check_all(&m);
	printf("# %s%s: %u moved, %u refused to, %u puts without room\n", subject->name, small ? ", small" : "", m.moved, m.refused_to_move,
	       m.no_room);
	if (small && m.rig.store->ops->claim) {
		assert_true(m.moved > 100);
		assert_true(m.refused_to_move > 0);
	}
	pages_close(&m.rig);
	subject->stop(&p);
}

static void with_room(void **state)
{
	for (size_t i = 0; i < PAGES_SUBJECTS; i++)
		run(&pages_subjects[i], false, 1600);
}

static void without_room(void **state)
{
	for (size_t i = 0; i < PAGES_SUBJECTS; i++)
		if (pages_subjects[i].small)
			run(&pages_subjects[i], true, 2400);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_room),
		cmocka_unit_test(without_room),
	};
	struct io_uring ring;

	if (io_uring_queue_init(8, &ring, 0))
		check_skip("this kernel gives no io_uring here");
	io_uring_queue_exit(&ring);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
