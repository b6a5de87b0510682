/* Namespaces: what there may be of each, and how it ends. */
#include <errno.h>
#include <stdlib.h>

#include "store/tier/tier.h"

/* Namespaces are random bits. */
static struct tier_ns **bucket(struct tier *t, const uint64_t ns[2])
{
	return &t->bucket[ns[0] % TIER_BUCKETS];
}

struct tier_ns *tier_ns_of(struct tier *t, const uint64_t ns[2], bool make)
{
	struct tier_ns **b = bucket(t, ns), *n = *b;

	while (n && (n->ns[0] != ns[0] || n->ns[1] != ns[1]))
		n = n->next;
	if (n || !make)
		return n;
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->ns[0] = ns[0];
	n->ns[1] = ns[1];
	n->next = *b;
	*b = n;
	return n;
}

struct cis_key tier_key(const struct tier_ns *ns, uint64_t id, unsigned level)
{
	return (struct cis_key){ { ns->ns[0], ns->ns[1] ^ (uint64_t)level << 60 }, id };
}

static void unlink_ns(struct tier *t, struct tier_ns *ns)
{
	struct tier_ns **at = bucket(t, ns->ns);

	while (*at != ns)
		at = &(*at)->next;
	*at = ns->next;
}

static bool is_empty(const struct tier_ns *ns)
{
	uint64_t nr = ns->in_flight + ns->entries;

	for (unsigned l = 0; l < TIER_LEVELS; l++)
		nr += ns->nr[l];
	return !nr && (!ns->live || ns->gone);
}

void tier_ns_check(struct tier *t, struct tier_ns *ns)
{
	if (ns->listed || !is_empty(ns))
		return;
	ns->listed = true;
	ns->next_idle = t->idle;
	t->idle = ns;
}

void tier_ns_let_go(struct tier *t, struct tier_ns *ns)
{
	ns->in_flight--;
	tier_ns_check(t, ns);
}

static void drop_in_levels(struct tier *t, const struct tier_ns *ns)
{
	for (unsigned l = 0; l < t->nr; l++) {
		struct cis_store *store = t->level[l].store;
		struct cis_key key = tier_key(ns, 0, l);

		if (store->ops->drop)
			store->ops->drop(store, key.ns);
	}
}

/* Where some level has to be emptied key by key, nobody says when the others may drop it: that is when nothing is left of it. */
void tier_ns_end_idle(struct tier *t)
{
	while (t->idle) {
		struct tier_ns *ns = t->idle;

		t->idle = ns->next_idle;
		ns->listed = false;
		if (!is_empty(ns))
			continue;
		if (!ns->gone)
			unlink_ns(t, ns);
		if (!ns->gone && ns->had)
			drop_in_levels(t, ns);
		free(ns);
	}
}

/* A put that was refused has left nothing; of others with keys nobody knows. */
static bool may_be_there(const struct tier_level *l, int err)
{
	return l->keyed && err && err != -ENOSPC && err != -EPERM && err != -EACCES && err != -EMSGSIZE && err != -EINVAL;
}

void tier_put_ended(struct tier *t, struct tier_ns *ns, unsigned level, int err)
{
	bool counts = !err && !ns->gone && t->level[level].store->ops->drop;

	ns->nr[level] += counts;
	ns->had |= counts;
	ns->scattered |= may_be_there(&t->level[level], err);
}

void tier_delete_ended(struct tier *t, struct tier_ns *ns, unsigned level, int err)
{
	ns->nr[level] -= !err && ns->nr[level];
	ns->scattered |= err && err != -ENOENT && t->level[level].keyed;
}

/* Its values in the table go by and by. */
static void forget(struct tier *t, struct tier_ns *ns)
{
	for (unsigned l = 0; l < t->nr; l++) {
		t->level[l].used -= ns->used[l];
		ns->nr[l] = 0;
	}
	if (ns->entries)
		t->index.sweep_left = t->index.top;
}

void tier_ns_drop(struct tier *t, const uint64_t ns[2])
{
	struct tier_ns *n = tier_ns_of(t, ns, true);

	if (!n)
		return; /* no memory: what is there stays until the machine ends */
	n->in_flight++;
	forget(t, n);
	unlink_ns(t, n);
	n->gone = true;
	for (unsigned i = 0; t->nr_moves && i < TIER_MOVES; i++)
		if (t->move[i].state != TIER_FREE && t->move[i].ns == n)
			tier_move_abort(&t->move[i]);
	drop_in_levels(t, n);
	tier_ns_let_go(t, n);
}

void tier_ns_fini(struct tier *t)
{
	for (unsigned i = 0; i < TIER_BUCKETS; i++)
		while (t->bucket[i]) {
			struct tier_ns *ns = t->bucket[i];

			t->bucket[i] = ns->next;
			free(ns);
		}
}
