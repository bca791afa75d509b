/*
 * rows.h: the segment directory. Which segment a row is, and what still needs it.
 *
 *      FREE ─take─> PENDING ─live─> LIVE ──(live 0, pins 0)──> DROPPING ─free─> FREE
 *                      └────────────abandon─────────────────────────┘
 *
 * State, pins, and how much lives are one word (8, 24, 32 bits), so every step below is one
 * compare-and-swap and none can be missed by another:
 *
 *   R1  Entries that name a row are counted in `live`; the put's own hold, and every get in flight,
 *       in `pins`. A pin is only given while the row is LIVE.
 *   R2  A row is dropped only at live 0 and pins 0, by whoever took the last of either away.
 *   R3  A row is free, and its number used again, only after the store answered the drop.
 *   R4  A segment's id is taken by advancing the superblock's counter before the row says PENDING.
 */
#ifndef FSW_ROWS_H
#define FSW_ROWS_H

#include <pthread.h>

#include "core/image.h"
#include "core/pool/frames.h"

enum fsw_row_state { FSW_ROW_FREE, FSW_ROW_PENDING, FSW_ROW_LIVE, FSW_ROW_DROPPING };

/* What lives in a segment, or dies: objects and their units, without seals, in 16 bits each (a segment
 * has at most 2,047 and 4,095). Two such words may be added. */
static inline uint32_t fsw_live(uint32_t objects, uint32_t units)
{
    return units << 16 | objects;
}

static inline uint32_t fsw_live_objects(uint32_t live)
{
    return live & 0xffff;
}

static inline uint32_t fsw_live_units(uint32_t live)
{
    return live >> 16;
}

struct fsw_rows {
    struct fsw_image *image;
    struct fsw_frames *frames;
    pthread_mutex_t
        lock;       /* free list and growth; taken after no other lock but frames' inside it */
    uint32_t free;  /* linked through `next` */
    uint32_t ready; /* rows below have touched memory behind them */
};

/* For an image that is new, or else is rebuilt before anything is taken. */
void fsw_rows_init(struct fsw_rows *rows, struct fsw_image *image, struct fsw_frames *frames);

/* ---- for recovery (core/recover.c), before there is any other thread ---- */

/* 1 if id and number are what they were when the row was taken. */
int fsw_row_is_whole(const struct fsw_image *image, uint32_t row);

/* 1 if bytes up to `end` of that row's segment may be named by an entry. */
int fsw_row_may_hold(const struct fsw_image *image, uint32_t row, uint32_t end);

struct fsw_rows_found {
    uint64_t segments, bytes; /* that the store has, those to be dropped with them */
    uint64_t pending;         /* whose put was not answered */
};

/* Gives every row its state again: LIVE where entries name it, as `live` counted them; else its
 * segment, if it ever had one, is DROPPING, and `drop` is called for it; else free. Ids are never used again. */
void fsw_rows_rebuild(struct fsw_rows *rows, const uint32_t *live,
                      void (*drop)(void *opaque, uint32_t row), void *opaque,
                      struct fsw_rows_found *ret_found);

/* A row in state PENDING with a new id; 0 if there is none. */
uint32_t fsw_row_take(struct fsw_rows *rows, uint64_t *ret_id);

/* PENDING → LIVE, a segment of so many bytes, in which that lives, with one pin. */
void fsw_row_live(struct fsw_rows *rows, uint32_t row, uint32_t bytes, uint32_t live,
                  uint32_t copies);

/* 1 if the row is LIVE and now pinned. (No row has 16 million pins, unless its word is damaged.) */
int fsw_row_pin(struct fsw_rows *rows, uint32_t row);

/* These return 1 if the row is DROPPING now, and it is for the caller to have it dropped. Kill:
 * -EIO, and nothing done, if so many objects do not live there (a damaged entry named the row). */
int fsw_row_unpin(struct fsw_rows *rows, uint32_t row);
int fsw_row_kill(struct fsw_rows *rows, uint32_t row, uint32_t live);
int fsw_row_abandon(struct fsw_rows *rows, uint32_t row); /* PENDING → DROPPING */

/* The drop was answered, or (PENDING) nothing was ever stored. */
void fsw_row_free(struct fsw_rows *rows, uint32_t row);

uint64_t fsw_row_id(const struct fsw_image *image, uint32_t row);
enum fsw_row_state fsw_row_state(const struct fsw_image *image, uint32_t row);
uint32_t fsw_row_live_now(const struct fsw_image *image, uint32_t row);
uint32_t fsw_row_live_count(const struct fsw_image *image, uint32_t row);
uint32_t fsw_row_pins(const struct fsw_image *image, uint32_t row);

#endif
