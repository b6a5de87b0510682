/*
 * Producers of corrupt diffs.
 *
 * Firecracker before 1.14.2 shifts what follows a clean end of a memory slot when it writes a diff
 * (firecracker#5705); a guest over 3 GiB has two slots.  The memory file does not show it, so the version
 * must be known: from --producer or from the head of the state file.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/le.h"
#include "cli/images.h"

#define ONE_SLOT_BYTES ((uint64_t)3 << 30)
#define STATE_MAGIC    0x0710198486640000ull
#define SEE	       "diffs by Firecracker before 1.14.2 of guests over 3 GiB are corrupt (firecracker#5705)"

enum verdict { GOOD, CORRUPT, UNKNOWN };

/* "firecracker-1.13.0", "Firecracker v1.14.2"; any other program is not known to be bad. */
static enum verdict judge_producer(const char *producer)
{
	static const char name[] = "firecracker";
	unsigned major, minor, patch = 0;

	if (strncasecmp(producer, name, strlen(name)))
		return *producer ? GOOD : UNKNOWN;
	producer += strlen(name);
	producer += strspn(producer, "-_/ v");
	if (sscanf(producer, "%5u.%5u.%5u", &major, &minor, &patch) < 2)
		return UNKNOWN;
	if (major != 1)
		return major > 1 ? GOOD : CORRUPT;
	if (minor != 14)
		return minor > 14 ? GOOD : CORRUPT;
	return patch >= 2 ? GOOD : CORRUPT;
}

/*
 * The head of a state file: the magic, then the snapshot format's version as a string with an 8-byte length
 * (1.7 to 1.14), or with a number in the magic's low bits (up to 1.6).  1.15 encodes both in another way.
 * Format 8 is that of 1.13 and of all 1.14.x, so it does not decide.
 */
static enum verdict judge_state(const uint8_t *state, size_t len)
{
	char version[16] = "";
	unsigned format;
	uint64_t n;

	if (len < 16 || (cis_le64(state) & ~0xffffull) != STATE_MAGIC)
		return UNKNOWN;
	if (cis_le64(state) != STATE_MAGIC)
		return CORRUPT;
	n = cis_le64(state + 8);
	if (n >= sizeof(version) || n > len - 16)
		return UNKNOWN;
	memcpy(version, state + 16, n);
	if (sscanf(version, "%5u.", &format) != 1)
		return UNKNOWN;
	return format < 8 ? CORRUPT : format > 8 ? GOOD : UNKNOWN;
}

int cli_producer_check(const char *producer, const void *state, size_t state_bytes, uint64_t guest_bytes,
		       struct cis_error *err)
{
	enum verdict v = UNKNOWN;

	if (guest_bytes <= ONE_SLOT_BYTES)
		return 0;
	if (producer)
		v = judge_producer(producer);
	else if (state)
		v = judge_state(state, state_bytes);
	if (v == GOOD)
		return 0;
	if (v == CORRUPT)
		return cis_fail(err, EBADMSG, "%s; take a full snapshot instead and give it with --full",
				SEE);
	return cis_fail(err, EINVAL,
			"who wrote this diff? %s; name its writer, as in --producer firecracker-1.14.2, or "
			"give a full snapshot with --full",
			SEE);
}
