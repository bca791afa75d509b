/*
 * work.c: steps by chance, each checked against the model where it can be.
 *
 * The harness sees the engine's inside: it wakes the engine's threads when it wants something of
 * them, and lets no pause after a failed put stand, so that a run takes milliseconds.
 */
#include "work.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../unit/rig.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "core/budget.h"
#include "farswap/steer.h"

#define PATIENCE_NS (60 * FSW_NS_PER_S)
#define GROUP 24u          /* pages of a worker in a row */
#define FRAMES 72u         /* memory=, give or take what the workers change */
#define LIMIT (1ull << 30) /* bytes; nothing here takes so many */
#define LONGEST (20 * FSW_PAGE_SIZE)

/* At the start, around the borders of leaves; and rarely, so that their leaves are made late, of
 * frames that were used before, further back. */
#define OFTEN 3u
#define RARELY 2u
static const unsigned groups[WORKERS_MAX][OFTEN + RARELY] = {
    {0, 500, 1020, 1600, 2060}, {24, 524, 1044, 1700, 2084}, {48, 560, 900, 1800, 2110}};

struct worker {
    const struct work *work;
    unsigned number;
    uint64_t state;
    int failed;
    unsigned char bytes[LONGEST + FSW_PAGE_SIZE];
};

/* ---- pushing the engine's own threads ---- */

static void nudge(struct fsw_device *device, int evict)
{
    struct fsw_overflow *overflow = &device->overflow;
    struct fsw_keeper *keeper = &device->keeper;

    pthread_mutex_lock(&overflow->lock);
    overflow->pause_until = 0;
    overflow->drops.not_before = 0;
    if (evict) { /* each time: the keeper sets it back when memory= changes */
        atomic_store(&device->reclaim.high, UINT32_MAX / 2);
        atomic_store(&overflow->wanted, 1);
    }
    pthread_cond_signal(&overflow->wake);
    pthread_mutex_unlock(&overflow->lock);
    pthread_mutex_lock(&keeper->lock);
    pthread_cond_signal(&keeper->wake);
    pthread_mutex_unlock(&keeper->lock);
    if (atomic_load(&device->repair.running)) {
        FSW_LOCK_SCOPE(&device->repair.lock);
        pthread_cond_signal(&device->repair.wake);
    }
}

static void waited_in_vain(struct fsw_device *device, const char *what)
{
    struct fsw_overflow *overflow = &device->overflow;
    struct fsw_frames *frames = &device->pool.frames;

    fprintf(
        stderr,
        "waited a minute in vain for %s: %llu pages in the pool, %u puts, %u drops out, row %u to "
        "drop; frames: %u used, %u ready, %u others, limit %u; rows: top %u, ready %u, free %u\n",
        what, (unsigned long long)fsw_stat_get(&device->image, FSW_STAT_PAGES_POOL),
        overflow->puts_out, overflow->drops.out, overflow->drops.waiting, frames->used,
        frames->nready, frames->overhead, frames->limit, device->image.super->rows_top,
        device->rows.ready, device->rows.free);
}

static int wait_until(struct fsw_device *device, int evict, int (*done)(struct fsw_device *device),
                      const char *what)
{
    uint64_t deadline = fsw_now_ns() + PATIENCE_NS;
    const struct timespec pause = {.tv_nsec = 200 * 1000};

    while (!done(device)) {
        if (fsw_now_ns() > deadline) {
            waited_in_vain(device, what);
            return -ETIMEDOUT;
        }
        nudge(device, evict);
        nanosleep(&pause, NULL);
    }
    return 0;
}

static int pool_is_empty(struct fsw_device *device)
{
    return fsw_stat_get(&device->image, FSW_STAT_PAGES_POOL) == 0;
}

static int is_compacted(struct fsw_device *device)
{
    struct fsw_superblock *super = device->image.super;
    return atomic_load(&super->compact_answered) == atomic_load(&super->compact_asked);
}

/* memory= may have been lowered: what is used beyond it has left. */
static int fits_memory(struct fsw_device *device)
{
    struct fsw_frames *frames = &device->pool.frames;

    return atomic_load(&frames->used) + atomic_load(&frames->nready) +
               atomic_load(&frames->overhead) <=
           atomic_load(&frames->limit);
}

static int is_at_rest(struct fsw_device *device)
{
    struct fsw_overflow *overflow = &device->overflow;
    FSW_LOCK_SCOPE(&overflow->lock);

    return fits_memory(device) && overflow->puts_out == 0 && overflow->drops.out == 0 &&
           overflow->drops.waiting == 0 && overflow->finished == NULL &&
           overflow->drops.finished == NULL;
}

int work_rest(struct fsw_device *device)
{
    return wait_until(device, 0, is_at_rest, "puts and drops to end");
}

void work_shrink(struct fsw_device *device)
{
    atomic_store(&device->image.super->memory_limit, FRAMES * FSW_FRAME_SIZE);
    fsw_frames_set_limit(&device->pool.frames, FRAMES * FSW_FRAME_SIZE);
    fsw_reclaim_set_limit(device);
    /* The first day that begins here is to find nothing of that. */
    atomic_store(&device->image.super->overflow_spent, LIMIT / 2);
}

void work_set_limit(struct fsw_device *device)
{
    fsw_budget_set_day(device->image.super, LIMIT);
}

int work_evict_all(struct fsw_device *device)
{
    int r = wait_until(device, 1, pool_is_empty, "the pool to be empty");

    fsw_reclaim_set_limit(device);
    return r;
}

/* ---- steps ---- */

static unsigned page_of(uint64_t offset)
{
    return (unsigned)(offset / FSW_PAGE_SIZE);
}

static int failed(struct worker *worker, const char *what, uint64_t offset, uint64_t length, int r)
{
    struct model *model = worker->work->model;

    /* No space, on a machine that is slow: then the pages are old or new. */
    if (r == -ENOSPC && model_settle(model, worker->work->device, page_of(offset),
                                     page_of(offset + length - 1) + 1) == 0)
        return 0;
    fprintf(stderr, "worker %u: %s of %llu bytes at %llu: %s\n", worker->number, what,
            (unsigned long long)length, (unsigned long long)offset, strerror(-r));
    return r;
}

/* What part of [offset, offset + length) lies in a page. */
struct part {
    unsigned page, at, length;
};

static struct part part_at(uint64_t offset, uint64_t length)
{
    unsigned at = (unsigned)(offset % FSW_PAGE_SIZE), room = FSW_PAGE_SIZE - at;

    return (struct part){page_of(offset), at, length < room ? (unsigned)length : room};
}

/* The range's pages will be: those bytes, or zeroes. whole: parts of pages stay as they are. */
static void submitted(struct worker *worker, uint64_t offset, uint64_t length,
                      const unsigned char *bytes, int whole)
{
    struct model *model = worker->work->model;

    for (uint64_t done = 0; done < length;) {
        struct part part = part_at(offset + done, length - done);
        unsigned char *next = model_begin(model, part.page);
        if (bytes != NULL)
            memcpy(next + part.at, bytes + done, part.length);
        else if (part.length == FSW_PAGE_SIZE || !whole)
            memset(next + part.at, 0, part.length);
        model_submitted(model, part.page);
        done += part.length;
    }
}

static void acknowledged(struct worker *worker, uint64_t offset, uint64_t length)
{
    for (unsigned page = page_of(offset); page <= page_of(offset + length - 1); page++)
        model_acknowledged(worker->work->model, page);
}

static int still_there(struct fsw_peer *peer)
{
    return 0;
}

/* As by the verbs, or as our own server does it: a peer is published for under the entry's lock. */
static int do_it(struct worker *worker, enum fsw_verb verb, uint64_t offset, uint64_t length)
{
    struct fsw_peer peer = {.is_gone = still_there};
    struct fsw_io io = {.verb = verb, .bytes = worker->bytes, .offset = offset, .length = length};

    io.peer = rig_below(&worker->state, 2) ? &peer : NULL;
    fsw_device_do(worker->work->device, &io);
    return io.result;
}

static int write_range(struct worker *worker, uint64_t offset, uint64_t length)
{
    submitted(worker, offset, length, worker->bytes, 0);
    int r = do_it(worker, FSW_WRITE, offset, length);
    if (r < 0)
        return failed(worker, "write", offset, length, r);
    acknowledged(worker, offset, length);
    return 0;
}

static int discard_range(struct worker *worker, uint64_t offset, uint64_t length)
{
    submitted(worker, offset, length, NULL, 1);
    int r = do_it(worker, FSW_DISCARD, offset, length);
    if (r < 0)
        return failed(worker, "discard", offset, length, r);
    acknowledged(worker, offset, length);
    return 0;
}

static int zero_range(struct worker *worker, uint64_t offset, uint64_t length)
{
    submitted(worker, offset, length, NULL, 0);
    int r = do_it(worker, FSW_ZERO, offset, length);
    if (r < 0)
        return failed(worker, "write of zeroes", offset, length, r);
    acknowledged(worker, offset, length);
    return 0;
}

static int read_range(struct worker *worker, uint64_t offset, uint64_t length)
{
    int r = fsw_device_read(worker->work->device, worker->bytes, offset, length);

    if (r < 0)
        return failed(worker, "read", offset, length, r);
    for (uint64_t done = 0; done < length;) {
        struct part part = part_at(offset + done, length - done);
        if (memcmp(worker->bytes + done, model_content(worker->work->model, part.page) + part.at,
                   part.length) != 0)
            return failed(worker, "wrong content in a read", offset + done, part.length, -EIO);
        done += part.length;
    }
    return 0;
}

static void fill(struct worker *worker, uint64_t length, int kind)
{
    for (uint64_t at = 0; at < length; at += FSW_PAGE_SIZE)
        rig_fill(worker->bytes + at,
                 kind < 0 ? (enum rig_kind)rig_below(&worker->state, RIG_KINDS)
                          : (enum rig_kind)kind,
                 rig_random(&worker->state));
}

static int compact(struct worker *worker)
{
    struct fsw_device *device = worker->work->device;

    atomic_fetch_add(&device->image.super->compact_asked, 1);
    return wait_until(device, 0, is_compacted, "compaction");
}

/* A look whether there is something to clean: a segment of which any part is dead. */
static void look_for_dead(struct fsw_device *device)
{
    FSW_LOCK_SCOPE(&device->clean.lock);
    device->clean.worth = 0;
    device->clean.news = FSW_CLEAN_WANTED;
    pthread_cond_signal(&device->clean.wake);
}

static int is_idle_gone(struct fsw_device *device)
{
    struct fsw_superblock *super = device->image.super;
    return atomic_load(&super->idle_answered) == atomic_load(&super->idle_asked) >> 32;
}

/* All pages are asked to leave, as `farswap overflow` asks. */
static int ask_to_leave(struct worker *worker)
{
    struct fsw_device *device = worker->work->device;

    atomic_fetch_add(&device->image.super->idle_asked, 1ull << 32);
    return wait_until(device, 0, is_idle_gone, "idle pages to leave");
}

/* A zspage full of pages of one kind, of which most go again: something to compact, and it is. */
static int make_sparse(struct worker *worker, uint64_t base)
{
    int r = 0;

    fill(worker, LONGEST, RIG_HALF);
    r = write_range(worker, base, LONGEST);
    for (uint64_t page = 0; r == 0 && page < LONGEST / FSW_PAGE_SIZE; page++)
        if (page % 4 != 3)
            r = discard_range(worker, base + page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
    return r < 0 ? r : compact(worker);
}

static void change_memory(struct worker *worker)
{
    struct fsw_superblock *super = worker->work->device->image.super;
    uint64_t memory = (FRAMES - 24 + rig_below(&worker->state, 40)) * FSW_FRAME_SIZE;

    atomic_store(&super->memory_limit, memory);
    nudge(worker->work->device, 0);
}

/* Who leaves, from now on. */
static void change_policy(struct worker *worker)
{
    struct fsw_superblock *super = worker->work->device->image.super;

    atomic_store(&super->huge, (uint32_t)rig_below(&worker->state, FSW_HUGE_STORE + 1));
    atomic_store(&super->read_age, (uint32_t)rig_below(&worker->state, FSW_READ_AGE_KEEP + 1));
}

/* A day's limit that has room for all of this; now and then another day, which begins with what leaves
 * then; or none; or one that is used up, so that what was asked to leave may not. */
static int change_limit(struct worker *worker)
{
    struct fsw_device *device = worker->work->device;
    struct fsw_superblock *super = device->image.super;
    uint64_t form = rig_below(&worker->state, 4);

    fsw_budget_set_day(super, form == 0 ? 0 : LIMIT);
    if (form == 1)
        atomic_store(&super->overflow_refill, 0);
    if (form != 1 && form != 2)
        return 0;
    if (form == 2)
        fsw_device_set_overflow_budget(device, 0);
    int r = ask_to_leave(worker);
    work_set_limit(device);
    return r;
}

/* Whole pages mostly; sometimes borders and parts. */
static uint64_t choose_length(struct worker *worker, uint64_t *offset)
{
    uint64_t form = rig_below(&worker->state, 8);

    if (form == 0)
        return LONGEST; /* long enough for the crew */
    if (form < 6)
        return (1 + rig_below(&worker->state, 3)) * FSW_PAGE_SIZE;
    *offset += rig_below(&worker->state, FSW_PAGE_SIZE);
    return 1 + rig_below(&worker->state, 2 * FSW_PAGE_SIZE);
}

static int one_step(struct worker *worker)
{
    const unsigned *mine = groups[worker->number];
    unsigned rare = rig_below(&worker->state, 32) == 0;
    uint64_t base = rare ? mine[OFTEN + rig_below(&worker->state, RARELY)]
                         : mine[rig_below(&worker->state, OFTEN)];
    base *= FSW_PAGE_SIZE;
    uint64_t offset = base + rig_below(&worker->state, GROUP) * FSW_PAGE_SIZE;
    uint64_t length = choose_length(worker, &offset), end = base + GROUP * FSW_PAGE_SIZE;

    if (offset + length > end)
        length = end - offset;
    switch (rig_below(&worker->state, 24)) {
    case 0:
        return make_sparse(worker, base);
    case 1:
        return rig_below(&worker->state, 2) ? compact(worker) : ask_to_leave(worker);
    case 2:
    case 3:
        return worker->work->workers == 1 ? work_evict_all(worker->work->device)
                                          : (nudge(worker->work->device, 1), 0);
    case 4:
        look_for_dead(worker->work->device);
        return 0;
    case 5:
    case 6:
        return discard_range(worker, offset, length);
    case 7:
        return zero_range(worker, offset, length);
    case 8:
    case 9:
    case 10:
        return read_range(worker, offset, length);
    case 11:
        change_memory(worker);
        return 0;
    case 12:
        worker->work->shelf->fail_in_thousand = rig_below(&worker->state, 2) ? 400 : 0;
        return 0;
    case 13:
        change_policy(worker);
        return change_limit(worker);
    default:
        fill(worker, length, -1);
        return write_range(worker, offset, length);
    }
}

static void *run(void *opaque)
{
    struct worker *worker = opaque;

    for (unsigned step = 0; worker->failed == 0 && step < worker->work->steps; step++)
        worker->failed = one_step(worker);
    return NULL;
}

struct nudger {
    struct fsw_device *device;
    pthread_t thread;
    _Atomic int stop;
};

/* A writer that waits for space waits for a put, and no put waits after one that failed. */
static void *keep_nudging(void *opaque)
{
    struct nudger *nudger = opaque;
    const struct timespec pause = {.tv_nsec = 500 * 1000};

    while (!atomic_load(&nudger->stop)) {
        nudge(nudger->device, 0);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

int work_run(const struct work *work)
{
    static struct worker workers[WORKERS_MAX];
    pthread_t threads[WORKERS_MAX];
    struct nudger nudger = {.device = work->device};
    int r = 0;

    pthread_create(&nudger.thread, NULL, keep_nudging, &nudger);
    for (unsigned i = 0; i < work->workers; i++) {
        workers[i] = (struct worker){.work = work, .number = i, .state = work->seed + i * 7919};
        if (i > 0)
            pthread_create(&threads[i], NULL, run, &workers[i]);
    }
    run(&workers[0]);
    for (unsigned i = 1; i < work->workers; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&nudger.stop, 1);
    pthread_join(nudger.thread, NULL);
    for (unsigned i = 0; i < work->workers; i++)
        r = workers[i].failed < 0 ? workers[i].failed : r;
    return r;
}
