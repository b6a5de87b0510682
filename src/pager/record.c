/* Recording of first touches.  Where the state memfd has room for the trace it goes on when another engine takes over. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/point.h"
#include "pager/internal.h"

static int make_room(struct cis_pager *p)
{
	uint32_t *trace = p->o.state.trace;

	p->seen = calloc(cis_bitmap_words(p->nr_pages), sizeof(uint64_t));
	if (!trace)
		trace = calloc(p->nr_pages, sizeof(*trace)); /* takes memory as it is written */
	p->trace = trace;
	p->nr_trace = 0;
	if (p->seen && p->trace)
		return 0;
	cis_record_free(p);
	return -ENOMEM;
}

void cis_record_free(struct cis_pager *p)
{
	free(p->seen);
	if (!p->o.state.trace)
		free(p->trace);
	p->seen = NULL;
	p->trace = NULL;
	p->nr_trace = 0;
}

/* A word of the header that only layout 2 has. */
static void publish(struct cis_pager *p, uint32_t recording)
{
	struct cis_state_header *h = p->o.state.header;

	if (!p->o.state.trace)
		return;
	h->recording = recording && h->recording; /* never on before the count is right */
	__atomic_store_n(&h->nr_trace, p->nr_trace, __ATOMIC_RELEASE);
	__atomic_store_n(&h->recording, recording, __ATOMIC_RELEASE);
}

int cis_pager_record_start(struct cis_pager *p)
{
	int rc;

	if (p->seen)
		return -EALREADY;
	rc = make_room(p);
	if (!rc)
		publish(p, 1);
	return rc;
}

int cis_record_adopt(struct cis_pager *p, struct cis_error *err)
{
	const struct cis_state_header *h = p->o.state.header;

	if (!h->recording)
		return 0;
	if (make_room(p))
		return cis_fail(err, ENOMEM, "pager: out of memory for a trace");
	for (; p->nr_trace < h->nr_trace; p->nr_trace++) {
		uint32_t pgno = p->trace[p->nr_trace];

		if (cis_bit_test(p->seen, pgno))
			return cis_fail(err, EBADMSG, "state memfd: the trace names page %u twice", pgno);
		cis_bit_set(p->seen, pgno);
	}
	return 0;
}

void cis_record_touch(struct cis_pager *p, uint64_t pgno)
{
	if (!p->seen || cis_bit_test(p->seen, pgno))
		return;
	cis_bit_set(p->seen, pgno);
	p->trace[p->nr_trace] = (uint32_t)pgno;
	CIS_POINT(touch_written);
	p->nr_trace++;
	publish(p, 1);
	CIS_POINT(touch_counted);
}

int cis_pager_record_stop(struct cis_pager *p, uint32_t **ret, uint64_t *ret_nr)
{
	uint32_t *trace;

	if (!p->seen)
		return -EINVAL;
	trace = malloc((p->nr_trace ? p->nr_trace : 1) * sizeof(*trace));
	if (!trace)
		return -ENOMEM;
	memcpy(trace, p->trace, p->nr_trace * sizeof(*trace));
	*ret = trace;
	*ret_nr = p->nr_trace;
	cis_record_free(p);
	publish(p, 0);
	return 0;
}

bool cis_pager_recording(const struct cis_pager *p)
{
	return p->seen != NULL;
}

uint64_t cis_pager_recorded(const struct cis_pager *p)
{
	return p->nr_trace;
}
