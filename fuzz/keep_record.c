/*
 * The record that a keeper finds of a connection or listener.  The input is two slots (slots.h); where byte 0 is 1, the checksum of
 * the client's bytes is mended.
 *
 * Whatever is accepted can be written, and says the same then.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "codec/codec.h"
#include "daemon/keep_record.h"
#include "daemon/wire.h"
#include "slots.h"

#define BYTES_AT (2 * SLOT_BYTES)

static int make_record(const struct keep_record *r)
{
	int fd = memfd_create("record", MFD_CLOEXEC);
	uint64_t seq = 0;
	int rc;

	FUZZ_CHECK(fd >= 0);
	rc = keep_record_write(fd, &seq, r);
	FUZZ_CHECK(!rc || rc == -E2BIG);
	if (!rc)
		return fd;
	close(fd);
	return -1;
}

static void compare(int a, int b)
{
	static uint8_t x[SLOT_BYTES], y[SLOT_BYTES];

	FUZZ_CHECK(pread(a, x, sizeof(x), SLOT_BYTES) == pread(b, y, sizeof(y), SLOT_BYTES));
	FUZZ_CHECK(!memcmp(x, y, sizeof(x)));
}

static void write_again(const struct keep_record *r)
{
	struct keep_record same;
	struct cis_error err;
	int first = make_record(r), second;
	void *buf;

	if (first < 0)
		return;
	FUZZ_CHECK(!keep_record_read(first, &same, &buf, &err));
	second = make_record(&same);
	FUZZ_CHECK(second >= 0);
	compare(first, second);
	free(buf);
	close(first);
	close(second);
}

static void read_bytes(int fd, struct keep_record *r, bool mend)
{
	static const uint8_t zeros[256 << 10];
	struct cis_error err = { 0 };
	void *bytes;

	if (r->bytes_len && mend) {
		r->bytes_crc = cis_crc64(0, zeros, r->bytes_len);
		FUZZ_CHECK(!ftruncate(fd, (off_t)(BYTES_AT + r->bytes_len)));
	}
	if (keep_bytes_read(fd, r, &bytes, &err))
		FUZZ_CHECK(err.text[0] && !(r->bytes_len && mend));
	else
		free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_wire_listen listen;
	struct cis_error err = { 0 };
	struct keep_record r;
	void *buf;
	int fd;

	if (!len)
		return 0;
	fd = slots_of(data + 1, len - 1, 2);
	if (keep_record_read(fd, &r, &buf, &err)) {
		FUZZ_CHECK(err.text[0]);
	} else {
		if (r.listen)
			cis_wire_listen_get(r.listen, r.listen_len, &listen);
		write_again(&r);
		read_bytes(fd, &r, data[0] & 1);
		free(buf);
	}
	close(fd);
	return 0;
}
