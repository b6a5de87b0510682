/*
 * A keeper in this process, with a clock that the test moves, and engines that are puppets: processes that give
 * their end of the wire to the test, and then only end as they are told.
 */
#ifndef TESTS_UNIT_KEEPER_PUPPETS_H
#define TESTS_UNIT_KEEPER_PUPPETS_H

#include "check.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/keeper.h"
#include "daemon/wire.h"
#include "os/memfd.h"
#include "os/sock.h"

#define PUPPETS 24
#define WORDS	256
#define MS	1000000ull

struct word {
	struct cis_wire_msg msg;
	char text[200]; /* start of the body */
	ino_t file;	/* of its first descriptor */
};

struct puppet {
	int sock, wire, control;
	pid_t pid;
	bool is_deaf; /* for now */
	char program[128];
	struct word words[WORDS];
	size_t nr_words;
};

static struct {
	char self[4096], dir[64];
	struct cis_keeper *k; /* NULL: it is another process */
	uint64_t now;
	int rendezvous;
	struct puppet *puppets;
	size_t nr_puppets;
	uint32_t layout_min, layout_max; /* that puppets say */
	bool is_mute;			 /* they do not say HELLO by themselves */
	int status;
} show;

static inline const char *show_path(const char *name)
{
	static char path[108];

	snprintf(path, sizeof(path), "%s/%s", show.dir, name);
	return path;
}

static inline uint64_t show_clock(void *ctx)
{
	return show.now;
}

/* The other side: what the keeper executes.  A byte is the status to end with. */
static inline int puppet_main(const char *program, const char *path)
{
	int fds[] = { CIS_WIRE_FD, CIS_WIRE_CONTROL_FD }, sock;
	struct {
		pid_t pid;
		char program[128];
	} hi = { .pid = getpid() };
	uint8_t status = 0;

	snprintf(hi.program, sizeof(hi.program), "%s", program);
	if (cis_sock_connect(path, SOCK_STREAM, &sock, NULL) || cis_sock_send_all(sock, &hi, sizeof(hi), fds, 2))
		return 90;
	cis_fds_close(fds, 2);
	if (send(sock, "k", 1, 0) != 1) /* from now on the test alone has them */
		return 92;
	return recv(sock, &status, 1, 0) == 1 ? status : 91;
}

static inline void puppet_say(struct puppet *p, const struct cis_wire_msg *msg)
{
	assert_int_equal(cis_wire_send(p->wire, msg), 0);
}

#define say(p, ...) puppet_say(p, &(struct cis_wire_msg){ __VA_ARGS__ })

static inline void puppet_hello(struct puppet *p)
{
	struct cis_wire_hello hello = { .wire = CIS_WIRE_VERSION, .layout_min = show.layout_min,
					.layout_max = show.layout_max, .version = "puppet" };
	uint8_t body[CIS_WIRE_HELLO_BYTES];

	cis_wire_hello_put(&hello, body);
	say(p, .type = CIS_WIRE_HELLO, .body = body, .body_len = sizeof(body));
}

static inline void puppet_enters(void)
{
	struct puppet *p = &show.puppets[show.nr_puppets];
	int fds[2];
	size_t nr_fds, len;
	struct {
		pid_t pid;
		char program[128];
	} hi;
	struct pollfd ready = { .events = POLLIN };

	assert_true(show.nr_puppets < PUPPETS);
	memset(p, 0, sizeof(*p));
	assert_int_equal(cis_sock_accept(show.rendezvous, &p->sock), 0);
	ready.fd = p->sock;
	assert_int_equal(poll(&ready, 1, 20000), 1);
	assert_int_equal(cis_sock_recv(p->sock, &hi, sizeof(hi), fds, 2, &nr_fds, &len), 0);
	assert_int_equal(poll(&ready, 1, 20000), 1);
	if (!len || recv(p->sock, hi.program + sizeof(hi.program) - 1, 1, 0) != 1) { /* it was killed on its way in */
		cis_fds_close(fds, nr_fds);
		close(p->sock);
		return;
	}
	assert_int_equal(len, sizeof(hi));
	assert_int_equal(nr_fds, 2);
	hi.program[sizeof(hi.program) - 1] = 0;
	p->wire = fds[0];
	p->control = fds[1];
	p->pid = hi.pid;
	memcpy(p->program, hi.program, sizeof(p->program));
	show.nr_puppets++;
	if (!show.is_mute)
		puppet_hello(p);
}

/* Return: false when the wire was closed by the keeper. */
static inline bool puppet_hears(struct puppet *p)
{
	static struct cis_wire_buf buf;
	struct word *w = &p->words[p->nr_words];
	struct stat st;
	int r = cis_wire_recv(p->wire, &buf, &w->msg);

	assert_true(p->nr_words < WORDS - 1);
	if (r == -EPIPE || r == -ECONNRESET) {
		close(p->wire);
		p->wire = -1;
		return false;
	}
	assert_int_equal(r, 0);
	p->nr_words++;
	snprintf(w->text, sizeof(w->text), "%.*s", (int)w->msg.body_len, (const char *)w->msg.body);
	if (w->msg.nr_fds && !fstat(w->msg.fds[0], &st))
		w->file = st.st_ino;
	cis_fds_close(w->msg.fds, w->msg.nr_fds);
	return true;
}

static inline size_t heard(const struct puppet *p, enum cis_wire_type type)
{
	size_t nr = 0;

	for (size_t i = 0; i < p->nr_words; i++)
		nr += p->words[i].msg.type == type;
	return nr;
}

/** word() - the last of that type. */
static inline const struct word *word(const struct puppet *p, enum cis_wire_type type)
{
	for (size_t i = p->nr_words; i-- > 0;)
		if (p->words[i].msg.type == type)
			return &p->words[i];
	fail_msg("message %d was not heard", type);
	return NULL;
}

/* One event of anybody's. */
static inline void show_turn(void)
{
	struct pollfd p[2 + PUPPETS];

	p[0] = (struct pollfd){ .fd = show.k ? cis_keeper_fd(show.k) : -1, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = show.rendezvous, .events = POLLIN };
	for (size_t i = 0; i < show.nr_puppets; i++)
		p[2 + i] = (struct pollfd){ .fd = show.puppets[i].is_deaf ? -1 : show.puppets[i].wire, .events = POLLIN };
	if (show.k && cis_keeper_timeout_ms(show.k) == 0) {
		assert_int_equal(cis_keeper_step(show.k), 0);
		return;
	}
	assert_in_range(poll(p, 2 + show.nr_puppets, 20000), 1, 2 + PUPPETS);
	for (size_t i = 0, nr = show.nr_puppets; i < nr; i++)
		if (p[2 + i].revents)
			puppet_hears(&show.puppets[i]);
	if (p[1].revents)
		puppet_enters();
	if (p[0].revents)
		assert_int_equal(cis_keeper_step(show.k), 0);
}

#define until(cond)                  \
	do {                         \
		while (!(cond))      \
			show_turn(); \
	} while (0)

/** quiet() - all that is on its way has arrived, and nothing was said about it. */
static inline void quiet(void)
{
	for (;;) {
		struct pollfd p = { .fd = cis_keeper_fd(show.k), .events = POLLIN };
		bool is_busy = cis_keeper_timeout_ms(show.k) == 0 || poll(&p, 1, 0);

		for (size_t i = 0; i < show.nr_puppets; i++) {
			struct pollfd w = { .fd = show.puppets[i].is_deaf ? -1 : show.puppets[i].wire, .events = POLLIN };

			is_busy |= poll(&w, 1, 0) > 0;
		}
		if (!is_busy)
			return;
		show_turn();
	}
}

static inline void pass(uint64_t ms)
{
	show.now += ms * MS;
	quiet();
}

/** puppet_ends() - by itself, with a status below 128, or killed by signal (status - 128). */
static inline void puppet_ends(struct puppet *p, int status)
{
	uint8_t byte = (uint8_t)status;

	if (status < 128)
		assert_int_equal(send(p->sock, &byte, 1, 0), 1);
	else
		kill(p->pid, status - 128);
}

static inline bool puppet_is_gone(const struct puppet *p)
{
	return kill(p->pid, 0) && errno == ESRCH;
}

/** show_stage() - what puppets need. */
static inline int show_stage(void)
{
	struct cis_sock_opts opts = CIS_SOCK_OPTS;

	memset(show.dir, 0, sizeof(show.dir));
	strcpy(show.dir, "/tmp/cis-puppets-XXXXXX");
	show.puppets = calloc(PUPPETS, sizeof(*show.puppets));
	show.nr_puppets = 0;
	show.now = 1000000 * MS;
	show.layout_min = show.layout_max = 1;
	show.is_mute = false;
	show.k = NULL;
	return !show.puppets || !mkdtemp(show.dir) || cis_sock_listen(show_path("rendezvous"), &opts, &show.rendezvous, NULL);
}

static inline int show_open(void **state)
{
	if (show_stage() || cis_keeper_create(&show.k, NULL))
		return -1;
	cis_keeper_set_clock(show.k, show_clock, NULL);
	return cis_keeper_control(show.k, show_path("control"), NULL);
}

static inline struct puppet *show_start(const char *program)
{
	char *argv[] = { (char *)program, (char *)"--engine", (char *)show_path("rendezvous"), NULL }, *envp[] = { NULL };
	size_t before = show.nr_puppets;

	assert_int_equal(cis_keeper_start(show.k, argv, envp, NULL), 0);
	until(show.nr_puppets > before);
	return &show.puppets[before];
}

static inline int show_close(void **state)
{
	cis_keeper_destroy(show.k);
	for (size_t i = 0; i < show.nr_puppets; i++) {
		struct puppet *p = &show.puppets[i];

		cis_fds_close((int[]){ p->sock, p->control }, 2);
		if (p->wire >= 0)
			close(p->wire);
		waitpid(p->pid, NULL, 0); /* those that the keeper did not see the end of */
	}
	close(show.rendezvous);
	free(show.puppets);
	if (fork() == 0)
		execlp("rm", "rm", "-rf", show.dir, (char *)NULL);
	return wait(&show.status) < 0 || show.status;
}

/** show_guest() - listener @id is made by @p, and a guest is there that has said "hi" and given a descriptor. */
static inline int show_guest(struct puppet *p, uint64_t id)
{
	struct cis_wire_listen listen = { .mode = 0600, .uid = UINT32_MAX, .gid = UINT32_MAX, .note = "why", .note_len = 3 };
	size_t before = heard(p, CIS_WIRE_BYTES), listeners = heard(p, CIS_WIRE_LISTENING);
	uint8_t body[CIS_WIRE_BODY_MAX];
	size_t len;
	int fd;

	snprintf(listen.path, sizeof(listen.path), "%s/g%llu", show.dir, (unsigned long long)id);
	cis_wire_listen_put(&listen, body, &len);
	say(p, .type = CIS_WIRE_LISTEN, .id = id, .body = body, .body_len = len);
	until(heard(p, CIS_WIRE_LISTENING) > listeners);
	assert_int_equal(word(p, CIS_WIRE_LISTENING)->msg.error, 0);
	assert_int_equal(cis_sock_connect(listen.path, SOCK_STREAM, &fd, NULL), 0);
	assert_int_equal(cis_sock_send_all(fd, "hi", 2, &fd, 1), 0);
	until(heard(p, CIS_WIRE_BYTES) > before);
	return fd;
}

/** show_main() - run as a puppet when the keeper executes this program, else as the test. */
static inline int show_main(int argc, char **argv, int (*run)(void))
{
	if (argc == 3 && !strcmp(argv[1], "--engine"))
		return puppet_main(argv[0], argv[2]);
	check_native(argc, argv);
	if (!realpath("/proc/self/exe", show.self))
		return 1;
	return run();
}

#endif
