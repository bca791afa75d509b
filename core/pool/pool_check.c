/*
 * pool_check.c: the proof of the pool's invariants P1 to P3 and of all its lists, for tests at
 * rest.
 */
#include <errno.h>

#include "core/pool/zspage.h"

static int check_zspage(struct fsw_pool *pool, uint32_t id, uint32_t *frames, struct fsw_error *err)
{
    const struct fsw_zspage *zspage = &pool->zspages[id];
    const struct fsw_class_shape *shape = &pool->table->shape[zspage->class];
    unsigned used = 0;

    for (unsigned slot = 0; slot < FSW_SLOTS_MAX; slot++) {
        used += (unsigned)slot_is_set(zspage, slot);
        if (slot_is_set(zspage, slot) && slot >= shape->slots)
            return fsw_error(err, -EUCLEAN, "zspage %u: slot %u is past the class's end", id, slot);
    }
    if (used != zspage->used || used == 0)
        return fsw_error(err, -EUCLEAN, "zspage %u: %u slots set, %u counted (P3)", id, used,
                         zspage->used);
    if (group_of(shape, used) != zspage->group)
        return fsw_error(err, -EUCLEAN, "zspage %u: in fullness group %u with %u used", id,
                         zspage->group, used);
    for (unsigned i = 0; i < FSW_ZSPAGE_FRAMES; i++) {
        int attached = atomic_load(&pool->image->zspages[id].frame[i]) != 0;
        int needed = i < shape->frames && frame_in_use(zspage, shape, i);
        if (attached != needed)
            return fsw_error(err, -EUCLEAN, "zspage %u: frame slot %u is %s (P1, P2)", id, i,
                             attached ? "attached and unused" : "used and not attached");
        *frames += (uint32_t)attached;
    }
    return 0;
}

int fsw_pool_check(struct fsw_pool *pool, struct fsw_error *err)
{
    uint32_t top = atomic_load(&pool->image->super->zspages_top), listed = 0, alive = 0, frames = 0;

    for (uint32_t id = 1; id < top; id++) {
        if (pool->zspages[id].class != atomic_load(&pool->image->classes[id]))
            return fsw_error(err, -EUCLEAN, "zspage %u: class differs from the image's", id);
        if (pool->zspages[id].class == 0)
            continue;
        alive++;
        int r = check_zspage(pool, id, &frames, err);
        if (r < 0)
            return r;
    }
    for (uint32_t id = pool->oldest; id != 0 && listed <= alive; id = pool->zspages[id].newer)
        listed++;
    if (listed != alive)
        return fsw_error(err, -EUCLEAN, "%u zspages in age order, %u alive (P3)", listed, alive);
    listed = 0;
    for (unsigned c = 1; c < pool->table->count; c++)
        for (unsigned g = 0; g <= FULL; g++)
            for (uint32_t id = pool->classes[c].lists[g]; id != 0 && listed <= alive;
                 id = pool->zspages[id].next)
                listed++;
    if (listed != alive)
        return fsw_error(err, -EUCLEAN, "%u zspages in fullness lists, %u alive (P3)", listed,
                         alive);
    if (frames != fsw_stat_get(pool->image, FSW_STAT_POOL_FRAMES))
        return fsw_error(err, -EUCLEAN, "%u frames attached, another number counted", frames);
    return 0;
}
