/*
 * Reads and writes of files that the kernel does aside: one io_uring of one thread.  Where the kernel gives none, or takes nothing for
 * want of memory, the calls themselves, here and now, which holds up the thread.  Internal to this folder.
 *
 * What is pushed begins with cis_aio_flush(), and done comes from that or from cis_aio_reap().
 */
#ifndef CIS_STORE_AIO_H
#define CIS_STORE_AIO_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

enum cis_aio_what {
	CIS_AIO_READ,
	CIS_AIO_WRITE,
	CIS_AIO_PUNCH, /* a hole */
	CIS_AIO_CLOSE,
};

/**
 * struct cis_aio_op - one of them; the caller's, and stays until done
 * @len:  of a hole up to what a file can have
 * @done: @res is the number of bytes, less than @len only at the end of the file, or -errno
 */
struct cis_aio_op {
	enum cis_aio_what what;
	int fd;
	void *buf;
	uint64_t off, len;
	void (*done)(struct cis_aio_op *op, int res);

	/* aio's */
	struct cis_aio_op *next;
	uint64_t progress;
	enum { CIS_AIO_GOES_ON, CIS_AIO_TO_STOP, CIS_AIO_STOPPED } stop;
};

#define CIS_AIO_DEPTH 64u		    /* in the kernel at once; others wait, in order */
#define CIS_AIO_RING  (CIS_AIO_DEPTH * 2) /* room for a cancel of each */

struct cis_aio {
	int event;    /* eventfd: the ring has completions */
	int has_ring; /* made at the first op: most images are warm; -1: the kernel gives none */
	struct io_uring ring;
	unsigned in_ring;	   /* ops */
	unsigned in_kernel;	   /* of these */
	bool is_op[CIS_AIO_RING]; /* by number of the entry, which counts from 0 */
	unsigned pushed, sent;
	uint64_t wanted_ns, alarm_ns; /* the timer: is to be set to, is set to; 0: is not */
	struct __kernel_timespec alarm;
	bool to_stop;			       /* some op of the ring is */
	struct cis_aio_op *live;	       /* in the ring, by next */
	struct cis_aio_op *queue, **queue_end; /* waiting for room in the ring, in order */
};

int cis_aio_init(struct cis_aio *aio);

/** cis_aio_fini() - what is still with the kernel never comes back, and its buffer must not be used for anything else. */
void cis_aio_fini(struct cis_aio *aio);

/** cis_aio_has_ring() - makes it if it has not been tried yet; without one there are no alarms. */
bool cis_aio_has_ring(struct cis_aio *aio);

static inline bool cis_aio_busy(const struct cis_aio *aio)
{
	return aio->in_ring || aio->queue;
}

void cis_aio_push(struct cis_aio *aio, struct cis_aio_op *op);
void cis_aio_flush(struct cis_aio *aio);

/**
 * cis_aio_stop() - make done come soon, with -ECANCELED unless it was finished; flush it
 *
 * The kernel lets go of what a disk has only when the disk answers.
 *
 * Return: whether it had not begun; it is the caller's again then, and done is not called.
 */
bool cis_aio_stop(struct cis_aio *aio, struct cis_aio_op *op);

/** cis_aio_alarm() - @at_ns the event is readable; once, only while there is a ring, and an earlier one does for later ones. */
void cis_aio_alarm(struct cis_aio *aio, uint64_t at_ns);

/** cis_aio_reap() - done of up to @max that are finished. */
void cis_aio_reap(struct cis_aio *aio, unsigned max);

/** cis_aio_wait() - until there is something to reap or the time has come (0: it never does); at once when nothing is going on. */
void cis_aio_wait(struct cis_aio *aio, uint64_t deadline_ns);

#endif
