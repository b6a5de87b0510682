#include "client/handshake.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cistern/cistern.h"
#include "os/sock.h"

static const char *kind_name(unsigned mapping)
{
	switch (mapping) {
	case CIS_MAPPING_SHARED:
		return "shared";
	case CIS_MAPPING_PRIVATE:
		return "private";
	default:
		return "anonymous";
	}
}

static void write_name(FILE *out, const struct cis_client_region *r)
{
	const char *comma = "";

	fputc('{', out);
	if (r->block) {
		fprintf(out, "\"name\":\"%s\"", r->block);
		comma = ",";
	}
	if (r->has_gpa)
		fprintf(out, "%s\"gpa\":%" PRIu64, comma, r->gpa);
	fputc('}', out);
}

static void write_ours(FILE *out, const struct cis_client_layout *layout)
{
	fprintf(out, ",\"cistern\":{\"kind\":\"%s\",\"ack\":%s,\"allocated\":%s,\"regions\":[", kind_name(layout->mapping),
		layout->ack ? "true" : "false", layout->allocated ? "true" : "false");
	for (size_t i = 0; i < layout->nr_regions; i++) {
		if (i)
			fputc(',', out);
		write_name(out, &layout->regions[i]);
	}
	fputs("]}", out);
}

static void write_array(FILE *out, const struct cis_client_layout *layout)
{
	for (size_t i = 0; i < layout->nr_regions; i++) {
		const struct cis_client_region *r = &layout->regions[i];

		fprintf(out,
			"%c{\"base_host_virt_addr\":%" PRIu64 ",\"size\":%" PRIu64 ",\"offset\":%" PRIu64
			",\"page_size\":%" PRIu64 ",\"page_size_kib\":%" PRIu64,
			i ? ',' : '[', r->addr, r->bytes, r->offset, r->page_bytes, r->page_bytes);
		if (i == 0)
			write_ours(out, layout);
		fputc('}', out);
	}
	fputc(']', out);
}

int cis_handshake_write(const struct cis_client_layout *layout, char **ret_text)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return -ENOMEM;
	write_array(out, layout);
	bool failed = ferror(out);

	if (fclose(out) || failed) {
		free(text);
		return -ENOMEM;
	}
	*ret_text = text;
	return 0;
}

/* Some bytes of the answer, 0 at its end. */
static int receive(int fd, uint64_t deadline_ns, char *buf, size_t room, size_t *ret_len, struct cis_error *err)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t fds;

	for (;;) {
		uint64_t now = cis_now_ns(NULL);
		int wait = -1;

		if (deadline_ns)
			wait = now < deadline_ns ? (int)((deadline_ns - now + 999999) / 1000000) : 0;
		int n = poll(&p, 1, wait);

		if (n < 0 && errno != EINTR)
			return cis_fail(err, errno, "poll: %s", strerror(errno));
		if (n == 0)
			return cis_fail(err, ETIMEDOUT, "the daemon did not answer in time");
		if (n < 0)
			continue;
		int r = cis_sock_recv(fd, buf, room, NULL, 0, &fds, ret_len);

		if (r == -EAGAIN || r == -EINTR)
			continue;
		if (r == -ECONNRESET)
			*ret_len = 0;
		else if (r)
			return cis_fail(err, -r, "the daemon's answer: %s", strerror(-r));
		return 0;
	}
}

/* What follows an 'e', without control characters: it ends up in a log or on a terminal. */
static int refusal(int fd, uint64_t deadline_ns, char *text, size_t have, size_t room, struct cis_error *err)
{
	size_t n = 1;

	while (n && have < room - 1) {
		int r = receive(fd, deadline_ns, text + have, room - 1 - have, &n, NULL);

		if (r)
			break;
		have += n;
	}
	text[have] = 0;
	for (size_t i = 0; i < have; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 127)
			text[i] = ' ';
	return cis_fail(err, ECONNABORTED, "the daemon refused: %s", have > 1 ? text + 1 : "it gave no reason");
}

int cis_handshake_wait(int fd, uint32_t timeout_ms, struct cis_error *err)
{
	uint64_t deadline_ns = timeout_ms ? cis_now_ns(NULL) + timeout_ms * 1000000ull : 0;
	char text[300];
	size_t n;
	int r = receive(fd, deadline_ns, text, 1, &n, err);

	if (r)
		return r;
	if (!n)
		return cis_fail(err, ECONNABORTED, "the daemon closed the connection: it refused, its log says why");
	if (text[0] == 'k')
		return 0;
	if (text[0] == 'e')
		return refusal(fd, deadline_ns, text, 1, sizeof(text), err);
	return cis_fail(err, EPROTO, "the daemon answered with byte 0x%02x, which means nothing", (unsigned char)text[0]);
}
