/*
 * pool_rebuild.c: the pool's private side, made again from what the image says.
 *
 *      tops                   ->  memory behind ids  fsw_pool_rebuild_ids
 *      classes and frame map  ->  zspages            fsw_pool_rebuild_begin
 *      entries                ->  slots taken        fsw_pool_claim, once for each
 *      both                   ->  frames to detach, zspages to end, fullness, age order, numbers
 *                                                    fsw_pool_rebuild_end
 *
 * No object is looked at: where it lies and how long it is stands in its entry. Nothing here names a
 * frame that was not named before, so a rebuild that is killed is begun anew by the next one.
 *
 * While it goes on, a zspage's `stamp` is how old its youngest object is.
 */
#include <errno.h>
#include <string.h>

#include "core/crash.h"
#include "core/pool/zspage.h"

#define get(x) atomic_load_explicit(&(x), memory_order_relaxed)
#define set(x, value) atomic_store_explicit(&(x), value, memory_order_relaxed)

#define MAPS_A_FRAME (FSW_FRAME_SIZE / (uint32_t)sizeof(struct fsw_zspage_frames))
#define CLASSES_A_FRAME (FSW_FRAME_SIZE / (uint32_t)sizeof(uint16_t))

static uint32_t divide_up(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

/* ---- before the entries ---- */

/* Memory behind ids: up to the top, and what an earlier server had touched ahead of need. */
static void charge_ids(struct fsw_pool *pool)
{
    const struct fsw_image *image = pool->image;
    uint32_t maps = divide_up(get(image->super->zspages_top), MAPS_A_FRAME);
    uint64_t room = image->super->zspages / MAPS_A_FRAME;

    if (maps < room)
        maps += (uint32_t)fsw_image_resident(&image->zspages[maps * MAPS_A_FRAME], room - maps);
    pool->zspages_ready = maps * MAPS_A_FRAME;
    uint32_t classes = divide_up(pool->zspages_ready, CLASSES_A_FRAME);
    if (classes > 0) /* there already, unless a server died between the two touches */
        fsw_image_touch((const void *)image->classes, (size_t)classes * FSW_FRAME_SIZE);
    fsw_frames_rebuild_charge(&pool->frames, maps + classes);
    memset(pool->zspages, 0, pool->zspages_ready * sizeof pool->zspages[0]);
}

/* A class past the top, where none ever was stored before the top was raised: the top fell back. */
static void raise_top(struct fsw_pool *pool)
{
    _Atomic uint32_t *top = &pool->image->super->zspages_top;

    for (uint32_t id = pool->zspages_ready; id-- > get(*top);)
        if (get(pool->image->classes[id]) != 0)
            set(*top, id + 1);
}

/* A frame slot as the zspage found it. Returns 1 if it had to be cleared. */
static unsigned claim_frame(struct fsw_pool *pool, uint32_t id, unsigned index, unsigned frames)
{
    _Atomic uint32_t *slot = &pool->image->zspages[id].frame[index];

    if (get(*slot) == 0)
        return 0;
    if (index < frames && fsw_frames_claim(&pool->frames, get(*slot)) == 0) {
        pool->zspages[id].attached++;
        return 0;
    }
    set(*slot, 0);
    return 1;
}

static unsigned find_zspage(struct fsw_pool *pool, uint32_t id)
{
    struct fsw_zspage *zspage = &pool->zspages[id];
    unsigned class_number = get(pool->image->classes[id]), cleared = 0;

    if (class_number >= pool->table->count) {
        set(pool->image->classes[id], 0);
        class_number = 0;
        cleared++;
    }
    zspage->class = (uint16_t)class_number;
    zspage->stamp = UINT8_MAX;
    for (unsigned i = 0; i < FSW_ZSPAGE_FRAMES; i++)
        cleared += claim_frame(pool, id, i, pool->table->shape[class_number].frames);
    return cleared;
}

void fsw_pool_rebuild_ids(struct fsw_pool *pool)
{
    charge_ids(pool);
    raise_top(pool);
}

unsigned fsw_pool_rebuild_begin(struct fsw_pool *pool)
{
    uint32_t top = get(pool->image->super->zspages_top);
    unsigned cleared = 0;

    for (uint32_t id = 1; id < top; id++)
        cleared += find_zspage(pool, id);
    return cleared;
}

/* ---- entries ---- */

int fsw_pool_claim(struct fsw_pool *pool, uint64_t location, unsigned units, uint8_t age)
{
    uint64_t id = location >> FSW_ZSPAGE_UNIT_BITS;
    unsigned at = (unsigned)location & UNIT_MASK;

    if (id == 0 || id >= get(pool->image->super->zspages_top) || units < FSW_OBJECT_UNITS_MIN ||
        units > FSW_OBJECT_UNITS_MAX)
        return -EUCLEAN;
    struct fsw_zspage *zspage = &pool->zspages[id];
    const struct fsw_class_shape *shape = &pool->table->shape[zspage->class];
    if (zspage->class == 0 || zspage->class != pool->table->of_units[units] ||
        at % shape->units != 0 || at / shape->units >= shape->slots)
        return -EUCLEAN;
    const struct fsw_zspage_frames *map = &pool->image->zspages[id];
    if (get(map->frame[at / FRAME_UNITS]) == 0 ||
        get(map->frame[(at + shape->units - 1u) / FRAME_UNITS]) == 0)
        return -EUCLEAN;
    unsigned slot = at / shape->units;
    if (slot_is_set(zspage, slot))
        return -EEXIST;
    zspage->slots[slot / 64] |= 1ull << slot % 64;
    zspage->used++;
    if (age < zspage->stamp)
        zspage->stamp = age;
    return 0;
}

void fsw_pool_disclaim_all(struct fsw_pool *pool)
{
    uint32_t top = get(pool->image->super->zspages_top);

    for (uint32_t id = 1; id < top; id++) {
        memset(pool->zspages[id].slots, 0, sizeof pool->zspages[id].slots);
        pool->zspages[id].used = 0;
        pool->zspages[id].stamp = UINT8_MAX;
    }
}

/* ---- after the entries ---- */

/* A server died before it named the frame's object in an entry, or after it took the name away. */
static void detach_unneeded(struct fsw_pool *pool, uint32_t id)
{
    struct fsw_zspage *zspage = &pool->zspages[id];
    const struct fsw_class_shape *shape = &pool->table->shape[zspage->class];
    struct fsw_zspage_frames *map = &pool->image->zspages[id];

    for (unsigned i = 0; i < shape->frames; i++)
        if (get(map->frame[i]) != 0 && !frame_in_use(zspage, shape, i)) {
            uint32_t frame = get(map->frame[i]);
            set(map->frame[i], 0);
            zspage->attached--;
            fsw_frames_disclaim(&pool->frames, frame);
            fsw_crash_point("rebuild: an unneeded frame is detached");
        }
}

struct numbers {
    uint32_t objects, zspages, frames;
};

static void publish(struct fsw_pool *pool, const struct numbers *of_class)
{
    uint64_t zspages = 0, frames = 0;

    for (unsigned i = 0; i < FSW_CLASS_MAX; i++) {
        struct fsw_class_stats *stats = &pool->image->class_stats[i];
        set(stats->objects, of_class[i].objects);
        set(stats->zspages, of_class[i].zspages);
        set(stats->frames, of_class[i].frames);
        zspages += of_class[i].zspages;
        frames += of_class[i].frames;
    }
    fsw_stat_restart(pool->image, FSW_STAT_ZSPAGES, zspages);
    fsw_stat_restart(pool->image, FSW_STAT_POOL_FRAMES, frames);
}

/* Lists and numbers, from the last id to the first, so that the first are used first. */
static void settle_zspages(struct fsw_pool *pool, uint32_t top)
{
    struct numbers of_class[FSW_CLASS_MAX] = {{0}};

    for (uint32_t id = top; id-- > 1;) {
        struct fsw_zspage *zspage = &pool->zspages[id];
        if (zspage->class != 0)
            detach_unneeded(pool, id);
        if (zspage->used == 0) {
            atomic_store_explicit(&pool->image->classes[id], 0, memory_order_release);
            zspage->class = 0;
            zspage->next = pool->free_ids;
            pool->free_ids = id;
            continue;
        }
        of_class[zspage->class].objects += zspage->used;
        of_class[zspage->class].zspages++;
        of_class[zspage->class].frames += zspage->attached;
        fsw_zspage_list(pool, &pool->classes[zspage->class], id,
                        group_of(&pool->table->shape[zspage->class], zspage->used));
    }
    publish(pool, of_class);
}

/* By age, the oldest first: sorted by counting. Each gets the stamp that the hand would have left
 * had it gone round in that order within the last lap. */
static void order_by_age(struct fsw_pool *pool, uint32_t top, unsigned lap)
{
    uint32_t first_of[UINT8_MAX + 1] = {0};
    uint8_t now = get(*pool->clock);
    uint64_t count = 0, done = 0;

    /* Chained by age through `newer`, then appended chain by chain. */
    for (uint32_t id = top; id-- > 1;)
        if (pool->zspages[id].class != 0) {
            pool->zspages[id].newer = first_of[pool->zspages[id].stamp];
            first_of[pool->zspages[id].stamp] = id;
            count++;
        }
    for (unsigned age = UINT8_MAX + 1; age-- > 0;)
        for (uint32_t id = first_of[age], next; id != 0; id = next, done++) {
            next = pool->zspages[id].newer;
            fsw_zspage_append(pool, id);
            pool->zspages[id].stamp = (uint8_t)(now - lap + done * lap / count);
        }
}

void fsw_pool_rebuild_end(struct fsw_pool *pool, unsigned lap)
{
    uint32_t top = get(pool->image->super->zspages_top);

    settle_zspages(pool, top);
    order_by_age(pool, top, lap);
}
