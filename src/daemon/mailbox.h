/* Messages between threads: a function and its argument, run on the thread that owns the mailbox. */
#ifndef CIS_DAEMON_MAILBOX_H
#define CIS_DAEMON_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>

struct cis_mail {
	void (*fn)(void *arg);
	void *arg;
};

/** struct cis_mailbox - many writers, one reader; order of one writer is kept */
struct cis_mailbox {
	pthread_mutex_t lock;
	struct cis_mail *mail;
	size_t nr, max;
	int event; /* eventfd, readable while there is mail */
};

int cis_mailbox_init(struct cis_mailbox *box);
void cis_mailbox_fini(struct cis_mailbox *box);

/** cis_mailbox_post() - any thread.  Aborts without memory: a lost message is a lost page. */
void cis_mailbox_post(struct cis_mailbox *box, void (*fn)(void *arg), void *arg);

/** cis_mailbox_run() - the reader: run what is there.  Return: whether anything was. */
bool cis_mailbox_run(struct cis_mailbox *box);

/** cis_mailbox_call() - post and wait until it has run; not from the reader itself. */
void cis_mailbox_call(struct cis_mailbox *box, void (*fn)(void *arg), void *arg);

#endif
