#include "daemon/stores.h"

#include <errno.h>
#include <stdlib.h>

struct cis_store *cis_stores_of(struct cis_stores *s, const struct cis_image *img, struct cis_error *err)
{
	struct cis_stores_entry *more;
	struct cis_store *store;

	for (size_t i = 0; i < s->nr; i++)
		if (s->entry[i].img == img)
			return s->entry[i].store;
	more = realloc(s->entry, (s->nr + 1) * sizeof(*more));
	if (!more) {
		cis_fail(err, ENOMEM, "store: out of memory");
		return NULL;
	}
	s->entry = more;
	if (cis_store_file_open(cis_image_fd(img), &store, err))
		return NULL;
	s->entry[s->nr++] = (struct cis_stores_entry){ cis_image_ref((struct cis_image *)img), store };
	return store;
}

static void close_entry(struct cis_stores_entry *e)
{
	cis_store_close(e->store);
	cis_image_unref(e->img);
}

void cis_stores_fini(struct cis_stores *s)
{
	for (size_t i = 0; i < s->nr; i++)
		close_entry(&s->entry[i]);
	free(s->entry);
	*s = (struct cis_stores){ 0 };
}

void cis_stores_drop(struct cis_stores *s, const struct cis_image *img)
{
	for (size_t i = 0; i < s->nr; i++)
		if (s->entry[i].img == img) {
			close_entry(&s->entry[i]);
			s->entry[i] = s->entry[--s->nr];
			return;
		}
}
