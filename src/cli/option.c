/* The option parser: from a command's table come parsing, checking and --help. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "image/dir.h"

#define OPTIONS_MAX 32

bool cli_json;
const char *cli_images;
const char *cli_control;
static bool want_help;
static const struct cli_command *current;

static const struct cli_option common[] = {
	{ "json", CLI_FLAG, NULL, "print the result as JSON", &cli_json },
	{ "help", CLI_FLAG, NULL, "print this text", &want_help },
	CLI_OPTION_END,
};

const char *cli_command_name(void)
{
	return current ? current->words : "";
}

int cli_usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "cistern%s%s: ", current ? " " : "", cli_command_name());
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'cistern%s%s --help'.\n", current ? " " : "", cli_command_name());
	return CLI_USAGE;
}

static void help_row(const struct cli_option *o)
{
	char left[64];

	snprintf(left, sizeof(left), "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
	if (strlen(left) > 24)
		printf("  %s\n  %-24s  %s\n", left, "", o->help);
	else
		printf("  %-24s  %s\n", left, o->help);
}

void cli_help(const struct cli_command *cmd)
{
	printf("Usage: cistern %s [OPTION]...%s%s\n\n%s.\n\nOptions:\n", cmd->words, *cmd->args ? " " : "",
	       cmd->args, cmd->summary);
	for (const struct cli_option *o = cmd->options; o && o->name; o++)
		help_row(o);
	for (const struct cli_option *o = common; o->name; o++)
		help_row(o);
}

static bool is_choice(const char *words, const char *value)
{
	size_t len = strlen(value);

	for (const char *w = words; w; w = strchr(w, '|') ? strchr(w, '|') + 1 : NULL)
		if (len && !strncmp(w, value, len) && (w[len] == '|' || !w[len]))
			return true;
	return false;
}

static int set_number(const struct cli_option *o, const char *value)
{
	char *end;
	unsigned long long n;

	errno = 0;
	n = strtoull(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno) {
		cli_usage("--%s: '%s' is not a number", o->name, value);
		return -EINVAL;
	}
	*(uint64_t *)o->to = n;
	return 0;
}

static int set_option(const struct cli_option *o, const char *value)
{
	struct cli_list *list = o->to;

	switch (o->kind) {
	case CLI_FLAG:
		*(bool *)o->to = true;
		return 0;
	case CLI_CHOICE:
		if (!is_choice(o->value, value)) {
			cli_usage("--%s: '%s' is not one of %s", o->name, value, o->value);
			return -EINVAL;
		}
		*(const char **)o->to = value;
		return 0;
	case CLI_STRING:
		*(const char **)o->to = value;
		return 0;
	case CLI_LIST:
		if (list->nr == CLI_LIST_MAX) {
			cli_usage("--%s: given more than %d times", o->name, CLI_LIST_MAX);
			return -EINVAL;
		}
		list->item[list->nr++] = value;
		return 0;
	case CLI_SIZE:
		if (cis_size_parse(value, o->to)) {
			cli_usage("--%s: '%s' is not a size, like 64K or 2G", o->name, value);
			return -EINVAL;
		}
		return 0;
	case CLI_NUMBER:
		return set_number(o, value);
	}
	return -EINVAL;
}

static size_t join_tables(const struct cli_command *cmd, const struct cli_option **rows, struct option *longs)
{
	const struct cli_option *const tables[] = { cmd->options, common };
	size_t n = 0;

	for (size_t t = 0; t < 2; t++)
		for (const struct cli_option *o = tables[t]; o && o->name && n < OPTIONS_MAX - 1; o++) {
			rows[n] = o;
			longs[n] = (struct option){ o->name,
						    o->kind == CLI_FLAG ? no_argument : required_argument,
						    NULL, (int)n + 256 };
			n++;
		}
	longs[n] = (struct option){ 0 };
	return n;
}

static int parse_options(const struct cli_command *cmd, int argc, char **argv)
{
	const struct cli_option *rows[OPTIONS_MAX];
	struct option longs[OPTIONS_MAX];
	int c, r;

	join_tables(cmd, rows, longs);
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":h", longs, NULL)) != -1) {
		if (c == 'h') {
			want_help = true;
		} else if (c == ':') {
			cli_usage("%s wants a value", argv[optind - 1]);
			return -EINVAL;
		} else if (c == '?') {
			cli_usage("no such option: %s", argv[optind - 1]);
			return -EINVAL;
		} else {
			r = set_option(rows[c - 256], optarg);
			if (r)
				return r;
		}
	}
	return 0;
}

static const char *or_default(const char *variable, const char *otherwise)
{
	const char *value = getenv(variable);

	return value && *value ? value : otherwise;
}

int cli_parse(const struct cli_command *cmd, int argc, char **argv)
{
	int r, nr;

	current = cmd;
	cli_images = or_default("CISTERN_IMAGES", CIS_DIR_DEFAULT);
	cli_control = or_default("CISTERN_CONTROL", "/run/cistern/control.sock");
	r = parse_options(cmd, argc, argv);
	if (r)
		return r;
	if (want_help) {
		cli_help(cmd);
		return -ECANCELED;
	}
	nr = argc - optind;
	if (nr < cmd->min_args || nr > cmd->max_args) {
		if (!cmd->max_args)
			cli_usage("takes no arguments");
		else
			cli_usage("wants %s%s", cmd->args, nr > cmd->max_args ? " and no more" : "");
		return -EINVAL;
	}
	return optind;
}
