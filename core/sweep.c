/*
 * sweep.c: what a store has and should not: the segments of nobody.
 *
 * Two kinds. A put that was given up can land after its drop. And devices of this name that went with
 * their host's memory have left all they had (predecessors.h). So whenever the store was away, and at
 * the start of a server that goes on with an image, a thread of its own lists what is there and drops
 * what no row knows; a minute later once more, for what was still under way then. The predecessors'
 * it has forgotten as a whole.
 *
 *   W1  Ids are compared with the rows after they were listed. A segment that is listed was put, so its
 *       row was PENDING before, with that id: if no row has it now, it was dropped since, or is nobody's.
 *   W2  A store of slots drops a slot only while it holds that id: the row may have been taken again.
 *   W3  In an image that was damaged a row may have lost its id, so nothing is nobody's.
 *
 * Listed ids are sorted, and the rows are walked once for each `room` of them.
 */
#include "core/sweep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"
#include "core/engine.h"
#include "core/predecessors.h"

#define LOOK_PAUSE_NS FSW_NS_PER_S
#define AGAIN_NS (60 * FSW_NS_PER_S)
#define RETRY_FIRST_NS (5 * FSW_NS_PER_S)
#define RETRY_MOST_NS (600 * FSW_NS_PER_S)
#define DEADLINE_NS (5 * FSW_NS_PER_S)
#define ROOM_LEAST 8192u
#define NEVER UINT64_MAX

/* ---- who is nobody's ---- */

static int by_id(const void *a, const void *b)
{
    const struct fsw_sweep_id *x = a, *y = b;

    return x->id != y->id ? (x->id > y->id) - (x->id < y->id)
                          : (x->row > y->row) - (x->row < y->row);
}

/* Of an id that was told twice the one with its row stays. */
static void sort_ids(struct fsw_sweep *sweep)
{
    uint32_t kept = 0;

    qsort(sweep->ids, sweep->count, sizeof sweep->ids[0], by_id);
    for (uint32_t i = 0; i < sweep->count; i++) {
        if (kept > 0 && sweep->ids[kept - 1].id == sweep->ids[i].id)
            kept--;
        sweep->ids[kept++] = sweep->ids[i];
    }
    sweep->count = kept;
}

static struct fsw_sweep_id *find(struct fsw_sweep *sweep, uint64_t id)
{
    uint32_t from = 0, to = sweep->count;

    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (sweep->ids[middle].id == id)
            return &sweep->ids[middle];
        if (sweep->ids[middle].id < id)
            from = middle + 1;
        else
            to = middle;
    }
    return NULL;
}

static void mark_known(struct fsw_device *device)
{
    uint32_t top = atomic_load(&device->image.super->rows_top);

    for (uint32_t row = 1; row < top; row++) {
        struct fsw_sweep_id *at;
        if (fsw_row_state(&device->image, row) != FSW_ROW_FREE &&
            (at = find(&device->sweep, fsw_row_id(&device->image, row))) != NULL)
            at->known = 1;
    }
}

/* ---- dropping them ---- */

static int drop(struct fsw_device *device, unsigned n)
{
    struct fsw_sweep *sweep = &device->sweep;
    struct fsw_store_request *requests[FSW_SWEEP_BATCH];
    unsigned failed = 0;

    for (unsigned i = 0; i < n; i++)
        requests[i] = &sweep->requests[i];
    if (n > 0)
        fsw_segment_ask(device, requests, n);
    for (unsigned i = 0; i < n; i++)
        failed += requests[i]->result != FSW_STORE_OK;
    fsw_stat_add(&device->image, FSW_STAT_SEGMENTS_SWEPT, n - failed);
    return failed > 0 ? -EAGAIN : 0;
}

static int drop_unknown(struct fsw_device *device)
{
    struct fsw_sweep *sweep = &device->sweep;
    unsigned n = 0;
    int r = 0;

    for (uint32_t i = 0; r == 0 && i < sweep->count; i++) {
        if (sweep->ids[i].known)
            continue;
        sweep->requests[n++] = (struct fsw_store_request){.verb = FSW_STORE_DROP,
                                                          .row = sweep->ids[i].row,
                                                          .id = sweep->ids[i].id,
                                                          .deadline = fsw_now_ns() + DEADLINE_NS};
        if (n < FSW_SWEEP_BATCH)
            continue;
        r = drop(device, n);
        n = 0;
    }
    return r == 0 ? drop(device, n) : r;
}

/* ---- a look ---- */

static int compare(struct fsw_device *device)
{
    struct fsw_sweep *sweep = &device->sweep;

    sort_ids(sweep);
    mark_known(device);
    int r = atomic_load(&sweep->stop) ? -EINTR : drop_unknown(device);
    sweep->count = 0;
    return r;
}

static int listed(uint32_t row, uint64_t id, void *opaque)
{
    struct fsw_device *device = opaque;
    struct fsw_sweep *sweep = &device->sweep;

    sweep->ids[sweep->count++] = (struct fsw_sweep_id){.id = id, .row = row};
    if (atomic_load(&sweep->stop))
        return 1;
    return sweep->count == sweep->room && compare(device) < 0;
}

/* 0, or a negative errno: not all of it was looked at. */
static int look(struct fsw_device *device)
{
    struct fsw_sweep *sweep = &device->sweep;
    struct fsw_store *store = device->store;
    uint32_t rows = atomic_load(&device->image.super->rows_top);

    sweep->count = 0;
    sweep->room = rows / 16 > ROOM_LEAST ? rows / 16 : ROOM_LEAST;
    sweep->ids = malloc(sweep->room * sizeof sweep->ids[0]);
    if (sweep->ids == NULL)
        return -ENOMEM;
    int r = store->ops->list(store, &device->image.super->device, listed, device, NULL);
    if (r <= 0 && compare(device) < 0)
        r = -EAGAIN;
    free(sweep->ids);
    sweep->ids = NULL;
    return r > 0 ? -EAGAIN : r;
}

struct forgetting {
    struct fsw_device *device;
    int result;
};

static int forget_one(const struct fsw_record *record, void *opaque)
{
    struct forgetting *forgetting = opaque;
    struct fsw_device *device = forgetting->device;
    uint64_t segments;

    if (!fsw_predecessor_is_within(record, device->image.super->overflow))
        return 0;
    forgetting->result =
        device->store->ops->forget(device->store, &record->device, &segments, NULL);
    if (forgetting->result < 0)
        return 1;
    fsw_stat_add(&device->image, FSW_STAT_SEGMENTS_SWEPT, segments);
    fsw_predecessors_forgotten(record);
    return atomic_load(&device->sweep.stop) != 0;
}

/* Those that were at this store; a front door cares for the others (client/door/leftover.h). */
static int forget_predecessors(struct fsw_device *device)
{
    struct forgetting forgetting = {.device = device};

    fsw_predecessors_each(device->name, forget_one, &forgetting);
    return forgetting.result;
}

/* ---- the thread ---- */

static int is_wanted(struct fsw_sweep *sweep)
{
    FSW_LOCK_SCOPE(&sweep->lock);
    int wanted = sweep->wanted;

    sweep->wanted = 0;
    return wanted;
}

static void look_if_due(struct fsw_device *device)
{
    struct fsw_sweep *sweep = &device->sweep;
    struct fsw_store_health health;
    uint64_t now = fsw_now_ns();

    device->store->ops->health(device->store, &health);
    int came_back = health.reconnects != sweep->reconnects, again = now >= sweep->look_after;
    int first = !sweep->looked && !device->recovered; /* it has left nothing yet */
    if (!health.connected || !((!first && is_wanted(sweep)) || came_back || again))
        return;
    int last = again && sweep->look_after != 0 && sweep->pause == 0 && !came_back;
    int r = forget_predecessors(device);
    if (r == 0 && device->lost == 0 && !first)
        r = look(device);
    sweep->looked = 1;
    now = fsw_now_ns();
    sweep->reconnects = health.reconnects;
    if (r == 0) {
        sweep->look_after = last ? NEVER : now + AGAIN_NS;
        sweep->pause = 0;
        return;
    }
    sweep->pause = sweep->pause == 0 ? RETRY_FIRST_NS : sweep->pause * 2;
    if (sweep->pause > RETRY_MOST_NS)
        sweep->pause = RETRY_MOST_NS;
    sweep->look_after = now + sweep->pause;
}

static void *sweep_loop(void *opaque)
{
    struct fsw_device *device = opaque;
    struct fsw_sweep *sweep = &device->sweep;

    fsw_touch_stack();
    while (!atomic_load(&sweep->stop)) {
        look_if_due(device);
        FSW_LOCK_SCOPE(&sweep->lock);
        struct timespec until = fsw_timespec(fsw_now_ns() + LOOK_PAUSE_NS);
        if (!atomic_load(&sweep->stop) && !sweep->wanted)
            pthread_cond_timedwait(&sweep->wake, &sweep->lock, &until);
    }
    return NULL;
}

static void wake(struct fsw_sweep *sweep, int stop)
{
    FSW_LOCK_SCOPE(&sweep->lock);

    atomic_store(&sweep->stop, stop);
    sweep->wanted = 1;
    pthread_cond_signal(&sweep->wake);
}

void fsw_sweep_want(struct fsw_device *device)
{
    if (device->sweep.running)
        wake(&device->sweep, 0);
}

/* ---- birth and death ---- */

int fsw_sweep_start(struct fsw_device *device)
{
    struct fsw_sweep *sweep = &device->sweep;
    pthread_condattr_t monotonic;

    if (device->store == NULL)
        return 0;
    sweep->look_after = 0;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&sweep->lock, NULL);
    pthread_cond_init(&sweep->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int r = pthread_create(&sweep->thread, NULL, sweep_loop, device);
    if (r != 0)
        return -r;
    pthread_setname_np(sweep->thread, "fsw-sweep");
    sweep->running = 1;
    return 0;
}

void fsw_sweep_stop(struct fsw_device *device)
{
    struct fsw_sweep *sweep = &device->sweep;

    if (sweep->running) {
        wake(sweep, 1);
        pthread_join(sweep->thread, NULL);
    }
    sweep->running = 0;
}
