/* Slots of sections in a file, from an input of sections: tag, flags and two bytes of length, then its bytes; tag 255 begins the next slot. */
#ifndef CIS_FUZZ_SLOTS_H
#define CIS_FUZZ_SLOTS_H

#include <stdint.h>
#include <sys/mman.h>

#include "base/le.h"
#include "check.h"
#include "daemon/sections.h"

#define SLOT_BYTES 65536u
#define NEXT_SLOT  255

/* One that does not fit is left out, as its writer would. */
static inline void put_slot(struct cis_sections *s, int fd, unsigned slot)
{
	if (s->nr)
		cis_sections_put(s, fd, (uint64_t)slot * SLOT_BYTES, SLOT_BYTES);
	cis_sections_fini(s);
	*s = (struct cis_sections){ 0 };
}

static inline int slots_of(const uint8_t *data, size_t len, unsigned max)
{
	struct cis_sections s = { 0 };
	unsigned slot = 0;
	int fd = memfd_create("slots", MFD_CLOEXEC);

	FUZZ_CHECK(fd >= 0);
	while (len >= 4 && slot < max) {
		size_t n = cis_le16(data + 2);

		n = n < len - 4 ? n : len - 4;
		if (data[0] == NEXT_SLOT)
			put_slot(&s, fd, slot++);
		else
			cis_sections_add(&s, data[0], data[1], data + 4, n);
		data += 4 + n;
		len -= 4 + n;
	}
	if (slot < max)
		put_slot(&s, fd, slot);
	return fd;
}

#endif
