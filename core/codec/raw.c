/*
 * raw.c: the page as it is, but for its zero tail. codec=raw, and every page that another codec
 * could not make smaller.
 */
#include "core/codec/codec.h"

#include <errno.h>
#include <string.h>

#include "farswap/params.h"

static size_t compress(void *state, int level, const void *page, size_t length, void *bytes,
                       size_t capacity)
{
    if (capacity < length)
        return 0;
    memcpy(bytes, page, length);
    return length;
}

static int decompress(const void *bytes, size_t length, void *page)
{
    int r = fsw_fill_tail(page, (long)length);

    if (r == 0)
        memcpy(page, bytes, length);
    return r;
}

const struct fsw_codec fsw_codec_raw = {
    .name = "raw",
    .compress = compress,
    .decompress = decompress,
};
