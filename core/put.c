/*
 * put.c: one segment on its way out, whoever packs it.
 *
 *   1  a row with a new id, PENDING
 *   2  objects are copied into the segment as they are, never decompressed; what they are copied from
 *      is pinned: by the entry's overflow bit in the pool (E3), by a pin on its row in a segment
 *   3  the segment is put
 *   4  acknowledged: the row is LIVE, and every entry that still names its object now names the row;
 *      those that changed meanwhile are subtracted. Failed: the overflow bits go away again
 *   5  either way an object in the pool, pinned until here, is freed by us if its entry no longer
 *      names it (E2). One in a segment is counted down there if its entry flipped; else whoever
 *      changed the entry has done so
 */
#include <string.h>

#include "common/clock.h"
#include "core/budget.h"
#include "core/crash.h"
#include "core/engine.h"

#define PUT_DEADLINE_NS (5 * FSW_NS_PER_S)

int fsw_put_flip(fsw_entry *entry, uint64_t named, uint64_t value)
{
    for (;;) {
        uint64_t now = fsw_entry_load(entry);
        if (!fsw_entry_same_place(now, named))
            return 0;
        if (atomic_compare_exchange_weak(entry, &now, value))
            return 1;
    }
}

/* ---- packing ---- */

int fsw_put_begin(struct fsw_device *device, struct fsw_put *put)
{
    put->count = put->units = put->huge = 0;
    put->flipped = put->flipped_huge = 0;
    put->row = fsw_row_take(&device->rows, &put->request.id);
    return put->row != 0;
}

void fsw_put_cancel(struct fsw_device *device, struct fsw_put *put)
{
    fsw_row_free(&device->rows, put->row);
}

int fsw_put_fits(const struct fsw_device *device, const struct fsw_put *put, unsigned units)
{
    return put->count < FSW_SEGMENT_OBJECTS &&
           put->units + device->seal + units <= FSW_SEGMENT_UNITS;
}

void *fsw_put_place(const struct fsw_device *device, struct fsw_put *put)
{
    return put->bytes + (put->units + device->seal) * FSW_UNIT;
}

void fsw_put_add(struct fsw_device *device, struct fsw_put *put, fsw_entry *entry, uint64_t value)
{
    unsigned units = fsw_entry_units(value);

    put->entries[put->count] = entry;
    put->values[put->count++] = value;
    put->huge += units == FSW_OBJECT_UNITS_MAX;
    if (device->seal != 0)
        fsw_seal_write(put->bytes + put->units * FSW_UNIT, units);
    put->units += device->seal + units;
}

void fsw_put_submit(struct fsw_device *device, struct fsw_put *put,
                    void (*done)(struct fsw_store_request *request))
{
    struct fsw_store_request *request = &put->request;

    put->started = fsw_now_ns();
    fsw_repair_note(device, put->emptyings);
    put->losses = fsw_losses_noted(device);
    *request = (struct fsw_store_request){
        .verb = FSW_STORE_PUT,
        .row = put->row,
        .id = request->id,
        .bytes = put->bytes,
        .length = put->units * FSW_UNIT,
        .deadline = put->started + PUT_DEADLINE_NS,
        .done = done,
        .owner = put,
    };
    fsw_budget_charge(device, put->units * FSW_UNIT);
    fsw_crash_point("put: packed, not asked for");
    device->store->ops->submit(device->store, &request, 1);
    fsw_crash_point("put: asked for");
}

/* ---- what a put's end means ---- */

/* What an object was copied from is not needed here any more. flipped 0: its entry left it while it
 * was on its way. */
static void let_go(struct fsw_device *device, uint64_t value, int flipped)
{
    if (fsw_entry_state(value) == FSW_POOL)
        fsw_pool_free(&device->pool, fsw_entry_location(value));
    else if (flipped) /* its row is pinned by who put: it is never the last of both */
        fsw_row_kill(&device->rows, fsw_entry_row(value), fsw_live(1, fsw_entry_units(value)));
}

/* Flips what can be; returns what can't. */
static uint32_t flip_all(struct fsw_device *device, struct fsw_put *put)
{
    unsigned offset = 0;
    uint32_t raced = 0;

    for (uint32_t i = 0; i < put->count; i++) {
        uint64_t value = put->values[i];
        unsigned units = fsw_entry_units(value);
        offset += device->seal;
        uint64_t stored = fsw_entry_store(put->row, offset, units);
        int flipped = fsw_put_flip(put->entries[i], value, stored);
        if (flipped) {
            fsw_crash_point("put: flipped, not counted");
            fsw_page_count(device, stored, 1);
            fsw_page_count(device, value, -1);
            put->flipped++;
            put->flipped_huge += units == FSW_OBJECT_UNITS_MAX;
        } else {
            raced += fsw_live(1, units);
        }
        fsw_crash_point("put: flipped, object not let go");
        fsw_hook(device, FSW_HOOK_FLIPPED);
        let_go(device, value, flipped);
        offset += units;
    }
    return raced;
}

static const struct {
    enum fsw_stat segments, bytes, pages, raced;
} counted[] = {
    [FSW_PUT_OVERFLOW] = {FSW_STAT_OVERFLOW_SEGMENTS, FSW_STAT_OVERFLOW_BYTES,
                          FSW_STAT_OVERFLOW_PAGES, FSW_STAT_OVERFLOW_RACED},
    [FSW_PUT_CLEAN] = {FSW_STAT_CLEAN_PUTS, FSW_STAT_CLEAN_BYTES, FSW_STAT_CLEAN_PAGES,
                       FSW_STAT_CLEAN_RACED},
};

static void succeeded(struct fsw_device *device, struct fsw_put *put)
{
    const struct fsw_image *image = &device->image;
    uint32_t bytes = put->units * FSW_UNIT;
    uint32_t live = fsw_live(put->count, put->units - put->count * device->seal);

    fsw_crash_point("put: answered, not LIVE");
    fsw_hook(device, FSW_HOOK_ANSWERED);
    /* Counted before it is LIVE: whoever recovers must not find more there than ever went. */
    if (put->kind == FSW_PUT_OVERFLOW)
        fsw_latency_add(image, FSW_LATENCY_OVERFLOW, put->started);
    fsw_stat_add(image, counted[put->kind].segments, 1);
    fsw_stat_add(image, counted[put->kind].bytes, bytes);
    if ((put->request.copies & ~atomic_load(&image->super->planted)) != 0)
        atomic_fetch_or(&image->super->planted, put->request.copies);
    atomic_fetch_or(&device->repair.put_to_emptied, put->request.emptied);
    fsw_crash_point("put: planted, not LIVE");
    fsw_repair_row_live(device, put->row, bytes, live, put->request.copies, put->emptyings);
    fsw_stat_add(image, FSW_STAT_SEGMENTS, 1);
    fsw_stat_add(image, FSW_STAT_STORE_BYTES, bytes);
    fsw_crash_point("put: LIVE, nothing flipped");
    fsw_hook(device, FSW_HOOK_LIVE);
    uint32_t raced = flip_all(device, put);
    fsw_stat_add(image, counted[put->kind].pages, put->flipped);
    if (put->kind == FSW_PUT_OVERFLOW)
        fsw_stat_add(image, FSW_STAT_OVERFLOW_HUGE, put->flipped_huge);
    fsw_stat_add(image, counted[put->kind].raced, put->count - put->flipped);
    fsw_crash_point("put: all flipped, changed ones not subtracted");
    if (raced != 0)
        fsw_row_kill(&device->rows, put->row, raced); /* our pin keeps it */
    fsw_crash_point("put: all flipped, the put's pin is there");
    if (fsw_row_unpin(&device->rows, put->row))
        fsw_overflow_drop(device, put->row);
}

/* The object stays in the pool, or is ours to free if its entry has left it meanwhile (E2). In a
 * segment it was never marked. */
static void unmark(struct fsw_device *device, fsw_entry *entry, uint64_t value)
{
    if (fsw_entry_state(value) == FSW_POOL &&
        !fsw_put_flip(entry, value, value & ~FSW_ENTRY_OVERFLOW))
        fsw_pool_free(&device->pool, fsw_entry_location(value));
}

static void failed(struct fsw_device *device, struct fsw_put *put)
{
    fsw_crash_point("put: failed, entries marked");
    for (uint32_t i = 0; i < put->count; i++)
        unmark(device, put->entries[i], put->values[i]);
    fsw_stat_add(&device->image, FSW_STAT_OVERFLOW_FAILED, 1);
    fsw_budget_give_back(device, put->units * FSW_UNIT);
    if (put->request.result == FSW_STORE_FULL)
        fsw_stat_add(&device->image, FSW_STAT_STORE_FULL, 1);
    fsw_crash_point("put: failed, no entry marked");
    /* It may have landed: the id is burnt, and the drop makes sure. */
    if (fsw_row_abandon(&device->rows, put->row)) {
        fsw_crash_point("row: abandoned, nobody asks for its drop");
        fsw_overflow_drop(device, put->row);
    }
}

/* A store that was emptied may be what it was before, one day: what it was given meanwhile, and no other
 * store, would be gone then. So that counts as refused; and so does what one may have acknowledged that is
 * another by now, since it was declared lost or taken as new. */
static int is_kept(const struct fsw_device *device, const struct fsw_put *put)
{
    return (put->request.copies & ~put->request.emptied) != 0 &&
           put->losses == atomic_load(&device->losses);
}

enum fsw_store_result fsw_put_finish(struct fsw_device *device, struct fsw_put *put)
{
    if (put->request.result == FSW_STORE_OK && !is_kept(device, put))
        put->request.result = FSW_STORE_REFUSED;
    if (put->request.result == FSW_STORE_OK)
        succeeded(device, put);
    else
        failed(device, put);
    return put->request.result;
}
