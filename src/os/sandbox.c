#include "os/sandbox.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <seccomp.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#else
#define IS_SANITIZED 0
#endif

int cis_user_become(const char *user, struct cis_error *err)
{
	struct passwd *pw;

	errno = 0;
	pw = getpwnam(user);
	if (!pw)
		return cis_fail(err, errno ? errno : ENOENT, "user %s: %s", user, errno ? strerror(errno) : "there is none");
	if (prctl(PR_SET_KEEPCAPS, 1) || initgroups(user, pw->pw_gid) || setgid(pw->pw_gid) || setuid(pw->pw_uid))
		return cis_fail(err, errno, "user %s: %s", user, strerror(errno));
	return 0;
}

static bool listed(const int *caps, size_t n, int cap)
{
	for (size_t i = 0; i < n; i++)
		if (caps[i] == cap)
			return true;
	return false;
}

/* What nobody below may get either; a process without CAP_SETPCAP cannot, and has no_new_privs for it. */
static void drop_bounding(const int *caps, size_t n)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
		if (!listed(caps, n, cap))
			prctl(PR_CAPBSET_DROP, cap);
}

static int keep(cap_t now, const int *caps, size_t n, bool inherit)
{
	cap_t next = cap_init();
	int rc = next ? 0 : -1;

	for (size_t i = 0; i < n && !rc; i++) {
		cap_value_t cap = caps[i];
		cap_flag_value_t has;

		if (cap_get_flag(now, cap, CAP_PERMITTED, &has) || has != CAP_SET)
			continue;
		rc = cap_set_flag(next, CAP_PERMITTED, 1, &cap, CAP_SET) || cap_set_flag(next, CAP_EFFECTIVE, 1, &cap, CAP_SET) ||
		     (inherit && cap_set_flag(next, CAP_INHERITABLE, 1, &cap, CAP_SET));
	}
	if (!rc)
		rc = cap_set_proc(next);
	if (next)
		cap_free(next);
	return rc ? -errno : 0;
}

int cis_caps_keep(const int *caps, size_t n, bool inherit, struct cis_error *err)
{
	cap_t now = cap_get_proc();
	int rc;

	if (!now)
		return cis_fail(err, errno, "capabilities: %s", strerror(errno));
	drop_bounding(caps, n);
	rc = keep(now, caps, n, inherit);
	cap_free(now);
	if (!rc && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		rc = -errno;
	for (size_t i = 0; i < n && !rc && inherit; i++)
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, caps[i], 0, 0); /* those it has; root needs none of it */
	return rc ? cis_fail(err, -rc, "capabilities: %s", strerror(-rc)) : 0;
}

static int filter(uint32_t otherwise, uint32_t action, const char *const *names, struct cis_error *err)
{
	scmp_filter_ctx ctx;
	int rc = 0;

	if (IS_SANITIZED)
		return 0;
	ctx = seccomp_init(otherwise);
	if (!ctx)
		return cis_fail(err, ENOMEM, "seccomp: out of memory");
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_LOG, 1);
	for (; *names && !rc; names++) {
		int nr = seccomp_syscall_resolve_name(*names);

		if (nr != __NR_SCMP_ERROR)
			rc = seccomp_rule_add(ctx, action, nr, 0);
	}
	if (!rc)
		rc = seccomp_load(ctx);
	seccomp_release(ctx);
	return rc ? cis_fail(err, -rc, "seccomp: %s", strerror(-rc)) : 0;
}

int cis_syscalls_allow(const char *const *names, struct cis_error *err)
{
	return filter(SCMP_ACT_ERRNO(EPERM), SCMP_ACT_ALLOW, names, err);
}

int cis_syscalls_deny(const char *const *names, struct cis_error *err)
{
	return filter(SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM), names, err);
}
