/*
 * compact.c: objects moved together, so that frames come free.
 *
 * A zspage has frames only under objects, so what is lost is the space of dead slots in frames that
 * others still need. Packing a zspage gives that back: with n objects in it, those that lie in slot
 * n or later move into the holes before it, and the frames behind come free. No other zspage is
 * needed, so a class with a single sparse one is packed as well.
 *
 *      |a|.|b|.|.|c|.|d|   4 objects   -->   |a|c|b|d|.|.|.|.|
 *
 * Each move goes by the rules of the entry:
 *
 *      lock it  >  still names this slot, no overflow bit?  >  copy  >  publish  >  free the old
 *
 * as a write of part of a page does (entry.h, E1 to E3), so that any reader, writer or evictor may
 * work on the page meanwhile. An object that is pinned, or not published yet, stays.
 */
#include <string.h>

#include "core/crash.h"
#include "core/engine.h"

uint32_t fsw_compact_freeable(const struct fsw_device *device)
{
    uint32_t sum = 0;

    for (unsigned class_number = 1; class_number < device->pool.table->count; class_number++)
        sum += fsw_pool_freeable(&device->image, class_number);
    return sum;
}

/* Copies a locked entry's object to a new slot. 0: damaged, or there is no slot; the entry stays.
 */
static uint64_t copy_object(struct fsw_device *device, uint32_t zspage, uint32_t page,
                            uint64_t value)
{
    char object[FSW_OBJECT_MAX];
    unsigned units = fsw_entry_units(value);
    uint32_t named;

    if (fsw_pool_read(&device->image, fsw_entry_location(value), object, units) < 0)
        return 0;
    memcpy(&named, object, sizeof named);
    if (named != page)
        return 0;
    uint64_t location = fsw_pool_alloc_packed(&device->pool, zspage, units);
    if (location != 0) {
        fsw_crash_point("compact: slot taken, not copied");
        fsw_pool_write(&device->pool, location, object, units);
    }
    return location;
}

/* 1 if the object moved. */
static int move(struct fsw_device *device, uint32_t zspage, const struct fsw_pool_object *object)
{
    fsw_entry *entry =
        object->page < device->pages ? fsw_table_find(&device->image, object->page) : NULL;

    if (entry == NULL)
        return 0;
    uint64_t value = fsw_entry_lock(entry), location = 0;
    fsw_crash_point("compact: entry locked");
    if (fsw_entry_state(value) == FSW_POOL && !(value & FSW_ENTRY_OVERFLOW) &&
        fsw_entry_location(value) == object->location)
        location = copy_object(device, zspage, object->page, value);
    if (location == 0) {
        fsw_entry_unlock(entry, value);
        return 0;
    }
    fsw_crash_point("compact: copied, not published");
    fsw_entry_unlock(entry, fsw_entry_pool(location, fsw_entry_units(value), fsw_entry_age(value)));
    fsw_crash_point("compact: published, old slot not freed");
    fsw_pool_free(&device->pool, object->location);
    fsw_crash_point("compact: moved");
    return 1;
}

void fsw_compact_begin(struct fsw_device *device)
{
    fsw_pool_new_round(&device->pool);
}

/* Packs a zspage of the class, and says how many objects moved. 0: no zspage is worth it. */
static int pack_one(struct fsw_device *device, unsigned class_number, unsigned *ret_moved)
{
    struct fsw_pool_object *objects = device->keeper.objects;
    unsigned count = 0, moved = 0;
    uint32_t zspage = fsw_pool_sparse(&device->pool, class_number, objects, &count);

    if (zspage == 0)
        return 0;
    uint32_t before = fsw_pool_attached(&device->pool, class_number, zspage);
    for (unsigned i = 0; i < count; i++)
        moved += (unsigned)move(device, zspage, &objects[i]);
    uint32_t after = fsw_pool_attached(&device->pool, class_number, zspage);
    if (moved == 0)
        fsw_pool_stuck(&device->pool, class_number, zspage);
    else if (after < before)
        fsw_stat_add(&device->image, FSW_STAT_PAGES_COMPACTED, before - after);
    *ret_moved = moved;
    return 1;
}

unsigned fsw_compact_step(struct fsw_device *device)
{
    struct fsw_keeper *keeper = &device->keeper;
    unsigned classes = device->pool.table->count, moved = 0, empty_handed = 0;

    /* From class to class, so that none is forgotten; what is stuck keeps nothing else. */
    while (moved == 0 && empty_handed < classes) {
        keeper->next_class = keeper->next_class % (classes - 1) + 1;
        if (fsw_pool_freeable(&device->image, keeper->next_class) > 0 &&
            pack_one(device, keeper->next_class, &moved))
            empty_handed = 0;
        else
            empty_handed++;
    }
    fsw_stat_add(&device->image, FSW_STAT_COMPACT_MOVED, moved);
    return moved;
}
