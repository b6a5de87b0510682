#include "daemon/wire.h"

#include <errno.h>
#include <string.h>

#include "base/le.h"

int cis_wire_send(int fd, const struct cis_wire_msg *msg)
{
	uint8_t packet[CIS_WIRE_HEAD_BYTES + CIS_WIRE_BODY_MAX];
	size_t sent;

	if (msg->body_len > CIS_WIRE_BODY_MAX || msg->nr_fds > CIS_WIRE_FDS_MAX)
		return -EMSGSIZE;
	cis_put_le32(packet, msg->type);
	cis_put_le32(packet + 4, CIS_WIRE_VERSION);
	cis_put_le64(packet + 8, msg->id);
	cis_put_le64(packet + 16, msg->arg);
	cis_put_le32(packet + 24, msg->error);
	cis_put_le32(packet + 28, (uint32_t)msg->body_len);
	if (msg->body_len)
		memcpy(packet + CIS_WIRE_HEAD_BYTES, msg->body, msg->body_len);
	return cis_sock_send(fd, packet, CIS_WIRE_HEAD_BYTES + msg->body_len, msg->fds, msg->nr_fds, &sent);
}

int cis_wire_recv(int fd, struct cis_wire_buf *buf, struct cis_wire_msg *ret)
{
	size_t len, nr_fds;
	int r = cis_sock_recv(fd, buf->bytes, sizeof(buf->bytes), buf->fds, CIS_WIRE_FDS_MAX, &nr_fds, &len);

	bool lost = r == -ENOBUFS;

	if (r && !lost)
		return r;
	if (lost)
		r = 0, nr_fds = 0;
	if (!len && !nr_fds)
		return -EPIPE;
	if (len < CIS_WIRE_HEAD_BYTES || cis_le32(buf->bytes + 28) != len - CIS_WIRE_HEAD_BYTES)
		r = -EPROTO;
	else if (cis_le32(buf->bytes + 4) != CIS_WIRE_VERSION)
		r = -EPROTONOSUPPORT;
	if (r) {
		cis_fds_close(buf->fds, nr_fds);
		return r;
	}
	*ret = (struct cis_wire_msg){
		.type = cis_le32(buf->bytes),
		.id = cis_le64(buf->bytes + 8),
		.arg = cis_le64(buf->bytes + 16),
		.error = cis_le32(buf->bytes + 24),
		.body = buf->bytes + CIS_WIRE_HEAD_BYTES,
		.body_len = len - CIS_WIRE_HEAD_BYTES,
		.fds = buf->fds,
		.nr_fds = nr_fds,
		.fds_lost = lost,
	};
	return 0;
}

/* mode, uid, gid, bytes of the path; the path; the note takes the rest. */
#define LISTEN_FIXED 16u

int cis_wire_listen_put(const struct cis_wire_listen *listen, void *buf, size_t *ret_len)
{
	size_t path_len = strnlen(listen->path, sizeof(listen->path));
	uint8_t *p = buf;

	if (path_len == sizeof(listen->path))
		return -ENAMETOOLONG;
	if (listen->note_len > CIS_WIRE_NOTE_MAX)
		return -E2BIG;
	cis_put_le32(p, listen->mode);
	cis_put_le32(p + 4, listen->uid);
	cis_put_le32(p + 8, listen->gid);
	cis_put_le32(p + 12, (uint32_t)path_len);
	memcpy(p + LISTEN_FIXED, listen->path, path_len);
	if (listen->note_len)
		memcpy(p + LISTEN_FIXED + path_len, listen->note, listen->note_len);
	*ret_len = LISTEN_FIXED + path_len + listen->note_len;
	return 0;
}

int cis_wire_listen_get(const void *body, size_t len, struct cis_wire_listen *ret)
{
	struct cis_wire_listen l = { 0 };
	const uint8_t *p = body;
	size_t path_len;

	if (len < LISTEN_FIXED)
		return -EPROTO;
	path_len = cis_le32(p + 12);
	if (path_len >= sizeof(l.path) || path_len > len - LISTEN_FIXED)
		return -EPROTO;
	l.mode = cis_le32(p);
	l.uid = cis_le32(p + 4);
	l.gid = cis_le32(p + 8);
	memcpy(l.path, p + LISTEN_FIXED, path_len);
	l.note = p + LISTEN_FIXED + path_len;
	l.note_len = len - LISTEN_FIXED - path_len;
	if (l.note_len > CIS_WIRE_NOTE_MAX || strlen(l.path) != path_len)
		return -EPROTO;
	*ret = l;
	return 0;
}

void cis_wire_hello_put(const struct cis_wire_hello *hello, void *buf)
{
	uint8_t *p = buf;

	cis_put_le32(p, hello->wire);
	cis_put_le32(p + 4, hello->layout_min);
	cis_put_le32(p + 8, hello->layout_max);
	cis_put_le64(p + 12, hello->features);
	memcpy(p + 20, hello->version, sizeof(hello->version));
}

int cis_wire_hello_get(const void *body, size_t len, struct cis_wire_hello *ret)
{
	struct cis_wire_hello h;
	const uint8_t *p = body;

	if (len != CIS_WIRE_HELLO_BYTES)
		return -EPROTO;
	h = (struct cis_wire_hello){ .wire = cis_le32(p), .layout_min = cis_le32(p + 4), .layout_max = cis_le32(p + 8),
				     .features = cis_le64(p + 12) };
	memcpy(h.version, p + 20, sizeof(h.version));
	if (h.layout_min > h.layout_max || !memchr(h.version, 0, sizeof(h.version)))
		return -EPROTO;
	*ret = h;
	return 0;
}

void cis_wire_peer_put(const struct cis_peer *peer, void *buf)
{
	cis_put_le32(buf, (uint32_t)peer->pid);
	cis_put_le32((uint8_t *)buf + 4, peer->uid);
	cis_put_le32((uint8_t *)buf + 8, peer->gid);
}

int cis_wire_peer_get(const void *body, size_t len, struct cis_peer *ret)
{
	const uint8_t *p = body;

	if (len != CIS_WIRE_PEER_BYTES)
		return -EPROTO;
	*ret = (struct cis_peer){ .pid = (pid_t)cis_le32(p), .uid = cis_le32(p + 4), .gid = cis_le32(p + 8) };
	return 0;
}
