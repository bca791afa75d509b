/*
 * class.c: the classes, computed once from the largest zspage there may be.
 */
#include "core/pool/class.h"

#include <pthread.h>

#include "core/image.h"

#define FRAME_UNITS (FSW_FRAME_SIZE / FSW_UNIT)

static struct fsw_class_table table;

static struct fsw_class_shape shape_of(unsigned units)
{
    unsigned frames = FSW_ZSPAGE_FRAMES, slots = frames * FRAME_UNITS / units;

    if (slots > FSW_SLOTS_MAX) { /* small objects: as many frames as the bitmap can use */
        slots = FSW_SLOTS_MAX;
        frames = (slots * units + FRAME_UNITS - 1) / FRAME_UNITS;
    }
    return (struct fsw_class_shape){
        .units = (uint16_t)units, .frames = (uint16_t)frames, .slots = (uint16_t)slots};
}

static void build(void)
{
    table.count = 1;
    for (unsigned units = FSW_OBJECT_UNITS_MIN; units <= FSW_OBJECT_UNITS_MAX; units++) {
        struct fsw_class_shape shape = shape_of(units);
        unsigned next_slots = units < FSW_OBJECT_UNITS_MAX ? shape_of(units + 1).slots : 0;
        table.of_units[units] = table.count;
        /* Merged upwards where the next size has as many slots. */
        if (shape.slots != next_slots || shape.frames < FSW_ZSPAGE_FRAMES)
            table.shape[table.count++] = shape;
    }
}

const struct fsw_class_table *fsw_class_table(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, build);
    return &table;
}
