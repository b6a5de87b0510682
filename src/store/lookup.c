#include "store/lookup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "store/hosts.h"

/* The thread's until it has written to @event, then the caller's; the last of them frees it. */
struct cis_lookup {
	atomic_int refs;
	int event;
	char host[CIS_HOST_NAME_MAX + 1];
	char address[CIS_ADDRESSES_MAX][CIS_ADDRESS_TEXT_MAX];
	unsigned nr;
	int err;
};

bool cis_lookup_needed(const char *host)
{
	struct in6_addr any;

	return !strchr(host, ':') && inet_pton(AF_INET, host, &any) != 1;
}

static void unref(struct cis_lookup *l)
{
	if (atomic_fetch_sub(&l->refs, 1) > 1)
		return;
	close(l->event);
	free(l);
}

static void look_up(struct cis_lookup *l)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG }, *list = NULL;
	int rc = getaddrinfo(l->host, NULL, &hints, &list);

	if (rc) {
		l->err = rc == EAI_NONAME || rc == EAI_FAIL ? -ENOENT : -EAGAIN;
		return;
	}
	for (struct addrinfo *ai = list; ai && l->nr < CIS_ADDRESSES_MAX; ai = ai->ai_next)
		if (!getnameinfo(ai->ai_addr, ai->ai_addrlen, l->address[l->nr], CIS_ADDRESS_TEXT_MAX, NULL, 0, NI_NUMERICHOST))
			l->nr++;
	freeaddrinfo(list);
	if (!l->nr)
		l->err = -ENOENT;
}

static void *lookup_main(void *arg)
{
	struct cis_lookup *l = arg;
	uint64_t one = 1;

	look_up(l);
	if (write(l->event, &one, sizeof(one)) != sizeof(one))
		abort(); /* an eventfd that counts to one */
	unref(l);
	return NULL;
}

/* Without signals: they are for threads that know what to do with them. */
static int start_thread(struct cis_lookup *l)
{
	sigset_t all, old;
	pthread_t thread;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&thread, NULL, lookup_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!rc)
		pthread_detach(thread);
	return -rc;
}

int cis_lookup_start(const char *host, struct cis_lookup **ret)
{
	struct cis_lookup *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return -ENOMEM;
	l->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->event < 0) {
		rc = -errno;
		free(l);
		return rc;
	}
	strncpy(l->host, host, CIS_HOST_NAME_MAX);
	atomic_init(&l->refs, 2);
	rc = start_thread(l);
	if (rc) {
		close(l->event);
		free(l);
		return rc;
	}
	*ret = l;
	return 0;
}

int cis_lookup_fd(const struct cis_lookup *l)
{
	return l->event;
}

int cis_lookup_result(const struct cis_lookup *l, unsigned nth, char ret[CIS_ADDRESS_TEXT_MAX])
{
	uint64_t finished;

	if (read(l->event, &finished, sizeof(finished)) < 0)
		return -EINPROGRESS;
	if (l->err)
		return l->err;
	strcpy(ret, l->address[nth % l->nr]);
	return 0;
}

void cis_lookup_forget(struct cis_lookup *l)
{
	if (l)
		unref(l);
}
