/* What libcistern-preload is asked for by the environment is understood or refused with the reason, and names the files that it means. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/preload_config.h"

static char folder[] = "/tmp/cis-preload-XXXXXX", other[] = "/tmp/cis-preload-XXXXXX";

static int setup(void **state)
{
	return mkdtemp(folder) && mkdtemp(other) ? 0 : -1;
}

static int teardown(void **state)
{
	return rmdir(folder) || rmdir(other);
}

/* NULL: is not there. */
static void environment(const char *socket, const char *ram, const char *ignore, const char *mode)
{
	const char *const all[][2] = { { "CISTERN_SOCKET", socket }, { "CISTERN_RAM", ram }, { "CISTERN_IGNORE", ignore },
				       { "CISTERN_MODE", mode } };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i][1])
			setenv(all[i][0], all[i][1], 1);
		else
			unsetenv(all[i][0]);
}

static void test_lists_are_split(void **state)
{
	struct cis_preload_config c;

	environment("/s", "/a,,memfd:b", "/c", "shared");
	assert_int_equal(cis_preload_config_read(&c, NULL), 0);
	assert_string_equal(c.socket, "/s");
	assert_int_equal(c.mode, CIS_PRELOAD_SHARED);
	assert_int_equal(c.nr_ram, 2);
	assert_string_equal(c.ram[0], "/a");
	assert_string_equal(c.ram[1], "memfd:b");
	assert_int_equal(c.nr_ignore, 1);
	assert_string_equal(c.ignore[0], "/c");
	free(c.text);
	environment("/s", "", NULL, "");
	assert_int_equal(cis_preload_config_read(&c, NULL), 0);
	assert_int_equal(c.mode, CIS_PRELOAD_AS_MAPPED);
	assert_int_equal(c.nr_ram, 1);
	assert_string_equal(c.ram[0], "memfd:memory-backend-memfd");
	assert_int_equal(c.nr_ignore, 0);
	free(c.text);
}

static void test_without_a_socket_nothing_is_read(void **state)
{
	struct cis_preload_config c;

	environment(NULL, ",", NULL, "nonsense");
	assert_int_equal(cis_preload_config_read(&c, NULL), 0);
	assert_null(c.socket);
}

static void refused(const char *why)
{
	struct cis_preload_config c;
	struct cis_error err;

	assert_int_equal(cis_preload_config_read(&c, &err), -EINVAL);
	assert_string_equal(err.text, why);
}

static void test_what_makes_no_sense_is_refused(void **state)
{
	environment("/s", ",", NULL, NULL);
	refused("CISTERN_RAM names no block");
	environment("/s", "1,2,3,4,5,6,7,8,9", NULL, NULL);
	refused("CISTERN_RAM names more than 8 blocks");
	environment("/s", "/a", "1,2,3,4,5,6,7,8,9", NULL);
	refused("CISTERN_IGNORE names more than 8 blocks");
	environment("/s", "/a", NULL, "private");
	refused("CISTERN_MODE is 'private': use anonymous or shared");
}

static void test_files_are_known_by_what_they_are(void **state)
{
	char path[64], link[64], name[64];
	int fd;

	snprintf(path, sizeof(path), "%s/ram", folder);
	snprintf(link, sizeof(link), "%s/link", folder);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && !symlink(path, link));
	assert_true(cis_preload_names(path, fd));
	assert_true(cis_preload_names(link, fd));
	assert_true(cis_preload_names(folder, fd));
	assert_false(cis_preload_names(other, fd));
	assert_false(cis_preload_names("/nowhere", fd));
	assert_false(cis_preload_names("memfd:ram", fd));
	assert_false(cis_preload_names(path, -1));
	unlink(link);
	unlink(path);
	assert_true(cis_preload_names(folder, fd)); /* as QEMU's are in a folder */
	close(fd);
	fd = memfd_create("ram", MFD_CLOEXEC);
	assert_true(cis_preload_names("memfd:ram", fd));
	assert_false(cis_preload_names("memfd:ra", fd));
	assert_false(cis_preload_names(folder, fd));
	cis_preload_file_name(fd, name, sizeof(name));
	assert_string_equal(name, "/memfd:ram (deleted)");
	close(fd);
	cis_preload_file_name(-1, name, sizeof(name));
	assert_string_equal(name, "");
}

/* Return: what cis_preload_check_arguments() says in a process with this argument, which main() asks there. */
static int check(const char *argument)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		execl("/proc/self/exe", "test", "--check", argument, NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_arguments_name_the_ram(void **state)
{
	environment("/s", "memfd:x,/dev/shm/ram", NULL, NULL);
	assert_int_equal(check("memory-backend-memfd,x=/dev/shm/ram"), 0);
	assert_int_equal(check("-readconfig"), 0); /* it may stand there */
	assert_int_equal(check("memory-backend-memfd"), EINVAL);
	assert_int_equal(check("/dev/shm/ram"), EINVAL);
}

static int check_here(void)
{
	struct cis_preload_config c;
	struct cis_error err;
	int rc;

	if (cis_preload_config_read(&c, &err))
		return 1;
	rc = cis_preload_check_arguments(&c, &err);
	free(c.text);
	return -rc;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists_are_split),
		cmocka_unit_test(test_without_a_socket_nothing_is_read),
		cmocka_unit_test(test_what_makes_no_sense_is_refused),
		cmocka_unit_test(test_files_are_known_by_what_they_are),
		cmocka_unit_test(test_arguments_name_the_ram),
	};

	if (argc > 1 && !strcmp(argv[1], "--check"))
		return check_here();
	check_native(argc, argv);
	return cmocka_run_group_tests(tests, setup, teardown);
}
