/* cistern run: a program whose large anonymous memory comes from the daemon. */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "cli/guests.h"

#define HUGE	  ((uint64_t)2 << 20)
#define ID_TRIES  16 /* a process of another PID namespace may have the number too */
#define HEAD_SIZE 4096

#ifdef __aarch64__
#define MACHINE EM_AARCH64
#else
#define MACHINE EM_X86_64
#endif

static uint64_t budget, memory;
static const char *pages, *keep, *id, *allocator;

static const struct cli_option options[] = {
	{ "budget", CLI_SIZE, "SIZE", "how much of its memory may be resident", &budget },
	{ "memory", CLI_SIZE, "SIZE", "how much it may have from the daemon (default: what the host has, or 4 times the budget)", &memory },
	{ "pages", CLI_STRING, "STORE", "where its pages go: cistern-stores(7) (default: they stay in the daemon)", &pages },
	{ "keep", CLI_STRING, "SIZE", "what of them stays in the daemon all the same", &keep },
	{ "id", CLI_STRING, "GUEST", "what the daemon calls it (default: run- and its process id)", &id },
	{ "malloc", CLI_STRING, "LIBRARY|none", "what its malloc() is to be (default: libjemalloc.so.2)", &allocator },
	CLI_OPTION_CONTROL,
	CLI_OPTION_END,
};

/* The program. */

static char *find(const char *name, struct cis_error *err)
{
	_cleanup_free_ char *dirs = strdup(getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
	char *path, *save = NULL;

	if (strchr(name, '/'))
		return strdup(name);
	for (char *dir = dirs ? strtok_r(dirs, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save)) {
		struct stat st;

		if (asprintf(&path, "%s/%s", dir, name) < 0)
			break;
		if (!access(path, X_OK) && !stat(path, &st) && S_ISREG(st.st_mode))
			return path;
		free(path);
	}
	cis_fail(err, ENOENT, "%s: no such program", name);
	return NULL;
}

static int read_head(const char *path, char *head, size_t *ret_len, struct cis_error *err)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st))
		rc = cis_fail(err, errno, "%s: %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode) || access(path, X_OK))
		rc = cis_fail(err, EACCES, "%s: not a program", path);
	else if (st.st_mode & (S_ISUID | S_ISGID))
		rc = cis_fail(err, EPERM, "%s: runs as another user or group, so nothing can be loaded into it", path);
	else if ((n = pread(fd, head, HEAD_SIZE - 1, 0)) < 0)
		rc = cis_fail(err, errno, "%s: %s", path, strerror(errno));
	else
		head[*ret_len = (size_t)n] = 0;
	if (fd >= 0)
		close(fd);
	return rc;
}

static bool is_elf(const char *head, size_t len)
{
	return len >= sizeof(Elf64_Ehdr) && !memcmp(head, ELFMAG, SELFMAG);
}

/* Libraries are loaded by the interpreter that it names. */
static int check_elf(const char *path, const char *head, size_t len, struct cis_error *err)
{
	Elf64_Ehdr ehdr;
	Elf64_Phdr phdr;

	memcpy(&ehdr, head, sizeof(ehdr));
	if (ehdr.e_ident[EI_CLASS] != ELFCLASS64 || ehdr.e_machine != MACHINE)
		return cis_fail(err, ENOEXEC, "%s: a program for another kind of machine", path);
	for (size_t i = 0; i < ehdr.e_phnum && ehdr.e_phoff + (i + 1) * sizeof(phdr) <= len; i++) {
		memcpy(&phdr, head + ehdr.e_phoff + i * sizeof(phdr), sizeof(phdr));
		if (phdr.p_type == PT_INTERP)
			return 0;
	}
	return cis_fail(err, ENOEXEC, "%s: statically linked, so nothing can be loaded into it", path);
}

/** struct program - @path is what is executed; @argv has room for two more in front of the caller's */
struct program {
	char *path, *script, *interpreter, **argv;
};

/*
 * "#!/usr/bin/env NAME" would have env be served, and not what it becomes: NAME is started instead.  *ret is the program, or NULL: the
 * kernel's way is right.
 */
static int interpreter_of(char *head, char **ret, struct cis_error *err)
{
	char *save, *first = strtok_r(head + 2, " \t\n", &save), *next = first ? strtok_r(NULL, " \t\n", &save) : NULL;
	const char *base = first ? strrchr(first, '/') : NULL;
	bool is_env = base && !strcmp(base, "/env");

	if (!first)
		return cis_fail(err, ENOEXEC, "its first line names no interpreter");
	if (is_env && next && !strcmp(next, "-S"))
		next = strtok_r(NULL, " \t\n", &save);
	if (is_env && (!next || strchr(next, '=') || *next == '-'))
		return cis_fail(err, ENOEXEC, "its first line has env do more than find a program: run that program");
	*ret = is_env ? find(next, err) : strdup(first);
	return *ret ? 0 : -ENOENT;
}

static int look_at(struct program *p, char **argv, struct cis_error *err)
{
	char head[HEAD_SIZE];
	size_t len = 0;
	int rc;

	p->path = find(argv[0], err);
	rc = p->path ? read_head(p->path, head, &len, err) : -ENOENT;
	if (!rc && !strncmp(head, "#!", 2)) {
		p->argv[0] = p->script = p->path;
		p->path = NULL;
		head[strcspn(head, "\n")] = 0;
		bool is_env = strstr(head, "/env");

		rc = interpreter_of(head, &p->interpreter, err);
		if (rc)
			return cis_fail_prefix(err, -rc, "%s", p->script);
		rc = read_head(p->interpreter, head, &len, err);
		p->path = strdup(is_env ? p->interpreter : p->script);
		if (is_env)
			*--p->argv = p->interpreter;
	}
	if (!rc && !is_elf(head, len))
		rc = cis_fail(err, ENOEXEC, "%s: not a program that libraries can be loaded into", p->interpreter ? p->interpreter : p->path);
	return rc ? rc : check_elf(p->interpreter ? p->interpreter : p->path, head, len, err);
}

/* What is loaded into it. */

static int library(char **ret, struct cis_error *err)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[n > 0 ? n : 0] = 0;
	slash = strrchr(self, '/');
	/* where it was built, then where it is installed */
	if (slash && asprintf(ret, "%.*s/src/client/libcistern-run.so", (int)(slash - self), self) >= 0) {
		if (!access(*ret, R_OK))
			return 0;
		free(*ret);
	}
	*ret = strdup(CISTERN_LIBDIR "/libcistern-run.so");
	return !*ret || access(*ret, R_OK) ? cis_fail(err, ENOENT, CISTERN_LIBDIR "/libcistern-run.so: %s", strerror(errno)) : 0;
}

/* glibc's malloc() calls its own mmap(), in front of which nothing can stand. */
static int find_allocator(char **ret, struct cis_error *err)
{
	static const char *const dirs[] = { "/usr/lib64", "/usr/lib", "/usr/local/lib" };
	const char *name = allocator ? allocator : "libjemalloc.so.2";
	Dl_info info;
	char *slash;

	*ret = NULL;
	if (!strcmp(name, "none"))
		return 0;
	if (strchr(name, '/')) {
		*ret = strdup(name);
		return access(name, R_OK) ? cis_fail(err, errno, "--malloc: %s: %s", name, strerror(errno)) : 0;
	}
	for (size_t i = 0; i <= sizeof(dirs) / sizeof(*dirs); i++) {
		const char *dir = i ? dirs[i - 1] : dladdr((void *)strtol, &info) ? info.dli_fname : "";

		slash = i ? NULL : strrchr(dir, '/');
		if (asprintf(ret, "%.*s/%s", (int)(slash ? (size_t)(slash - dir) : strlen(dir)), dir, name) < 0)
			return cis_fail(err, ENOMEM, "no memory");
		if (!access(*ret, R_OK))
			return 0;
		free(*ret);
		*ret = NULL;
	}
	return cis_fail(err, ENOENT, "no %s, without which only what the program maps itself would be served: install it (Debian: libjemalloc2), "
			"name another with --malloc, or say --malloc none", name);
}

static int set_environment(const char *guest, const char *socket, struct cis_error *err)
{
	_cleanup_free_ char *run = NULL, *alloc = NULL, *all = NULL;
	const char *before = getenv("LD_PRELOAD");
	char bytes[24];
	int rc = library(&run, err);

	if (!rc)
		rc = find_allocator(&alloc, err);
	if (rc)
		return rc;
	if (asprintf(&all, "%s%s%s%s%s", run, alloc ? ":" : "", alloc ? alloc : "", before && *before ? ":" : "", before ? before : "") < 0)
		return cis_fail(err, ENOMEM, "no memory");
	snprintf(bytes, sizeof(bytes), "%" PRIu64, memory);
	if (setenv("LD_PRELOAD", all, 1) || setenv("CISTERN_RUN_PRELOAD", before ? before : "", 1) || setenv("CISTERN_RUN_BYTES", bytes, 1) ||
	    setenv("CISTERN_RUN_SOCKET", socket, 1) || setenv("CISTERN_RUN_CONTROL", cli_control, 1) || setenv("CISTERN_RUN_GUEST", guest, 1))
		return cis_fail(err, ENOMEM, "no memory");
	return 0;
}

/* The guest. */

static int make_body(json_t **ret, struct cis_error *err)
{
	char image[40];
	uint64_t kept;
	json_t *body;

	snprintf(image, sizeof(image), "blank:%" PRIu64, memory);
	if (keep && (cis_size_parse(keep, &kept) || kept > INT64_MAX))
		return cis_fail(err, EINVAL, "--keep: '%s' is not a size, like 256M", keep);
	body = json_pack("{s:s, s:s, s:s, s:I, s:I, s:{s:I}}", "image", image, "kind", "client", "fill", "none", "uid", (json_int_t)geteuid(),
			 "gid", (json_int_t)getegid(), "budget", "target_bytes", (json_int_t)budget);
	if (!body)
		return cis_fail(err, ENOMEM, "no memory");
	if (pages)
		json_object_set_new(json_object_get(body, "budget"), "pages", json_string(pages));
	if (keep)
		json_object_set_new(json_object_get(body, "budget"), "keep_bytes", json_integer((json_int_t)kept));
	*ret = body;
	return 0;
}

static int add_guest(char *name, size_t room, json_t **ret, struct cis_error *err)
{
	json_t *body;
	int rc = make_body(&body, err);

	if (rc)
		return rc;
	for (int i = 0; i < (id ? 1 : ID_TRIES); i++) {
		if (id)
			snprintf(name, room, "%s", id);
		else
			snprintf(name, room, i ? "run-%d-%d" : "run-%d", getpid(), i + 1);
		rc = cli_call("PUT", "/v1/guests/*", name, body, ret, err);
		if (rc != -EEXIST)
			break;
	}
	json_decref(body);
	return rc;
}

static void choose_memory(void)
{
	struct sysinfo host;

	if (!memory && !sysinfo(&host))
		memory = (uint64_t)host.totalram * host.mem_unit;
	if (memory < 4 * budget)
		memory = 4 * budget;
	memory = (memory + HUGE - 1) / HUGE * HUGE;
}

static int start(const struct program *p, struct cis_error *err)
{
	json_t *guest;
	char name[256];
	int rc = add_guest(name, sizeof(name), &guest, err);

	if (rc)
		return rc;
	rc = set_environment(name, cli_text(guest, "socket"), err);
	if (!rc) {
		execv(p->path, p->argv);
		rc = cis_fail(err, errno, "%s: %s", p->path, strerror(errno));
	}
	cli_call("DELETE", "/v1/guests/*", name, NULL, NULL, NULL);
	json_decref(guest);
	return rc;
}

static int run(int argc, char **argv)
{
	_cleanup_free_ char **room = calloc((size_t)argc + 3, sizeof(*room));
	struct program p = { 0 };
	struct cis_error err;
	int rc;

	if (!budget)
		return cli_usage("wants --budget");
	if (!room)
		return CLI_FAILED;
	memcpy(room + 2, argv, (size_t)argc * sizeof(*argv));
	p.argv = room + 2;
	choose_memory();
	rc = look_at(&p, argv, &err);
	if (!rc)
		rc = start(&p, &err);
	free(p.path);
	free(p.script);
	free(p.interpreter);
	return rc ? cli_fail(&err) : CLI_OK;
}

const struct cli_command cli_run = {
	"run", "-- PROGRAM [ARGUMENT]...", "Run a program whose large memory comes from the daemon", options, 1, INT32_MAX, run
};
