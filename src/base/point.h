/*
 * Named points at which a test may stop or kill the program, or call something; nothing in an ordinary build.
 *
 * In the test build (-DCIS_POINTS) the environment says what happens there, once and at the start of the process:
 *
 *	CISTERN_POINT=NAME[:N[:kill|stop|abort]] at the N-th time (1) kill -9 itself, or stop by SIGSTOP, or fail by SIGABRT
 *	CISTERN_POINT_TOKEN=PATH		only who can unlink PATH does so: a test arms it by making the file, and a process
 *						that is started again does not die of it again
 *
 * A process without CISTERN_POINT looks at its parent's environment, since the keeper gives its engine none.  `PROGRAM --points`
 * prints all names.  A name that is not in the table does not compile, or ends the program when it comes from outside.
 */
#ifndef CIS_BASE_POINT_H
#define CIS_BASE_POINT_H

#include <stdbool.h>
#include <stddef.h>

#define CIS_POINTS_ALL(X)                                                                                     \
	/* events of the userfaultfd, in the order of their way */                                            \
	X(ring_read)	   /* the kernel has written events into the ring, nothing counts them */             \
	X(ring_committed)  /* they count */                                                                   \
	X(remove_page)	   /* one page of a REMOVE is marked */                                               \
	X(remove_marked)   /* all are */                                                                      \
	X(remove_woken)	   /* who waited there is woken */                                                    \
	X(remove_struck)   /* the REMOVE is struck out of the ring */                                         \
	X(fault_acted)	   /* one fault of the ring was acted on */                                           \
	X(ring_dropping)   /* one slot is zeroed */                                                           \
	X(ring_zeroed)	   /* all are, the tail stands where it was */                                        \
	X(ring_dropped)	   /* it has moved on */                                                              \
	/* installing */                                                                                      \
	X(word_busy)	   /* one page is claimed for what follows */                                         \
	X(content_written) /* the content is complete in the memfd, its words are as before */                \
	X(word_resident)   /* one word says RESIDENT, before CONTINUE or after COPY */                        \
	X(words_resident)  /* all of the run do */                                                            \
	X(page_installed)  /* the kernel has copied or zeroed, no word says so */                             \
	X(page_mapped)	   /* CONTINUE is done */                                                             \
	X(word_given_back) /* one page that was not installed is ABSENT again */                              \
	X(page_poisoned)   /* the kernel has poisoned, no word says so */                                     \
	/* reads for faults */                                                                                \
	X(fetch_submitted) /* a chunk is being read */                                                        \
	X(fetch_arrived)   /* its bytes are there */                                                          \
	X(fetch_wanted)	   /* pages that were waited for are in, neighbours are not */                        \
	X(fetch_installed) /* all are, the read is still listed */                                            \
	/* fill jobs */                                                                                       \
	X(job_claimed)	   /* its pages are BUSY */                                                           \
	X(job_begun)	   /* its read is submitted */                                                        \
	X(job_decoded)	   /* a unit is decoded and verified, in place or aside */                            \
	X(job_unit)	   /* a unit is installed */                                                          \
	X(job_settled)	   /* all its words are settled */                                                    \
	X(fill_level)	   /* a level is complete */                                                          \
	/* reclaim */                                                                                         \
	X(evict_claimed)   /* its pages are HELD */                                                           \
	X(evict_protected) /* one run is protected against writes */                                          \
	X(evict_stashed)   /* one page is in the stash, its word is as before */                              \
	X(evict_word)	   /* its word says where it is; it is in the guest still */                          \
	X(evict_punched)   /* one run is out of the guest */                                                  \
	X(evict_settled)   /* one word is HELD no more */                                                     \
	X(evict_done)	   /* all are */                                                                      \
	X(stash_copied)	   /* one value lies twice in the stash, its word names the old one */                \
	X(stash_moved)	   /* its word names the new one */                                                   \
	X(stash_coming)    /* one page is about to be installed from the stash */                             \
	X(stash_come)	   /* it is, and in the stash too */                                                  \
	X(far_coming)      /* one page is being read from the store */                                        \
	X(far_come)        /* it is installed */                                                              \
	X(put_inflight)    /* one page is about to be written to the store */                                 \
	X(put_far)         /* it is there, its word says so, and it is in the stash too */                    \
	X(far_deleting)    /* copies that nobody wants are about to be deleted in the store */                \
	X(page_dirty)      /* a page is as in the store no more, its word says so, it is still protected */   \
	X(unprotected)	   /* a page may be written to again */                                               \
	/* recording */                                                                                       \
	X(touch_written)   /* a first touch is in the trace, not counted */                                   \
	X(touch_counted)                                                                                      \
	/* taking over */                                                                                     \
	X(adopt_marked)	   /* one REMOVE is acted on once more */                                             \
	X(adopt_struck)	   /* and struck out */                                                               \
	X(adopt_replayed)  /* all are */                                                                      \
	X(adopt_word)	   /* one BUSY word is ABSENT */                                                      \
	X(adopt_words)	   /* all are */                                                                      \
	X(adopt_inflight)  /* one page that was being written is in the stash alone */                        \
	X(adopt_punched)   /* one page that was HELD is out of the guest for certain */                       \
	X(adopt_slot)	   /* one slot of the ring is empty */                                                \
	X(adopt_ring)	   /* all are */                                                                      \
	X(header_shadow)   /* the new header stands beside the old one */                                     \
	X(header_generation) /* the generation is new, its checksum is not */                                 \
	X(adopt_header)	   /* the header is new */                                                            \
	X(adopt_woken)	   /* one region is woken */                                                          \
	/* handing over */                                                                                    \
	X(pause_asked)	   /* nothing new begins */                                                           \
	X(paused)	   /* nothing is in flight */                                                         \
	X(resumed)                                                                                            \
	X(handed_over)	   /* the engine that is followed has said all */                                     \
	/* following */                                                                                       \
	X(standby_opened)  /* all guests are open, the keeper is told next */                                 \
	X(standby_read)	   /* what was handed over is read, no guest is seated */                             \
	X(standby_seated)  /* all are, the keeper is told next */                                             \
	X(standby_goes)	   /* it was told to serve */                                                                  \
	/* the ledger */                                                                                     \
	X(ledger_buried)   /* a guest that goes is written, the keeper knows it still */                      \
	X(ledger_summed)   /* a guest that is forgotten is in the sums, and in its slot */                    \
	X(ledger_cleared)  /* in the sums alone */                                                            \
	/* the keeper, when an engine has ended */                                                            \
	X(keeper_engine_ended) /* its last thread has, its last words are unread */                           \
	X(keeper_heard_out)    /* they are obeyed, its wire is closed */                                      \
	X(keeper_engine_gone)  /* what follows is decided */                                                  \
	X(keeper_starting)     /* the next one, or a standby, is about to be started */                       \
	X(keeper_started)      /* it is, nothing is said yet */                                               \
	X(keeper_replayed)     /* it was told everything */                                                   \
	/* and when one hands over to another */                                                              \
	X(keeper_hello)	       /* the standby has said what it is */                                          \
	X(keeper_ready)	       /* it has read everything, the other one is to be told to pause */             \
	X(keeper_quiesced)     /* it was told */                                                              \
	X(keeper_swapped)      /* it has given a state in another layout */                                   \
	X(keeper_handed_over)  /* it has paused */                                                            \
	X(keeper_taken)	       /* the standby was given what it handed over */                                \
	X(keeper_committing)   /* the standby can serve, and nothing is changed yet */                        \
	X(keeper_committed)    /* it serves, nobody was told */                                               \
	X(keeper_go)	       /* it was told */                                                              \
	X(keeper_let_go)       /* the other one was told */                                                   \
	X(keeper_failed)       /* the standby is being killed */                                              \
	X(keeper_undone)       /* it is gone, the other one was not told to go on */                          \
	X(keeper_resumed)      /* it was */                                                                   \
	/* and when it has come up, as another program maybe */                                               \
	X(keeper_became)       /* all that it was given is there twice */

enum cis_point {
#define X(name) CIS_POINT_##name,
	CIS_POINTS_ALL(X)
#undef X
	CIS_POINT_NR
};

#ifdef CIS_POINTS
void cis_point_hit(enum cis_point point);
const char *cis_point_name(enum cis_point point);

/** cis_point_hook - called at each point, on the thread that is there; a unit test's */
extern void (*cis_point_hook)(enum cis_point point);

/**
 * cis_point_variable() - an environment variable of this process if it has the variable @first, else of its parent
 *
 * The keeper gives its engine no environment.  Return: whether it is there; @ret is cut to @max bytes.
 */
bool cis_point_variable(const char *first, const char *name, char *ret, size_t max);

#define CIS_POINT(name) cis_point_hit(CIS_POINT_##name)
#else
#define CIS_POINT(name) ((void)0)
#endif

#endif
