/*
 * overflow.c: how pages leave. One thread packs segments, puts them, flips entries and drops rows.
 *
 *   1  a row with a new id, PENDING
 *   2  reclaim names victims; each entry gets its overflow bit (so its object stays, E3), the
 *      object is copied into the segment as it is, never decompressed
 *   3  the segment is put; up to FSW_PUTS_IN_FLIGHT at once
 *   4  acknowledged: the row is LIVE, and every entry that still names the object now names the
 *      row; those that changed meanwhile are subtracted. Failed: the overflow bits go away again
 *   5  either way the object, pinned until here, is freed by us if its entry no longer names it
 *      (E2)
 *
 * A row that nothing lives in and nobody reads is DROPPING; the drop is asked here as well.
 * The store's thread only moves finished requests to a list and wakes us.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"
#include "core/crash.h"
#include "core/engine.h"

#define PUT_DEADLINE_NS (5 * FSW_NS_PER_S)
#define DROP_DEADLINE_NS (5 * FSW_NS_PER_S)
#define DROP_PAUSE_NS FSW_NS_PER_S
#define PAUSE_MIN_NS (50 * FSW_NS_PER_MS)
#define PAUSE_MAX_NS (FSW_WRITE_WAIT_NS / 2) /* so every write that waits sees a try */

/* ---- answers, on the store's thread ---- */

static void put_done(struct fsw_store_request *request)
{
    struct fsw_put *put = request->owner;
    struct fsw_overflow *overflow = &put->device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    put->next = overflow->finished;
    overflow->finished = put;
    pthread_cond_signal(&overflow->wake);
}

static void drop_done(struct fsw_store_request *request)
{
    struct fsw_drop *drop = request->owner;
    struct fsw_overflow *overflow = &drop->device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    drop->next = overflow->drops_finished;
    overflow->drops_finished = drop;
    pthread_cond_signal(&overflow->wake);
}

/* ---- packing ---- */

/* Replaces the entry by `value` if it still names the object. */
static int flip(fsw_entry *entry, uint64_t marked, uint64_t value)
{
    for (;;) {
        uint64_t now = fsw_entry_load(entry);
        if (!fsw_entry_same_place(now, marked))
            return 0;
        if (atomic_compare_exchange_weak(entry, &now, value))
            return 1;
    }
}

/* The object stays in the pool, or is ours to free if its entry has left it meanwhile (E2). */
static void unmark(struct fsw_device *device, fsw_entry *entry, uint64_t marked)
{
    if (!flip(entry, marked, marked & ~FSW_ENTRY_OVERFLOW))
        fsw_pool_free(&device->pool, fsw_entry_location(marked));
}

/* Sets the overflow bit and copies the object. 0 if the entry changed meanwhile. */
static int pack_one(struct fsw_device *device, struct fsw_put *put, const struct fsw_victim *victim)
{
    uint64_t seen = victim->value, marked = seen | FSW_ENTRY_OVERFLOW;
    unsigned units = fsw_entry_units(seen);
    char *seal = put->bytes + put->units * FSW_UNIT, *to = seal + device->seal * FSW_UNIT;
    uint32_t page;

    if (!atomic_compare_exchange_strong(victim->entry, &seen, marked))
        return 0;
    fsw_crash_point("overflow: entry marked");
    int r = fsw_pool_read(&device->image, fsw_entry_location(seen), to, units);
    memcpy(&page, to, sizeof page);
    if (r < 0 || page != victim->page) { /* damaged: it stays, and its reader is told */
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
        unmark(device, victim->entry, marked);
        return 0;
    }
    put->entries[put->count] = victim->entry;
    put->values[put->count++] = marked;
    if (device->seal != 0)
        fsw_seal_write(seal, units);
    put->units += device->seal + units;
    return 1;
}

/* Fills the segment with what reclaim names. */
static void pack(struct fsw_device *device, struct fsw_put *put)
{
    struct fsw_victim victim;

    put->count = 0;
    put->units = 0;
    while (put->count < FSW_SEGMENT_OBJECTS && fsw_reclaim_next(device, &victim)) {
        if (put->units + device->seal + fsw_entry_units(victim.value) >
            FSW_SEGMENT_BYTES / FSW_UNIT) {
            fsw_reclaim_unget(device);
            break;
        }
        pack_one(device, put, &victim);
    }
}

/* 1 if a segment went out. */
static int put_one(struct fsw_device *device, struct fsw_put *put)
{
    uint64_t id;

    put->row = fsw_row_take(&device->rows, &id);
    if (put->row == 0)
        return 0;
    pack(device, put);
    if (put->count == 0) {
        fsw_row_free(&device->rows, put->row);
        return 0;
    }
    fsw_hook(device, FSW_HOOK_PACKED);
    put->started = fsw_now_ns();
    put->request = (struct fsw_store_request){
        .verb = FSW_STORE_PUT,
        .row = put->row,
        .id = id,
        .bytes = put->bytes,
        .length = put->units * FSW_UNIT,
        .deadline = put->started + PUT_DEADLINE_NS,
        .done = put_done,
        .owner = put,
    };
    struct fsw_store_request *request = &put->request;
    fsw_crash_point("overflow: packed, not put");
    device->store->ops->submit(device->store, &request, 1);
    fsw_crash_point("overflow: put asked for");
    return 1;
}

/* ---- what a put's end means ---- */

static void put_succeeded(struct fsw_device *device, struct fsw_put *put)
{
    const struct fsw_image *image = &device->image;
    uint32_t bytes = put->units * FSW_UNIT, raced = 0;
    unsigned offset = 0;

    fsw_crash_point("overflow: put answered, not LIVE");
    fsw_hook(device, FSW_HOOK_ANSWERED);
    /* Counted before it is LIVE: whoever recovers must not find more there than ever went. */
    fsw_latency_add(image, FSW_LATENCY_OVERFLOW, put->started);
    fsw_stat_add(image, FSW_STAT_OVERFLOW_SEGMENTS, 1);
    fsw_stat_add(image, FSW_STAT_OVERFLOW_BYTES, bytes);
    atomic_store(&image->super->planted, 1);
    fsw_crash_point("overflow: planted, not LIVE");
    fsw_row_live(&device->rows, put->row, bytes, put->count, put->request.copies);
    fsw_repair_want(device, put->request.copies);
    fsw_stat_add(image, FSW_STAT_SEGMENTS, 1);
    fsw_stat_add(image, FSW_STAT_STORE_BYTES, bytes);
    fsw_crash_point("overflow: LIVE, nothing flipped");
    fsw_hook(device, FSW_HOOK_LIVE);
    for (uint32_t i = 0; i < put->count; i++) {
        uint64_t marked = put->values[i];
        offset += device->seal;
        uint64_t stored = fsw_entry_store(put->row, offset, fsw_entry_units(marked));
        if (flip(put->entries[i], marked, stored)) {
            fsw_crash_point("overflow: flipped, not counted");
            fsw_page_count(device, stored, 1);
            fsw_page_count(device, marked, -1);
        } else {
            raced++;
        }
        fsw_crash_point("overflow: flipped, object not freed");
        fsw_hook(device, FSW_HOOK_FLIPPED);
        fsw_pool_free(&device->pool, fsw_entry_location(marked));
        offset += fsw_entry_units(marked);
    }
    fsw_stat_add(image, FSW_STAT_OVERFLOW_PAGES, put->count - raced);
    fsw_stat_add(image, FSW_STAT_OVERFLOW_RACED, raced);
    fsw_crash_point("overflow: all flipped, changed ones not subtracted");
    if (raced > 0)
        fsw_row_kill(&device->rows, put->row, raced); /* our pin keeps it */
    fsw_crash_point("overflow: all flipped, the put's pin is there");
    if (fsw_row_unpin(&device->rows, put->row))
        fsw_overflow_drop(device, put->row);
    device->overflow.pause = 0;
}

static void put_failed(struct fsw_device *device, struct fsw_put *put)
{
    struct fsw_overflow *overflow = &device->overflow;

    fsw_crash_point("overflow: put failed, entries marked");
    for (uint32_t i = 0; i < put->count; i++)
        unmark(device, put->entries[i], put->values[i]);
    fsw_stat_add(&device->image, FSW_STAT_OVERFLOW_FAILED, 1);
    if (put->request.result == FSW_STORE_FULL)
        fsw_stat_add(&device->image, FSW_STAT_STORE_FULL, 1);
    fsw_crash_point("overflow: put failed, no entry marked");
    /* It may have landed: the id is burnt, and the drop makes sure. */
    if (fsw_row_abandon(&device->rows, put->row)) {
        fsw_crash_point("row: abandoned, nobody asks for its drop");
        fsw_overflow_drop(device, put->row);
    }
    overflow->pause = overflow->pause == 0 ? PAUSE_MIN_NS : overflow->pause * 2;
    if (overflow->pause > PAUSE_MAX_NS)
        overflow->pause = PAUSE_MAX_NS;
    overflow->pause_until = fsw_now_ns() + overflow->pause;
}

static void wake_writers(struct fsw_device *device)
{
    if (atomic_load(&device->space_waiters) == 0)
        return;
    FSW_LOCK_SCOPE(&device->space_lock);
    pthread_cond_broadcast(&device->space);
}

static void finish_puts(struct fsw_device *device, struct fsw_put *put)
{
    struct fsw_overflow *overflow = &device->overflow;

    while (put != NULL) {
        struct fsw_put *next = put->next;
        if (put->request.result == FSW_STORE_OK)
            put_succeeded(device, put);
        else
            put_failed(device, put);
        wake_writers(device);
        FSW_LOCK_SCOPE(&overflow->lock);
        overflow->puts_out--;
        overflow->units_out -= put->units;
        put->next = overflow->idle;
        overflow->idle = put;
        put = next;
    }
}

/* ---- dropping ---- */

void fsw_overflow_drop(struct fsw_device *device, uint32_t row)
{
    struct fsw_overflow *overflow = &device->overflow;

    if (!fsw_row_is_whole(&device->image, row)) /* its id may be another's: it is never dropped */
        return;
    FSW_LOCK_SCOPE(&overflow->lock);
    device->image.rows[row].next = overflow->to_drop;
    overflow->to_drop = row;
    pthread_cond_signal(&overflow->wake);
}

/* Asks for as many drops as there are requests. The lock is held, and let go while asking. */
static void ask_drops(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;
    struct fsw_store_request *requests[FSW_DROPS_IN_FLIGHT];
    unsigned n = 0;

    if (fsw_now_ns() < overflow->drop_after)
        return;
    while (overflow->to_drop != 0 && overflow->drops_idle != NULL) {
        struct fsw_drop *drop = overflow->drops_idle;
        overflow->drops_idle = drop->next;
        drop->row = overflow->to_drop;
        overflow->to_drop = device->image.rows[drop->row].next;
        drop->request = (struct fsw_store_request){
            .verb = FSW_STORE_DROP,
            .row = drop->row,
            .id = fsw_row_id(&device->image, drop->row),
            .deadline = fsw_now_ns() + DROP_DEADLINE_NS,
            .done = drop_done,
            .owner = drop,
        };
        requests[n++] = &drop->request;
    }
    if (n == 0)
        return;
    overflow->drops_out += n;
    pthread_mutex_unlock(&overflow->lock);
    fsw_crash_point("drop: about to be asked for");
    device->store->ops->submit(device->store, requests, n);
    fsw_crash_point("drop: asked for");
    pthread_mutex_lock(&overflow->lock);
}

static void finish_drops(struct fsw_device *device, struct fsw_drop *drop)
{
    struct fsw_overflow *overflow = &device->overflow;
    const struct fsw_image *image = &device->image;

    while (drop != NULL) {
        struct fsw_drop *next = drop->next;
        uint32_t bytes = atomic_load(&image->rows[drop->row].bytes);
        fsw_crash_point("drop: answered");
        if (drop->request.result != FSW_STORE_OK) {
            fsw_overflow_drop(device, drop->row); /* again, later */
            overflow->drop_after = fsw_now_ns() + DROP_PAUSE_NS;
        } else {
            if (bytes != 0) { /* 0: was never LIVE */
                fsw_stat_sub(image, FSW_STAT_SEGMENTS, 1);
                fsw_stat_sub(image, FSW_STAT_STORE_BYTES, bytes);
            }
            fsw_stat_add(image, FSW_STAT_STORE_DROPS, 1);
            fsw_row_free(&device->rows, drop->row);
        }
        FSW_LOCK_SCOPE(&overflow->lock);
        overflow->drops_out--;
        drop->next = overflow->drops_idle;
        overflow->drops_idle = drop;
        drop = next;
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

/* Packs and puts one segment if there is reason to. The lock is held, and let go while packing. */
static int work(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;
    struct fsw_put *put = overflow->idle;

    if (!atomic_load(&overflow->wanted) || put == NULL || fsw_now_ns() < overflow->pause_until)
        return 0;
    if (!below_high(device)) {
        atomic_store(&overflow->wanted, 0);
        return 0;
    }
    overflow->idle = put->next;
    overflow->puts_out++;
    pthread_mutex_unlock(&overflow->lock);
    int r = put_one(device, put);
    pthread_mutex_lock(&overflow->lock);
    if (r) {
        overflow->units_out += put->units;
        return 1;
    }
    overflow->puts_out--;
    put->next = overflow->idle;
    overflow->idle = put;
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
    finish_drops(device, overflow->drops_finished);
    pthread_mutex_lock(&overflow->lock);
    assert(overflow->puts_out == 0 && overflow->drops_out == 0);
}

static void *overflow_loop(void *opaque)
{
    struct fsw_device *device = opaque;
    struct fsw_overflow *overflow = &device->overflow;
    fsw_touch_stack();
    FSW_LOCK_SCOPE(&overflow->lock);

    for (;;) {
        struct fsw_put *puts = overflow->finished;
        struct fsw_drop *drops = overflow->drops_finished;
        overflow->finished = NULL;
        overflow->drops_finished = NULL;
        pthread_mutex_unlock(&overflow->lock);
        finish_puts(device, puts);
        finish_drops(device, drops);
        fsw_reclaim_clamp(device);
        pthread_mutex_lock(&overflow->lock);
        if (overflow->stop) {
            leave(device);
            return NULL;
        }
        ask_drops(device);
        if (work(device) || overflow->finished != NULL || overflow->drops_finished != NULL)
            continue;
        uint64_t wait =
            atomic_load(&overflow->wanted) || overflow->to_drop ? PAUSE_MIN_NS : FSW_NS_PER_S;
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
    if (device->store == NULL)
        return 0;
    overflow->puts = calloc(FSW_PUTS_IN_FLIGHT, sizeof overflow->puts[0]);
    overflow->drops = calloc(FSW_DROPS_IN_FLIGHT, sizeof overflow->drops[0]);
    if (overflow->puts == NULL || overflow->drops == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < FSW_PUTS_IN_FLIGHT; i++) {
        overflow->puts[i].device = device;
        overflow->puts[i].next = overflow->idle;
        overflow->idle = &overflow->puts[i];
    }
    for (unsigned i = 0; i < FSW_DROPS_IN_FLIGHT; i++) {
        overflow->drops[i].device = device;
        overflow->drops[i].next = overflow->drops_idle;
        overflow->drops_idle = &overflow->drops[i];
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
    free(device->overflow.puts);
    free(device->overflow.drops);
    device->overflow.puts = NULL;
    device->overflow.drops = NULL;
}
