/* cistern guest wait: until a guest is in a state. */
#include <stdio.h>

#include "cli/guests.h"

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

static int run(int argc, char **argv)
{
	struct cis_error err;
	char path[128];
	json_t *guest;

	if (opt.timeout_s > UINT32_MAX)
		return cli_usage("--timeout: %llu seconds are too many", (unsigned long long)opt.timeout_s);
	if (opt.timeout_s)
		snprintf(path, sizeof(path), "/v1/guests/*/wait?state=%s&timeout_ms=%llu", opt.state,
			 (unsigned long long)opt.timeout_s * 1000);
	else
		snprintf(path, sizeof(path), "/v1/guests/*/wait?state=%s", opt.state);
	if (cli_call("GET", path, argv[0], NULL, &guest, &err))
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
