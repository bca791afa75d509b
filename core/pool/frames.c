/*
 * frames.c: the stack of ready frames, the map of untouched ones, and the filler between them.
 *
 * Takers pop and push under one short lock. The filler works in batches: it takes frame numbers out
 * of the map under the lock, touches them without it, and pushes them.
 */
#include "core/pool/frames.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/clock.h"
#include "common/cleanup.h"
#include "common/nudge.h"
#include "common/touch.h"
#include "core/crash.h"

#define BATCH 64u

#define get(x) atomic_load_explicit(&(x), memory_order_relaxed)

/* Private, zero, and touched only where used. */
static void *reserve_space(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    madvise(p, bytes, MADV_NOHUGEPAGE);
    return p;
}

static size_t map_bytes(const struct fsw_frames *frames)
{
    return (frames->image->super->frames + 63) / 64 * sizeof(uint64_t);
}

int fsw_frames_init(struct fsw_frames *frames, struct fsw_image *image, uint64_t memory)
{
    uint32_t limit =
        (uint32_t)(memory / FSW_FRAME_SIZE < UINT32_MAX ? memory / FSW_FRAME_SIZE : UINT32_MAX);

    memset(frames, 0, sizeof *frames);
    frames->image = image;
    frames->limit = limit;
    frames->wait_ns = FSW_FILLER_WAIT_NS;
    frames->overhead = (uint32_t)(image->super->rows_at / FSW_FRAME_SIZE);
    fsw_stat_restart(image, FSW_STAT_MEM_USED_TOTAL, image->super->rows_at);
    frames->target = limit / 16 < FSW_RESERVE_FRAMES ? limit / 16 : FSW_RESERVE_FRAMES;
    /* Give() never has to wait for the filler: everything that can be resident fits the stack,
     * also after the limit was raised. */
    frames->ready_room = (uint32_t)image->super->frames;
    frames->ready = reserve_space((size_t)frames->ready_room * sizeof(uint32_t));
    frames->untouched = reserve_space(map_bytes(frames));
    if (frames->ready == NULL || frames->untouched == NULL)
        return -ENOMEM;
    if (atomic_load(&image->super->frames_top) == 0)
        atomic_store(&image->super->frames_top, 1); /* frame 0 is "none" */
    pthread_mutex_init(&frames->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&frames->wake, &monotonic);
    pthread_cond_init(&frames->filled, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return 0;
}

void fsw_frames_deinit(struct fsw_frames *frames)
{
    if (frames->ready != NULL)
        munmap(frames->ready, (size_t)frames->ready_room * sizeof(uint32_t));
    if (frames->untouched != NULL)
        munmap(frames->untouched, map_bytes(frames));
    frames->ready = NULL;
    frames->untouched = NULL;
}

uint32_t fsw_frames_free(struct fsw_frames *frames)
{
    uint32_t gone =
        get(frames->used) + get(frames->overhead) + get(frames->kept) + FSW_HEADROOM_FRAMES;
    uint32_t limit = get(frames->limit);
    return gone < limit ? limit - gone : 0;
}

uint32_t fsw_frames_debt(struct fsw_frames *frames)
{
    uint32_t gone = get(frames->used) + get(frames->overhead) + FSW_HEADROOM_FRAMES;
    uint32_t limit = get(frames->limit);
    return gone > limit ? gone - limit : 0;
}

/* What the reserve should hold, with what is kept of it. */
static uint32_t goal(struct fsw_frames *frames)
{
    return frames->target + get(frames->kept);
}

/* The limit leaves room for so many frames (F2). The lock is held. */
static int fits(struct fsw_frames *frames, uint32_t count)
{
    return (uint64_t)get(frames->used) + get(frames->nready) + get(frames->overhead) + count <=
           get(frames->limit);
}

static int may_touch(struct fsw_frames *frames, uint32_t count)
{
    return fits(frames, count + FSW_HEADROOM_FRAMES);
}

/* Lowest first, so that what is used stays together. The lock is held. 0: the image is full. */
static uint32_t pick_untouched(struct fsw_frames *frames)
{
    struct fsw_superblock *super = frames->image->super;
    uint32_t top = get(super->frames_top);

    if (frames->untouched_count > 0)
        for (uint32_t word = frames->untouched_hint / 64; word <= top / 64; word++)
            if (frames->untouched[word] != 0) {
                uint32_t frame = word * 64 + (uint32_t)__builtin_ctzll(frames->untouched[word]);
                frames->untouched[word] &= frames->untouched[word] - 1;
                frames->untouched_count--;
                frames->untouched_hint = frame;
                return frame;
            }
    if (top >= super->frames)
        return 0;
    /* Raised before the touch: what lies below top may be untouched, as long as nobody names it. */
    atomic_store_explicit(&super->frames_top, top + 1, memory_order_release);
    fsw_crash_point("frames: top raised, not touched");
    return top;
}

static void put_untouched(struct fsw_frames *frames, uint32_t frame)
{
    frames->untouched[frame / 64] |= 1ull << frame % 64;
    frames->untouched_count++;
    if (frame < frames->untouched_hint)
        frames->untouched_hint = frame;
}

/* To the system. The lock is held. */
static int give_back(struct fsw_frames *frames, uint32_t frame)
{
    if (madvise(fsw_image_frame(frames->image, frame), FSW_FRAME_SIZE, MADV_REMOVE) < 0)
        return -errno;
    fsw_crash_point("frames: one given back to the system");
    put_untouched(frames, frame);
    return 0;
}

/* ---- waiting for the filler ---- */

static _Thread_local int may_use_kept;

void fsw_frames_use_kept(int yes)
{
    may_use_kept = yes;
}

/* Frames of the reserve that the calling thread may take. */
static uint32_t takeable(struct fsw_frames *frames)
{
    uint32_t ready = get(frames->nready), kept = may_use_kept ? 0 : get(frames->kept);
    return ready > kept ? ready - kept : 0;
}

/* Waits for the filler's next sign of life, at most until the deadline. Who wakes up long after it stood
 * still himself, as a host does that is suspended or moved, and the filler with him: then it is put off.
 * The lock is held. */
static int await_filler(struct fsw_frames *frames, uint64_t *deadline)
{
    struct timespec until = fsw_timespec(*deadline);

    if (frames->starved)
        return -ENOSPC;
    frames->asked = 1;
    pthread_cond_signal(&frames->wake);
    if (pthread_cond_timedwait(&frames->filled, &frames->lock, &until) == ETIMEDOUT) {
        uint64_t now = fsw_now_ns();
        if (now - *deadline > frames->wait_ns / 4)
            *deadline = now + frames->wait_ns;
        else
            frames->starved = 1; /* F4: nobody waits again before the filler has come back */
    }
    return frames->starved ? -ENOSPC : 0;
}

/* The reserve is empty. Not for what the limit has no room for, and no longer than a round that
 * found the system without memory. The lock is held. */
static void await_frames(struct fsw_frames *frames)
{
    uint64_t deadline = fsw_now_ns() + frames->wait_ns, enough = frames->looks + 2;
    uint64_t brought = frames->brought;

    fsw_stat_add(frames->image, FSW_STAT_RESERVE_MISSES, 1);
    while (takeable(frames) == 0 && (frames->filling > 0 || may_touch(frames, 1)) &&
           frames->looks < enough && await_filler(frames, &deadline) == 0)
        if (frames->brought != brought) { /* there is memory; others were quicker */
            brought = frames->brought;
            enough = frames->looks + 2;
        }
}

int fsw_frames_await_look(struct fsw_frames *frames)
{
    uint64_t deadline = fsw_now_ns() + frames->wait_ns;
    FSW_LOCK_SCOPE(&frames->lock);
    uint64_t enough = frames->looks + 2; /* the one that is under way may have passed us */
    int r = frames->running ? 0 : -ENOSPC;

    while (r == 0 && frames->looks < enough)
        r = await_filler(frames, &deadline);
    return r;
}

/* Before there is a filler: one frame, by ourselves. The lock is held, and let go while touching. */
static uint32_t take_untouched(struct fsw_frames *frames)
{
    if (!may_touch(frames, 1))
        return 0;
    uint32_t frame = pick_untouched(frames);
    if (frame == 0)
        return 0;
    atomic_fetch_add_explicit(&frames->used, 1, memory_order_relaxed);
    pthread_mutex_unlock(&frames->lock);
    int r = fsw_image_touch(fsw_image_frame(frames->image, frame), FSW_FRAME_SIZE);
    pthread_mutex_lock(&frames->lock);
    if (r == 0)
        return frame;
    atomic_fetch_sub_explicit(&frames->used, 1, memory_order_relaxed);
    put_untouched(frames, frame);
    return 0;
}

uint32_t fsw_frames_take(struct fsw_frames *frames)
{
    uint32_t frame;
    {
        FSW_LOCK_SCOPE(&frames->lock);
        if (takeable(frames) == 0 && frames->running)
            await_frames(frames);
        uint32_t n = get(frames->nready);
        if (takeable(frames) > 0) {
            frame = frames->ready[n - 1];
            atomic_store_explicit(&frames->nready, n - 1, memory_order_relaxed);
            atomic_fetch_add_explicit(&frames->used, 1, memory_order_relaxed);
        } else {
            frame = frames->running ? 0 : take_untouched(frames);
        }
        if (n == goal(frames) / 2)
            pthread_cond_signal(&frames->wake);
    }
    if (frames->pressure != NULL && fsw_frames_free(frames) < get(frames->low))
        frames->pressure(frames->opaque);
    return frame;
}

void fsw_frames_give(struct fsw_frames *frames, uint32_t frame)
{
    FSW_LOCK_SCOPE(&frames->lock);
    uint32_t n = get(frames->nready);

    atomic_fetch_sub_explicit(&frames->used, 1, memory_order_relaxed);
    if (!may_touch(frames, 1) && give_back(frames, frame) == 0) /* the headroom was used */
        return;
    frames->ready[n] = frame;
    atomic_store_explicit(&frames->nready, n + 1, memory_order_relaxed);
    if (n <= get(frames->kept)) /* who waits for the filler may take this one */
        pthread_cond_broadcast(&frames->filled);
    if (n == goal(frames) * 2)
        pthread_cond_signal(&frames->wake);
}

/* Gives one ready frame back, so that something else may be touched. The lock is held. */
static int surrender(struct fsw_frames *frames)
{
    uint32_t n = get(frames->nready);

    if (n == 0 || give_back(frames, frames->ready[n - 1]) < 0)
        return -ENOSPC;
    atomic_store_explicit(&frames->nready, n - 1, memory_order_relaxed);
    return 0;
}

int fsw_frames_charge(struct fsw_frames *frames, uint32_t count)
{
    FSW_LOCK_SCOPE(&frames->lock);

    while (!may_touch(frames, count) && surrender(frames) == 0)
        ;
    if (!fits(frames, count) && fsw_frames_debt(frames) <= FSW_HEADROOM_FRAMES)
        return -ENOSPC;
    atomic_fetch_add_explicit(&frames->overhead, count, memory_order_relaxed);
    fsw_stat_add(frames->image, FSW_STAT_MEM_USED_TOTAL, (uint64_t)count * FSW_FRAME_SIZE);
    return 0;
}

void fsw_frames_uncharge(struct fsw_frames *frames, uint32_t count)
{
    atomic_fetch_sub_explicit(&frames->overhead, count, memory_order_relaxed);
    fsw_stat_sub(frames->image, FSW_STAT_MEM_USED_TOTAL, (uint64_t)count * FSW_FRAME_SIZE);
}

/* ---- the filler ---- */

/* Touches up to a batch. Returns 1 if there may be more to do. The lock is held on both sides. */
static int fill(struct fsw_frames *frames)
{
    uint32_t batch[BATCH], n = 0, touched = 0;

    while (n < BATCH && get(frames->nready) + n < goal(frames) && may_touch(frames, n + 1)) {
        batch[n] = pick_untouched(frames);
        if (batch[n] == 0)
            break;
        n++;
    }
    if (n == 0)
        return 0;
    fsw_crash_point("frames: a batch to be touched");
    frames->filling = n;
    atomic_fetch_add_explicit(&frames->used, n, memory_order_relaxed);
    pthread_mutex_unlock(&frames->lock);
    fsw_nudge_begin();
    while (touched < n &&
           fsw_image_touch(fsw_image_frame(frames->image, batch[touched]), FSW_FRAME_SIZE) == 0)
        touched++;
    fsw_nudge_end();
    fsw_crash_point("frames: a batch touched");
    pthread_mutex_lock(&frames->lock);
    for (uint32_t i = 0; i < n; i++)
        if (i < touched)
            frames->ready[frames->nready++] = batch[i];
        else
            put_untouched(frames, batch[i]);
    atomic_fetch_sub_explicit(&frames->used, n, memory_order_relaxed);
    frames->brought += touched;
    frames->filling = 0;
    frames->starved = 0;
    pthread_cond_broadcast(&frames->filled);
    return touched == n;
}

/* Gives up to a batch of surplus back to the system. Same rules. */
static int drain(struct fsw_frames *frames)
{
    uint32_t batch[BATCH], n = 0, kept = 0;

    while (n < BATCH && get(frames->nready) > 0 &&
           (get(frames->nready) > goal(frames) + goal(frames) / 2 || !may_touch(frames, 0)))
        batch[n++] = frames->ready[--frames->nready];
    if (n == 0)
        return 0;
    atomic_fetch_add_explicit(&frames->used, n, memory_order_relaxed);
    pthread_mutex_unlock(&frames->lock);
    for (uint32_t i = 0; i < n; i++)
        if (madvise(fsw_image_frame(frames->image, batch[i]), FSW_FRAME_SIZE, MADV_REMOVE) < 0) {
            uint32_t stays = batch[i];
            batch[i] = batch[kept];
            batch[kept++] = stays;
        }
    pthread_mutex_lock(&frames->lock);
    for (uint32_t i = 0; i < n; i++)
        if (i < kept)
            frames->ready[frames->nready++] = batch[i];
        else
            put_untouched(frames, batch[i]);
    atomic_fetch_sub_explicit(&frames->used, n, memory_order_relaxed);
    return kept == 0;
}

static uint32_t frames_of(uint64_t memory)
{
    return (uint32_t)(memory / FSW_FRAME_SIZE < UINT32_MAX ? memory / FSW_FRAME_SIZE : UINT32_MAX);
}

void fsw_frames_set_limit(struct fsw_frames *frames, uint64_t memory)
{
    uint32_t limit = frames_of(memory);
    FSW_LOCK_SCOPE(&frames->lock);

    atomic_store_explicit(&frames->limit, limit, memory_order_relaxed);
    frames->target = limit / 16 < FSW_RESERVE_FRAMES ? limit / 16 : FSW_RESERVE_FRAMES;
    pthread_cond_signal(&frames->wake);
}

static void publish_gauges(struct fsw_frames *frames)
{
    uint64_t used = ((uint64_t)get(frames->used) + get(frames->overhead)) * FSW_FRAME_SIZE;

    fsw_stat_set(frames->image, FSW_STAT_MEM_RESERVE,
                 (uint64_t)get(frames->nready) * FSW_FRAME_SIZE);
    if (used > fsw_stat_get(frames->image, FSW_STAT_MEM_USED_MAX))
        fsw_stat_set(frames->image, FSW_STAT_MEM_USED_MAX, used);
}

static void *fill_loop(void *opaque)
{
    struct fsw_frames *frames = opaque;
    fsw_touch_stack();
    fsw_nudge_prepare();
    FSW_LOCK_SCOPE(&frames->lock);

    while (!frames->stop) {
        while (!frames->stop && (fill(frames) || drain(frames)))
            ;
        if (frames->stop)
            break;
        publish_gauges(frames);
        uint32_t had = get(frames->nready);
        pthread_mutex_unlock(&frames->lock);
        if (frames->ahead != NULL)
            frames->ahead(frames->ahead_opaque);
        pthread_mutex_lock(&frames->lock);
        frames->looks++;
        frames->starved = 0;
        pthread_cond_broadcast(&frames->filled);
        /* Somebody took, and the signal may have been missed. Not "few are left": a full pool has
         * none, and asking again at once would cost a CPU. */
        int asked = frames->asked;
        frames->asked = 0;
        if (frames->stop || get(frames->nready) < had || asked)
            continue;
        /* Also looks from time to time: the limit may have moved, the system may have memory again.
         */
        struct timespec until = fsw_timespec(fsw_now_ns() + 100 * FSW_NS_PER_MS);
        pthread_cond_timedwait(&frames->wake, &frames->lock, &until);
    }
    return NULL;
}

int fsw_frames_start(struct fsw_frames *frames)
{
    frames->stop = 0;
    int r = pthread_create(&frames->filler, NULL, fill_loop, frames);
    if (r != 0)
        return -r;
    pthread_setname_np(frames->filler, "fsw-filler");
    frames->running = 1;
    return 0;
}

void fsw_frames_stop(struct fsw_frames *frames)
{
    if (!frames->running)
        return;
    pthread_mutex_lock(&frames->lock);
    frames->stop = 1;
    pthread_cond_signal(&frames->wake);
    pthread_mutex_unlock(&frames->lock);
    pthread_join(frames->filler, NULL);
    frames->running = 0;
}
