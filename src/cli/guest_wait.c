/* cistern guest wait: until a guest is in a state. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/guests.h"
#include "cli/output.h"

static struct {
	const char *state;
	uint64_t timeout_s;
} opt = { .state = "filled" };

static const struct cli_option options[] = {
	{ "state", CLI_CHOICE, "filled|independent|gone", "which state (default: filled)", &opt.state },
	{ "timeout", CLI_NUMBER, "SECONDS", "give up after so long (default: never)", &opt.timeout_s },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static int wait_once(const char *guest, uint64_t until_ns, json_t **ret, struct cis_error *err)
{
	uint64_t now = cis_now_ns(NULL);
	char path[128];

	if (opt.timeout_s)
		snprintf(path, sizeof(path), "/v1/guests/*/wait?state=%s&timeout_ms=%llu", opt.state,
			 (unsigned long long)(until_ns > now ? (until_ns - now) / 1000000 : 0));
	else
		snprintf(path, sizeof(path), "/v1/guests/*/wait?state=%s", opt.state);
	return cli_call_once("GET", path, guest, NULL, ret, err);
}

/* An engine that is replaced while somebody waits cuts the wait off; a guest that the next one does not know has gone between them. */
static int wait_on(const char *guest, json_t **ret, struct cis_error *err)
{
	uint64_t until_ns = cis_now_ns(NULL) + opt.timeout_s * 1000000000u;
	bool was_there = false;
	int r;

	while ((r = wait_once(guest, until_ns, ret, err)) == -ECONNRESET)
		was_there = true;
	if (!was_there || strcmp(cli_error_code, "not_found") || strcmp(opt.state, "gone"))
		return r;
	*ret = json_pack("{s:s, s:s}", "id", guest, "state", "gone");
	return *ret ? 0 : cis_fail(err, ENOMEM, "no memory");
}

static int run(int argc, char **argv)
{
	struct cis_error err;
	json_t *guest;

	if (opt.timeout_s > UINT32_MAX)
		return cli_usage("--timeout: %llu seconds are too many", (unsigned long long)opt.timeout_s);
	if (wait_on(argv[0], &guest, &err))
		return cli_fail(&err);
	if (cli_json)
		return cli_print_json(guest);
	printf("%s\n", cli_text(guest, "state"));
	json_decref(guest);
	return CLI_OK;
}

const struct cli_command cli_guest_wait = {
	"guest wait", "GUEST", "Wait until a guest is in a state, and print it", options, 1, 1, run
};
