#include "daemon/keep_record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/le.h"
#include "codec/codec.h"
#include "daemon/sections.h"
#include "os/file.h"
#include "os/uffd.h"

#define SLOT_BYTES (64u << 10)
#define BYTES_AT   (2 * SLOT_BYTES)
#define BYTES_MAX  (128u << 10)

/* Numbers are files' for ever. */
enum tag {
	TAG_SEQ = 1,	 /* u64 */
	TAG_WHAT = 2,	 /* u32 kind, u32 flags, u64 id, u64 listener */
	TAG_LISTEN = 3,	 /* cis_wire_listen_put(), before it the socket's u64 dev, u64 ino */
	TAG_PEER = 4,	 /* u32 pid, uid, gid, 0, u64 start, boot id */
	TAG_BYTES = 5,	 /* u64 bytes, u64 checksum, u64 unread */
	TAG_NOTE = 6,
	TAG_ERROR = 7,	 /* u32 */
	TAG_STATE = 8,	 /* u64 bytes, u64 'm' or 'n' */
	TAG_FD = 9,	 /* u32 kind, u32 0, u64 dev, u64 ino; one for each, in their order */
	TAG_COUNTERS = 10, /* u64 next connection, u64 generation */
};

int keep_fd_look(int fd, struct keep_fd *ret)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	ret->kind = cis_is_uffd(fd) ? KEEP_FD_UFFD : S_ISREG(st.st_mode) ? KEEP_FD_FILE : KEEP_FD_OTHER;
	ret->dev = st.st_dev;
	ret->ino = st.st_ino;
	return 0;
}

static void add_u64s(struct cis_sections *s, uint32_t tag, size_t nr, const uint64_t *v)
{
	uint8_t buf[4 * 8];

	for (size_t i = 0; i < nr; i++)
		cis_put_le64(buf + i * 8, v[i]);
	cis_sections_add(s, tag, 0, buf, nr * 8);
}

static void add_what(struct cis_sections *s, const struct keep_record *r)
{
	uint8_t buf[24];

	cis_put_le32(buf, r->kind);
	cis_put_le32(buf + 4, r->flags);
	cis_put_le64(buf + 8, r->id);
	cis_put_le64(buf + 16, r->listener);
	cis_sections_add(s, TAG_WHAT, CIS_SECTION_MUST, buf, sizeof(buf));
}

static void add_listen(struct cis_sections *s, const struct keep_record *r)
{
	uint8_t *buf = malloc(16 + r->listen_len);

	if (!buf) {
		s->error = -ENOMEM;
		return;
	}
	cis_put_le64(buf, r->dev);
	cis_put_le64(buf + 8, r->ino);
	memcpy(buf + 16, r->listen, r->listen_len);
	cis_sections_add(s, TAG_LISTEN, CIS_SECTION_MUST, buf, 16 + r->listen_len);
	free(buf);
}

static void add_peer(struct cis_sections *s, const struct keep_record *r)
{
	uint8_t buf[24 + CIS_BOOT_BYTES - 1] = { 0 };

	cis_put_le32(buf, (uint32_t)r->peer.pid);
	cis_put_le32(buf + 4, r->peer.uid);
	cis_put_le32(buf + 8, r->peer.gid);
	cis_put_le64(buf + 16, r->start);
	memcpy(buf + 24, r->boot, CIS_BOOT_BYTES - 1);
	cis_sections_add(s, TAG_PEER, CIS_SECTION_MUST, buf, sizeof(buf));
}

static void add_fd(struct cis_sections *s, const struct keep_fd *fd)
{
	uint8_t buf[24] = { 0 };

	cis_put_le32(buf, fd->kind);
	cis_put_le64(buf + 8, fd->dev);
	cis_put_le64(buf + 16, fd->ino);
	cis_sections_add(s, TAG_FD, CIS_SECTION_MUST, buf, sizeof(buf));
}

static void add_error(struct cis_sections *s, uint32_t error)
{
	uint8_t buf[4];

	cis_put_le32(buf, error);
	cis_sections_add(s, TAG_ERROR, CIS_SECTION_MUST, buf, sizeof(buf));
}

static void add_all(struct cis_sections *s, const struct keep_record *r, uint64_t seq)
{
	add_u64s(s, TAG_SEQ, 1, &seq);
	add_what(s, r);
	if (r->listen)
		add_listen(s, r);
	if (r->kind == KEEP_CONN)
		add_peer(s, r);
	if (r->bytes_len)
		add_u64s(s, TAG_BYTES, 3, (uint64_t[]){ r->bytes_len, r->bytes_crc, r->unread });
	if (r->has_note)
		cis_sections_add(s, TAG_NOTE, CIS_SECTION_MUST, r->note, r->note_len);
	if (r->error)
		add_error(s, r->error);
	if (r->state_bytes)
		add_u64s(s, TAG_STATE, 2, (uint64_t[]){ r->state_bytes, r->state_name });
	for (size_t i = 0; i < r->nr_fds; i++)
		add_fd(s, &r->fds[i]);
	add_u64s(s, TAG_COUNTERS, 2, (uint64_t[]){ r->next_conn, r->generation });
}

int keep_record_write(int fd, uint64_t *seq, const struct keep_record *record)
{
	struct cis_sections s = { 0 };
	int r;

	add_all(&s, record, *seq + 1);
	r = cis_sections_put(&s, fd, (*seq + 1) % 2 * SLOT_BYTES, SLOT_BYTES);
	if (!r)
		++*seq;
	cis_sections_fini(&s);
	return r;
}

int keep_bytes_write(int fd, uint64_t at, const void *bytes, size_t len, uint64_t *crc)
{
	int r = cis_fd_write(fd, BYTES_AT + at, bytes, len);

	if (!r)
		*crc = cis_crc64(*crc, bytes, len);
	return r;
}

static bool take_what(struct keep_record *r, const uint8_t *p, size_t len)
{
	if (len != 24)
		return false;
	r->kind = cis_le32(p);
	r->flags = cis_le32(p + 4);
	r->id = cis_le64(p + 8);
	r->listener = cis_le64(p + 16);
	return r->kind >= KEEP_LISTENER && r->kind <= KEEP_KEEPER;
}

static bool take_listen(struct keep_record *r, const uint8_t *p, size_t len)
{
	if (len < 16)
		return false;
	r->dev = cis_le64(p);
	r->ino = cis_le64(p + 8);
	r->listen = p + 16;
	r->listen_len = len - 16;
	return true;
}

static bool take_peer(struct keep_record *r, const uint8_t *p, size_t len)
{
	if (len != 24 + CIS_BOOT_BYTES - 1)
		return false;
	r->peer = (struct cis_peer){ (pid_t)cis_le32(p), cis_le32(p + 4), cis_le32(p + 8) };
	r->start = cis_le64(p + 16);
	memcpy(r->boot, p + 24, CIS_BOOT_BYTES - 1);
	r->boot[CIS_BOOT_BYTES - 1] = 0;
	return r->peer.pid >= 0;
}

static bool take_fd(struct keep_record *r, const uint8_t *p, size_t len)
{
	if (len != 24 || r->nr_fds == KEEP_FDS_MAX)
		return false;
	r->fds[r->nr_fds++] = (struct keep_fd){ cis_le32(p), cis_le64(p + 8), cis_le64(p + 16) };
	return true;
}

static bool take_bytes(struct keep_record *r, const uint8_t *p, size_t len)
{
	if (len != 24)
		return false;
	r->bytes_len = cis_le64(p);
	r->bytes_crc = cis_le64(p + 8);
	r->unread = cis_le64(p + 16);
	return r->bytes_len <= BYTES_MAX && r->unread <= r->bytes_len;
}

static bool take_u64s(const uint8_t *p, size_t len, size_t nr, uint64_t *const *ret)
{
	if (len != nr * 8)
		return false;
	for (size_t i = 0; i < nr; i++)
		*ret[i] = cis_le64(p + i * 8);
	return true;
}

static bool is_state(uint64_t name)
{
	return name == 'm' || name == 'n';
}

/* Return: false when it makes no sense, or is unknown and must be known. */
static bool take_section(struct keep_record *r, const struct cis_section *s)
{
	switch (s->tag) {
	case TAG_SEQ:
		return take_u64s(s->bytes, s->len, 1, (uint64_t *[]){ &r->seq });
	case TAG_WHAT:
		return take_what(r, s->bytes, s->len);
	case TAG_LISTEN:
		return take_listen(r, s->bytes, s->len);
	case TAG_PEER:
		return take_peer(r, s->bytes, s->len);
	case TAG_BYTES:
		return take_bytes(r, s->bytes, s->len);
	case TAG_NOTE:
		r->has_note = true;
		r->note = s->bytes;
		r->note_len = s->len;
		return true;
	case TAG_ERROR:
		r->error = s->len == 4 ? cis_le32(s->bytes) : 0;
		return r->error;
	case TAG_STATE:
		return take_u64s(s->bytes, s->len, 2, (uint64_t *[]){ &r->state_bytes, &r->state_name }) && is_state(r->state_name);
	case TAG_FD:
		return take_fd(r, s->bytes, s->len);
	case TAG_COUNTERS:
		return take_u64s(s->bytes, s->len, 2, (uint64_t *[]){ &r->next_conn, &r->generation });
	}
	return !(s->flags & CIS_SECTION_MUST);
}

/* @buf of SLOT_BYTES.  Return: 0, -EBADMSG, -EPROTO, of the file. */
static int read_slot(int fd, unsigned slot, uint8_t *buf, struct keep_record *ret, struct cis_error *err)
{
	struct cis_sections_reader reader;
	struct keep_record r = { 0 };
	struct cis_section s;
	int rc = cis_sections_get(fd, slot * SLOT_BYTES, buf, SLOT_BYTES, &reader, err);

	if (rc)
		return rc;
	while (cis_sections_next(&reader, &s))
		if (!take_section(&r, &s))
			return cis_fail(err, EPROTO, "record: section %u makes no sense to this version", s.tag);
	if (!r.kind || !r.seq)
		return cis_fail(err, EPROTO, "record: does not say what it is of");
	*ret = r;
	return 0;
}

int keep_record_read(int fd, struct keep_record *ret, void **ret_buf, struct cis_error *err)
{
	uint8_t *buf = malloc(2 * SLOT_BYTES);
	struct keep_record r[2];
	int rc[2];

	if (!buf)
		return cis_fail(err, ENOMEM, "record: no memory");
	for (unsigned i = 0; i < 2; i++)
		rc[i] = read_slot(fd, i, buf + i * SLOT_BYTES, &r[i], err);
	if (rc[0] && rc[1]) {
		free(buf);
		return rc[0];
	}
	*ret = rc[1] || (!rc[0] && r[0].seq > r[1].seq) ? r[0] : r[1];
	*ret_buf = buf;
	return 0;
}

int keep_bytes_read(int fd, const struct keep_record *record, void **ret, struct cis_error *err)
{
	uint8_t *buf = malloc(record->bytes_len + 1);
	size_t n;

	if (!buf)
		return cis_fail(err, ENOMEM, "record: no memory");
	if (cis_fd_read(fd, BYTES_AT, buf, record->bytes_len, &n) || n != record->bytes_len || cis_crc64(0, buf, record->bytes_len) != record->bytes_crc) {
		free(buf);
		return cis_fail(err, EBADMSG, "record: what the client sent is damaged");
	}
	*ret = buf;
	return 0;
}
