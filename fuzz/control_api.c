/*
 * The control interface: requests, one after another, to an engine that serves real guests of this very process.  Its keeper is
 * played here, the server of HTTP in control_http.h.
 *
 * Input: records separated by a byte 0x1e.  A request is "METHOD PATH[?KEY=VALUE[&...]]\nBODY"; @IMAGE@ stands for the path of an
 * image, @FOLDER@ for where files may be written, @LONG@ makes the body too long.  "!WORD [ARGUMENT]\n[BYTES]" is something that
 * happens: see events[] below.  Every request gets at most one answer, a status of the API and JSON or text; at the end, when all
 * clients have hung up, no request waits and no guest is left behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "control_http.h"
#include "daemon/api.h"
#include "daemon/awake.h"
#include "daemon/events.h"
#include "daemon/guest_int.h"
#include "daemon/handover.h"
#include "daemon/request.h"
#include "image/source.h"
#include "image/write.h"
#include "os/memfd.h"
#include "os/uffd.h"

#define REQUESTS_MAX HTTP_CONNECTIONS
#define GUESTS_MAX   3
#define PAGES	     16u
#define GUEST_BYTES  (PAGES * 4096ull)
#define SOON	     6u	   /* times 5 ms, for what an input may keep from happening */
#define EVER	     2000u /* for what must happen */

static struct cis_engine engine;
static struct cis_config config;
static char folder[] = "/tmp/cistern-fuzz-XXXXXX", image[64];

static struct request {
	struct MHD_Connection conn;
	char text[4096 + 256];
	char *body;
} requests[REQUESTS_MAX];
static unsigned nr_requests;

static int stranger = -1; /* a socket whose other end is another user's, or -1 */
static bool by_stranger;  /* the next request */

static void *memories[GUESTS_MAX];
static unsigned nr_memories;

/* Time is what the input says. */

static atomic_ullong passed_ns;

uint64_t cis_now_ns(void *ctx)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec + passed_ns;
}

/* The keeper: it never becomes, or starts, another program. */

static struct keeper {
	int fd;
	bool is_silent, refuses;
	enum { FAILS, RESUMES, GOES } upgrade; /* what comes of one */
	uint64_t conns;
} keeper;

static void tell(const struct cis_wire_msg *msg)
{
	FUZZ_CHECK(!cis_wire_send(keeper.fd, msg));
}

static void tell_why(enum cis_wire_type type, uint64_t id, uint32_t error)
{
	tell(&(struct cis_wire_msg){ .type = type, .id = id, .error = error, .body = "because", .body_len = 7 });
}

static void make_state(uint64_t conn, uint64_t bytes)
{
	int fd;

	FUZZ_CHECK(!cis_memfd_create("state", bytes, 4096, &fd));
	tell(&(struct cis_wire_msg){ .type = CIS_WIRE_STATE_MADE, .id = conn, .arg = bytes, .fds = &fd, .nr_fds = 1 });
	close(fd);
}

/* The engine that follows knows the oldest layout alone, so that states are converted. */
static void quiesce(void)
{
	struct cis_wire_hello hello = { .wire = CIS_WIRE_VERSION, .layout_min = 1, .layout_max = 1, .version = "next" };
	uint8_t body[CIS_WIRE_HELLO_BYTES];

	cis_wire_hello_put(&hello, body);
	tell(&(struct cis_wire_msg){ .type = CIS_WIRE_QUIESCE, .body = body, .body_len = sizeof(body) });
}

static void begin_upgrade(void)
{
	tell_why(CIS_WIRE_UPGRADING, 0, keeper.upgrade == FAILS ? ENOENT : 0);
	if (keeper.upgrade != FAILS)
		quiesce();
}

static void hear(const struct cis_wire_msg *msg)
{
	switch (msg->type) {
	case CIS_WIRE_LISTEN:
		if (keeper.refuses)
			tell_why(CIS_WIRE_LISTENING, msg->id, EADDRINUSE);
		else
			tell(&(struct cis_wire_msg){ .type = CIS_WIRE_LISTENING, .id = msg->id, .body = msg->body,
						     .body_len = msg->body_len });
		break;
	case CIS_WIRE_STATE:
		make_state(msg->id, msg->arg);
		break;
	case CIS_WIRE_UPGRADE:
		begin_upgrade();
		break;
	case CIS_WIRE_HANDOVER:
		FUZZ_CHECK(!msg->error && msg->nr_fds == 1);
		tell_why(keeper.upgrade == GOES ? CIS_WIRE_LET_GO : CIS_WIRE_RESUME, 0, EPROTO);
		break;
	case CIS_WIRE_EXEC:
		tell_why(CIS_WIRE_EXECED, 0, keeper.upgrade == FAILS ? ENOENT : 0);
		break;
	}
}

static void run_keeper(void)
{
	struct cis_wire_buf buf;
	struct cis_wire_msg msg;

	while (!keeper.is_silent && engine.has_keeper && !cis_wire_recv(keeper.fd, &buf, &msg)) {
		hear(&msg);
		cis_fds_close(msg.fds, msg.nr_fds);
	}
	if (engine.has_keeper)
		cis_keeper_link_run(engine.link, 64);
}

static void meet_keeper(void)
{
	int pair[2], room = 1 << 20;

	FUZZ_CHECK(!cis_sock_pair(SOCK_SEQPACKET, pair));
	for (int i = 0; i < 2; i++) {
		FUZZ_CHECK(!fcntl(pair[i], F_SETFL, O_NONBLOCK));
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	}
	keeper = (struct keeper){ .fd = pair[1], .conns = keeper.conns };
	FUZZ_CHECK(!cis_keeper_link_create(pair[0], &cis_guest_link_ops, &engine, &engine.link));
	engine.has_keeper = true;
}

/* Start. */

static void make_image(void)
{
	struct cis_write_opts opts = { .size = sizeof(opts), .codec = CIS_CODEC_RAW };
	char memory[64], page[4096];
	struct cis_image_source *src;
	struct cis_error err;
	int fd;

	snprintf(memory, sizeof(memory), "%s/memory", folder);
	snprintf(image, sizeof(image), "%s/image", folder);
	fd = open(memory, O_CREAT | O_WRONLY, 0600);
	FUZZ_CHECK(fd >= 0 && !ftruncate(fd, GUEST_BYTES));
	for (unsigned i = 0; i < PAGES; i += 2) {
		memset(page, 'a' + (int)i, sizeof(page));
		page[1] = 0;
		FUZZ_CHECK(pwrite(fd, page, sizeof(page), i * 4096) == sizeof(page));
	}
	close(fd);
	FUZZ_CHECK(!cis_source_raw(memory, &src, &err) && !cis_image_write(image, src, &opts, &err));
	cis_source_close(src);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void clean_up(void)
{
	nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* The kernel notes who makes a socket; nobody else may ask. */
static void meet_stranger(void)
{
	int pair[2];

	if (geteuid() || setresuid((uid_t)-1, 65534, (uid_t)-1))
		return;
	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	FUZZ_CHECK(!setresuid((uid_t)-1, 0, (uid_t)-1));
	stranger = pair[0];
}

static void set(const char *key, const char *format)
{
	struct cis_error err;
	char value[64];

	snprintf(value, sizeof(value), format, folder);
	FUZZ_CHECK(!cis_config_set(&config, key, value, &err));
}

static void open_api(void)
{
	struct cis_error err;

	FUZZ_CHECK(!cis_api_create(&engine, open("/dev/null", O_RDONLY | O_CLOEXEC), &engine.api, &err));
}

/* A shard that cannot wait is never done; qemu-user does not know the call. */
static void need_waiting(void)
{
	const struct timespec none = { 0 };
	struct epoll_event ev;
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (epoll_pwait2(ep, &ev, 1, &none, NULL) && errno == ENOSYS) {
		puts("this kernel has no epoll_pwait2()");
		exit(77);
	}
	close(ep);
}

static void open_engine(void)
{
	need_waiting();
	FUZZ_CHECK(mkdtemp(folder));
	atexit(clean_up);
	FUZZ_CHECK(!cis_config_init(&config));
	set("traces", "%s/traces");
	set("images", "%s");
	set("control", "%s/control.sock");
	set("guests", "3");
	make_image();
	meet_stranger();
	engine = (struct cis_engine){ .config = &config, .epoll = epoll_create1(EPOLL_CLOEXEC), .mode = CIS_ENGINE_SERVES,
				      .layout = CIS_STATE_LAYOUT_MAX, .generation = 1 };
	FUZZ_CHECK(!cis_mailbox_init(&engine.box) && !cis_events_create(&engine.events) && !cis_awake_create(0, &engine.awake));
	FUZZ_CHECK(!cis_workers_create(1, &engine.workers));
	engine.shards = calloc(1, sizeof(*engine.shards));
	engine.nr_shards = 1;
	FUZZ_CHECK(engine.shards && !cis_shard_create(0, engine.workers, &engine.box, engine.awake, engine.shards));
	meet_keeper();
	open_api();
}

static void turn(void)
{
	run_keeper();
	cis_mailbox_run(&engine.box);
	FUZZ_CHECK(cis_api_timeout_ms(engine.api) >= -1);
	cis_api_run(engine.api);
}

/* Shards and workers are threads: what they have to say comes when it comes.  Return: false: it was given up. */
static bool turn_until(bool (*over)(const char *id), const char *id, unsigned tries)
{
	struct pollfd mail = { .fd = engine.box.event, .events = POLLIN };

	for (unsigned i = 0; i < tries; i++) {
		turn();
		if (over(id))
			return true;
		poll(&mail, 1, 5);
	}
	return false;
}

/* Requests. */

static void replace(char *text, size_t room, const char *token, const char *by)
{
	char *at = strstr(text, token);

	if (!at || strlen(text) + strlen(by) >= room)
		return;
	memmove(at + strlen(by), at + strlen(token), strlen(at + strlen(token)) + 1);
	memcpy(at, by, strlen(by));
}

/* A trace is written where a request says. */
static bool is_harmless(const char *body)
{
	json_t *j = json_loads(body, 0, NULL);
	const char *path = json_string_value(json_object_get(j, "path"));
	bool yes = !path || (!strncmp(path, folder, strlen(folder)) && !strstr(path, ".."));

	json_decref(j);
	return yes;
}

static bool is_request(struct request *r)
{
	char *method = r->text, *path = strchr(r->text, ' '), *query;

	r->body = strchr(r->text, '\n');
	if (!r->body || !path || path > r->body)
		return false;
	*r->body++ = 0;
	*path++ = 0;
	query = strchr(path, '?');
	if (query)
		*query++ = 0;
	if (!is_harmless(r->body))
		return false;
	http_open(&r->conn, method, path, query ? query : "");
	return true;
}

static bool send_body(struct request *r)
{
	static const char filler[65537];
	size_t half = strlen(r->body) / 2, rest = strlen(r->body) - half;

	if (half && !http_call(&r->conn, r->body, half))
		return false;
	if (rest && !http_call(&r->conn, r->body + half, rest))
		return false;
	return !strstr(r->body, "@LONG@") || (http_call(&r->conn, filler, sizeof(filler)) && http_call(&r->conn, filler, 1));
}

static void ask(struct request *r)
{
	if (!is_request(r))
		return;
	nr_requests++;
	if (by_stranger && stranger >= 0)
		FUZZ_CHECK(dup2(stranger, r->conn.fd) >= 0);
	by_stranger = false;
	if (http_call(&r->conn, NULL, 0) && send_body(r))
		http_call(&r->conn, NULL, 0);
}

/* Events. */

static void say(uint64_t conn, const char *text, size_t len, const int *fds, size_t nr)
{
	tell(&(struct cis_wire_msg){ .type = CIS_WIRE_BYTES, .id = conn, .body = text, .body_len = len, .fds = fds, .nr_fds = nr });
}

/* The connection of a guest, a new one where there is none. */
static uint64_t reach(struct cis_guest *g)
{
	struct cis_peer peer = { .pid = 1 };
	uint8_t body[CIS_WIRE_PEER_BYTES];

	if (g->conn)
		return g->conn->id;
	cis_wire_peer_put(&peer, body);
	tell(&(struct cis_wire_msg){ .type = CIS_WIRE_CONNECTION, .id = ++keeper.conns, .arg = g->serial, .body = body,
				     .body_len = sizeof(body) });
	return keeper.conns;
}

/* Return: it is as full as it gets, or was refused or deleted. */
static bool is_settled(const char *id)
{
	const struct cis_guest *g = cis_guest_find(&engine, id);

	if (!g || !g->conn || g->stalled || g->state == CIS_GUEST_GONE)
		return true;
	return g->state >= (g->record || g->fill != CIS_FILL_ALL ? CIS_GUEST_FILLED : CIS_GUEST_INDEPENDENT);
}

/* "!connect ID": its monitor comes, with memory of this process. */
static void event_connect(char *id, char *bytes)
{
	struct cis_guest *g = cis_guest_find(&engine, id);
	char text[200];
	uint64_t conn;
	int uffd, len;

	if (!g || g->conn || nr_memories == GUESTS_MAX || cis_uffd_open(0, &uffd))
		return;
	void *at = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	FUZZ_CHECK(at != MAP_FAILED && !cis_uffd_register(uffd, (uintptr_t)at, GUEST_BYTES, UFFDIO_REGISTER_MODE_MISSING));
	memories[nr_memories++] = at;
	len = snprintf(text, sizeof(text), "[{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":0%s}]",
		       (unsigned long long)(uintptr_t)at, (unsigned long long)GUEST_BYTES, *bytes ? bytes : "");
	conn = reach(g);
	say(conn, text, (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1, &uffd, 1);
	close(uffd);
	turn_until(is_settled, id, SOON);
}

/* "!says ID [N]\nBYTES": somebody who is no monitor, with N descriptors. */
static void event_says(char *id, char *bytes)
{
	int fds[CIS_WIRE_FDS_MAX];
	char *nr = strchr(id, ' ');
	struct cis_guest *g;

	if (nr)
		*nr++ = 0;
	for (unsigned i = 0; i < CIS_WIRE_FDS_MAX; i++)
		fds[i] = engine.epoll; /* any */
	g = cis_guest_find(&engine, id);
	if (g)
		say(reach(g), bytes, strlen(bytes), fds, nr ? strtoul(nr, NULL, 10) % (CIS_WIRE_FDS_MAX + 1) : 0);
}

static void tell_of(char *id, enum cis_wire_type type)
{
	struct cis_guest *g = cis_guest_find(&engine, id);

	if (g && g->conn)
		tell_why(type, g->conn->id, type == CIS_WIRE_BROKEN ? EMSGSIZE : 0);
}

static void event_eof(char *id, char *bytes)
{
	tell_of(id, CIS_WIRE_EOF);
}

static void event_breaks(char *id, char *bytes)
{
	tell_of(id, CIS_WIRE_BROKEN);
}

static void event_exits(char *id, char *bytes)
{
	tell_of(id, CIS_WIRE_EXITED);
	turn_until(is_settled, id, SOON);
}

/* "!time MS" */
static void event_time(char *ms, char *bytes)
{
	passed_ns += strtoul(ms, NULL, 10) % 100000 * 1000000ull;
	cis_guest_tick(&engine);
}

/* "!hangup N": the client of request N. */
static void event_hangup(char *nr, char *bytes)
{
	unsigned long i = strtoul(nr, NULL, 10);

	if (i < nr_requests)
		http_hang_up(&requests[i].conn);
}

static void event_stranger(char *none, char *bytes)
{
	by_stranger = true;
}

static void keeper_is_silent(void)
{
	keeper.is_silent = true;
}

static void keeper_speaks(void)
{
	keeper.is_silent = keeper.refuses = false;
	keeper.upgrade = FAILS;
}

static void keeper_refuses(void)
{
	keeper.refuses = true;
}

static void keeper_resumes(void)
{
	keeper.upgrade = RESUMES;
}

static void keeper_goes(void)
{
	keeper.upgrade = GOES;
}

static void keeper_stops(void)
{
	tell_why(CIS_WIRE_STOP, 0, 0);
}

static void keeper_dies(void)
{
	shutdown(keeper.fd, SHUT_RDWR);
}

/* "!keeper WORD" */
static void event_keeper(char *word, char *bytes)
{
	static const struct {
		const char *word;
		void (*does)(void);
	} words[] = {
		{ "silent", keeper_is_silent }, { "speaks", keeper_speaks }, { "refuses", keeper_refuses }, { "resumes", keeper_resumes },
		{ "goes", keeper_goes },	{ "quiesces", quiesce },     { "stops", keeper_stops },	    { "dies", keeper_dies },
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(word, words[i].word))
			words[i].does();
}

static const struct {
	const char *word;
	void (*happens)(char *argument, char *bytes);
} events[] = {
	{ "!connect", event_connect }, { "!says", event_says },	    { "!eof", event_eof },	     { "!breaks", event_breaks },
	{ "!exits", event_exits },     { "!time", event_time },	    { "!hangup", event_hangup },     { "!stranger", event_stranger },
	{ "!keeper", event_keeper },
};

static void happen(char *text)
{
	char *bytes = strchr(text, '\n'), *argument;

	if (bytes)
		*bytes++ = 0;
	argument = strchr(text, ' ');
	if (argument)
		*argument++ = 0;
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]) && engine.has_keeper; i++)
		if (!strcmp(text, events[i].word))
			events[i].happens(argument ? argument : text + strlen(text), bytes ? bytes : text + strlen(text));
}

/* Return: no upgrade is under way, or none that goes on by itself. */
static bool is_calm(const char *id)
{
	enum cis_handover_step step = engine.handover.step;

	return keeper.is_silent || (step != CIS_HANDOVER_PAUSING && step != CIS_HANDOVER_PAUSED);
}

static void take_record(const uint8_t *at, size_t len)
{
	struct request *r = &requests[nr_requests];

	if (len >= 4096 || memchr(at, 0, len))
		return;
	memcpy(r->text, at, len);
	r->text[len] = 0;
	replace(r->text, sizeof(r->text), "@IMAGE@", image);
	replace(r->text, sizeof(r->text), "@FOLDER@", folder);
	if (*r->text == '!')
		happen(r->text);
	else
		ask(r);
	turn();
	turn_until(is_calm, NULL, SOON);
}

/* End. */

static bool all_closed(const char *id)
{
	return cis_api_is_idle(engine.api);
}

/* As another process that nobody has let go, stopped or left; guests go on. */
static void renew(void)
{
	if (engine.mode != CIS_ENGINE_SERVES)
		cis_handover_resume(&engine, 0, "the input is over");
	cis_api_destroy(engine.api);
	close(keeper.fd);
	cis_keeper_link_destroy(engine.link);
	cis_sections_fini(&engine.handover_sections);
	engine.handover_sections = (struct cis_sections){ 0 };
	engine.handover = (struct cis_handover){ 0 };
	engine.stopping = engine.drain_stop = false;
	meet_keeper();
	open_api();
}

static bool has_left(const char *id)
{
	const struct cis_guest *g = cis_guest_find(&engine, id);

	return !g || g->state == CIS_GUEST_GONE;
}

static void remove_guests(void)
{
	struct cis_error err;
	char id[CIS_GUEST_ID_MAX + 1];

	while (engine.nr_guests) {
		struct cis_guest *g = engine.guests[0];

		strcpy(id, g->id);
		tell_of(id, CIS_WIRE_EOF); /* so that its monitor is known to be no more */
		turn();
		if (cis_guest_find(&engine, id) == g)
			FUZZ_CHECK(!cis_guest_delete(g, true, &err));
		FUZZ_CHECK(turn_until(has_left, id, EVER));
	}
	FUZZ_CHECK(!engine.nr_images);
}

static void end(void)
{
	keeper_speaks();
	if (engine.stopping) /* it ends, whoever waits */
		renew();
	for (unsigned i = 0; i < nr_requests; i++)
		http_hang_up(&requests[i].conn);
	passed_ns += 2000000000u; /* they are looked for once a second */
	FUZZ_CHECK(turn_until(all_closed, NULL, EVER));
	if (engine.handover.step != CIS_HANDOVER_NONE || engine.stopping || !engine.has_keeper)
		renew();
	remove_guests();
	http_forget();
	for (nr_requests = 0; nr_memories; nr_memories--)
		munmap(memories[nr_memories - 1], GUEST_BYTES);
	by_stranger = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const uint8_t *at = data, *stop = data + len;

	if (!engine.api)
		open_engine();
	while (at < stop && nr_requests < REQUESTS_MAX) {
		const uint8_t *next = memchr(at, 0x1e, (size_t)(stop - at));

		take_record(at, (size_t)((next ? next : stop) - at));
		at = next ? next + 1 : stop;
	}
	end();
	return 0;
}
