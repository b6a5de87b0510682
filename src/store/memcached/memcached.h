/*
 * The store memcached: pages as items in one or several servers, each of which has its share of the keys and nobody else has it.
 *
 *	submit ─▶ backlog of a connection ─▶ in flight ─▶ finished ─▶ done
 *	                 ▲                       │
 *	                 └── connection lost ────┘
 *
 * By memcached's text protocol, pipelined: each request has an answer of its own, so what is acknowledged is in the server, and what
 * is said not to be there is not.  Not by libmemcached: its sets are pipelined only without answers, its multi-get says
 * NOT FOUND also when it ran out of memory, and a server's answer with a long key writes past the end of its buffer (1.1.4).
 *
 * Everything here belongs to the handle's thread.
 */
#ifndef CIS_STORE_MEMCACHED_MEMCACHED_H
#define CIS_STORE_MEMCACHED_MEMCACHED_H

#include "store/hosts.h"
#include "store/memcached/say.h"
#include "store/remote.h"

#define MC_MS	    1000000ull
#define MC_GREET_NS (1000 * MC_MS) /* from the first packet to a connection that can be used */
#define MC_STALL_NS (5000 * MC_MS) /* without an answer: give the connection up */
#define MC_INFO_NS  (1000 * MC_MS) /* so old may be what is known of a server that puts go to */
#define MC_WINDOW   128		   /* requests that a connection waits for */
#define MC_GROUP    16		   /* gets in one command: 2 us a page become 1, for the server */
#define MC_IN	    16384u
#define MC_STATS    2 /* commands that are one question: what the server is */

struct mc_server;

/* Gets have a connection of their own, as a fault must not wait behind puts. */
enum mc_lane { MC_GETS, MC_PUTS, MC_LANES };

struct mc_item {
	struct cis_remote_item item;
	struct mc_flight *flight;
	unsigned sent; /* times */
};

enum mc_what { MC_GET, MC_PUT, MC_DELETE, MC_ASK };

/**
 * struct mc_flight - something that a server has to answer, in the order of its connection
 * @item:    of which there are @nr: several gets, one of the others, none of MC_ASK; NULL: over, or given up
 * @at:      values come in this order, some are left out: those before this one are over
 * @current: MC_GET: whose value is coming; NULL: nobody's
 */
struct mc_flight {
	TAILQ_ENTRY(mc_flight) next;
	enum mc_what what;
	unsigned nr, at;
	struct mc_item *item[MC_GROUP], *current; /* each of another key */
	uint64_t sent_ns;
};

enum mc_state { MC_DOWN, MC_LOOKUP, MC_CONNECTING, MC_GREETING, MC_READY };

struct mc_conn {
	struct mc_server *server;
	enum mc_lane lane;
	enum mc_state state;
	int fd;
	struct cis_lookup *lookup;
	uint32_t events; /* that epoll looks for */
	bool blocked;	 /* nothing can be sent at present */
	uint64_t since_ns, retry_ns;
	unsigned failures; /* in a row */
	struct cis_remote_items backlog;
	TAILQ_HEAD(mc_flights, mc_flight) flights;
	unsigned nr; /* requests in them */
	char *out; /* not sent yet: [out_at, out_end) */
	size_t out_at, out_end, out_size;
	char in[MC_IN]; /* not looked at yet: [in_at, in_end) */
	size_t in_at, in_end;
	uint32_t value_bytes, value_left; /* of the value that is being read, with the end of its line */
	struct mc_info said;		  /* so far */
	unsigned asks;			  /* answers to come until all is said */
};

struct mc_server {
	struct mc *mc;
	struct cis_host host;
	uint64_t hash; /* of its name */
	struct mc_info info;
	uint64_t info_ns; /* when that was asked; 0: never */
	struct mc_conn conn[MC_LANES];
};

struct mc {
	struct cis_remote remote;
	struct mc_server *server;
	unsigned nr;
	bool probing;
	struct cis_error why; /* what went wrong last, for a probe */
};

/* conn.c */
void mc_conn_init(struct mc_conn *c, struct mc_server *server, enum mc_lane lane);
/** mc_conn_close() - what it had in flight goes back to the backlog. */
void mc_conn_close(struct mc_conn *c);
/** mc_conn_break() - close it, and wait before the next try. */
void mc_conn_break(struct mc_conn *c, const char *why);
void mc_conn_event(struct mc_conn *c, uint32_t events);
/** mc_conn_drive() - whatever can be done now.  Return: when to be called again. */
uint64_t mc_conn_drive(struct mc_conn *c, uint64_t now);
/** mc_conn_print() - to be sent.  Return: whether there was memory for it; if not, the connection is broken. */
bool mc_conn_print(struct mc_conn *c, const char *text, size_t len);

/* item.c */
static inline struct mc_item *mc_item_of(struct cis_remote_item *item)
{
	return (struct mc_item *)item;
}

void mc_item_queue(struct cis_remote *r, struct cis_remote_item *item);
void mc_item_let_go(struct cis_remote_item *item);
/** mc_items_send() - of the backlog, as many as may be. */
void mc_items_send(struct mc_conn *c, uint64_t now);
/** mc_ask() - what the server is. */
void mc_ask(struct mc_conn *c, uint64_t now);
/** mc_read() - what has come.  Return: NULL, or what is wrong with it. */
const char *mc_read(struct mc_conn *c);

#endif
