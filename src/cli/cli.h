/*
 * The command line: one file per subcommand, each with a table of its options from which parsing and --help
 * come.
 *
 * A process runs one command, on one thread; so options land in static variables of the command's file.
 * Results go to stdout, as text or with --json as one object; errors and progress to stderr.
 */
#ifndef CIS_CLI_CLI_H
#define CIS_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>

#include "base/error.h"

/* Exit statuses: stable, scripts depend on them. */
enum cli_status { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

#define CLI_LIST_MAX 256

/** struct cli_list - an option that may be given several times */
struct cli_list {
	const char *item[CLI_LIST_MAX];
	size_t nr;
};

/** enum cli_kind - what an option takes, and the type that @to of its row points to */
enum cli_kind {
	CLI_FLAG,   /* bool */
	CLI_STRING, /* const char * */
	CLI_LIST,   /* struct cli_list */
	CLI_SIZE,   /* uint64_t, bytes */
	CLI_NUMBER, /* uint64_t */
	CLI_CHOICE, /* const char *: one of the words of @value, which are parted by '|' */
};

/** struct cli_option - one row; a table ends with a row without @name */
struct cli_option {
	const char *name;
	enum cli_kind kind;
	const char *value; /* how --help calls what it takes */
	const char *help;
	void *to;
};

/**
 * struct cli_command - one subcommand
 * @words:   "image create"
 * @args:    how --help calls its arguments
 * @summary: one line
 * @run:     gets the arguments after the options; returns an exit status
 */
struct cli_command {
	const char *words;
	const char *args;
	const char *summary;
	const struct cli_option *options;
	int min_args, max_args;
	int (*run)(int argc, char **argv);
};

extern bool cli_json;
extern const char *cli_images;	/* --images, CISTERN_IMAGES or the default */
extern const char *cli_control; /* --control, CISTERN_CONTROL or the default */

#define CLI_OPTION_IMAGES                                                                                    \
	{                                                                                                    \
		"images", CLI_STRING, "DIR",                                                                 \
			"the image directory (default: CISTERN_IMAGES or /var/lib/cistern/images)",          \
			&cli_images                                                                          \
	}
#define CLI_OPTION_CONTROL                                                                                   \
	{                                                                                                    \
		"control", CLI_STRING, "SOCKET",                                                             \
			"the daemon's socket (default: CISTERN_CONTROL or /run/cistern/control.sock)",       \
			&cli_control                                                                         \
	}
#define CLI_OPTION_END                                                                                       \
	{                                                                                                    \
		0                                                                                            \
	}

/**
 * cli_parse() - the options of one command
 * @argv: argv[0] is not looked at
 *
 * Return: index of the first argument (options first, whatever their order
 * was), or -EINVAL after saying on stderr what is wrong; -ECANCELED after --help.
 */
int cli_parse(const struct cli_command *cmd, int argc, char **argv);

/** cli_help() - what --help prints. */
void cli_help(const struct cli_command *cmd);

/** cli_usage() - wrong usage, said on stderr with the way to --help.  Return: CLI_USAGE. */
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** cli_fail() - say an error, with --json as an object on stdout too.  Return: CLI_FAILED. */
int cli_fail(const struct cis_error *err);

/** cli_print_json() - one object on stdout; takes the reference.  Return: CLI_OK, or CLI_FAILED when stdout
 * fails. */
int cli_print_json(json_t *obj);

/** cli_command_name() - the words of the running command. */
const char *cli_command_name(void);

extern const struct cli_command cli_image_create, cli_image_export, cli_image_ls, cli_image_map,
	cli_image_optimize, cli_image_quota, cli_image_rm, cli_image_show, cli_image_verify, cli_guest_add,
	cli_guest_ls, cli_guest_park, cli_guest_rm, cli_guest_set, cli_guest_show, cli_guest_unpark, cli_guest_wait,
	cli_record_start, cli_record_stop,
	cli_doctor, cli_drain, cli_pages_check, cli_run, cli_top, cli_upgrade;

#endif
