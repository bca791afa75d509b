/*
 * frames.h: which 4 KiB frames of the image are free, and the reserve that is kept touched.
 *
 *             take                     attach (their owner)
 *      ready ------> in the taker's hand ------> named by a zspage or by the directory
 *        ^  <------                      <------
 *        |    give
 *        |  filler: touch, or give back to the system (MADV_REMOVE)
 *        v
 *      untouched: below frames_top and given back, or above it and never used
 *
 *   F1  A frame is in exactly one of these places. 0 is no frame.
 *   F2  resident (used + ready) + overhead <= limit, always: memory= bounds what the image takes;
 *       and <= limit - headroom when a frame is taken or touched for the reserve. But for a limit
 *       that was lowered below it: until that debt is gone only charges grow.
 *   F3  Nobody but the filler asks the system for memory, which may take for ever when it has none:
 *       the system may be waiting for the very request that asks. Who finds the reserve empty waits
 *       for the filler, or for a frame that somebody gives, FSW_FILLER_WAIT_NS at most, and that is
 *       counted (reserve_misses).
 *   F4  Once that was too long, nobody waits again before the filler has come back with a frame:
 *       writes fail at once, and a failed write to swap lets the system go on.
 *
 * Derived state, private to the server: lost with it and rebuilt. Its lock is the last one taken.
 */
#ifndef FSW_FRAMES_H
#define FSW_FRAMES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "core/image.h"

/* What the filler keeps ready: 2 MiB holds sixteen 128 KiB requests in flight that don't compress.
 */
#define FSW_RESERVE_FRAMES 512u
/* More than a filler that gets its turn ever takes (nudge.h); below half an nbd client's patience. */
#define FSW_FILLER_WAIT_NS 1000000000ull
/* What only charges may use: the evictor needs a row before it can free anything, so growth of the
 * arrays must not lose to the writers that wait for it. Refilled first when frames come back. */
#define FSW_HEADROOM_FRAMES 4u
/* A pool smaller than this can't work: reserve, and an open zspage of several classes. */
#define FSW_POOL_MIN_BYTES (1024u * 1024u)

struct fsw_frames {
    struct fsw_image *image;
    pthread_mutex_t lock;
    uint32_t *ready; /* a stack */
    uint32_t ready_room;
    uint64_t *untouched; /* bit: below frames_top, free, not resident */
    uint32_t untouched_count, untouched_hint;
    uint32_t target; /* what the reserve should hold */
    _Atomic uint32_t nready;
    _Atomic uint32_t used;     /* taken and not given */
    _Atomic uint32_t overhead; /* frames of the image that are not in the frame area */
    _Atomic uint32_t limit;
    _Atomic uint32_t kept; /* of the reserve, only for who may use it (fsw_frames_use_kept) */

    /* called, without the lock, when free() falls below low: reclaim wakes */
    void (*pressure)(void *opaque);
    void *opaque;
    _Atomic uint32_t low;

    /* called by the filler, without the lock, at each of its looks: metadata ahead of need */
    void (*ahead)(void *opaque);
    void *ahead_opaque;

    pthread_t filler;
    pthread_cond_t wake, filled;
    uint32_t filling; /* frames in the filler's hands: who finds none waits for these */
    uint64_t looks;   /* rounds that the filler has made */
    uint64_t brought; /* frames that it has touched, ever */
    int asked;        /* for another round */
    int starved;      /* F4 */
    uint64_t wait_ns; /* for the filler: FSW_FILLER_WAIT_NS, unless a test waits longer */
    _Atomic int running;
    int stop;
};

/* For an image that is new, or else is rebuilt before anything is taken. */
int fsw_frames_init(struct fsw_frames *frames, struct fsw_image *image, uint64_t memory);
void fsw_frames_deinit(struct fsw_frames *frames);

/* Rebuilding, before there is any other thread. Frames outside the frame area that were touched are
 * charged, whatever the limit; frames that somebody names are claimed (-EUCLEAN: there is no such
 * frame, or somebody else has it), or disclaimed again; then the rest becomes ready or untouched, as
 * it is resident or not. */
void fsw_frames_rebuild_begin(struct fsw_frames *frames);
void fsw_frames_rebuild_charge(struct fsw_frames *frames, uint32_t count);
int fsw_frames_claim(struct fsw_frames *frames, uint32_t frame);
void fsw_frames_disclaim(struct fsw_frames *frames, uint32_t frame);
void fsw_frames_rebuilt(struct fsw_frames *frames);

/* The filler. Until it runs, takers touch for themselves. */
int fsw_frames_start(struct fsw_frames *frames);
void fsw_frames_stop(struct fsw_frames *frames);

/* A touched frame, content arbitrary, or 0: the limit is reached, or the system has no memory. May
 * wait for the filler (F3). */
uint32_t fsw_frames_take(struct fsw_frames *frames);
void fsw_frames_give(struct fsw_frames *frames, uint32_t frame);

/* From now on the calling thread may take the last of the reserve, too, or may not. What is kept there is
 * for who makes room, when pool and store are both full. */
void fsw_frames_use_kept(int yes);

/* Waits for the filler to make a whole round: metadata ahead of need included. -ENOSPC: it did not
 * in FSW_FILLER_WAIT_NS, or there is none. */
int fsw_frames_await_look(struct fsw_frames *frames);

/* memory= changed. A reserve beyond it is given back at once; what is used beyond it leaves by
 * reclaim. */
void fsw_frames_set_limit(struct fsw_frames *frames, uint64_t memory);

/* Accounts for `count` more frames of the image outside the frame area, before they are touched.
 * At the limit the reserve gives way, and then the headroom. -ENOSPC: neither is there. In debt it
 * is allowed: without a row nothing could leave, and a frame of rows lets thousands go. */
int fsw_frames_charge(struct fsw_frames *frames, uint32_t count);

/* Takes a charge back whose frames could not be touched. */
void fsw_frames_uncharge(struct fsw_frames *frames, uint32_t count);

/* Frames that may still be taken before the limit, but those that are kept. */
uint32_t fsw_frames_free(struct fsw_frames *frames);

/* Frames taken beyond the limit: it was lowered. They leave by reclaim. */
uint32_t fsw_frames_debt(struct fsw_frames *frames);

#endif
