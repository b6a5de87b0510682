/* cistern top: the guests that fault most, again and again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/guests.h"

static struct {
	uint64_t interval_s, count;
} opt = { .interval_s = 1 };

static const struct cli_option options[] = {
	{ "interval", CLI_NUMBER, "SECONDS", "between two looks (default: 1)", &opt.interval_s },
	{ "count", CLI_NUMBER, "N", "looks, then end (default: for ever on a terminal, else 1)", &opt.count },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

/** struct look - the guests at one moment */
struct look {
	json_t *guests;
	uint64_t at_ns;
};

static double counted(const json_t *guest)
{
	long long faults = cli_number(guest, "faults.count");

	return faults > 0 ? (double)faults : 0;
}

static const json_t *find(const struct look *look, const char *id)
{
	json_t *guest;
	size_t i;

	json_array_foreach (look->guests, i, guest)
		if (!strcmp(cli_text(guest, "id"), id))
			return guest;
	return NULL;
}

/* Faults a second since the look before; 0 for what was not there then. */
static double rate(const struct look *before, const struct look *now, const json_t *guest)
{
	const json_t *old = before->guests ? find(before, cli_text(guest, "id")) : NULL;
	double s = (double)(now->at_ns - before->at_ns) / 1e9, more = old ? counted(guest) - counted(old) : 0;

	return old && s > 0 && more > 0 ? more / s : 0;
}

struct row {
	const json_t *guest;
	double rate;
};

static int by_rate(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->rate != y->rate)
		return x->rate < y->rate ? 1 : -1;
	return strcmp(cli_text(x->guest, "id"), cli_text(y->guest, "id"));
}

static void print_rows(const struct row *rows, size_t nr, bool screen)
{
	if (screen)
		printf("\033[H\033[J");
	printf("%-24s %-12s %10s %12s %10s %10s %10s %12s\n", "GUEST", "STATE", "FAULTS/S", "FAULTS", "BUDGET",
	       "RESIDENT", "REMOTE", "ABSENT");
	for (size_t i = 0; i < nr; i++) {
		char budget[24], resident[24], remote[24], absent[24];

		cli_bytes(rows[i].guest, "memory.budget_bytes", budget, sizeof(budget));
		cli_bytes(rows[i].guest, "memory.resident_bytes", resident, sizeof(resident));
		cli_remote(rows[i].guest, remote, sizeof(remote));
		cli_figure(rows[i].guest, "pages.absent", absent, sizeof(absent));
		printf("%-24s %-12s %10.0f %12.0f %10s %10s %10s %12s\n", cli_text(rows[i].guest, "id"),
		       cli_text(rows[i].guest, "state"), rows[i].rate, counted(rows[i].guest), budget, resident,
		       remote, absent);
	}
	fflush(stdout);
}

static int print_look(const struct look *before, const struct look *now, bool screen)
{
	size_t nr = json_array_size(now->guests);
	struct row *rows = calloc(nr + 1, sizeof(*rows));
	json_t *guest, *list = json_array();
	size_t i;

	if (!rows)
		return CLI_FAILED;
	json_array_foreach (now->guests, i, guest)
		rows[i] = (struct row){ guest, rate(before, now, guest) };
	qsort(rows, nr, sizeof(*rows), by_rate);
	for (i = 0; cli_json && i < nr; i++)
		json_array_append_new(list,
				      json_pack("{s:s,s:s,s:f,s:f}", "id", cli_text(rows[i].guest, "id"),
						"state", cli_text(rows[i].guest, "state"), "faults_s",
						rows[i].rate, "faults", counted(rows[i].guest)));
	if (!cli_json)
		print_rows(rows, nr, screen);
	free(rows);
	if (cli_json)
		return cli_print_json(json_pack("{s:o}", "guests", list));
	json_decref(list);
	return CLI_OK;
}

static int run(int argc, char **argv)
{
	bool screen = isatty(STDOUT_FILENO) && !cli_json;
	struct look before = { 0 }, now;
	struct cis_error err;
	int status = CLI_OK;

	if (!opt.interval_s || opt.interval_s > 86400)
		return cli_usage("--interval: %llu is not 1 to 86400", (unsigned long long)opt.interval_s);
	if (!opt.count)
		opt.count = screen ? UINT64_MAX : 1;
	for (uint64_t i = 0; i < opt.count && !status; i++) {
		if (i)
			nanosleep(&(struct timespec){ .tv_sec = (time_t)opt.interval_s }, NULL);
		if (cli_guest_list(&now.guests, &err)) {
			status = cli_fail(&err);
			break;
		}
		now.at_ns = cis_now_ns(NULL);
		status = print_look(&before, &now, screen);
		json_decref(before.guests);
		before = now;
	}
	json_decref(before.guests);
	return status;
}

const struct cli_command cli_top = { "top", "", "Watch the guests that fault most", options, 0, 0, run };
