/* cisternd: the keeper, and with --engine the engine that it starts. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/engine.h"
#include "daemon/harden.h"
#include "daemon/keeper.h"
#include "daemon/log.h"

static const char usage[] =
	"Usage: cisternd [OPTION]...\n"
	"Serve the memory of microVMs: restore them from images, page by page.\n"
	"\n"
	"      --config FILE    read FILE (default: " CIS_CONFIG_FILE ", if it is there)\n"
	"      --control PATH   listen for commands on this socket\n"
	"      --set KEY=VALUE  set a key of the configuration; may be repeated\n"
	"      --engine         be the engine; only the keeper says this\n"
	"      --probe          say what keepers this one can follow; only the keeper asks\n"
	"  -h, --help           show this and exit\n"
	"  -V, --version        show the version and exit\n"
	"\n"
	"cisternd(8) lists the keys.  Exit status: 0, 1 for a failure, 2 for wrong usage.\n";

enum { OPT_CONFIG = 256, OPT_CONTROL, OPT_SET, OPT_ENGINE, OPT_PROBE };

static const struct option options[] = {
	{ "config", required_argument, NULL, OPT_CONFIG }, { "control", required_argument, NULL, OPT_CONTROL },
	{ "set", required_argument, NULL, OPT_SET },	   { "engine", no_argument, NULL, OPT_ENGINE },
	{ "probe", no_argument, NULL, OPT_PROBE },
	{ "help", no_argument, NULL, 'h' },		   { "version", no_argument, NULL, 'V' },
	{ 0 },
};

static int set_pair(struct cis_config *c, const char *pair, struct cis_error *err)
{
	char key[64];
	const char *equals = strchr(pair, '=');

	if (!equals || equals - pair >= (long)sizeof(key))
		return cis_fail(err, EINVAL, "'%s' is not KEY=VALUE", pair);
	memcpy(key, pair, (size_t)(equals - pair));
	key[equals - pair] = 0;
	return cis_config_set(c, key, equals + 1, err);
}

/* The file first, then what the command line says.  Return: 0, or an exit status plus 1. */
static int parse(int argc, char **argv, struct cis_config *c, int *ret_role)
{
	struct cis_error err = { 0 };
	const char *file = NULL;
	int opt, rc;

	for (int pass = 0; pass < 2; pass++) {
		optind = 1;
		while ((opt = getopt_long(argc, argv, "hV", options, NULL)) >= 0) {
			rc = 0;
			if (opt == 'h' || opt == 'V') {
				fputs(opt == 'h' ? usage : "cisternd " CISTERN_VERSION "\n", stdout);
				return 1;
			}
			if (opt == '?')
				return 3;
			if (opt == OPT_CONFIG)
				file = optarg;
			if (opt == OPT_ENGINE || opt == OPT_PROBE)
				*ret_role = opt;
			if (pass && opt == OPT_CONTROL)
				rc = cis_config_set(c, "control", optarg, &err);
			if (pass && opt == OPT_SET)
				rc = set_pair(c, optarg, &err);
			if (rc) {
				fprintf(stderr, "cisternd: %s\n", err.text);
				return 3;
			}
		}
		if (optind < argc) {
			fprintf(stderr, "cisternd: what is '%s'?  Try --help.\n", argv[optind]);
			return 3;
		}
		if (pass || (!file && access(CIS_CONFIG_FILE, F_OK)))
			continue;
		if (cis_config_load(c, file ? file : CIS_CONFIG_FILE, &err)) {
			fprintf(stderr, "cisternd: %s\n", err.text);
			return 2;
		}
	}
	return 0;
}

static int fail(const struct cis_error *err)
{
	cis_log(CIS_LOG_ERROR, "%s", err->text);
	cis_keeper_go_back(err->text);
	return 1;
}

/* The file of a program that was replaced is there no more, but the program is. */
static ssize_t own_path(char *buf, size_t room)
{
	static const char gone[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", buf, room - 1);

	if (n < 0)
		return n;
	buf[n] = 0;
	if ((size_t)n > sizeof(gone) && !strcmp(buf + n - (sizeof(gone) - 1), gone))
		n = snprintf(buf, room, "/proc/self/exe");
	return n;
}

/* Beside the control socket, where that is in memory. */
static int gather(struct cis_keeper *k, const struct cis_config *config, struct cis_error *err)
{
	struct cis_keep_opts opts = { .is_wish = !strcmp(config->keep, "auto") };
	char beside[4096];

	snprintf(beside, sizeof(beside), "%s", config->control);
	snprintf(strrchr(beside, '/'), sizeof(beside) - strlen(config->control), "/keep");
	if (strcmp(config->keep, "off"))
		opts.folder = opts.is_wish ? beside : config->keep;
	return cis_keeper_gather(k, &opts, err);
}

static int keeper(const struct cis_config *config, int argc, char **argv)
{
	char *env[] = { NULL }, exe[4096];
	char **args = calloc((size_t)argc + 2, sizeof(*args));
	ssize_t n = own_path(exe, sizeof(exe));
	static struct cis_keeper *k; /* one that cannot start is left as it is, not lost */
	struct cis_error err;
	int status = 1;

	if (!args || n < 0) {
		cis_fail(&err, args ? errno : ENOMEM, args ? "/proc/self/exe: %s" : "out of memory", strerror(errno));
		free(args);
		return fail(&err);
	}
	args[0] = exe;
	args[1] = "--engine";
	for (int i = 1; i < argc; i++)
		args[i + 1] = argv[i];
	if (cis_keeper_create(&k, &err)) {
		free(args);
		return fail(&err);
	}
	cis_keeper_set_upgrade(k, config->upgrade_ms);
	/* What was gathered is not let go by a daemon that cannot start: it is the service manager's, or the next one's. */
	if (gather(k, config, &err) || cis_keeper_control(k, config->control, &err) ||
	    cis_harden_keeper(config, &err) || cis_keeper_start(k, args, env, &err)) {
		free(args);
		return fail(&err);
	}
	cis_keeper_stay(k);
	if (cis_keeper_run(k, &status))
		status = fail(&err);
	cis_keeper_destroy(k);
	free(args);
	return status;
}

int main(int argc, char **argv)
{
	struct cis_config config;
	int role = 0, rc;

	cis_keeper_guard(argv);
	if (cis_config_init(&config)) {
		fprintf(stderr, "cisternd: out of memory\n");
		cis_keeper_go_back("out of memory");
		return 1;
	}
	rc = parse(argc, argv, &config, &role);
	if (rc) {
		cis_keeper_go_back("its arguments or its configuration cannot be read");
		cis_config_fini(&config);
		return rc - 1;
	}
	if (role == OPT_PROBE) {
		cis_keeper_probe(stdout);
		cis_config_fini(&config);
		return 0;
	}
	cis_log_set(cis_daemon_log, role ? "cisternd" : "cisternd keeper", (enum cis_log_level)config.log_level);
	rc = role ? cis_engine_main(&config, CIS_WIRE_FD) : keeper(&config, argc, argv);
	cis_config_fini(&config);
	return rc;
}
