/*
 * table.h: the page table. A directory of leaves, a leaf of 512 entries a frame.
 *
 *      directory[page / 512] ──> frame, check ──> entry[page % 512]
 *
 *   T1  A directory word goes from 0 to a frame once, after the frame was zeroed, and stays:
 *       whoever has found an entry may keep its address as long as the image is mapped.
 *   T2  No leaf means 512 empty pages; looking never makes one.
 *   T3  A directory word proves itself: its upper half is a check of leaf number and frame. A leaf
 *       of empty pages has no other proof, and any other frame would be taken for one.
 */
#ifndef FSW_TABLE_H
#define FSW_TABLE_H

#include <pthread.h>

#include "core/entry.h"
#include "core/image.h"
#include "core/pool/frames.h"

static inline uint64_t fsw_leaf_word(uint64_t leaf, uint32_t frame)
{
    uint64_t both = leaf << 32 | frame;
    return (both * 0x9e3779b97f4a7c15ull >> 32 << 32 ^ ~0ull << 32) | frame;
}

/* The frame of a leaf from its directory word. 0: there is no leaf, or the word is damaged. */
static inline uint32_t fsw_leaf_frame(const struct fsw_image *image, uint64_t leaf, uint64_t word)
{
    uint32_t frame = (uint32_t)word;
    return word == fsw_leaf_word(leaf, frame) && frame < image->super->frames ? frame : 0;
}

struct fsw_table {
    struct fsw_image *image;
    struct fsw_frames *frames;
    pthread_mutex_t lock; /* making leaves */
};

void fsw_table_init(struct fsw_table *table, struct fsw_image *image, struct fsw_frames *frames);

/* The page's entry is on its way into the cache, ready to be written. */
void fsw_table_prefetch(const struct fsw_image *image, uint64_t page);

/* NULL where there is no leaf, or none that can be trusted: who would take that for an empty page
 * asks fsw_table_is_damaged. */
fsw_entry *fsw_table_find(const struct fsw_image *image, uint64_t page);
int fsw_table_is_damaged(const struct fsw_image *image, uint64_t page);

/* The entry, with a leaf made if there is none. NULL: no frame for the leaf, or it is damaged.
 * Takes a lock for long enough to zero a frame, once in 512 pages. */
fsw_entry *fsw_table_make(struct fsw_table *table, uint64_t page);

#endif
