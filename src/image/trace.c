#include "image/trace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/le.h"
#include "codec/codec.h"
#include "image/file.h"
#include "image/format.h"

/* doc/format.md section 9. */
#define HEAD_BYTES 64
#define TAIL_BYTES 8

static const char magic[8] = { 'C', 'I', 'S', 'T', 'R', 'A', 'C', 'E' };

static int bad(const char *path, const char *what, struct cis_error *err)
{
	return cis_fail(err, EBADMSG, "%s: %s (format 9)", path, what);
}

static int check_head(const char *path, const uint8_t *b, size_t len, uint64_t file_bytes,
		      struct cis_trace *t, struct cis_error *err)
{
	if (len < sizeof(magic) || memcmp(b, magic, sizeof(magic)))
		return cis_fail(err, EMEDIUMTYPE, "%s: not a trace file: no magic at its start (format 9)",
				path);
	if (len < HEAD_BYTES)
		return bad(path, "truncated", err);
	if (cis_le32(b + 8) != 1)
		return cis_fail(err, EPROTONOSUPPORT, "%s: trace version %u: this program reads 1 (format 9)",
				path, cis_le32(b + 8));
	t->page_shift = cis_le32(b + 12);
	t->guest_bytes = cis_le64(b + 16);
	memcpy(t->image_id, b + 24, sizeof(t->image_id));
	t->nr = cis_le64(b + 56);
	if (t->page_shift != 12 && t->page_shift != 21)
		return bad(path, "page_shift is neither 12 nor 21", err);
	if (!t->guest_bytes || t->guest_bytes > CIS_GUEST_BYTES_MAX)
		return bad(path, "guest_bytes is not 1 .. 2^44", err);
	if (t->nr > ((t->guest_bytes - 1) >> t->page_shift) + 1)
		return bad(path, "more entries than the guest has pages", err);
	if (file_bytes != HEAD_BYTES + 4 * t->nr + TAIL_BYTES)
		return bad(path, "its length does not fit the count of entries", err);
	return 0;
}

/* By sorting: a bitmap would be as large as the guest that a hostile file claims. */
static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int check_entries(const char *path, const struct cis_trace *t, struct cis_error *err)
{
	uint64_t nr_pages = ((t->guest_bytes - 1) >> t->page_shift) + 1;
	uint32_t *sorted = malloc(t->nr * 4 + 1);
	int rc = 0;

	if (!sorted)
		return cis_fail(err, ENOMEM, "%s: no memory for %llu entries", path,
				(unsigned long long)t->nr);
	memcpy(sorted, t->pgno, t->nr * 4);
	qsort(sorted, t->nr, 4, compare);
	for (uint64_t i = 1; i < t->nr && !rc; i++)
		if (sorted[i] == sorted[i - 1])
			rc = bad(path, "a page is in it twice", err);
	if (!rc && t->nr && sorted[t->nr - 1] >= nr_pages)
		rc = bad(path, "a page beyond the end of the guest", err);
	free(sorted);
	return rc;
}

static int load_entries(int fd, const char *path, const uint8_t *head, struct cis_trace *t,
			struct cis_error *err)
{
	uint8_t *buf = malloc(t->nr * 4 + TAIL_BYTES);

	if (!buf)
		return cis_fail(err, ENOMEM, "%s: no memory for %llu entries", path,
				(unsigned long long)t->nr);
	t->pgno = (uint32_t *)buf;
	int rc = cis_file_read(fd, path, buf, t->nr * 4 + TAIL_BYTES, HEAD_BYTES, err);

	if (rc)
		return rc;
	if (cis_crc64(cis_crc64(0, head, HEAD_BYTES), buf, t->nr * 4) != cis_le64(buf + t->nr * 4))
		return bad(path, "its checksum does not match: the file is damaged", err);
	for (uint64_t i = 0; i < t->nr; i++)
		t->pgno[i] = le32toh(t->pgno[i]);
	return check_entries(path, t, err);
}

int cis_trace_load(const char *path, struct cis_trace *ret, struct cis_error *err)
{
	struct cis_trace t = { 0 };
	uint8_t head[HEAD_BYTES];
	uint64_t bytes;
	int fd, rc = cis_file_open(path, &fd, &bytes, err);

	if (rc)
		return rc;
	size_t len = bytes < HEAD_BYTES ? (size_t)bytes : HEAD_BYTES;

	rc = cis_file_read(fd, path, head, len, 0, err);
	if (!rc)
		rc = check_head(path, head, len, bytes, &t, err);
	if (!rc)
		rc = load_entries(fd, path, head, &t, err);
	close(fd);
	if (rc)
		cis_trace_fini(&t);
	else
		*ret = t;
	return rc;
}

static void put_head(const struct cis_trace *t, uint8_t *b)
{
	memcpy(b, magic, sizeof(magic));
	cis_put_le32(b + 8, 1);
	cis_put_le32(b + 12, t->page_shift);
	cis_put_le64(b + 16, t->guest_bytes);
	memcpy(b + 24, t->image_id, sizeof(t->image_id));
	cis_put_le64(b + 56, t->nr);
}

int cis_trace_save(const char *path, const struct cis_trace *trace, struct cis_error *err)
{
	size_t len = HEAD_BYTES + 4 * trace->nr + TAIL_BYTES;
	struct cis_newfile f;
	uint8_t *buf = malloc(len);

	if (!buf)
		return cis_fail(err, ENOMEM, "%s: no memory for %llu entries", path,
				(unsigned long long)trace->nr);
	put_head(trace, buf);
	for (uint64_t i = 0; i < trace->nr; i++)
		cis_put_le32(buf + HEAD_BYTES + 4 * i, trace->pgno[i]);
	cis_put_le64(buf + len - TAIL_BYTES, cis_crc64(0, buf, len - TAIL_BYTES));
	int rc = cis_newfile_create(path, &f, err);

	if (!rc) {
		rc = cis_newfile_write(&f, buf, len, 0, err);
		if (!rc)
			rc = cis_newfile_publish(&f, err);
		cis_newfile_close(&f);
	}
	free(buf);
	return rc;
}

void cis_trace_fini(struct cis_trace *trace)
{
	free(trace->pgno);
	*trace = (struct cis_trace){ 0 };
}
