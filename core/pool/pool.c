/*
 * pool.c: slots in zspages. Fullness lists and age order are below the allocator in zspage order:
 * alloc takes the first free slot of the fullest zspage that has one, which keeps objects together
 * at low addresses and lets sparse zspages die out.
 */
#include "core/pool/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "common/cleanup.h"
#include "core/crash.h"
#include "core/pool/zspage.h"

#define relaxed memory_order_relaxed
#define SLOTS_TRIED 16u /* holes looked at for one that has its frames */
#define IDS_STEP ((uint32_t)(FSW_FRAME_SIZE / sizeof(struct fsw_zspage_frames)))
#define IDS_AHEAD (2 * IDS_STEP) /* what the filler keeps ready: 8 MiB and more of objects */

/* ---- fullness lists (the class's lock is held) ---- */

void fsw_zspage_list(struct fsw_pool *pool, struct fsw_class *class, uint32_t id, unsigned group)
{
    struct fsw_zspage *zspage = &pool->zspages[id];
    uint32_t head = class->lists[group];

    zspage->group = (uint8_t)group;
    zspage->prev = 0;
    zspage->next = head;
    if (head != 0)
        pool->zspages[head].prev = id;
    class->lists[group] = id;
}

static void list_remove(struct fsw_pool *pool, struct fsw_class *class, uint32_t id)
{
    struct fsw_zspage *zspage = &pool->zspages[id];

    if (zspage->prev != 0)
        pool->zspages[zspage->prev].next = zspage->next;
    else
        class->lists[zspage->group] = zspage->next;
    if (zspage->next != 0)
        pool->zspages[zspage->next].prev = zspage->prev;
}

static void list_update(struct fsw_pool *pool, struct fsw_class *class, uint32_t id)
{
    struct fsw_zspage *zspage = &pool->zspages[id];
    unsigned group = group_of(&pool->table->shape[zspage->class], zspage->used);

    if (group != zspage->group) {
        list_remove(pool, class, id);
        fsw_zspage_list(pool, class, id, group);
    }
}

/* ---- age order (lru_lock is held) ---- */

void fsw_zspage_append(struct fsw_pool *pool, uint32_t id)
{
    struct fsw_zspage *zspage = &pool->zspages[id];

    zspage->older = pool->newest;
    zspage->newer = 0;
    if (pool->newest != 0)
        pool->zspages[pool->newest].newer = id;
    else
        pool->oldest = id;
    pool->newest = id;
}

static void age_remove(struct fsw_pool *pool, uint32_t id)
{
    struct fsw_zspage *zspage = &pool->zspages[id];

    if (zspage->older != 0)
        pool->zspages[zspage->older].newer = zspage->newer;
    else
        pool->oldest = zspage->newer;
    if (zspage->newer != 0)
        pool->zspages[zspage->newer].older = zspage->older;
    else
        pool->newest = zspage->older;
}

/* ---- zspages ---- */

/* A class's numbers change under its lock; readers elsewhere see them a moment later. */
static void count(_Atomic uint32_t *number, int by)
{
    atomic_store_explicit(number, atomic_load_explicit(number, relaxed) + (uint32_t)by, relaxed);
}

/* Memory behind the ids from `from`, a frame of zspages (16), charged before it is touched. Nobody
 * else does that at the same time. */
static int touch_ids(struct fsw_pool *pool, uint32_t from)
{
    struct fsw_image *image = pool->image;
    uint32_t step = IDS_STEP;

    if (from + step > image->super->zspages)
        return -ENOSPC;
    /* Classes: a frame of these for every 2048 ids; charged when one begins. */
    uint32_t new_classes = from * sizeof(uint16_t) % FSW_FRAME_SIZE == 0;
    if (fsw_frames_charge(&pool->frames, 1 + new_classes) < 0)
        return -ENOSPC;
    if (fsw_image_touch(&image->zspages[from], step * sizeof image->zspages[0]) < 0 ||
        fsw_image_touch((const void *)&image->classes[from], step * sizeof image->classes[0]) < 0) {
        fsw_frames_uncharge(&pool->frames, 1 + new_classes);
        return -ENOMEM;
    }
    /* The private side of these ids as well: no request shall meet a page fault there. */
    memset(&pool->zspages[from], 0, step * sizeof pool->zspages[0]);
    fsw_crash_point("zspages: a frame of them touched");
    return 0;
}

/* 1 if there are fewer ids ahead of need than there should be; then also from where on. */
static int ids_run_low(struct fsw_pool *pool, uint32_t *ret_from)
{
    FSW_LOCK_SCOPE(&pool->lru_lock);
    *ret_from = pool->zspages_ready;
    return atomic_load_explicit(&pool->image->super->zspages_top, relaxed) + IDS_AHEAD >
           pool->zspages_ready;
}

/* From the filler: ids ahead of need. No lock is held while the system looks for memory. */
static void grow_ahead(void *opaque)
{
    struct fsw_pool *pool = opaque;
    uint32_t from;

    while (ids_run_low(pool, &from)) {
        if (touch_ids(pool, from) < 0)
            return;
        FSW_LOCK_SCOPE(&pool->lru_lock);
        pool->zspages_ready = from + IDS_STEP;
    }
}

/* Without a filler the taker does it itself. lru_lock is held. */
static int has_id(struct fsw_pool *pool, uint32_t id)
{
    if (id < pool->zspages_ready)
        return 1;
    if (atomic_load(&pool->frames.running) || touch_ids(pool, pool->zspages_ready) < 0)
        return 0;
    pool->zspages_ready += IDS_STEP;
    return 1;
}

/* A fresh id, or 0: not enough are ready. lru_lock is held. */
static uint32_t take_id(struct fsw_pool *pool)
{
    _Atomic uint32_t *top = &pool->image->super->zspages_top;
    uint32_t id = pool->free_ids;

    if (id != 0) {
        pool->free_ids = pool->zspages[id].next;
        return id;
    }
    id = atomic_load_explicit(top, relaxed);
    if (id == 0)
        id = 1; /* zspage 0 is "none" */
    if (!has_id(pool, id))
        return 0;
    atomic_store_explicit(top, id + 1, memory_order_release);
    fsw_crash_point("zspages: top raised");
    return id;
}

/* A zspage among the others, or 0. */
static uint32_t enlist(struct fsw_pool *pool, unsigned class_number)
{
    FSW_LOCK_SCOPE(&pool->lru_lock);
    uint32_t id = take_id(pool);

    if (id == 0)
        return 0;
    memset(&pool->zspages[id], 0, sizeof pool->zspages[id]);
    pool->zspages[id].class = (uint16_t)class_number;
    pool->zspages[id].stamp = atomic_load_explicit(pool->clock, relaxed);
    fsw_zspage_append(pool, id);
    return id;
}

static uint32_t ids_ready(struct fsw_pool *pool)
{
    FSW_LOCK_SCOPE(&pool->lru_lock);
    return pool->zspages_ready;
}

/* The same, when the filler was not far enough ahead: as long as it gets on, since others may be
 * quicker than we are. */
static uint32_t enlist_later(struct fsw_pool *pool, unsigned class_number)
{
    uint32_t id = 0, before, now = ids_ready(pool);

    do {
        before = now;
        if (fsw_frames_await_look(&pool->frames) < 0)
            return 0;
        id = enlist(pool, class_number);
        now = ids_ready(pool);
    } while (id == 0 && now != before);
    return id;
}

static uint32_t make_zspage(struct fsw_pool *pool, struct fsw_class *class, unsigned class_number)
{
    uint32_t id = enlist(pool, class_number);

    if (id == 0)
        id = enlist_later(pool, class_number);
    if (id == 0)
        return 0;
    fsw_crash_point("zspage: id taken, no class");
    atomic_store_explicit(&pool->image->classes[id], (uint16_t)class_number, memory_order_release);
    fsw_crash_point("zspage: has a class and nothing in it");
    fsw_zspage_list(pool, class, id, 0);
    count(&class->stats->zspages, 1);
    fsw_stat_add(pool->image, FSW_STAT_ZSPAGES, 1);
    return id;
}

static void unmake_zspage(struct fsw_pool *pool, struct fsw_class *class, uint32_t id)
{
    list_remove(pool, class, id);
    count(&class->stats->zspages, -1);
    fsw_crash_point("zspage: empty, with a class");
    atomic_store_explicit(&pool->image->classes[id], 0, memory_order_release);
    fsw_crash_point("zspage: without a class");
    fsw_stat_sub(pool->image, FSW_STAT_ZSPAGES, 1);

    FSW_LOCK_SCOPE(&pool->lru_lock);
    age_remove(pool, id);
    pool->zspages[id].class = 0;
    pool->zspages[id].next = pool->free_ids;
    pool->free_ids = id;
}

/* ---- slots and their frames ---- */

static void detach_unused(struct fsw_pool *pool, uint32_t id, const struct fsw_class_shape *shape,
                          unsigned first, unsigned last)
{
    struct fsw_zspage_frames *map = &pool->image->zspages[id];

    for (unsigned i = first; i <= last; i++) {
        uint32_t frame = atomic_load_explicit(&map->frame[i], relaxed);
        if (frame == 0 || frame_in_use(&pool->zspages[id], shape, i))
            continue;
        fsw_crash_point("zspage: a frame that nothing lies in");
        atomic_store_explicit(&map->frame[i], 0, memory_order_release);
        fsw_crash_point("zspage: a frame detached, not given");
        fsw_stat_sub(pool->image, FSW_STAT_POOL_FRAMES, 1);
        pool->zspages[id].attached--;
        count(&pool->classes[pool->zspages[id].class].stats->frames, -1);
        fsw_frames_give(&pool->frames, frame);
    }
}

static int attach_frames(struct fsw_pool *pool, uint32_t id, unsigned first, unsigned last)
{
    struct fsw_zspage_frames *map = &pool->image->zspages[id];

    for (unsigned i = first; i <= last; i++) {
        if (atomic_load_explicit(&map->frame[i], relaxed) != 0)
            continue;
        uint32_t frame = fsw_frames_take(&pool->frames);
        if (frame == 0)
            return -ENOSPC;
        fsw_crash_point("zspage: a frame taken, not attached");
        atomic_store_explicit(&map->frame[i], frame, memory_order_release);
        fsw_crash_point("zspage: a frame attached");
        fsw_stat_add(pool->image, FSW_STAT_POOL_FRAMES, 1);
        pool->zspages[id].attached++;
        count(&pool->classes[pool->zspages[id].class].stats->frames, 1);
    }
    return 0;
}

/* The first free slot that needs no new frame, if one of the first few is such; else the first. */
static unsigned pick_slot(const struct fsw_zspage *zspage, const struct fsw_zspage_frames *map,
                          const struct fsw_class_shape *shape)
{
    unsigned first = shape->slots, tries = 0;

    for (unsigned word = 0; word * 64 < shape->slots && tries < SLOTS_TRIED; word++)
        for (uint64_t holes = ~zspage->slots[word]; holes != 0 && tries < SLOTS_TRIED;
             holes &= holes - 1) {
            unsigned slot = word * 64 + (unsigned)__builtin_ctzll(holes), at = slot * shape->units;
            if (slot >= shape->slots)
                break;
            if (frames_attached(map, at / FRAME_UNITS, (at + shape->units - 1) / FRAME_UNITS))
                return slot;
            first = slot < first ? slot : first;
            tries++;
        }
    return first;
}

static uint32_t fullest_with_room(const struct fsw_class *class)
{
    for (unsigned group = FSW_FULLNESS_GROUPS; group-- > 0;)
        if (class->lists[group] != 0)
            return class->lists[group];
    return 0;
}

int fsw_pool_is_allocated(const struct fsw_pool *pool, uint64_t location, unsigned units)
{
    uint64_t id = location >> FSW_ZSPAGE_UNIT_BITS;
    unsigned at = (unsigned)location & UNIT_MASK;

    if (id == 0 || id >= atomic_load(&pool->image->super->zspages_top))
        return 0;
    const struct fsw_zspage *zspage = &pool->zspages[id];
    const struct fsw_class_shape *shape = &pool->table->shape[zspage->class];
    return zspage->class != 0 && at % shape->units == 0 && units <= shape->units &&
           at / shape->units < shape->slots && slot_is_set(zspage, at / shape->units);
}

uint64_t fsw_zspage_occupy(struct fsw_pool *pool, struct fsw_class *class, uint32_t id,
                           unsigned slot)
{
    const struct fsw_class_shape *shape = &pool->table->shape[pool->zspages[id].class];
    struct fsw_zspage *zspage = &pool->zspages[id];
    unsigned at = slot * shape->units;
    unsigned first = at / FRAME_UNITS, last = (at + shape->units - 1) / FRAME_UNITS;

    if (attach_frames(pool, id, first, last) < 0) {
        detach_unused(pool, id, shape, first, last);
        if (zspage->used == 0)
            unmake_zspage(pool, class, id);
        return 0;
    }
    zspage->slots[slot / 64] |= 1ull << slot % 64;
    zspage->used++;
    zspage->stuck = 0;
    count(&class->stats->objects, 1);
    list_update(pool, class, id);
    return (uint64_t)id << FSW_ZSPAGE_UNIT_BITS | at;
}

uint64_t fsw_pool_alloc(struct fsw_pool *pool, unsigned units)
{
    unsigned class_number = pool->table->of_units[units];
    const struct fsw_class_shape *shape = &pool->table->shape[class_number];
    struct fsw_class *class = &pool->classes[class_number];
    FSW_LOCK_SCOPE(&class->lock);

    uint32_t id = fullest_with_room(class);
    if (id == 0)
        id = make_zspage(pool, class, class_number);
    if (id == 0)
        return 0;
    unsigned slot = pick_slot(&pool->zspages[id], &pool->image->zspages[id], shape);
    return fsw_zspage_occupy(pool, class, id, slot);
}

int fsw_pool_free(struct fsw_pool *pool, uint64_t location)
{
    uint64_t id = location >> FSW_ZSPAGE_UNIT_BITS;
    if (id == 0 || id >= atomic_load_explicit(&pool->image->super->zspages_top, relaxed))
        return -EIO;
    struct fsw_zspage *zspage = &pool->zspages[id];
    /* The object is ours: its zspage can't change class before we are done. */
    unsigned class_number = zspage->class;
    const struct fsw_class_shape *shape = &pool->table->shape[class_number];
    struct fsw_class *class = &pool->classes[class_number];
    FSW_LOCK_SCOPE(&class->lock);
    if (zspage->class != class_number || !fsw_pool_is_allocated(pool, location, 0))
        return -EIO; /* not ours after all: a damaged entry named it */

    unsigned at = (unsigned)location & UNIT_MASK, slot = at / shape->units;
    fsw_crash_point("pool: about to free a slot");
    zspage->slots[slot / 64] &= ~(1ull << slot % 64);
    zspage->used--;
    zspage->stuck = 0;
    count(&class->stats->objects, -1);
    detach_unused(pool, (uint32_t)id, shape, at / FRAME_UNITS,
                  (at + shape->units - 1) / FRAME_UNITS);
    if (zspage->used == 0)
        unmake_zspage(pool, class, (uint32_t)id);
    else
        list_update(pool, class, (uint32_t)id);
    return 0;
}

/* ---- reclaim's view ---- */

unsigned fsw_zspage_collect(struct fsw_pool *pool, uint32_t id, unsigned from,
                            struct fsw_pool_object *objects)
{
    const struct fsw_zspage *zspage = &pool->zspages[id];
    const struct fsw_class_shape *shape = &pool->table->shape[zspage->class];
    unsigned n = 0;

    for (unsigned slot = from; slot < shape->slots; slot++) {
        if (!slot_is_set(zspage, slot))
            continue;
        uint64_t location = (uint64_t)id << FSW_ZSPAGE_UNIT_BITS | slot * shape->units;
        if (fsw_pool_peek(pool->image, location, &objects[n].page) == 0)
            objects[n++].location = location;
    }
    return n;
}

/* The hand passes that zspage: it is the newest. 0: it went away, or is another class's, or, if it must
 * be the oldest, is not any more. The class's lock is held. */
static int pass(struct fsw_pool *pool, uint32_t id, unsigned class_number, int oldest,
                uint8_t *ret_stamp)
{
    FSW_LOCK_SCOPE(&pool->lru_lock);
    int same = atomic_load_explicit(&pool->image->classes[id], relaxed) == class_number &&
               (!oldest || pool->oldest == id);

    if (same) {
        age_remove(pool, id);
        fsw_zspage_append(pool, id);
        *ret_stamp = pool->zspages[id].stamp;
        pool->zspages[id].stamp = atomic_load_explicit(pool->clock, relaxed);
    }
    return same;
}

unsigned fsw_pool_pass_huge(struct fsw_pool *pool, uint32_t *hand, struct fsw_pool_object *objects,
                            uint8_t *ret_stamp)
{
    unsigned huge = pool->table->of_units[FSW_OBJECT_UNITS_MAX], n = 0;
    struct fsw_class *class = &pool->classes[huge];
    uint32_t top = atomic_load(&pool->image->super->zspages_top), id = *hand;

    while (n == 0 && atomic_load_explicit(&class->stats->objects, relaxed) > 0 && ++id < top) {
        if (atomic_load_explicit(&pool->image->classes[id], relaxed) != huge)
            continue;
        FSW_LOCK_SCOPE(&class->lock);
        if (pass(pool, id, huge, 0, ret_stamp))
            n = fsw_zspage_collect(pool, id, 0, objects);
    }
    *hand = n > 0 ? id : 0;
    return n;
}

unsigned fsw_pool_pass_oldest(struct fsw_pool *pool, struct fsw_pool_object *objects,
                              uint8_t *ret_stamp)
{
    for (;;) {
        pthread_mutex_lock(&pool->lru_lock);
        uint32_t id = pool->oldest;
        unsigned class_number = id != 0 ? pool->zspages[id].class : 0;
        pthread_mutex_unlock(&pool->lru_lock);
        if (id == 0)
            return 0;

        FSW_LOCK_SCOPE(&pool->classes[class_number].lock);
        if (pass(pool, id, class_number, 1, ret_stamp))
            return fsw_zspage_collect(pool, id, 0, objects);
    }
}

/* ---- life ---- */

static size_t zspages_bytes(const struct fsw_image *image)
{
    return image->super->zspages * sizeof(struct fsw_zspage);
}

int fsw_pool_init(struct fsw_pool *pool, struct fsw_image *image, uint64_t memory,
                  const _Atomic uint8_t *clock)
{
    memset(pool, 0, sizeof *pool);
    pool->image = image;
    pool->table = fsw_class_table();
    pool->clock = clock;
    pool->round = 1;
    int r = fsw_frames_init(&pool->frames, image, memory);
    if (r < 0)
        return r;
    pool->zspages = mmap(NULL, zspages_bytes(image), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool->zspages == MAP_FAILED) {
        pool->zspages = NULL;
        return -ENOMEM;
    }
    madvise(pool->zspages, zspages_bytes(image), MADV_NOHUGEPAGE);
    for (unsigned i = 0; i < FSW_CLASS_MAX; i++) {
        pthread_mutex_init(&pool->classes[i].lock, NULL);
        pool->classes[i].stats = &image->class_stats[i];
    }
    pthread_mutex_init(&pool->lru_lock, NULL);
    pool->frames.ahead = grow_ahead;
    pool->frames.ahead_opaque = pool;
    return 0;
}

void fsw_pool_deinit(struct fsw_pool *pool)
{
    if (pool->zspages != NULL)
        munmap(pool->zspages, zspages_bytes(pool->image));
    pool->zspages = NULL;
    fsw_frames_deinit(&pool->frames);
}
