#include "daemon/keeper_link.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log.h"

#define SEND_TRIES 1000u
#define SEND_MS	   1

struct cis_keeper_link {
	int fd;
	bool is_lost;
	const struct cis_keeper_link_ops *ops;
	void *ctx;
	struct cis_wire_buf buf; /* of the thread that runs the link */
};

int cis_keeper_link_create(int fd, const struct cis_keeper_link_ops *ops, void *ctx,
			   struct cis_keeper_link **ret)
{
	struct cis_keeper_link *link = calloc(1, sizeof(*link));

	if (!link)
		return -ENOMEM;
	link->fd = fd;
	link->ops = ops;
	link->ctx = ctx;
	*ret = link;
	return 0;
}

void cis_keeper_link_destroy(struct cis_keeper_link *link)
{
	if (!link)
		return;
	close(link->fd);
	free(link);
}

int cis_keeper_link_fd(const struct cis_keeper_link *link)
{
	return link->fd;
}

static void told_listening(struct cis_keeper_link *link, const struct cis_wire_msg *msg, const char *why)
{
	struct cis_wire_listen listen;

	if (msg->error)
		link->ops->listening(link->ctx, msg->id, NULL, (int)msg->error, why);
	else if (!cis_wire_listen_get(msg->body, msg->body_len, &listen))
		link->ops->listening(link->ctx, msg->id, &listen, 0, "");
}

static bool told_connection(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	struct cis_peer peer;

	if (msg->nr_fds > 1 || cis_wire_peer_get(msg->body, msg->body_len, &peer))
		return false;
	link->ops->connection(link->ctx, msg->id, msg->arg, &peer, msg->nr_fds ? msg->fds[0] : -1);
	return true;
}

static bool told_state(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	if (msg->nr_fds != !msg->error)
		return false;
	link->ops->state(link->ctx, msg->id, (int)msg->error, msg->error ? -1 : msg->fds[0], msg->arg);
	return true;
}

static void told_quiesce(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	struct cis_wire_hello hello;

	if (!cis_wire_hello_get(msg->body, msg->body_len, &hello))
		link->ops->quiesce(link->ctx, &hello);
	else
		cis_keeper_link_handover(link, -1, EPROTO, "the engine that follows says who it is in a way that makes no sense");
}

static bool told_ledger(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	if (msg->nr_fds != 1)
		return false;
	link->ops->ledger(link->ctx, msg->fds[0]);
	return true;
}

static bool told_heir(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	if (msg->nr_fds != 2)
		return false;
	link->ops->heir(link->ctx, msg->fds[0], msg->fds[1]);
	return true;
}

static bool told_take(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	if (msg->nr_fds != 1)
		return false;
	link->ops->take(link->ctx, msg->fds[0]);
	return true;
}

/* What is said when one engine follows another.  Return: as dispatch(). */
static bool dispatch_succession(struct cis_keeper_link *link, const struct cis_wire_msg *msg, const char *why)
{
	const struct cis_keeper_link_ops *ops = link->ops;

	if (msg->type == CIS_WIRE_ROLE && ops->role)
		ops->role(link->ctx, msg->arg == CIS_WIRE_STANDBY ? CIS_WIRE_STANDBY : CIS_WIRE_SERVE);
	else if (msg->type == CIS_WIRE_NOTED && ops->noted)
		ops->noted(link->ctx, msg->id, msg->body, msg->body_len);
	else if (msg->type == CIS_WIRE_UPGRADING && ops->upgrading)
		ops->upgrading(link->ctx, (int)msg->error, why);
	else if (msg->type == CIS_WIRE_QUIESCE && ops->quiesce)
		told_quiesce(link, msg);
	else if (msg->type == CIS_WIRE_TAKE && ops->take)
		return told_take(link, msg);
	else if (msg->type == CIS_WIRE_LEDGER && ops->ledger)
		return told_ledger(link, msg);
	else if (msg->type == CIS_WIRE_HEIR && ops->heir)
		return told_heir(link, msg);
	else if (msg->type == CIS_WIRE_RESUME && ops->resume)
		ops->resume(link->ctx, (int)msg->error, why);
	else if (msg->type == CIS_WIRE_LET_GO && ops->let_go)
		ops->let_go(link->ctx);
	else if (msg->type == CIS_WIRE_GO && ops->go)
		ops->go(link->ctx, msg->arg);
	else if (msg->type == CIS_WIRE_RELEASED && ops->released)
		ops->released(link->ctx, msg->id);
	else if (msg->type == CIS_WIRE_UNLISTENED && ops->unlistened)
		ops->unlistened(link->ctx, msg->id);
	else if (msg->type == CIS_WIRE_EXECED && ops->execed)
		ops->execed(link->ctx, (int)msg->error, why);
	return false; /* or a newer keeper's: not for us */
}

/* One guest has come too many; the others do not notice. */
static bool told_lost(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	switch (msg->type) {
	case CIS_WIRE_CONNECTION:
		told_connection(link, msg);
		break;
	case CIS_WIRE_BYTES:
		break;
	case CIS_WIRE_STATE_MADE:
		link->ops->state(link->ctx, msg->id, EMFILE, -1, msg->arg);
		return true;
	default:
		return false;
	}
	link->ops->broken(link->ctx, msg->id, EMFILE, "the daemon has no descriptors left for another guest");
	return true;
}

/* Return: true when the descriptors were handed on. */
static bool dispatch(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	const struct cis_keeper_link_ops *ops = link->ops;
	char why[400];

	snprintf(why, sizeof(why), "%.*s", (int)msg->body_len, (const char *)msg->body);
	if (msg->fds_lost && told_lost(link, msg))
		return false;
	switch (msg->type) {
	case CIS_WIRE_LISTENING:
		told_listening(link, msg, why);
		return false;
	case CIS_WIRE_CONNECTION:
		return told_connection(link, msg);
	case CIS_WIRE_BYTES:
		ops->bytes(link->ctx, msg->id, msg->arg, msg->body, msg->body_len, msg->fds, msg->nr_fds);
		return true;
	case CIS_WIRE_BROKEN:
		ops->broken(link->ctx, msg->id, (int)msg->error, why);
		return false;
	case CIS_WIRE_EOF:
		ops->eof(link->ctx, msg->id);
		return false;
	case CIS_WIRE_EXITED:
		ops->exited(link->ctx, msg->id);
		return false;
	case CIS_WIRE_STATE_MADE:
		return told_state(link, msg);
	case CIS_WIRE_REPLAYED:
		ops->replayed(link->ctx, msg->arg);
		return false;
	case CIS_WIRE_STOP:
		ops->stop(link->ctx);
		return false;
	}
	return dispatch_succession(link, msg, why);
}

bool cis_keeper_link_run(struct cis_keeper_link *link, unsigned max)
{
	struct cis_wire_msg msg;

	for (unsigned i = 0; i < max && !link->is_lost; i++) {
		int r = cis_wire_recv(link->fd, &link->buf, &msg);

		if (r == -EAGAIN)
			return false;
		if (r) {
			link->is_lost = true;
			link->ops->lost(link->ctx);
		} else if (!dispatch(link, &msg)) {
			cis_fds_close(msg.fds, msg.nr_fds);
		}
	}
	return !link->is_lost;
}

/*
 * All of it reaches the keeper, which is what another engine will know: a word that is lost, such as that a guest is gone or may be
 * told to run, would never be made up for.  The kernel may have no memory for it now; if that lasts, another engine follows.
 */
static int ask(struct cis_keeper_link *link, const struct cis_wire_msg *msg)
{
	struct pollfd pfd = { .fd = link->fd, .events = POLLOUT };
	unsigned tries = 0;
	int r;

	for (;;) {
		r = cis_wire_send(link->fd, msg);
		if (r == -EAGAIN)
			poll(&pfd, 1, -1);
		else if (r != -ENOBUFS && r != -ENOMEM)
			return r;
		else if (tries++ < SEND_TRIES)
			poll(NULL, 0, SEND_MS);
		else
			cis_give_up("nothing can be said to the keeper: %s", strerror(-r));
	}
}

static int ask_plain(struct cis_keeper_link *link, enum cis_wire_type type, uint64_t id, uint64_t arg)
{
	return ask(link, &(struct cis_wire_msg){ .type = type, .id = id, .arg = arg });
}

int cis_keeper_link_listen(struct cis_keeper_link *link, uint64_t listener,
			   const struct cis_wire_listen *listen)
{
	struct cis_wire_msg msg = { .type = CIS_WIRE_LISTEN, .id = listener };
	uint8_t body[CIS_WIRE_BODY_MAX];
	int r = cis_wire_listen_put(listen, body, &msg.body_len);

	if (r)
		return r;
	msg.body = body;
	return ask(link, &msg);
}

int cis_keeper_link_unlisten(struct cis_keeper_link *link, uint64_t listener)
{
	return ask_plain(link, CIS_WIRE_UNLISTEN, listener, 0);
}

int cis_keeper_link_state(struct cis_keeper_link *link, uint64_t conn, uint64_t bytes)
{
	return ask_plain(link, CIS_WIRE_STATE, conn, bytes);
}

int cis_keeper_link_note(struct cis_keeper_link *link, uint64_t conn, const char *note, bool ack)
{
	struct cis_wire_msg msg = { .type = CIS_WIRE_NOTE, .id = conn, .arg = ack, .body_len = strlen(note) + ack };
	char body[CIS_WIRE_NOTE_MAX + 1];

	if (msg.body_len > CIS_WIRE_NOTE_MAX)
		return -E2BIG;
	memcpy(body, note, msg.body_len);
	if (ack)
		body[msg.body_len - 1] = 'k';
	msg.body = body;
	return ask(link, &msg);
}

static int say(struct cis_keeper_link *link, uint64_t conn, const char *text)
{
	return ask(link, &(struct cis_wire_msg){
				 .type = CIS_WIRE_SAY, .id = conn, .body = text, .body_len = strlen(text) });
}

int cis_keeper_link_refuse(struct cis_keeper_link *link, uint64_t conn, const char *why)
{
	char text[CIS_WIRE_SAY_MAX];
	int r;

	snprintf(text, sizeof(text), "e%s", why);
	r = say(link, conn, text);
	return r ? r : cis_keeper_link_release(link, conn);
}

int cis_keeper_link_release(struct cis_keeper_link *link, uint64_t conn)
{
	return ask_plain(link, CIS_WIRE_RELEASE, conn, 0);
}

static int greet(struct cis_keeper_link *link, const struct cis_wire_hello *hello, uint64_t pid, uint64_t generation)
{
	uint8_t body[CIS_WIRE_HELLO_BYTES];

	cis_wire_hello_put(hello, body);
	return ask(link, &(struct cis_wire_msg){ .type = CIS_WIRE_HELLO, .id = pid, .arg = generation, .body = body,
						 .body_len = sizeof(body) });
}

int cis_keeper_link_hello(struct cis_keeper_link *link, const struct cis_wire_hello *hello)
{
	return greet(link, hello, 0, 0);
}

int cis_keeper_link_outlived(struct cis_keeper_link *link, const struct cis_wire_hello *hello, uint64_t generation)
{
	return greet(link, hello, (uint64_t)getpid(), generation);
}

int cis_keeper_link_held(struct cis_keeper_link *link, enum cis_wire_held what, uint64_t conn, const int *fds, size_t nr_fds)
{
	return ask(link, &(struct cis_wire_msg){ .type = CIS_WIRE_HELD, .id = conn, .arg = what, .fds = fds, .nr_fds = nr_fds });
}

int cis_keeper_link_ready(struct cis_keeper_link *link, unsigned step)
{
	return ask_plain(link, CIS_WIRE_READY, 0, step);
}

static int tell_why(struct cis_keeper_link *link, enum cis_wire_type type, int error, const char *text)
{
	return ask(link, &(struct cis_wire_msg){ .type = type, .error = (uint32_t)error, .body = text,
						 .body_len = text ? strlen(text) : 0 });
}

int cis_keeper_link_refuse_role(struct cis_keeper_link *link, int error, const char *why)
{
	return tell_why(link, CIS_WIRE_REFUSE, error, why);
}

int cis_keeper_link_upgrade(struct cis_keeper_link *link, const char *exec)
{
	return tell_why(link, CIS_WIRE_UPGRADE, 0, exec);
}

int cis_keeper_link_exec(struct cis_keeper_link *link, const char *exec)
{
	return tell_why(link, CIS_WIRE_EXEC, 0, exec);
}

int cis_keeper_link_swap(struct cis_keeper_link *link, uint64_t conn, int memfd, uint64_t bytes)
{
	return ask(link, &(struct cis_wire_msg){ .type = CIS_WIRE_SWAP, .id = conn, .arg = bytes, .fds = &memfd, .nr_fds = 1 });
}

int cis_keeper_link_handover(struct cis_keeper_link *link, int sections, int error, const char *why)
{
	if (error)
		return tell_why(link, CIS_WIRE_HANDOVER, error, why);
	return ask(link, &(struct cis_wire_msg){ .type = CIS_WIRE_HANDOVER, .fds = &sections, .nr_fds = 1 });
}
