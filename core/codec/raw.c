/*
 * raw.c: the page as it is. codec=raw, and every page that another codec could not make smaller.
 */
#include "core/codec/codec.h"

#include <errno.h>
#include <string.h>

#include "farswap/params.h"

static size_t compress(void *state, int level, const void *page, void *bytes, size_t capacity)
{
    if (capacity < FSW_PAGE_SIZE)
        return 0;
    memcpy(bytes, page, FSW_PAGE_SIZE);
    return FSW_PAGE_SIZE;
}

static int decompress(const void *bytes, size_t length, void *page)
{
    if (length != FSW_PAGE_SIZE)
        return -EIO;
    memcpy(page, bytes, FSW_PAGE_SIZE);
    return 0;
}

const struct fsw_codec fsw_codec_raw = {
    .name = "raw",
    .compress = compress,
    .decompress = decompress,
};
