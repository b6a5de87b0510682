/*
 * The store valkey on a cluster of three primaries and their replicas: a primary that is killed, one that is stopped until it was
 * replaced, and slots that move, while pages are put, read and deleted.  Nothing that was acknowledged is lost, and no byte is wrong.
 */
#include "pages-load.h"
#include "valkey-server.h"

#define SECOND 1000000000ull

static struct cluster cluster;

static int start(void **state)
{
	cluster_start(&cluster, 3, true);
	return 0;
}

static int stop(void **state)
{
	cluster_remove(&cluster);
	return 0;
}

static void all_is_well(struct load *l)
{
	load_verify(l);
	printf("# %u puts, %u gets, %u deletes\n", l->puts, l->gets, l->deletes);
	assert_int_equal(l->lost, 0);
	assert_int_equal(l->failed, 0);
	load_free(l);
}

static void pages_are_in_all_primaries(void **state)
{
	struct load *l = load_new(cluster.url, 10);
	struct cis_error err = { 0 };

	if (cis_pages_probe(cluster.url, 5 * SECOND, &err))
		fail_msg("%s", err.text);
	assert_string_equal(err.text, "");
	load_run(l, 5000);
	load_drain(l);
	for (unsigned i = 0; i < cluster.nr; i++) {
		redisReply *reply = valkey_ask(&cluster.server[i], "DBSIZE");

		assert_non_null(reply);
		assert_true(reply->integer > 20);
		freeReplyObject(reply);
	}
	all_is_well(l);
}

/* One host of the name is enough, even a replica. */
static void one_host_tells_of_the_others(void **state)
{
	struct load *l = load_new(cluster.server[4].url, 11);

	load_run(l, 1000);
	all_is_well(l);
}

/* Slots. */

static redisReply *keys_of(unsigned from, unsigned slot)
{
	redisReply *keys = valkey_ask(&cluster.server[from], "CLUSTER GETKEYSINSLOT %u 100", slot);

	assert_non_null(keys);
	assert_int_equal(keys->type, REDIS_REPLY_ARRAY);
	return keys;
}

static bool knows_owner(const struct server *s, unsigned slot, unsigned port)
{
	redisReply *reply = valkey_ask(s, "CLUSTER SLOTS");
	bool knows = false;

	assert_non_null(reply);
	for (size_t i = 0; i < reply->elements; i++) {
		redisReply **range = reply->element[i]->element;

		if (range[0]->integer <= slot && slot <= range[1]->integer)
			knows = range[2]->element[1]->integer == port;
	}
	freeReplyObject(reply);
	return knows;
}

static unsigned long epoch_of(const struct server *s)
{
	redisReply *reply = valkey_ask(s, "CLUSTER INFO");
	unsigned long epoch;

	assert_non_null(reply);
	epoch = strtoul(strstr(reply->str, "cluster_current_epoch:") + strlen("cluster_current_epoch:"), NULL, 10);
	freeReplyObject(reply);
	return epoch;
}

/* Or the next move would be decided by whoever has heard of this one: nodes delete the keys of slots that they believe to have lost. */
static void until_agreed(struct load *l, unsigned slot, unsigned to)
{
	for (unsigned i = 0; i < 3; i++)
		while (!knows_owner(&cluster.server[i], slot, cluster.server[to].port) ||
		       epoch_of(&cluster.server[i]) != epoch_of(&cluster.server[to]))
			load_run(l, 5);
}

/*
 * As redis-cli does it, and with the load going on between any two steps: some of the keys are here, some there, new ones
 * come, and clients are told to ask both.
 */
static void move_slot(struct load *l, unsigned slot, unsigned from, unsigned to)
{
	char from_id[64], to_id[64];
	redisReply *keys;

	valkey_id(&cluster.server[from], from_id);
	valkey_id(&cluster.server[to], to_id);
	valkey_do(&cluster.server[to], "CLUSTER SETSLOT %u IMPORTING %s", slot, from_id);
	valkey_do(&cluster.server[from], "CLUSTER SETSLOT %u MIGRATING %s", slot, to_id);
	load_run(l, 30);
	for (keys = keys_of(from, slot); keys->elements; keys = keys_of(from, slot)) {
		valkey_do(&cluster.server[from], "MIGRATE 127.0.0.1 %u %s 0 5000", cluster.server[to].port, keys->element[0]->str);
		freeReplyObject(keys);
		load_run(l, 10);
	}
	freeReplyObject(keys);
	valkey_do(&cluster.server[to], "CLUSTER SETSLOT %u NODE %s", slot, to_id);
	valkey_do(&cluster.server[from], "CLUSTER SETSLOT %u NODE %s", slot, to_id);
	until_agreed(l, slot, to);
}

/* Of a page of the load that is stored, so that there is a key to be moved. */
static unsigned slot_of(struct load *l)
{
	for (;;) {
		const struct load_page *page = &l->page[load_random(l) % LOAD_PAGES];
		struct cis_key key = load_key(l, page);
		redisReply *reply;
		unsigned slot;

		if (page->state != LOAD_STORED)
			continue;
		reply = valkey_ask(&cluster.server[0], "CLUSTER KEYSLOT cis:%016llx%016llx:%llx", (unsigned long long)key.ns[0],
				   (unsigned long long)key.ns[1], (unsigned long long)key.id >> 30);
		assert_non_null(reply);
		slot = (unsigned)reply->integer;
		freeReplyObject(reply);
		return slot;
	}
}

static void slots_move_under_load(void **state)
{
	struct load *l = load_new(cluster.url, 12);

	load_run(l, 2000);
	for (int i = 0; i < 40; i++) {
		unsigned slot = slot_of(l), from = 0, to;

		while (slot >= 16384 * (from + 1) / 3)
			from++;
		to = (from + 1 + load_random(l) % 2) % 3;
		move_slot(l, slot, from, to);
		load_run(l, 30);
		move_slot(l, slot, to, from);
	}
	all_is_well(l);
}

/* Failures. */

static void until_replaced(unsigned primary, struct load *l)
{
	bool replaced = false;

	while (!replaced) {
		redisReply *reply = valkey_ask(&cluster.server[primary + 3], "ROLE");

		assert_non_null(reply);
		replaced = !strcmp(reply->element[0]->str, "master");
		freeReplyObject(reply);
		if (l)
			load_run(l, 20);
		else
			server_pause();
	}
}

static void a_primary_is_killed_under_load(void **state)
{
	struct load *l = load_new(cluster.url, 13);

	load_run(l, 3000);
	server_kill(&cluster.server[0]);
	until_replaced(0, l);
	load_run(l, 3000);
	all_is_well(l);
}

/*
 * A primary that stood still while it was replaced does not know it when it goes on: it may answer that a page is not there that was
 * put into its successor meanwhile, or take one.
 */
static void a_primary_is_stopped_and_comes_back(void **state)
{
	struct load *l = load_new(cluster.url, 14), *other = load_new(cluster.url, 15);

	load_run(l, 2000);
	load_run(other, 2000);
	server_signal(&cluster.server[1], SIGSTOP);
	until_replaced(1, l); /* the other handle has heard nothing of it */
	load_run(l, 2000);
	load_drain(l);
	server_signal(&cluster.server[1], SIGCONT);
	load_run(other, 2000);
	load_run(l, 2000);
	all_is_well(other);
	all_is_well(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_are_in_all_primaries),	 cmocka_unit_test(one_host_tells_of_the_others),
		cmocka_unit_test(slots_move_under_load),	 cmocka_unit_test(a_primary_is_killed_under_load),
		cmocka_unit_test(a_primary_is_stopped_and_comes_back),
	};

	alarm(120);
	return cmocka_run_group_tests(tests, start, stop);
}
