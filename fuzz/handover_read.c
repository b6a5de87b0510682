/*
 * What an engine hands over beside what the keeper holds.  Byte 0: 1: a guest of serial 7 is there; the rest are sections: tag, flags
 * and two bytes of length, then its bytes.
 *
 * Whatever it says, the engine that reads it shows its guests, counts, and writes their traces; and handed on, all is the same.
 */
#include <errno.h>
#include <ftw.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/le.h"
#include "daemon/handover.h"
#include "daemon/sections.h"
#include "engine.h"

static char folder[] = "/tmp/cistern-fuzz-XXXXXX";

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void clean_up(void)
{
	nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	FUZZ_CHECK(mkdtemp(folder));
	atexit(clean_up);
	prepare();
	return 0;
}

static void use(struct cis_engine *e)
{
	char path[64], *text = cis_metrics_text(e);

	FUZZ_CHECK(text);
	free(text);
	snprintf(path, sizeof(path), "%s/trace", folder);
	for (size_t i = 0; i < e->nr_guests; i++) {
		struct cis_error err;
		uint64_t pages;
		int rc = cis_guest_record_stop(e->guests[i], path, &pages, &err);

		FUZZ_CHECK(!rc || rc == -EINVAL);
	}
}

static void hand_on(struct cis_engine *e, bool has_guest)
{
	struct cis_engine next;
	struct cis_error err;
	char *before = show(e), *after;
	int fd;

	begin(&next, has_guest);
	cis_handover_prepare(e);
	FUZZ_CHECK(!cis_handover_write(e, &fd, &err));
	FUZZ_CHECK(!cis_handover_check(&next, fd, &err));
	close(fd);
	cis_handover_read(&next);
	after = show(&next);
	FUZZ_CHECK(!strcmp(before, after) && cis_awake_held_ns(next.awake) == cis_awake_held_ns(e->awake));
	FUZZ_CHECK(!memcmp(&next.past, &e->past, sizeof(e->past)));
	free(before);
	free(after);
	finish(&next);
}

static int sections_of(const uint8_t *data, size_t len)
{
	struct cis_sections s = { 0 };
	int fd;

	while (len >= 4) {
		size_t n = cis_le16(data + 2);

		n = n < len - 4 ? n : len - 4;
		cis_sections_add(&s, data[0], data[1], data + 4, n);
		data += 4 + n;
		len -= 4 + n;
	}
	FUZZ_CHECK(!cis_sections_seal(&s, "fuzz", &fd));
	cis_sections_fini(&s);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_engine e;
	struct cis_error err = { 0 };
	int fd;

	if (!len)
		return 0;
	begin(&e, data[0] & 1);
	fd = sections_of(data + 1, len - 1);
	if (cis_handover_check(&e, fd, &err)) {
		FUZZ_CHECK(err.text[0]);
	} else {
		cis_handover_read(&e);
		hand_on(&e, data[0] & 1);
		use(&e);
	}
	close(fd);
	finish(&e);
	return 0;
}
