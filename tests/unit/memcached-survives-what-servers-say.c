/*
 * The store memcached and a server that says what no server should: requests end in time with an error, no byte is another key's,
 * and what the server does not say clearly is not taken for "not there".
 */
#include "fake.h"
#include "pages-load.h"
#include "store/memcached/say.h"

#define MS 1000000ull

/** struct script - what is said to stats, to anything else, and before it was asked */
struct script {
	const char *stats, *other, *hello;
	bool endless;	  /* and then more and more */
	bool closes;	  /* after that */
	unsigned answers; /* the requests, as bits, that it is an answer to, whatever follows it */
	int err;	  /* what these end with */
};

#define SAFE "STAT evictions off\r\nSTAT slab_automove 0\r\nEND\r\n"
#define KEY  "cis:00000000000000010000000000000002:3"

static struct fake fake;
static char url[128];
static _Atomic size_t sent_more;

static bool say_more(int fd)
{
	static char more[65536];

	memset(more, '1', sizeof(more));
	while (send(fd, more, sizeof(more), MSG_NOSIGNAL) > 0)
		sent_more += sizeof(more);
	return false;
}

/* The bytes of a set are behind its line. */
static bool skip_value(FILE *in, const char *line)
{
	const char *len = strrchr(line, ' ');
	long n = len ? strtol(len, NULL, 10) + 2 : 0;

	while (n-- > 0)
		if (getc(in) == EOF)
			return false;
	return true;
}

static void serve(struct fake *f, FILE *in, int fd)
{
	const struct script *s = f->ctx;
	char line[2048];

	while (fgets(line, sizeof(line), in)) {
		if (!strncmp(line, "stats", 5)) {
			fake_say(fd, s->stats ? s->stats : SAFE);
			continue;
		}
		if (!strncmp(line, "set ", 4) && !skip_value(in, line))
			return;
		if (s->other)
			fake_say(fd, s->other);
		if (s->closes || (s->endless && !say_more(fd)))
			return;
	}
}

static bool hello(struct fake *f, int fd)
{
	const struct script *s = f->ctx;

	if (s->hello)
		fake_say(fd, s->hello);
	return !s->hello || !s->closes;
}

static int start(void **state)
{
	fake = (struct fake){ .serve = serve, .hello = hello };
	fake_start(&fake);
	snprintf(url, sizeof(url), "memcached://127.0.0.1:%u", fake.port);
	return 0;
}

static int stop(void **state)
{
	fake_stop(&fake);
	return 0;
}

static struct cis_store *open_store(const struct script *s)
{
	struct cis_pages_opts opts = { .size = sizeof(opts) };
	struct cis_store *store;
	struct cis_error err;

	fake.ctx = (void *)s;
	assert_int_equal(cis_pages_open(url, &opts, &store, &err), 0);
	return store;
}

/* The script is read until the connections are closed. */
static void close_store(struct cis_store *store)
{
	cis_store_close(store);
	fake_idle(&fake);
}

static const struct cis_key a_key = { { 1, 2 }, 3 };

static int ask(struct cis_store *store, enum cis_store_op what, uint64_t ns)
{
	static char buf[CIS_VALUE_MAX];

	return load_one(store, what, a_key, buf, what == CIS_STORE_PUT ? 100 : sizeof(buf), cis_now_ns(NULL) + ns, NULL);
}

/* Or what follows would say nothing. */
static void a_good_one_is_believed(void **state)
{
	struct cis_store *store = open_store(&(struct script){ .other = "VALUE " KEY " 0 5\r\nvalue\r\nEND\r\n" });

	assert_int_equal(ask(store, CIS_STORE_GET, 5000 * MS), 0);
	close_store(store);
}

#define GET    (1u << CIS_STORE_GET)
#define PUT    (1u << CIS_STORE_PUT)
#define DELETE (1u << CIS_STORE_DELETE)

static const struct script wrong[] = {
	{ .hello = "", .closes = true },
	{ .hello = "VERSION 1.6\r\n" },
	{ .hello = "END\r\nEND\r\nEND\r\n" },
	{ .hello = "\r\n" },
	{ .stats = "hello\r\n" },
	{ .stats = "STORED\r\n" },
	{ .stats = "VALUE " KEY " 0 5\r\nvalue\r\nEND\r\n" },
	{ .stats = "STAT \r\nEND\r\n" },
	{ .stats = "STAT" },
	{ .other = "STORED\r\n", .answers = PUT },
	{ .other = "DELETED\r\n", .answers = DELETE },
	{ .other = "NOT_FOUND\r\n", .answers = DELETE, .err = -ENOENT },
	{ .other = "END\r\n", .answers = GET, .err = -ENOENT },
	{ .other = "SERVER_ERROR out of memory storing object\r\n", .answers = PUT, .err = -ENOSPC },
	{ .other = "SERVER_ERROR object too large for cache\r\n", .answers = PUT, .err = -EIO },
	{ .other = "SERVER_ERROR out of memory writing get response\r\n" },
	{ .other = "SERVER_ERROR\r\n" },
	{ .other = "CLIENT_ERROR bad data chunk\r\n" },
	{ .other = "ERROR\r\n" },
	{ .other = "END \r\n" },
	{ .other = "END\n" },
	{ .other = "\r\n" },
	{ .other = "END\r\nEND\r\n", .answers = GET, .err = -ENOENT },
	{ .other = "VALUE\r\n" },
	{ .other = "VALUE " KEY "\r\n" },
	{ .other = "VALUE " KEY " 0\r\n" },
	{ .other = "VALUE " KEY " 0 x\r\n" },
	{ .other = "VALUE " KEY " 0 -1\r\n" },
	{ .other = "VALUE " KEY " 0 4353\r\n" },
	{ .other = "VALUE " KEY " 0 4294967295\r\n" },
	{ .other = "VALUE " KEY " 0 18446744073709551614\r\n" },
	{ .other = "VALUE " KEY " 0 5\r\nvalues\r\nEND\r\n" },
	{ .other = "VALUE " KEY " 0 5\r\nvalueEND\r\n" },
	{ .other = "VALUE " KEY " 0 5\r\nval", .closes = true },
	{ .other = "VALUE cis:00000000000000010000000000000002:4 0 5\r\nvalue\r\nEND\r\n" },
	{ .other = "VALUE cis:00000000000000010000000000000002:33 0 5\r\nvalue\r\nEND\r\n" },
	{ .other = "VALUE " KEY " 0 5\r\nvalue\r\nVALUE " KEY " 0 5\r\nvalue\r\nEND\r\n", .answers = GET },
	{ .other = "VALUE " KEY " 0 5\r\nvalue\r\nSTORED\r\n", .answers = GET },
};

static void wrong_ones_are_not(void **state)
{
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct cis_store *store = open_store(&wrong[i]);

		for (int op = CIS_STORE_GET; op <= CIS_STORE_DELETE; op++) {
			bool answers = wrong[i].answers & 1u << op;
			int rc = ask(store, (enum cis_store_op)op, answers ? 5000 * MS : 20 * MS);

			if (rc != (answers ? wrong[i].err : -ETIMEDOUT))
				fail_msg("case %zu, request %d: %d", i, op, rc);
		}
		close_store(store);
	}
}

/* A server in front of others: what they do when they are full is not known. */
static void silence_is_not_safety(void **state)
{
	static const char *const stats[] = { "ERROR\r\n", "CLIENT_ERROR no\r\n", "END\r\n", "STAT evictions maybe\r\nEND\r\n",
					     "STAT evictions 0\r\nEND\r\n", "STAT evictions on\r\nEND\r\n",
					     "STAT evictions off\r\nSTAT slab_automove 1\r\nEND\r\n",
					     "STAT evictions off\r\nSTAT extstore_page_allocs 0\r\nEND\r\n" };

	for (size_t i = 0; i < sizeof(stats) / sizeof(stats[0]); i++) {
		struct cis_store *store = open_store(&(struct script){ .stats = stats[i], .other = "END\r\n" });

		assert_int_equal(ask(store, CIS_STORE_PUT, 5000 * MS), -EPERM);
		assert_int_equal(ask(store, CIS_STORE_GET, 5000 * MS), -ENOENT);
		close_store(store);
	}
}

/* It is cut off when the next connection is made. */
static void endless_ones_are_cut_off(void **state)
{
	static const char *const begins[] = { "", "VALUE " KEY " 0 ", "VALUE ", "STAT " };
	static char buf[CIS_VALUE_MAX];

	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++) {
		struct cis_store *store = open_store(&(struct script){ .other = begins[i], .endless = true });
		struct load_one one = { 0 };
		struct cis_store_req req = { .op = CIS_STORE_GET, .key = a_key, .buf = buf, .len = sizeof(buf), .done = load_one_done,
					     .ctx = &one };
		struct cis_store_req *reqs = &req;

		sent_more = 0;
		fake.accepted = 0;
		cis_store_submit(store, &reqs, 1);
		while (fake.accepted < 2)
			cis_store_wait(store, cis_now_ns(NULL) + MS);
		assert_int_equal(one.over, 0);
		assert_true(sent_more < 32 << 20); /* what sockets hold included */
		cis_store_cancel(store, &req);
		assert_int_equal(one.err, -ECANCELED);
		close_store(store);
	}
}

/* On a connection that waits for nothing. */
static void unasked_ones_break_the_connection(void **state)
{
	static const char *const unasked[] = { "END\r\n", "VALUE " KEY " 0 5\r\nwrong\r\nEND\r\n", "\r\n" };
	struct cis_store *store = open_store(&(struct script){ .other = "VALUE " KEY " 0 5\r\nvalue\r\nEND\r\n" });

	for (size_t i = 0; i < sizeof(unasked) / sizeof(unasked[0]); i++) {
		assert_int_equal(ask(store, CIS_STORE_GET, 5000 * MS), 0);
		fake_say_now(&fake, unasked[i]);
		while (fake.serving) {
			cis_store_reap(store);
			server_pause();
		}
	}
	cis_store_close(store);
}

/* Some of a group come, in their order; one is given up while its bytes come in. */
static void groups_come_apart(void **state)
{
	static const char part[] = "VALUE cis:00000000000000010000000000000002:1 0 3\r\none\r\n"
				   "VALUE cis:00000000000000010000000000000002:3 0 5\r\nth";
	static const char rest[] = "ree\r\nVALUE cis:00000000000000010000000000000002:4 0 4\r\nfour\r\nEND\r\n";
	struct cis_store *store = open_store(&(struct script){ .other = part });
	struct cis_store_req req[5], *reqs[5];
	struct load_one one[5] = { 0 };
	char buf[5][8] = { 0 };

	for (unsigned i = 0; i < 5; i++) {
		req[i] = (struct cis_store_req){ .op = CIS_STORE_GET, .key = { { 1, 2 }, i }, .buf = buf[i], .len = 8, .done = load_one_done,
						 .ctx = &one[i] };
		reqs[i] = &req[i];
	}
	cis_store_submit(store, reqs, 5);
	while (buf[3][1] != 'h')
		cis_store_wait(store, cis_now_ns(NULL) + MS);
	assert_true(one[1].over && !one[0].over && !one[2].over && !one[3].over && !one[4].over);
	cis_store_cancel(store, &req[3]);
	memset(buf[3], 0xee, 8);
	fake_say_now(&fake, rest);
	while (!one[0].over || !one[2].over || !one[4].over)
		cis_store_wait(store, 0);
	assert_int_equal(one[0].err, -ENOENT);
	assert_int_equal(one[1].err, 0);
	assert_int_equal(one[2].err, -ENOENT);
	assert_int_equal(one[3].err, -ECANCELED);
	assert_int_equal(one[4].err, 0);
	assert_memory_equal(buf[1], "one", 3);
	assert_memory_equal(buf[3], "\xee\xee\xee\xee\xee\xee\xee\xee", 8);
	assert_memory_equal(buf[4], "four", 4);
	close_store(store);
}

/* Answers at random, of what answers are made of: anything may come of it but a crash. */
static void random_ones_do_no_harm(void **state)
{
	static const char *const pieces[] = { "VALUE ", KEY, " 0 ", "5", "4352", "\r\n", "\r", "\n", "value", "END\r\n", "STORED\r\n", "STAT ",
					      "SERVER_ERROR", "DELETED", "NOT_FOUND\r\n", " ", "-", "\r\nvalue\r\nEND\r\n" };
	uint64_t x = 7;

	for (int i = 0; i < 100; i++) {
		char reply[400] = "";
		struct script s = { .other = reply, .stats = i % 4 ? NULL : reply };
		struct cis_store *store;
		unsigned n = 1 + (unsigned)(x >> 32) % 12;

		for (unsigned p = 0; p < n; p++)
			strcat(reply, pieces[(x = cis_layer_random(x)) % (sizeof(pieces) / sizeof(pieces[0]))]);
		store = open_store(&s);
		for (int op = CIS_STORE_GET; op <= CIS_STORE_DELETE; op++)
			ask(store, (enum cis_store_op)op, 5 * MS);
		close_store(store);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_one_is_believed),   cmocka_unit_test(wrong_ones_are_not),
		cmocka_unit_test(silence_is_not_safety),    cmocka_unit_test(endless_ones_are_cut_off),
		cmocka_unit_test(groups_come_apart),	    cmocka_unit_test(unasked_ones_break_the_connection),
		cmocka_unit_test(random_ones_do_no_harm),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, start, stop);
}
