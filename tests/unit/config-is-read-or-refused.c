/* A configuration file is read as cisternd(8) says; whatever else stands in it is refused with its line and the reason. */
#include "check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "daemon/config.h"

static char path[40];

static int load(const char *text, struct cis_config *ret, struct cis_error *err)
{
	int fd = memfd_create("config", MFD_CLOEXEC), rc;

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_int_equal(cis_config_init(ret), 0);
	rc = cis_config_load(ret, path, err);
	close(fd);
	return rc;
}

static void test_all_keys(void **state)
{
	struct cis_config c;

	assert_int_equal(load("# all kinds\n\n  control = /c.sock # here\nkeep=/k\nstore_layers = fault:every=3\nguests = 12\nstop = wait\n"
			      "user = nobody\nharden = no\ndetach = yes\nlog_level = debug\nimages = /a:/b\nhost_budget = 12G\nidle_s = 5", &c, NULL), 0);
	assert_string_equal(c.control, "/c.sock");
	assert_string_equal(c.keep, "/k");
	assert_string_equal(c.store_layers, "fault:every=3");
	assert_int_equal(c.guests, 12);
	assert_false(c.stop_drains);
	assert_string_equal(c.user, "nobody");
	assert_false(c.harden);
	assert_true(c.detach);
	assert_int_equal(c.log_level, CIS_LOG_DEBUG);
	assert_string_equal(c.images, "/a:/b");
	assert_string_equal(c.traces, "/var/lib/cistern/traces");
	assert_int_equal(c.host_budget, 12ull << 30);
	assert_int_equal(c.idle_s, 5);
	cis_config_fini(&c);
}

static void test_the_last_one_counts(void **state)
{
	struct cis_config c;

	assert_int_equal(load("tries = 1\ntries = 2\nkeep = off\nkeep = auto\n", &c, NULL), 0);
	assert_int_equal(c.tries, 2);
	assert_string_equal(c.keep, "auto");
	cis_config_fini(&c);
}

static void test_what_is_wrong_is_refused(void **state)
{
	static const struct {
		const char *text, *why;
	} wrong[] = {
		{ "colour = red", "1: no such key: 'colour'" },
		{ "\n\ncontrol /x", "3: 'control /x' is not 'key = value'" },
		{ "traces = here", "1: traces: 'here' is not an absolute path" },
		{ "keep = here", "1: keep: 'here' is none of auto, off, an absolute path" },
		{ "shards = 257", "1: shards: '257' is not a number from 0 to 256" },
		{ "shards = -1", "1: shards: '-1' is not a number from 0 to 256" },
		{ "shards = 1 2", "1: shards: '1 2' is not a number from 0 to 256" },
		{ "host_budget = 1023K", "1: host_budget: '1023K' is not a size from 1M on, like 12G, nor none" },
		{ "host_budget = all", "1: host_budget: 'all' is not a size from 1M on, like 12G, nor none" },
		{ "host_budget = 9223372036854775808", "1: host_budget: '9223372036854775808' is not a size from 1M on, like 12G, nor none" },
		{ "stop = now", "1: stop: 'now' is neither drain nor wait" },
		{ "harden = maybe", "1: harden: 'maybe' is neither yes nor no" },
		{ "log_level = loud", "1: log_level: 'loud' is none of error, warn, info, debug" },
		{ "store_layers = slow", "1: store_layers: store layers, character 1: 'slow' is none of fault, delay, corrupt" },
		{ "user = \xff", "1: user: not clean UTF-8" },
		{ "images = /a\tb", "1: images: not clean UTF-8" },
	};
	struct cis_error err;
	struct cis_config c;
	char want[200];

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(load(wrong[i].text, &c, &err), -EINVAL);
		snprintf(want, sizeof(want), "%s:%s", path, wrong[i].why);
		assert_string_equal(err.text, want);
		cis_config_fini(&c);
	}
}

static void test_what_is_no_file_is_refused(void **state)
{
	struct cis_error err;
	struct cis_config c;

	assert_int_equal(cis_config_init(&c), 0);
	assert_int_equal(cis_config_load(&c, "/nowhere/cisternd.conf", &err), -ENOENT);
	assert_string_equal(err.text, "/nowhere/cisternd.conf: No such file or directory");
	assert_int_equal(cis_config_load(&c, "/proc/self", &err), -EISDIR);
	assert_string_equal(err.text, "/proc/self: Is a directory");
	cis_config_fini(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_keys),
		cmocka_unit_test(test_the_last_one_counts),
		cmocka_unit_test(test_what_is_wrong_is_refused),
		cmocka_unit_test(test_what_is_no_file_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
