/*
 * The ledger that an engine finds.  Byte 0: 1: a guest of serial 7 lives; the rest are slots (slots.h).
 *
 * Whatever it says, the engine that follows a crash shows its guests and counts; and one that follows it shows and counts the same.
 */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ledger.h"
#include "engine.h"
#include "slots.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	prepare();
	return 0;
}

/* As after a crash. */
static void follow(struct cis_engine *e, int fd, bool has_guest)
{
	begin(e, has_guest);
	e->mode = CIS_ENGINE_LEARNS;
	cis_ledger_use(e, fcntl(fd, F_DUPFD_CLOEXEC, 0));
	e->mode = CIS_ENGINE_SERVES;
	cis_ledger_scan(e);
	cis_ledger_open(e, true);
}

static void leave(struct cis_engine *e)
{
	cis_ledger_destroy(e->ledger);
	e->ledger = NULL;
	finish(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_engine first, next;
	char *before, *after, *metrics;
	int fd;

	if (!len)
		return 0;
	fd = slots_of(data + 1, len - 1, 8);
	follow(&first, fd, data[0] & 1);
	follow(&next, fd, data[0] & 1);
	before = show(&first);
	after = show(&next);
	FUZZ_CHECK(!strcmp(before, after));
	FUZZ_CHECK(!memcmp(&first.past, &next.past, sizeof(first.past)));
	FUZZ_CHECK(cis_awake_held_ns(first.awake) == cis_awake_held_ns(next.awake));
	metrics = cis_metrics_text(&next);
	FUZZ_CHECK(metrics);
	free(metrics);
	free(before);
	free(after);
	leave(&first);
	leave(&next);
	close(fd);
	return 0;
}
