/*
 * The store memcached: what was acknowledged comes back until the server ends, or is said to be gone; requests end in time;
 * and a server that might drop pages gets none.
 */
#include "memcached-server.h"
#include "pages-load.h"

#define SECOND 1000000000ull

static const char *const safe[] = { MEMCACHED_SAFE, NULL };
static struct server servers[3];
static char url[400];

static const struct cis_key a_key = { { 0x0123456789abcdef, 0xfedcba9876543210 }, 77ull << 24 | 3 };

static struct cis_store *open_store(const char *name)
{
	struct cis_pages_opts opts = { .size = sizeof(opts) };
	struct cis_store *store;
	struct cis_error err;

	if (cis_pages_open(name, &opts, &store, &err))
		fail_msg("%s", err.text);
	return store;
}

static int put(struct cis_store *store, uint64_t deadline_ns)
{
	char value[] = "value";

	return load_one(store, CIS_STORE_PUT, a_key, value, 5, deadline_ns, NULL);
}

static int get(struct cis_store *store, uint64_t deadline_ns)
{
	char value[16];
	uint32_t got;
	int rc = load_one(store, CIS_STORE_GET, a_key, value, sizeof(value), deadline_ns, &got);

	if (!rc) {
		assert_int_equal(got, 5);
		assert_memory_equal(value, "value", 5);
	}
	return rc;
}

static int start(void **state)
{
	strcpy(url, "memcached://");
	for (int i = 0; i < 3; i++) {
		memcached_start(&servers[i], true, safe);
		snprintf(url + strlen(url), sizeof(url) - strlen(url), "%slocalhost:%u", i ? "," : "", servers[i].port);
	}
	return 0;
}

static int stop(void **state)
{
	for (int i = 0; i < 3; i++)
		server_remove(&servers[i]);
	return 0;
}

static void keeps_to_the_model(const char *name)
{
	struct load *l = load_new(name, 42);

	load_run(l, 20000);
	load_verify(l);
	printf("# %s: %u puts, %u gets, %u deletes\n", name, l->puts, l->gets, l->deletes);
	assert_int_equal(l->lost + l->revived, 0);
	assert_int_equal(l->failed, 0);
	assert_true(l->puts > 1000 && l->gets > 1000 && l->deletes > 100);
	load_free(l);
}

static void the_model_on_three_servers(void **state)
{
	keeps_to_the_model(url);
	for (int i = 0; i < 3; i++)
		memcached_do(&servers[i], "get cis:none\r\n", "END\r\n");
}

static void the_model_by_socket(void **state)
{
	struct server s;

	memcached_start(&s, false, safe);
	keeps_to_the_model(s.url);
	server_remove(&s);
}

static void values_of_all_sizes(void **state)
{
	static uint8_t value[CIS_VALUE_MAX], back[CIS_VALUE_MAX];
	static const uint32_t sizes[] = { 1, 2, 4096, CIS_VALUE_MAX };
	struct cis_store *store = open_store(url);
	struct cis_key key = a_key;
	uint32_t got;

	for (size_t i = 0; i < 4; i++) {
		key.id++;
		for (size_t b = 0; b < sizeof(value); b++)
			value[b] = (uint8_t)(b * 7 + i) & (i & 1 ? 0xff : 0x0f); /* NULs, ends of lines */
		assert_int_equal(load_one(store, CIS_STORE_PUT, key, value, sizes[i], 0, NULL), 0);
		assert_int_equal(load_one(store, CIS_STORE_GET, key, back, sizeof(back), 0, &got), 0);
		assert_int_equal(got, sizes[i]);
		assert_memory_equal(back, value, got);
		back[got - 1] ^= 0xff;
		assert_int_equal(load_one(store, CIS_STORE_GET, key, back, got - 1, 0, NULL), -EMSGSIZE);
		assert_int_equal(back[got - 1], value[got - 1] ^ 0xff); /* no byte behind what there was room for */
		assert_int_equal(load_one(store, CIS_STORE_DELETE, key, NULL, 0, 0, NULL), 0);
		assert_int_equal(load_one(store, CIS_STORE_DELETE, key, NULL, 0, 0, NULL), -ENOENT);
		assert_int_equal(load_one(store, CIS_STORE_GET, key, back, sizeof(back), 0, NULL), -ENOENT);
	}
	cis_store_close(store);
}

/* One of three: the pages of the others go on. */
static void a_stopped_server_costs_the_deadline(void **state)
{
	struct load *l = load_new(url, 1);
	unsigned failed;

	load_run(l, 500);
	load_drain(l);
	server_signal(&servers[1], SIGSTOP);
	l->deadline_ns = SECOND / 10;
	load_run(l, 200);
	load_drain(l);
	failed = l->failed;
	assert_in_range(failed, 10, 150);
	server_signal(&servers[1], SIGCONT);
	l->deadline_ns = 15 * SECOND;
	load_run(l, 2000);
	load_verify(l);
	assert_int_equal(l->failed, failed);
	assert_int_equal(l->lost, 0);
	load_free(l);
}

static void a_killed_server_has_lost_its_share(void **state)
{
	struct load *l = load_new(url, 2);
	unsigned stored;

	load_run(l, 2000);
	load_drain(l);
	server_kill(&servers[2]);
	l->deadline_ns = SECOND / 5;
	load_run(l, 100); /* refused connections, until the deadline */
	load_drain(l);
	assert_true(l->failed > 0);
	memcached_restart(&servers[2], safe);
	l->deadline_ns = 15 * SECOND;
	stored = load_stored(l);
	load_verify(l);
	assert_in_range(l->lost, stored / 6, stored / 2);
	stored = l->lost;
	load_run(l, 2000);
	load_verify(l);
	assert_int_equal(l->lost, stored);
	load_free(l);
}

/* Under load: what was under way is sent again; nothing but what was in it is missing, and no byte is wrong. */
static void servers_may_be_killed_at_any_time(void **state)
{
	struct load *l = load_new(url, 3);
	unsigned lost;

	for (int i = 0; i < 6; i++) {
		load_run(l, 500);
		memcached_restart(&servers[i % 3], safe);
	}
	load_run(l, 500);
	load_verify(l);
	assert_int_equal(l->failed, 0);
	lost = l->lost;
	assert_true(lost > 10);
	load_verify(l);
	assert_int_equal(l->lost, lost);
	load_free(l);
}

static void requests_can_be_cancelled(void **state)
{
	struct load *l = load_new(url, 5);

	for (int i = 0; i < 200; i++) {
		load_run(l, 10);
		for (size_t n = 0; n < LOAD_WINDOW; n += 3)
			if (l->op[n].flying)
				cis_store_cancel(l->store, &l->op[n].req);
	}
	load_verify(l);
	assert_int_equal(l->lost, 0);
	assert_true(l->failed > 0);
	load_free(l);
}

static void over(struct cis_store_req *req, int err)
{
	*(int *)req->ctx = err;
}

/* Gets of one page at once, some of which are given up: the others are told what is there. */
static void gets_of_one_page_are_several(void **state)
{
	static const unsigned page[] = { 1, 2, 1, 3 };
	static const bool given_up[] = { true, false, false, true };
	enum { GETS = sizeof(page) / sizeof(page[0]) };
	struct cis_store *store = open_store(servers[0].url);
	struct cis_store_req req[GETS], *reqs[GETS];
	char value[GETS][16] = { "value" };
	struct cis_key key = a_key;
	int err[GETS];

	for (key.id = 1; key.id < 4; key.id++)
		assert_int_equal(load_one(store, CIS_STORE_PUT, key, value[0], 5, 0, NULL), 0);
	key.id = 4; /* from now on the connection for gets is there */
	assert_int_equal(load_one(store, CIS_STORE_GET, key, value[0], 16, 0, NULL), -ENOENT);
	for (int i = 0; i < GETS; i++) {
		key.id = page[i];
		err[i] = 1;
		req[i] = (struct cis_store_req){ .op = CIS_STORE_GET, .key = key, .buf = value[i], .len = 16, .done = over, .ctx = &err[i] };
		reqs[i] = &req[i];
	}
	cis_store_submit(store, reqs, GETS);
	for (int i = 0; i < GETS; i++)
		if (given_up[i])
			cis_store_cancel(store, &req[i]);
	for (int i = 0; i < GETS; i++) {
		while (err[i] == 1)
			cis_store_wait(store, 0);
		assert_int_equal(err[i], given_up[i] ? -ECANCELED : 0);
	}
	cis_store_close(store);
}

/* The share of a server is its own, whatever stands before and behind it in the name of the store. */
static void shares_follow_the_names_of_servers(void **state)
{
	struct cis_key key = a_key;
	unsigned found[2] = { 0 };
	char others[2][500];
	struct server fourth;

	memcached_start(&fourth, true, safe);
	snprintf(others[0], sizeof(others[0]), "memcached://localhost:%u,localhost:%u,localhost:%u", servers[2].port, servers[0].port,
		 servers[1].port);
	snprintf(others[1], sizeof(others[1]), "memcached://localhost:%u,%s", fourth.port, url + strlen("memcached://"));
	for (int each = -1; each < 2; each++) {
		struct cis_store *store = open_store(each < 0 ? url : others[each]);

		for (int i = 0; i < 400; i++) {
			char value[16] = "share";

			key.id = (uint64_t)i << 24 | 1;
			if (each < 0)
				assert_int_equal(load_one(store, CIS_STORE_PUT, key, value, 5, 0, NULL), 0);
			else
				found[each] += !load_one(store, CIS_STORE_GET, key, value, sizeof(value), 0, NULL);
		}
		cis_store_close(store);
	}
	assert_int_equal(found[0], 400);
	assert_in_range(found[1], 240, 360); /* a quarter is another one's now */
	server_remove(&fourth);
}

static void probe_fails(const char *name, int code, const char *says)
{
	struct cis_error err = { 0 };

	assert_int_equal(cis_pages_probe(name, 5 * SECOND, &err), -code);
	assert_int_equal(err.code, code);
	if (!strstr(err.text, says))
		fail_msg("'%s' does not say '%s'", err.text, says);
}

/* What may drop pages gets none, and gives back those that it has. */
static void evicting_servers_are_refused(void **state)
{
	static const struct {
		const char *args[5], *says;
	} each[] = {
		{ { "-o", "slab_automove=0", NULL }, "drops pages by itself when its memory is full: start it with -M" },
		{ { "-M", NULL }, "drops pages by itself when it moves memory between sizes: start it with -M -o slab_automove=0" },
	};

	for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
		struct cis_store *store;
		struct server s;

		memcached_start(&s, true, each[i].args);
		probe_fails(s.url, EPERM, each[i].says);
		store = open_store(s.url);
		assert_int_equal(put(store, 0), -EPERM);
		memcached_do(&s, "set cis:0123456789abcdeffedcba9876543210:4d000003 0 0 5\r\nvalue\r\n", "STORED\r\n");
		assert_int_equal(get(store, 0), 0);
		assert_int_equal(load_one(store, CIS_STORE_DELETE, a_key, NULL, 0, 0, NULL), 0);
		if (i == 1) {
			memcached_do(&s, "slabs automove 0\r\n", "OK\r\n");
			while (put(store, 0)) { /* it is asked again after a second */
				server_pause();
				cis_store_reap(store);
			}
			memcached_do(&s, "slabs automove 1\r\n", "OK\r\n");
			while (!put(store, 0))
				server_pause();
		}
		cis_store_close(store);
		server_remove(&s);
	}
}

static void a_full_server_says_so(void **state)
{
	static const char *const small[] = { MEMCACHED_SAFE, "-m", "2", NULL };
	static uint8_t value[CIS_VALUE_MAX];
	struct cis_key key = a_key;
	struct cis_store *store;
	struct server s;
	int rc, n = 0;

	memcached_start(&s, false, small);
	store = open_store(s.url);
	do {
		key.id += 1 << 24;
		rc = load_one(store, CIS_STORE_PUT, key, value, sizeof(value), 0, NULL);
		n++;
	} while (!rc && n < 20000);
	assert_int_equal(rc, -ENOSPC);
	for (int i = 1; i < n; i++) { /* and it has all that it took */
		key.id -= 1 << 24;
		assert_int_equal(load_one(store, CIS_STORE_GET, key, value, sizeof(value), 0, NULL), 0);
		if (i % 2)
			assert_int_equal(load_one(store, CIS_STORE_DELETE, key, NULL, 0, 0, NULL), 0);
	}
	assert_int_equal(load_one(store, CIS_STORE_PUT, a_key, value, sizeof(value), 0, NULL), 0);
	cis_store_close(store);
	server_remove(&s);
}

static void all_servers_are_probed(void **state)
{
	struct cis_error err = { .text = "x" };
	struct server s;
	char name[500];

	assert_int_equal(cis_pages_probe(url, 5 * SECOND, &err), 0);
	assert_int_equal(err.code, 0);
	assert_string_equal(err.text, "");
	memcached_start(&s, true, NULL);
	snprintf(name, sizeof(name), "%s,127.0.0.1:%u", url, s.port);
	probe_fails(name, EPERM, "start it with -M -o slab_automove=0");
	server_kill(&s);
	assert_int_equal(cis_pages_probe(name, SECOND / 5, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "Connection refused"));
	server_remove(&s);
	assert_int_equal(cis_pages_probe("memcached:///tmp/nobody-listens-here", SECOND / 10, &err), -ETIMEDOUT);
	assert_string_equal(err.text, "memcached /tmp/nobody-listens-here: No such file or directory");
}

static void descriptors_are_given_back(void **state)
{
	size_t before = check_open_fds();
	struct cis_store *store = open_store(servers[0].url);

	assert_int_equal(get(store, 0), -ENOENT);
	assert_true(check_open_fds() > before);
	cis_store_close(store);
	assert_int_equal(check_open_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_model_on_three_servers),
		cmocka_unit_test(the_model_by_socket),
		cmocka_unit_test(values_of_all_sizes),
		cmocka_unit_test(a_stopped_server_costs_the_deadline),
		cmocka_unit_test(a_killed_server_has_lost_its_share),
		cmocka_unit_test(servers_may_be_killed_at_any_time),
		cmocka_unit_test(requests_can_be_cancelled),
		cmocka_unit_test(gets_of_one_page_are_several),
		cmocka_unit_test(shares_follow_the_names_of_servers),
		cmocka_unit_test(evicting_servers_are_refused),
		cmocka_unit_test(a_full_server_says_so),
		cmocka_unit_test(all_servers_are_probed),
		cmocka_unit_test(descriptors_are_given_back),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, start, stop);
}
