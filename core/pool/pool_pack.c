/*
 * pool_pack.c: the pool as compaction sees it: which zspage is worth packing, and where in it an
 * object can go (core/compact.c moves them).
 *
 * Rounds: a zspage where nothing could be moved is passed over for the rest of the round, so that it
 * doesn't keep others; what stood in the way (a put, a writer) may be over when the next one begins.
 */
#include "core/pool/zspage.h"

#include "common/cleanup.h"

#define relaxed memory_order_relaxed
#define ZSPAGES_LOOKED_AT 256u

void fsw_pool_new_round(struct fsw_pool *pool)
{
    pool->round = pool->round == UINT8_MAX ? 1 : (uint8_t)(pool->round + 1);
}

/* Frames that an object each would need, end to end. */
static uint64_t frames_for(uint64_t objects, uint64_t units)
{
    return (objects * units + FRAME_UNITS - 1) / FRAME_UNITS;
}

/* Each zspage may keep a frame that is only partly used. */
uint32_t fsw_pool_freeable(const struct fsw_image *image, unsigned class_number)
{
    const struct fsw_class_stats *stats = &image->class_stats[class_number];
    uint64_t frames = atomic_load_explicit(&stats->frames, relaxed);
    uint64_t needed = frames_for(atomic_load_explicit(&stats->objects, relaxed),
                                 fsw_class_table()->shape[class_number].units) +
                      atomic_load_explicit(&stats->zspages, relaxed);

    return frames > needed ? (uint32_t)(frames - needed) : 0;
}

/* The zspage after id in the class's lists of those that are not full; 0: after the last. */
static uint32_t next_listed(const struct fsw_pool *pool, const struct fsw_class *class, uint32_t id)
{
    unsigned group = id != 0 ? pool->zspages[id].group + 1u : 0;

    if (id != 0 && pool->zspages[id].next != 0)
        return pool->zspages[id].next;
    for (; group < FSW_FULLNESS_GROUPS; group++)
        if (class->lists[group] != 0)
            return class->lists[group];
    return 0;
}

/* The one that packing makes smallest among the next few, from where the last look ended: so few
 * that the lock is held for microseconds, and none is passed over for good. */
static uint32_t most_wasteful(const struct fsw_pool *pool, struct fsw_class *class,
                              unsigned class_number)
{
    unsigned units = pool->table->shape[class_number].units;
    uint32_t best = 0, id = class->looked_at;
    uint64_t most = 0;

    if (id != 0 && (pool->zspages[id].class != class_number || pool->zspages[id].group == FULL))
        id = 0; /* it went meanwhile */
    for (unsigned looked = 0; looked < ZSPAGES_LOOKED_AT; looked++) {
        id = next_listed(pool, class, id);
        if (id == 0)
            break;
        const struct fsw_zspage *zspage = &pool->zspages[id];
        uint64_t waste = zspage->attached - frames_for(zspage->used, units);
        if (waste > most && zspage->stuck != pool->round) {
            most = waste;
            best = id;
        }
    }
    class->looked_at = id;
    return best;
}

uint32_t fsw_pool_sparse(struct fsw_pool *pool, unsigned class_number,
                         struct fsw_pool_object *objects, unsigned *ret_count)
{
    struct fsw_class *class = &pool->classes[class_number];
    /* A lap of all, and the end of the one before; the lock is let go between the looks. */
    unsigned looks = atomic_load_explicit(&class->stats->zspages, relaxed) / ZSPAGES_LOOKED_AT + 2;

    while (looks-- > 0) {
        FSW_LOCK_SCOPE(&class->lock);
        uint32_t id = most_wasteful(pool, class, class_number);
        if (id != 0) {
            *ret_count = fsw_zspage_collect(pool, id, pool->zspages[id].used, objects);
            return id;
        }
    }
    *ret_count = 0;
    return 0;
}

/* A hole below the packed zspage's end: one that has its frames, else the first; `used`: none. */
static unsigned packed_hole(const struct fsw_zspage *zspage, const struct fsw_zspage_frames *map,
                            const struct fsw_class_shape *shape)
{
    unsigned first = zspage->used;

    for (unsigned slot = 0; slot < zspage->used; slot++) {
        unsigned at = slot * shape->units;
        if (slot_is_set(zspage, slot))
            continue;
        if (frames_attached(map, at / FRAME_UNITS, (at + shape->units - 1) / FRAME_UNITS))
            return slot;
        first = slot < first ? slot : first;
    }
    return first;
}

uint64_t fsw_pool_alloc_packed(struct fsw_pool *pool, uint32_t id, unsigned units)
{
    unsigned class_number = pool->table->of_units[units];
    const struct fsw_class_shape *shape = &pool->table->shape[class_number];
    struct fsw_class *class = &pool->classes[class_number];
    FSW_LOCK_SCOPE(&class->lock);
    const struct fsw_zspage *zspage = &pool->zspages[id];

    /* The object that is to move keeps the zspage alive, if it is that class's still. */
    if (atomic_load_explicit(&pool->image->classes[id], relaxed) != class_number)
        return 0;
    unsigned first = packed_hole(zspage, &pool->image->zspages[id], shape);
    return first < zspage->used ? fsw_zspage_occupy(pool, class, id, first) : 0;
}

uint32_t fsw_pool_attached(struct fsw_pool *pool, unsigned class_number, uint32_t id)
{
    FSW_LOCK_SCOPE(&pool->classes[class_number].lock);
    int is_that = atomic_load_explicit(&pool->image->classes[id], relaxed) == class_number;

    return is_that ? pool->zspages[id].attached : 0;
}

void fsw_pool_stuck(struct fsw_pool *pool, unsigned class_number, uint32_t id)
{
    FSW_LOCK_SCOPE(&pool->classes[class_number].lock);

    if (atomic_load_explicit(&pool->image->classes[id], relaxed) == class_number)
        pool->zspages[id].stuck = pool->round;
}
