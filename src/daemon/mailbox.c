#include "daemon/mailbox.h"

#include <errno.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/log.h"

int cis_mailbox_init(struct cis_mailbox *box)
{
	*box = (struct cis_mailbox){ .event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	if (box->event < 0)
		return -errno;
	pthread_mutex_init(&box->lock, NULL);
	return 0;
}

void cis_mailbox_fini(struct cis_mailbox *box)
{
	close(box->event);
	pthread_mutex_destroy(&box->lock);
	free(box->mail);
}

void cis_mailbox_post(struct cis_mailbox *box, void (*fn)(void *arg), void *arg)
{
	uint64_t one = 1;
	bool first;

	pthread_mutex_lock(&box->lock);
	first = !box->nr;
	if (box->nr == box->max) {
		box->max = box->max ? 2 * box->max : 64;
		box->mail = realloc(box->mail, box->max * sizeof(*box->mail));
		if (!box->mail)
			cis_give_up("no memory for what its threads say to each other");
	}
	box->mail[box->nr++] = (struct cis_mail){ fn, arg };
	pthread_mutex_unlock(&box->lock);
	if (first && write(box->event, &one, sizeof(one)) < 0)
		abort(); /* it holds at most one count */
}

bool cis_mailbox_run(struct cis_mailbox *box)
{
	uint64_t count;
	struct cis_mail *mail;
	size_t nr;

	if (read(box->event, &count, sizeof(count)) < 0)
		return false;
	pthread_mutex_lock(&box->lock);
	mail = box->mail;
	nr = box->nr;
	box->mail = NULL;
	box->nr = box->max = 0;
	pthread_mutex_unlock(&box->lock);
	for (size_t i = 0; i < nr; i++)
		mail[i].fn(mail[i].arg);
	free(mail);
	return nr > 0;
}

struct call {
	void (*fn)(void *arg);
	void *arg;
	sem_t over;
};

static void run_call(void *arg)
{
	struct call *call = arg;

	call->fn(call->arg);
	sem_post(&call->over);
}

void cis_mailbox_call(struct cis_mailbox *box, void (*fn)(void *arg), void *arg)
{
	struct call call = { .fn = fn, .arg = arg };

	sem_init(&call.over, 0, 0);
	cis_mailbox_post(box, run_call, &call);
	while (sem_wait(&call.over) && errno == EINTR)
		;
	sem_destroy(&call.over);
}
