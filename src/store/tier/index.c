/* Which values are in the levels before the last: how much of a level is used, and what leaves it next. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "store/layer.h"
#include "store/tier/tier.h"

/* Pages that nobody has touched take no memory, so it may be as large as it could ever have to be. */
static void *map(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int tier_index_init(struct tier_index *x, uint64_t capacity)
{
	uint64_t buckets = 1024;

	x->size = capacity / TIER_LEAST + 1;
	if (x->size > UINT32_MAX)
		x->size = UINT32_MAX;
	while (buckets < x->size / 4)
		buckets *= 2;
	x->bucket_mask = buckets - 1;
	x->top = 1;
	x->value = map(x->size * sizeof(*x->value));
	x->bucket = map(buckets * sizeof(*x->bucket));
	return x->value && x->bucket ? 0 : -ENOMEM;
}

void tier_index_fini(struct tier_index *x)
{
	if (x->value)
		munmap(x->value, x->size * sizeof(*x->value));
	if (x->bucket)
		munmap(x->bucket, (x->bucket_mask + 1) * sizeof(*x->bucket));
}

static uint32_t *bucket(const struct tier_index *x, const struct tier_ns *ns, uint64_t id)
{
	return &x->bucket[cis_layer_random(ns->ns[0] ^ cis_layer_random(id)) & x->bucket_mask];
}

uint32_t tier_find(const struct tier *t, const struct tier_ns *ns, uint64_t id)
{
	const struct tier_index *x = &t->index;
	uint32_t i = ns ? *bucket(x, ns, id) : 0;

	while (i && (x->value[i].id != id || x->value[i].ns != ns))
		i = x->value[i].chain;
	return i;
}

void tier_list(struct tier *t, uint32_t i)
{
	struct tier_value *v = &t->index.value[i];
	struct tier_level *l = &t->level[v->level];

	v->moving = false;
	v->newer = 0;
	v->older = l->newest;
	*(l->newest ? &t->index.value[l->newest].newer : &l->oldest) = i;
	l->newest = i;
}

void tier_unlist(struct tier *t, uint32_t i)
{
	struct tier_value *v = &t->index.value[i];
	struct tier_level *l = &t->level[v->level];

	*(v->older ? &t->index.value[v->older].newer : &l->oldest) = v->newer;
	*(v->newer ? &t->index.value[v->newer].older : &l->newest) = v->older;
	v->moving = true;
}

static uint32_t take_free(struct tier_index *x)
{
	uint32_t i = x->free;

	if (i)
		x->free = x->value[i].chain;
	else if (x->top < x->size)
		i = x->top++;
	return i;
}

void tier_count(struct tier *t, struct tier_ns *ns, unsigned level, int64_t bytes)
{
	if (ns->gone || level + 1 == t->nr)
		return;
	ns->used[level] += (uint64_t)bytes;
	t->level[level].used += (uint64_t)bytes;
}

bool tier_add(struct tier *t, unsigned level, struct tier_ns *ns, uint64_t id, uint32_t loc, uint32_t len)
{
	struct tier_index *x = &t->index;
	uint32_t i = take_free(x), *b = bucket(x, ns, id);

	if (!i)
		return false;
	x->value[i] = (struct tier_value){ .id = id, .ns = ns, .loc = loc, .len = (uint16_t)len, .level = (uint8_t)level, .chain = *b };
	*b = i;
	ns->entries++;
	tier_list(t, i);
	return true;
}

void tier_remove(struct tier *t, uint32_t i)
{
	struct tier_index *x = &t->index;
	struct tier_value *v = &x->value[i];
	uint32_t *at = bucket(x, v->ns, v->id);

	while (*at != i)
		at = &x->value[*at].chain;
	*at = v->chain;
	if (!v->moving)
		tier_unlist(t, i);
	tier_count(t, v->ns, v->level, -(int64_t)tier_cost(v->len));
	v->ns->entries--;
	v->ns = NULL;
	v->chain = x->free;
	x->free = i;
}

/* Second chance: one that was asked for since it came, or since it was looked at, becomes the newest. */
uint32_t tier_oldest(struct tier *t, unsigned level)
{
	for (int tries = 0; tries < 64; tries++) {
		uint32_t i = t->level[level].oldest;
		struct tier_value *v = &t->index.value[i];

		if (!i || !v->touched)
			return i;
		v->touched = false;
		tier_unlist(t, i);
		tier_list(t, i);
	}
	return t->level[level].oldest;
}

void tier_learn(struct tier *t, uint32_t i, uint32_t len)
{
	struct tier_value *v = &t->index.value[i];

	if (!v->guessed)
		return;
	tier_count(t, v->ns, v->level, (int64_t)tier_cost(len) - tier_cost(v->len));
	v->len = (uint16_t)len;
	v->guessed = false;
}

void tier_sweep(struct tier *t)
{
	struct tier_index *x = &t->index;

	for (int n = 0; x->sweep_left && n < 256; n++, x->sweep_left--) {
		uint32_t i = x->sweep_at = x->sweep_at + 1 < x->top ? x->sweep_at + 1 : 1;
		struct tier_ns *ns = x->value[i].ns;

		if (!ns || !ns->gone || x->value[i].moving)
			continue;
		tier_remove(t, i);
		tier_ns_check(t, ns);
	}
}
