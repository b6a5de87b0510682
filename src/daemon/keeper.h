/*
 * The keeper: the tiny parent of the engine.
 *
 * It binds the sockets on which guests are expected, accepts, and holds whatever a guest hands over (the
 * bytes of its handshake, its descriptors) and the state memfds, before the engine sees any of it.  It parses
 * nothing that a guest sends.  When the engine dies, guests stall on pages that nobody fills, but never read
 * zeros, because a descriptor of each userfaultfd is still open here; and another engine can be given
 * everything again (daemon/wire.h).
 *
 * One thread, one epoll loop.  It never waits for the engine or for a client: what cannot be sent now is
 * marked as not told, and the marks are the queue, so its memory is what it holds and no more.
 *
 * When the engine has ended (all its threads: its pidfd says so), another is started at once; when engines die
 * again and again, after pauses that double up to a tenth of a second, for ever while guests are held.
 *
 * It ends: on SIGTERM or SIGINT, as soon as no guest is left and the engine, which is told to stop,
 * has ended; and without a signal when no guest is held and no engine ever served, so that a wrong
 * configuration is an error and no endless loop.  A guest is a connection that has said something and was not
 * released.  While there is no engine, a guest whose process ends is released by the keeper itself, if no engine has served it
 * or sixteen have ended since.
 */
#ifndef CIS_DAEMON_KEEPER_H
#define CIS_DAEMON_KEEPER_H

#include <stdbool.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"

struct cis_keeper;

/**
 * cis_keeper_create() - a keeper without an engine
 *
 * For the whole process: blocks SIGTERM, SIGINT and SIGHUP, raises the limit of
 * descriptors as far as permitted, and asks the kernel to spare it when
 * memory runs out (where permitted).
 */
int cis_keeper_create(struct cis_keeper **ret, struct cis_error *err);

/** cis_keeper_destroy() - close everything, remove its sockets.  NULL-safe. */
void cis_keeper_destroy(struct cis_keeper *k);

/**
 * cis_keeper_guard() - first of all in main(): should this process not come up as what it became, it becomes again what it was
 * @argv: main()'s; as long as the process
 *
 * Nothing where it is started, and did not become this program.
 */
void cis_keeper_guard(char **argv);

/** cis_keeper_go_back() - it cannot come up.  Return: only where there is nothing to go back to. */
void cis_keeper_go_back(const char *why);

/** cis_keeper_stay() - it has come up, and is to run: there is no way back. */
void cis_keeper_stay(struct cis_keeper *k);

/**
 * struct cis_keep_opts - where the keeper keeps what a keeper to come needs, beside systemd
 * @folder:  NULL: nowhere
 * @is_wish: it is done without it where that folder is not on a tmpfs
 */
struct cis_keep_opts {
	const char *folder;
	bool is_wish;
};

/**
 * cis_keeper_gather() - take what a keeper before left behind: from systemd's descriptor store, from itself before an exec
 *
 * Before there is an engine.  What is damaged or not complete is logged, and held as far as it is there.
 * Return: 0; -EBUSY (an engine of a keeper before still serves its guests), of the folder, -ENOMEM, ...
 */
int cis_keeper_gather(struct cis_keeper *k, const struct cis_keep_opts *opts, struct cis_error *err);

/**
 * cis_keeper_control() - bind the control socket, which every engine gets as CIS_WIRE_CONTROL_FD
 *
 * While one engine follows another, clients wait in its queue.  The folder is made if it is not there.
 *
 * Return: 0; -EADDRINUSE (another daemon), -EEXIST (not a socket), ...
 */
int cis_keeper_control(struct cis_keeper *k, const char *path, struct cis_error *err);

/**
 * cis_keeper_start() - fork and execute an engine, and others after it
 * @argv: argv[0] is the program's path; the wire is its descriptor CIS_WIRE_FD; copied
 * @envp: its whole environment; copied
 *
 * Return: 0; -EBUSY (there is one), -EAGAIN, -ENOMEM.  A program that cannot be
 * executed is an engine that ends with status 127.
 */
int cis_keeper_start(struct cis_keeper *k, char *const argv[], char *const envp[], struct cis_error *err);

/**
 * cis_keeper_attach() - the wire to an engine that somebody else started; when it closes, none follows
 * @fd: the keeper's end, its own from now on
 *
 * Return: 0, -EBUSY, ...
 */
int cis_keeper_attach(struct cis_keeper *k, int fd, struct cis_error *err);

/** cis_keeper_set_clock() - what time it is, in nanoseconds; CLOCK_MONOTONIC otherwise. */
void cis_keeper_set_clock(struct cis_keeper *k, cis_clock_fn clock, void *ctx);

/** cis_keeper_set_upgrade() - how long each step of a hand-over may take; 10000 ms otherwise. */
void cis_keeper_set_upgrade(struct cis_keeper *k, unsigned ms);

/** cis_keeper_fd() - readable when cis_keeper_step() would not wait; or after cis_keeper_timeout_ms(), -1 for never. */
int cis_keeper_fd(const struct cis_keeper *k);
int cis_keeper_timeout_ms(const struct cis_keeper *k);

/** cis_keeper_probe() - say what this keeper knows, so that one that runs can tell whether it can become this one. */
void cis_keeper_probe(FILE *out);

/** cis_keeper_step() - wait for one event and act on it.  Return: 0, or -errno when it cannot wait. */
int cis_keeper_step(struct cis_keeper *k);

/** cis_keeper_is_over() - no engine, none to come, and no guest: nothing to keep. */
bool cis_keeper_is_over(const struct cis_keeper *k);

/**
 * cis_keeper_run() - hold until it ends
 * @ret_status: what the process should exit with: 0 after a signal, else the status of the engine
 */
int cis_keeper_run(struct cis_keeper *k, int *ret_status);

#endif
