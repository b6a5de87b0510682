/* What commands print: errors, JSON, progress. */
#include "cli/output.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/size.h"

#define BAR_WIDTH    30
#define BAR_EVERY_NS 100000000
#define BAR_AFTER_NS 300000000 /* short work shows none */

char cli_error_code[32];

const char *cli_clean(const char *text)
{
	static char buf[8][4200]; /* a path and more */
	static unsigned next;
	char *out = buf[next = (next + 1) % 8];
	size_t n = 0;

	for (; text[n] && n < sizeof(buf[0]) - 1; n++)
		out[n] = (unsigned char)text[n] < ' ' || text[n] == 127 ? '?' : text[n];
	out[n] = 0;
	return out;
}

json_t *cli_json_text(const char *text)
{
	json_t *obj = json_string(text);
	char *copy = obj ? NULL : strdup(text);

	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p >= 128)
			*p = '?';
	if (copy)
		obj = json_string(copy);
	free(copy);
	return obj;
}

int cli_print_json(json_t *obj)
{
	int r;

	if (!obj) {
		fprintf(stderr, "cistern %s: no memory for JSON\n", cli_command_name());
		return CLI_FAILED;
	}
	r = json_dumpf(obj, stdout, JSON_INDENT(2)) || putchar('\n') == EOF;
	json_decref(obj);
	return r ? CLI_FAILED : CLI_OK;
}

int cli_fail(const struct cis_error *err)
{
	fprintf(stderr, "cistern %s: %s\n", cli_command_name(), cli_clean(err->text));
	if (cli_json)
		cli_print_json(json_pack("{s:{s:s,s:o}}", "error", "code",
					 *cli_error_code ? cli_error_code : strerrorname_np(err->code),
					 "message", cli_json_text(err->text)));
	return CLI_FAILED;
}

void cli_progress_start(struct cli_progress *p)
{
	*p = (struct cli_progress){ .on = isatty(STDERR_FILENO) && !cli_json, .start_ns = cis_now_ns(NULL) };
}

void cli_progress(uint64_t done, uint64_t total, void *ctx)
{
	struct cli_progress *p = ctx;
	uint64_t now = cis_now_ns(NULL);
	char size[32], bar[BAR_WIDTH + 1];

	p->done = done;
	p->total = total;
	if (!p->on || !total || now - p->start_ns < BAR_AFTER_NS || now - p->last_ns < BAR_EVERY_NS)
		return;
	p->last_ns = now;
	if (done > total)
		done = total;
	unsigned full = (unsigned)((double)done / (double)total * BAR_WIDTH);

	memset(bar, '#', full);
	memset(bar + full, '.', BAR_WIDTH - full);
	bar[BAR_WIDTH] = 0;
	cis_size_print((uint64_t)((double)done * 1e9 / (double)(now - p->start_ns)), size, sizeof(size));
	fprintf(stderr, "\r[%s] %3u %%  %s/s \033[K", bar, (unsigned)((double)done / (double)total * 100),
		size);
	p->shown = true;
}

void cli_progress_end(struct cli_progress *p)
{
	if (p->shown)
		fprintf(stderr, "\r\033[K");
	p->shown = false;
}
