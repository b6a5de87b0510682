/*
 * The keeper becomes another program in place: same process, same children, same descriptors.
 *
 * Until it has come up, nothing of that is given up: should it fail, it becomes the program again that it was, whose descriptor
 * it was given too, and which finds all as it left it (keep_back.c).
 *
 * What it has is told by a table: a memfd of lines, whose number is in the environment.  Unknown lines are passed over.
 *
 *	fd NAME NUMBER WHERE		a descriptor (keep.h); KEEP_IS_ bits: where else it is
 *	keeper OOM READY STOPPING NEXT_CONN GENERATION
 *	engine PID WIRE GENERATION HELLO	the engine, our child, which was told everything; HELLO in hexadecimal
 */
#ifndef CIS_DAEMON_KEEP_EXEC_H
#define CIS_DAEMON_KEEP_EXEC_H

#include "daemon/keep.h"

#define KEEP_TABLE_ENV	   "CISTERN_KEPT"
#define KEEP_FORMER_ENV	   "CISTERN_FORMER" /* NUMBER:NAME, descriptor of the program that it was, and what it was called */
#define KEEP_BACK_ENV	   "CISTERN_BACK" /* why that is executed again */
#define KEEP_TABLE_VERSION 1u /* of lines that a reader has to know */

/**
 * keep_exec() - execute @path with our arguments and environment, and all that we hold
 *
 * Return: only when it failed, and nothing has changed then: -EAGAIN while the engine has not been told all, -EBUSY
 * while there is more than one, or of execve().
 */
int keep_exec(struct cis_keeper *k, const char *path, struct cis_error *err);

#define KEEP_ARGS_MAX	64
#define KEEP_ARGS_BYTES (64u << 10)

/**
 * keep_exec_arguments() - our own, the program's name replaced
 * @buf:  what they point into, @room bytes
 * @args: room for KEEP_ARGS_MAX and NULL
 *
 * Return: 0, -E2BIG, -EIO.
 */
int keep_exec_arguments(char *buf, size_t room, const char *path, char **args);

/**
 * keep_exec_names() - the descriptors of the table, as duplicates: the others stay open until keep_exec_settle()
 *
 * Return: 0; or -errno, if there is a program to go back to, which can hold them all.
 */
int keep_exec_names(struct keep_names *n);
/** keep_exec_resume() - the rest of it, once connections and listeners are restored.  Return: 0 or -errno. */
int keep_exec_resume(struct cis_keeper *k);

/** keep_exec_settle() - this program goes on: what it was given under other numbers is closed. */
void keep_exec_settle(void);

/* keep_back.c */

/** keep_back_offer() - the program that is executed next can become this one again.  @name: of this one. */
void keep_back_offer(const char *name);
/** keep_back_withdraw() - it was not executed. */
void keep_back_withdraw(void);
/** keep_back_can() - there is a program to go back to. */
bool keep_back_can(void);
/** keep_back_why() - why the other program is not this one any more; NULL: nothing of that kind happened. */
const char *keep_back_why(void);
/** keep_back_settle() - this one stays. */
void keep_back_settle(void);

#endif
