#include "client/preload_config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_RAM "memfd:memory-backend-memfd" /* as QEMU names it */

static int split(char *list, const char *variable, const char **ret, size_t *ret_nr, struct cis_error *err)
{
	char *save, *each;
	size_t nr = 0;

	for (each = strtok_r(list, ",", &save); each; each = strtok_r(NULL, ",", &save)) {
		if (nr == CIS_PRELOAD_BLOCKS_MAX)
			return cis_fail(err, EINVAL, "%s names more than %d blocks", variable, CIS_PRELOAD_BLOCKS_MAX);
		ret[nr++] = each;
	}
	*ret_nr = nr;
	return 0;
}

static int parse_mode(const char *text, enum cis_preload_mode *ret, struct cis_error *err)
{
	if (!text || !*text)
		*ret = CIS_PRELOAD_AS_MAPPED;
	else if (!strcmp(text, "anonymous"))
		*ret = CIS_PRELOAD_ANONYMOUS;
	else if (!strcmp(text, "shared"))
		*ret = CIS_PRELOAD_SHARED;
	else
		return cis_fail(err, EINVAL, "CISTERN_MODE is '%s': use anonymous or shared", text);
	return 0;
}

static const char *variable(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value && *value ? value : otherwise;
}

int cis_preload_config_read(struct cis_preload_config *ret, struct cis_error *err)
{
	struct cis_preload_config c = { .socket = variable("CISTERN_SOCKET", NULL) };
	const char *ram = variable("CISTERN_RAM", DEFAULT_RAM), *ignore = variable("CISTERN_IGNORE", "");
	size_t socket_len, ram_len = strlen(ram) + 1, ignore_len = strlen(ignore) + 1;
	int r;

	if (!c.socket) {
		*ret = c;
		return 0;
	}
	socket_len = strlen(c.socket) + 1;
	c.text = malloc(socket_len + ram_len + ignore_len);
	if (!c.text)
		return cis_fail(err, ENOMEM, "out of memory");
	memcpy(c.text, c.socket, socket_len);
	memcpy(c.text + socket_len, ram, ram_len);
	memcpy(c.text + socket_len + ram_len, ignore, ignore_len);
	c.socket = c.text;
	r = parse_mode(getenv("CISTERN_MODE"), &c.mode, err);
	if (!r)
		r = split(c.text + socket_len, "CISTERN_RAM", c.ram, &c.nr_ram, err);
	if (!r)
		r = split(c.text + socket_len + ram_len, "CISTERN_IGNORE", c.ignore, &c.nr_ignore, err);
	if (!r && !c.nr_ram)
		r = cis_fail(err, EINVAL, "CISTERN_RAM names no block");
	if (r) {
		free(c.text);
		return r;
	}
	*ret = c;
	return 0;
}

/* The arguments, each ended by a zero byte; cut off where there is no more room, which only makes the check stricter. */
static size_t read_arguments(char *buf, size_t room)
{
	FILE *file = fopen("/proc/self/cmdline", "re");
	size_t len = file ? fread(buf, 1, room - 1, file) : 0;

	if (file)
		fclose(file);
	buf[len] = 0;
	return len;
}

static bool has_argument(const char *args, size_t len, const char *part)
{
	for (const char *at = args; at < args + len; at += strlen(at) + 1)
		if (strstr(at, part))
			return true;
	return false;
}

int cis_preload_check_arguments(const struct cis_preload_config *config, struct cis_error *err)
{
	static char args[128 * 1024];
	size_t len = read_arguments(args, sizeof(args));

	if (has_argument(args, len, "-readconfig"))
		return 0;
	for (size_t i = 0; i < config->nr_ram; i++) {
		const char *want = strncmp(config->ram[i], "memfd:", 6) ? config->ram[i] : "memory-backend-memfd";

		if (!has_argument(args, len, want))
			return cis_fail(err, EINVAL, "no argument of QEMU names '%s', so its RAM would stay empty: give it a memory "
					"backend (-object memory-backend-file or memory-backend-memfd) and name that in CISTERN_RAM",
					want);
	}
	return 0;
}

void cis_preload_file_name(int fd, char *buf, size_t room)
{
	char link[32];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, buf, room - 1);
	buf[n > 0 ? n : 0] = 0;
}

/* /proc shows a memfd as "/memfd:NAME (deleted)", and QEMU's file in a folder, which it unlinks, as "FOLDER/qemu... (deleted)". */
bool cis_preload_names(const char *name, int fd)
{
	char shown[4096], wanted[300];
	struct stat theirs, named;

	cis_preload_file_name(fd, shown, sizeof(shown));
	if (!strncmp(name, "memfd:", 6)) {
		snprintf(wanted, sizeof(wanted), "/%s (deleted)", name);
		return !strcmp(shown, wanted);
	}
	if (stat(name, &named) || fstat(fd, &theirs))
		return false;
	if (!S_ISDIR(named.st_mode))
		return named.st_dev == theirs.st_dev && named.st_ino == theirs.st_ino;
	char *folder = realpath(name, NULL);
	size_t len = folder ? strlen(folder) : 0;
	bool inside = len && !strncmp(shown, folder, len) && (shown[len] == '/' || folder[len - 1] == '/');

	free(folder);
	return inside;
}
