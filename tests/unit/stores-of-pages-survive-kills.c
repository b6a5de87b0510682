/*
 * A process that uses a store of pages is killed, at random instants between and within its calls, with writes on their way; another one
 * claims what the words say that survive it, as page words do, and has each byte back.  What it writes then is written over nothing of
 * that, whoever wrote it.
 *
 * Each process goes on where the one before was killed, in a store that is small, so that values are moved about too.
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "pages.h"

#define NAMESPACES 3u
#define PAGES	   1500u
#define OPS	   64u
#define KILLS	   24u

/* A word of a page: 0, or its length << 32 | loc. */
static _Atomic uint64_t (*words)[PAGES];

static atomic_uint *moves; /* of all processes */

struct op {
	struct pages_op op;
	_Atomic uint64_t *word;
	bool busy;
};

static struct op ops[OPS];
static uint64_t seed;
static unsigned instants; /* until the end */

static void instant(void)
{
	if (!--instants)
		raise(SIGKILL);
}

static struct cis_key key_of(unsigned ns, unsigned page)
{
	return (struct cis_key){ { ns + 1, 7 }, (uint64_t)page << 24 };
}

static bool moved(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to)
{
	_Atomic uint64_t *word = &words[key->ns[0] - 1][key->id >> 24];
	uint64_t w = atomic_load(word);

	if (!w || (uint32_t)w != from)
		return false;
	instant();
	atomic_store(word, w >> 32 << 32 | to);
	atomic_fetch_add(moves, 1);
	instant();
	return true;
}

static void done(struct pages_op *op)
{
	struct op *o = (struct op *)op;

	o->busy = false;
	if (op->req.op != CIS_STORE_PUT || op->err == -ENOSPC)
		return;
	assert_int_equal(op->err, 0);
	instant();
	atomic_store(o->word, (uint64_t)op->req.len << 32 | op->req.loc);
	instant();
}

static bool word_is_busy(const _Atomic uint64_t *word)
{
	for (unsigned i = 0; i < OPS; i++)
		if (ops[i].busy && ops[i].word == word)
			return true;
	return false;
}

static struct pages_op *new_op(struct pages_rig *r)
{
	unsigned ns = pages_pick(&seed, NAMESPACES), page = pages_pick(&seed, PAGES), i;
	_Atomic uint64_t *word = &words[ns][page];
	uint64_t w = atomic_load(word);
	struct op *o;

	for (i = 0; i < OPS && ops[i].busy; i++)
		;
	if (i == OPS || word_is_busy(word))
		return NULL;
	o = &ops[i];
	o->busy = true;
	o->word = word;
	pages_op_init(&o->op, r, w ? CIS_STORE_DELETE : CIS_STORE_PUT, key_of(ns, page), w ? 0 : 1 + pages_pick(&seed, pages_most));
	o->op.req.loc = (uint32_t)w;
	o->op.then = done;
	atomic_store(word, 0);
	return &o->op;
}

static void use(struct pages_rig *r)
{
	struct pages_op *some[OPS], *op;
	size_t n = 0, most = 1 + pages_pick(&seed, OPS);

	while (n < most && (op = new_op(r)))
		some[n++] = op;
	if (n)
		pages_submit(some, n);
	instant();
	if (pages_pick(&seed, 3))
		cis_store_reap(r->store);
	else
		pages_drive(r, pages_pick(&seed, OPS));
	instant();
}

static void adopt(struct pages_rig *r)
{
	for (unsigned ns = 0; ns < NAMESPACES; ns++)
		for (unsigned i = 0; i < PAGES; i++) {
			struct cis_key key = key_of(ns, i);
			uint64_t w = atomic_load(&words[ns][i]);

			if (w)
				assert_int_equal(cis_store_claim(r->store, &key, (uint32_t)w), 0);
		}
}

static unsigned check(struct pages_rig *r)
{
	unsigned live = 0;

	for (unsigned ns = 0; ns < NAMESPACES; ns++)
		for (unsigned i = 0; i < PAGES; i++) {
			uint64_t w = atomic_load(&words[ns][i]);

			if (w)
				assert_int_equal(pages_get(r, key_of(ns, i), (uint32_t)w, (uint32_t)(w >> 32)), 0);
			live += w != 0;
		}
	return live;
}

static void __attribute__((noreturn)) child(const struct pages_subject *subject, const char *url, unsigned round)
{
	struct cis_pages_opts opts = { .size = sizeof(opts), .moved = moved };
	struct pages_rig r;

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	seed = round * 1000 + 1;
	instants = 0;
	pages_open(&r, url, subject->layers, &opts);
	adopt(&r);
	if (round % 4 == 0)
		check(&r);
	for (instants = 1 + pages_pick(&seed, round % 2 ? 100 : 4000);;)
		use(&r);
}

static void killed_again_and_again(const struct pages_subject *subject)
{
	struct cis_pages_opts opts = { .size = sizeof(opts), .moved = moved };
	struct pages_place p;
	struct pages_rig r;
	char url[420];

	if (!subject->start(&p))
		return;
	snprintf(url, sizeof(url), "%s%s", p.url, subject->small ? subject->small : "");
	for (unsigned i = 0; i < KILLS; i++) {
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (!pid)
			child(subject, url, i);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGKILL);
	}
	pages_open(&r, url, subject->layers, &opts);
	adopt(&r);
	printf("# %s: %u alive in the end, %u were moved\n", subject->name, check(&r), atomic_load(moves));
	pages_close(&r);
	subject->stop(&p);
}

static void each_survives(void **state)
{
	for (size_t i = 0; i < PAGES_SUBJECTS; i++) {
		memset(words, 0, sizeof(*words) * NAMESPACES);
		atomic_store(moves, 0);
		killed_again_and_again(&pages_subjects[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(each_survives) };
	void *shared = mmap(NULL, sizeof(*words) * NAMESPACES + sizeof(*moves), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared == MAP_FAILED)
		return 1;
	words = shared;
	moves = (atomic_uint *)(words + NAMESPACES);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
