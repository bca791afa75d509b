/*
 * reclaim.c: who leaves. A second-chance hand over zspages, oldest first.
 *
 * The hand takes the zspage that it has not seen for longest and looks at its objects: header to
 * page number to entry. A page that was used since the hand last passed here stays, with a second
 * chance; the others leave. So the cost follows what is in the pool, not the size of the device,
 * and since a zspage fills within a short time, whole zspages tend to come free.
 *
 * Age is a coarse clock of eight bits in each entry. It ticks with bytes written: a lap of the hand
 * takes about as long as the pool takes to be written anew, and lasts FSW_TICKS_A_LAP ticks or so.
 * A page's age is how far the clock is ahead of its entry, modulo 256, which is right while none is
 * older than that: fsw_reclaim_clamp() walks the table, a part at each tick, and moves what is older
 * than 127 up to 127, so none gets older than 191. While nobody writes the clock ticks once a minute,
 * and when somebody asks. A page's age in seconds is told by when the clock came to each of its values.
 *
 * With huge=first a second hand goes round the zspages of pages that did not compress, which win most
 * room by leaving. It leaves what was used since it was here a second chance, too, of one lap; after
 * two laps all of them are gone or on their way, and the first hand has its turn.
 *
 * With huge=store those pages leave whatever room there is, as many as fill a segment at a time, and
 * whatever their age: a hand of its own goes round for them.
 *
 * When somebody asks for idle pages to leave, the whole table is walked, once.
 */
#include "common/clock.h"
#include "core/engine.h"
#include "farswap/steer.h"

#define SWEEP_PARTS 64u /* a whole sweep of the table in 64 ticks: half of FSW_AGE_MAX */
/* Zspages of any kind, besides as many as were passed in vain, before the next look for huge objects: so
 * that costs no more than the other hand, also when nobody may leave. */
#define OTHERS 4u
#define SLOWEST_TICK_NS (60 * FSW_NS_PER_S)

/* So many percent of the limit. Never none: what is asked of the system takes a moment. */
static uint32_t share(uint32_t limit, unsigned percent)
{
    return (uint32_t)((uint64_t)limit * percent / 100) + 16;
}

void fsw_reclaim_set_limit(struct fsw_device *device)
{
    uint32_t limit = atomic_load(&device->pool.frames.limit);
    struct fsw_reclaim *reclaim = &device->reclaim;

    /* A 32nd and a 16th of memory=, 64 and 128 MiB at most. */
    uint32_t low = limit / 32 < 16384 ? limit / 32 + 16 : 16384;
    uint32_t high = limit / 16 < 32768 ? limit / 16 + 32 : 32768;
    uint32_t word = atomic_load(&device->image.super->watermarks);
    if (word != 0) {
        low = share(limit, 100 - (word >> 8 & 0xff) % 100);
        high = share(limit, 100 - (word & 0xff) % 100) + 16;
    }
    reclaim->watermarks = word;
    atomic_store(&reclaim->low, low);
    atomic_store(&reclaim->high, high);
    atomic_store(&device->pool.frames.low, atomic_load(&reclaim->low));
    uint32_t kept = limit / 16 < FSW_CLEAN_KEPT ? limit / 16 : FSW_CLEAN_KEPT;
    atomic_store(&device->pool.frames.kept, device->store != NULL ? kept : 0);
    atomic_store(&device->tick_every, limit / FSW_TICKS_A_LAP + 1);
}

void fsw_reclaim_tick(struct fsw_device *device)
{
    uint32_t pages = atomic_fetch_add_explicit(&device->tick_pages, 1, memory_order_relaxed) + 1;

    uint32_t every = atomic_load_explicit(&device->tick_every, memory_order_relaxed);

    if (pages % every == 0) { /* just one writer sees each value */
        atomic_fetch_add_explicit(&device->clock, 1, memory_order_relaxed);
        fsw_stat_add(&device->image, FSW_STAT_AGE_TICKS, 1);
    }
}

/* What has the clock's value now was not used after `then`. */
static void tick_at(struct fsw_device *device, uint64_t then)
{
    uint8_t clock =
        (uint8_t)(atomic_fetch_add_explicit(&device->clock, 1, memory_order_relaxed) + 1);

    atomic_store(&device->reclaim.ticked_at[clock], then);
    fsw_stat_add(&device->image, FSW_STAT_AGE_TICKS, 1);
}

void fsw_device_mark(struct fsw_device *device)
{
    tick_at(device, fsw_now_ns());
    atomic_store(&device->reclaim.mark, fsw_stat_get(&device->image, FSW_STAT_AGE_TICKS));
}

/* When somebody was last seen to use it: a device at rest needs no ticks for that. */
static void follow_uses(struct fsw_device *device, uint64_t now)
{
    uint64_t uses = fsw_stat_get(&device->image, FSW_STAT_READS) +
                    fsw_stat_get(&device->image, FSW_STAT_WRITES);

    if (uses != device->reclaim.uses)
        device->reclaim.used_at = now;
    device->reclaim.uses = uses;
}

void fsw_reclaim_follow_clock(struct fsw_device *device)
{
    struct fsw_reclaim *reclaim = &device->reclaim;
    uint8_t clock = atomic_load_explicit(&device->clock, memory_order_relaxed);
    uint64_t now = fsw_now_ns();
    uint64_t then = now - 1; /* what was used since the last look may have been used after a tick */

    follow_uses(device, now);
    for (unsigned i = 0; i < 256 && atomic_load(&reclaim->ticked_at[255]) == 0; i++) {
        /* of an image that was there before: not known */
        atomic_store(&reclaim->ticked_at[i], then);
        reclaim->timed = clock;
    }
    while (reclaim->timed != clock) {
        uint64_t before = atomic_load(&reclaim->ticked_at[reclaim->timed++]);
        if (atomic_load(&reclaim->ticked_at[reclaim->timed]) <= before) /* 256 ticks ago */
            atomic_store(&reclaim->ticked_at[reclaim->timed], then);
    }
    if (now - atomic_load(&reclaim->ticked_at[clock]) >= SLOWEST_TICK_NS)
        tick_at(device, now);
}

/* Pages that are so many ticks old, or older, were not used for that long. */
static unsigned ticks_of(struct fsw_device *device, uint32_t seconds)
{
    uint8_t clock = atomic_load_explicit(&device->clock, memory_order_relaxed);
    uint64_t now = fsw_now_ns();
    unsigned ticks = 0;

    /* A page N ticks old may have been used until the clock came to the value after its own. */
    while (seconds != 0 && ticks <= FSW_AGE_MAX) {
        uint64_t ended = atomic_load(&device->reclaim.ticked_at[(uint8_t)(clock - ticks)]);
        ticks++;
        if (ended != 0 && now - ended >= seconds * FSW_NS_PER_S)
            break;
    }
    return ticks;
}

/* Used after the hand passed. Each is as old as the clock says, which is read after them: a page that
 * the sweep has not come to yet is older than FSW_AGE_MAX, and if age and stamp were compared with each
 * other it would look young, and stay until the sweep comes. */
static int used_since(const struct fsw_device *device, uint8_t age, uint8_t stamp)
{
    uint8_t clock = atomic_load_explicit(&device->clock, memory_order_relaxed);

    return (uint8_t)(clock - age) < (uint8_t)(clock - stamp);
}

/* 1 if a page's entry names the object, which is not on its way out; that entry as it is now. */
static int is_named(struct fsw_device *device, const struct fsw_pool_object *object,
                    struct fsw_victim *ret_victim)
{
    if (object->page >= device->pages)
        return 0;
    fsw_entry *entry = fsw_table_find(&device->image, object->page);
    if (entry == NULL)
        return 0;
    uint64_t value = fsw_entry_load(entry);
    if (fsw_entry_state(value) != FSW_POOL || value & FSW_ENTRY_OVERFLOW ||
        fsw_entry_location(value) != object->location)
        return 0; /* rewritten, discarded, or on its way out already */
    *ret_victim = (struct fsw_victim){.entry = entry, .value = value, .page = object->page};
    return 1;
}

/* The same, if the page should leave now. */
static int should_leave(struct fsw_device *device, const struct fsw_pool_object *object,
                        struct fsw_victim *ret_victim)
{
    if (!is_named(device, object, ret_victim))
        return 0;
    if (used_since(device, fsw_entry_age(ret_victim->value), device->reclaim.stamp)) {
        fsw_stat_add(&device->image, FSW_STAT_RECLAIM_SECOND_CHANCES, 1);
        return 0;
    }
    return 1;
}

/* The next zspage of huge objects if they are to leave; 0: they are not, or none may. */
static unsigned pass_huge(struct fsw_device *device)
{
    struct fsw_reclaim *reclaim = &device->reclaim;

    while (reclaim->leaving == FSW_LEAVE_HUGE && reclaim->others == 0) {
        unsigned n = fsw_pool_pass_huge(&device->pool, &reclaim->huge_hand, reclaim->objects,
                                        &reclaim->stamp);
        reclaim->huge_vain += n > 0;
        if (n > 0)
            return n;
        if (++reclaim->huge_laps == 2) {
            reclaim->others = OTHERS + reclaim->huge_vain;
            reclaim->huge_laps = reclaim->huge_vain = 0;
        }
    }
    return 0;
}

static int next_oldest(struct fsw_device *device, struct fsw_victim *ret_victim)
{
    struct fsw_reclaim *reclaim = &device->reclaim;
    /* Two laps see every page once with its second chance gone. */
    uint64_t left = 2 * fsw_stat_get(&device->image, FSW_STAT_ZSPAGES) + 2;

    for (;;) {
        while (reclaim->next < reclaim->count) {
            fsw_stat_add(&device->image, FSW_STAT_RECLAIM_SCANNED, 1);
            if (should_leave(device, &reclaim->objects[reclaim->next++], ret_victim)) {
                reclaim->huge_vain = 0;
                return 1;
            }
        }
        reclaim->next = 0;
        reclaim->count = pass_huge(device);
        if (reclaim->count > 0)
            continue;
        if (left-- == 0)
            return 0;
        reclaim->others -= reclaim->others > 0;
        reclaim->count = fsw_pool_pass_oldest(&device->pool, reclaim->objects, &reclaim->stamp);
    }
}

/* ---- huge=store ---- */

/* What is left of a zspage may be another hand's, whose objects are of any length. */
static int next_huge(struct fsw_device *device, struct fsw_victim *ret_victim)
{
    struct fsw_reclaim *reclaim = &device->reclaim;

    for (unsigned ends = 0; ends < 2;) { /* the second end is that of a whole lap */
        while (reclaim->next < reclaim->count) {
            fsw_stat_add(&device->image, FSW_STAT_RECLAIM_SCANNED, 1);
            if (is_named(device, &reclaim->objects[reclaim->next++], ret_victim) &&
                fsw_entry_units(ret_victim->value) == FSW_OBJECT_UNITS_MAX)
                return 1;
        }
        reclaim->next = 0;
        reclaim->count = fsw_pool_pass_huge(&device->pool, &reclaim->store_hand, reclaim->objects,
                                            &reclaim->stamp);
        ends += reclaim->count == 0;
    }
    return 0;
}

/* ---- idle pages ---- */

/* The same for what was not used since the mark; 0: there is none. */
static unsigned ticks_since_mark(const struct fsw_device *device)
{
    uint64_t mark = atomic_load(&device->reclaim.mark);
    uint64_t ticks = fsw_stat_get(&device->image, FSW_STAT_AGE_TICKS) - mark + 1;

    return mark == 0 ? 0 : ticks < FSW_AGE_MAX ? (unsigned)ticks : FSW_AGE_MAX;
}

void fsw_reclaim_begin_idle(struct fsw_device *device, uint32_t seconds)
{
    struct fsw_reclaim *reclaim = &device->reclaim;
    uint8_t clock = atomic_load_explicit(&device->clock, memory_order_relaxed);
    int marked = (seconds & ~FSW_OVERFLOW_HUGE) == FSW_OVERFLOW_MARKED;

    if (reclaim->used_at > atomic_load(&reclaim->ticked_at[clock]))
        tick_at(device, reclaim->used_at);
    reclaim->idle_huge = (seconds & FSW_OVERFLOW_HUGE) != 0;
    reclaim->idle_ticks = (uint8_t)(marked ? ticks_since_mark(device)
                                           : ticks_of(device, seconds & ~FSW_OVERFLOW_HUGE));
    reclaim->idle_clock = atomic_load_explicit(&device->clock, memory_order_relaxed);
    reclaim->idle_page = marked && reclaim->idle_ticks == 0 ? device->pages : 0;
}

int fsw_reclaim_idle_is_over(const struct fsw_device *device)
{
    return device->reclaim.idle_page >= device->pages;
}

/* As it was when the walk began: the clock may tick meanwhile. */
static int is_old_enough(const struct fsw_device *device, uint8_t age)
{
    uint8_t clock = atomic_load_explicit(&device->clock, memory_order_relaxed);
    unsigned ticks = device->reclaim.idle_ticks;

    if (ticks == 0)
        return 1;
    ticks += (uint8_t)(clock - device->reclaim.idle_clock);
    return (uint8_t)(clock - age) >= (ticks < FSW_AGE_MAX ? ticks : FSW_AGE_MAX);
}

static int is_idle(struct fsw_device *device, uint64_t value)
{
    const struct fsw_reclaim *reclaim = &device->reclaim;

    return fsw_entry_state(value) == FSW_POOL && !(value & FSW_ENTRY_OVERFLOW) &&
           (!reclaim->idle_huge || fsw_entry_units(value) == FSW_OBJECT_UNITS_MAX) &&
           is_old_enough(device, fsw_entry_age(value));
}

static int next_idle(struct fsw_device *device, struct fsw_victim *ret_victim)
{
    uint64_t *page = &device->reclaim.idle_page;

    while (*page < device->pages) {
        fsw_entry *entry = fsw_table_find(&device->image, *page);
        if (entry == NULL) {
            *page = (*page / FSW_LEAF_ENTRIES + 1) * FSW_LEAF_ENTRIES;
            continue;
        }
        uint64_t value = fsw_entry_load(entry), number = (*page)++;
        if (!is_idle(device, value))
            continue;
        fsw_stat_add(&device->image, FSW_STAT_RECLAIM_SCANNED, 1);
        *ret_victim = (struct fsw_victim){.entry = entry, .value = value, .page = (uint32_t)number};
        return 1;
    }
    return 0;
}

int fsw_reclaim_next(struct fsw_device *device, struct fsw_victim *ret_victim)
{
    switch (device->reclaim.leaving) {
    case FSW_LEAVE_IDLE:
        return next_idle(device, ret_victim);
    case FSW_LEAVE_HUGE_ONLY:
        return next_huge(device, ret_victim);
    default:
        return next_oldest(device, ret_victim);
    }
}

void fsw_reclaim_unget(struct fsw_device *device)
{
    if (device->reclaim.leaving == FSW_LEAVE_IDLE)
        device->reclaim.idle_page--;
    else
        device->reclaim.next--;
}

/* ---- clamping ---- */

static void clamp_leaf(struct fsw_device *device, uint64_t leaf, uint8_t now)
{
    fsw_entry *entry = fsw_table_find(&device->image, leaf * FSW_LEAF_ENTRIES);

    for (unsigned i = 0; entry != NULL && i < FSW_LEAF_ENTRIES; i++, entry++) {
        uint64_t value = atomic_load_explicit(entry, memory_order_relaxed);
        if (fsw_entry_state(value) != FSW_POOL || value & FSW_ENTRY_LOCK ||
            (uint8_t)(now - fsw_entry_age(value)) <= FSW_AGE_MAX)
            continue;
        /* Lost against anybody else: then the age is new anyway. */
        uint64_t clamped = fsw_entry_with_age(value, (uint8_t)(now - FSW_AGE_MAX));
        atomic_compare_exchange_strong_explicit(entry, &value, clamped, memory_order_relaxed,
                                                memory_order_relaxed);
    }
}

void fsw_reclaim_clamp(struct fsw_device *device)
{
    struct fsw_reclaim *reclaim = &device->reclaim;
    uint8_t now = atomic_load_explicit(&device->clock, memory_order_relaxed);
    uint64_t leaves = device->image.super->leaves, part = leaves / SWEEP_PARTS + 1;

    while (reclaim->clamped_to != now) {
        reclaim->clamped_to++;
        for (uint64_t i = 0; i < part; i++) {
            clamp_leaf(device, reclaim->clamp_leaf, now);
            reclaim->clamp_leaf = (reclaim->clamp_leaf + 1) % leaves;
        }
    }
}
