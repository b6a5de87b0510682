/*
 * EXEC: the keeper becomes another program in place, and its engine stays.
 *
 * An execve() cannot be taken back, so the program is asked first what it is: `PROGRAM ARGUMENTS --probe` prints one line, if
 * it understands our arguments and configuration.  It has to speak the wire that the engine goes on speaking, and to read
 * the table that keep_exec() writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/point.h"
#include "daemon/keep_exec.h"
#include "daemon/keeper_int.h"

#define PROBE_FORMAT "cisternd keeper wire %u table %u-%u\n"

void cis_keeper_probe(FILE *out)
{
	fprintf(out, PROBE_FORMAT, CIS_WIRE_VERSION, KEEP_TABLE_VERSION, KEEP_TABLE_VERSION);
}

void exec_close(struct cis_keeper *k)
{
	struct exec *x = &k->exec;

	if (x->pid) {
		kill(x->pid, SIGKILL); /* not reaped yet, so it is nobody else */
		waitpid(x->pid, NULL, 0);
	}
	watch_close(&x->out);
	free(x->program);
	x->program = NULL;
	x->pid = 0;
}

/* What was asked has come to an end, and the one who asked is told. */
static void finish(struct cis_keeper *k, const struct cis_error *err)
{
	cis_log(CIS_LOG_ERROR, "keeper: it does not become %s: %s; it goes on", k->exec.program, err->text);
	engine_answer(k->serving, DUE_EXECED, err->code, err->text);
	exec_close(k);
}

static bool is_keeper(const struct exec *x, struct cis_error *err)
{
	unsigned wire, table_min, table_max;

	if (sscanf(x->said, PROBE_FORMAT, &wire, &table_min, &table_max) != 3)
		cis_fail(err, ENOEXEC, "it does not say that it is a keeper that can start here");
	else if (wire != CIS_WIRE_VERSION)
		cis_fail(err, EPROTONOSUPPORT, "it speaks version %u to engines, and the one that serves %u", wire,
			 CIS_WIRE_VERSION);
	else if (table_min > KEEP_TABLE_VERSION || table_max < KEEP_TABLE_VERSION)
		cis_fail(err, EPROTONOSUPPORT, "it takes over by tables of version %u to %u, not %u", table_min, table_max,
			 KEEP_TABLE_VERSION);
	else
		return true;
	return false;
}

static void probe_ready(struct watch *w, uint32_t events)
{
	struct exec *x = &w->k->exec;
	ssize_t n = read(w->fd, x->said + x->len, sizeof(x->said) - 1 - x->len);
	struct cis_error err;

	if (n > 0) {
		x->len += (size_t)n;
		return;
	}
	x->said[x->len] = 0;
	watch_close(w);
	kill(x->pid, SIGKILL);
	waitpid(x->pid, NULL, 0);
	x->pid = 0;
	x->is_known = is_keeper(x, &err);
	if (!x->is_known)
		finish(w->k, &err);
}

/* Between fork and exec: only calls that a child of a process with one thread may make. */
static void become_probe(const struct cis_keeper *k, char **argv, int out)
{
	int none = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (dup2(none, 0) < 0 || dup2(out, 1) < 0)
		_exit(127);
	syscall(SYS_close_range, 3, ~0u, 0);
	execve(argv[0], argv, k->envp);
	_exit(127);
}

static int probe(struct cis_keeper *k, struct cis_error *err)
{
	char *argv[KEEP_ARGS_MAX + 2] = { NULL };
	_cleanup_free_ char *text = malloc(KEEP_ARGS_BYTES);
	struct exec *x = &k->exec;
	int out[2], r = text ? keep_exec_arguments(text, KEEP_ARGS_BYTES, x->program, argv) : -ENOMEM;

	if (r)
		return cis_fail(err, -r, "it cannot be asked what it is: %s", strerror(-r));
	for (char **end = argv;; end++)
		if (!*end) {
			*end = (char *)"--probe";
			break;
		}
	if (pipe2(out, O_CLOEXEC | O_NONBLOCK))
		return cis_fail(err, errno, "it cannot be asked what it is: %s", strerror(errno));
	x->pid = fork();
	if (!x->pid)
		become_probe(k, argv, out[1]);
	close(out[1]);
	r = x->pid < 0 ? -errno : watch_add(k, &x->out, out[0], EPOLLIN, probe_ready);
	if (!r)
		return 0;
	if (x->pid < 0)
		x->pid = 0;
	close(out[0]);
	return cis_fail(err, -r, "it cannot be asked what it is: %s", strerror(-r));
}

void exec_begin(struct cis_keeper *k, const struct cis_wire_msg *msg)
{
	struct cis_error err = { 0 };
	struct exec *x = &k->exec;

	if (x->program || k->handover.step != HANDOVER_NONE)
		cis_fail(&err, EBUSY, x->program ? "it is asked already" : "a hand-over is under way");
	else
		keeper_program(k, msg, &x->program, &err);
	if (err.code) {
		cis_log(CIS_LOG_ERROR, "keeper: it does not become another program: %s", err.text);
		engine_answer(k->serving, DUE_EXECED, err.code, err.text);
		return;
	}
	x->len = 0;
	x->is_known = false;
	x->deadline_ns = keeper_now(k) + k->upgrade_ns;
	if (probe(k, &err))
		finish(k, &err);
}

/* The next keeper is told nothing of what an engine does not know yet, nor of a second engine. */
static bool is_quiet(const struct cis_keeper *k)
{
	for (unsigned i = 0; i < KEEPER_ENGINES; i++)
		if (k->engines[i].role != ENGINE_NONE && &k->engines[i] != k->serving)
			return false;
	return !k->serving->untold && !k->serving->due;
}

void exec_tick(struct cis_keeper *k)
{
	struct exec *x = &k->exec;
	struct cis_error err;

	if (!x->program)
		return;
	if (!has_engine(k))
		cis_fail(&err, ECANCELED, "the engine has ended");
	else if (x->deadline_ns <= keeper_now(k))
		cis_fail(&err, ETIMEDOUT, "%s within %llu ms",
			 x->is_known ? "the engines did not come to rest" : "it did not say what it is",
			 (unsigned long long)k->upgrade_ns / 1000000);
	else if (!x->is_known || !is_quiet(k))
		return;
	else
		keep_exec(k, x->program, &err);
	finish(k, &err);
	engines_flush(k);
}

uint64_t exec_deadline(const struct cis_keeper *k)
{
	return k->exec.program ? k->exec.deadline_ns : UINT64_MAX;
}
