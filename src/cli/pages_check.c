/* cistern store check: is a store of pages there, and safe for them? */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "store/store.h"

static uint64_t timeout_s;

static const struct cli_option options[] = {
	{ "timeout", CLI_NUMBER, "SECONDS", "wait so long for its answer (default: 10)", &timeout_s },
	CLI_OPTION_END,
};

static int run(int argc, char **argv)
{
	char name[600];
	struct cis_error err;

	(void)argc;
	if (!timeout_s)
		timeout_s = 10;
	if (timeout_s > UINT32_MAX)
		return cli_usage("--timeout: %llu seconds are too many", (unsigned long long)timeout_s);
	if (cis_pages_check(argv[0], &err))
		return cli_usage("%s", err.text);
	if (cis_pages_probe(argv[0], timeout_s * 1000000000u, &err))
		return cli_fail(&err);
	cis_pages_show(argv[0], name, sizeof(name));
	if (cli_json)
		return cli_print_json(json_pack("{s:o, s:o}", "store", cli_json_text(name), "note", cli_json_text(err.text)));
	printf("%s: good\n", cli_clean(name));
	if (*err.text)
		printf("%s\n", cli_clean(err.text));
	return CLI_OK;
}

const struct cli_command cli_pages_check = {
	"store check", "STORE", "Say whether a store of pages is there, and safe for them", options, 1, 1, run
};
