/*
 * test_counters.c: the laws of docs/counters.md, after random work with and without a store,
 * failures, compaction and a full pool. The numbers in the lines below are those of the page.
 */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "farswap/steer.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define RAW_OBJECT ((uint64_t)FSW_OBJECT_MAX)

/* What the test itself knows. */
struct work {
    struct rig rig;
    uint64_t chance, pages;
    uint64_t requests[5], failed_reads, failed_writes, refused;
    uint64_t read_bytes, write_bytes, discard_bytes;
    _Atomic uint64_t objects_put; /* in acknowledged segments: the hook is called for each */
    char *bytes;
};

#define LONGEST (24 * FSW_PAGE_SIZE)

static void on_hook(enum fsw_hook at, void *opaque)
{
    struct work *work = opaque;

    if (at == FSW_HOOK_FLIPPED)
        atomic_fetch_add(&work->objects_put, 1);
}

/* A byte past the end. */
static void one_refused(struct work *work)
{
    struct fsw_io io = {.verb = (enum fsw_verb)rig_below(&work->chance, FSW_FLUSH),
                        .bytes = work->bytes,
                        .length = 1 + rig_below(&work->chance, LONGEST)};

    io.offset = work->rig.device->size - io.length + 1;
    fsw_device_do(work->rig.device, &io);
    assert_int_equal(io.result, -EINVAL);
    work->refused++;
}

static void one_request(struct work *work)
{
    struct fsw_device *device = work->rig.device;
    unsigned verb = (unsigned)rig_below(&work->chance, 12);
    uint64_t offset = rig_below(&work->chance, work->pages) * FSW_PAGE_SIZE;
    uint64_t length = (1 + rig_below(&work->chance, 20)) * FSW_PAGE_SIZE;
    uint64_t parts = rig_below(&work->chance, 4) == 0;
    int r;

    offset += parts * rig_below(&work->chance, FSW_PAGE_SIZE);
    length -= parts * rig_below(&work->chance, FSW_PAGE_SIZE);
    length = offset + length > device->size ? device->size - offset : length;
    for (uint64_t at = 0; verb >= 4 && at < length; at += FSW_PAGE_SIZE)
        rig_fill(work->bytes + at, (enum rig_kind)rig_below(&work->chance, RIG_KINDS),
                 rig_random(&work->chance));
    if (verb < 2) {
        r = fsw_device_read(device, work->bytes, offset, length);
        work->read_bytes += r == 0 ? length : 0;
        work->failed_reads += r < 0;
        work->requests[FSW_READ]++;
        return;
    }
    if (verb < 4) {
        r = verb == 2 ? fsw_device_discard(device, offset, length)
                      : fsw_device_zero(device, offset, length);
        work->discard_bytes += r == 0 ? length : 0;
        work->requests[verb == 2 ? FSW_DISCARD : FSW_ZERO]++;
    } else {
        r = fsw_device_write(device, work->bytes, offset, length);
        work->write_bytes += r == 0 ? length : 0;
        work->requests[FSW_WRITE]++;
    }
    work->failed_writes += r < 0;
}

/* ---- the laws ---- */

static const uint64_t *v; /* the values */

static uint64_t get(enum fsw_stat stat)
{
    return v[stat];
}

#define V(NAME) get(FSW_STAT_##NAME)
#define LAW(number, condition)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("law %d: %s", number, #condition);                                            \
    } while (0)

static void laws_of_pages(void)
{
    LAW(1, V(PAGES_STORED) == V(PAGES_POOL) + V(PAGES_SAME) + V(PAGES_STORE));
    LAW(2, V(ORIG_DATA_SIZE) == FSW_PAGE_SIZE * V(PAGES_STORED));
    LAW(3, V(HUGE_PAGES) <= V(PAGES_POOL));
    LAW(3, RAW_OBJECT * V(HUGE_PAGES) <= V(COMPR_DATA_SIZE));
    LAW(3, V(COMPR_DATA_SIZE) <= RAW_OBJECT * V(PAGES_POOL));
    LAW(4, V(HUGE_PAGES) <= V(HUGE_PAGES_SINCE));
}

static void laws_of_the_pool(const struct fsw_image *image)
{
    const struct fsw_class_table *table = fsw_class_table();
    uint64_t objects = 0, frames = 0, zspages = 0, used_bytes = 0;

    for (unsigned c = 1; c < table->count; c++) {
        objects += image->class_stats[c].objects;
        frames += image->class_stats[c].frames;
        zspages += image->class_stats[c].zspages;
        used_bytes += (uint64_t)image->class_stats[c].objects * table->shape[c].units * FSW_UNIT;
    }
    LAW(5, V(PAGES_POOL) == objects);
    LAW(6, V(POOL_FRAMES) == frames);
    LAW(6, V(ZSPAGES) == zspages);
    LAW(7, V(COMPR_DATA_SIZE) <= used_bytes);
    LAW(7, used_bytes <= FSW_FRAME_SIZE * V(POOL_FRAMES));
    LAW(8, V(MEM_USED_TOTAL) + V(MEM_RESERVE) <= V(MEM_LIMIT));
    LAW(9, FSW_FRAME_SIZE * (V(POOL_FRAMES) + V(TABLE_LEAVES)) < V(MEM_USED_TOTAL));
    LAW(9, V(MEM_USED_TOTAL) <= V(MEM_USED_MAX));
}

static void laws_of_the_store(const struct work *work)
{
    uint64_t puts = V(OVERFLOW_SEGMENTS) + V(CLEAN_PUTS);
    LAW(10, V(OVERFLOW_PAGES) + V(OVERFLOW_RACED) + V(CLEAN_PAGES) + V(CLEAN_RACED) ==
                atomic_load(&work->objects_put));
    LAW(11, puts >= V(SEGMENTS));
    LAW(12, V(STORE_DROPS) == puts - V(SEGMENTS) + V(OVERFLOW_FAILED));
    LAW(13, V(STORE_DATA_SIZE) + V(STORE_DEAD_BYTES) <= V(STORE_BYTES));
    LAW(13, V(STORE_BYTES) <= V(OVERFLOW_BYTES) + V(CLEAN_BYTES));
    LAW(13, V(OVERFLOW_BYTES) <= FSW_SEGMENT_BYTES * V(OVERFLOW_SEGMENTS));
    LAW(13, V(STORE_BYTES) <= FSW_SEGMENT_BYTES * V(SEGMENTS));
    LAW(14, V(STORE_FULL) <= V(OVERFLOW_FAILED));
    LAW(15, FSW_UNIT * FSW_OBJECT_UNITS_MIN * V(FETCH_PAGES) <= V(FETCH_BYTES));
    LAW(15, V(FETCH_BYTES) <= RAW_OBJECT * V(FETCH_PAGES));
    LAW(21, V(FETCH_JOINED) <= V(FETCH_PAGES));
    LAW(22, V(PREFETCH_WASTED) <= V(PREFETCHED));
    LAW(23, V(OVERFLOW_HUGE) <= V(OVERFLOW_PAGES));
    LAW(16,
        V(OVERFLOW_PAGES) + V(OVERFLOW_RACED) + V(RECLAIM_SECOND_CHANCES) <= V(RECLAIM_SCANNED));
    if (work->rig.store == NULL)
        return;
    LAW(11, V(SEGMENTS) == teststore_segments(work->rig.store));
    LAW(12, puts + V(OVERFLOW_FAILED) == teststore_puts(work->rig.store));
}

static void laws_of_requests(const struct work *work)
{
    LAW(17, V(FAILED_READS) <= V(READS));
    LAW(17, V(FAILED_WRITES) <= V(WRITES) + V(DISCARDS) + V(ZEROES));
    LAW(18, V(READS) == work->requests[FSW_READ] && V(WRITES) == work->requests[FSW_WRITE]);
    LAW(18, V(DISCARDS) == work->requests[FSW_DISCARD] && V(ZEROES) == work->requests[FSW_ZERO]);
    LAW(18, V(FAILED_READS) == work->failed_reads && V(FAILED_WRITES) == work->failed_writes);
    LAW(17, V(INVALID_IO) == work->refused);
    LAW(18, V(READ_BYTES) == work->read_bytes);
    LAW(18, V(WRITE_BYTES) == work->write_bytes);
    LAW(18, V(DISCARD_BYTES) == work->discard_bytes);
    LAW(20, V(NO_SPACE) <= V(WRITE_STALLS));
    LAW(20, V(WRITE_STALLS) > 0 || V(WRITE_STALL_NS) == 0);
}

static int reserve_is_published(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_MEM_RESERVE) ==
           (uint64_t)atomic_load(&rig->device->pool.frames.nready) * FSW_FRAME_SIZE;
}

static uint64_t timed(const struct fsw_image *image, enum fsw_latency kind)
{
    uint64_t buckets[FSW_LATENCY_BUCKETS], sum = 0;

    fsw_latency_read(image, kind, buckets);
    for (unsigned i = 0; i < FSW_LATENCY_BUCKETS; i++)
        sum += buckets[i];
    return sum;
}

static void laws_of_latencies(const struct fsw_image *image)
{
    LAW(19, timed(image, FSW_LATENCY_READ) == V(READS));
    LAW(19, timed(image, FSW_LATENCY_WRITE) == V(WRITES));
    LAW(19, timed(image, FSW_LATENCY_DISCARD) == V(DISCARDS) + V(ZEROES));
    LAW(19, timed(image, FSW_LATENCY_FETCH) == V(FETCH_PAGES));
    LAW(19, timed(image, FSW_LATENCY_OVERFLOW) == V(OVERFLOW_SEGMENTS));
}

static void hold_the_laws(struct work *work)
{
    uint64_t values[FSW_STAT_COUNT];

    if (work->rig.store != NULL)
        teststore_fail_some(work->rig.store, 0);
    rig_evict(&work->rig, 0);
    rig_prove(&work->rig); /* waits until it is at rest; the gauges are what a walk finds */
    rig_wait(&work->rig, reserve_is_published, NULL);
    fsw_keeper_stop(work->rig.device);
    fsw_clean_stop(work->rig.device); /* or it puts what is not counted yet */
    rig_prove(&work->rig);
    fsw_keeper_stop(work->rig.device);
    fsw_device_stats(work->rig.device, values);
    v = values;
    laws_of_pages();
    laws_of_the_pool(&work->rig.device->image);
    laws_of_the_store(work);
    laws_of_requests(work);
    laws_of_latencies(&work->rig.device->image);
    work->rig.device->clean.stop = 0;
    if (work->rig.store != NULL)
        assert_int_equal(fsw_clean_start(work->rig.device), 0);
    atomic_store(&work->rig.device->keeper.stop, 0);
    assert_int_equal(fsw_keeper_start(work->rig.device), 0);
}

static void run(const struct rig_options *options, unsigned steps, const enum fsw_stat *expected)
{
    struct work work = {.chance = rig_seed(), .pages = options->size / FSW_PAGE_SIZE};

    work.bytes = malloc(LONGEST);
    rig_open(&work.rig, options);
    work.rig.device->hook_opaque = &work;
    work.rig.device->hook = on_hook;
    work.rig.device->clean.worth = 0;
    for (unsigned round = 0; round < 4; round++) {
        if (options->with_store)
            teststore_answer(work.rig.store, TESTSTORE_PUTS, FSW_STORE_FULL, 1, 0);
        for (unsigned step = 0; step < steps / 4; step++) {
            if (options->with_store && step % 128 == 0)
                teststore_fail_some(work.rig.store, step % 256 ? 0 : 100);
            if (options->with_store && step == steps / 8 + 1) {
                teststore_fail_some(work.rig.store, 0);
                rig_evict_all(&work.rig); /* some work is on pages that are away */
            }
            if (options->with_store && step % 64 == 0)
                rig_evict(&work.rig, step % 128 != 0);
            if (step % 32 == 0)
                rig_compact(&work.rig);
            if (options->with_store && step % 32 == 16)
                teststore_answer(work.rig.store, TESTSTORE_GETS, FSW_STORE_REFUSED, 1, 0);
            if (rig_below(&work.chance, 50) == 0)
                one_refused(&work);
            else
                one_request(&work);
        }
        /* Whatever came of what was asked for above. */
        assert_int_equal(fsw_device_compact(work.rig.device, 60 * FSW_NS_PER_S), 0);
        hold_the_laws(&work);
    }
    for (; *expected != FSW_STAT_COUNT; expected++) /* or the laws were held of nothing */
        if (rig_stat(&work.rig, *expected) == 0)
            fail_msg("%s is 0: this run proves too little", fsw_stat_table[*expected].name);
    rig_close(&work.rig);
    free(work.bytes);
}

static void laws_hold_with_a_store_that_fails_at_times(void **state)
{
    static const enum fsw_stat expected[] = {FSW_STAT_PAGES_SAME,
                                             FSW_STAT_PAGES_STORE,
                                             FSW_STAT_HUGE_PAGES_SINCE,
                                             FSW_STAT_OVERFLOW_FAILED,
                                             FSW_STAT_STORE_DROPS,
                                             FSW_STAT_FETCH_PAGES,
                                             FSW_STAT_FAILED_READS,
                                             FSW_STAT_FAILED_WRITES,
                                             FSW_STAT_STORE_FULL,
                                             FSW_STAT_COMPACT_MOVED,
                                             FSW_STAT_RECLAIM_SCANNED,
                                             FSW_STAT_INVALID_IO,
                                             FSW_STAT_COUNT};

    run(&(struct rig_options){.size = MIB(12), .memory = MIB(6), .with_store = 1},
        RIG_SLOW ? 2400 : 6000, expected);
}

static void laws_hold_when_memory_runs_out(void **state)
{
    static const enum fsw_stat expected[] = {FSW_STAT_NO_SPACE,      FSW_STAT_WRITE_STALLS,
                                             FSW_STAT_HUGE_PAGES,    FSW_STAT_PAGES_POOL,
                                             FSW_STAT_FAILED_WRITES, FSW_STAT_COUNT};

    run(&(struct rig_options){.size = MIB(12), .memory = MIB(3)}, RIG_SLOW ? 2400 : 6000, expected);
}

static void laws_hold_when_there_is_room(void **state)
{
    static const enum fsw_stat expected[] = {FSW_STAT_COMPACT_MOVED, FSW_STAT_PAGES_COMPACTED,
                                             FSW_STAT_HUGE_PAGES, FSW_STAT_COUNT};

    run(&(struct rig_options){.size = MIB(12), .memory = MIB(20)}, RIG_SLOW ? 2400 : 6000,
        expected);
}

RIG_MAIN(cmocka_unit_test(laws_hold_with_a_store_that_fails_at_times),
         cmocka_unit_test(laws_hold_when_memory_runs_out),
         cmocka_unit_test(laws_hold_when_there_is_room))
