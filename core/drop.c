/*
 * drop.c: rows that nothing lives in and nobody reads: their segments go at the store, and only
 * after its answer the row is free (rows.h, R3). What fails is asked for again, a second later.
 *
 * Any thread may find that a row is to be dropped; the overflow thread asks. Lists under
 * overflow.lock; the store's thread only moves what it answered to one of them.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "core/crash.h"
#include "core/engine.h"

#define DROP_DEADLINE_NS (5 * FSW_NS_PER_S)
#define DROP_PAUSE_NS FSW_NS_PER_S

static void drop_done(struct fsw_store_request *request)
{
    struct fsw_drop *drop = request->owner;
    struct fsw_overflow *overflow = &drop->device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    drop->next = overflow->drops.finished;
    overflow->drops.finished = drop;
    pthread_cond_signal(&overflow->wake);
}

static void wait_in_line(struct fsw_device *device, uint32_t row)
{
    struct fsw_overflow *overflow = &device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    device->image.rows[row].next = overflow->drops.waiting;
    overflow->drops.waiting = row;
    pthread_cond_signal(&overflow->wake);
}

void fsw_overflow_drop(struct fsw_device *device, uint32_t row)
{
    struct fsw_overflow *overflow = &device->overflow;

    if (!fsw_row_is_whole(&device->image, row)) /* its id may be another's: it is never dropped */
        return;
    atomic_fetch_add(&overflow->drops.bytes, atomic_load(&device->image.rows[row].bytes));
    wait_in_line(device, row);
}

/* Makes requests of as many rows as there are; returns how many. */
static unsigned prepare(struct fsw_device *device, struct fsw_store_request **requests)
{
    struct fsw_drops *drops = &device->overflow.drops;
    unsigned n = 0;

    while (drops->waiting != 0 && drops->idle != NULL) {
        struct fsw_drop *drop = drops->idle;
        drops->idle = drop->next;
        drop->row = drops->waiting;
        drops->waiting = device->image.rows[drop->row].next;
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
    drops->out += n;
    return n;
}

void fsw_drops_ask(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;
    struct fsw_store_request *requests[FSW_DROPS_IN_FLIGHT];

    if (fsw_now_ns() < overflow->drops.not_before)
        return;
    unsigned n = prepare(device, requests);
    if (n == 0)
        return;
    pthread_mutex_unlock(&overflow->lock);
    fsw_crash_point("drop: about to be asked for");
    device->store->ops->submit(device->store, requests, n);
    fsw_crash_point("drop: asked for");
    pthread_mutex_lock(&overflow->lock);
}

/* The store has answered that the segment is gone. */
static void dropped(struct fsw_device *device, uint32_t row)
{
    const struct fsw_image *image = &device->image;
    uint32_t bytes = atomic_load(&image->rows[row].bytes);

    atomic_fetch_sub(&device->overflow.drops.bytes, bytes);
    if (bytes != 0) { /* 0: was never LIVE */
        fsw_stat_sub(image, FSW_STAT_SEGMENTS, 1);
        fsw_stat_sub(image, FSW_STAT_STORE_BYTES, bytes);
    }
    fsw_stat_add(image, FSW_STAT_STORE_DROPS, 1);
    fsw_row_free(&device->rows, row);
}

void fsw_drops_finish(struct fsw_device *device, struct fsw_drop *drop)
{
    struct fsw_overflow *overflow = &device->overflow;

    while (drop != NULL) {
        struct fsw_drop *next = drop->next;
        int made_room = drop->request.result == FSW_STORE_OK &&
                        atomic_load(&device->image.rows[drop->row].bytes) != 0;
        fsw_crash_point("drop: answered");
        if (drop->request.result == FSW_STORE_OK)
            dropped(device, drop->row);
        else
            wait_in_line(device, drop->row);
        FSW_LOCK_SCOPE(&overflow->lock);
        if (made_room && overflow->found_full)
            overflow->pause_until = 0;
        if (made_room && atomic_load(&device->clean.full))
            fsw_clean_wake(device, FSW_CLEAN_ROOM);
        if (drop->request.result != FSW_STORE_OK)
            overflow->drops.not_before = fsw_now_ns() + DROP_PAUSE_NS;
        overflow->drops.out--;
        drop->next = overflow->drops.idle;
        overflow->drops.idle = drop;
        drop = next;
    }
}

int fsw_drops_init(struct fsw_device *device)
{
    struct fsw_drops *drops = &device->overflow.drops;

    drops->all = calloc(FSW_DROPS_IN_FLIGHT, sizeof drops->all[0]);
    if (drops->all == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < FSW_DROPS_IN_FLIGHT; i++) {
        drops->all[i].device = device;
        drops->all[i].next = drops->idle;
        drops->idle = &drops->all[i];
    }
    return 0;
}
