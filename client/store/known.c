/*
 * known.c: which segment each slot holds, as far as this process has seen it there.
 */
#include "client/store/known.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "farswap/store.h"

int known_init(struct known *known)
{
    memset(known, 0, sizeof *known);
    known->leaves = calloc(KNOWN_LEAVES, sizeof known->leaves[0]);
    if (known->leaves == NULL)
        return -ENOMEM;
    known_grow(known);
    return 0;
}

void known_deinit(struct known *known)
{
    for (uint32_t i = 0; known->leaves != NULL && i < known->made; i++)
        free((void *)atomic_load(&known->leaves[i]));
    free((void *)known->leaves);
    known->leaves = NULL;
}

static _Atomic uint64_t *word_of(const struct known *known, uint32_t row)
{
    uint32_t leaf = row / KNOWN_LEAF_ROWS;
    _Atomic uint64_t *words = leaf < KNOWN_LEAVES ? atomic_load(&known->leaves[leaf]) : NULL;

    return words == NULL ? NULL : &words[row % KNOWN_LEAF_ROWS];
}

/* An id that does not fit is never known. (At a million segments a second that takes 8 years.) */
#define LENGTH_BITS 16
#define ID_MOST ((1ull << (64 - LENGTH_BITS)) - 2)
_Static_assert(FSW_SEGMENT_BYTES < 1u << LENGTH_BITS, "a length fits");

uint32_t known_length(const struct known *known, uint32_t row, uint64_t id)
{
    const _Atomic uint64_t *word = word_of(known, row);
    uint64_t value = word == NULL ? 0 : atomic_load(word);

    return id <= ID_MOST && value >> LENGTH_BITS == id + 1 ? (uint16_t)value : 0;
}

void known_set(struct known *known, uint32_t row, uint64_t id, uint32_t length)
{
    _Atomic uint64_t *word = word_of(known, row);
    uint32_t reach = atomic_load(&known->reach);

    while (row > reach && !atomic_compare_exchange_weak(&known->reach, &reach, row))
        ;
    if (word != NULL && id <= ID_MOST)
        atomic_store(word, (id + 1) << LENGTH_BITS | length);
}

void known_clear(struct known *known, uint32_t row)
{
    _Atomic uint64_t *word = word_of(known, row);

    if (word != NULL)
        atomic_store(word, 0);
}

void known_clear_all(struct known *known)
{
    for (uint32_t leaf = 0; leaf < KNOWN_LEAVES; leaf++)
        if (atomic_load(&known->leaves[leaf]) != NULL)
            for (uint32_t i = 0; i < KNOWN_LEAF_ROWS; i++)
                known_clear(known, leaf * KNOWN_LEAF_ROWS + i);
}

void known_grow(struct known *known)
{
    uint64_t wanted = (uint64_t)atomic_load(&known->reach) / KNOWN_LEAF_ROWS + 2;

    for (; known->made < wanted && known->made < KNOWN_LEAVES; known->made++) {
        uint64_t *leaf = malloc(KNOWN_LEAF_ROWS * sizeof *leaf);
        if (leaf == NULL)
            return;
        memset(leaf, 0, KNOWN_LEAF_ROWS * sizeof *leaf); /* touched, too */
        atomic_store(&known->leaves[known->made], (_Atomic uint64_t *)leaf);
    }
}
