/* cistern guest ls: the daemon's guests. */
#include <stdio.h>

#include "cli/guests.h"

static const struct cli_option options[] = {
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static int run(int argc, char **argv)
{
	struct cis_error err;
	json_t *guests, *guest;
	size_t i;

	if (cli_guest_list(&guests, &err))
		return cli_fail(&err);
	if (cli_json)
		return cli_print_json(json_pack("{s:o}", "guests", guests));
	if (json_array_size(guests))
		printf("%-24s %-12s %8s %10s %10s %10s  %s\n", "GUEST", "STATE", "PID", "BUDGET", "RESIDENT",
		       "REMOTE", "IMAGE");
	json_array_foreach (guests, i, guest) {
		char pid[24], budget[24], resident[24], remote[24];

		cli_figure(guest, "pid", pid, sizeof(pid));
		cli_bytes(guest, "memory.budget_bytes", budget, sizeof(budget));
		cli_bytes(guest, "memory.resident_bytes", resident, sizeof(resident));
		cli_remote(guest, remote, sizeof(remote));
		printf("%-24s %-12s %8s %10s %10s %10s  %s\n", cli_text(guest, "id"), cli_text(guest, "state"),
		       pid, budget, resident, remote, cli_text(guest, "image"));
	}
	json_decref(guests);
	return CLI_OK;
}

const struct cli_command cli_guest_ls = { "guest ls", "", "List the daemon's guests", options, 0, 0, run };
