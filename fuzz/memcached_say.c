/*
 * What a memcached says to requests that are under way: byte 0 says to which, and into what pieces the rest is cut.  Each of them
 * ends once, a value is no longer than there is room for it, and of keys that nobody has asked for there is none.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "store/memcached/memcached.h"

#define REQS 3
#define ROOM 64u

struct ask {
	struct cis_store_req req;
	int over;
	char buf[ROOM + 1];
};

static void done(struct cis_store_req *req, int err)
{
	struct ask *ask = req->ctx;

	FUZZ_CHECK(!ask->over++);
	FUZZ_CHECK(err || req->op != CIS_STORE_GET || req->got <= ROOM);
	FUZZ_CHECK(ask->buf[ROOM] == 'x');
}

/* As if it had been greeted. */
static int connect_pair(struct mc *mc, struct mc_conn *c)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
	int pair[2];

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	FUZZ_CHECK(!epoll_ctl(mc->remote.epoll, EPOLL_CTL_ADD, pair[0], &ev));
	c->fd = pair[0];
	c->events = EPOLLIN;
	c->state = MC_READY;
	c->server->info = (struct mc_info){ .asked = true };
	c->server->info_ns = cis_now_ns(NULL) + 3600 * 1000 * MC_MS;
	return pair[1];
}

static void submit(struct cis_store *store, struct ask *asks, bool gets)
{
	for (unsigned i = 0; i < REQS; i++) {
		struct cis_store_req *reqs = &asks[i].req;

		asks[i].req = (struct cis_store_req){ .op = gets ? CIS_STORE_GET : i ? CIS_STORE_PUT : CIS_STORE_DELETE, .key.id = i,
						      .buf = asks[i].buf, .len = ROOM, .done = done, .ctx = &asks[i] };
		asks[i].buf[ROOM] = 'x';
		cis_store_submit(store, &reqs, 1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct cis_pages_opts opts = { .size = sizeof(opts) };
	struct ask asks[REQS] = { 0 };
	struct cis_store *store;
	size_t piece;
	int peer;

	if (!len || len > 32768)
		return 0;
	FUZZ_CHECK(!cis_pages_open("memcached:///nowhere", &opts, &store, NULL));
	peer = connect_pair((struct mc *)store, &((struct mc *)store)->server[0].conn[data[0] & 1 ? MC_GETS : MC_PUTS]);
	submit(store, asks, data[0] & 1);
	piece = data[0] & 2 ? len : 1u + data[0] / 4;
	for (size_t at = 1; at < len; at += piece) {
		send(peer, data + at, piece < len - at ? piece : len - at, MSG_NOSIGNAL);
		cis_store_reap(store);
	}
	for (unsigned i = 0; i < REQS; i++) {
		if (!asks[i].over)
			cis_store_cancel(store, &asks[i].req);
		FUZZ_CHECK(asks[i].over == 1);
	}
	close(peer);
	cis_store_close(store);
	return 0;
}
