/* cistern upgrade: replace the daemon under its guests. */
#include <stdio.h>

#include "cli/guests.h"

static struct {
	const char *exec;
	bool keeper;
} opt;

static const struct cli_option options[] = {
	{ "exec", CLI_STRING, "PATH", "the binary that follows (default: the same again)", &opt.exec },
	{ "keeper", CLI_FLAG, NULL, "replace the keeper, not the engine", &opt.keeper },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

/* The engine that is let go cannot know all of the next one. */
static void add_successor(json_t *answer)
{
	json_t *health = NULL, *to = json_object_get(answer, "to");

	if (cli_call("GET", "/v1/health", NULL, NULL, &health, NULL))
		return;
	if (to) {
		json_object_set(to, "pid", json_object_get(health, "engine_pid"));
		json_object_set(to, "engine", json_object_get(health, "engine"));
	}
	json_decref(health);
}

static int print(json_t *answer)
{
	const json_t *from = json_object_get(answer, "from"), *to = json_object_get(answer, "to");

	if (cli_json)
		return cli_print_json(answer);
	if (to)
		printf("engine: version %s, pid %lld, to version %s, pid %lld; guests waited at most %.1f ms\n",
		       cli_text(from, "version"), cli_number(from, "pid"), cli_text(to, "version"), cli_number(to, "pid"),
		       json_number_value(json_object_get(answer, "blackout_ms")));
	else
		printf("keeper: replaced, pid %lld\n", cli_number(answer, "keeper_pid"));
	json_decref(answer);
	return CLI_OK;
}

static int run(int argc, char **argv)
{
	json_t *body = json_object(), *answer;
	struct cis_error err;
	int r;

	(void)argc;
	(void)argv;
	if (opt.exec)
		json_object_set_new(body, "exec", json_string(opt.exec));
	if (opt.keeper)
		json_object_set_new(body, "keeper", json_true());
	r = cli_call("POST", "/v1/upgrade", NULL, body, &answer, &err);
	json_decref(body);
	if (r)
		return cli_fail(&err);
	if (!opt.keeper)
		add_successor(answer);
	return print(answer);
}

const struct cli_command cli_upgrade = {
	"upgrade", "", "Replace the daemon by another version, under its guests", options, 0, 0, run
};
