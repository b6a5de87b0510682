/* cistern guest park, guest unpark: shrink a guest to almost nothing, and give it back what it had. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/size.h"
#include "cli/guests.h"

#define LOOK_NS 20000000 /* between two looks; 2 GiB take some seconds */

static uint64_t timeout_s;

static const struct cli_option park_options[] = {
	{ "timeout", CLI_NUMBER, "SECONDS", "wait so long until it has shrunk; it stays parked (default: 60)", &timeout_s },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static const struct cli_option unpark_options[] = {
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static int say_parked(const char *id, bool parked, json_t **ret, struct cis_error *err)
{
	json_t *body = json_pack("{s:{s:b}}", "budget", "parked", parked);
	int r = body ? cli_call("PATCH", "/v1/guests/*", id, body, ret, err) : cis_fail(err, ENOMEM, "no memory");

	json_decref(body);
	return r;
}

static bool is_small(const json_t *guest)
{
	return cli_number(guest, "memory.resident_bytes") <= cli_number(guest, "memory.budget_bytes");
}

static int refuse(const char *id, const json_t *guest, struct cis_error *err)
{
	char resident[32];

	cli_bytes(guest, "memory.resident_bytes", resident, sizeof(resident));
	if (!strcmp(cli_text(guest, "state"), "gone"))
		return cis_fail(err, EINVAL, "guest %s is gone", id);
	return cis_fail(err, ETIMEDOUT, "guest %s still has %s after %llu s: is its stash full?", id, resident, (unsigned long long)timeout_s);
}

/* Takes the reference of *guest, and gives another. */
static int wait_small(const char *id, json_t **guest, struct cis_error *err)
{
	uint64_t until_ns = cis_now_ns(NULL) + timeout_s * 1000000000u;
	int r = 0;

	while (!r && !is_small(*guest)) {
		bool over = !strcmp(cli_text(*guest, "state"), "gone") || cis_now_ns(NULL) >= until_ns;

		if (over)
			r = refuse(id, *guest, err);
		json_decref(*guest);
		if (over)
			return r;
		nanosleep(&(struct timespec){ .tv_nsec = LOOK_NS }, NULL);
		r = cli_call("GET", "/v1/guests/*", id, NULL, guest, err);
	}
	return r;
}

static int park(int argc, char **argv)
{
	struct cis_error err;
	json_t *guest;

	if (!timeout_s)
		timeout_s = 60;
	if (timeout_s > UINT32_MAX)
		return cli_usage("--timeout: %llu seconds are too many", (unsigned long long)timeout_s);
	if (say_parked(argv[0], true, &guest, &err) || wait_small(argv[0], &guest, &err))
		return cli_fail(&err);
	return cli_guest_print_memory(guest);
}

static int unpark(int argc, char **argv)
{
	struct cis_error err;
	json_t *guest;

	if (say_parked(argv[0], false, &guest, &err))
		return cli_fail(&err);
	return cli_guest_print_memory(guest);
}

const struct cli_command cli_guest_park = {
	"guest park", "GUEST", "Shrink a guest to almost nothing, and wait for it", park_options, 1, 1, park
};

const struct cli_command cli_guest_unpark = {
	"guest unpark", "GUEST", "Give a parked guest back the budget that it had", unpark_options, 1, 1, unpark
};
