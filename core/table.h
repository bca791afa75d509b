/*
 * table.h: the page table. A directory of leaves, a leaf of 512 entries a frame.
 *
 *      directory[page / 512] ──> frame ──> entry[page % 512]
 *
 *   T1  A directory word goes from 0 to a frame once, after the frame was zeroed, and stays:
 * whoever has found an entry may keep its address as long as the image is mapped. T2  No leaf means
 * 512 empty pages; looking never makes one.
 */
#ifndef FSW_TABLE_H
#define FSW_TABLE_H

#include <pthread.h>

#include "core/entry.h"
#include "core/image.h"
#include "core/pool/frames.h"

struct fsw_table {
    struct fsw_image *image;
    struct fsw_frames *frames;
    pthread_mutex_t lock; /* making leaves */
};

void fsw_table_init(struct fsw_table *table, struct fsw_image *image, struct fsw_frames *frames);

/* NULL where there is no leaf. */
fsw_entry *fsw_table_find(const struct fsw_image *image, uint64_t page);

/* The entry, with a leaf made if there is none. NULL: no frame for the leaf. Takes a lock for long
 * enough to zero a frame, once in 512 pages. */
fsw_entry *fsw_table_make(struct fsw_table *table, uint64_t page);

#endif
