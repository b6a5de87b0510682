/*
 * The conformance kit against a server of a hundred lines: whatever is served right passes, and whatever is
 * not is found.
 *
 * The handshake that it sends is read by the daemon's own parser, so the two are tested against each other.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/pidfd.h"
#include "os/sock.h"
#include "os/uffd.h"
#include "vmm/handshake.h"

#define PAGES 256u
#define PAGE  4096u

static const char *fakevmm;
static char dir[64], path[96], memory[96], order[96];

/** struct server - one guest's; what it does wrong is chosen by the test */
struct server {
	int listen, sock, uffd, pidfd;
	struct cis_handshake *hs;
	struct cis_guest_layout *lay;
	struct cis_guest_memory mem;
	int fds[16];
	size_t nr_fds;
	bool removed[PAGES];
	uint64_t touched[4 * PAGES];
	size_t nr_touched, nr_removes;
	/* faults that could not be answered while events were waiting */
	uint64_t put_off[4 * PAGES];
	size_t nr_put_off;
	bool forget_removes, lose_writes;
	int64_t wrong_page, poison_page, hold_page;
};

static struct server srv;
static uint8_t image[PAGES][PAGE];

/* Every page differs from every other; every fourth is zeros. */
static int make_image(void)
{
	int fd;

	for (unsigned p = 0; p < PAGES; p++)
		for (unsigned i = 0; i < PAGE; i++)
			image[p][i] = p % 4 == 3 ? 0 : (uint8_t)(p * 31 + i * 7 + (i >> 8) + 1);
	fd = open(memory, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, image, sizeof(image)) != sizeof(image))
		return -1;
	return close(fd);
}

static int set_up(void **state)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;

	memset(&srv, 0, sizeof(srv));
	srv.sock = srv.pidfd = -1;
	srv.wrong_page = srv.poison_page = srv.hold_page = -1;
	strcpy(dir, "/tmp/cis-fakevmm-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(memory, sizeof(memory), "%s/memory", dir);
	snprintf(order, sizeof(order), "%s/order", dir);
	return make_image() || cis_sock_listen(path, &opts, &srv.listen, NULL);
}

static void forget_guest(void)
{
	cis_handshake_destroy(srv.hs);
	cis_fds_close(srv.fds, srv.nr_fds);
	if (srv.sock >= 0)
		close(srv.sock);
	if (srv.pidfd >= 0)
		close(srv.pidfd);
	srv.hs = NULL;
	srv.lay = NULL;
	srv.nr_fds = srv.nr_touched = srv.nr_removes = srv.nr_put_off = 0;
	srv.sock = srv.pidfd = -1;
	memset(srv.removed, 0, sizeof(srv.removed));
}

static int tear_down(void **state)
{
	forget_guest();
	close(srv.listen);
	unlink(path);
	unlink(memory);
	unlink(order);
	return rmdir(dir);
}

/** struct run - a running cistern-fakevmm */
struct run {
	pid_t pid;
	int in, out, status;
	char text[65536];
	size_t len;
};

static struct run run;

/* @args: words, blanks between; %M is the memory file, %O the order file. */
static void start(const char *args)
{
	char copy[1024], *at = copy, *word, *argv[64] = { (char *)fakevmm };
	int in[2], out[2], argc = 1;

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	strcpy(copy, args);
	while ((word = strsep(&at, " ")))
		if (*word)
			argv[argc++] = !strcmp(word, "%M") ? memory : !strcmp(word, "%O") ? order : word;
	argv[argc++] = path;
	argv[argc] = NULL;
	memset(&run, 0, sizeof(run));
	fflush(NULL);
	run.pid = fork();
	if (!run.pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		cis_fds_close((int[]){ in[0], in[1], out[0], out[1] }, 4);
		execv(fakevmm, argv);
		_exit(99);
	}
	close(in[0]);
	close(out[1]);
	run.in = in[1];
	run.out = out[0];
	assert_int_equal(cis_pidfd_open(run.pid, &srv.pidfd), 0);
}

static void collect(void)
{
	ssize_t n;

	while ((n = read(run.out, run.text + run.len, sizeof(run.text) - 1 - run.len)) > 0)
		run.len += (size_t)n;
	run.text[run.len] = 0;
	assert_int_equal(waitpid(run.pid, &run.status, 0), run.pid);
	assert_true(WIFEXITED(run.status));
	run.status = WEXITSTATUS(run.status);
	close(run.in);
	close(run.out);
}

static uint64_t figure(const char *name)
{
	char key[64];
	const char *at;

	snprintf(key, sizeof(key), "\"%s\":", name);
	at = strstr(run.text, key);
	if (!at)
		fail_msg("%s is not in %s", name, run.text);
	return strtoull(at + strlen(key), NULL, 10);
}

/*
 * Accept and read until the handshake is complete or refused.  Return: 0, or -errno with the reason in @err.
 */
static int hear(struct cis_error *err)
{
	struct pollfd l = { .fd = srv.listen, .events = POLLIN };
	bool done = false;
	int r = 0;

	assert_int_equal(poll(&l, 1, 20000), 1);
	assert_int_equal(cis_sock_accept(srv.listen, &srv.sock), 0);
	assert_int_equal(cis_handshake_create(&srv.hs), 0);
	while (!done && !r) {
		struct pollfd p = { .fd = srv.sock, .events = POLLIN };
		char buf[4096];
		size_t nr, len;

		assert_int_equal(poll(&p, 1, 20000), 1);
		r = cis_sock_recv(srv.sock, buf, sizeof(buf), srv.fds + srv.nr_fds, 8 - srv.nr_fds, &nr,
				  &len);
		if (r)
			return cis_fail(err, -r, "receiving: %s", strerror(-r));
		srv.nr_fds += nr;
		r = len ? cis_handshake_feed(srv.hs, buf, len, &done, err) : cis_handshake_end(srv.hs, err);
	}
	if (r)
		return r;
	srv.lay = cis_handshake_layout(srv.hs);
	return cis_guest_take_fds(srv.lay, srv.fds, srv.nr_fds, &srv.mem, err);
}

static uint64_t page_of(uint64_t hva)
{
	for (size_t i = 0; i < srv.lay->nr_regions; i++) {
		const struct cis_guest_region *r = &srv.lay->regions[i];

		if (hva >= r->hva && hva - r->hva < r->bytes && (hva - r->hva + r->offset) / PAGE < PAGES)
			return (hva - r->hva + r->offset) / PAGE;
	}
	fail_msg("0x%llx is in no page", (unsigned long long)hva);
	return 0;
}

static int install(uint64_t hva)
{
	static const uint8_t zeros[PAGE];
	uint64_t p = page_of(hva), done;
	uint8_t page[PAGE];

	if ((int64_t)p == srv.poison_page)
		return cis_uffd_poison(srv.mem.uffd, hva, PAGE, &done);
	memcpy(page, srv.removed[p] ? zeros : image[p], PAGE);
	if ((int64_t)p == srv.wrong_page)
		page[100] ^= 1;
	return cis_uffd_copy(srv.mem.uffd, hva, page, PAGE, &done);
}

static void answer(uint64_t hva)
{
	int r = install(hva);

	if (r == -EAGAIN || (int64_t)page_of(hva) == srv.hold_page)
		srv.put_off[srv.nr_put_off++] = hva;
	else if (r == -EEXIST)
		cis_uffd_wake(srv.mem.uffd, hva, PAGE);
	else if (r != -ESRCH && r != -ENOENT)
		assert_int_equal(r, 0);
}

/* The page that was touched before this one is as it was in the image again. */
static void lose_writes(void)
{
	uint64_t page = srv.nr_touched ? srv.touched[srv.nr_touched - 1] : 0;

	if (srv.lose_writes && fallocate(srv.mem.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(page * PAGE), PAGE))
		fail_msg("page %llu cannot be punched", (unsigned long long)page);
}

static void take_event(const struct uffd_msg *msg)
{
	if (msg->event == UFFD_EVENT_REMOVE) {
		srv.nr_removes++;
		for (uint64_t hva = msg->arg.remove.start; hva < msg->arg.remove.end; hva += PAGE)
			srv.removed[page_of(hva)] = !srv.forget_removes;
	} else if (msg->event == UFFD_EVENT_PAGEFAULT) {
		uint64_t hva = msg->arg.pagefault.address & ~(uint64_t)(PAGE - 1);

		lose_writes();
		if (srv.nr_touched < 4 * PAGES)
			srv.touched[srv.nr_touched++] = page_of(hva);
		srv.put_off[srv.nr_put_off++] = hva;
	}
}

/* One round: take all events, then answer.  Return: false when the guest's process has ended. */
static bool serve_round(void)
{
	struct pollfd p[2] = { { .fd = srv.mem.uffd, .events = POLLIN },
			       { .fd = srv.pidfd, .events = POLLIN } };
	uint64_t again[4 * PAGES];
	struct uffd_msg msg;
	size_t n, nr;

	assert_true(poll(p, 2, srv.nr_put_off ? 1 : 20000) >= 0);
	if (p[1].revents)
		return false;
	while (!cis_uffd_read(srv.mem.uffd, &msg, 1, &n))
		take_event(&msg);
	nr = srv.nr_put_off;
	memcpy(again, srv.put_off, nr * sizeof(again[0]));
	srv.nr_put_off = 0;
	for (size_t i = 0; i < nr; i++)
		if ((int64_t)page_of(again[i]) == srv.hold_page)
			srv.put_off[srv.nr_put_off++] = again[i];
		else
			answer(again[i]);
	return true;
}

static void play(const char *args)
{
	struct cis_error err = { 0 };

	start(args);
	if (hear(&err))
		fail_msg("%s: %s", args, err.text);
	if (srv.lay->ack)
		assert_int_equal(cis_sock_send_all(srv.sock, "k", 1, NULL, 0), 0);
	while (serve_round())
		;
	collect();
}

static void plays_well(const char *args)
{
	play(args);
	if (run.status || figure("wrong_pages") || figure("poisoned"))
		fail_msg("%s: %d %s", args, run.status, run.text);
}

static void test_every_version_every_byte(void **state)
{
	for (unsigned v = 1; v <= 17; v++) {
		char args[160];

		snprintf(args, sizeof(args),
			 "--json --timeout 20 --expect %%M --handshake v1.%u --fragment %u --regions %u", v,
			 1 + v * 13, 1 + v % 9);
		plays_well(args);
		assert_int_equal(figure("touched"), PAGES);
		assert_int_equal(figure("verified"), PAGES);
		assert_int_equal(srv.lay->nr_regions, 1 + v % 9);
		assert_int_equal(srv.lay->bytes, PAGES * PAGE);
		assert_int_equal(srv.mem.features, UFFD_FEATURE_EVENT_REMOVE);
		forget_guest();
	}
}

static void test_every_kind_of_memory(void **state)
{
	static const char *const kinds[] = { "anonymous", "memfd", "private" };

	for (unsigned i = 0; i < 3; i++) {
		char args[200];

		snprintf(args, sizeof(args),
			 "--json --timeout 20 --client --expect %%M --memory %s --regions 100K,900K,24K "
			 "--threads 3 --order random --seed %u",
			 kinds[i], i);
		plays_well(args);
		assert_int_equal(srv.lay->kind, i);
		assert_int_equal(srv.mem.memfd >= 0, i > 0);
		assert_int_equal(srv.lay->nr_regions, 3);
		forget_guest();
	}
}

static void test_writes_are_kept(void **state)
{
	plays_well("--json --timeout 20 --expect %M --do "
		   "write:10-99,verify,remove:20-29,verify,write:25,verify --threads 2");
	assert_int_equal(figure("writes"), 91);
	assert_int_equal(figure("pages_removed"), 10);
	assert_int_equal(figure("verified"), 3 * PAGES);
	assert_int_equal(srv.nr_removes, 1);
}

static void test_one_wrong_byte_is_found(void **state)
{
	srv.wrong_page = 77;
	play("--json --timeout 20 --expect %M --threads 2");
	assert_int_equal(run.status, 1);
	assert_int_equal(figure("wrong_pages"), 1);
	assert_int_equal(figure("wrong_bytes"), 1);
	assert_int_equal(figure("page"), 77);
	assert_int_equal(figure("at"), 100);
}

static void test_a_dropped_remove_is_found(void **state)
{
	srv.forget_removes = true;
	play("--json --timeout 20 --expect %M --do read,remove:40-49,read");
	assert_int_equal(run.status, 1);
	assert_int_equal(figure("wrong_pages"), 8); /* two of the ten were zeros anyway */
}

static void test_churned_pages_are_known_whole(void **state)
{
	plays_well("--json --timeout 20 --expect %M --memory memfd --threads 3 --do churn:500,verify,&churn:200,&storm:50,join,verify");
	assert_in_range(figure("reads"), 3 * 700 + 2 * PAGES, 3 * 700 + 2 * PAGES);
	assert_true(figure("writes") > 1000);
	forget_guest();
	srv.forget_removes = true;
	play("--json --timeout 20 --expect %M --memory memfd --do churn:1000");
	assert_int_equal(run.status, 1);
	forget_guest();
	srv.forget_removes = false;
	srv.lose_writes = true;
	play("--json --timeout 20 --expect %M --memory memfd --do churn:1000");
	assert_int_equal(run.status, 1);
	assert_true(figure("wrong_pages") > 10);
}

static void test_storms_of_removes(void **state)
{
	plays_well("--json --timeout 20 --expect %M --do "
		   "&storm:300,read,verify,&storm:300,&write,verify,join,verify --threads 2");
	assert_int_equal(figure("removes"), 600);
	assert_int_equal(srv.nr_removes, 600);
}

static void test_the_old_way_to_give_back(void **state)
{
	plays_well("--json --timeout 20 --expect %M --handshake v1.10 --do read,remove:8-15,verify");
	assert_int_equal(srv.nr_removes, 0);
}

static void test_poisoned_pages_are_counted(void **state)
{
	uint64_t features;

	assert_int_equal(cis_uffd_features(&features), 0);
	if (!(features & UFFD_FEATURE_POISON))
		skip();
	srv.poison_page = 5;
	play("--json --timeout 20 --expect %M");
	assert_int_equal(run.status, 1);
	assert_int_equal(figure("poisoned"), 1);
	assert_int_equal(figure("touched"), PAGES - 1);
}

static void write_order(const char *text)
{
	int fd = open(order, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void test_orders(void **state)
{
	static const uint64_t listed[] = { 9, 200, 3, 4 };

	write_order("9\n200\n3\n4\n17\n");
	plays_well("--json --timeout 20 --expect %M --order %O --pages 4");
	assert_int_equal(srv.nr_touched, 4);
	assert_memory_equal(srv.touched, listed, sizeof(listed));
	forget_guest();
	plays_well("--json --timeout 20 --expect %M --order reverse");
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(srv.touched[i], PAGES - 1 - i);
	forget_guest();
	plays_well("--json --timeout 20 --expect %M --order random --seed 7");
	assert_int_equal(srv.nr_touched, PAGES);
}

static void expect_line(const char *line)
{
	char got[128] = "";
	size_t n = 0;

	while (n + 1 < sizeof(got) && read(run.out, got + n, 1) == 1 && got[n] != '\n')
		n++;
	got[n] = 0;
	assert_string_equal(got, line);
}

static void say(const char *line)
{
	assert_int_equal(write(run.in, line, strlen(line)), strlen(line));
}

/* A page is given back while its fault is held: what is answered then must be zeros. */
static void test_a_forced_race(void **state)
{
	start("--json --timeout 20 --expect %M --do -");
	assert_int_equal(hear(NULL), 0);
	srv.hold_page = 50;
	say("&read:50\n");
	expect_line("done &read:50");
	while (!srv.nr_touched)
		assert_true(serve_round());
	say("&remove:50\n");
	expect_line("done &remove:50");
	while (!srv.nr_removes)
		assert_true(serve_round());
	srv.hold_page = -1;
	say("join\n");
	while (srv.nr_put_off)
		assert_true(serve_round());
	expect_line("done join");
	say("read:50\n");
	close(run.in);
	run.in = dup(0);
	while (serve_round())
		;
	collect();
	assert_int_equal(run.status, 0);
	assert_int_equal(figure("wrong_pages"), 0);
	assert_int_equal(figure("verified"), 2);
}

static void test_steps(void **state)
{
	static const char *const points[] = { "at memory", "at connect", "at half", "at handshake" };

	start("--json --step --timeout 20 --size 1M --pages 3");
	for (unsigned i = 0; i < 4; i++) {
		expect_line(points[i]);
		say("\n");
	}
	assert_int_equal(hear(NULL), 0);
	expect_line("at read");
	say("\n");
	while (srv.nr_touched < 3)
		assert_true(serve_round());
	expect_line("at actions");
	say("\n");
	collect();
	assert_int_equal(run.status, 0);
	assert_int_equal(figure("touched"), 3);
}

static void test_exit_at_every_point(void **state)
{
	static const char *const points[] = { "memory", "connect", "half", "handshake", "actions", "100" };

	for (unsigned i = 0; i < 6; i++) {
		struct cis_error err = { 0 };
		char args[64];

		snprintf(args, sizeof(args), "--size 1M --timeout 20 --exit-after %s", points[i]);
		start(args);
		if (i == 1 || i == 2)
			assert_int_equal(hear(&err), -EPROTO);
		else if (i)
			assert_int_equal(hear(&err), 0);
		while (i > 2 && serve_round())
			;
		collect();
		assert_int_equal(run.status, 0);
		assert_int_equal(run.len, 0);
		if (i == 5)
			assert_in_range(srv.nr_touched, 100, 101);
		forget_guest();
	}
}

static void test_hanging_is_ended_by_the_timeout(void **state)
{
	struct cis_error err;

	start("--size 1M --hang-after half --timeout 1");
	assert_int_equal(hear(&err), -EPROTO); /* when it is over, the stream ends */
	collect();
	assert_int_equal(run.status, 1);
}

/* Every way that it lists is refused by the daemon's parser, and the refusal is what it waits for. */
static void test_every_bad_way_is_refused(void **state)
{
	char *line, *at, list[65536];

	start("--list-bad");
	collect();
	assert_int_equal(run.status, 0);
	strcpy(list, run.text);
	close(srv.pidfd);
	srv.pidfd = -1;
	for (at = list; (line = strsep(&at, "\n")) && *line; forget_guest()) {
		struct cis_error err = { 0 };
		char args[128];
		bool is_right;

		line[strcspn(line, " ")] = 0;
		is_right = !strcmp(line, "nothing");
		snprintf(args, sizeof(args), "--json --timeout 20 --regions 2 --bad %s", line);
		start(args);
		if (!hear(&err) && !is_right && strcmp(line, "trailing") && strcmp(line, "twice"))
			fail_msg("%s was taken", line);
		close(srv.sock);
		srv.sock = -1;
		collect();
		if (run.status)
			fail_msg("%s: %s", line, run.text);
		assert_non_null(strstr(run.text, "\"refused\""));
	}
}

static void test_wrong_usage(void **state)
{
	static const char *const bad[] = { "--size 0",
					   "--size x",
					   "--regions 0",
					   "--threads 65",
					   "--handshake v2.0",
					   "--bad it",
					   "--nothing",
					   "--memory odd",
					   "--exit-after never",
					   "--size 8K --regions 3",
					   "--regions 5000,4096",
					   "another" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		start(bad[i]);
		collect();
		if (run.status != 2)
			fail_msg("%s: %d", bad[i], run.status);
		close(srv.pidfd);
		srv.pidfd = -1;
	}
}

int main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_every_version_every_byte),
		TEST(test_every_kind_of_memory),
		TEST(test_writes_are_kept),
		TEST(test_one_wrong_byte_is_found),
		TEST(test_a_dropped_remove_is_found),
		TEST(test_churned_pages_are_known_whole),
		TEST(test_storms_of_removes),
		TEST(test_the_old_way_to_give_back),
		TEST(test_poisoned_pages_are_counted),
		TEST(test_orders),
		TEST(test_a_forced_race),
		TEST(test_steps),
		TEST(test_exit_at_every_point),
		TEST(test_hanging_is_ended_by_the_timeout),
		TEST(test_every_bad_way_is_refused),
		TEST(test_wrong_usage),
	};
	int uffd, r = cis_uffd_open(0, &uffd);

	if (r)
		check_skip("no userfaultfd for this user or in this kernel");
	close(uffd);
	fakevmm = argv[1];
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
