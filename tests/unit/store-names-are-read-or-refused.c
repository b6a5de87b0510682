/* Names of stores that are reached by network: what is taken is taken as it is meant; what is refused says at which character, and no password. */
#include <errno.h>

#include "check.h"
#include "store/store.h"
#include "store/tier/tier.h"
#include "store/valkey/valkey.h"

static void refused(const char *url, const char *why)
{
	struct cis_error err = { 0 };

	assert_int_equal(cis_pages_check(url, &err), -EINVAL);
	assert_int_equal(err.code, EINVAL);
	if (!strstr(err.text, why))
		fail_msg("%s: %s", url, err.text);
	assert_null(strstr(err.text, "s3cret"));
}

static struct vk_opts valkey(const char *rest)
{
	struct cis_error err = { 0 };
	struct vk_opts o;

	if (vk_name_parse(rest, &o, &err))
		fail_msg("%s: %s", rest, err.text);
	return o;
}

static void hosts_and_ports(void **state)
{
	struct vk_opts o = valkey("//one,two.example:7000,[::1],[fe80::1%eth0]:65535/15?replicas=2");

	assert_int_equal(o.hosts.nr, 4);
	assert_string_equal(o.hosts.host[0].name, "one");
	assert_int_equal(o.hosts.host[0].port, 6379);
	assert_string_equal(o.hosts.host[1].name, "two.example");
	assert_int_equal(o.hosts.host[1].port, 7000);
	assert_string_equal(o.hosts.host[2].name, "::1");
	assert_int_equal(o.hosts.host[2].port, 6379);
	assert_string_equal(o.hosts.host[3].name, "fe80::1%eth0");
	assert_int_equal(o.hosts.host[3].port, 65535);
	assert_int_equal(o.db, 15);
	assert_int_equal(o.replicas, 2);
	cis_hosts_fini(&o.hosts);
	o = valkey("//one/");
	assert_int_equal(o.db, 0);
	assert_int_equal(o.replicas, -1);
	cis_hosts_fini(&o.hosts);
}

static void users_and_passwords(void **state)
{
	struct vk_opts o = valkey("//a%40b:%3a%2f%25,x@h");

	assert_string_equal(o.hosts.user, "a@b");
	assert_string_equal(o.hosts.password, ":/%,x");
	assert_string_equal(o.hosts.host[0].name, "h");
	cis_hosts_fini(&o.hosts);
	o = valkey("//:pass@word@h:1");
	assert_string_equal(o.hosts.user, "");
	assert_string_equal(o.hosts.password, "pass@word");
	cis_hosts_fini(&o.hosts);
}

static void sockets(void **state)
{
	struct vk_opts o = valkey("//:p@/run/a%20b?db=7&replicas=0");

	assert_int_equal(o.hosts.nr, 1);
	assert_string_equal(o.hosts.host[0].name, "/run/a b");
	assert_int_equal(o.hosts.host[0].port, 0);
	assert_string_equal(o.hosts.password, "p");
	assert_int_equal(o.db, 7);
	assert_int_equal(o.replicas, 0);
	cis_hosts_fini(&o.hosts);
}

static void refusals(void **state)
{
	char many[800] = "valkey://h", path[200] = "valkey:///", name[400] = "valkey://", pass[700] = "valkey://:";

	refused("valky://user:s3cret@h", "'valky' is not a kind of store");
	refused("s3cret@h", "this is not the name of a store");
	refused("valkey:h", "character 8: two slashes");
	refused("valkey://", "character 10: a host name");
	refused("valkey:///", "character 11: a path");
	refused("valkey://h,", "character 12: a host name");
	refused("valkey://h:0", "character 12: a port");
	refused("valkey://h:65536", "a port is a number from 1 to 65535");
	refused("valkey://h:1x", "character 13: this is neither");
	refused("valkey://h x", "character 11: this is neither");
	refused("valkey://[::1", "character 14: the bracket is not closed");
	refused("valkey://::1", "a host name or address is expected");
	refused("valkey://s3cret@h", "character 10: before the @ stands a password");
	refused("valkey://u:@h", "before the @ stands a password");
	refused("valkey://u:s3cret/x@h", "a port is a number");
	refused("valkey://u:s3cret%4@h", "% is followed by two");
	refused("valkey://u:s3cret%00@h", "a NUL cannot be");
	refused("valkey://h/x", "character 12: behind the slash");
	refused("valkey://h/65536", "behind the slash");
	refused("valkey://h/1/2", "behind the slash");
	refused("valkey://h?x=1", "character 12: db=N or replicas=N");
	refused("valkey://h?", "db=N or replicas=N");
	refused("valkey://h?db=", "db is a number");
	refused("valkey://h?replicas=16", "replicas is a number up to 15");
	refused("valkey:///sock?db=1&", "db=N or replicas=N");
	for (int i = 1; i < 65; i++)
		strcat(many, ",h");
	refused(many, "more than 64 hosts");
	memset(path + 10, 'x', 108);
	refused(path, "character 117: this is too long");
	memset(name + 9, 'x', 256);
	refused(name, "a host name");
	memset(pass + 10, 'x', 513);
	strcat(pass, "@h");
	refused(pass, "this is too long");
}

static void tier_is(const char *rest, unsigned nr, const char *const names[], const uint64_t bytes[])
{
	struct cis_error err = { 0 };
	struct tier_name name;

	if (tier_name_parse(rest, &name, &err))
		fail_msg("%s: %s", rest, err.text);
	assert_int_equal(name.nr, nr);
	for (unsigned i = 0; i < nr; i++) {
		assert_string_equal(name.level[i].name, names[i]);
		assert_int_equal(name.level[i].bytes, bytes[i]);
	}
	tier_name_fini(&name);
}

static void tiers(void **state)
{
	static const char *const two[] = { "file:/a+b", "valkey://u:p+q@h,i?replicas=1" };
	static const char *const four[] = { "memcached://a,b", "file:/a?size=1G", "file:/b", "valkey://h" };
	static const uint64_t bytes[][4] = { { 1 << 20 }, { 4ull << 30, 5 << 20, 6 << 20 } };

	tier_is("bytes=1M,file:/a+b+valkey://u:p+q@h,i?replicas=1", 2, two, bytes[0]);
	tier_is("bytes=4G,memcached://a,b+bytes=5M,file:/a?size=1G+bytes=6M,file:/b+valkey://h", 4, four, bytes[1]);
}

static void tiers_are_refused(void **state)
{
	refused("tier:", "store tier: store 1: this is not the name of a store");
	refused("tier:file:/a", "two stores at least");
	refused("tier:bytes=1G,file:/a", "store 1: the last one takes whatever comes, and has no bytes=");
	refused("tier:bytes=1G,file:/a+bytes=1G,file:/b", "store 2: the last one takes");
	refused("tier:file:/a+file:/b", "store 1: bytes=SIZE, is missing before it");
	refused("tier:bytes=1023K,file:/a+file:/b", "store 1: bytes is a size from 1M on");
	refused("tier:bytes=,file:/a+file:/b", "store 1: bytes is a size");
	refused("tier:bytes=99999999999999999999999999999999G,file:/a+file:/b", "store 1: bytes is a size");
	refused("tier:bytes=1G+file:/b", "store 1: this is not the name of a store");
	refused("tier:bytes=1G,s3cret+file:/b", "store 1: this is not the name of a store");
	refused("tier:bytes=1G,valkey://:s3cret%4@h+file:/b", "store 1: name of a store, valkey:..., character 17");
	refused("tier:bytes=1G,file:/a+", "the last one takes");
	refused("tier:bytes=1G,file:/a+file:/a", "store 2: this is the same as store 1");
	refused("tier:bytes=1G,file:/a+tier:bytes=1G,file:/b+file:/c", "store 2: ");
	refused("tier:bytes=1G,memory:+file:/a", "store 1: memory is in front of each store");
	refused("tier:bytes=1M,file:/a+bytes=1M,file:/b+bytes=1M,file:/c+bytes=1M,file:/d+file:/e", "store tier: more than 4 stores");
}

static void the_stash(void **state)
{
	struct cis_error err = { 0 };
	struct cis_store *store;

	assert_int_equal(cis_pages_check("memory:", &err), 0);
	assert_true(cis_pages_is_stash("memory:"));
	assert_false(cis_pages_is_stash("file:/memory:"));
	assert_int_equal(cis_pages_probe("memory:", 0, &err), 0);
	assert_int_equal(cis_pages_open("memory:", NULL, &store, &err), -ENOTSUP);
	refused("memory:1G", "memory: is a whole name");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hosts_and_ports),
		cmocka_unit_test(users_and_passwords),
		cmocka_unit_test(sockets),
		cmocka_unit_test(refusals),
		cmocka_unit_test(tiers),
		cmocka_unit_test(tiers_are_refused),
		cmocka_unit_test(the_stash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
