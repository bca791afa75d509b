/*
 * clean.c: segments in which much is dead are rewritten, so that what they take comes free.
 *
 * A segment goes when nothing lives in it; one live object keeps all of it. When too much of what the
 * store keeps is dead, a thread of its own takes a few of the emptiest segments:
 *
 *      pin their rows > get them > copy what lives into new segments > put those > flip > unpin, drop
 *
 * An object lives if its page's entry names it. The entry is compared again when it is flipped, and
 * may be compared by value because the row is pinned (docs/locking.md, c). What does not open is left
 * where it is: another copy may be whole.
 *
 * A store that is full takes no new segment. Then what lives comes back into the pool, as far as there
 * is room, and leaves again as the oldest there is. A part of the reserve is kept for that, or pool and
 * store could both be full, and half of it dead.
 *
 * Which ones: a hand goes round the rows. In each lap it counts how full they are, in 64 steps, and in
 * the next it takes those that are as empty as the emptiest sixteenth was. So a lap costs 16 looks a
 * segment that is cleaned, and nothing is kept sorted.
 *
 * How fast: from FSW_CLEAN_BEGIN on, for a part of the time; all the time from FSW_CLEAN_LIMIT on, and
 * then overflow, which makes the dead, puts one segment at a time, and from FSW_CLEAN_STOP on ten a
 * second at most, or writers would fail: but for a store where cleaning moves nothing, for then waiting
 * does not help. Each wakes the other: overflow, when it may not put, this thread from its rest between
 * two looks; the drops of what was cleaned, overflow. And where neither pool nor store had room for what
 * lives, it is tried again as soon as a drop or a put of overflow's has made some.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"
#include "core/budget.h"
#include "core/crash.h"
#include "core/engine.h"

#define LOOK_EVERY_NS (100 * FSW_NS_PER_MS)
#define FAILED_PAUSE_NS FSW_NS_PER_S
#define GET_DEADLINE_NS (5 * FSW_NS_PER_S)
#define STEP_ROWS 65536u /* some 100 µs of looking, then a pause */
#define LAP_PART 16u
#define DROPS_PART 8u    /* of the store's bytes that may wait for their drop */
#define LEAST_EFFORT 10u /* percent of the time */
#define STOPPED_NS (100 * FSW_NS_PER_MS)
/* An object that does not fit leaves a segment's end empty. */
#define ROOM (FSW_CLEAN_PUTS * (FSW_SEGMENT_UNITS - FSW_OBJECT_UNITS_MAX))

/* ---- how much is dead ---- */

/* Without what waits for its drop, which cleaning can't help. */
static uint64_t dead_bytes(struct fsw_device *device, uint64_t *ret_bytes)
{
    uint64_t leaving = atomic_load(&device->overflow.drops.bytes);
    uint64_t dead = fsw_image_dead_bytes(&device->image);
    uint64_t bytes = fsw_stat_get(&device->image, FSW_STAT_STORE_BYTES);

    *ret_bytes = bytes > leaving ? bytes - leaving : 0;
    return dead > leaving ? dead - leaving : 0;
}

/* Percent of the time that cleaning should take; 0: none. */
static unsigned effort(struct fsw_device *device)
{
    struct fsw_clean *clean = &device->clean;
    uint64_t bytes, dead = dead_bytes(device, &bytes);
    int full = atomic_load(&clean->full);
    uint64_t begin = full ? FSW_CLEAN_FULL : FSW_CLEAN_BEGIN;

    if (atomic_load(&device->overflow.drops.bytes) * DROPS_PART > bytes) /* it would make more */
        return 0;
    if (!fsw_budget_allows(device, FSW_CLEAN_PUTS))
        return 0;
    if (bytes == 0 || dead < (full ? 1 : clean->worth) || dead * 100 < bytes * begin)
        return 0;
    uint64_t percent = dead * 100 / bytes;
    if (full || percent >= FSW_CLEAN_LIMIT)
        return 100;
    return LEAST_EFFORT + (unsigned)((100 - LEAST_EFFORT) * (percent - FSW_CLEAN_BEGIN) /
                                     (FSW_CLEAN_LIMIT - FSW_CLEAN_BEGIN));
}

unsigned fsw_clean_puts_allowed(struct fsw_device *device)
{
    uint64_t bytes, dead = dead_bytes(device, &bytes);

    if (fsw_now_ns() >
        device->overflow.drops.not_before) { /* drops get through: they count as dead */
        dead = fsw_image_dead_bytes(&device->image);
        bytes = fsw_stat_get(&device->image, FSW_STAT_STORE_BYTES);
    }

    if (dead < FSW_CLEAN_WORTH || dead * 100 <= bytes * FSW_CLEAN_LIMIT ||
        atomic_load(&device->clean.helpless) || !device->clean.running)
        return FSW_PUTS_IN_FLIGHT;
    return dead * 100 < bytes * FSW_CLEAN_STOP ||
           fsw_now_ns() > device->overflow.last_put + STOPPED_NS;
}

void fsw_clean_store_is_full(struct fsw_device *device, int full)
{
    struct fsw_clean *clean = &device->clean;

    if (atomic_load_explicit(&clean->full, memory_order_relaxed) == full || !clean->running)
        return;
    atomic_store(&clean->full, full);
    fsw_clean_wake(device, full ? FSW_CLEAN_WANTED : FSW_CLEAN_ROOM);
}

void fsw_clean_wake(struct fsw_device *device, enum fsw_clean_news news)
{
    struct fsw_clean *clean = &device->clean;
    FSW_LOCK_SCOPE(&clean->lock);

    if (clean->news < news)
        clean->news = news;
    pthread_cond_signal(&clean->wake);
}

/* ---- which ones ---- */

/* What lives in a row's segment, in units with their seals; 0: it is none to be looked at now. */
static unsigned live_units(struct fsw_device *device, uint32_t row)
{
    uint32_t live = fsw_row_live_now(&device->image, row);

    if (fsw_row_state(&device->image, row) != FSW_ROW_LIVE ||
        fsw_row_pins(&device->image, row) != 0 || fsw_row_is_lost(device, row))
        return 0;
    return fsw_live_units(live) + fsw_live_objects(live) * device->seal;
}

/* The next lap takes those that are as empty as a part of these were. */
static void end_lap(struct fsw_clean *clean)
{
    uint32_t total = 0, sum = 0;
    int share = -1;

    for (unsigned i = 0; i <= FSW_CLEAN_SHARES; i++)
        total += clean->shares[i];
    while (total > 0 && sum * LAP_PART < total && share < (int)FSW_CLEAN_SHARES)
        sum += clean->shares[++share];
    clean->threshold = share;
    memset(clean->shares, 0, sizeof clean->shares);
    clean->hand = 1;
    clean->futile_laps = clean->moved_in_lap == 0 ? clean->futile_laps + 1 : 0;
    clean->moved_in_lap = 0;
}

static int take(struct fsw_device *device, uint32_t row, uint32_t bytes)
{
    struct fsw_clean *clean = &device->clean;
    struct fsw_clean_source *source = &clean->sources[clean->count];

    if (!fsw_row_pin(&device->rows, row))
        return 0;
    source->row = row;
    source->request = (struct fsw_store_request){
        .verb = FSW_STORE_GET,
        .row = row,
        .id = fsw_row_id(&device->image, row),
        .bytes = source->bytes,
        .length = bytes,
        .copies = atomic_load(&device->image.rows[row].copies),
        .deadline = fsw_now_ns() + GET_DEADLINE_NS,
    };
    clean->count++;
    return 1;
}

/* Units that one step can move: what the store takes, or else what the pool can take back. */
static unsigned room(struct fsw_device *device, int full)
{
    uint32_t frames = atomic_load(&device->pool.frames.nready),
             most = ROOM * FSW_UNIT / FSW_FRAME_SIZE;

    return full && frames < most ? frames * (FSW_FRAME_SIZE / FSW_UNIT) : ROOM;
}

/* Goes on round the rows and pins those to be cleaned: as many as there is room for. */
static void gather(struct fsw_device *device)
{
    struct fsw_clean *clean = &device->clean;
    uint32_t top = atomic_load(&device->image.super->rows_top);
    int full = atomic_load(&clean->full);
    /* What comes back into the pool must empty a segment, or nothing is won. */
    unsigned units = 0, most = full ? 1 : FSW_CLEAN_SOURCES, has_room = room(device, full);

    clean->count = 0;
    for (unsigned step = 0; step < STEP_ROWS && clean->count < most; step++) {
        if (clean->hand >= top) {
            end_lap(clean);
            return;
        }
        unsigned live = live_units(device, clean->hand);
        uint32_t bytes = atomic_load(&device->image.rows[clean->hand].bytes);
        if (live == 0 || bytes == 0 || bytes > FSW_SEGMENT_BYTES || live * FSW_UNIT > bytes) {
            clean->hand++;
            continue;
        }
        int share = (int)(live * FSW_UNIT * FSW_CLEAN_SHARES / bytes);
        int wanted = share <= clean->threshold && live * FSW_UNIT < bytes;
        int fits = units + live <= has_room;
        if (wanted && !fits && clean->count > 0)
            return;
        if (wanted && fits && take(device, clean->hand, bytes))
            units += live;
        else
            clean->shares[share]++; /* of those that stay */
        clean->hand++;
    }
}

/* ---- what lives there ---- */

/* The put that has room for an object; NULL: there is no row for another. */
static struct fsw_clean_put *put_for(struct fsw_device *device, unsigned units)
{
    struct fsw_clean *clean = &device->clean;

    if (clean->filled > 0 && fsw_put_fits(device, &clean->puts[clean->filled - 1].put, units))
        return &clean->puts[clean->filled - 1];
    if (clean->filled == FSW_CLEAN_PUTS || !fsw_put_begin(device, &clean->puts[clean->filled].put))
        return NULL;
    return &clean->puts[clean->filled++];
}

/* Packs an object if its page's entry names it there. */
static void pack_object(struct fsw_device *device, uint32_t row,
                        const struct fsw_segment_object *object)
{
    struct fsw_clean_put *to;
    uint64_t value = fsw_entry_store(row, object->offset, object->units);
    fsw_entry *entry =
        object->page < device->pages ? fsw_table_find(&device->image, object->page) : NULL;

    if (entry == NULL || !fsw_entry_same_place(fsw_entry_load(entry), value))
        return;
    if (!fsw_segment_object_is_whole(device, object)) {
        fsw_stat_add(&device->image, FSW_STAT_CORRUPT_PAGES, 1);
        return;
    }
    to = put_for(device, object->units);
    if (to == NULL)
        return;
    to->objects[to->put.count] = object->bytes;
    memcpy(fsw_put_place(device, &to->put), object->bytes, object->units * FSW_UNIT);
    fsw_put_add(device, &to->put, entry, value);
}

static void pack_source(struct fsw_device *device, const struct fsw_clean_source *source)
{
    struct fsw_segment_object object;
    unsigned at = 0;

    while (fsw_segment_next(device, source->bytes, source->request.length, &at, &object))
        pack_object(device, source->row, &object);
}

static void get_sources(struct fsw_device *device)
{
    struct fsw_clean *clean = &device->clean;
    struct fsw_store_request *requests[FSW_CLEAN_SOURCES];

    for (unsigned i = 0; i < clean->count; i++)
        requests[i] = &clean->sources[i].request;
    fsw_segment_ask(device, requests, clean->count);
}

/* ---- where it goes ---- */

static void put_answered(struct fsw_store_request *request)
{
    struct fsw_put *put = request->owner;
    sem_post(&put->device->clean.answered);
}

/* An object comes back into the pool. 0: there is no room. */
static int bring_back(struct fsw_device *device, fsw_entry *entry, uint64_t stored,
                      const char *bytes)
{
    unsigned units = fsw_entry_units(stored);
    uint64_t location = fsw_pool_alloc(&device->pool, units);
    uint8_t oldest = (uint8_t)(atomic_load(&device->clock) - FSW_AGE_MAX);

    if (location == 0)
        return 0;
    uint64_t value = fsw_entry_pool(location, units, oldest);
    fsw_pool_write(&device->pool, location, bytes, units);
    fsw_crash_point("clean: object in the pool again, not published");
    if (!fsw_put_flip(entry, stored, value)) {
        fsw_pool_free(&device->pool, location);
        return 1;
    }
    fsw_crash_point("clean: page in the pool again, not counted");
    fsw_page_count(device, value, 1);
    fsw_page_count(device, stored, -1);
    fsw_stat_add(&device->image, FSW_STAT_CLEAN_RETURNED, 1);
    fsw_crash_point("clean: page in the pool again, still counted in its row");
    fsw_row_kill(&device->rows, fsw_entry_row(stored), fsw_live(1, units)); /* it is pinned */
    return 1;
}

/* The put failed: the store has no room. Its bytes are the store's, those got are ours. */
static void bring_all_back(struct fsw_device *device, const struct fsw_clean_put *from)
{
    const struct fsw_put *put = &from->put;
    uint32_t frames = (put->units * FSW_UNIT + FSW_FRAME_SIZE - 1) / FSW_FRAME_SIZE;

    /* All or nothing: half a segment in the pool is room lost on both sides. */
    if (atomic_load(&device->pool.frames.nready) < frames)
        return;
    fsw_frames_use_kept(1);
    for (uint32_t i = 0; i < put->count; i++)
        if (!bring_back(device, put->entries[i], put->values[i], from->objects[i]))
            break;
    fsw_frames_use_kept(0);
}

/* Everything that lives in the sources, under new ids. 1: the store is full. */
static int move(struct fsw_device *device)
{
    struct fsw_clean *clean = &device->clean;
    int full = 0;

    clean->filled = 0;
    for (unsigned i = 0; i < clean->count; i++)
        if (clean->sources[i].request.result == FSW_STORE_OK)
            pack_source(device, &clean->sources[i]);
    fsw_hook(device, FSW_HOOK_CLEANED);
    for (unsigned i = 0; i < clean->filled; i++)
        fsw_put_submit(device, &clean->puts[i].put, put_answered);
    for (unsigned i = 0; i < clean->filled; i++)
        while (sem_wait(&clean->answered) < 0) /* EINTR */
            ;
    for (unsigned i = 0; i < clean->filled; i++)
        if (fsw_put_finish(device, &clean->puts[i].put) == FSW_STORE_FULL) {
            bring_all_back(device, &clean->puts[i]);
            full = 1;
        }
    return full;
}

static uint64_t pages_moved(const struct fsw_device *device)
{
    return fsw_stat_get(&device->image, FSW_STAT_CLEAN_PAGES) +
           fsw_stat_get(&device->image, FSW_STAT_CLEAN_RETURNED);
}

/* A few segments: 1 if anything moved. (A segment that somebody reads goes later.) */
static int clean_some(struct fsw_device *device)
{
    struct fsw_clean *clean = &device->clean;
    unsigned gone = 0;
    uint64_t before = pages_moved(device);

    gather(device);
    if (clean->count == 0)
        return 0;
    fsw_crash_point("clean: rows pinned, not got");
    get_sources(device);
    fsw_crash_point("clean: got, nothing moved");
    fsw_clean_store_is_full(device, move(device));
    fsw_crash_point("clean: moved, rows pinned");
    for (unsigned i = 0; i < clean->count; i++)
        if (fsw_row_unpin(&device->rows, clean->sources[i].row)) {
            fsw_stat_add(&device->image, FSW_STAT_CLEAN_SEGMENTS, 1);
            fsw_overflow_drop(device, clean->sources[i].row);
            gone++;
        }
    clean->moved_in_lap += gone;
    fsw_overflow_wake_writers(device);
    return gone > 0 || pages_moved(device) != before;
}

/* ---- the thread ---- */

/* Cleans a little, and says how long to rest after that, and from what. */
static uint64_t work(struct fsw_device *device, enum fsw_clean_news *ret_from)
{
    struct fsw_clean *clean = &device->clean;
    unsigned percent = effort(device);

    *ret_from = FSW_CLEAN_NO_NEWS;
    if (percent == 0)
        return LOOK_EVERY_NS;
    uint64_t started = fsw_now_ns();
    int cleaned = clean_some(device);
    uint64_t took = fsw_now_ns() - started;
    if (cleaned)
        clean->futile_laps = 0;
    atomic_store(&clean->helpless, clean->futile_laps > 1); /* the first lap only counts */
    if (clean->count > 0 && !cleaned) {
        *ret_from = atomic_load(&clean->full) ? FSW_CLEAN_WANTED : FSW_CLEAN_ROOM;
        return FAILED_PAUSE_NS;
    }
    return clean->futile_laps > 1 ? LOOK_EVERY_NS : took * (100 - percent) / percent;
}

/* Until it is over, or there is news of more than that. The lock is held. */
static void rest_from(struct fsw_clean *clean, enum fsw_clean_news from, uint64_t rest)
{
    uint64_t now = fsw_now_ns(), end = now + rest;

    while (now < end && !clean->stop && clean->news <= from) {
        struct timespec until = fsw_timespec(end);
        pthread_cond_timedwait(&clean->wake, &clean->lock, &until);
        now = fsw_now_ns();
    }
}

static void *clean_loop(void *opaque)
{
    struct fsw_device *device = opaque;
    struct fsw_clean *clean = &device->clean;
    enum fsw_clean_news from;

    fsw_touch_stack();
    FSW_LOCK_SCOPE(&clean->lock);
    while (!clean->stop) {
        clean->busy = 1;
        clean->news = FSW_CLEAN_NO_NEWS;
        pthread_mutex_unlock(&clean->lock);
        uint64_t rest = work(device, &from);
        pthread_mutex_lock(&clean->lock);
        clean->busy = 0;
        rest_from(clean, from, rest);
    }
    return NULL;
}

/* ---- birth and death ---- */

int fsw_clean_init(struct fsw_device *device)
{
    struct fsw_clean *clean = &device->clean;
    size_t bytes = (size_t)FSW_CLEAN_SOURCES * FSW_SEGMENT_BYTES;
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&clean->lock, NULL);
    pthread_cond_init(&clean->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sem_init(&clean->answered, 0, 0);
    clean->worth = FSW_CLEAN_WORTH;
    clean->hand = 1;
    clean->threshold = -1;
    if (device->store == NULL)
        return 0;
    clean->bytes = malloc(bytes);
    clean->puts = calloc(FSW_CLEAN_PUTS, sizeof clean->puts[0]);
    if (clean->bytes == NULL || clean->puts == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < FSW_CLEAN_PUTS; i++) {
        clean->puts[i].put.kind = FSW_PUT_CLEAN;
        clean->puts[i].put.device = device;
    }
    memset(clean->bytes, 0, bytes);
    for (unsigned i = 0; i < FSW_CLEAN_SOURCES; i++)
        clean->sources[i].bytes = clean->bytes + (size_t)i * FSW_SEGMENT_BYTES;
    return 0;
}

int fsw_clean_start(struct fsw_device *device)
{
    struct fsw_clean *clean = &device->clean;

    clean->running = 1;
    int r = pthread_create(&clean->thread, NULL, clean_loop, device);
    if (r != 0) {
        clean->running = 0;
        return -r;
    }
    pthread_setname_np(clean->thread, "fsw-clean");
    return 0;
}

void fsw_clean_stop(struct fsw_device *device)
{
    struct fsw_clean *clean = &device->clean;

    if (!clean->running)
        return;
    pthread_mutex_lock(&clean->lock);
    clean->stop = 1;
    pthread_cond_signal(&clean->wake);
    pthread_mutex_unlock(&clean->lock);
    pthread_join(clean->thread, NULL);
    clean->running = 0;
}

void fsw_clean_deinit(struct fsw_device *device)
{
    free(device->clean.bytes);
    free(device->clean.puts);
    device->clean.bytes = NULL;
    device->clean.puts = NULL;
}
