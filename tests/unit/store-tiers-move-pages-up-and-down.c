/*
 * tier: what has not been asked for goes to the next store, what is asked for comes back, a store holds no more than it may, and whatever
 * happens in between no copy is left that nobody knows of.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "pages.h"
#include "store/tier/tier.h"

#define PAGES 1500u
#define BYTES 2000u /* of most values */

/** struct owner - what a guest's page words say: locs, 0: none; in shared memory */
struct owner {
	uint32_t loc[PAGES];
	unsigned asked, moved;
	bool refuses;
	int dies; /* when so many have been asked for; before (1) or behind (2) the word */
	unsigned dies_at;
};

static struct owner *owner;
static uint32_t bytes = BYTES;

/* @mixed: memcached before files; else files before memcached */
struct rig {
	struct pages_place p;
	struct pages_rig r;
	bool mixed;
};

static struct cis_key key_of(unsigned page)
{
	return (struct cis_key){ { 11, 22 }, (uint64_t)page << 24 | 1 };
}

static bool moved(void *ctx, const struct cis_key *key, uint32_t from, uint32_t to)
{
	uint32_t *loc = &owner->loc[key->id >> 24];
	bool dies = owner->dies && owner->asked++ == owner->dies_at;

	assert_true(key->ns[0] == 11 && key->ns[1] == 22);
	if (dies && owner->dies == 1)
		raise(SIGKILL);
	if (owner->refuses || *loc != from)
		return false;
	*loc = to;
	owner->moved++;
	if (dies)
		raise(SIGKILL);
	return true;
}

static const struct cis_pages_opts opts = { .size = sizeof(opts), .moved = moved };

static struct tier *tier_of(struct rig *r)
{
	return (struct tier *)r->r.store;
}

static unsigned level_of(unsigned page)
{
	return owner->loc[page] >> 31;
}

static void begin(struct rig *r, bool memcached_first)
{
	memset(owner, 0, sizeof(*owner));
	r->mixed = memcached_first;
	if (memcached_first)
		pages_start_memcached_and_file(&r->p);
	else
		pages_start_file_and_memcached(&r->p);
	pages_open(&r->r, r->p.url, NULL, &opts);
}

static void end(struct rig *r)
{
	pages_close(&r->r);
	pages_stop_both(&r->p);
}

static void put(struct rig *r, unsigned page)
{
	assert_int_equal(pages_put(&r->r, key_of(page), bytes, &owner->loc[page]), 0);
}

static void put_all(struct rig *r)
{
	for (unsigned i = 0; i < PAGES; i++)
		put(r, i);
}

static int get(struct rig *r, unsigned page)
{
	return pages_get(&r->r, key_of(page), owner->loc[page], bytes);
}

static void get_all(struct rig *r)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (owner->loc[i])
			assert_int_equal(get(r, i), 0);
}

static void delete_all(struct rig *r)
{
	for (unsigned i = 0; i < PAGES; i++)
		if (owner->loc[i])
			assert_int_equal(pages_delete(&r->r, key_of(i), owner->loc[i]), 0);
	memset(owner->loc, 0, sizeof(owner->loc));
}

/* Until nothing has to move any more. */
static void settle(struct rig *r)
{
	struct tier *t = tier_of(r);

	cis_store_reap(r->r.store);
	while (t->nr_moves || t->level[0].drain_to != UINT64_MAX) {
		poll(&(struct pollfd){ .fd = cis_store_fd(r->r.store), .events = POLLIN }, 1, 1);
		cis_store_reap(r->r.store);
	}
}

static unsigned nr_in(unsigned level)
{
	unsigned n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		n += owner->loc[i] && level_of(i) == level;
	return n;
}

static unsigned long stat_of(const struct rig *r, const char *name)
{
	int fd = memcached_connect(&r->p.server);
	FILE *f = fdopen(fd, "r+");
	unsigned long value = 0;
	char line[200], found[100];

	assert_non_null(f);
	fputs("stats\r\n", f);
	fflush(f);
	while (fgets(line, sizeof(line), f) && strncmp(line, "END", 3)) {
		unsigned long n;

		if (sscanf(line, "STAT %99s %lu", found, &n) == 2 && !strcmp(found, name))
			value = n;
	}
	fclose(f);
	return value;
}

static unsigned nr_files(const struct rig *r)
{
	DIR *dir = opendir(r->p.folder);
	unsigned n = 0;

	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));)
		n += *e->d_name != '.';
	closedir(dir);
	return n;
}

/* All was deleted: neither server nor folder has anything, and nothing is counted. */
static void nothing_is_left(struct rig *r)
{
	struct tier *t = tier_of(r);

	settle(r);
	assert_int_equal(t->level[0].used, 0);
	assert_int_equal(t->level[0].leaving, 0);
	assert_int_equal(t->level[0].oldest, 0);
	assert_int_equal(stat_of(r, "curr_items"), 0);
	assert_int_equal(nr_files(r), 0);
}

static void of_both(void (*test)(struct rig *r))
{
	for (int i = 0; i < 2; i++) {
		struct rig r;

		begin(&r, i);
		test(&r);
		end(&r);
	}
}

static void go_down(struct rig *r)
{
	struct tier *t = tier_of(r);

	for (unsigned i = 0; i < PAGES; i++) {
		put(r, i);
		if (i % 20 == 0)
			settle(r); /* what comes while it is full goes past it */
	}
	settle(r);
	assert_in_range(nr_in(0), (1 << 20) / 2 / BYTES, (1 << 20) / BYTES);
	assert_int_equal(t->level[0].used, nr_in(0) * BYTES);
	assert_int_equal(stat_of(r, "curr_items"), nr_in(!r->mixed));
	for (unsigned i = 0; i < 100; i++) { /* the first ones were first */
		assert_int_equal(level_of(i), 1);
		assert_int_equal(level_of(PAGES - 1 - i), 0);
	}
	get_all(r);
	settle(r);
	get_all(r);
	settle(r);
	delete_all(r);
	nothing_is_left(r);
}

static void the_oldest_go_down(void **state)
{
	of_both(go_down);
}

static void stay(struct rig *r)
{
	for (unsigned i = 0; i < PAGES; i++) {
		put(r, i);
		for (unsigned k = 0; i % 100 == 0 && k < 50; k++)
			if (k < i)
				assert_int_equal(get(r, k), 0);
	}
	settle(r);
	for (unsigned i = 1; i < 50; i++)
		assert_int_equal(level_of(i), 0);
	assert_int_equal(level_of(60), 1);
}

static void those_that_are_asked_for_stay(void **state)
{
	of_both(stay);
}

static void delete_at_once(struct pages_op *op)
{
	static struct pages_op del;

	assert_int_equal(op->err, 0);
	pages_op_init(&del, op->rig, CIS_STORE_DELETE, op->req.key, 0);
	del.req.loc = op->req.loc;
	pages_submit_one(&del);
}

static void come_up(struct rig *r)
{
	unsigned long sets;
	struct pages_op op;

	put_all(r);
	settle(r);
	for (unsigned i = 0; i < PAGES; i += 2) /* room */
		if (level_of(i) == 0) {
			assert_int_equal(pages_delete(&r->r, key_of(i), owner->loc[i]), 0);
			owner->loc[i] = 0;
		}
	owner->moved = 0;
	assert_int_equal(get(r, 7), 0);
	assert_int_equal(level_of(7), 1);
	settle(r);
	assert_int_equal(level_of(7), 0);
	assert_int_equal(owner->moved, 1);
	assert_int_equal(get(r, 7), 0);

	/* Whoever writes to it has no use for a copy. */
	sets = stat_of(r, "cmd_set");
	pages_op_init(&op, &r->r, CIS_STORE_GET, key_of(8), CIS_VALUE_MAX);
	op.req.loc = owner->loc[8];
	op.then = delete_at_once;
	pages_submit_one(&op);
	pages_drive(&r->r, 0);
	owner->loc[8] = 0;
	assert_int_equal(get(r, 9), 0);
	assert_int_equal(pages_delete(&r->r, key_of(9), owner->loc[9]), 0);
	owner->loc[9] = 0;
	pages_op_init(&op, &r->r, CIS_STORE_GET, key_of(10), CIS_VALUE_MAX);
	op.req.loc = owner->loc[10];
	pages_submit_one(&op);
	assert_int_equal(pages_delete(&r->r, key_of(10), owner->loc[10]), 0);
	owner->loc[10] = 0;
	pages_drive(&r->r, 0);
	settle(r);
	assert_int_equal(stat_of(r, "cmd_set"), sets);
	assert_int_equal(owner->moved, 1);
	delete_all(r);
	nothing_is_left(r);
}

static void those_that_are_asked_for_come_up(void **state)
{
	of_both(come_up);
}

static void owner_says_no(struct rig *r)
{
	owner->refuses = true;
	put_all(r);
	for (int i = 0; i < 100; i++) {
		poll(&(struct pollfd){ .fd = cis_store_fd(r->r.store), .events = POLLIN }, 1, 2);
		cis_store_reap(r->r.store);
	}
	get_all(r);
	assert_int_equal(owner->moved, 0);
	delete_all(r);
	nothing_is_left(r);
}

static void where_its_owner_says_no_it_stays(void **state)
{
	of_both(owner_says_no);
}

/* Pages are deleted while they are on their way, at every stage of that. */
static void deleted_under_way(struct rig *r)
{
	struct pages_op *ops = calloc(PAGES, sizeof(*ops));

	for (unsigned round = 0; round < 4; round++) {
		put_all(r);
		for (unsigned i = 0; i < PAGES; i++) {
			pages_op_init(&ops[i], &r->r, CIS_STORE_DELETE, key_of(i), 0);
			ops[i].req.loc = owner->loc[i];
			owner->loc[i] = 0;
			pages_submit_one(&ops[i]);
			if (i % 5 == round)
				cis_store_reap(r->r.store);
		}
		pages_drive(&r->r, 0);
		for (unsigned i = 0; i < PAGES; i++)
			assert_int_equal(ops[i].err, 0);
		nothing_is_left(r);
	}
	free(ops);
}

static void pages_are_deleted_under_way(void **state)
{
	of_both(deleted_under_way);
}

static void __attribute__((noreturn)) child(const char *url)
{
	struct rig r = { 0 };

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	pages_open(&r.r, url, NULL, &opts);
	put_all(&r);
	settle(&r);
	_exit(0);
}

/* Puts that were under way are done once more, as an engine does. */
static void adopt(struct rig *r)
{
	for (unsigned i = 0; i < PAGES; i++) {
		struct cis_key key = key_of(i);

		if (owner->loc[i])
			assert_int_equal(cis_store_claim(r->r.store, &key, owner->loc[i]), 0);
	}
	for (unsigned i = 0; i < PAGES; i++)
		if (!owner->loc[i])
			put(r, i);
}

static void killed(struct rig *r, int when, unsigned at)
{
	int status;
	pid_t pid;

	memset(owner, 0, sizeof(*owner));
	owner->dies = when;
	owner->dies_at = at;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		child(r->p.url);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	owner->dies = 0;
	pages_open(&r->r, r->p.url, NULL, &opts);
	adopt(r);
	if (at % 2) {
		get_all(r);
		settle(r);
		get_all(r);
	}
	delete_all(r);
	nothing_is_left(r);
}

/* Before and after the owner's word is changed. */
static void is_killed(struct rig *r)
{
	static const unsigned at[] = { 0, 1, 40, 333 };

	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		for (int when = 1; when <= 2; when++) {
			pages_close(&r->r);
			killed(r, when, at[i]);
		}
}

static void nothing_is_left_of_one_that_was_killed(void **state)
{
	of_both(is_killed);
}

/* Without those that it had, all goes on. */
static void a_store_that_is_away_gets_none(void **state)
{
	static const char *const safe[] = { MEMCACHED_SAFE, NULL };
	struct rig r;
	unsigned lost = 0;

	begin(&r, true);
	for (unsigned i = 0; i < 100; i++)
		put(&r, i);
	server_kill(&r.p.server);
	for (unsigned i = 100; i < 200; i++) {
		struct pages_op op;
		int rc;

		pages_op_init(&op, &r.r, CIS_STORE_PUT, key_of(i), BYTES);
		op.req.deadline_ns = cis_now_ns(NULL) + 200000000u;
		rc = pages_do(&op);
		if (rc)
			assert_int_equal(rc, -ETIMEDOUT);
		else
			owner->loc[i] = op.req.loc;
		lost += rc != 0;
	}
	assert_in_range(lost, 1, 10); /* it is tried again each second */
	assert_int_equal(nr_in(1), 100 - lost);
	memcached_restart(&r.p.server, safe);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(get(&r, i), -ENOENT);
		owner->loc[i] = 0;
	}
	get_all(&r);
	end(&r);
}

static void one_that_may_lose_pages_gets_none(void **state)
{
	struct cis_error err = { 0 };
	struct rig r = { 0 };

	memset(owner, 0, sizeof(*owner));
	memcached_start(&r.p.server, false, NULL);
	pages_start_file(&r.p);
	snprintf(r.p.url, sizeof(r.p.url), "tier:bytes=1M,%s+file:%s", r.p.server.url, r.p.folder);
	assert_int_equal(cis_pages_probe(r.p.url, 5000000000u, &err), -EPERM);
	assert_non_null(strstr(err.text, "store tier: store 1: memcached"));
	assert_non_null(strstr(err.text, "start it with -M"));
	pages_open(&r.r, r.p.url, NULL, &opts);
	for (unsigned i = 0; i < 50; i++)
		put(&r, i);
	assert_int_equal(nr_in(1), 50);
	get_all(&r);
	settle(&r);
	assert_int_equal(nr_in(1), 50);
	end(&r);
}

/* A level has part of the places that a loc can name. */
static void files_are_as_large_as_locs_reach(void **state)
{
	struct rig r = { 0 };
	struct stat st;
	char path[400] = "";
	DIR *dir;

	pages_start_files(&r.p);
	strcat(r.p.url, "?size=4T");
	memset(owner, 0, sizeof(*owner));
	pages_open(&r.r, r.p.url, NULL, &opts);
	tier_of(&r)->level[0].capacity = 0; /* what comes goes behind it */
	put(&r, 1);
	assert_int_equal(level_of(1), 1);
	assert_int_equal(get(&r, 1), 0);
	dir = opendir(r.p.slow_folder);
	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));)
		if (*e->d_name != '.')
			snprintf(path, sizeof(path), "%s/%s", r.p.slow_folder, e->d_name);
	closedir(dir);
	assert_int_equal(stat(path, &st), 0);
	assert_in_range(st.st_size, 1 << 20, 128ull << 30);
	pages_close(&r.r);
	pages_stop_files(&r.p);
}

/* A file moves values about in itself, once it has 8 MiB. */
static void places_change_within_a_level(void **state)
{
	struct rig r = { 0 };

	bytes = CIS_VALUE_MAX;
	memset(owner, 0, sizeof(*owner));
	pages_start_memcached(&r.p);
	pages_start_file(&r.p);
	snprintf(r.p.url, sizeof(r.p.url), "tier:bytes=16M,file:%s+%s", r.p.folder, r.p.server.url);
	pages_open(&r.r, r.p.url, NULL, &opts);
	put_all(&r);
	for (unsigned i = 0; i < PAGES; i++)
		if (i % 3) {
			assert_int_equal(pages_delete(&r.r, key_of(i), owner->loc[i]), 0);
			owner->loc[i] = 0;
		}
	while (owner->moved < 20) {
		poll(&(struct pollfd){ .fd = cis_store_fd(r.r.store), .events = POLLIN }, 1, 10);
		cis_store_reap(r.r.store);
	}
	assert_int_equal(nr_in(1), 0);
	get_all(&r);
	delete_all(&r);
	nothing_is_left(&r);
	end(&r);
	bytes = BYTES;
}

static void whole_namespaces_go(void **state)
{
	static const uint64_t ns[2] = { 11, 22 };
	struct rig r = { 0 };

	memset(owner, 0, sizeof(*owner));
	pages_start_files(&r.p);
	pages_open(&r.r, r.p.url, NULL, &opts);
	for (int round = 0; round < 5; round++) {
		unsigned from = round % 2 ? 300 : 0;

		for (unsigned i = from; i < PAGES; i++)
			put(&r, i); /* and some are on their way */
		memset(owner->loc, 0, sizeof(owner->loc));
		r.r.store->ops->drop(r.r.store, ns);
		assert_int_equal(tier_of(&r)->level[0].used, 0);
		assert_int_equal(nr_files(&r), 0);
	}
	put_all(&r);
	get_all(&r);
	settle(&r);
	assert_int_equal(tier_of(&r)->level[0].used, nr_in(0) * BYTES);
	get_all(&r);
	pages_close(&r.r);
	pages_stop_files(&r.p);
}

/* By requests, of a store that has to be told more than once. */
static void whole_namespaces_go_by_parts(void **state)
{
	struct rig r = { 0 };

	memset(owner, 0, sizeof(*owner));
	pages_start_file_and_valkey(&r.p);
	pages_open(&r.r, r.p.url, NULL, &opts);
	for (int round = 0; round < 2; round++) {
		put_all(&r);
		for (uint64_t part = 0; part < r.r.store->ops->drops; part++)
			assert_int_equal(pages_drop(&r.r, (struct cis_key){ { 11, 22 }, part }), 0);
		assert_int_equal(tier_of(&r)->level[0].used, 0);
		assert_int_equal(nr_files(&r), 0);
		for (unsigned i = 0; i < PAGES; i++)
			assert_int_equal(get(&r, i), -ENOENT);
		memset(owner->loc, 0, sizeof(owner->loc));
	}
	end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_oldest_go_down),
		cmocka_unit_test(those_that_are_asked_for_stay),
		cmocka_unit_test(those_that_are_asked_for_come_up),
		cmocka_unit_test(where_its_owner_says_no_it_stays),
		cmocka_unit_test(pages_are_deleted_under_way),
		cmocka_unit_test(nothing_is_left_of_one_that_was_killed),
		cmocka_unit_test(a_store_that_is_away_gets_none),
		cmocka_unit_test(one_that_may_lose_pages_gets_none),
		cmocka_unit_test(files_are_as_large_as_locs_reach),
		cmocka_unit_test(places_change_within_a_level),
		cmocka_unit_test(whole_namespaces_go),
		cmocka_unit_test(whole_namespaces_go_by_parts),
	};

	alarm(200);
	owner = mmap(NULL, sizeof(*owner), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return owner == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
