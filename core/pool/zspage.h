/*
 * zspage.h: arithmetic of slots and frames inside one zspage; for the pool's own files.
 */
#ifndef FSW_ZSPAGE_H
#define FSW_ZSPAGE_H

#include "core/pool/pool.h"

/* Lists of zspages (pool.c). The class's lock, or lru_lock, is held; or nobody else is there. */
void fsw_zspage_list(struct fsw_pool *pool, struct fsw_class *class, uint32_t id, unsigned group);
void fsw_zspage_append(struct fsw_pool *pool, uint32_t id); /* to the age order, as the newest */

/* The slot becomes an object's, with its frames. 0: a frame is missing. The class's lock is held.
 */
uint64_t fsw_zspage_occupy(struct fsw_pool *pool, struct fsw_class *class, uint32_t id,
                           unsigned slot);

/* Page numbers from the headers of all set slots from one on. The class's lock is held, so frames
 * stay. */
unsigned fsw_zspage_collect(struct fsw_pool *pool, uint32_t id, unsigned from,
                            struct fsw_pool_object *objects);

#define UNIT_MASK ((1u << FSW_ZSPAGE_UNIT_BITS) - 1)
#define FRAME_UNITS (FSW_FRAME_SIZE / FSW_UNIT)
#define FULL FSW_FULLNESS_GROUPS

static inline unsigned group_of(const struct fsw_class_shape *shape, unsigned used)
{
    return used == shape->slots ? FULL : used * FSW_FULLNESS_GROUPS / shape->slots;
}

static inline int slot_is_set(const struct fsw_zspage *zspage, unsigned slot)
{
    return zspage->slots[slot / 64] >> slot % 64 & 1;
}

/* 1 if a set slot overlaps the frame. */
static inline int frame_in_use(const struct fsw_zspage *zspage, const struct fsw_class_shape *shape,
                               unsigned frame)
{
    unsigned first = frame * FRAME_UNITS / shape->units;
    unsigned last = ((frame + 1) * FRAME_UNITS - 1) / shape->units;

    for (unsigned slot = first; slot <= last && slot < shape->slots; slot++)
        if (slot_is_set(zspage, slot))
            return 1;
    return 0;
}

static inline int frames_attached(const struct fsw_zspage_frames *map, unsigned first,
                                  unsigned last)
{
    for (unsigned i = first; i <= last; i++)
        if (atomic_load_explicit(&map->frame[i], memory_order_relaxed) == 0)
            return 0;
    return 1;
}

#endif
