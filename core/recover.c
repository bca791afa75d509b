/*
 * recover.c: an image that changed hands. What a server that is gone left half-done is ended, and
 * everything derived is made again from the truth (image.h, I3).
 *
 *      directory      ->  leaves claim their frames
 *      zspage map     ->  zspages claim theirs                               core/pool/pool_rebuild.c
 *      each entry     ->  lock and overflow bits go; its slot is taken, or its row counts it
 *      rows           ->  LIVE, or to be dropped, or free                    core/rows.c
 *      the rest       ->  slots, frames and zspages that nobody names are free again
 *
 * There is no journal, and none is needed: whoever changes an image writes what is new, publishes it
 * with one store, and only then lets go of what was before. So at whatever point a server dies,
 * each entry names its page's old object or the new one, whole; the other of the two is named by
 * nobody, and vanishes here.
 *
 *   V1  Recovery names nothing that was not named: it may die anywhere and be begun anew. (The
 *       points that tell are between two leaves, between two rows, and in pool_rebuild.c between
 *       a frame and its zspage.)
 *   V2  It reads no memory but what the directory, the tops or the zspage map name.
 *   V3  No object is looked at. A damaged one is found by who reads its page.
 *   V4  An entry that names nothing that can be, or what another names, is damaged: the page is lost
 *       (FSW_ENTRY_LOST, its readers get -EIO), and the layout is whole again. Only where two name
 *       the same does the page number in the object's header say which of them is right.
 *
 * Nobody else touches the image meanwhile, but for readers (`farswap status`), who don't mind.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/crash.h"
#include "core/engine.h"

#define get(x) atomic_load_explicit(&(x), memory_order_relaxed)
#define set(x, value) atomic_store_explicit(&(x), value, memory_order_relaxed)

struct recovery {
    struct fsw_device *device;
    const struct fsw_image *image;
    uint8_t now;    /* the age clock */
    int by_header;  /* two entries name one place: the object's header decides */
    int disputed;   /* that was found */
    uint64_t lost;  /* words that were damaged */
    uint32_t *live; /* what lives in each row's segment (rows.h) */
    uint64_t leaves, same, pool, store, huge, pool_units, store_units;
};

/* ---- entries ---- */

static int claim_object(struct recovery *recovery, uint64_t page, uint64_t value)
{
    uint64_t location = fsw_entry_location(value);
    unsigned units = fsw_entry_units(value);
    uint32_t named;

    if (recovery->by_header &&
        (fsw_pool_peek(recovery->image, location, &named) < 0 || named != (uint32_t)page))
        return -EUCLEAN;
    int r = fsw_pool_claim(&recovery->device->pool, location, units,
                           (uint8_t)(recovery->now - fsw_entry_age(value)));
    if (r < 0) {
        recovery->disputed |= r == -EEXIST;
        return r;
    }
    recovery->pool++;
    recovery->pool_units += units;
    recovery->huge += units == FSW_OBJECT_UNITS_MAX;
    return 0;
}

static int claim_stored(struct recovery *recovery, uint64_t value)
{
    uint32_t row = fsw_entry_row(value);
    unsigned units = fsw_entry_units(value);

    if (recovery->device->store == NULL || units < FSW_OBJECT_UNITS_MIN ||
        units > FSW_OBJECT_UNITS_MAX || fsw_entry_offset_units(value) < recovery->device->seal ||
        !fsw_row_may_hold(recovery->image, row,
                          (fsw_entry_offset_units(value) + units) * FSW_UNIT) ||
        fsw_live_objects(recovery->live[row]) == FSW_SEGMENT_OBJECTS) /* others name the same */
        return -EUCLEAN;
    recovery->live[row] += fsw_live(1, units);
    recovery->store++;
    recovery->store_units += units;
    return 0;
}

/* What becomes of an entry; *entry is written only where it changes. */
static void settle_entry(struct recovery *recovery, uint64_t page, fsw_entry *entry)
{
    uint64_t seen = get(*entry), value = seen & ~(FSW_ENTRY_LOCK | FSW_ENTRY_OVERFLOW);
    int r = 0;

    switch (fsw_entry_state(value)) {
    case FSW_EMPTY:
    case FSW_SAME:
        if (!fsw_entry_is_word(value) && value != FSW_ENTRY_LOST)
            r = -EUCLEAN;
        else
            recovery->same += fsw_entry_state(value) == FSW_SAME;
        break;
    case FSW_POOL:
        if ((uint8_t)(recovery->now - fsw_entry_age(value)) > FSW_AGE_MAX)
            value = fsw_entry_with_age(value, (uint8_t)(recovery->now - FSW_AGE_MAX));
        r = claim_object(recovery, page, value);
        break;
    case FSW_STORE:
        r = claim_stored(recovery, value);
        break;
    }
    if (r == -EUCLEAN) {
        value = FSW_ENTRY_LOST;
        recovery->lost++;
        recovery->same++;
    }
    if (value != seen)
        set(*entry, value);
}

/* ---- leaves ---- */

static void settle_leaf(struct recovery *recovery, uint64_t leaf)
{
    struct fsw_device *device = recovery->device;
    uint64_t first = leaf * FSW_LEAF_ENTRIES;
    fsw_entry *entries = fsw_table_find(recovery->image, first);

    if (entries == NULL)
        return;
    for (unsigned i = 0; i < FSW_LEAF_ENTRIES; i++)
        if (first + i < device->pages)
            settle_entry(recovery, first + i, &entries[i]);
        else if (get(entries[i]) != 0)
            set(entries[i], 0); /* nobody's */
    fsw_crash_point("recovery: a leaf is settled");
}

/* Claims the leaf's frame, before anybody else can. */
static void find_leaf(struct recovery *recovery, uint64_t leaf)
{
    _Atomic uint64_t *directory = &recovery->image->directory[leaf];
    uint64_t word = get(*directory);
    uint32_t frame = word != 0 ? fsw_leaf_frame(recovery->image, leaf, word) : 0;

    if (word == 0)
        return;
    recovery->leaves++;
    if (frame != 0 && fsw_frames_claim(&recovery->device->pool.frames, frame) == 0)
        return;
    recovery->leaves--;
    recovery->lost++;
    if (frame != 0) /* proves itself, and can't be: another leaf has the frame */
        set(*directory, word ^ 1ull << 63);
}

static void settle_table(struct recovery *recovery)
{
    uint64_t leaves = recovery->image->super->leaves;

    for (uint64_t leaf = 0; leaf < leaves; leaf++)
        if (get(recovery->image->directory[leaf]) != 0)
            settle_leaf(recovery, leaf);
}

/* Again, after two entries were found to name one place. */
static void settle_dispute(struct recovery *recovery)
{
    uint32_t rows = get(recovery->image->super->rows_top);

    fsw_pool_disclaim_all(&recovery->device->pool);
    for (uint32_t row = 0; row < rows; row++)
        recovery->live[row] = 0;
    recovery->same = recovery->pool = recovery->store = recovery->huge = 0;
    recovery->pool_units = recovery->store_units = 0;
    recovery->by_header = 1;
    settle_table(recovery);
}

/* ---- numbers ---- */

static void publish(const struct recovery *recovery, const struct fsw_rows_found *rows)
{
    const struct fsw_image *image = recovery->image;

    fsw_stat_restart(image, FSW_STAT_TABLE_LEAVES, recovery->leaves);
    fsw_stat_restart(image, FSW_STAT_PAGES_SAME, recovery->same);
    fsw_stat_restart(image, FSW_STAT_PAGES_POOL, recovery->pool);
    fsw_stat_restart(image, FSW_STAT_PAGES_STORE, recovery->store);
    fsw_stat_restart(image, FSW_STAT_HUGE_PAGES, recovery->huge);
    fsw_stat_restart(image, FSW_STAT_COMPR_DATA_SIZE, recovery->pool_units * FSW_UNIT);
    fsw_stat_restart(image, FSW_STAT_STORE_DATA_SIZE, recovery->store_units * FSW_UNIT);
    fsw_stat_restart(image, FSW_STAT_SEGMENTS, rows->segments);
    fsw_stat_restart(image, FSW_STAT_STORE_BYTES, rows->bytes);
    /* A put that its server did not live to see the end of has failed. */
    fsw_stat_add(image, FSW_STAT_OVERFLOW_FAILED, rows->pending);
    fsw_stat_add(image, FSW_STAT_CORRUPT_PAGES, recovery->lost);
}

static void drop(void *opaque, uint32_t row)
{
    fsw_overflow_drop(opaque, row);
    fsw_crash_point("recovery: a row is to be dropped");
}

/* The highest frame that is named, past the top: the top fell back. A name that is damaged has no memory
 * behind it. */
static void raise_frames_top(const struct fsw_image *image, uint32_t frame)
{
    _Atomic uint32_t *top = &image->super->frames_top;

    if (frame >= get(*top) && frame < image->super->frames &&
        fsw_image_resident(fsw_image_frame(image, frame), 1) == 1)
        set(*top, frame + 1);
}

static void check_frames_top(const struct fsw_image *image)
{
    uint32_t zspages = get(image->super->zspages_top);

    for (uint64_t leaf = 0; leaf < image->super->leaves; leaf++) {
        uint64_t word = get(image->directory[leaf]);
        if (word != 0)
            raise_frames_top(image, fsw_leaf_frame(image, leaf, word));
    }
    for (uint32_t id = 1; id < zspages; id++)
        for (unsigned i = 0; i < FSW_ZSPAGE_FRAMES && get(image->classes[id]) != 0; i++)
            raise_frames_top(image, get(image->zspages[id].frame[i]));
}

static void settle_all(struct recovery *recovery)
{
    struct fsw_device *device = recovery->device;
    struct fsw_rows_found rows;

    fsw_pool_rebuild_ids(&device->pool);
    check_frames_top(recovery->image);
    fsw_frames_rebuild_begin(&device->pool.frames);
    for (uint64_t leaf = 0; leaf < recovery->image->super->leaves; leaf++)
        find_leaf(recovery, leaf);
    recovery->lost += fsw_pool_rebuild_begin(&device->pool);
    settle_table(recovery);
    if (recovery->disputed)
        settle_dispute(recovery);
    fsw_rows_rebuild(&device->rows, recovery->live, drop, device, &rows);
    fsw_pool_rebuild_end(&device->pool, FSW_TICKS_A_LAP);
    fsw_frames_rebuilt(&device->pool.frames);
    publish(recovery, &rows);
}

/* The clock is the number of its ticks; one may not have been counted. */
static uint8_t restart_clock(struct fsw_device *device)
{
    uint8_t now;

    fsw_stat_add(&device->image, FSW_STAT_AGE_TICKS, 1);
    now = (uint8_t)fsw_stat_get(&device->image, FSW_STAT_AGE_TICKS);
    set(device->clock, now);
    device->reclaim.clamped_to = now;
    return now;
}

int fsw_recover(struct fsw_device *device)
{
    struct fsw_superblock *super = device->image.super;
    size_t bytes = ((size_t)get(super->rows_top) + 1) * sizeof(uint32_t);
    struct recovery recovery = {.device = device, .image = &device->image};

    /* Touched only for rows that are named, or were used. */
    recovery.live = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (recovery.live == MAP_FAILED)
        return -ENOMEM;
    recovery.now = restart_clock(device);
    settle_all(&recovery);
    munmap(recovery.live, bytes);
    device->lost = recovery.lost;
    return 0;
}
