/*
 * One connection to a server: hiredis' asynchronous context on the handle's epoll descriptor.
 *
 * hiredis 0.14 trusts its server and its process, so what it would fall over is kept from it here: bytes that nobody asked for
 * (it asserts), arrays without bounds, replies that would be the next command's after it ran out of memory, SIGPIPE, and
 * names of hosts, which it would look up while everything else waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "store/lookup.h"
#include "store/valkey/valkey.h"

#define READS 4 /* at once */

void vk_conn_init(struct vk_conn *c, struct vk_node *node, enum vk_lane lane)
{
	c->node = node;
	c->lane = lane;
	TAILQ_INIT(&c->flights);
	TAILQ_INIT(&c->backlog);
	TAILQ_INIT(&c->unacked);
}

static void back_off(struct vk_conn *c)
{
	c->retry_ns = cis_now_ns(NULL) + cis_remote_backoff(c->failures++);
}

/* epoll */

static void watch(struct vk_conn *c, int op, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	if (epoll_ctl(c->node->vk->remote.epoll, op, fd, &ev) && op != EPOLL_CTL_DEL)
		vk_conn_break(c, strerror(errno));
}

static void settle(struct vk_conn *c)
{
	if (!c->ac || c->wrong || c->wanted == c->events)
		return;
	c->events = c->wanted;
	watch(c, EPOLL_CTL_MOD, c->ac->c.fd, c->events);
}

static void add_read(void *data)
{
	((struct vk_conn *)data)->wanted |= EPOLLIN;
}

static void del_read(void *data)
{
	((struct vk_conn *)data)->wanted &= ~(uint32_t)EPOLLIN;
}

static void add_write(void *data)
{
	((struct vk_conn *)data)->wanted |= EPOLLOUT;
}

static void del_write(void *data)
{
	((struct vk_conn *)data)->wanted &= ~(uint32_t)EPOLLOUT;
}

/* What hiredis says of a connection; never what the server said, as that might be the password that it was given. */
static const char *reason(const redisContext *ctx)
{
	switch (ctx->err) {
	case REDIS_ERR_IO:
		return ctx->errstr;
	case REDIS_ERR_EOF:
		return "closed the connection";
	case REDIS_ERR_OOM:
		return "out of memory, or its answer is too long";
	default:
		return "does not answer as Valkey does";
	}
}

/* hiredis lets go of it: all that was in flight has come back. */
static void gone(void *data)
{
	struct vk_conn *c = data;

	watch(c, EPOLL_CTL_DEL, c->ac->c.fd, 0);
	if (!c->wrong)
		vk_why(c->node, EIO, reason(&c->ac->c));
	c->ac = NULL;
	c->state = VK_DOWN;
	back_off(c);
	vk_lost(c);
}

void vk_conn_break(struct vk_conn *c, const char *why)
{
	if (c->wrong || c->state == VK_DOWN)
		return;
	vk_why(c->node, c->refused ? c->refused : EIO, why);
	if (c->state == VK_LOOKUP) {
		watch(c, EPOLL_CTL_DEL, cis_lookup_fd(c->lookup), 0);
		cis_lookup_forget(c->lookup);
		c->lookup = NULL;
		c->state = VK_DOWN;
		back_off(c);
		vk_lost(c);
		return;
	}
	c->wrong = true;
	redisAsyncFree(c->ac); /* now, or when the answer that it is called from returns */
}

/* Sending. */

static void answered(redisAsyncContext *ac, void *reply, void *data)
{
	struct vk_flight *f = data;
	struct vk_conn *c = f->conn;

	TAILQ_REMOVE(&c->flights, f, next);
	c->nr_flights--;
	c->reads = 0;
	if (f->item)
		f->item->flight = NULL;
	f->answer(f, reply);
	free(f);
	if (reply && !c->nr_flights && ac->c.reader->pos < ac->c.reader->len)
		vk_conn_break(c, "says what nobody has asked for");
}

bool vk_conn_send(struct vk_conn *c, struct vk_item *item, void (*answer)(struct vk_flight *, const redisReply *), int argc,
		  const char **argv, const size_t *len)
{
	struct vk_flight *f = c->ac && !c->wrong ? malloc(sizeof(*f)) : NULL;

	if (!f)
		return false;
	*f = (struct vk_flight){ .conn = c, .item = item, .answer = answer, .sent_ns = cis_now_ns(NULL) };
	if (redisAsyncCommandArgv(c->ac, answered, f, argc, argv, len) != REDIS_OK) {
		free(f);
		return false;
	}
	if (!c->ac->replies.tail || c->ac->replies.tail->privdata != f) {
		free(f); /* the command is on its way, and its reply would be taken for another's */
		vk_conn_break(c, "out of memory");
		return false;
	}
	TAILQ_INSERT_TAIL(&c->flights, f, next);
	c->nr_flights++;
	if (item)
		item->flight = f;
	return true;
}

void vk_conn_write(struct vk_conn *c)
{
	sigset_t pipe, old;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &old);
	redisAsyncHandleWrite(c->ac);
	if (!c->ac && !sigismember(&old, SIGPIPE))
		sigtimedwait(&pipe, NULL, &(struct timespec){ 0 });
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	settle(c);
}

/* Connecting. */

static void connected(const redisAsyncContext *ac, int status)
{
	if (status == REDIS_OK && ac->c.connection_type == REDIS_CONN_TCP)
		redisEnableKeepAlive((redisContext *)&ac->c);
}

static void attach(struct vk_conn *c, redisAsyncContext *ac)
{
	vk_bound(&c->bound, ac->c.reader);
	ac->ev.data = c;
	ac->ev.addRead = add_read;
	ac->ev.delRead = del_read;
	ac->ev.addWrite = add_write;
	ac->ev.delWrite = del_write;
	ac->ev.cleanup = gone;
	c->ac = ac;
	c->wrong = false;
	c->refused = 0;
	c->reads = 0;
	c->waits = 0;
	c->events = EPOLLOUT;
	c->wanted = 0;
	fcntl(ac->c.fd, F_SETFD, FD_CLOEXEC);
}

static void connect_to(struct vk_conn *c, const char *address)
{
	redisAsyncContext *ac = c->node->port ? redisAsyncConnect(address, c->node->port) : redisAsyncConnectUnix(address);

	if (!ac || ac->err) {
		vk_why(c->node, ac ? EIO : ENOMEM, ac ? ac->errstr : "out of memory");
		if (ac)
			redisAsyncFree(ac);
		c->state = VK_DOWN;
		back_off(c);
		vk_lost(c);
		return;
	}
	attach(c, ac);
	c->state = VK_GREETING;
	c->since_ns = cis_now_ns(NULL);
	watch(c, EPOLL_CTL_ADD, ac->c.fd, c->events);
	if (c->wrong || !c->ac)
		return;
	redisAsyncSetConnectCallback(ac, connected);
	vk_greet(c);
	settle(c);
}

static void look_up(struct vk_conn *c)
{
	int rc = cis_lookup_start(c->node->name, &c->lookup);

	if (rc) {
		vk_why(c->node, -rc, strerror(-rc));
		back_off(c);
		return;
	}
	c->state = VK_LOOKUP;
	c->wrong = false;
	c->since_ns = cis_now_ns(NULL);
	watch(c, EPOLL_CTL_ADD, cis_lookup_fd(c->lookup), EPOLLIN);
}

static void looked_up(struct vk_conn *c)
{
	char address[CIS_ADDRESS_TEXT_MAX];
	int rc = cis_lookup_result(c->lookup, c->failures, address);

	if (rc) {
		vk_conn_break(c, rc == -ENOENT ? "there is no such host" : "its address cannot be found out at present");
		return;
	}
	watch(c, EPOLL_CTL_DEL, cis_lookup_fd(c->lookup), 0);
	cis_lookup_forget(c->lookup);
	c->lookup = NULL;
	connect_to(c, address);
}

void vk_conn_start(struct vk_conn *c)
{
	if (c->node->port && cis_lookup_needed(c->node->name))
		look_up(c);
	else
		connect_to(c, c->node->name);
}

/* Events. */

/* hiredis asserts that there is somebody for what it reads. */
static bool unasked(const struct vk_conn *c)
{
	char byte;

	return !c->nr_flights && recv(c->ac->c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* hiredis reads 16 KiB; more is likely to be there as long as that has brought answers. */
static void read_some(struct vk_conn *c)
{
	unsigned before;

	for (int i = 0; i < READS; i++) {
		before = c->nr_flights;
		if (++c->reads > VK_READS) {
			vk_conn_break(c, "answers without an end");
			return;
		}
		redisAsyncHandleRead(c->ac);
		if (!c->ac || !c->nr_flights || c->nr_flights == before)
			return;
	}
}

void vk_conn_event(struct vk_conn *c, uint32_t events)
{
	if (c->state == VK_LOOKUP) {
		looked_up(c);
		return;
	}
	if (c->ac && events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		vk_conn_write(c);
	if (!c->ac || !(events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
		return;
	if (unasked(c))
		vk_conn_break(c, "says what nobody has asked for");
	else
		read_some(c);
	settle(c);
}

static uint64_t ready_alarm(struct vk_conn *c, uint64_t now)
{
	struct vk *vk = c->node->vk;
	const struct vk_flight *first = TAILQ_FIRST(&c->flights);

	if (!first)
		return UINT64_MAX;
	if (now >= first->sent_ns + VK_STALL_NS) {
		vk_conn_break(c, "does not answer");
		return UINT64_MAX;
	}
	if (vk->mode != VK_CLUSTER)
		return first->sent_ns + VK_STALL_NS;
	if (now < first->sent_ns + VK_SUSPECT_NS)
		return first->sent_ns + VK_SUSPECT_NS;
	if (now >= vk->map_ns + VK_SUSPECT_NS)
		vk_map_want(vk, c->node);
	return now + VK_SUSPECT_NS;
}

uint64_t vk_conn_alarm(struct vk_conn *c, uint64_t now)
{
	if (c->state == VK_READY)
		return ready_alarm(c, now);
	if (c->state == VK_DOWN) {
		if (!vk_wanted(c))
			return UINT64_MAX;
		if (now < c->retry_ns)
			return c->retry_ns;
		vk_conn_start(c);
		return now + VK_GREET_NS;
	}
	if (now < c->since_ns + VK_GREET_NS)
		return c->since_ns + VK_GREET_NS;
	vk_conn_break(c, c->state == VK_LOOKUP ? "its address cannot be found out at present" : "does not answer");
	return now + VK_RETRY_MIN_NS;
}
