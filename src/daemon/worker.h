/*
 * Worker threads: bulk work in four classes, the most urgent first.
 *
 * Today's jobs are fills, CIS_JOB_FILL before or right after resume and CIS_JOB_BACKGROUND for the rest of an image, and what takes pages
 * out of guests, CIS_JOB_RECLAIM.
 */
#ifndef CIS_DAEMON_WORKER_H
#define CIS_DAEMON_WORKER_H

#include "daemon/mailbox.h"
#include "pager/pager.h"

enum cis_job_class { CIS_JOB_DEMAND, CIS_JOB_FILL, CIS_JOB_BACKGROUND, CIS_JOB_RECLAIM, CIS_JOB_CLASSES };

/** struct cis_work - one job on its way; done is posted to @to with this as argument, which then owns it */
struct cis_work {
	struct cis_fill_job *job;    /* of these two */
	struct cis_evict_job *evict; /* one is NULL */
	struct cis_layers *layers; /* that a fill is read through, or NULL; outlives it */
	struct cis_mailbox *to;
	void (*done)(void *work);
	void *ctx;
	struct cis_work *next;
};

/* Jobs of one guest that a worker takes on at once when it has to wait for their bytes; of all guests a few more. */
#define CIS_JOBS_A_WORKER 3u

struct cis_workers;

/** cis_workers_create() - @nr threads.  Return: 0, -ENOMEM, -EAGAIN. */
int cis_workers_create(unsigned nr, struct cis_workers **ret);

/** cis_workers_destroy() - after the last job is done. */
void cis_workers_destroy(struct cis_workers *w);

/** cis_workers_submit() - from any thread. */
void cis_workers_submit(struct cis_workers *w, enum cis_job_class class, struct cis_work *work);

/** cis_workers_forget() - drop store handles that are kept open and not in use; each thread does so before its next job, or at once. */
void cis_workers_forget(struct cis_workers *w);

unsigned cis_workers_nr(const struct cis_workers *w);

#endif
