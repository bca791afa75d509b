/*
 * prefetch.c: two measurements and what follows from them.
 */
#include "core/prefetch.h"

#include <stddef.h>

/* What "lately" is. 256 objects are some ten windows. */
#define LATELY 1024u
/* Until so many have come, nothing is known, and a little is tried. */
#define LEARN 128u
#define PROBE_EVERY 64u

void fsw_prefetch_came(struct fsw_prefetch *prefetch, unsigned objects)
{
    prefetch->came += objects;
    while (prefetch->came > LATELY) {
        prefetch->came /= 2;
        prefetch->hits /= 2;
    }
}

void fsw_prefetch_hit(struct fsw_prefetch *prefetch)
{
    prefetch->hits++;
}

/* Eighths of what came lately that were read. */
static unsigned share(const struct fsw_prefetch *prefetch)
{
    return prefetch->came == 0 ? 0 : prefetch->hits * 8 / prefetch->came;
}

/* For a get that goes on with nothing. */
static uint32_t fresh(struct fsw_prefetch *prefetch, uint32_t most)
{
    unsigned eighths = share(prefetch);

    if (prefetch->came < LEARN)
        return most / 4;
    if (eighths >= 4)
        return eighths >= 6 ? most : most / 2;
    if (eighths >= 1)
        return most / 4;
    return ++prefetch->gets % PROBE_EVERY == 0 ? most / 4 : 0;
}

uint32_t fsw_prefetch_bytes(struct fsw_prefetch *prefetch, uint32_t word,
                            const struct fsw_prefetch_run *run, uint32_t most)
{
    if (word == FSW_PREFETCH_OFF)
        return 0;
    if (word != FSW_PREFETCH_AUTO)
        return word;
    uint32_t bytes = fresh(prefetch, most), more = 0;
    if (run != NULL && run->taken * 2 >= run->objects)
        more = run->bytes * 2;
    else if (run != NULL && run->taken * 4 >= run->objects)
        more = run->bytes;
    return more > bytes ? more : bytes;
}
