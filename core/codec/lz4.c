/*
 * lz4.c: the one file that knows lz4.h. The level is lz4's acceleration. The page's zero tail is
 * left out: what a block decompresses to ends where it begins.
 */
#include "core/codec/codec.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#include "farswap/params.h"

static void *state_new(int level)
{
    void *state = malloc(sizeof(LZ4_stream_t));
    if (state != NULL)
        memset(state, 0, sizeof(LZ4_stream_t)); /* touched now, not by the first page */
    return state;
}

static size_t compress(void *state, int level, const void *page, size_t length, void *bytes,
                       size_t capacity)
{
    int n = LZ4_compress_fast_extState(state, page, bytes, (int)length, (int)capacity, level);
    return n > 0 ? (size_t)n : 0;
}

static int decompress(const void *bytes, size_t length, void *page)
{
    return fsw_fill_tail(page, LZ4_decompress_safe(bytes, page, (int)length, FSW_PAGE_SIZE));
}

const struct fsw_codec fsw_codec_lz4 = {
    .name = "lz4",
    .level_min = 1,
    .level_max = 65537, /* LZ4_ACCELERATION_MAX */
    .level_default = 1,
    .state_new = state_new,
    .state_free = free,
    .compress = compress,
    .decompress = decompress,
};
