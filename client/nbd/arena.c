/*
 * arena.c: the buddy allocator. A block's address and order follow from each other's bits; nothing
 * is written into free memory, so that taking one touches only what its owner writes.
 */
#include "client/nbd/arena.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static unsigned order_of(size_t length)
{
    unsigned order = 0;

    while (((size_t)FSW_ARENA_BLOCK << order) < length)
        order++;
    return order;
}

static void set_free(struct fsw_arena *arena, unsigned order, size_t number)
{
    arena->free[order][number / 64] |= 1ull << number % 64;
}

static void clear_free(struct fsw_arena *arena, unsigned order, size_t number)
{
    arena->free[order][number / 64] &= ~(1ull << number % 64);
}

static int is_free(const struct fsw_arena *arena, unsigned order, size_t number)
{
    return arena->free[order][number / 64] >> number % 64 & 1;
}

static size_t words_of(unsigned order)
{
    size_t blocks = FSW_ARENA_BLOCKS >> order;
    return (blocks + 63) / 64;
}

static void all_free(struct fsw_arena *arena)
{
    unsigned top = FSW_ARENA_ORDERS - 1;

    memset(arena->free, 0, sizeof arena->free);
    for (size_t i = 0; i < FSW_ARENA_BLOCKS >> top; i++)
        set_free(arena, top, i);
    arena->used = 0;
}

int fsw_arena_init(struct fsw_arena *arena)
{
    void *base = mmap(NULL, FSW_ARENA_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return -ENOMEM;
    arena->base = base;
    all_free(arena);
    return 0;
}

void fsw_arena_deinit(struct fsw_arena *arena)
{
    munmap(arena->base, FSW_ARENA_BYTES);
    arena->base = NULL;
}

/* Mapped anew, since MADV_DONTNEED is refused on locked memory. */
void fsw_arena_reset(struct fsw_arena *arena)
{
    mmap(arena->base, FSW_ARENA_BYTES, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    all_free(arena);
}

/* The lowest free block of an order, split from a larger one if need be. -1: none. */
static long find(struct fsw_arena *arena, unsigned order)
{
    for (size_t i = 0; i < words_of(order); i++)
        if (arena->free[order][i] != 0) {
            size_t number = i * 64 + (size_t)__builtin_ctzll(arena->free[order][i]);
            clear_free(arena, order, number);
            return (long)number;
        }
    if (order + 1 == FSW_ARENA_ORDERS)
        return -1;
    long larger = find(arena, order + 1);
    if (larger < 0)
        return -1;
    set_free(arena, order, (size_t)larger * 2 + 1);
    return larger * 2;
}

void *fsw_arena_take(struct fsw_arena *arena, size_t length)
{
    unsigned order = order_of(length);
    long number = order < FSW_ARENA_ORDERS ? find(arena, order) : -1;

    if (number < 0)
        return NULL;
    arena->used += (size_t)FSW_ARENA_BLOCK << order;
    return arena->base + ((size_t)number << order) * FSW_ARENA_BLOCK;
}

void fsw_arena_give(struct fsw_arena *arena, void *block, size_t length)
{
    unsigned order = order_of(length);
    size_t number = (size_t)((char *)block - arena->base) / FSW_ARENA_BLOCK >> order;

    arena->used -= (size_t)FSW_ARENA_BLOCK << order;
    while (order + 1 < FSW_ARENA_ORDERS && is_free(arena, order, number ^ 1)) {
        clear_free(arena, order, number ^ 1);
        number /= 2;
        order++;
    }
    set_free(arena, order, number);
}

int fsw_arena_check(const struct fsw_arena *arena)
{
    static const unsigned top = FSW_ARENA_ORDERS - 1;
    size_t free_bytes = 0;

    for (unsigned order = 0; order <= top; order++)
        for (size_t i = 0; i < FSW_ARENA_BLOCKS >> order; i++) {
            if (!is_free(arena, order, i))
                continue;
            free_bytes += (size_t)FSW_ARENA_BLOCK << order;
            if (order < top && is_free(arena, order, i ^ 1))
                return -EUCLEAN;
            for (unsigned above = order + 1; above <= top; above++)
                if (is_free(arena, above, i >> (above - order)))
                    return -EUCLEAN;
        }
    return free_bytes + arena->used == FSW_ARENA_BYTES ? 0 : -EUCLEAN;
}
