/* Giving up what a process may do: user, capabilities, system calls.  Call before threads are made: all apply to the caller's alone. */
#ifndef CIS_OS_SANDBOX_H
#define CIS_OS_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/**
 * cis_user_become() - be @user with its groups, and keep capabilities for cis_caps_keep() to choose from
 *
 * Return: 0, -ENOENT (no such user), -EPERM (needs CAP_SETUID and CAP_SETGID).
 */
int cis_user_become(const char *user, struct cis_error *err);

/**
 * cis_caps_keep() - from now on, and for whatever is executed, at most these capabilities
 * @caps: CAP_ numbers; those that the process does not have are passed over
 * @inherit: what is executed keeps them too
 *
 * Sets no_new_privs.  Return: 0 or -errno.
 */
int cis_caps_keep(const int *caps, size_t n, bool inherit, struct cis_error *err);

/**
 * cis_syscalls_allow() - any other system call fails with EPERM, and is logged by the kernel
 * cis_syscalls_deny() - these fail with EPERM
 * @names: NULL-terminated; one that this machine does not have is passed over
 *
 * Needs no_new_privs.  Sanitizers need calls that nobody else does, so in builds with one nothing is filtered.
 *
 * Return: 0; -ENOSYS when the kernel has no filters; other -errno.
 */
int cis_syscalls_allow(const char *const *names, struct cis_error *err);
int cis_syscalls_deny(const char *const *names, struct cis_error *err);

#endif
