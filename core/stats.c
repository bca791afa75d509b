/*
 * stats.c: counters and gauges, kept in stripes in the image (include/farswap/stats.h has the
 * table).
 */
#include "farswap/stats.h"

#include <string.h>

#include "common/checksum.h"
#include "core/image.h"

const struct fsw_stat_info fsw_stat_table[FSW_STAT_COUNT] = {
#define X(NAME, name, kind, unit, meaning) {#name, unit, meaning, FSW_STAT_##kind},
    FSW_STATS(X)
#undef X
};

uint32_t fsw_stat_names_checksum(uint32_t count)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < count; i++)
        sum = fsw_checksum(fsw_stat_table[i].name, strlen(fsw_stat_table[i].name), sum);
    return sum;
}

_Thread_local unsigned fsw_stat_stripe_mine;

unsigned fsw_stat_stripe_choose(void)
{
    static _Atomic unsigned next;

    fsw_stat_stripe_mine =
        1 + atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % FSW_STAT_STRIPES;
    return fsw_stat_stripe_mine - 1;
}

uint64_t fsw_stat_get(const struct fsw_image *image, enum fsw_stat stat)
{
    uint64_t sum = 0;
    for (unsigned stripe = 0; stripe < FSW_STAT_STRIPES; stripe++)
        sum += atomic_load_explicit(&image->counters[stripe][stat], memory_order_relaxed);
    return sum;
}

void fsw_stat_restart(const struct fsw_image *image, enum fsw_stat stat, uint64_t n)
{
    for (unsigned stripe = 1; stripe < FSW_STAT_STRIPES; stripe++)
        atomic_store_explicit(&image->counters[stripe][stat], 0, memory_order_relaxed);
    fsw_stat_set(image, stat, n);
}

uint64_t fsw_image_dead_bytes(const struct fsw_image *image)
{
    uint64_t bytes = fsw_stat_get(image, FSW_STAT_STORE_BYTES);
    uint64_t live = fsw_stat_get(image, FSW_STAT_STORE_DATA_SIZE) +
                    fsw_stat_get(image, FSW_STAT_PAGES_STORE) * atomic_load(&image->super->seal);

    return live < bytes ? bytes - live : 0;
}

void fsw_image_stats(const struct fsw_image *image, uint64_t values[FSW_STAT_COUNT])
{
    for (unsigned stat = 0; stat < FSW_STAT_COUNT; stat++)
        values[stat] = fsw_stat_get(image, (enum fsw_stat)stat);
    values[FSW_STAT_PAGES_STORED] =
        values[FSW_STAT_PAGES_POOL] + values[FSW_STAT_PAGES_SAME] + values[FSW_STAT_PAGES_STORE];
    values[FSW_STAT_ORIG_DATA_SIZE] = values[FSW_STAT_PAGES_STORED] * FSW_PAGE_SIZE;
    values[FSW_STAT_STORE_DEAD_BYTES] = fsw_image_dead_bytes(image);
    values[FSW_STAT_MEM_LIMIT] =
        atomic_load_explicit(&image->super->memory_limit, memory_order_relaxed);
    /* What is kept under this name is the part outside the frames. */
    values[FSW_STAT_MEM_USED_TOTAL] +=
        (values[FSW_STAT_TABLE_LEAVES] + values[FSW_STAT_POOL_FRAMES]) * FSW_FRAME_SIZE;
    if (values[FSW_STAT_MEM_USED_MAX] < values[FSW_STAT_MEM_USED_TOTAL])
        values[FSW_STAT_MEM_USED_MAX] = values[FSW_STAT_MEM_USED_TOTAL];
}
