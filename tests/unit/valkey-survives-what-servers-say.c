/*
 * The store valkey and a server that says what no server should: requests end in time with an error, nothing is read that was not
 * sent, no memory is filled without bounds, and no password is told to anybody.
 */
#include "pages-load.h"
#include "store/valkey/say.h"
#include "valkey-fake.h"

#define MS 1000000ull

/** struct script - what is said to AUTH, INFO (both NULL: as it should be), CLUSTER SLOTS, anything else, and before it was asked */
struct script {
	const char *auth, *info, *slots, *other, *hello;
	size_t other_len; /* 0: up to its NUL */
	bool cluster;
	bool endless;	  /* and then more and more */
	bool closes;	  /* after that */
	unsigned answers; /* the requests, as bits, that it is an answer to, whatever follows it */
};

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

static bool answer(struct fake *f, int fd, const struct fake_command *c)
{
	const struct script *s = f->ctx;
	const char *text = s->other;

	if (!strcmp(c->arg[0], "INFO") && !s->info)
		return fake_info(fd, s->cluster ? "cluster_enabled:1" : "cluster_enabled:0");
	if (!strcmp(c->arg[0], "INFO"))
		return fake_say(fd, s->info);
	if (!strcmp(c->arg[0], "AUTH"))
		return fake_say(fd, s->auth ? s->auth : "+OK\r\n");
	if (!strcmp(c->arg[0], "CLUSTER"))
		return fake_say(fd, s->slots);
	if (text)
		send(fd, text, s->other_len ? s->other_len : strlen(text), MSG_NOSIGNAL);
	return s->endless ? say_more(fd) : !s->closes;
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
	fake = (struct fake){ .serve = fake_valkey, .answer = answer, .hello = hello };
	fake_start(&fake);
	snprintf(url, sizeof(url), "valkey://pager:s3cret@127.0.0.1:%u", fake.port);
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

static int ask(struct cis_store *store, enum cis_store_op what, uint64_t ns)
{
	static char buf[CIS_VALUE_MAX];
	struct cis_key key = { { 1, 2 }, 3 };

	return load_one(store, what, key, buf, what == CIS_STORE_PUT ? 100 : sizeof(buf), cis_now_ns(NULL) + ns, NULL);
}

/* Until the connection is given up by the store. */
static void until_broken(struct cis_store *store)
{
	while (fake.serving) {
		cis_store_reap(store);
		server_pause();
	}
}

/* Or what follows would say nothing. */
static void a_good_one_is_believed(void **state)
{
	struct cis_store *store = open_store(&(struct script){ .other = "$5\r\nvalue\r\n" });

	assert_int_equal(ask(store, CIS_STORE_GET, 5000 * MS), 0);
	close_store(store);
}

static const struct script wrong[] = {
	{ .hello = "", .closes = true },
	{ .hello = "+OK\r\n+OK\r\n+OK\r\n" },
	{ .hello = "hello\r\n" },
	{ .hello = "-ERR max number of clients reached\r\n", .closes = true },
	{ .hello = "*2147483647\r\n" },
	{ .auth = "$2\r\nOK\r\n" },
	{ .auth = "-ERR max number of clients reached\r\n" },
	{ .info = "+OK\r\n" },
	{ .info = ":1\r\n" },
	{ .info = "*0\r\n" },
	{ .info = "$-1\r\n" },
	{ .info = "$0\r\n\r\n" },
	{ .info = "$12\r\nrole:master\r\n\r\n" },
	{ .info = "$45\r\nrole:master\r\nmaxmemory:\r\nmaxmemory_policy:x\r\n\r\n" },
	{ .info = "-LOADING\r\n" },
	{ .other = "+\r\n" },
	{ .other = ":1\r\n:1\r\n", .answers = 1 << CIS_STORE_PUT | 1 << CIS_STORE_DELETE | 1 << CIS_STORE_DROP },
	{ .other = "$5\r\nvalue\r\n$5\r\nvalue\r\n", .answers = 1 << CIS_STORE_GET },
	{ .other = "$5\r\nvalue\r\n+", .answers = 1 << CIS_STORE_GET },
	{ .other = "$-2\r\n" },
	{ .other = "$99999999999999999999\r\n" },
	{ .other = "*2147483647\r\n" },
	{ .other = "*16384\r\n*16384\r\n*16384\r\n*16384\r\n*16384\r\n*16384\r\n*16384\r\n" },
	{ .other = "*2\r\n$1\r\na\r\n" },
	{ .other = "*-1\r\n" },
	{ .other = "*1\r\n*-1\r\n" },
	{ .other = "%1\r\n+a\r\n+b\r\n" },
	{ .other = "$5\r\nval", .closes = true },
	{ .other = "\0\0\0\0", .other_len = 4 },
	{ .other = "-\r\n" },
	{ .other = "-ERR unknown command, with args beginning with: s3cret\r\n" },
	{ .other = "-MOVED\r\n" },
	{ .other = "-MOVED 1 127.0.0.1:1\r\n" },
	{ .other = "-MOVED 99999 127.0.0.1:1\r\n" },
	{ .other = "-MOVED 1 127.0.0.1:99999\r\n" },
	{ .other = "-ASK 1 \r\n" },
	{ .other = "-READONLY\r\n" },
	{ .other = "-TRYAGAIN\r\n" },
	{ .cluster = true, .slots = "+OK\r\n" },
	{ .cluster = true, .slots = "*0\r\n" },
	{ .cluster = true, .slots = "*1\r\n*0\r\n" },
	{ .cluster = true, .slots = "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n" },
	{ .cluster = true, .slots = "*1\r\n*3\r\n:-1\r\n:5\r\n*2\r\n$1\r\na\r\n:1\r\n" },
	{ .cluster = true, .slots = "*1\r\n*3\r\n:9\r\n:5\r\n*2\r\n$1\r\na\r\n:1\r\n" },
	{ .cluster = true, .slots = "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$3\r\na/b\r\n:1\r\n" },
	{ .cluster = true, .slots = "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n$1\r\n?\r\n:1\r\n" },
	{ .cluster = true, .slots = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n" },
};

static void wrong_ones_are_not(void **state)
{
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct cis_store *store = open_store(&wrong[i]);

		for (int op = CIS_STORE_GET; op <= CIS_STORE_DROP; op++) {
			int rc = ask(store, (enum cis_store_op)op, 20 * MS);

			if (!rc && wrong[i].answers & 1u << op)
				continue;
			if (rc != -ETIMEDOUT && rc != -EIO && rc != -EACCES)
				fail_msg("case %zu, request %d: %d", i, op, rc);
		}
		close_store(store);
	}
}

/* Replies at random, of what replies are made of: anything may come of it but a crash. */
static void random_ones_do_no_harm(void **state)
{
	static const char *const pieces[] = { "+", "-", ":", "$", "*", "\r\n", "\r", "0", "1", "5", "16384", "-1", "OK", "ERR", "MOVED ",
					      "ASK ", "127.0.0.1:1", "value", "\r\n$5\r\nvalue\r\n", "\r\n*1\r\n" };
	uint64_t x = 7;

	for (int i = 0; i < 100; i++) {
		char reply[400] = "";
		struct script s = { .other = reply, .slots = reply, .cluster = i % 2 };
		struct cis_store *store;
		unsigned n = 1 + (unsigned)(x >> 32) % 12;

		for (unsigned p = 0; p < n; p++)
			strcat(reply, pieces[(x = cis_layer_random(x)) % (sizeof(pieces) / sizeof(pieces[0]))]);
		store = open_store(&s);
		for (int op = CIS_STORE_GET; op <= CIS_STORE_DROP; op++)
			ask(store, (enum cis_store_op)op, 5 * MS);
		close_store(store);
	}
}

/* It is cut off when the next connection is made. */
static void endless_ones_are_cut_off(void **state)
{
	static const char *const begins[] = { "$9223372036854775807\r\n", "$999999999\r\n", "+", ":", "*16384\r\n$3333333\r\n" };
	static char buf[CIS_VALUE_MAX];

	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++) {
		struct cis_store *store = open_store(&(struct script){ .other = begins[i], .endless = true });
		struct load_one one = { 0 };
		struct cis_store_req req = { .op = CIS_STORE_GET, .buf = buf, .len = sizeof(buf), .done = load_one_done, .ctx = &one };
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
	static const char *const unasked[] = { "$5\r\nwrong\r\n", "+OK\r\n", "-ERR\r\n", "*0\r\n", "x" };
	struct cis_store *store = open_store(&(struct script){ .other = "$5\r\nvalue\r\n" });

	for (size_t i = 0; i < sizeof(unasked) / sizeof(unasked[0]); i++) {
		assert_int_equal(ask(store, CIS_STORE_GET, 5000 * MS), 0);
		fake_say_now(&fake, unasked[i]);
		until_broken(store);
	}
	cis_store_close(store);
}

static void passwords_are_not_repeated(void **state)
{
	static const struct script echoes[] = {
		{ .auth = "-ERR unknown command `AUTH`, with args beginning with: `pager`, `s3cret`\r\n" },
		{ .auth = "-s3cret\r\n" },
		{ .auth = "$6\r\ns3cret\r\n" },
		{ .auth = "+s3cret\r\n", .info = "-s3cret\r\n" },
		{ .info = "-NOPERM s3cret\r\n" },
		{ .info = "s3cret\r\n" },
		{ .hello = "-s3cret\r\n" },
		{ .hello = "s3cret\r\n" },
	};
	struct cis_error err;

	for (size_t i = 0; i < sizeof(echoes) / sizeof(echoes[0]); i++) {
		fake.ctx = (void *)&echoes[i];
		assert_true(cis_pages_probe(url, 100 * MS, &err) < 0);
		if (strstr(err.text, "s3"))
			fail_msg("%s", err.text);
		fake_idle(&fake);
	}
}

/* What is read by us, in itself. */

static void slots_are_those_of_clusters(void **state)
{
	assert_int_equal(vk_slot("123456789", 9), 0x31c3); /* of the cluster specification */
	assert_int_equal(vk_slot("", 0), 0);
	assert_int_equal(vk_slot("foo", 3), 12182);
}

static void redirections(void **state)
{
	struct vk_redirect to;

	assert_int_equal(vk_error("MOVED 3999 127.0.0.1:6381", 25, &to), VK_ERR_MOVED);
	assert_int_equal(to.slot, 3999);
	assert_string_equal(to.name, "127.0.0.1");
	assert_int_equal(to.port, 6381);
	assert_int_equal(vk_error("ASK 0 ::1:6381", 14, &to), VK_ERR_ASK);
	assert_string_equal(to.name, "::1");
	assert_int_equal(vk_error("MOVED 16383 :1", 14, &to), VK_ERR_MOVED);
	assert_string_equal(to.name, "");
	assert_int_equal(vk_error("MOVED 16384 :1", 14, &to), VK_ERR_OTHER);
	assert_int_equal(vk_error("MOVED 1 a b:1", 13, &to), VK_ERR_OTHER);
	assert_int_equal(vk_error("MOVED 1 a:0", 11, &to), VK_ERR_OTHER);
	assert_int_equal(vk_error("MOVED 1 a:1\0", 12, &to), VK_ERR_OTHER);
}

static void infos(void **state)
{
	static const char text[] = "# X\r\nrole:slave\r\nmaxmemory:1\r\nmaxmemory_policy:allkeys-lru\r\ncluster_enabled:1\r\naof_enabled:1\r\n"
				   "slave0:ip=1.2.3.4,port=1,state=online,offset=1,lag=10\r\n"
				   "slave1:ip=1.2.3.4,port=1,state=online,offset=1,lag=11\r\n"
				   "slave2:ip=1.2.3.4,port=1,state=wait_bgsave,offset=1,lag=0\r\n";
	struct vk_info info;

	assert_int_equal(vk_info(text, &info), 0);
	assert_true(info.evicts && info.cluster && info.keeps && !info.primary);
	assert_int_equal(info.replicas, 1);
	assert_int_equal(vk_info("role:master\nmaxmemory:0\nmaxmemory_policy:allkeys-lru", &info), 0);
	assert_true(!info.evicts && !info.cluster && !info.keeps && info.primary);
	assert_int_equal(vk_info("role:master\nmaxmemory:10\nmaxmemory_policy:noeviction", &info), 0);
	assert_false(info.evicts);
	assert_int_equal(vk_info("role:master\nmaxmemory:10\nmaxmemory_policy:noeviction2", &info), 0);
	assert_true(info.evicts);
	assert_int_equal(vk_info("role:master\nmaxmemory:10\n", &info), -EPROTO);
	assert_int_equal(vk_info("", &info), -EPROTO);
}

static void arrays_are_bounded(void **state)
{
	static const char *const texts[] = { "*16384\r\n", "*16385\r\n", "*1\r\n*2147483647\r\n" };

	for (int i = 0; i < 3; i++) {
		redisReader *reader = redisReaderCreate();
		struct vk_bound bound;
		void *reply;

		vk_bound(&bound, reader);
		assert_int_equal(redisReaderFeed(reader, texts[i], strlen(texts[i])), REDIS_OK);
		assert_int_equal(redisReaderGetReply(reader, &reply), i ? REDIS_ERR : REDIS_OK);
		redisReaderFree(reader);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arrays_are_bounded),
		cmocka_unit_test(slots_are_those_of_clusters), cmocka_unit_test(redirections),
		cmocka_unit_test(infos),		       cmocka_unit_test(a_good_one_is_believed),
		cmocka_unit_test(wrong_ones_are_not),	       cmocka_unit_test(random_ones_do_no_harm),
		cmocka_unit_test(endless_ones_are_cut_off),    cmocka_unit_test(unasked_ones_break_the_connection),
		cmocka_unit_test(passwords_are_not_repeated),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, start, stop);
}
