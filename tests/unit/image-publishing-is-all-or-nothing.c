/*
 * A write that fails at any point, or a writer that dies at any point, leaves the old file as it was and
 * nothing beside it.
 *
 * The limit of the size of files is what fails (the signal ignored) or kills (not ignored), at each 4 KiB in
 * turn.
 */
#include "image.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "image/trace.h"

#define NR 40

static uint8_t *old;
static size_t old_len;

static void limit(rlim_t bytes)
{
	struct rlimit now;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &now), 0);
	now.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
}

static unsigned files_in(const char *folder)
{
	DIR *d = opendir(folder);
	unsigned nr = 0;

	while (readdir(d))
		nr++;
	closedir(d);
	return nr - 2;
}

static void old_one_is_there(const char *path)
{
	size_t len;
	uint8_t *now = image_read_file(path, &len);

	assert_int_equal(len, old_len);
	assert_memory_equal(now, old, len);
	free(now);
}

static void prepare(void)
{
	uint8_t *mem = image_memory(NR, 6);
	struct cis_error err = { 0 };

	image_write_file(image_path("mem"), mem, NR * PAGE, false);
	assert_int_equal(
		image_create(image_path("mem"), image_path("img"), (struct cis_write_opts){ 0 }, &err), 0);
	old = image_read_file(image_path("img"), &old_len);
	free(mem);
}

static int write_it(struct cis_error *err)
{
	return image_create(image_path("mem"), image_path("img"),
			    (struct cis_write_opts){
				    .codec = CIS_CODEC_LZ4, .workers = 2, .state = "x", .state_bytes = 1 },
			    err);
}

static void failing_writes(void **state)
{
	size_t fds = check_open_fds();
	unsigned failures = 0;
	int rc;

	prepare();
	signal(SIGXFSZ, SIG_IGN);
	do {
		struct cis_error err = { 0 };

		limit(failures * PAGE);
		rc = write_it(&err);
		limit(RLIM_INFINITY);
		assert_int_equal(files_in(image_folder), 2);
		assert_int_equal(check_open_fds(), fds);
		if (rc) {
			assert_int_equal(rc, -EFBIG);
			assert_non_null(strstr(err.text, image_path("img")));
			old_one_is_there(image_path("img"));
			failures++;
		}
	} while (rc);
	assert_true(failures > 5);
	cis_image_unref(image_open(image_path("img")));
	free(old);
}

/* A child of ours dies of the signal in the middle of a write. */
static bool survives(unsigned pages)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct rlimit none = { 0 };

		signal(SIGXFSZ, SIG_DFL);
		setrlimit(RLIMIT_CORE, &none);
		limit(pages * PAGE);
		_exit(write_it(NULL) ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) || WTERMSIG(status) == SIGXFSZ);
	return WIFEXITED(status);
}

static void dying_writers(void **state)
{
	unsigned deaths = 0;

	prepare();
	while (!survives(deaths)) {
		deaths++;
		old_one_is_there(image_path("img"));
		assert_int_equal(files_in(image_folder), 2);
	}
	assert_true(deaths > 5);
	cis_image_unref(image_open(image_path("img")));
	free(old);
}

static void exports_and_traces_too(void **state)
{
	uint32_t pages[3000] = { 0 };
	struct cis_trace trace = { .page_shift = 12, .guest_bytes = 3000 * PAGE, .nr = 3000, .pgno = pages };
	struct cis_error err = { 0 };

	prepare();
	signal(SIGXFSZ, SIG_IGN);
	image_write_file(image_path("out"), old, old_len, false);
	struct cis_image *img = image_open(image_path("img"));

	limit(2 * PAGE);
	assert_int_equal(cis_image_export(img, image_path("out"), NULL, NULL, &err), -EFBIG);
	assert_int_equal(cis_trace_save(image_path("out"), &trace, &err), -EFBIG);
	limit(RLIM_INFINITY);
	old_one_is_there(image_path("out"));
	assert_int_equal(files_in(image_folder), 3);
	cis_image_unref(img);
	free(old);
}

static void odd_targets(void **state)
{
	struct cis_error err = { 0 };
	struct stat st;

	prepare();
	assert_int_equal(image_create(image_path("mem"), image_folder, (struct cis_write_opts){ 0 }, &err),
			 -EISDIR);
	assert_int_equal(image_create(image_path("mem"), "/dev/null", (struct cis_write_opts){ 0 }, &err),
			 -EINVAL);
	assert_int_equal(stat("/dev/null", &st), 0);
	assert_true(S_ISCHR(st.st_mode));
	assert_int_equal(image_create(image_path("mem"), "/nowhere/img", (struct cis_write_opts){ 0 }, &err),
			 -ENOENT);
	assert_int_equal(image_create(image_path("mem"), "", (struct cis_write_opts){ 0 }, &err), -EINVAL);
	assert_int_equal(image_create(image_folder, image_path("img"), (struct cis_write_opts){ 0 }, &err),
			 -EISDIR);
	old_one_is_there(image_path("img"));
	free(old);
}

/* In a mount of our own, where there is one. */
static void full_disk(void **state)
{
	struct cis_error err = { 0 };
	char folder[100], path[120];

	prepare();
	snprintf(folder, sizeof(folder), "%s/full", image_folder);
	snprintf(path, sizeof(path), "%s/img", folder);
	if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) {
		print_message("no mount namespace: %s\n", strerror(errno));
		free(old);
		skip();
	}
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("none", folder, "tmpfs", 0, "size=64k"), 0);
	image_write_file(path, (const uint8_t *)"old", 3, false);
	assert_int_equal(image_create(image_path("mem"), path, (struct cis_write_opts){ 0 }, &err), -ENOSPC);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(files_in(folder), 1);
	assert_int_equal(umount2(folder, MNT_DETACH), 0);
	assert_int_equal(rmdir(folder), 0);
	free(old);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failing_writes),
		cmocka_unit_test(dying_writers),
		cmocka_unit_test(exports_and_traces_too),
		cmocka_unit_test(odd_targets),
		cmocka_unit_test(full_disk),
	};

	return cmocka_run_group_tests(tests, image_setup, image_teardown);
}
