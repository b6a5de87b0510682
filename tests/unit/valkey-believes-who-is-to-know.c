/*
 * The store valkey and a cluster whose servers are not of one mind: a primary that was replaced while it stood still, and does
 * not know it.  That a page is not there is not taken from it, nor an acknowledgement; it need not answer; and a redirection
 * for one request is followed for that one.
 */
#include "pages-load.h"
#include "valkey-fake.h"

#define SECOND 1000000000ull

/** struct node - a server of the cluster: what it answers to GET (NULL: nothing, ever), and whom it takes for the primary of all */
struct node {
	struct fake fake;
	const char *get;
	struct node *_Atomic primary;
	const char *_Atomic replicas; /* of its INFO */
	atomic_uint puts, maps, waits;
};

static struct node old, new;

/* A primary of one half, the other half being somebody's who never speaks: so it is not the only one. */
static bool say_map(int fd, const struct node *n)
{
	char text[400], port[8];

	snprintf(port, sizeof(port), "%u", n->primary->fake.port);
	snprintf(text, sizeof(text), "*2\r\n*3\r\n:0\r\n:16382\r\n*2\r\n$9\r\n127.0.0.1\r\n:%s\r\n"
		 "*3\r\n:16383\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%u\r\n", port, n->primary == &old ? new.fake.port : old.fake.port);
	return fake_say(fd, text);
}

static bool answer(struct fake *f, int fd, const struct fake_command *c)
{
	struct node *n = f->ctx;
	char text[200];

	if (!strcmp(c->arg[0], "INFO")) {
		snprintf(text, sizeof(text), "cluster_enabled:1\r\n%s", n->replicas);
		return fake_info(fd, text);
	}
	if (!strcmp(c->arg[0], "CLUSTER")) {
		n->maps++;
		return say_map(fd, n);
	}
	if (!strcmp(c->arg[0], "WAIT")) {
		n->waits++;
		return fake_say(fd, ":0\r\n");
	}
	if (!strcmp(c->arg[0], "HSET")) {
		n->puts++;
		return fake_say(fd, ":1\r\n");
	}
	if (n->get && !strcmp(n->get, "ask") && !c->asked) {
		snprintf(text, sizeof(text), "-ASK 1 127.0.0.1:%u\r\n", new.fake.port);
		return fake_say(fd, text);
	}
	if (n->get && !strcmp(n->get, "if asked")) {
		snprintf(text, sizeof(text), "-MOVED 1 127.0.0.1:%u\r\n", old.fake.port);
		return fake_say(fd, c->asked ? "$5\r\nvalue\r\n" : text);
	}
	return !n->get || fake_say(fd, n->get);
}

static int start(void **state)
{
	old = (struct node){ .fake = { .serve = fake_valkey, .answer = answer, .ctx = &old }, .primary = &old, .replicas = "" };
	new = (struct node){ .fake = { .serve = fake_valkey, .answer = answer, .ctx = &new }, .primary = &new, .replicas = "",
			     .get = "$5\r\nvalue\r\n" };
	fake_start(&old.fake);
	fake_start(&new.fake);
	return 0;
}

static int stop(void **state)
{
	fake_stop(&old.fake);
	fake_stop(&new.fake);
	return 0;
}

/* Known by the old one alone at first: the map is its own. */
static struct cis_store *open_store(void)
{
	struct cis_pages_opts opts = { .size = sizeof(opts) };
	struct cis_store *store;
	struct cis_error err;
	char url[64];

	snprintf(url, sizeof(url), "valkey://127.0.0.1:%u", old.fake.port);
	assert_int_equal(cis_pages_open(url, &opts, &store, &err), 0);
	return store;
}

static int ask(struct cis_store *store, enum cis_store_op what, uint64_t ns)
{
	static char buf[CIS_VALUE_MAX];
	struct cis_key key = { { 1, 2 }, 3 };

	return load_one(store, what, key, buf, what == CIS_STORE_PUT ? 100 : sizeof(buf), cis_now_ns(NULL) + ns, NULL);
}

static void what_it_misses_is_looked_for(void **state)
{
	struct cis_store *store = open_store();

	old.get = "$-1\r\n";
	assert_int_equal(ask(store, CIS_STORE_GET, 5 * SECOND), 0);
	cis_store_close(store);
}

static void what_nobody_has_is_not_there(void **state)
{
	struct cis_store *store = open_store();

	old.get = new.get = "$-1\r\n";
	old.primary = &new;
	assert_int_equal(ask(store, CIS_STORE_GET, 5 * SECOND), -ENOENT);
	cis_store_close(store);
}

/** struct put - one that is under way */
struct put {
	struct cis_store_req req;
	struct load_one one;
	char buf[100];
};

static void put_begin(struct put *put, struct cis_store *store)
{
	struct cis_store_req *reqs = &put->req;

	*put = (struct put){ 0 };
	put->req = (struct cis_store_req){ .op = CIS_STORE_PUT, .key = { { 1, 2 }, 3 }, .buf = put->buf, .len = sizeof(put->buf),
					   .deadline_ns = cis_now_ns(NULL) + 20 * SECOND, .done = load_one_done, .ctx = &put->one };
	cis_store_submit(store, &reqs, 1);
}

static void put_end(struct put *put, struct cis_store *store)
{
	while (!put->one.over)
		cis_store_wait(store, 0);
	assert_int_equal(put->one.err, 0);
	assert_int_equal(new.puts, 1);
}

/* It has no replicas any more, since they have left it; others say at each time who is the primary, until it knows itself. */
static void what_it_takes_is_not_acknowledged(void **state)
{
	struct cis_store *store = open_store();
	struct put put;

	put_begin(&put, store);
	while (old.maps < 10) {
		cis_store_wait(store, cis_now_ns(NULL) + SECOND / 100);
		assert_int_equal(put.one.over, 0);
	}
	old.primary = &new;
	put_end(&put, store);
	cis_store_close(store);
}

/* It believes to have one, which says nothing; and then not any more. */
static void what_its_replica_misses_is_not_acknowledged(void **state)
{
	struct cis_store *store = open_store();
	struct put put;

	old.replicas = "slave0:ip=::1,port=1,state=online,offset=1,lag=0";
	put_begin(&put, store);
	while (old.waits < 10) {
		cis_store_wait(store, cis_now_ns(NULL) + SECOND / 100);
		assert_int_equal(put.one.over, 0);
	}
	assert_int_equal(old.puts, 1);
	old.primary = &new;
	old.replicas = "";
	put_end(&put, store);
	cis_store_close(store);
}

static void it_need_not_answer(void **state)
{
	struct cis_store *store = open_store();

	old.get = NULL;
	assert_int_equal(ask(store, CIS_STORE_GET, 3 * SECOND), 0); /* before the connection is given up */
	cis_store_close(store);
}

static void one_request_goes_elsewhere(void **state)
{
	struct cis_store *store = open_store();

	old.get = "ask";
	new.get = "if asked";
	new.primary = &old;
	assert_int_equal(ask(store, CIS_STORE_GET, 3 * SECOND), 0);
	assert_int_equal(ask(store, CIS_STORE_GET, 3 * SECOND), 0);
	assert_int_equal(new.maps, 0);
	cis_store_close(store);
}

int main(void)
{
#define WITH(test) cmocka_unit_test_setup_teardown(test, start, stop)
	const struct CMUnitTest tests[] = {
		WITH(what_it_misses_is_looked_for),
		WITH(what_nobody_has_is_not_there),
		WITH(what_it_takes_is_not_acknowledged),
		WITH(what_its_replica_misses_is_not_acknowledged),
		WITH(it_need_not_answer),
		WITH(one_request_goes_elsewhere),
	};

	alarm(60);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
