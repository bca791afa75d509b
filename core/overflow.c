/*
 * overflow.c: how pages leave. One thread packs segments of what reclaim names, up to
 * FSW_PUTS_IN_FLIGHT on their way at once (put.c has the steps), and asks for drops (drop.c).
 *
 * The store's thread only moves finished requests to a list and wakes us.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"
#include "core/budget.h"
#include "core/crash.h"
#include "core/engine.h"

#define PAUSE_MIN_NS (50 * FSW_NS_PER_MS)
#define PAUSE_MAX_NS (500 * FSW_NS_PER_MS) /* so every write that waits a second sees a try */

/* ---- packing ---- */

/* Sets the overflow bit and copies the object, if its entry has not changed meanwhile. */
static void pack_one(struct fsw_device *device, struct fsw_put *put,
                     const struct fsw_victim *victim)
{
    uint64_t seen = victim->value, marked = seen | FSW_ENTRY_OVERFLOW;
    uint64_t location = fsw_entry_location(seen);
    void *to = fsw_put_place(device, put);
    uint32_t page;

    if (!atomic_compare_exchange_strong(victim->entry, &seen, marked))
        return;
    fsw_crash_point("overflow: entry marked");
    int r = fsw_pool_read(&device->image, location, to, fsw_entry_units(marked));
    memcpy(&page, to, sizeof page);
    if (r == 0 && page == victim->page) {
        fsw_put_add(device, put, victim->entry, marked);
        return;
    }
    fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1); /* it stays, and its reader is told */
    if (!fsw_put_flip(victim->entry, marked, marked & ~FSW_ENTRY_OVERFLOW))
        fsw_pool_free(&device->pool, location);
}

/* Fills the segment with what reclaim names. */
static void pack(struct fsw_device *device, struct fsw_put *put)
{
    unsigned least = device->reclaim.leaving == FSW_LEAVE_HUGE_ONLY ? FSW_OBJECT_UNITS_MAX
                                                                    : FSW_OBJECT_UNITS_MIN;
    struct fsw_victim victim;

    while (fsw_put_fits(device, put, least) && fsw_reclaim_next(device, &victim)) {
        if (!fsw_put_fits(device, put, fsw_entry_units(victim.value))) {
            fsw_reclaim_unget(device);
            break;
        }
        pack_one(device, put, &victim);
    }
}

static void put_done(struct fsw_store_request *request)
{
    struct fsw_put *put = request->owner;
    struct fsw_overflow *overflow = &put->device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    put->next = overflow->finished;
    overflow->finished = put;
    pthread_cond_signal(&overflow->wake);
}

/* 1 if a segment went out. */
static int put_one(struct fsw_device *device, struct fsw_put *put)
{
    if (!fsw_put_begin(device, put))
        return 0;
    pack(device, put);
    if (put->count == 0) {
        fsw_put_cancel(device, put);
        return 0;
    }
    fsw_hook(device, FSW_HOOK_PACKED);
    fsw_put_submit(device, put, put_done);
    device->overflow.last_put = fsw_now_ns();
    return 1;
}

/* After a put that failed, the next one waits: longer, if that had waited as well. */
static void set_pause(struct fsw_overflow *overflow, const struct fsw_put *put)
{
    if (put->request.result == FSW_STORE_OK) {
        overflow->pause = 0;
        return;
    }
    if (overflow->pause == 0)
        overflow->pause = PAUSE_MIN_NS;
    else if (put->started > overflow->failed_at)
        overflow->pause *= 2;
    if (overflow->pause > PAUSE_MAX_NS)
        overflow->pause = PAUSE_MAX_NS;
    overflow->found_full = put->request.result == FSW_STORE_FULL;
    overflow->failed_at = fsw_now_ns();
    overflow->pause_until = overflow->failed_at + overflow->pause;
}

void fsw_overflow_wake_writers(struct fsw_device *device)
{
    if (atomic_load(&device->space_waiters) == 0)
        return;
    FSW_LOCK_SCOPE(&device->space_lock);
    pthread_cond_broadcast(&device->space);
}

/* ---- pages that were asked to leave ---- */

void fsw_overflow_idle(struct fsw_device *device, uint32_t number, uint32_t seconds)
{
    struct fsw_overflow *overflow = &device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    if (overflow->idle_sweep.number != 0 || !overflow->running)
        return;
    overflow->idle_sweep = (struct fsw_overflow_idle){.number = number};
    fsw_reclaim_begin_idle(device, seconds);
    pthread_cond_signal(&overflow->wake);
}

/* One of their segments has ended. The lock is held. */
static void count_idle(struct fsw_overflow_idle *idle, const struct fsw_put *put)
{
    idle->puts_out--;
    idle->pages += put->flipped;
    if (put->request.result == FSW_STORE_OK)
        idle->bytes += put->units * FSW_UNIT;
    else
        idle->result = put->request.result == FSW_STORE_FULL ? -ENOSPC : -EIO;
}

/* All have left, or no more will. The lock is held. */
static void answer_idle(struct fsw_device *device)
{
    struct fsw_overflow_idle *idle = &device->overflow.idle_sweep;
    struct fsw_superblock *super = device->image.super;

    if (idle->number == 0 || idle->puts_out > 0 ||
        (idle->result == 0 && !fsw_reclaim_idle_is_over(device)))
        return;
    atomic_store(&super->idle_pages, idle->pages);
    atomic_store(&super->idle_bytes, idle->bytes);
    atomic_store(&super->idle_result, idle->result);
    fsw_crash_point("overflow: idle pages have left, not answered");
    atomic_store(&super->idle_answered, idle->number);
    idle->number = 0;
}

/* ---- what has ended ---- */

static void finish_puts(struct fsw_device *device, struct fsw_put *put)
{
    struct fsw_overflow *overflow = &device->overflow;

    while (put != NULL) {
        struct fsw_put *next = put->next;
        enum fsw_store_result result = fsw_put_finish(device, put);
        fsw_overflow_wake_writers(device);
        fsw_clean_store_is_full(device, result == FSW_STORE_FULL);
        FSW_LOCK_SCOPE(&overflow->lock);
        set_pause(overflow, put);
        if (put->asked)
            count_idle(&overflow->idle_sweep, put);
        overflow->puts_out--;
        overflow->units_out -= put->units;
        overflow->huge_out -= put->huge;
        put->next = overflow->idle;
        overflow->idle = put;
        put = next;
    }
}

/* ---- the thread ---- */

/* Free frames, with those that come free when the puts in flight end. The lock is held. */
static int below_high(struct fsw_device *device)
{
    struct fsw_frames *frames = &device->pool.frames;
    uint32_t coming = device->overflow.units_out / (FSW_FRAME_SIZE / FSW_UNIT);

    return fsw_frames_free(frames) + coming < fsw_frames_debt(frames) + device->reclaim.high;
}

/* huge=store: pages that did not compress fill a segment, without those on their way. Fewer wait for
 * others: rows are made for segments of so many, and a segment a page would use them up. The lock is
 * held. */
static int huge_fill_a_segment(const struct fsw_device *device)
{
    const struct fsw_overflow *overflow = &device->overflow;
    const struct fsw_image *image = &device->image;

    if (atomic_load(&image->super->huge) != FSW_HUGE_STORE || fsw_now_ns() < overflow->huge_after)
        return 0;
    /* Signed: while pages come and go the sum may be below what it ever was. */
    int64_t pages = (int64_t)fsw_stat_get(image, FSW_STAT_HUGE_PAGES) - overflow->huge_out;
    return pages >= (int64_t)(FSW_SEGMENT_UNITS / (FSW_OBJECT_UNITS_MAX + device->seal));
}

void fsw_overflow_follow_huge(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;

    if (atomic_load(&device->image.super->huge) != FSW_HUGE_STORE || !overflow->running)
        return;
    FSW_LOCK_SCOPE(&overflow->lock);
    if (huge_fill_a_segment(device))
        pthread_cond_signal(&overflow->wake);
}

/* Who is to leave now; 0: nobody. The lock is held. */
static int choose(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;
    const struct fsw_overflow_idle *idle = &overflow->idle_sweep;

    if (idle->number != 0 && idle->result == 0 && !fsw_reclaim_idle_is_over(device)) {
        device->reclaim.leaving = FSW_LEAVE_IDLE;
        return 1;
    }
    if (atomic_load(&overflow->wanted) && !below_high(device))
        atomic_store(&overflow->wanted, 0);
    if (huge_fill_a_segment(device)) {
        device->reclaim.leaving = FSW_LEAVE_HUGE_ONLY;
        return 1;
    }
    if (!atomic_load(&overflow->wanted))
        return 0;
    device->reclaim.leaving =
        atomic_load(&device->image.super->huge) != FSW_HUGE_AGE ? FSW_LEAVE_HUGE : FSW_LEAVE_OLDEST;
    return 1;
}

/* How many segments may be on their way. Where nobody waits for room, a store that did not take the last
 * one is asked with one. The lock is held. */
static unsigned puts_allowed(struct fsw_device *device)
{
    unsigned allowed = fsw_clean_puts_allowed(device);

    if (device->reclaim.leaving == FSW_LEAVE_HUGE_ONLY && device->overflow.pause != 0 &&
        allowed > 1)
        return 1;
    return allowed;
}

/* What was to leave may not. 1: somebody asked for it, and can be answered. The lock is held. */
static int hold_back(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;

    if (!overflow->limited)
        fsw_stat_add(&device->image, FSW_STAT_OVERFLOW_LIMITED, 1);
    overflow->limited = 1;
    if (device->reclaim.leaving != FSW_LEAVE_IDLE) {
        overflow->pause_until = fsw_now_ns() + PAUSE_MIN_NS;
        return 0;
    }
    overflow->idle_sweep.result = -EDQUOT;
    return 1;
}

/* Packs and puts one segment if there is reason to. The lock is held, and let go while packing. */
static int work(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;
    struct fsw_put *put = overflow->idle;

    if (put == NULL || fsw_now_ns() < overflow->pause_until || !choose(device))
        return 0;
    if (!fsw_budget_allows(device, 1))
        return hold_back(device);
    overflow->limited = 0;
    if (overflow->puts_out >= puts_allowed(device)) {
        fsw_clean_wake(device, FSW_CLEAN_WANTED);
        return 0;
    }
    overflow->idle = put->next;
    overflow->puts_out++;
    put->asked = device->reclaim.leaving == FSW_LEAVE_IDLE;
    overflow->idle_sweep.puts_out += put->asked;
    pthread_mutex_unlock(&overflow->lock);
    int r = put_one(device, put);
    pthread_mutex_lock(&overflow->lock);
    if (r) {
        overflow->units_out += put->units;
        overflow->huge_out += put->huge;
        return 1;
    }
    overflow->puts_out--;
    overflow->idle_sweep.puts_out -= put->asked;
    put->next = overflow->idle;
    overflow->idle = put;
    if (put->asked && fsw_reclaim_idle_is_over(device)) /* that was the last of them */
        return 1;
    if (device->reclaim.leaving == FSW_LEAVE_HUGE_ONLY) { /* others may */
        overflow->huge_after = fsw_now_ns() + FSW_NS_PER_S;
        return 1;
    }
    overflow->pause_until = fsw_now_ns() + PAUSE_MIN_NS; /* nobody may leave now */
    return 0;
}

/* Closing the store answers what is in flight. The lock is held on both sides. */
static void leave(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;

    pthread_mutex_unlock(&overflow->lock);
    device->store->ops->close(device->store);
    finish_puts(device, overflow->finished);
    fsw_drops_finish(device, overflow->drops.finished);
    pthread_mutex_lock(&overflow->lock);
    assert(overflow->puts_out == 0 && overflow->drops.out == 0);
}

static void *overflow_loop(void *opaque)
{
    struct fsw_device *device = opaque;
    struct fsw_overflow *overflow = &device->overflow;
    fsw_touch_stack();
    FSW_LOCK_SCOPE(&overflow->lock);

    for (;;) {
        struct fsw_put *puts = overflow->finished;
        struct fsw_drop *drops = overflow->drops.finished;
        overflow->finished = NULL;
        overflow->drops.finished = NULL;
        pthread_mutex_unlock(&overflow->lock);
        finish_puts(device, puts);
        fsw_drops_finish(device, drops);
        fsw_reclaim_clamp(device);
        pthread_mutex_lock(&overflow->lock);
        if (overflow->stop) {
            leave(device);
            return NULL;
        }
        fsw_drops_ask(device);
        answer_idle(device);
        if (work(device) || overflow->finished != NULL || overflow->drops.finished != NULL)
            continue;
        uint64_t wait =
            atomic_load(&overflow->wanted) || overflow->drops.waiting ? PAUSE_MIN_NS : FSW_NS_PER_S;
        struct timespec until = fsw_timespec(fsw_now_ns() + wait);
        pthread_cond_timedwait(&overflow->wake, &overflow->lock, &until);
    }
}

/* Frames fall short. Called under allocation locks: only wakes. */
static void pressure(void *opaque)
{
    struct fsw_device *device = opaque;
    struct fsw_overflow *overflow = &device->overflow;

    if (atomic_load_explicit(&overflow->wanted, memory_order_relaxed) ||
        atomic_exchange(&overflow->wanted, 1))
        return;
    FSW_LOCK_SCOPE(&overflow->lock);
    pthread_cond_signal(&overflow->wake);
}

void fsw_overflow_kick(struct fsw_device *device)
{
    if (device->overflow.running &&
        fsw_frames_free(&device->pool.frames) < atomic_load(&device->reclaim.low))
        pressure(device);
}

int fsw_overflow_wait(struct fsw_device *device, uint64_t deadline)
{
    uint64_t now = fsw_now_ns();

    if (device->store == NULL || now >= deadline)
        return -ENOSPC;
    pressure(device);
    /* A step at a time: what came free may be gone again, or have come before we began to wait. */
    uint64_t until_ns = now + 5 * FSW_NS_PER_MS;
    struct timespec until = fsw_timespec(until_ns < deadline ? until_ns : deadline);
    atomic_fetch_add(&device->space_waiters, 1);
    {
        FSW_LOCK_SCOPE(&device->space_lock);
        pthread_cond_timedwait(&device->space, &device->space_lock, &until);
    }
    atomic_fetch_sub(&device->space_waiters, 1);
    return 0;
}

int fsw_overflow_init(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&overflow->lock, NULL);
    pthread_cond_init(&overflow->wake, &monotonic);
    pthread_mutex_init(&device->space_lock, NULL);
    pthread_cond_init(&device->space, &monotonic);
    pthread_condattr_destroy(&monotonic);
    fsw_repair_init(device);
    if (fsw_clean_init(device) < 0)
        return -ENOMEM;
    if (device->store == NULL)
        return 0;
    overflow->puts = calloc(FSW_PUTS_IN_FLIGHT, sizeof overflow->puts[0]);
    if (overflow->puts == NULL || fsw_drops_init(device) < 0)
        return -ENOMEM;
    for (unsigned i = 0; i < FSW_PUTS_IN_FLIGHT; i++) {
        overflow->puts[i].device = device;
        overflow->puts[i].next = overflow->idle;
        overflow->idle = &overflow->puts[i];
    }
    return 0;
}

int fsw_overflow_start(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;

    if (device->store == NULL)
        return 0;
    device->pool.frames.pressure = pressure;
    device->pool.frames.opaque = device;
    int r = fsw_repair_start(device);
    if (r == 0)
        r = fsw_clean_start(device);
    if (r < 0)
        return r;
    r = pthread_create(&overflow->thread, NULL, overflow_loop, device);
    if (r != 0)
        return -r;
    pthread_setname_np(overflow->thread, "fsw-overflow");
    overflow->running = 1;
    fsw_overflow_kick(device); /* frames may be short already: this may be a recovery */
    return 0;
}

/* The thread closes the store on its way out, so that it can't submit to a closed one. */
void fsw_overflow_stop(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;

    fsw_repair_stop(device);
    fsw_clean_stop(device);
    if (overflow->running) {
        pthread_mutex_lock(&overflow->lock);
        overflow->stop = 1;
        pthread_cond_signal(&overflow->wake);
        pthread_mutex_unlock(&overflow->lock);
        pthread_join(overflow->thread, NULL);
    } else if (device->store != NULL) {
        device->store->ops->close(device->store);
    }
    overflow->running = 0;
    device->store = NULL;
}

void fsw_overflow_deinit(struct fsw_device *device)
{
    fsw_clean_deinit(device);
    free(device->overflow.puts);
    free(device->overflow.drops.all);
    device->overflow.puts = NULL;
    device->overflow.drops.all = NULL;
}
