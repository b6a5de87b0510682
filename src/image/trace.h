/* Trace files: the order of first touches of a run; doc/format.md section 9. */
#ifndef CIS_IMAGE_TRACE_H
#define CIS_IMAGE_TRACE_H

#include <stdint.h>

#include "base/error.h"

/** struct cis_trace - @pgno is malloc'ed by cis_trace_load() and freed by cis_trace_fini() */
struct cis_trace {
	unsigned page_shift;
	uint64_t guest_bytes;
	uint8_t image_id[32];
	uint64_t nr;
	uint32_t *pgno;
};

/** cis_trace_load() - Return: 0, -EMEDIUMTYPE, -EBADMSG, -EPROTONOSUPPORT, or of the file. */
int cis_trace_load(const char *path, struct cis_trace *ret, struct cis_error *err);

/** cis_trace_save() - written beside, synced and renamed. */
int cis_trace_save(const char *path, const struct cis_trace *trace, struct cis_error *err);
void cis_trace_fini(struct cis_trace *trace);

#endif
