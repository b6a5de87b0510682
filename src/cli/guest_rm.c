/* cistern guest rm: have the daemon forget a guest. */
#include "cli/guests.h"

static bool force;

static const struct cli_option options[] = {
	{ "force", CLI_FLAG, NULL, "kill its monitor first, if that still needs pages", &force },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static int run(int argc, char **argv)
{
	struct cis_error err;

	if (cli_call("DELETE", force ? "/v1/guests/*?force=true" : "/v1/guests/*", argv[0], NULL, NULL, &err))
		return cli_fail(&err);
	return cli_json ? cli_print_json(json_pack("{s:s}", "removed", argv[0])) : CLI_OK;
}

const struct cli_command cli_guest_rm = { "guest rm", "GUEST", "Forget a guest that needs no more pages",
					  options,    1,       1,
					  run };
