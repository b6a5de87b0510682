/*
 * The store valkey: pages as strings in Valkey or Redis, in one server (or a primary and its replicas) or a cluster.
 *
 *	submit ─▶ waiting ─▶ backlog of a connection ─▶ in flight ─┬──────────────▶ finished ─▶ done
 *	             ▲                                             ├─▶ unacked ───▶
 *	             └── redirected, connection lost, try again ───┘   (a put, until replicas have it)
 *
 * Keys are never replaced, so each request may be sent any number of times, to any server, and answered by any of them; what
 * is said of a key that is not there is believed only after it was asked who is to know (item.c).
 *
 * A request can be given up at any time: values are copied into and out of hiredis' buffers, and a reply that nobody waits
 * for any more is passed over.  Everything here belongs to the handle's thread.
 */
#ifndef CIS_STORE_VALKEY_VALKEY_H
#define CIS_STORE_VALKEY_VALKEY_H

#include <hiredis/async.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/hosts.h"
#include "store/remote.h"
#include "store/valkey/say.h"

#define VK_MS		 1000000ull
#define VK_GREET_NS	 (1000 * VK_MS) /* from the first packet to a connection that can be used */
#define VK_SUSPECT_NS	 (300 * VK_MS)	/* without an answer: ask others whether it is a primary still */
#define VK_STALL_NS	 (5000 * VK_MS) /* without an answer: give the connection up */
#define VK_INFO_NS	 (1000 * VK_MS) /* so old may be what is known of a server that puts go to */
#define VK_RETRY_MIN_NS	 (10 * VK_MS)
#define VK_WAIT_MS	 "100"		 /* of WAIT, which is sent again as long as somebody waits for it */
#define VK_WINDOW	 128		 /* replies that a connection waits for */
#define VK_READS	 128		 /* of 16 KiB without a whole reply in them: no reply of ours is that long */

struct vk;
struct vk_node;
struct vk_conn;

/* Gets have a connection of their own, as a fault must not wait behind puts, nor behind the replicas that these wait for. */
enum vk_lane { VK_GETS, VK_PUTS, VK_LANES };

/** struct vk_doubt - what @node says is believed when the latest map of the cluster is the @map-th or a later one, and told by another */
struct vk_doubt {
	uint64_t map;
	struct vk_node *node;
};

/*
 * Pages lie in hashes, those whose numbers differ in the low 6 bits alone in the same one: so a namespace has a known number of keys, all of
 * which can be dropped when its guest ends, whatever engines that were killed have left there.
 */
#define VK_HASHES 4096u

/** struct vk_item - a request on its way; see the drawing */
struct vk_item {
	struct cis_remote_item item;
	struct vk_flight *flight;
	struct vk_node *asked; /* by ASK: for the next time that it is sent */
	uint64_t retry_ns;     /* waits until then */
	struct vk_doubt doubt; /* waits until it is settled */
	unsigned field_len;
	char field[17];
	unsigned sent, tries; /* times; answers that have put it off */
	uint16_t slot;
	bool missed; /* was said not to be there */
	bool safe;   /* the put is acknowledged when replicas have it */
};

/** struct vk_flight - something that a server has to answer, in the order of its connection */
struct vk_flight {
	TAILQ_ENTRY(vk_flight) next;
	struct vk_conn *conn;
	struct vk_item *item; /* NULL: none, or given up */
	void (*answer)(struct vk_flight *flight, const redisReply *reply); /* NULL: the connection is gone */
	uint64_t sent_ns;
};

enum vk_state { VK_DOWN, VK_LOOKUP, VK_GREETING, VK_READY };

struct vk_conn {
	struct vk_node *node;
	enum vk_lane lane;
	enum vk_state state;
	redisAsyncContext *ac;
	struct cis_lookup *lookup;
	uint32_t events; /* that epoll looks for */
	uint32_t wanted; /* that hiredis wants */
	uint64_t since_ns, retry_ns;
	unsigned failures; /* in a row */
	unsigned reads;	   /* since the last reply */
	int refused;	   /* the errno that requests end with, as trying again does not help */
	bool wrong;	   /* it has said what it should not */
	TAILQ_HEAD(vk_flights, vk_flight) flights;
	unsigned nr_flights;
	struct cis_remote_items backlog, unacked;
	unsigned waits; /* WAITs in flight */
	struct vk_bound bound;
};

/** struct vk_node - a server; kept until the handle is closed or nothing has been of it for long */
struct vk_node {
	TAILQ_ENTRY(vk_node) next;
	struct vk *vk;
	char name[CIS_HOST_NAME_MAX + 1];
	uint16_t port;
	bool seed;	/* of the store's name */
	unsigned slots; /* that it is the primary of */
	struct vk_info info;
	uint64_t info_ns; /* when that was; 0: never */
	bool info_asked;
	struct vk_doubt alone; /* that it has no replicas */
	int saves;	/* of a probe: does it write snapshots? -1: it does not tell */
	uint64_t map;	/* the latest that it was in */
	uint64_t used_ns;
	struct vk_conn conn[VK_LANES];
};

enum vk_mode { VK_UNKNOWN, VK_SINGLE, VK_CLUSTER };

struct vk_opts {
	struct cis_hosts hosts;
	unsigned db;
	int replicas; /* that must have a put; -1: one, where there is one */
};

struct vk {
	struct cis_remote remote;
	struct vk_opts opts;
	enum vk_mode mode;
	TAILQ_HEAD(, vk_node) nodes;
	struct vk_node *primary;     /* VK_SINGLE */
	struct vk_node **slot;	     /* VK_CLUSTER: primaries, NULL: not known */
	bool refresh;		     /* the map is to be asked for */
	uint64_t refresh_ns;	     /* not before */
	uint64_t map_asked, map_got; /* maps are counted; of those that were asked for, the latest that has come */
	struct vk_node *map_by;	     /* whose that one is */
	struct vk_node *map_from;    /* who is being asked */
	struct vk_node *map_not;     /* who should not be asked next */
	uint64_t map_ns;	     /* when it was asked */

	struct cis_remote_items waiting;
	bool again, probing;
	struct cis_error why; /* what went wrong last, for a probe */
};

/* conn.c */
void vk_conn_init(struct vk_conn *c, struct vk_node *node, enum vk_lane lane);
void vk_conn_start(struct vk_conn *c);
/** vk_conn_break() - give it up, from anywhere; what it had in flight comes back with NULL. */
void vk_conn_break(struct vk_conn *c, const char *why);
void vk_conn_event(struct vk_conn *c, uint32_t events);
/** vk_conn_write() - what was sent; not from an answer. */
void vk_conn_write(struct vk_conn *c);
/** vk_conn_send() - Return: whether it is on its way. */
bool vk_conn_send(struct vk_conn *c, struct vk_item *item, void (*answer)(struct vk_flight *, const redisReply *), int argc,
		  const char **argv, const size_t *len);
#define VK_SEND(c, answer, ...)                                                                    \
	vk_conn_send(c, NULL, answer, (int)(sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *)), \
		     (const char *[]){ __VA_ARGS__ }, NULL)
/** vk_conn_alarm() - when something is to be done about it without its server; also does it, if it is time. */
uint64_t vk_conn_alarm(struct vk_conn *c, uint64_t now);

/* greet.c */
/** vk_greet() - the first commands of a connection, which is ready when they are answered. */
void vk_greet(struct vk_conn *c);
/** vk_conn_info() - ask the server what it is. */
void vk_conn_info(struct vk_conn *c);

/* map.c */
struct vk_node *vk_node_get(struct vk *vk, const char *name, uint16_t port);
void vk_node_free(struct vk_node *node);
/** vk_met() - the connection is ready, its node's info is new. */
void vk_met(struct vk_conn *c);
/** vk_lost() - a connection that was ready or becoming so is gone. */
void vk_lost(struct vk_conn *c);
/** vk_demoted() - it is a replica, contrary to what is believed. */
void vk_demoted(struct vk_node *node);
/** vk_map_want() - as soon as may be; @not: whom to ask only if there is no other. */
void vk_map_want(struct vk *vk, struct vk_node *not);
/** vk_doubt() - what @node says may be out of date. */
void vk_doubt(struct vk_doubt *doubt, struct vk_node *node);
/** vk_settled() - is it known by now whether @doubt->node is what it says? */
bool vk_settled(struct vk *vk, const struct vk_doubt *doubt);
void vk_map_moved(struct vk *vk, uint16_t slot, struct vk_node *to);
/** vk_map_drive() - ask for the map, if it is wanted.  Return: when it is to be looked at again. */
uint64_t vk_map_drive(struct vk *vk, uint64_t now);
struct vk_node *vk_node_said(struct vk_node *by, const char *name, uint16_t port);
void vk_map_prune(struct vk *vk, uint64_t now);
/** vk_node_of() - the server that is to have it, or NULL. */
struct vk_node *vk_node_of(const struct vk *vk, const struct vk_item *item);
/** vk_wanted() - has the connection something to do? */
bool vk_wanted(const struct vk_conn *c);

/* item.c */
static inline struct vk_item *vk_item_of(struct cis_remote_item *item)
{
	return (struct vk_item *)item;
}

void vk_item_queue(struct cis_remote *r, struct cis_remote_item *item);
void vk_item_let_go(struct cis_remote_item *item);
/** vk_item_finish() - done will come with @err. */
void vk_item_finish(struct vk *vk, struct vk_item *item, int err);
/** vk_item_again() - wherever it is: it waits, and is sent again. */
void vk_item_again(struct vk *vk, struct vk_item *item);
void vk_items_again(struct vk *vk, struct cis_remote_items *items);
/** vk_items_route() - from waiting to the backlogs.  Return: when one wants to be looked at again. */
uint64_t vk_items_route(struct vk *vk, uint64_t now);
/** vk_items_send() - of the backlog, as many as may be. */
void vk_items_send(struct vk_conn *c, uint64_t now);

/* valkey.c */
int vk_open(const char *rest, struct vk **ret, struct cis_error *err);
/** vk_why() - note what went wrong with a server. */
void vk_why(struct vk_node *node, int code, const char *why);

/* name.c */
/** vk_name_parse() - @rest: what follows "valkey:"; @ret: its hosts are to be given to cis_hosts_fini(). */
int vk_name_parse(const char *rest, struct vk_opts *ret, struct cis_error *err);

/* probe.c */
int vk_probe(const char *rest, uint64_t timeout_ns, struct cis_error *err);

#endif
