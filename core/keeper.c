/*
 * keeper.c: the thread that keeps the pool dense, and follows what people ask for.
 *
 * Compaction begins by itself when a fortieth of the pool's frames could come free, and goes on
 * down to an eightieth, one zspage at a time with a pause between. Where nothing more can be moved
 * (it waits for a store, or is damaged) it stops until more has died, or a second is over; where it
 * is outrun by those who write, until the next look. `farswap compact` asks for all that can be had.
 *
 * Requests are words in the image's superblock (core/image.h): who may map the image may ask. They
 * are looked at ten times a second, so a request costs the data path nothing.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/priority.h"
#include "common/touch.h"
#include "core/crash.h"
#include "core/engine.h"

#define LOOK_EVERY_NS (100 * FSW_NS_PER_MS)
#define BEGIN_PART 40u
#define END_PART 80u
#define OUTRUN_MAX 64u   /* steps without a gain, because others write */
#define FUTILE_LOOKS 10u /* what stood in the way may be gone */
#define WORTH_IT 64u     /* frames: below a quarter of a MiB nobody minds */

static uint32_t pool_frames(const struct fsw_device *device)
{
    return (uint32_t)fsw_stat_get(&device->image, FSW_STAT_POOL_FRAMES);
}

/* Steps until fewer than `enough` frames are freeable, or nothing moves, or others are quicker. Lets
 * the CPU go between steps. */
static void compact_to(struct fsw_device *device, uint32_t enough)
{
    struct fsw_keeper *keeper = &device->keeper;
    uint32_t best = UINT32_MAX, freeable;
    unsigned outrun = 0;

    keeper->futile = 0;
    fsw_compact_begin(device);
    while (!atomic_load(&keeper->stop) && outrun < OUTRUN_MAX &&
           (freeable = fsw_compact_freeable(device)) > enough) {
        outrun = freeable < best ? 0 : outrun + 1;
        best = freeable < best ? freeable : best;
        if (fsw_compact_step(device) == 0) {
            keeper->futile = freeable;
            keeper->again = keeper->looks + FUTILE_LOOKS;
            return;
        }
        sched_yield();
    }
}

/* What is left was tried, and nothing has died since that would be worth it. */
static int is_futile(struct fsw_keeper *keeper, uint32_t freeable, uint32_t frames)
{
    if (freeable < keeper->futile)
        keeper->futile = freeable;
    return keeper->futile > 0 && freeable <= keeper->futile + frames / END_PART &&
           keeper->looks < keeper->again;
}

static void compact_if_sparse(struct fsw_device *device)
{
    uint32_t frames = pool_frames(device), freeable = fsw_compact_freeable(device);

    if (freeable > WORTH_IT && freeable > frames / BEGIN_PART &&
        !is_futile(&device->keeper, freeable, frames))
        compact_to(device, frames / END_PART);
}

static void answer_compact(struct fsw_device *device)
{
    struct fsw_superblock *super = device->image.super;
    uint64_t asked = atomic_load(&super->compact_asked);

    if (asked == atomic_load(&super->compact_answered))
        return;
    compact_to(device, 0);
    fsw_crash_point("keeper: compacted, not answered");
    atomic_store(&super->compact_answered, asked);
}

/* Every so often, so that ages are known in seconds. */
static void follow_idle(struct fsw_device *device)
{
    uint64_t asked = atomic_load(&device->image.super->idle_asked);

    fsw_reclaim_follow_clock(device);
    if (asked >> 32 > atomic_load(&device->image.super->idle_answered))
        fsw_overflow_idle(device, (uint32_t)(asked >> 32), (uint32_t)asked);
}

static void follow_watermarks(struct fsw_device *device)
{
    if (atomic_load(&device->image.super->watermarks) != device->reclaim.watermarks)
        fsw_reclaim_set_limit(device);
}

static void follow_memory(struct fsw_device *device)
{
    uint64_t memory = atomic_load(&device->image.super->memory_limit);

    if (memory / FSW_FRAME_SIZE == atomic_load(&device->pool.frames.limit))
        return;
    fsw_frames_set_limit(&device->pool.frames, memory);
    fsw_reclaim_set_limit(device);
}

static void follow_codec(struct fsw_device *device)
{
    uint32_t word = atomic_load(&device->image.super->codec);

    if (word == device->keeper.codec)
        return;
    if (fsw_codec_by_id(word & 0xff) != NULL &&
        fsw_contexts_set_codec(&device->contexts, (uint8_t)word, fsw_codec_word_level(word)) < 0)
        return; /* no memory now: again at the next look */
    device->keeper.codec = word;
}

/* Once in ten looks: it reads a file of the kernel's. */
static void follow_cpus(struct fsw_device *device)
{
    if (device->keeper.looks++ % 10 != 0)
        return;
    unsigned online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    fsw_contexts_follow_cpus(&device->contexts, online);
    fsw_crew_follow_cpus(&device->crew, online);
}

/* A store counts from its start on, and the image from its making. */
static void count_store(struct fsw_device *device, const struct fsw_store_health *health)
{
    const struct fsw_store_health *counted = &device->keeper.counted;
    const struct fsw_image *image = &device->image;
    uint32_t there = health->up & ~health->emptied & fsw_all_copies(device);

    fsw_stat_add(image, FSW_STAT_STORE_SENT, health->bytes_out - counted->bytes_out);
    fsw_stat_add(image, FSW_STAT_STORE_RECEIVED, health->bytes_in - counted->bytes_in);
    fsw_stat_add(image, FSW_STAT_STORE_RECONNECTS, health->reconnects - counted->reconnects);
    fsw_stat_add(image, FSW_STAT_STORE_LIES, health->lies - counted->lies);
    fsw_stat_set(image, FSW_STAT_STORES_AWAY,
                 device->store->copies - (unsigned)__builtin_popcount(there));
    device->keeper.counted = *health;
}

static enum fsw_copy_is copy_is(const struct fsw_store_health *health, unsigned copy)
{
    if ((health->up >> copy & 1) == 0)
        return FSW_COPY_AWAY;
    return health->emptied >> copy & 1 ? FSW_COPY_EMPTIED : FSW_COPY_GOOD;
}

/* counted: the store's health when this was last done. */
static void note_copy(struct fsw_copy_state *state, const struct fsw_store_health *health,
                      const struct fsw_store_health *counted, unsigned copy)
{
    const struct fsw_copy_health *now = &health->copy[copy], *before = &counted->copy[copy];
    enum fsw_copy_is is = copy_is(health, copy);

    if (atomic_exchange(&state->state, (uint32_t)is) != (uint32_t)is)
        atomic_store(&state->since, (int64_t)time(NULL));
    atomic_fetch_add(&state->lies, (uint32_t)(now->lies - before->lies));
    atomic_fetch_add(&state->sent, now->bytes_out - before->bytes_out);
    atomic_fetch_add(&state->received, now->bytes_in - before->bytes_in);
    memcpy(state->last_error, now->last_error, sizeof state->last_error);
}

/* What `farswap status` says of the store. */
static void look_at_store(struct fsw_device *device)
{
    struct fsw_store_state *state = &device->image.super->store_state;
    struct fsw_store_health health;

    if (device->store == NULL)
        return;
    device->store->ops->health(device->store, &health);
    uint32_t sequence = atomic_load(&state->sequence) | 1; /* odd already: who wrote has died */
    atomic_store(&state->sequence, sequence);
    if (atomic_load(&state->connected) != (uint32_t)health.connected ||
        atomic_load(&state->since) == 0) {
        atomic_store(&state->connected, (uint32_t)health.connected);
        atomic_store(&state->since, (int64_t)time(NULL));
    }
    memcpy(state->last_error, health.last_error, sizeof state->last_error);
    for (unsigned copy = 0; copy < device->store->copies; copy++)
        note_copy(&device->image.super->copy_state[copy], &health, &device->keeper.counted, copy);
    atomic_store(&state->sequence, sequence + 1);
    count_store(device, &health);
    fsw_lost_follow_emptied(device, &health);
}

static void *keeper_loop(void *opaque)
{
    struct fsw_device *device = opaque;
    struct fsw_keeper *keeper = &device->keeper;

    fsw_touch_stack();
    while (!atomic_load(&keeper->stop)) {
        fsw_priority_follow_memory();
        follow_memory(device);
        follow_watermarks(device);
        fsw_overflow_kick(device); /* frames on their way out may have stayed, and nobody writes */
        follow_codec(device);
        fsw_overflow_follow_huge(device);
        if (keeper->looks % 10 == 0)
            look_at_store(device);
        fsw_lost_follow(device);
        follow_cpus(device);
        follow_idle(device);
        answer_compact(device);
        compact_if_sparse(device);
        FSW_LOCK_SCOPE(&keeper->lock);
        struct timespec until = fsw_timespec(fsw_now_ns() + LOOK_EVERY_NS);
        if (!atomic_load(&keeper->stop))
            pthread_cond_timedwait(&keeper->wake, &keeper->lock, &until);
    }
    look_at_store(device);
    return NULL;
}

int fsw_keeper_start(struct fsw_device *device)
{
    struct fsw_keeper *keeper = &device->keeper;
    pthread_condattr_t monotonic;

    keeper->codec = atomic_load(&device->image.super->codec);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&keeper->lock, NULL);
    pthread_cond_init(&keeper->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int r = pthread_create(&keeper->thread, NULL, keeper_loop, device);
    if (r != 0)
        return -r;
    pthread_setname_np(keeper->thread, "fsw-keeper");
    keeper->running = 1;
    return 0;
}

void fsw_keeper_stop(struct fsw_device *device)
{
    struct fsw_keeper *keeper = &device->keeper;

    if (!keeper->running)
        return;
    atomic_store(&keeper->stop, 1);
    pthread_mutex_lock(&keeper->lock);
    pthread_cond_signal(&keeper->wake);
    pthread_mutex_unlock(&keeper->lock);
    pthread_join(keeper->thread, NULL);
    keeper->running = 0;
}
