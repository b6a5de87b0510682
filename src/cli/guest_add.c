/* cistern guest add: have the daemon expect a guest. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/guests.h"
#include "cli/images.h"

#define NO_ID UINT64_MAX

static struct {
	const char *socket, *kind, *policy, *fill;
	uint64_t uid, gid;
	bool record;
} opt = { .uid = NO_ID, .gid = NO_ID };

static const struct cli_option options[] = {
	{ "socket", CLI_STRING, "PATH",
	  "where the guest's monitor will connect (default: chosen by the daemon)", &opt.socket },
	{ "kind", CLI_CHOICE, "firecracker|client", "what it speaks there (default: firecracker)",
	  &opt.kind },
	{ "policy", CLI_CHOICE, "poison|kill|stall", "when a page cannot be produced (default: poison)",
	  &opt.policy },
	{ "fill", CLI_CHOICE, "none|hot|all", "what is installed before it is touched (default: all)",
	  &opt.fill },
	{ "record", CLI_FLAG, NULL, "record first touches from the start", &opt.record },
	{ "uid", CLI_NUMBER, "N", "owner of the socket", &opt.uid },
	{ "gid", CLI_NUMBER, "N", "group of the socket", &opt.gid },
	CLI_OPTION_STORE,
	CLI_OPTION_IMAGES,
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

static void set_text(json_t *body, const char *key, const char *value)
{
	if (value)
		json_object_set_new(body, key, json_string(value));
}

static json_t *make_body(const char *image)
{
	json_t *body = json_object();

	set_text(body, "image", image);
	set_text(body, "socket", opt.socket);
	set_text(body, "kind", opt.kind);
	set_text(body, "policy", opt.policy);
	set_text(body, "fill", opt.fill);
	set_text(body, "store", cli_store);
	if (opt.record)
		json_object_set_new(body, "record", json_true());
	if (opt.uid != NO_ID)
		json_object_set_new(body, "uid", json_integer((json_int_t)opt.uid));
	if (opt.gid != NO_ID)
		json_object_set_new(body, "gid", json_integer((json_int_t)opt.gid));
	return body;
}

static int run(int argc, char **argv)
{
	_cleanup_free_ char *path = NULL, *absolute = NULL;
	struct cis_error err;
	json_t *body, *guest;
	int r;

	if (opt.socket && *opt.socket != '/')
		return cli_usage("--socket: '%s' is not an absolute path", opt.socket);
	if ((opt.uid != NO_ID && opt.uid >= UINT32_MAX) || (opt.gid != NO_ID && opt.gid >= UINT32_MAX))
		return cli_usage("--uid and --gid go up to %u", UINT32_MAX - 1);
	if (cli_store_check())
		return CLI_USAGE;
	if (cli_image_path(argv[1], &path, &err))
		return cli_fail(&err);
	absolute = realpath(path, NULL);
	if (!absolute) {
		cis_fail(&err, errno, "%s: %s", path, strerror(errno));
		return cli_fail(&err);
	}
	body = make_body(absolute);
	r = cli_call("PUT", "/v1/guests/*", argv[0], body, &guest, &err);
	json_decref(body);
	if (r)
		return cli_fail(&err);
	if (cli_json)
		return cli_print_json(guest);
	printf("%s\n", cli_text(guest, "socket"));
	json_decref(guest);
	return CLI_OK;
}

const struct cli_command cli_guest_add = {
	"guest add", "GUEST IMAGE", "Expect a guest, and print the socket to connect to", options, 2, 2, run
};
