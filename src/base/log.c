#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static cis_log_fn hook;
static void *hook_ctx;
static _Atomic int hook_max = CIS_LOG_INFO;

static const char *const names[] = { "error", "warn", "info", "debug" };

void cis_log_set(cis_log_fn fn, void *ctx, enum cis_log_level max)
{
	hook = fn;
	hook_ctx = ctx;
	cis_log_set_level(max);
}

void cis_log_set_level(enum cis_log_level max)
{
	atomic_store_explicit(&hook_max, (int)max, memory_order_relaxed);
}

enum cis_log_level cis_log_level(void)
{
	return (enum cis_log_level)atomic_load_explicit(&hook_max, memory_order_relaxed);
}

void cis_log(enum cis_log_level level, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (!hook || (int)level > atomic_load_explicit(&hook_max, memory_order_relaxed))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	hook(level, text, hook_ctx);
}

int cis_log_level_parse(const char *text)
{
	for (int i = 0; i < 4; i++)
		if (!strcmp(text, names[i]))
			return i;
	return -EINVAL;
}

const char *cis_log_level_name(enum cis_log_level level)
{
	return names[level];
}
