/*
 * What the layers share: a store around another one, whose answers it may change, put off, or never give.  Internal to this
 * folder; layers.h is what others use.
 *
 *	submit ─▶ enter() ─┬─▶ the store below ─▶ leave() ─┬─▶ done
 *	                   └─ answered here ───────────────┴─ held until its time, its deadline or a cancel ─▶ done
 */
#ifndef CIS_STORE_LAYER_H
#define CIS_STORE_LAYER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "store/store.h"

struct cis_layer;

#define CIS_HELD_FOREVER UINT64_MAX

/** struct cis_held - a request on its way through a layer */
struct cis_held {
	struct cis_store_req inner; /* what the store below gets; its buffer is the caller's */
	struct cis_store_req *req;  /* the caller's */
	struct cis_layer *layer;
	struct cis_held *prev, *next; /* of the layer, in the order in which they came */
	uint64_t due_ns;	      /* done is not called before it */
	uint64_t choice;	      /* the layer's, between enter and leave */
	int err;		      /* how it ends */
	int given_up;		      /* -ECANCELED or -ETIMEDOUT: ends so as soon as the store below has let go of it */
	bool below, have;	      /* the store below has it; the answer is there */
};

/**
 * struct cis_layer_ops - a kind of layer
 * @enter: a request has come; may change @h->inner, @h->due_ns and @h->choice.  Return: whether the store below is to be
 *         asked; if not, @h->err is the answer
 * @leave: the store below has answered with @h->err, @now is the time; may change the bytes, @h->err and @h->due_ns.  NULL: does not
 * @fini:  NULL: nothing to give back but @ctx of cis_layer_open(), which stays its owner's
 */
struct cis_layer_ops {
	bool (*enter)(struct cis_layer *l, struct cis_held *h);
	void (*leave)(struct cis_layer *l, struct cis_held *h, uint64_t now);
	void (*fini)(struct cis_layer *l);
};

struct cis_layer {
	struct cis_store store;
	struct cis_store_ops store_ops; /* it can what the store below can */
	const struct cis_layer_ops *ops;
	void *ctx;
	void *mine; /* the layer's, of this handle; freed with it */
	struct cis_store *inner;
	int timer, epoll; /* epoll: the timers and the store below of a whole stack; it is what a caller polls */
	bool owns_epoll;  /* the lowest layer does: the kernel lets epolls watch each other five deep, and the caller's counts */
	struct cis_held *first, *last;
	uint64_t armed_ns;
	uint64_t finished; /* requests */
};

/**
 * cis_layer_open() - a handle of a layer
 * @inner: taken over, also on failure
 * @name:  for texts
 */
int cis_layer_open(const struct cis_layer_ops *ops, const char *name, void *ctx, struct cis_store *inner,
		   struct cis_store **ret, struct cis_error *err);

/** struct cis_when - when a layer does its work; 0: no such condition, and all that are there must hold */
struct cis_when {
	unsigned op;	     /* 1 + the enum cis_store_op */
	uint64_t every;	     /* each n-th request */
	uint64_t from;	     /* from that request on, the first one is 1 */
	double chance;	     /* each with this probability */
	uint64_t off, len;   /* requests that want a byte of this range; len 0 with an off: to the end */
	uint64_t for_ns;     /* so long from the first request on that meets the others */
	char *trigger;	     /* while there is a file of this name */
	uint64_t seed;
	_Atomic uint64_t nr; /* requests that were in the range, and while the trigger was there; of all handles */
	_Atomic uint64_t since_ns;
};

/** cis_when_now() - is this request to be dealt with?  @ret_random: a number for it, the same in each run with the same seed */
bool cis_when_now(struct cis_when *w, const struct cis_store_req *req, uint64_t *ret_random);

/** cis_layer_random() - the next number after @x; 64 good bits of any x (splitmix64). */
uint64_t cis_layer_random(uint64_t x);

/** struct cis_layer_opts - what the text says of one layer; zero: not given */
struct cis_layer_opts {
	struct cis_when when;
	unsigned how; /* index into the words of the layer's key how, or shape */
	int error;    /* positive errno */
	uint64_t time_ns, min_ns, max_ns, p50_ns, p99_ns;
};

enum cis_layer_type { CIS_KEY_COUNT, CIS_KEY_SEED, CIS_KEY_CHANCE, CIS_KEY_TIME, CIS_KEY_SIZE, CIS_KEY_PATH, CIS_KEY_WORD, CIS_KEY_ERRNO };

/** struct cis_layer_key - a key of a layer's text; @at: in struct cis_layer_opts; @words: of CIS_KEY_WORD, between bars */
struct cis_layer_key {
	const char *name;
	enum cis_layer_type type;
	size_t at;
	const char *words;
};

/**
 * struct cis_layer_kind - a layer that can be named in a text; ctx of its handles is the struct cis_layer_opts
 * @keys:  its own, beside those of struct cis_when; ends with a NULL name
 * @check: are the keys that were given enough, and do they go together?  Fills in what was left out.  Return: 0 or -EINVAL
 */
struct cis_layer_kind {
	const char *name;
	const struct cis_layer_key *keys;
	int (*check)(struct cis_layer_opts *o, struct cis_error *err);
	struct cis_layer_ops ops;
};

extern const struct cis_layer_kind cis_layer_fault, cis_layer_delay, cis_layer_corrupt;

/** cis_layer_wanted() - the bytes of a get that was answered: where they start in its buffer, and how many are needed. */
static inline uint32_t cis_layer_wanted(const struct cis_store_req *req, char **ret)
{
	*ret = (char *)req->buf + req->skip;
	return req->got ? req->got : req->want ? req->want : req->len;
}

#endif
