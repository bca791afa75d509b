/*
 * arena.h: where a connection keeps the bytes of its requests, without malloc.
 *
 * A buddy allocator over one reserved range of memory: blocks of 4 KiB to 32 MiB, a power of two
 * each, always the lowest that is free, so that what was touched is used again. One thread.
 *
 *   A1  A block of order k begins at a multiple of its size, and is free, used, or split in two of
 *       order k-1.
 *   A2  A bit in free[k] is set for each free block of order k, and for nothing else; two buddies
 *       are never both free.
 */
#ifndef FSW_NBD_ARENA_H
#define FSW_NBD_ARENA_H

#include <stddef.h>
#include <stdint.h>

#define FSW_ARENA_BLOCK 4096u /* the smallest */
#define FSW_ARENA_ORDERS 14u  /* the largest is 32 MiB */
#define FSW_ARENA_BYTES (64u << 20)
#define FSW_ARENA_BLOCKS (FSW_ARENA_BYTES / FSW_ARENA_BLOCK)

struct fsw_arena {
    char *base;
    size_t used;                                            /* bytes in blocks */
    uint64_t free[FSW_ARENA_ORDERS][FSW_ARENA_BLOCKS / 64]; /* A2; order k uses a 2^k-th of it */
};

/* Reserves the memory; none of it is touched. -ENOMEM. */
int fsw_arena_init(struct fsw_arena *arena);
void fsw_arena_deinit(struct fsw_arena *arena);

/* Gives the memory back. No block may be in use. */
void fsw_arena_reset(struct fsw_arena *arena);

/* NULL: no block is free that is large enough. length 1 to 32 MiB. */
void *fsw_arena_take(struct fsw_arena *arena, size_t length);
void fsw_arena_give(struct fsw_arena *arena, void *block, size_t length);

/* Proves A1 and A2 of what is free: 0, or -EUCLEAN. */
int fsw_arena_check(const struct fsw_arena *arena);

#endif
