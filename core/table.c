/*
 * table.c: finding and making entries.
 */
#include "core/table.h"

#include <string.h>

#include "common/cleanup.h"
#include "core/crash.h"

void fsw_table_init(struct fsw_table *table, struct fsw_image *image, struct fsw_frames *frames)
{
    table->image = image;
    table->frames = frames;
    pthread_mutex_init(&table->lock, NULL);
}

static fsw_entry *entry_in(const struct fsw_image *image, uint32_t frame, uint64_t page)
{
    return (fsw_entry *)fsw_image_frame(image, frame) + page % FSW_LEAF_ENTRIES;
}

fsw_entry *fsw_table_find(const struct fsw_image *image, uint64_t page)
{
    uint64_t leaf = page / FSW_LEAF_ENTRIES;
    uint64_t word = atomic_load_explicit(&image->directory[leaf], memory_order_acquire);
    uint32_t frame = fsw_leaf_frame(image, leaf, word);

    return frame != 0 ? entry_in(image, frame, page) : NULL;
}

void fsw_table_prefetch(const struct fsw_image *image, uint64_t page)
{
    const fsw_entry *entry = fsw_table_find(image, page);

    if (entry != NULL)
        __builtin_prefetch(entry, 1);
}

int fsw_table_is_damaged(const struct fsw_image *image, uint64_t page)
{
    uint64_t leaf = page / FSW_LEAF_ENTRIES;
    uint64_t word = atomic_load_explicit(&image->directory[leaf], memory_order_acquire);

    return word != 0 && fsw_leaf_frame(image, leaf, word) == 0;
}

static uint32_t make_leaf(struct fsw_table *table, uint64_t leaf)
{
    FSW_LOCK_SCOPE(&table->lock);
    uint64_t word = atomic_load_explicit(&table->image->directory[leaf], memory_order_acquire);

    if (word != 0) /* somebody else was here first */
        return fsw_leaf_frame(table->image, leaf, word);
    uint32_t frame = fsw_frames_take(table->frames);
    if (frame == 0)
        return 0;
    fsw_crash_point("leaf: frame taken, not zeroed");
    memset(fsw_image_frame(table->image, frame), 0, FSW_FRAME_SIZE);
    fsw_crash_point("leaf: zeroed, not published");
    atomic_store_explicit(&table->image->directory[leaf], fsw_leaf_word(leaf, frame),
                          memory_order_release);
    fsw_crash_point("leaf: published, not counted");
    fsw_stat_add(table->image, FSW_STAT_TABLE_LEAVES, 1);
    return frame;
}

fsw_entry *fsw_table_make(struct fsw_table *table, uint64_t page)
{
    fsw_entry *entry = fsw_table_find(table->image, page);

    if (entry != NULL)
        return entry;
    uint32_t frame = make_leaf(table, page / FSW_LEAF_ENTRIES);
    return frame != 0 ? entry_in(table->image, frame, page) : NULL;
}
