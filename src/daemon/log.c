#include "daemon/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

#define BURST  200u /* lines at once */
#define A_SEC  20u  /* and then a second, for each level but errors, which have their own */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *name; /* of the process, as the last line was said */
static struct bucket {
	double tokens;
	uint64_t at_ns;
	unsigned long dropped;
} buckets[4] = { { BURST, 0, 0 }, { BURST, 0, 0 }, { BURST, 0, 0 }, { BURST, 0, 0 } };

/* A token bucket (Turner 1986) a level. */
static bool admit(struct bucket *b)
{
	uint64_t now = cis_now_ns(NULL);

	if (b->at_ns)
		b->tokens += (double)(now - b->at_ns) / 1e9 * A_SEC;
	if (b->tokens > BURST)
		b->tokens = BURST;
	b->at_ns = now;
	if (b->tokens < 1)
		return false;
	b->tokens--;
	return true;
}

/* As systemd reads it: a priority in front when standard error is not a terminal. */
static const char *prefix(enum cis_log_level level)
{
	static const char *const priority[] = { "<3>", "<4>", "<6>", "<7>" };
	static int tty = -1;

	if (tty < 0)
		tty = isatty(2);
	return tty ? "" : priority[level];
}

/* @lock held. */
static void say_dropped(enum cis_log_level level)
{
	struct bucket *b = &buckets[level];

	if (!b->dropped)
		return;
	fprintf(stderr, "%s%s: %lu lines of level %s left out\n", prefix(level), name, b->dropped, cis_log_level_name(level));
	b->dropped = 0;
}

void cis_daemon_log(enum cis_log_level level, const char *text, void *ctx)
{
	pthread_mutex_lock(&lock);
	name = ctx;
	if (admit(&buckets[level])) {
		say_dropped(level);
		fprintf(stderr, "%s%s: %s: %s\n", prefix(level), name, cis_log_level_name(level), text);
	} else {
		buckets[level].dropped++;
	}
	pthread_mutex_unlock(&lock);
}

void cis_daemon_log_tick(void)
{
	pthread_mutex_lock(&lock);
	for (int level = CIS_LOG_ERROR; level <= CIS_LOG_DEBUG; level++)
		if (buckets[level].dropped && admit(&buckets[level]))
			say_dropped((enum cis_log_level)level);
	pthread_mutex_unlock(&lock);
}

void cis_give_up(const char *fmt, ...)
{
	char text[500];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cis_log(CIS_LOG_ERROR, "engine: %s: it ends, so that another one follows", text);
	_exit(1);
}
