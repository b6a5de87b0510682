/* What commands print: errors, JSON, progress. */
#ifndef CIS_CLI_OUTPUT_H
#define CIS_CLI_OUTPUT_H

#include "cli/cli.h"

/* The code of the daemon's error object when it was the one to refuse, else "": --json gives it back as it
 * was. */
extern char cli_error_code[32];

/**
 * cli_clean() - text that came from a file, a name or a peer, fit for a terminal
 *
 * Control characters become '?', so that nothing steers the terminal.  Return:
 * one of 8 buffers that are used in turn; what is longer than one is cut.
 */
const char *cli_clean(const char *text);

/** cli_json_text() - a path or name as a JSON string; bytes that are not UTF-8 become '?'. */
json_t *cli_json_text(const char *text);

/** struct cli_progress - a bar on stderr when that is a terminal; nothing elsewhere */
struct cli_progress {
	bool on, shown;
	uint64_t done, total;
	uint64_t start_ns, last_ns;
};

void cli_progress_start(struct cli_progress *p);

/** cli_progress() - a callback of the image layer; @ctx is the struct. */
void cli_progress(uint64_t done, uint64_t total, void *ctx);

/** cli_progress_end() - wipe the bar. */
void cli_progress_end(struct cli_progress *p);

#endif
