/*
 * class.h: size classes. Which object sizes share a zspage, and how it is cut.
 *
 *   class    all objects of up to `units` units of 16 bytes
 *   zspage   `frames` frames, `slots` slots of `units` each, laid end to end: a slot may straddle
 *            two frames, and never three, since no object is longer than a frame and a unit
 *
 * Frames are attached to a zspage only where an object lies, so a large zspage costs nothing while
 * it is sparse, and 64 frames leave almost nothing over at their end: 1.2 % for the worst class,
 * where zsmalloc's largest zspages leave up to 3 %. Sizes that would have equally many slots share
 * a class.
 */
#ifndef FSW_CLASS_H
#define FSW_CLASS_H

#include <stdint.h>

#include "core/image.h"
#include "core/object.h"

#define FSW_SLOTS_MAX 512u /* what a zspage's bitmap can hold */

struct fsw_class_shape {
    uint16_t units, frames, slots;
};

struct fsw_class_table {
    struct fsw_class_shape shape[FSW_CLASS_MAX]; /* [0] unused: class 0 is "no zspage" */
    uint16_t count;                              /* classes are 1 .. count-1 */
    uint16_t of_units[FSW_OBJECT_UNITS_MAX + 1]; /* class for an object of so many units */
};

/* The same for every process of this layout: an image names classes by number. */
const struct fsw_class_table *fsw_class_table(void);

#endif
