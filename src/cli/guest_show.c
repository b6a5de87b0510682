/* cistern guest show: one guest. */
#include "cli/guests.h"

static const struct cli_option options[] = {
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static int run(int argc, char **argv)
{
	struct cis_error err;
	json_t *guest;

	if (cli_call("GET", "/v1/guests/*", argv[0], NULL, &guest, &err))
		return cli_fail(&err);
	return cli_guest_print(guest);
}

const struct cli_command cli_guest_show = {
	"guest show", "GUEST", "Show a guest: its state, pages and faults", options, 1, 1, run
};
