/*
 * nudge.h: a thread that asks the kernel for memory is not put to sleep for it.
 *
 * Who asks for memory when less than half of the least watermark is free has to sleep in the kernel
 * (throttle_direct_reclaim), a second each time where it may not wait for file systems, as a swap
 * server must not (PR_SET_IO_FLUSHER). Only kswapd ends that sooner, and kswapd may be waiting for
 * this very thread to read its socket (tried in a guest: the filler of the reserve and the thread of
 * the kernel's connection were found there, at one time, for up to two seconds; boosted watermarks
 * make it likely, since the boost counts for that half). A signal ends that sleep, and the page that
 * was asked for is mostly there by then: so a timer of its own sends a thread SIGURG all the while.
 *
 * Nothing is done where the process has a handler of its own for SIGURG.
 */
#ifndef FSW_NUDGE_H
#define FSW_NUDGE_H

#define FSW_NUDGE_EVERY_NS 10000000

/* The calling thread may be nudged from now on; its timer is made. First thing in a thread; once. */
void fsw_nudge_prepare(void);

/* In between, the thread gets a signal every FSW_NUDGE_EVERY_NS: calls that can't be started again
 * (poll, sleep) fail with EINTR. Nothing in a thread that is not prepared. Neither blocks nor
 * allocates. */
void fsw_nudge_begin(void);
void fsw_nudge_end(void);

#endif
