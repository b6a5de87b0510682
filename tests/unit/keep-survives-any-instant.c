/*
 * The keeper is killed before its first system call, before its second, and so on until one has done all there is to do:
 * what it had told is told again by the keeper that follows, and the guest gets its page.
 *
 * This process is the service manager with the descriptor store, and the engines; a tracer counts the system calls.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/kcmp.h>

#include "daemon/keeper.h"
#include "daemon/keeper_link.h"
#include "os/memfd.h"
#include "os/pidfd.h"
#include "os/sock.h"
#include "os/uffd.h"

#define LISTENER 7
#define PATTERN	 0x5a
#define NAMES	 64
#define CONNS	 8
#define STATE	 8192

static char dir[64], notify_path[100], guest_path[108];

/* The descriptor store, as systemd keeps it. */
static struct {
	int sock;
	struct {
		char name[32];
		int fd;
	} names[NAMES];
	size_t nr, nr_messages;
} store;

static bool is_same(int a, int b)
{
	return !syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b);
}

static void store_add(const char *name, int fd)
{
	for (size_t i = 0; i < store.nr; i++)
		if (is_same(store.names[i].fd, fd)) {
			close(fd);
			return;
		}
	assert_true(store.nr < NAMES);
	snprintf(store.names[store.nr].name, sizeof(store.names[0].name), "%s", name);
	store.names[store.nr++].fd = fd;
}

static void store_remove(const char *name)
{
	for (size_t i = store.nr; i-- > 0;)
		if (!strcmp(store.names[i].name, name)) {
			close(store.names[i].fd);
			store.names[i] = store.names[--store.nr];
		}
}

static bool store_take(void)
{
	char text[512], name[32] = "";
	size_t nr_fds = 0, len = 0;
	int fds[4];

	if (cis_sock_recv(store.sock, text, sizeof(text) - 1, fds, 4, &nr_fds, &len))
		return false;
	text[len] = 0;
	store.nr_messages++;
	if (strstr(text, "FDNAME="))
		sscanf(strstr(text, "FDNAME=") + 7, "%31s", name);
	if (!strncmp(text, "FDSTORE=1\n", 10)) {
		assert_int_equal(nr_fds, 1);
		assert_non_null(strstr(text, "FDPOLL=0"));
		store_add(name, fds[0]);
	} else if (!strncmp(text, "FDSTOREREMOVE=1\n", 16)) {
		store_remove(name);
	}
	return true;
}

static bool store_has(const char *name)
{
	for (size_t i = 0; i < store.nr; i++)
		if (!strcmp(store.names[i].name, name))
			return true;
	return false;
}

/* The engine. */

struct seen {
	uint64_t id, listener;
	uint8_t bytes[16];
	size_t len, nr_fds;
	int fds[8], state_fd, pidfd;
	char note[32];
	bool asked, served, exited, released;
};

static struct {
	struct cis_keeper_link *link;
	struct seen conns[CONNS];
	size_t nr;
	bool listening, replayed, lost, refused;
} eng;

/* What a keeper has said, which every keeper after it has to know. */
static struct {
	bool listening;
	uint64_t whole, state; /* connections; 0: none */
} promised;

static struct seen *conn_of(uint64_t id)
{
	for (size_t i = 0; i < eng.nr; i++)
		if (eng.conns[i].id == id)
			return &eng.conns[i];
	return NULL;
}

static void on_listening(void *ctx, uint64_t id, const struct cis_wire_listen *listen, int error, const char *why)
{
	if (id != LISTENER) {
		eng.refused = true;
		return;
	}
	assert_int_equal(error, 0);
	assert_string_equal(listen->path, guest_path);
	assert_int_equal(listen->note_len, 5);
	assert_memory_equal(listen->note, "guest", 5);
	eng.listening = promised.listening = true;
}

static void on_connection(void *ctx, uint64_t conn, uint64_t listener, const struct cis_peer *peer, int pidfd)
{
	struct seen *s = &eng.conns[eng.nr++];

	assert_true(eng.nr <= CONNS);
	memset(s, 0, sizeof(*s));
	s->id = conn;
	s->listener = listener;
	s->pidfd = pidfd;
	s->state_fd = -1;
}

static void on_bytes(void *ctx, uint64_t conn, uint64_t at, const void *bytes, size_t len, const int *fds, size_t nr_fds)
{
	struct seen *s = conn_of(conn);

	assert_int_equal(at, s->len);
	assert_true(s->len + len <= 8 && s->nr_fds + nr_fds <= 2);
	memcpy(s->bytes + s->len, bytes, len);
	memcpy(s->fds + s->nr_fds, fds, nr_fds * sizeof(int));
	s->len += len;
	s->nr_fds += nr_fds;
	if (s->len == 8)
		promised.whole = conn;
}

static void on_broken(void *ctx, uint64_t conn, int error, const char *why)
{
	fail_msg("connection %llu is broken: %s", (unsigned long long)conn, why);
}

static void on_eof(void *ctx, uint64_t conn)
{
}

static void on_exited(void *ctx, uint64_t conn)
{
	conn_of(conn)->exited = true;
}

static void on_state(void *ctx, uint64_t conn, int error, int memfd, uint64_t bytes)
{
	struct seen *s = conn_of(conn);

	assert_int_equal(error, 0);
	assert_int_equal(bytes, STATE);
	if (s->state_fd >= 0)
		close(s->state_fd);
	s->state_fd = memfd;
}

static void on_replayed(void *ctx, uint64_t generation)
{
	eng.replayed = true;
}

static void on_stop(void *ctx)
{
}

static void on_lost(void *ctx)
{
	eng.lost = true;
}

static void on_noted(void *ctx, uint64_t conn, const void *note, size_t len)
{
	snprintf(conn_of(conn)->note, 32, "%.*s", (int)len, (const char *)note);
}

static const struct cis_keeper_link_ops ops = {
	.listening = on_listening, .connection = on_connection, .bytes = on_bytes, .broken = on_broken, .eof = on_eof,
	.exited = on_exited, .state = on_state, .replayed = on_replayed, .stop = on_stop, .lost = on_lost, .noted = on_noted,
};

static void engine_start(int wire)
{
	struct cis_wire_hello hello = { .wire = CIS_WIRE_VERSION, .layout_min = 1, .layout_max = 1, .version = "test" };

	memset(&eng, 0, sizeof(eng));
	assert_int_equal(cis_keeper_link_create(wire, &ops, NULL, &eng.link), 0);
	cis_keeper_link_hello(eng.link, &hello); /* the keeper may be dead already */
}

static void engine_end(void)
{
	cis_keeper_link_destroy(eng.link);
	for (size_t i = 0; i < eng.nr; i++) {
		cis_fds_close(eng.conns[i].fds, eng.conns[i].nr_fds);
		if (eng.conns[i].state_fd >= 0)
			close(eng.conns[i].state_fd);
		if (eng.conns[i].pidfd >= 0)
			close(eng.conns[i].pidfd);
	}
	eng.link = NULL;
	eng.nr = 0;
}

static void fail_stuck(void)
{
	for (size_t i = 0; i < store.nr; i++)
		print_message("stored: %s\n", store.names[i].name);
	for (size_t i = 0; i < eng.nr; i++)
		print_message("connection %llu: %zu bytes, %zu descriptors, exited %d, released %d, served %d\n",
			      (unsigned long long)eng.conns[i].id, eng.conns[i].len, eng.conns[i].nr_fds, eng.conns[i].exited,
			      eng.conns[i].released, eng.conns[i].served);
	fail_msg("nothing comes any more");
}

/* Takes what the keeper says and what it stores, one thing or more.  Return: false when it is dead and all was heard. */
static bool pump(void)
{
	struct pollfd p[2] = { { .fd = store.sock, .events = POLLIN },
			       { .fd = eng.lost ? -1 : cis_keeper_link_fd(eng.link), .events = POLLIN } };

	if (poll(p, 2, eng.lost ? 0 : 10000) <= 0 && !eng.lost)
		fail_stuck();
	while (store_take())
		;
	if (!eng.lost)
		cis_keeper_link_run(eng.link, 1);
	return !eng.lost;
}

/* Keepers. */

static void be_keeper(int wire, bool traced)
{
	char names[NAMES * 33] = "", text[16];
	struct cis_keeper *k;
	size_t nr = store.nr;
	int fds[NAMES];

	if (traced && (ptrace(PTRACE_TRACEME, 0, NULL, NULL) || raise(SIGSTOP)))
		_exit(99);
	for (size_t i = 0; i < nr; i++) {
		fds[i] = fcntl(store.names[i].fd, F_DUPFD, 200);
		snprintf(names + strlen(names), 34, "%s%s", i ? ":" : "", store.names[i].name);
	}
	wire = fcntl(wire, F_DUPFD, 200);
	for (size_t i = 0; i < nr; i++)
		if (dup2(fds[i], 3 + (int)i) < 0)
			_exit(98);
	if (wire < 0 || dup2(wire, 3 + (int)nr) < 0 || syscall(SYS_close_range, 4 + nr, ~0u, 0))
		_exit(97);
	snprintf(text, sizeof(text), "%zu", nr);
	setenv("LISTEN_FDS", text, 1);
	snprintf(text, sizeof(text), "%d", getpid());
	setenv("LISTEN_PID", text, 1);
	setenv("LISTEN_FDNAMES", names, 1);
	setenv("NOTIFY_SOCKET", notify_path, 1);
	if (cis_keeper_create(&k, NULL) || cis_keeper_gather(k, &(struct cis_keep_opts){ 0 }, NULL) ||
	    cis_keeper_attach(k, 3 + (int)nr, NULL))
		_exit(96);
	while (!cis_keeper_step(k))
		;
	_exit(95);
}

/* Kills its child before system call number @last. */
static void be_tracer(int wire, unsigned last)
{
	pid_t keeper = fork();
	unsigned nr = 0;
	bool inside = false;
	int status;

	if (!keeper)
		be_keeper(wire, true);
	syscall(SYS_close_range, 3, ~0u, 0);
	if (waitpid(keeper, &status, 0) != keeper || !WIFSTOPPED(status) ||
	    ptrace(PTRACE_SETOPTIONS, keeper, NULL, (void *)(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)))
		_exit(3);
	for (int sig = 0;;) {
		if (ptrace(PTRACE_SYSCALL, keeper, NULL, (void *)(long)sig) || waitpid(keeper, &status, 0) != keeper)
			_exit(4);
		if (!WIFSTOPPED(status))
			_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 5);
		sig = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
		if (sig)
			continue;
		inside = !inside;
		if (inside && ++nr == last)
			break;
	}
	kill(keeper, SIGKILL);
	waitpid(keeper, &status, 0);
	_exit(0);
}

/* @last 0: not traced.  Return: the process to wait for. */
static pid_t keeper_start(unsigned last)
{
	int pair[2];
	pid_t pid;

	assert_int_equal(cis_sock_pair(SOCK_SEQPACKET, pair), 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		close(pair[1]);
		if (last)
			be_tracer(pair[0], last);
		be_keeper(pair[0], false);
	}
	close(pair[0]);
	engine_start(pair[1]);
	return pid;
}

/* The guest: hands over in two parts, waits for the word, reads its page.  Status: how often it had to connect again. */
static int be_guest(int go)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), byte;
	int uffd, memfd, sock, fds[2];

	if (page == MAP_FAILED || cis_uffd_open(0, &uffd) || cis_memfd_create("of-the-guest", 4096, 4096, &memfd) ||
	    cis_uffd_register(uffd, (uintptr_t)page, 4096, UFFDIO_REGISTER_MODE_MISSING) || read(go, &byte, 1) != 1)
		return 100;
	fds[0] = uffd;
	fds[1] = memfd;
	for (int again = 0; again < 5; again++) {
		if (cis_sock_connect(guest_path, SOCK_STREAM, &sock, NULL))
			return 101;
		if (!cis_sock_send_all(sock, &page, 3, fds, 2) && !cis_sock_send_all(sock, (char *)&page + 3, 5, NULL, 0) &&
		    recv(sock, &byte, 1, 0) == 1)
			return byte != 'k' ? 102 : *(volatile char *)page == PATTERN ? again : 103;
		close(sock);
	}
	return 104;
}

static pid_t guest_start(int *ret_go)
{
	int go[2];
	pid_t pid;

	assert_int_equal(pipe(go), 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		dup2(go[0], 3);
		syscall(SYS_close_range, 4, ~0u, 0);
		_exit(be_guest(3));
	}
	close(go[0]);
	*ret_go = go[1];
	return pid;
}

/* What an engine does. */

static void listen_if_needed(void)
{
	struct cis_wire_listen listen = { .mode = 0600, .uid = UINT32_MAX, .gid = UINT32_MAX, .note = "guest", .note_len = 5 };

	strcpy(listen.path, guest_path);
	if (!eng.listening)
		cis_keeper_link_listen(eng.link, LISTENER, &listen);
}

static void serve(struct seen *s)
{
	char content[4096];
	uint64_t page, done;
	int r;

	if (!promised.state)
		assert_int_equal(pwrite(s->state_fd, "state!", 6, 4096), 6);
	promised.state = s->id;
	memset(content, PATTERN, sizeof(content));
	memcpy(&page, s->bytes, 8);
	r = cis_uffd_copy(s->fds[0], page, content, 4096, &done);
	assert_true(!r || r == -EEXIST || r == -ESRCH);
	assert_true(cis_is_uffd(s->fds[0]) && !cis_is_uffd(s->fds[1]));
	cis_keeper_link_note(eng.link, s->id, "note", true);
	s->served = true;
}

static void act(void)
{
	for (size_t i = 0; i < eng.nr; i++) {
		struct seen *s = &eng.conns[i];

		if (s->released)
			continue;
		if (s->len == 8 && s->state_fd < 0 && !s->asked) {
			cis_keeper_link_note(eng.link, s->id, "note", false);
			cis_keeper_link_state(eng.link, s->id, STATE);
			s->asked = true;
		}
		if (s->state_fd >= 0 && !s->served)
			serve(s);
		if (s->exited) {
			if (promised.whole == s->id)
				promised.whole = 0;
			if (promised.state == s->id)
				promised.state = 0;
			cis_keeper_link_release(eng.link, s->id);
			s->released = true;
		}
	}
}

static bool has_ended(pid_t pid)
{
	siginfo_t info = { 0 };

	return !waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid == pid;
}

/* Return: whether all is done; false: the keeper was killed before. */
static bool run_engine(pid_t guest, int *go)
{
	while (!eng.replayed)
		if (!pump())
			return false;
	listen_if_needed();
	while (!eng.listening)
		if (!pump())
			return false;
	if (*go >= 0) {
		assert_int_equal(write(*go, "g", 1), 1);
		close(*go);
		*go = -1;
	}
	/* Done is when the guest has come and gone, and nothing of it is kept any more. */
	while (!(has_ended(guest) && store.nr == 3 && store_has("l7") && store_has("l7.r") && store_has("ledger"))) {
		act();
		if (!pump())
			return false;
	}
	return true;
}

/* Of a guest that has ended meanwhile nothing need be left. */
static void check_promises(pid_t guest)
{
	uint64_t whole = promised.whole, state = promised.state;
	bool listening = promised.listening;
	struct seen *s;
	char text[6];

	while (!eng.replayed)
		assert_true(pump());
	assert_true(eng.listening || !listening);
	s = whole ? conn_of(whole) : NULL;
	if (!whole)
		return;
	if (!s && has_ended(guest))
		return;
	assert_non_null(s);
	assert_int_equal(s->listener, LISTENER);
	assert_int_equal(s->len, 8);
	assert_int_equal(s->nr_fds, 2);
	if (state != whole)
		return;
	assert_true(s->state_fd >= 0);
	assert_string_equal(s->note, "note");
	assert_int_equal(pread(s->state_fd, text, 6, 4096), 6);
	assert_memory_equal(text, "state!", 6);
}

static void end_process(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Return: false when the keeper did all before its call number @last. */
static bool round_of(unsigned last, unsigned *again)
{
	int go, status;
	pid_t guest = guest_start(&go), keeper = keeper_start(last);
	bool done;

	memset(&promised, 0, sizeof(promised));
	done = run_engine(guest, &go);
	end_process(keeper);
	while (store_take())
		;
	engine_end();
	if (!done) {
		keeper = keeper_start(0);
		check_promises(guest);
		assert_true(run_engine(guest, &go));
		end_process(keeper);
		engine_end();
	}
	assert_int_equal(waitpid(guest, &status, 0), guest);
	if (!WIFEXITED(status) || WEXITSTATUS(status) > 99)
		fail_msg("killed before call %u: the guest's status is 0x%x", last, status);
	*again += WEXITSTATUS(status);
	store_remove("l7");
	store_remove("l7.r");
	store_remove("ledger");
	unlink(guest_path);
	return !done;
}

static void test_killed_before_each_system_call(void **state)
{
	unsigned last = 1, again = 0;

	while (round_of(last, &again))
		last++;
	print_message("killed before each of %u system calls, %zu messages to the manager; guests connected again %u times\n",
		      last - 1, store.nr_messages, again);
	assert_true(last > 100);
	/* Between accepting a connection and storing it the client notices; only there. */
	assert_true(again <= 8);
}

static int set_up(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(dir, "/tmp/cis-keep-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(notify_path, sizeof(notify_path), "%s/notify", dir);
	snprintf(guest_path, sizeof(guest_path), "%s/guest", dir);
	strcpy(addr.sun_path, notify_path);
	store.sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return bind(store.sock, (struct sockaddr *)&addr, sizeof(addr));
}

static int tear_down(void **state)
{
	close(store.sock);
	unlink(notify_path);
	return rmdir(dir);
}

static bool can_trace(void)
{
	pid_t pid = fork();
	int status;

	if (!pid)
		_exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) ? 1 : 0);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_killed_before_each_system_call, set_up, tear_down),
	};
	int uffd = -1, r = cis_uffd_open(0, &uffd);

	if (r)
		check_skip("no userfaultfd for this user or in this kernel");
	if (!can_trace())
		check_skip("processes may not be traced here");
	close(uffd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
