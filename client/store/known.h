/*
 * known.h: which segment each slot holds, as far as this process has seen it there.
 *
 *     leaves[row / 4096] ──▶ 4096 words: (segment id + 1, length), 0: not looked at yet
 *
 * A slot begins with its segment's id, and a get must compare it; what was compared once, or put by
 * us, is known, and saves the next get that read. Leaves (32 KiB for each 256 MiB of slots) are made
 * ahead of need, off the data path; a row without a leaf is never known.
 *
 * Any thread, no locks; known_grow() by one thread only.
 */
#ifndef FSW_STORE_KNOWN_H
#define FSW_STORE_KNOWN_H

#include <stdatomic.h>
#include <stdint.h>

#define KNOWN_LEAF_ROWS 4096u
#define KNOWN_LEAVES 65536u /* 16 TiB of slots; rows beyond are never known */

struct known {
    _Atomic(_Atomic uint64_t *) *leaves;
    _Atomic uint32_t reach; /* the highest row ever set or tried to */
    uint32_t made;
};

/* 0 or -ENOMEM, and nothing to free. */
int known_init(struct known *known);
void known_deinit(struct known *known);

/* The length of that segment, if the row is known to hold it; else 0. */
uint32_t known_length(const struct known *known, uint32_t row, uint64_t id);
void known_set(struct known *known, uint32_t row, uint64_t id, uint32_t length);
void known_clear(struct known *known, uint32_t row);
void known_clear_all(struct known *known);

/* Makes leaves for the rows reached, and the next. May allocate; without memory it tries again next
 * time. */
void known_grow(struct known *known);

#endif
