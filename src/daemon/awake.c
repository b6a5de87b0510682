#include "daemon/awake.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define NO_WISH_US 2000000000 /* the kernel's PM_QOS_CPU_LATENCY_DEFAULT_VALUE */

struct cis_awake {
	uint64_t quiet_ns;
	_Atomic uint64_t last_ns;
	_Atomic int held;
	pthread_mutex_t lock; /* of what follows */
	int fd;
	bool asked;
	uint64_t since_ns, total_ns;
};

int cis_awake_create(unsigned quiet_ms, struct cis_awake **ret)
{
	struct cis_awake *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->quiet_ns = (uint64_t)quiet_ms * 1000000u;
	/* Opened while the process still may; where it cannot be, nothing is held, and faults take longer. */
	a->fd = quiet_ms ? open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC) : -1;
	pthread_mutex_init(&a->lock, NULL);
	*ret = a;
	return 0;
}

void cis_awake_destroy(struct cis_awake *a)
{
	if (!a)
		return;
	if (a->fd >= 0)
		close(a->fd);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* Open, the file asks for nothing until microseconds are written to it; the kernel keeps to the last ones. */
static bool ask(struct cis_awake *a, int32_t us)
{
	return a->fd >= 0 && write(a->fd, &us, sizeof(us)) == sizeof(us);
}

static void hold(struct cis_awake *a)
{
	pthread_mutex_lock(&a->lock);
	if (!a->asked) {
		a->asked = ask(a, 0);
		a->since_ns = cis_now_ns(NULL);
	}
	atomic_store(&a->held, 1);
	pthread_mutex_unlock(&a->lock);
}

/* Milliseconds are enough, and this is on the path of every fault. */
static uint64_t coarse_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void cis_awake_touch(struct cis_awake *a)
{
	if (!a->quiet_ns)
		return;
	atomic_store_explicit(&a->last_ns, coarse_ns(), memory_order_relaxed);
	if (!atomic_load_explicit(&a->held, memory_order_relaxed))
		hold(a);
}

int cis_awake_tick(struct cis_awake *a)
{
	uint64_t now = cis_now_ns(NULL), last = atomic_load(&a->last_ns);
	int wait = -1;

	pthread_mutex_lock(&a->lock);
	if (!atomic_load(&a->held)) {
		/* nothing to do */
	} else if (now >= last + a->quiet_ns) {
		if (a->asked) {
			ask(a, NO_WISH_US);
			a->total_ns += now - a->since_ns;
		}
		a->asked = false;
		atomic_store(&a->held, 0);
	} else {
		wait = (int)((last + a->quiet_ns - now) / 1000000) + 1;
	}
	pthread_mutex_unlock(&a->lock);
	return wait;
}

void cis_awake_carry(struct cis_awake *a, uint64_t ns)
{
	pthread_mutex_lock(&a->lock);
	a->total_ns += ns;
	pthread_mutex_unlock(&a->lock);
}

uint64_t cis_awake_held_ns(struct cis_awake *a)
{
	uint64_t total;

	pthread_mutex_lock(&a->lock);
	total = a->total_ns + (a->asked ? cis_now_ns(NULL) - a->since_ns : 0);
	pthread_mutex_unlock(&a->lock);
	return total;
}
