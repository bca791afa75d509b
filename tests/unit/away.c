/*
 * away.c: pages that are in the store, and threads that read them.
 */
#include "away.h"

#include <string.h>

const struct rig_options away_automatic = {.size = 64 << 20, .memory = 16 << 20, .with_store = 1};
const struct rig_options away_switched_off = {
    .size = 64 << 20, .memory = 16 << 20, .with_store = 1, .prefetch = FSW_PREFETCH_OFF};

void away_open(struct rig *rig, const struct rig_options *options, unsigned count)
{
    rig_open(rig, options);
    for (unsigned page = 0; page < count; page++)
        assert_int_equal(rig_write_page(rig, page, RIG_TEXT, page), 0);
    rig_evict_all(rig);
    assert_int_equal(rig_stat(rig, FSW_STAT_PAGES_STORE), count);
}

int away_read(struct rig *rig, uint64_t page, void *bytes)
{
    return fsw_device_read(rig->device, bytes, page * FSW_PAGE_SIZE, FSW_PAGE_SIZE);
}

/* ---- threads that read ---- */

static void *run_reading(void *opaque)
{
    struct reading *reading = opaque;

    reading->result =
        fsw_device_read(reading->rig->device, reading->bytes, reading->page * FSW_PAGE_SIZE,
                        reading->count * FSW_PAGE_SIZE);
    return NULL;
}

void reading_begin(struct reading *reading, struct rig *rig, uint64_t page, uint64_t count)
{
    reading->rig = rig;
    reading->page = page;
    reading->count = count;
    assert_int_equal(pthread_create(&reading->thread, NULL, run_reading, reading), 0);
}

void reading_end(struct reading *reading, int result)
{
    char expected[FSW_PAGE_SIZE];

    pthread_join(reading->thread, NULL);
    assert_int_equal(reading->result, result);
    for (uint64_t i = 0; result == 0 && i < reading->count; i++) {
        rig_fill(expected, RIG_TEXT, reading->page + i);
        assert_memory_equal(reading->bytes + i * FSW_PAGE_SIZE, expected, FSW_PAGE_SIZE);
    }
}

unsigned away_users(struct rig *rig)
{
    struct fsw_windows *windows = &rig->device->windows;
    unsigned sum = 0;

    pthread_mutex_lock(&windows->lock);
    for (unsigned i = 0; i < windows->count; i++)
        sum += windows->all[i].users;
    pthread_mutex_unlock(&windows->lock);
    return sum;
}

int away_has_users(struct rig *rig, void *opaque)
{
    return away_users(rig) == *(unsigned *)opaque;
}
