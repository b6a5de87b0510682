/* The log hook.  Libraries only debug through it; the daemon decides what is said, once, where it decides. */
#ifndef CIS_BASE_LOG_H
#define CIS_BASE_LOG_H

enum cis_log_level { CIS_LOG_ERROR, CIS_LOG_WARN, CIS_LOG_INFO, CIS_LOG_DEBUG };

typedef void (*cis_log_fn)(enum cis_log_level level, const char *text, void *ctx);

/** cis_log_set() - install the hook; call before threads start.  NULL: silence. */
void cis_log_set(cis_log_fn fn, void *ctx, enum cis_log_level max);

/** cis_log_set_level() - change the level at run time, from any thread. */
void cis_log_set_level(enum cis_log_level max);

void cis_log(enum cis_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** cis_log_level() - as it is now. */
enum cis_log_level cis_log_level(void);

/** cis_log_level_parse() - "error", "warn", "info" or "debug".  Return: the level or -EINVAL. */
int cis_log_level_parse(const char *text);
const char *cis_log_level_name(enum cis_log_level level);

#endif
