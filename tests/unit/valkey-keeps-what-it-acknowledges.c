/*
 * The store valkey on one server: what was acknowledged comes back whatever becomes of the server meanwhile, or is said to be gone;
 * requests end in time; and a server that might drop pages gets none.
 */
#include "pages-load.h"
#include "valkey-server.h"

#define SECOND 1000000000ull

static struct server server;

static const struct cis_key a_key = { { 0x0123456789abcdef, 0xfedcba9876543210 }, 77ull << 24 | 3 };

static struct cis_store *open_store(const char *url)
{
	struct cis_pages_opts opts = { .size = sizeof(opts) };
	struct cis_store *store;
	struct cis_error err;

	if (cis_pages_open(url, &opts, &store, &err))
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
	valkey_start(&server, true, false, NULL);
	return 0;
}

static int stop(void **state)
{
	server_remove(&server);
	return 0;
}

static void keeps_to_the_model(const char *url)
{
	struct load *l = load_new(url, 42);

	load_run(l, 20000);
	load_verify(l);
	printf("# %s: %u puts, %u gets, %u deletes\n", url, l->puts, l->gets, l->deletes);
	assert_int_equal(l->lost + l->revived, 0);
	assert_int_equal(l->failed, 0);
	assert_true(l->puts > 1000 && l->gets > 1000 && l->deletes > 100);
	load_free(l);
}

static void the_model_by_tcp(void **state)
{
	keeps_to_the_model(server.url);
}

static void the_model_by_socket(void **state)
{
	char url[128];

	snprintf(url, sizeof(url), "valkey://%s?db=3", server.sock);
	keeps_to_the_model(url);
}

static void a_name_is_looked_up(void **state)
{
	struct cis_store *store;
	char url[128];

	snprintf(url, sizeof(url), "valkey://localhost:%u/5", server.port);
	store = open_store(url);
	assert_int_equal(put(store, 0), 0);
	assert_int_equal(get(store, 0), 0);
	cis_store_close(store);
}

static void values_of_all_sizes(void **state)
{
	static uint8_t value[CIS_VALUE_MAX], back[CIS_VALUE_MAX];
	static const uint32_t sizes[] = { 1, 2, 4096, CIS_VALUE_MAX };
	struct cis_store *store = open_store(server.url);
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

/* It answers nobody while it is stopped, and everybody thereafter. */
static void a_stopped_server_costs_the_deadline(void **state)
{
	struct load *l = load_new(server.url, 1);
	unsigned failed;

	load_run(l, 500);
	load_drain(l);
	server_signal(&server, SIGSTOP);
	l->deadline_ns = SECOND / 10;
	load_run(l, 60);
	load_drain(l);
	failed = l->failed;
	assert_true(failed >= 60); /* all of them */
	server_signal(&server, SIGCONT);
	l->deadline_ns = 15 * SECOND;
	load_run(l, 2000);
	load_verify(l);
	assert_int_equal(l->failed, failed);
	assert_int_equal(l->lost + l->revived, 0);
	load_free(l);
}

static void a_killed_server_has_lost_it_all(void **state)
{
	struct load *l = load_new(server.url, 2);
	unsigned stored;

	load_run(l, 2000);
	load_drain(l);
	stored = load_stored(l);
	assert_true(stored > 100);
	server_kill(&server);
	l->deadline_ns = SECOND / 5;
	load_run(l, 50); /* refused connections, until the deadline */
	load_drain(l);
	assert_true(l->failed > 0);
	valkey_restart(&server, NULL);
	l->deadline_ns = 15 * SECOND;
	stored = load_stored(l);
	load_verify(l);
	assert_int_equal(l->lost, stored);
	load_run(l, 2000);
	load_verify(l);
	assert_int_equal(l->lost, stored);
	load_free(l);
}

/* Requests that are under way when it dies are sent again to the next one; with a log on disk nothing is missing. */
static void a_server_that_saves_loses_nothing(void **state)
{
	static const char *const saves[] = { "--appendonly", "yes", "--appendfsync", "always", NULL };
	struct server s;
	struct load *l;

	valkey_start(&s, true, false, saves);
	l = load_new(s.url, 3);
	for (int i = 0; i < 5; i++) {
		load_run(l, 1000);
		valkey_restart(&s, saves);
	}
	load_verify(l);
	assert_int_equal(l->lost + l->revived, 0);
	assert_int_equal(l->failed, 0);
	load_free(l);
	server_remove(&s);
}

static void connections_may_be_cut_at_any_time(void **state)
{
	struct load *l = load_new(server.url, 4);

	for (int i = 0; i < 30; i++) {
		load_run(l, 100);
		valkey_do(&server, "CLIENT KILL TYPE normal");
	}
	load_verify(l);
	assert_int_equal(l->lost + l->revived, 0);
	assert_int_equal(l->failed, 0);
	load_free(l);
}

static void requests_can_be_cancelled(void **state)
{
	struct load *l = load_new(server.url, 5);

	for (int i = 0; i < 200; i++) {
		load_run(l, 10);
		for (size_t n = 0; n < LOAD_WINDOW; n += 3)
			if (l->op[n].flying)
				cis_store_cancel(l->store, &l->op[n].req);
	}
	load_verify(l);
	assert_int_equal(l->lost + l->revived, 0);
	assert_true(l->failed > 0);
	load_free(l);
}

/* Passwords. */

static void no_password_in(const char *text)
{
	if (strstr(text, "s3cret") || strstr(text, "s3"))
		fail_msg("a password is in: %s", text);
}

static void probe_fails(const char *url, int code, const char *says)
{
	struct cis_error err = { 0 };

	assert_int_equal(cis_pages_probe(url, 5 * SECOND, &err), -code);
	assert_int_equal(err.code, code);
	no_password_in(err.text);
	if (!strstr(err.text, says))
		fail_msg("'%s' does not say '%s'", err.text, says);
}

static void probe_succeeds(const char *url, const char *notice)
{
	struct cis_error err = { 0 };

	if (cis_pages_probe(url, 5 * SECOND, &err))
		fail_msg("%s", err.text);
	assert_int_equal(err.code, 0);
	no_password_in(err.text);
	if (*notice ? !strstr(err.text, notice) : *err.text)
		fail_msg("'%s' is not '%s'", err.text, notice);
}

static void passwords(void **state)
{
	static const char *const wants[] = { "--user", "pager", "on", ">s3cret:/@%", "~cis:*", "+@all", "--user", "poor", "on",
					     ">s3cret", "~cis:*", "+hget", "+hset", "--user", "least", "on", ">s3cret", "~cis:*", "+hget",
					     "+hset", "+hdel", "+unlink", "+info", "--requirepass", "s3cret2", NULL };
	struct cis_store *store;
	struct server s;
	char url[160];

	valkey_start(&s, true, false, wants);
	snprintf(url, sizeof(url), "valkey://pager:s3cret%%3a%%2F%%40%%25@127.0.0.1:%u", s.port);
	probe_succeeds(url, "saves nothing");
	store = open_store(url);
	assert_int_equal(put(store, 0), 0);
	cis_store_close(store);
	snprintf(url, sizeof(url), "valkey://:s3cret2@%s", s.sock);
	store = open_store(url);
	assert_int_equal(get(store, 0), 0);
	cis_store_close(store);

	snprintf(url, sizeof(url), "valkey://least:s3cret@%s", s.sock);
	probe_succeeds(url, ""); /* it may not ask whether snapshots are written */
	store = open_store(url);
	assert_int_equal(get(store, 0), 0);
	assert_int_equal(load_one(store, CIS_STORE_DELETE, a_key, NULL, 0, 0, NULL), 0);
	assert_int_equal(put(store, 0), 0);
	cis_store_close(store);

	probe_fails(s.url, EACCES, "wants a user and a password");
	store = open_store(s.url);
	assert_int_equal(get(store, 0), -EACCES);
	cis_store_close(store);
	snprintf(url, sizeof(url), "valkey://pager:s3creX@127.0.0.1:%u", s.port);
	probe_fails(url, EACCES, "refuses the user or the password");
	store = open_store(url);
	assert_int_equal(put(store, 0), -EACCES);
	assert_int_equal(put(store, 0), -EACCES);
	cis_store_close(store);
	snprintf(url, sizeof(url), "valkey://poor:s3cret@127.0.0.1:%u", s.port);
	probe_fails(url, EACCES, "allow it the command INFO");
	server_remove(&s);
	snprintf(url, sizeof(url), "valkey://x:s3cret@127.0.0.1:%u/99", server.port);
	probe_fails(url, EACCES, "refuses the user");
	snprintf(url, sizeof(url), "valkey://127.0.0.1:%u/99", server.port);
	probe_fails(url, EINVAL, "no database of that number");
}

/* What may drop pages gets none, and gives back those that it has. */
static void evicting_servers_are_refused(void **state)
{
	static const char *const evicts[] = { "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru", NULL };
	struct cis_store *store;
	struct server s;

	valkey_start(&s, true, false, evicts);
	probe_fails(s.url, EPERM, "CONFIG SET maxmemory-policy noeviction");
	store = open_store(s.url);
	assert_int_equal(put(store, 0), -EPERM);
	assert_int_equal(get(store, 0), -ENOENT);
	valkey_do(&s, "CONFIG SET maxmemory-policy noeviction");
	while (put(store, 0)) { /* it is asked again after a second */
		server_pause();
		cis_store_reap(store);
	}
	valkey_do(&s, "CONFIG SET maxmemory-policy volatile-ttl");
	while (!put(store, 0))
		server_pause();
	assert_int_equal(get(store, 0), 0);
	assert_int_equal(load_one(store, CIS_STORE_DELETE, a_key, NULL, 0, 0, NULL), 0);
	cis_store_close(store);
	valkey_do(&s, "CONFIG SET maxmemory 0");
	probe_succeeds(s.url, "saves nothing");
	server_remove(&s);
}

static void a_full_server_says_so(void **state)
{
	static const char *const small[] = { "--maxmemory", "4mb", "--appendonly", "yes", NULL };
	struct cis_key key = a_key;
	static uint8_t value[CIS_VALUE_MAX];
	struct cis_store *store;
	struct server s;
	int rc, n = 0;

	valkey_start(&s, false, false, small);
	probe_succeeds(s.url, "");
	store = open_store(s.url);
	do {
		key.id += 1 << 24;
		rc = load_one(store, CIS_STORE_PUT, key, value, sizeof(value), 0, NULL);
		n++;
	} while (!rc && n < 2000);
	assert_int_equal(rc, -ENOSPC);
	for (; n > 0; n--, key.id -= 1 << 24)
		assert_in_range(-load_one(store, CIS_STORE_DELETE, key, NULL, 0, 0, NULL), 0, ENOENT); /* the last one was not put */
	assert_int_equal(put(store, 0), 0);
	cis_store_close(store);
	server_remove(&s);
}

/* A primary and its replica: puts are in both, and the other one takes over. */
static void replicas_take_over(void **state)
{
	static const char *const quick[] = { "--repl-diskless-sync-delay", "0", NULL };
	struct server one, other;
	struct load *l;
	char url[160];

	valkey_start(&one, true, false, quick);
	valkey_start(&other, true, false, quick);
	snprintf(url, sizeof(url), "valkey://127.0.0.1:%u,127.0.0.1:%u", other.port, one.port);
	probe_fails(url, EPERM, "is a primary as well");
	valkey_do(&other, "REPLICAOF 127.0.0.1 %u", one.port);
	valkey_until(&one, "state=online", "INFO replication");
	probe_succeeds(url, "");
	l = load_new(url, 6);
	load_run(l, 2000);
	server_kill(&one);
	valkey_do(&other, "REPLICAOF NO ONE");
	load_run(l, 2000);
	load_verify(l);
	assert_int_equal(l->lost + l->revived, 0);
	assert_int_equal(l->failed, 0);

	/* And back, of two that live: nothing is read from the one that lags, or put into the one that is not to have it. */
	valkey_restart(&one, quick);
	valkey_do(&one, "REPLICAOF 127.0.0.1 %u", other.port);
	valkey_until(&other, "state=online", "INFO replication");
	load_run(l, 1000);
	load_drain(l);
	valkey_do(&one, "REPLICAOF NO ONE");
	valkey_do(&other, "REPLICAOF 127.0.0.1 %u", one.port);
	load_run(l, 2000);
	load_verify(l);
	assert_int_equal(l->lost + l->revived, 0);
	assert_int_equal(l->failed, 0);
	load_free(l);
	server_remove(&one);
	server_remove(&other);
}

/* replicas=N is a promise: without them puts are not acknowledged. */
static void puts_wait_for_replicas(void **state)
{
	struct cis_store *store;
	char url[160];

	snprintf(url, sizeof(url), "%s?replicas=1", server.url);
	probe_fails(url, EAGAIN, "fewer replicas");
	store = open_store(url);
	assert_int_equal(put(store, cis_now_ns(NULL) + SECOND / 2), -ETIMEDOUT);
	assert_int_equal(get(store, 0), 0); /* there it is, but nobody was told */
	cis_store_close(store);
}

static void nobody_there(void **state)
{
	struct cis_error err = { 0 };
	struct cis_store *store;

	assert_int_equal(cis_pages_probe("valkey:///tmp/nobody-listens-here", SECOND / 10, &err), -ETIMEDOUT);
	assert_string_equal(err.text, "valkey /tmp/nobody-listens-here: No such file or directory");
	assert_int_equal(cis_pages_probe("valkey://name.invalid", SECOND / 5, &err), -ETIMEDOUT);
	store = open_store("valkey:///tmp/nobody-listens-here");
	assert_int_equal(get(store, cis_now_ns(NULL) + SECOND / 20), -ETIMEDOUT);
	cis_store_close(store);
}

static void descriptors_are_given_back(void **state)
{
	size_t before = check_open_fds();
	struct cis_store *store = open_store(server.url);

	assert_int_equal(get(store, 0), 0);
	assert_true(check_open_fds() > before);
	cis_store_close(store);
	assert_int_equal(check_open_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_model_by_tcp),
		cmocka_unit_test(the_model_by_socket),
		cmocka_unit_test(a_name_is_looked_up),
		cmocka_unit_test(values_of_all_sizes),
		cmocka_unit_test(a_stopped_server_costs_the_deadline),
		cmocka_unit_test(a_killed_server_has_lost_it_all),
		cmocka_unit_test(a_server_that_saves_loses_nothing),
		cmocka_unit_test(connections_may_be_cut_at_any_time),
		cmocka_unit_test(requests_can_be_cancelled),
		cmocka_unit_test(passwords),
		cmocka_unit_test(evicting_servers_are_refused),
		cmocka_unit_test(a_full_server_says_so),
		cmocka_unit_test(replicas_take_over),
		cmocka_unit_test(puts_wait_for_replicas),
		cmocka_unit_test(nobody_there),
		cmocka_unit_test(descriptors_are_given_back),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, start, stop);
}
