/*
 * same.c: pages that are one 64-bit word over and over (zram and zswap call them same-filled).
 *
 * Zero takes no entry, a word that repeats 32 bits fits into the entry; any other word becomes an
 * object of eight bytes, which this codec reads and writes.
 */
#include "core/codec/codec.h"

#include <errno.h>
#include <string.h>

#include "farswap/params.h"

#define WORDS (FSW_PAGE_SIZE / sizeof(uint64_t))

int fsw_same_filled(const void *page, uint64_t *ret_word)
{
    uint64_t first, last;

    /* Most pages differ at once in their first and last word (zram looks there first, too). */
    memcpy(&first, page, sizeof first);
    memcpy(&last, (const char *)page + FSW_PAGE_SIZE - sizeof last, sizeof last);
    if (first != last ||
        memcmp(page, (const char *)page + sizeof first, FSW_PAGE_SIZE - sizeof first) != 0)
        return 0;
    *ret_word = first;
    return 1;
}

void fsw_same_fill(void *page, uint64_t word)
{
    if (word == 0) {
        memset(page, 0, FSW_PAGE_SIZE);
        return;
    }
    for (size_t i = 0; i < WORDS; i++)
        memcpy((char *)page + i * sizeof word, &word, sizeof word);
}

static size_t compress(void *state, int level, const void *page, size_t length, void *bytes,
                       size_t capacity)
{
    uint64_t word;

    if (capacity < sizeof word || !fsw_same_filled(page, &word))
        return 0;
    memcpy(bytes, &word, sizeof word);
    return sizeof word;
}

static int decompress(const void *bytes, size_t length, void *page)
{
    uint64_t word;

    if (length != sizeof word)
        return -EIO;
    memcpy(&word, bytes, sizeof word);
    fsw_same_fill(page, word);
    return 0;
}

const struct fsw_codec fsw_codec_same = {
    .name = "same",
    .compress = compress,
    .decompress = decompress,
};
