/*
 * The wire between keeper and engine: packets of an engine's keeper.  Each is a byte: how many descriptors come with it (in its
 * low 4 bits), two bytes of length, and the packet; byte 0 of the input: 1: the head is made right but for type, id, arg and errno.
 *
 * Whatever it says, what is called gets what keeper_link.h promises, and no descriptor is lost.
 */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"
#include "check.h"
#include "daemon/keeper_link.h"

static bool lost;
static size_t called;

static void take(const int *fds, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		FUZZ_CHECK(fds[i] >= 0 && !close(fds[i]));
	called++;
}

static void listening(void *ctx, uint64_t listener, const struct cis_wire_listen *listen, int error, const char *why)
{
	FUZZ_CHECK(error ? !listen && why : memchr(listen->path, 0, sizeof(listen->path)) && listen->note_len <= CIS_WIRE_NOTE_MAX);
	called++;
}

static void connection(void *ctx, uint64_t conn, uint64_t listener, const struct cis_peer *peer, int pidfd)
{
	take(&pidfd, pidfd >= 0);
}

static void bytes(void *ctx, uint64_t conn, uint64_t at, const void *text, size_t len, const int *fds, size_t nr_fds)
{
	FUZZ_CHECK(len <= CIS_WIRE_BODY_MAX && nr_fds <= CIS_WIRE_FDS_MAX);
	take(fds, nr_fds);
}

static void told(void *ctx, uint64_t conn)
{
	called++;
}

static void why(void *ctx, int error, const char *text)
{
	FUZZ_CHECK(strlen(text) < 400);
	called++;
}

static void broken(void *ctx, uint64_t conn, int error, const char *text)
{
	why(ctx, error, text);
}

static void state(void *ctx, uint64_t conn, int error, int memfd, uint64_t len)
{
	FUZZ_CHECK(!error == (memfd >= 0));
	take(&memfd, memfd >= 0);
}

static void nothing(void *ctx)
{
	called++;
}

static void gone(void *ctx)
{
	lost = true;
}

static void role(void *ctx, enum cis_wire_role as)
{
	FUZZ_CHECK(as == CIS_WIRE_SERVE || as == CIS_WIRE_STANDBY);
	called++;
}

static void noted(void *ctx, uint64_t conn, const void *note, size_t len)
{
	FUZZ_CHECK(len <= CIS_WIRE_BODY_MAX);
	called++;
}

static void quiesce(void *ctx, const struct cis_wire_hello *hello)
{
	FUZZ_CHECK(hello->layout_min <= hello->layout_max && memchr(hello->version, 0, sizeof(hello->version)));
	called++;
}

static void take_sections(void *ctx, int sections)
{
	take(&sections, 1);
}

static const struct cis_keeper_link_ops ops = {
	.listening = listening, .connection = connection, .bytes = bytes, .broken = broken, .eof = told, .exited = told,
	.state = state, .replayed = told, .stop = nothing, .lost = gone, .role = role, .noted = noted, .upgrading = why,
	.quiesce = quiesce, .take = take_sections, .resume = why, .let_go = nothing, .go = told, .execed = why, .released = told,
	.unlistened = told,
};

static void send_packet(int to, const uint8_t *packet, size_t len, unsigned nr_fds, bool mend)
{
	static uint8_t copy[CIS_WIRE_HEAD_BYTES + CIS_WIRE_BODY_MAX + 100];
	char control[CMSG_SPACE(16 * sizeof(int))] = { 0 };
	struct iovec iov = { copy, len < sizeof(copy) ? len : sizeof(copy) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	memcpy(copy, packet, iov.iov_len);
	if (mend && iov.iov_len >= CIS_WIRE_HEAD_BYTES) {
		cis_put_le32(copy + 4, CIS_WIRE_VERSION);
		cis_put_le32(copy + 28, (uint32_t)(iov.iov_len - CIS_WIRE_HEAD_BYTES));
	}
	if (nr_fds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		for (unsigned i = 0; i < nr_fds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &to, sizeof(int));
	}
	sendmsg(to, &msg, MSG_DONTWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_keeper_link *link;
	bool mend = len && data[0] & 1;
	int pair[2], first, last;

	if (!len--)
		return 0;
	data++;
	first = open("/dev/null", O_RDONLY);
	FUZZ_CHECK(first >= 0 && !close(first) && !cis_sock_pair(SOCK_SEQPACKET, pair));
	FUZZ_CHECK(!fcntl(pair[0], F_SETFL, O_NONBLOCK) && !cis_keeper_link_create(pair[0], &ops, NULL, &link));
	for (lost = false; len >= 3 && !lost;) {
		size_t n = cis_le16(data + 1);

		n = n < len - 3 ? n : len - 3;
		send_packet(pair[1], data + 3, n, data[0] & 15, mend);
		while (cis_keeper_link_run(link, 4))
			;
		data += 3 + n;
		len -= 3 + n;
	}
	cis_keeper_link_destroy(link);
	close(pair[1]);
	last = open("/dev/null", O_RDONLY);
	FUZZ_CHECK(last == first && !close(last)); /* the lowest number that is free, as before */
	return 0;
}
