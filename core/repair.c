/*
 * repair.c: segments that lack a copy get it again.
 *
 * A store of two copies acknowledges a put that reached one. Its row says which, and so survives
 * every server. A thread of its own looks for such rows when there is reason to (a put that reached
 * one only, a store that was emptied, a recovery), gets the segment from a copy that answers, proves
 * that each object in it is whole, and puts it, under the same id, to the one that lacks it.
 *
 * The row is pinned meanwhile, so its segment is not dropped under way. A store that was emptied has
 * nothing that was put before: its bit goes from every row that another copy has. So does that of one that
 * was waited for, and is back with what it had: it has nothing that was put meanwhile.
 *
 * Whoever takes a donor away asks segments_lacking first, maybe while nobody serves. So it may say too
 * much, and never 0 while a LIVE row lacks a copy:
 *
 *   P1  It is raised before such a row is LIVE, and `wanted` is set after that, both under the lock.
 *   P2  It is lowered by a lap alone, at its end, to what the lap found; under the lock, too, so that
 *       it is not lowered to 0 between the two, nor while `wanted` tells of a row behind the lap.
 *
 * One segment at a time: this is in nobody's hurry, and must not be in anybody's way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"
#include "core/crash.h"
#include "core/engine.h"

#define STEP_ROWS 4096u /* some 10 µs of looking, then a pause */
#define STEP_PAUSE_NS (10 * FSW_NS_PER_MS)
#define LAP_PAUSE_NS FSW_NS_PER_S
#define DEADLINE_NS (5 * FSW_NS_PER_S)
#define ADOPTION_NS (FSW_NS_PER_S / 2) /* until a store that is up has followed */

/* ---- one segment ---- */

/* A whole segment, from or to these copies: how it ended; *copies: which did. */
static enum fsw_store_result move(struct fsw_device *device, enum fsw_store_verb verb, uint32_t row,
                                  uint32_t bytes, uint32_t *copies)
{
    struct fsw_store_request request = {
        .verb = verb,
        .row = row,
        .id = fsw_row_id(&device->image, row),
        .bytes = device->repair.bytes,
        .length = bytes,
        .copies = *copies,
        .deadline = fsw_now_ns() + DEADLINE_NS,
    };
    struct fsw_store_request *requests = &request;

    fsw_segment_ask(device, &requests, 1);
    *copies = request.copies;
    return request.result;
}

/* Every object in it is whole, to its last byte. */
static int prove_segment(struct fsw_device *device, uint32_t bytes)
{
    struct fsw_segment_object object;
    unsigned at = 0;

    while (fsw_segment_next(device, device->repair.bytes, bytes, &at, &object))
        if (!fsw_segment_object_is_whole(device, &object))
            return 0;
    return at * FSW_UNIT == bytes;
}

/* 1 if the row has now what it lacked of `up`. It is pinned. */
static int copy_segment(struct fsw_device *device, uint32_t number, uint32_t up)
{
    struct fsw_row *row = &device->image.rows[number];
    uint32_t has = atomic_load(&row->copies), bytes = atomic_load(&row->bytes), from = has & up;
    uint32_t to = fsw_all_copies(device) & up & ~has;

    if (bytes == 0 || bytes > FSW_SEGMENT_BYTES ||
        move(device, FSW_STORE_GET, number, bytes, &from) != FSW_STORE_OK ||
        !prove_segment(device, bytes) ||
        move(device, FSW_STORE_PUT, number, bytes, &to) != FSW_STORE_OK)
        return 0;
    fsw_crash_point("repair: put again, its row does not say so");
    atomic_fetch_or(&device->image.super->planted,
                    to); /* the next server is to see if it is emptied */
    atomic_fetch_or(&row->copies, to);
    fsw_crash_point("repair: its row has the copy, not counted");
    fsw_stat_add(&device->image, FSW_STAT_COPIES_REPAIRED, 1);
    return 1;
}

/* One that no copy has any more lacks none: there is nothing to copy. */
static int lacks(const struct fsw_device *device, uint32_t number)
{
    uint32_t all = fsw_all_copies(device);

    return fsw_row_state(&device->image, number) == FSW_ROW_LIVE &&
           (atomic_load(&device->image.rows[number].copies) & all) != all &&
           !fsw_row_is_lost(device, number);
}

/* Counts the row if it lacks a copy, and repairs it if that can be done now. 0: it can't, and others
 * won't do better. */
static int look_at_row(struct fsw_device *device, uint32_t number, uint32_t up)
{
    struct fsw_repair *repair = &device->repair;
    struct fsw_row *row = &device->image.rows[number];
    uint32_t all = fsw_all_copies(device), has = atomic_load(&row->copies);
    int r = 1;

    if (!lacks(device, number))
        return 1;
    if ((has & up) != 0 && (all & up & ~has) != 0 && fsw_row_pin(&device->rows, number)) {
        r = copy_segment(device, number, up);
        if (fsw_row_unpin(&device->rows, number))
            fsw_overflow_drop(device, number);
    }
    repair->lacking += (unsigned)lacks(device, number);
    return r;
}

/* ---- all of them ---- */

/* The lock is held. */
static void raise_lacking(struct fsw_device *device)
{
    if (fsw_stat_get(&device->image, FSW_STAT_SEGMENTS_LACKING) == 0)
        fsw_stat_set(&device->image, FSW_STAT_SEGMENTS_LACKING, 1);
}

/* Before rows forget these copies: a row that is LIVE later does not have what they acknowledged earlier. */
static void count_emptyings(struct fsw_device *device, uint32_t emptied)
{
    struct fsw_repair *repair = &device->repair;
    FSW_LOCK_SCOPE(&repair->lock);

    raise_lacking(device);
    atomic_store(&repair->wanted, 1);
    for (unsigned copy = 0; copy < FSW_COPIES_MAX; copy++)
        atomic_fetch_add(&repair->emptyings[copy], emptied >> copy & 1);
}

/* What a store that was emptied had is not there any more. Where it was the only one, the row stays:
 * such a page is waited for, not given up. Returns the copies of which there is such a row. */
static uint32_t forget_emptied(struct fsw_device *device, uint32_t emptied)
{
    uint32_t alone = 0;

    count_emptyings(device, emptied);
    uint32_t top = atomic_load(&device->image.super->rows_top);
    for (uint32_t number = 1; number < top; number++) {
        _Atomic uint32_t *copies = &device->image.rows[number].copies;
        uint32_t has = atomic_load(copies);

        while ((has & emptied) != 0 && (has & ~emptied) != 0)
            if (atomic_compare_exchange_weak(copies, &has, has & ~emptied))
                break;
        if ((has & ~emptied) == 0 && fsw_row_state(&device->image, number) == FSW_ROW_LIVE)
            alone |= has;
    }
    return alone;
}

/* These were emptied. What is waited for at one that alone had something, it may bring back. Another is one like
 * any other from then on: else the next server would forget what it has been given again, and that may be all
 * that is left. */
static void follow_emptied(struct fsw_device *device, uint32_t emptied)
{
    struct fsw_repair *repair = &device->repair;
    uint32_t alone = forget_emptied(device, emptied) & emptied;

    repair->emptied |= emptied;
    repair->adopted |= emptied & ~alone;
    repair->adopted_at = fsw_now_ns();
    if (emptied != alone)
        fsw_lost_adopt(device, emptied & ~alone);
}

/* One that was waited for is back with what it had, or somebody has said that it never will be: what was put
 * there meanwhile, rows name in vain. */
static void follow_returned(struct fsw_device *device, uint32_t emptied)
{
    struct fsw_repair *repair = &device->repair;
    uint32_t known = repair->emptied | atomic_exchange(&repair->put_to_emptied, 0);
    uint32_t returned = known & ~repair->adopted & ~emptied;

    if (returned != 0)
        forget_emptied(device, returned);
}

/* Which copies answer. One that was taken as it is, and still, or again, says that it was emptied, may have been
 * given something in between. */
static uint32_t look_at_stores(struct fsw_device *device)
{
    struct fsw_repair *repair = &device->repair;
    struct fsw_store_health health;

    device->store->ops->health(device->store, &health);
    follow_returned(device, health.emptied);
    repair->emptied &= health.emptied;
    repair->adopted &= health.emptied;
    if (fsw_now_ns() > repair->adopted_at + ADOPTION_NS) {
        repair->emptied &= ~(repair->adopted & health.up);
        repair->adopted &= ~health.up;
    }
    if ((health.emptied & ~repair->emptied) != 0)
        follow_emptied(device, health.emptied & ~repair->emptied);
    uint32_t waits = repair->emptied & ~repair->adopted & health.up;
    if (waits != 0 && (waits & ~fsw_lost_waited_for(device, waits)) != 0) /* not any more */
        follow_emptied(device, waits & ~fsw_lost_waited_for(device, waits));
    return health.up;
}

/* Sleeps; 0: the thread is to end. */
static int rest(struct fsw_repair *repair, uint64_t ns)
{
    struct timespec until = fsw_timespec(fsw_now_ns() + ns);
    FSW_LOCK_SCOPE(&repair->lock);

    if (!repair->stop)
        pthread_cond_timedwait(&repair->wake, &repair->lock, &until);
    return !repair->stop;
}

/* A lap has ended (P2). */
static void tell(struct fsw_device *device)
{
    struct fsw_repair *repair = &device->repair;
    FSW_LOCK_SCOPE(&repair->lock);

    if (repair->lacking > 0)
        atomic_store(&repair->wanted, 1);
    else if (atomic_load(&repair->wanted)) /* one came behind us, and may have been counted */
        repair->lacking = 1;
    fsw_stat_set(&device->image, FSW_STAT_SEGMENTS_LACKING, repair->lacking);
}

/* Once over all rows. 0: the thread is to end. */
static int lap(struct fsw_device *device)
{
    struct fsw_repair *repair = &device->repair;
    uint32_t up = look_at_stores(device);

    atomic_store(&repair->wanted, 0);
    repair->lacking = 0;
    uint32_t top = atomic_load(&device->image.super->rows_top); /* a row behind it wants us again */
    for (uint32_t number = 1; number < top; number++) {
        if (!look_at_row(device, number, up)) {
            if (!rest(repair, LAP_PAUSE_NS))
                return 0;
            up = look_at_stores(device);
        }
        if (atomic_load(&repair->stop) || (number % STEP_ROWS == 0 && !rest(repair, STEP_PAUSE_NS)))
            return 0;
    }
    tell(device);
    return 1;
}

static void *repair_loop(void *opaque)
{
    struct fsw_device *device = opaque;
    struct fsw_repair *repair = &device->repair;

    fsw_touch_stack();
    do {
        look_at_stores(device);
        if (atomic_load(&repair->wanted) && !lap(device))
            break;
    } while (rest(repair, LAP_PAUSE_NS));
    return NULL;
}

void fsw_repair_note(const struct fsw_device *device, uint32_t emptyings[FSW_COPIES_MAX])
{
    for (unsigned copy = 0; copy < FSW_COPIES_MAX; copy++)
        emptyings[copy] = atomic_load(&device->repair.emptyings[copy]);
}

/* Without copies that were emptied since that was noted, if any is left. The lock is held. */
static uint32_t still_there(const struct fsw_device *device, uint32_t copies,
                            const uint32_t emptyings[FSW_COPIES_MAX])
{
    uint32_t left = copies;

    for (unsigned copy = 0; copy < FSW_COPIES_MAX; copy++)
        if (emptyings[copy] != atomic_load(&device->repair.emptyings[copy]))
            left &= ~(1u << copy);
    return left != 0 ? left : copies;
}

void fsw_repair_row_live(struct fsw_device *device, uint32_t row, uint32_t bytes, uint32_t live,
                         uint32_t copies, const uint32_t emptyings[FSW_COPIES_MAX])
{
    if (device->store->copies < 2) {
        fsw_row_live(&device->rows, row, bytes, live, copies);
        return;
    }
    FSW_LOCK_SCOPE(&device->repair.lock);
    copies = still_there(device, copies, emptyings);
    int lacks_one = copies != fsw_all_copies(device);
    if (lacks_one)
        raise_lacking(device);
    fsw_row_live(&device->rows, row, bytes, live, copies);
    if (lacks_one)
        atomic_store(&device->repair.wanted, 1);
}

void fsw_repair_want(struct fsw_device *device)
{
    if (device->store->copies < 2)
        return;
    FSW_LOCK_SCOPE(&device->repair.lock);
    raise_lacking(device);
    atomic_store(&device->repair.wanted, 1);
}

/* ---- birth and death ---- */

/* What an earlier server left. */
static uint64_t count_lacking(struct fsw_device *device)
{
    uint32_t top = atomic_load(&device->image.super->rows_top);
    uint64_t lacking = 0;

    for (uint32_t number = 1; number < top; number++)
        lacking += (unsigned)lacks(device, number);
    return lacking;
}

/* As the last server saw it: nobody saw them return. */
static uint32_t were_emptied(const struct fsw_device *device)
{
    uint32_t emptied = 0;

    for (unsigned copy = 0; copy < device->store->copies; copy++)
        if (atomic_load(&device->image.super->copy_state[copy].state) == FSW_COPY_EMPTIED)
            emptied |= 1u << copy;
    return emptied;
}

void fsw_repair_init(struct fsw_device *device)
{
    struct fsw_repair *repair = &device->repair;
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&repair->lock, NULL);
    pthread_cond_init(&repair->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

int fsw_repair_start(struct fsw_device *device)
{
    struct fsw_repair *repair = &device->repair;

    if (device->store->copies < 2)
        return 0;
    repair->bytes = malloc(FSW_SEGMENT_BYTES);
    if (repair->bytes == NULL)
        return -ENOMEM;
    memset(repair->bytes, 0, FSW_SEGMENT_BYTES);
    atomic_store(&repair->wanted, device->recovered);
    repair->emptied = were_emptied(device);
    fsw_stat_set(&device->image, FSW_STAT_SEGMENTS_LACKING, count_lacking(device));
    repair->running = 1; /* seen by the thread */
    int r = pthread_create(&repair->thread, NULL, repair_loop, device);
    if (r != 0) {
        repair->running = 0;
        return -r;
    }
    pthread_setname_np(repair->thread, "fsw-repair");
    return 0;
}

void fsw_repair_stop(struct fsw_device *device)
{
    struct fsw_repair *repair = &device->repair;

    if (repair->running) {
        pthread_mutex_lock(&repair->lock);
        atomic_store(&repair->stop, 1);
        pthread_cond_signal(&repair->wake);
        pthread_mutex_unlock(&repair->lock);
        pthread_join(repair->thread, NULL);
    }
    repair->running = 0;
    free(repair->bytes);
    repair->bytes = NULL;
}
