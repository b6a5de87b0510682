/* cistern record start, cistern record stop: first touches of a running guest. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cli/guests.h"

static const char *out;

static const struct cli_option start_options[] = {
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static const struct cli_option stop_options[] = {
	{ "out", CLI_STRING, "FILE", "write the trace there (default: chosen by the daemon)", &out },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static int put_record(const char *guest, json_t *body, json_t **ret, struct cis_error *err)
{
	int r = cli_call("PUT", "/v1/guests/*/record", guest, body, ret, err);

	json_decref(body);
	return r;
}

static int run_start(int argc, char **argv)
{
	struct cis_error err;
	json_t *guest;

	if (put_record(argv[0], json_pack("{s:s}", "state", "start"), &guest, &err))
		return cli_fail(&err);
	if (cli_json)
		return cli_print_json(guest);
	json_decref(guest);
	return CLI_OK;
}

/* The daemon has another working directory. */
static char *absolute(const char *path)
{
	char cwd[PATH_MAX], *full;

	if (*path == '/')
		return strdup(path);
	return getcwd(cwd, sizeof(cwd)) && asprintf(&full, "%s/%s", cwd, path) >= 0 ? full : NULL;
}

static int run_stop(int argc, char **argv)
{
	_cleanup_free_ char *path = out ? absolute(out) : NULL;
	json_t *body = json_pack("{s:s}", "state", "stop"), *trace;
	struct cis_error err;

	if (path)
		json_object_set_new(body, "path", json_string(path));
	if (put_record(argv[0], body, &trace, &err))
		return cli_fail(&err);
	if (cli_json)
		return cli_print_json(trace);
	printf("%s: %lld pages\n", cli_text(trace, "trace"), cli_number(trace, "pages"));
	json_decref(trace);
	return CLI_OK;
}

const struct cli_command cli_record_start = {
	"record start", "GUEST", "Record the order in which a guest touches its pages", start_options, 1, 1,
	run_start
};
const struct cli_command cli_record_stop = { "record stop", "GUEST", "Stop recording, and write the trace",
					     stop_options,  1,	     1,
					     run_stop };
