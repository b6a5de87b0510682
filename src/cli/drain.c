/* cistern drain: make guests need the daemon no more. */
#include <stdio.h>

#include "cli/guests.h"

static uint64_t timeout_s;

static const struct cli_option options[] = {
	{ "timeout", CLI_NUMBER, "SECONDS", "give up after so long (default: never)", &timeout_s },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static int run(int argc, char **argv)
{
	struct cis_error err;
	json_t *answer, *name;
	char path[64];
	size_t i;

	(void)argc;
	(void)argv;
	if (timeout_s > UINT32_MAX)
		return cli_usage("--timeout: %llu seconds are too many", (unsigned long long)timeout_s);
	snprintf(path, sizeof(path), timeout_s ? "/v1/drain?timeout_ms=%llu" : "/v1/drain", (unsigned long long)timeout_s * 1000);
	if (cli_call("POST", path, NULL, NULL, &answer, &err))
		return cli_fail(&err);
	if (cli_json)
		return cli_print_json(answer);
	json_array_foreach (json_object_get(answer, "drained"), i, name)
		printf("%s\n", json_string_value(name));
	json_decref(answer);
	return CLI_OK;
}

const struct cli_command cli_drain = {
	"drain", "", "Fill all guests wholly and let them go", options, 0, 0, run
};
