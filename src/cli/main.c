/* cistern: finds the command and runs it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const struct cli_command *const commands[] = {
	&cli_image_create,   &cli_image_ls,   &cli_image_show, &cli_image_verify, &cli_image_export,
	&cli_image_optimize, &cli_image_map,  &cli_image_rm,   &cli_image_quota,  &cli_guest_add,
	&cli_guest_ls,	     &cli_guest_show, &cli_guest_wait, &cli_guest_set,	  &cli_guest_park,
	&cli_guest_unpark,   &cli_guest_rm,   &cli_record_start, &cli_record_stop, &cli_doctor,
	&cli_pages_check,    &cli_drain,      &cli_run,	      &cli_top,	      &cli_upgrade,
};

#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* The commands whose first word is @group, or all. */
static void list_commands(const char *group)
{
	for (size_t i = 0; i < NR_COMMANDS; i++) {
		const struct cli_command *c = commands[i];
		size_t len = group ? strlen(group) : 0;
		char left[64];

		if (group && (strncmp(c->words, group, len) || c->words[len] != ' '))
			continue;
		snprintf(left, sizeof(left), "%s %s", c->words, c->args);
		printf("  %-34s  %s\n", left, c->summary);
	}
}

static int help(const char *group)
{
	printf("Usage: cistern %s%sCOMMAND [OPTION]... [ARGUMENT]...\n\nCommands:\n", group ? group : "",
	       group ? " " : "");
	list_commands(group);
	printf("\nOptions:\n  --help                    print this text, or that of a command\n"
	       "  --version                 print the version\n");
	return CLI_OK;
}

static int version(void)
{
	printf("cistern %s\n", CISTERN_VERSION);
	return CLI_OK;
}

/* How many of the words @words are the first of argv; 0 when they are not. */
static int matches(const char *words, int argc, char **argv)
{
	int n = 0;

	while (*words) {
		size_t len = strcspn(words, " ");

		if (n == argc || strlen(argv[n]) != len || strncmp(argv[n], words, len))
			return 0;
		words += len + (words[len] == ' ');
		n++;
	}
	return n;
}

static bool is_group(const char *word)
{
	size_t len = strlen(word);

	for (size_t i = 0; i < NR_COMMANDS; i++)
		if (!strncmp(commands[i]->words, word, len) && commands[i]->words[len] == ' ')
			return true;
	return false;
}

static int run_command(const struct cli_command *cmd, int argc, char **argv)
{
	int first = cli_parse(cmd, argc, argv);

	if (first == -ECANCELED)
		return CLI_OK;
	if (first < 0)
		return CLI_USAGE;
	int status = cmd->run(argc - first, argv + first);

	if (fflush(stdout) || ferror(stdout)) {
		struct cis_error err;

		cis_fail(&err, EIO, "standard output: %s", strerror(errno));
		fprintf(stderr, "cistern %s: %s\n", cmd->words, err.text);
		return CLI_FAILED;
	}
	return status;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return cli_usage("wants a command");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return help(NULL);
	if (!strcmp(argv[1], "--version"))
		return version();
	for (size_t i = 0; i < NR_COMMANDS; i++) {
		int n = matches(commands[i]->words, argc - 1, argv + 1);

		if (n)
			return run_command(commands[i], argc - n, argv + n);
	}
	if (!is_group(argv[1]))
		return cli_usage("no such command: %s", argv[1]);
	if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h")))
		return help(argv[1]);
	return argc > 2 ? cli_usage("no such command: %s %s", argv[1], argv[2]) :
			  cli_usage("%s wants a command", argv[1]);
}
