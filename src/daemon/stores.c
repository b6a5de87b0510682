#include "daemon/stores.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct cis_store *open_through(struct cis_stores *s, const struct cis_image *img, struct cis_layers *layers,
				      struct cis_error *err)
{
	struct cis_store *store;
	int rc;

	if (cis_store_file_open(cis_image_fd(img), &store, err) || cis_layers_open(layers, store, &store, err))
		return NULL;
	rc = s->watch ? s->watch(s, cis_store_fd(store)) : 0;
	if (!rc)
		return store;
	cis_fail(err, -rc, "store: epoll: %s", strerror(-rc));
	cis_store_close(store);
	return NULL;
}

struct cis_store *cis_stores_of(struct cis_stores *s, const struct cis_image *img, struct cis_layers *layers,
				struct cis_error *err)
{
	struct cis_stores_entry *more;
	struct cis_store *store;

	for (size_t i = 0; i < s->nr; i++)
		if (s->entry[i].img == img && s->entry[i].layers == layers)
			return s->entry[i].store;
	more = realloc(s->entry, (s->nr + 1) * sizeof(*more));
	if (!more) {
		cis_fail(err, ENOMEM, "store: out of memory");
		return NULL;
	}
	s->entry = more;
	store = open_through(s, img, layers, err);
	if (store)
		s->entry[s->nr++] = (struct cis_stores_entry){ cis_image_ref((struct cis_image *)img), cis_layers_ref(layers), store };
	return store;
}

static void close_entry(struct cis_stores_entry *e)
{
	cis_store_close(e->store);
	cis_layers_unref(e->layers);
	cis_image_unref(e->img);
}

void cis_stores_fini(struct cis_stores *s)
{
	for (size_t i = 0; i < s->nr; i++)
		close_entry(&s->entry[i]);
	free(s->entry);
	*s = (struct cis_stores){ 0 };
}

void cis_stores_drop(struct cis_stores *s, const struct cis_image *img, const struct cis_layers *layers)
{
	for (size_t i = 0; i < s->nr;) {
		struct cis_stores_entry *e = &s->entry[i];

		if (e->img != img && (!layers || e->layers != layers)) {
			i++;
			continue;
		}
		close_entry(e);
		*e = s->entry[--s->nr];
	}
}

static bool is_among(const struct cis_store *store, struct cis_store *const *keep, size_t n)
{
	while (n && keep[n - 1] != store)
		n--;
	return n;
}

void cis_stores_keep(struct cis_stores *s, struct cis_store *const *keep, size_t n)
{
	for (size_t i = 0; i < s->nr;) {
		if (is_among(s->entry[i].store, keep, n)) {
			i++;
			continue;
		}
		close_entry(&s->entry[i]);
		s->entry[i] = s->entry[--s->nr];
	}
}
