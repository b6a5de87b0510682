/* Saying hello: the handshake as one message, in pieces, with the right or the wrong descriptors. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fakevmm.h"
#include "os/sock.h"

#define TEXT_ROOM (512u << 10)

/* Which descriptors go with the first byte.  Return: how many. */
static size_t choose_fds(const struct vm *vm, const int *pipe_ends, int *fds)
{
	const char *bad = vm->opt->bad ? vm->opt->bad : "";
	const struct bad *b = bad_find(bad);
	size_t nr = vm->memfd >= 0 ? 2 : 1;

	fds[0] = vm->uffd;
	fds[1] = vm->memfd;
	if (!strcmp(bad, "wrong-descriptor"))
		fds[0] = pipe_ends[0];
	if (!strcmp(bad, "wrong-memfd")) {
		fds[1] = pipe_ends[1];
		nr = 2;
	}
	if (b && b->fds >= 0) {
		nr = (size_t)b->fds;
		for (size_t i = 0; i < nr; i++)
			fds[i] = vm->uffd;
	}
	return nr;
}

static int send_text(struct vm *vm, const char *text, size_t len, const int *fds, size_t nr_fds)
{
	size_t piece = vm->opt->fragment ? vm->opt->fragment : len;
	size_t half = (len + 1) / 2;
	bool pass_half = vm->opt->step || vm->opt->exit_after || vm->opt->hang_after;
	int r = 0;

	for (size_t at = 0; at < len && !r;) {
		size_t n = piece < len - at ? piece : len - at;

		if (pass_half && at < half && n > half - at)
			n = half - at;
		r = cis_sock_send_all(vm->sock, text + at, n, fds, at ? 0 : nr_fds);
		at += n;
		if (at == half && !r)
			reached(vm, "half");
	}
	return r;
}

/*
 * Before v1.12 Firecracker closed its socket as soon as it had sent; from then on the socket stays open until
 * it exits.
 */
static void leave(struct vm *vm)
{
	const char *bad = vm->opt->bad ? vm->opt->bad : "";

	if (!strcmp(bad, "empty") || !strcmp(bad, "cut"))
		shutdown(vm->sock, SHUT_WR);
	else if (vm->opt->version < 12 && !vm->opt->client && !*bad) {
		close(vm->sock);
		vm->sock = -1;
	}
}

int hello_send(struct vm *vm, struct cis_error *err)
{
	int r = cis_sock_connect(vm->opt->socket, SOCK_STREAM, &vm->sock, err), pipe_ends[2],
	    fds[BALLAST_FDS];
	char *text = malloc(TEXT_ROOM);
	size_t len, nr_fds;

	if (r || !text || pipe(pipe_ends)) {
		free(text);
		return r ? r : cis_fail(err, errno, "%s", strerror(errno));
	}
	reached(vm, "connect");
	len = bad_text(vm, vm->opt->bad, text, TEXT_ROOM);
	nr_fds = choose_fds(vm, pipe_ends, fds);
	r = send_text(vm, text, len, fds, nr_fds);
	free(text);
	cis_fds_close(pipe_ends, 2);
	/* A daemon that hangs up on the first wrong byte does not wait for the rest. */
	if (r && !(vm->opt->bad && (r == -EPIPE || r == -ECONNRESET)))
		return cis_fail(err, -r, "%s: cannot send the handshake: %s", vm->opt->socket, strerror(-r));
	leave(vm);
	reached(vm, "handshake");
	return 0;
}

static ssize_t wait_read(struct vm *vm, void *buf, size_t len)
{
	ssize_t n;

	do {
		n = recv(vm->sock, buf, len, 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 && errno == ECONNRESET ? 0 : n;
}

int hello_wait_refused(struct vm *vm, struct cis_error *err)
{
	char byte;

	if (wait_read(vm, vm->answer, 1) == 1 && vm->answer[0] == 'k')
		return cis_fail(err, EBADE, "the daemon took a handshake that is wrong (%s)", vm->opt->bad);
	while (wait_read(vm, &byte, 1) > 0)
		;
	vm->refusal = vm->opt->bad;
	return 0;
}

int hello_wait_answer(struct vm *vm, struct cis_error *err)
{
	size_t len = 0;
	ssize_t n;

	while (len + 1 < sizeof(vm->answer) &&
	       (n = wait_read(vm, vm->answer + len, sizeof(vm->answer) - 1 - len)) > 0) {
		len += (size_t)n;
		if (vm->answer[0] == 'k')
			return 0;
	}
	vm->answer[len] = 0;
	vm->refusal = vm->answer + (len > 0);
	return cis_fail(err, EPERM, "refused: %s", len ? vm->answer + 1 : "the daemon hung up");
}
