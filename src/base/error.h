/* Errors with a text: what went wrong and why, for whoever decides what to do about it. */
#ifndef CIS_BASE_ERROR_H
#define CIS_BASE_ERROR_H

/**
 * struct cis_error - the reason behind a negative return
 * @code: positive errno, 0 when nothing failed
 * @text: what failed and why, without a newline; names the file, field or peer
 *
 * The caller owns it, usually on its stack.  Functions that take one accept
 * NULL and write it only when they fail.
 */
struct cis_error {
	int code;
	char text[400];
};

/**
 * cis_fail() - note the reason and give the value to return
 * @err:  where to write, or NULL
 * @code: positive errno
 * @fmt:  printf format of the reason
 *
 * Return: -code.
 */
int cis_fail(struct cis_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/** cis_fail_prefix() - put "PREFIX: " before the text that a callee left.  Return: -err->code. */
int cis_fail_prefix(struct cis_error *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
