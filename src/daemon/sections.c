#include "daemon/sections.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/le.h"
#include "codec/codec.h"
#include "os/file.h"

#define HEAD_BYTES    32u
#define LEN_AT	      16u
#define FIRST_BYTES   4096u /* that are read before it is known how many there are */
#define SECTION_BYTES 16u
#define VERSION	      1u
#define SEALS	      (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static const char magic[8] = { 'C', 'I', 'S', 'S', 'E', 'C', 'T', '1' };

static uint8_t *grow(struct cis_sections *s, size_t more)
{
	size_t room = s->room ? s->room : 4096;
	uint8_t *buf;

	if (!s->len)
		more += HEAD_BYTES;
	if (more > CIS_SECTIONS_MAX - s->len) {
		s->error = -E2BIG;
		return NULL;
	}
	while (room < s->len + more)
		room *= 2;
	if (room > s->room) {
		buf = realloc(s->buf, room);
		if (!buf) {
			s->error = -ENOMEM;
			return NULL;
		}
		s->buf = buf;
		s->room = room;
	}
	if (!s->len) {
		memset(s->buf, 0, HEAD_BYTES);
		s->len = HEAD_BYTES;
		more -= HEAD_BYTES;
	}
	s->len += more;
	return s->buf + s->len - more;
}

void cis_sections_add(struct cis_sections *s, uint32_t tag, uint32_t flags, const void *bytes, size_t len)
{
	size_t padded = (len + 7) & ~(size_t)7;
	uint8_t *p;

	if (s->error)
		return;
	if (len > CIS_SECTIONS_MAX) {
		s->error = -E2BIG;
		return;
	}
	p = grow(s, SECTION_BYTES + padded);
	if (!p)
		return;
	cis_put_le32(p, tag);
	cis_put_le32(p + 4, flags);
	cis_put_le64(p + 8, len);
	if (len)
		memcpy(p + SECTION_BYTES, bytes, len);
	memset(p + SECTION_BYTES + len, 0, padded - len);
	s->nr++;
}

int cis_sections_finish(struct cis_sections *s, const void **ret, size_t *ret_len)
{
	if (!s->error && !s->len)
		grow(s, 0);
	if (s->error)
		return s->error;
	memcpy(s->buf, magic, sizeof(magic));
	cis_put_le32(s->buf + 8, VERSION);
	cis_put_le32(s->buf + 12, s->nr);
	cis_put_le64(s->buf + 16, s->len);
	cis_put_le64(s->buf + 24, cis_crc64(0, s->buf + HEAD_BYTES, s->len - HEAD_BYTES));
	*ret = s->buf;
	*ret_len = s->len;
	return 0;
}

int cis_sections_seal(struct cis_sections *s, const char *name, int *ret_fd)
{
	const void *bytes;
	size_t len;
	int rc = cis_sections_finish(s, &bytes, &len), fd;

	if (rc)
		return rc;
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	rc = cis_fd_write(fd, 0, bytes, len);
	if (!rc && fcntl(fd, F_ADD_SEALS, SEALS))
		rc = -errno;
	if (rc) {
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

int cis_sections_put(struct cis_sections *s, int fd, uint64_t at, size_t room)
{
	const void *bytes;
	size_t len;
	int rc = cis_sections_finish(s, &bytes, &len);

	if (rc || len > room)
		return rc ? rc : -E2BIG;
	return cis_fd_write(fd, at, bytes, len);
}

void cis_sections_fini(struct cis_sections *s)
{
	free(s->buf);
	*s = (struct cis_sections){ 0 };
}

/* Every section fits, and together they are all there is: so that next() need not look again. */
static bool they_fit(const uint8_t *at, const uint8_t *end, uint32_t nr)
{
	for (uint32_t i = 0; i < nr; i++) {
		uint64_t len;

		if ((size_t)(end - at) < SECTION_BYTES)
			return false;
		len = cis_le64(at + 8);
		at += SECTION_BYTES;
		if (len > (uint64_t)(end - at) || ((len + 7) & ~7ull) > (uint64_t)(end - at))
			return false;
		at += (len + 7) & ~7ull;
	}
	return at == end;
}

int cis_sections_open(const void *bytes, size_t len, struct cis_sections_reader *ret, struct cis_error *err)
{
	const uint8_t *p = bytes;

	if (len < HEAD_BYTES || memcmp(p, magic, sizeof(magic)))
		return cis_fail(err, EBADMSG, "sections: not ours (magic)");
	if (cis_le32(p + 8) != VERSION)
		return cis_fail(err, EPROTONOSUPPORT, "sections: version %u, known is %u", cis_le32(p + 8), VERSION);
	if (cis_le64(p + 16) != len)
		return cis_fail(err, EBADMSG, "sections: %zu bytes, %llu expected", len,
				(unsigned long long)cis_le64(p + 16));
	if (cis_le64(p + 24) != cis_crc64(0, p + HEAD_BYTES, len - HEAD_BYTES))
		return cis_fail(err, EBADMSG, "sections: checksum does not match");
	if (!they_fit(p + HEAD_BYTES, p + len, cis_le32(p + 12)))
		return cis_fail(err, EBADMSG, "sections: a section does not fit");
	*ret = (struct cis_sections_reader){ p + HEAD_BYTES, p + len, cis_le32(p + 12) };
	return 0;
}

bool cis_sections_next(struct cis_sections_reader *r, struct cis_section *ret)
{
	if (!r->left)
		return false;
	r->left--;
	*ret = (struct cis_section){ cis_le32(r->at), cis_le32(r->at + 4), r->at + SECTION_BYTES,
				     (size_t)cis_le64(r->at + 8) };
	r->at += SECTION_BYTES + ((ret->len + 7) & ~(size_t)7);
	return true;
}

int cis_sections_get(int fd, uint64_t at, void *buf, size_t room, struct cis_sections_reader *ret, struct cis_error *err)
{
	size_t n, first = room < FIRST_BYTES ? room : FIRST_BYTES;
	int rc = cis_fd_read(fd, at, buf, first, &n);
	uint64_t len = !rc && n >= HEAD_BYTES ? cis_le64((const uint8_t *)buf + LEN_AT) : 0;

	if (!rc && n == first && len > first && len <= room) {
		rc = cis_fd_read(fd, at + first, (uint8_t *)buf + first, (size_t)len - first, &n);
		n += first;
	}
	if (rc)
		return cis_fail(err, -rc, "sections: %s", strerror(-rc));
	return cis_sections_open(buf, len <= n ? (size_t)len : 0, ret, err);
}

int cis_sections_load(int fd, bool sealed, void **ret, size_t *ret_len, struct cis_error *err)
{
	struct stat st;
	size_t at = 0;
	uint8_t *p;

	if (sealed && (fcntl(fd, F_GET_SEALS) & SEALS) != SEALS)
		return cis_fail(err, EPERM, "sections: the memfd is not sealed");
	if (fstat(fd, &st))
		return cis_fail(err, errno, "sections: %s", strerror(errno));
	if ((uint64_t)st.st_size > CIS_SECTIONS_MAX)
		return cis_fail(err, EFBIG, "sections: %lld bytes", (long long)st.st_size);
	p = malloc(st.st_size ? (size_t)st.st_size : 1);
	if (!p)
		return cis_fail(err, ENOMEM, "sections: out of memory");
	while (at < (size_t)st.st_size) {
		ssize_t n = pread(fd, p + at, (size_t)st.st_size - at, (off_t)at);

		if (n <= 0) {
			int rc = cis_fail(err, n ? errno : ENODATA, "sections: read: %s", strerror(n ? errno : ENODATA));

			free(p);
			return rc;
		}
		at += (size_t)n;
	}
	*ret = p;
	*ret_len = at;
	return 0;
}
