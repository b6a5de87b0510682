#include "daemon/harden.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/seccomp.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "codec/codec.h"
#include "daemon/keep_exec.h"
#include "os/sandbox.h"

#define FILTER_ENV "CISTERN_FILTER"

/* The keeper's, for what is said in doc/security.md. */
static const int keeper_caps[] = {
	CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_SETUID, CAP_SETGID, CAP_SETPCAP,
	CAP_SYS_PTRACE, CAP_SYS_RESOURCE, CAP_IPC_LOCK, CAP_DAC_READ_SEARCH,
};

/* Without a user of its own the engine is root without root's powers: it may read images of whatever owner. */
static const int engine_caps[] = { CAP_KILL, CAP_IPC_LOCK, CAP_DAC_READ_SEARCH };
#define ENGINE_CAPS_AS_USER 2 /* the first ones */

/*
 * The keeper's filter outlives every binary that it becomes or starts, and a later one may need calls that this one
 * does not know: so it names what none of them will ever need.
 */
static const char *const keeper_denied[] = {
	"acct", "add_key", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "fsconfig",
	"fsmount", "fsopen", "init_module", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl",
	"lookup_dcookie", "mount", "mount_setattr", "move_mount", "nfsservctl", "open_by_handle_at", "open_tree",
	"perf_event_open", "personality", "pivot_root", "process_vm_writev", "ptrace", "quotactl",
	"reboot", "request_key", "setdomainname", "sethostname", "settimeofday", "swapoff", "swapon", "syslog", "umount2",
	"unshare", "uselib", "vhangup", NULL,
};

/* The engine's names all that it needs: a hand-over starts the next one from the keeper, not from this process. */
static const char *const engine_allowed[] = {
	/* memory, its own and of guests */
	"brk", "madvise", "membarrier", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mprotect", "mremap", "munlock",
	"munmap", "memfd_create", "process_madvise", "fallocate", "ftruncate",
	/* userfaultfd and the rest that is an ioctl */
	"ioctl",
	/* files: images, traces */
	"access", "close", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fcntl", "flock", "fstat",
	"fstatfs", "fsync", "fdatasync", "getcwd", "getdents64", "link", "linkat", "lseek", "lstat", "mkdir", "mkdirat",
	"newfstatat", "open", "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "read", "readlink",
	"readlinkat", "readv", "rename", "renameat", "renameat2", "rmdir", "stat", "statfs", "statx", "unlink", "unlinkat",
	"write", "writev", "umask", "chmod", "fchmod", "fchmodat",
	"io_uring_enter", "io_uring_register", "io_uring_setup",
	/* the wire to the keeper, the control interface, stores of pages */
	"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmmsg", "recvmsg",
	"sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socket", "socketpair",
	/* waiting */
	"clock_getres", "clock_gettime", "clock_nanosleep", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2",
	"epoll_wait", "eventfd2", "futex", "futex_waitv", "gettimeofday", "nanosleep", "pipe2", "poll", "ppoll",
	"pselect6", "restart_syscall", "select", "time", "timerfd_create", "timerfd_gettime", "timerfd_settime",
	/* threads (by clone where a filter around us says that there is no clone3, as systemd's RestrictNamespaces= does), and who it is */
	"arch_prctl", "clone", "clone3", "exit", "exit_group", "getcpu", "getegid", "geteuid", "getgid", "getpid", "getppid",
	"getrandom", "getrlimit", "getrusage", "gettid", "getuid", "prctl", "prlimit64", "rseq", "sched_getaffinity",
	"sched_setaffinity", "sched_getparam", "sched_getscheduler", "sched_setscheduler", "sched_yield",
	"set_robust_list", "set_tid_address", "setpriority", "setrlimit", "sysinfo", "uname",
	/* signals: its own end, and of monitors whose policy it is */
	"kill", "pidfd_open", "pidfd_send_signal", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "tgkill",
	"rt_sigtimedwait",
	NULL,
};

static size_t count(const struct cis_config *config)
{
	return *config->user ? ENGINE_CAPS_AS_USER : sizeof(engine_caps) / sizeof(*engine_caps);
}

/* Code that was dropped from memory under pressure would have to be read before a fault is answered, maybe for the memory it waits for. */
static void lock_code(void)
{
	if (mlockall(MCL_CURRENT | MCL_ONFAULT))
		cis_log(CIS_LOG_DEBUG, "code and data are not locked in memory: RLIMIT_MEMLOCK is too low");
}

/*
 * A keeper that became another program has its filter already: one more each time would cost each call a little, and after some
 * 400 of them the kernel takes no more.  Which one it is stands in the environment, which it does not share with anybody.
 */
static int deny_once(struct cis_error *err)
{
	const char *had = getenv(KEEP_TABLE_ENV) ? getenv(FILTER_ENV) : NULL;
	uint64_t crc = 0;
	char name[20];
	int rc;

	for (const char *const *call = keeper_denied; *call; call++)
		crc = cis_crc64(crc, *call, strlen(*call) + 1);
	snprintf(name, sizeof(name), "%016" PRIx64, crc);
	if (had && !strcmp(had, name) && prctl(PR_GET_SECCOMP) == SECCOMP_MODE_FILTER)
		return 0;
	rc = cis_syscalls_deny(keeper_denied, err);
	if (!rc)
		setenv(FILTER_ENV, name, 1);
	return rc;
}

int cis_harden_keeper(const struct cis_config *config, struct cis_error *err)
{
	int rc = 0;

	lock_code();
	if (config->harden)
		rc = cis_caps_keep(keeper_caps, sizeof(keeper_caps) / sizeof(*keeper_caps), true, err);
	return rc || !config->harden ? rc : deny_once(err);
}

int cis_harden_engine(const struct cis_config *config, struct cis_error *err)
{
	int rc = 0;

	lock_code();
	if (*config->user && !geteuid())
		rc = cis_user_become(config->user, err);
	if (!rc && config->harden)
		rc = cis_caps_keep(engine_caps, count(config), false, err);
	return rc || !config->harden ? rc : cis_syscalls_allow(engine_allowed, err);
}
