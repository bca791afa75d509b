/*
 * codec.c: which codecs there are, and their names.
 */
#include "core/codec/codec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/parse.h"
#include "farswap/params.h"

static const struct fsw_codec *const codecs[FSW_CODEC_MAX] = {
    [FSW_CODEC_RAW] = &fsw_codec_raw,
    [FSW_CODEC_SAME] = &fsw_codec_same,
    [FSW_CODEC_LZ4] = &fsw_codec_lz4,
    [FSW_CODEC_ZSTD] = &fsw_codec_zstd,
};

const struct fsw_codec *fsw_codec_by_id(unsigned id)
{
    return id < FSW_CODEC_MAX ? codecs[id] : NULL;
}

#define CHUNK 256u

/* Chunks by memcmp, which has the CPU's widest vectors, then the last one by words. */
size_t fsw_without_tail(const void *page)
{
    static const char zeroes[CHUNK];
    const char *bytes = page;
    size_t length = FSW_PAGE_SIZE;
    uint64_t word = 0;

    while (length > CHUNK && memcmp(bytes + length - CHUNK, zeroes, CHUNK) == 0)
        length -= CHUNK;
    while (length > sizeof word) {
        memcpy(&word, bytes + length - sizeof word, sizeof word);
        if (word != 0)
            break;
        length -= sizeof word;
    }
    return length;
}

#define PLACES 16u
#define EARLY_PLACES 4u
#define EARLY_LEAST 26u /* of 32 bytes; noise: 30, deviation 1.3 */
#define LEAST 90u       /* of 128; noise: 101, deviation 3.9 */

int fsw_looks_random(const void *page, size_t length)
{
    const unsigned char *bytes = page;
    unsigned char seen[256] = {0};
    unsigned different = 0;
    size_t step = length / PLACES;

    if (step < 32)
        return 0;
    for (unsigned place = 0; place < PLACES; place++) {
        /* Not at one distance: that could be a field of records, all noise between what is not. */
        const unsigned char *at = bytes + place * step + place * 29 % (step - 7);
        for (unsigned i = 0; i < 8; i++) {
            different += 1u - seen[at[i]];
            seen[at[i]] = 1;
        }
        if (place == EARLY_PLACES - 1 && different < EARLY_LEAST)
            return 0;
    }
    return different >= LEAST;
}

int fsw_fill_tail(void *page, long length)
{
    if (length < 8 || length > (long)FSW_PAGE_SIZE || length % 8 != 0)
        return -EIO;
    memset((char *)page + length, 0, FSW_PAGE_SIZE - (size_t)length);
    return 0;
}

static int unknown(const char *text, struct fsw_error *err)
{
    return fsw_error(
        err, -EINVAL,
        "codec=%s is unknown: allowed are lz4, lz4:ACCELERATION (%d to %d), zstd, zstd:LEVEL "
        "(%d to %d) and raw",
        text, fsw_codec_lz4.level_min, fsw_codec_lz4.level_max, fsw_codec_zstd.level_min,
        fsw_codec_zstd.level_max);
}

int fsw_codec_parse(const char *text, uint8_t *ret_id, int *ret_level, struct fsw_error *err)
{
    size_t length = strcspn(text, ":");

    for (unsigned id = 0; id < FSW_CODEC_MAX; id++) {
        const struct fsw_codec *codec = codecs[id];
        if (codec == NULL || id == FSW_CODEC_SAME || strlen(codec->name) != length ||
            strncmp(codec->name, text, length) != 0)
            continue;
        int64_t level = codec->level_default;
        if (text[length] == ':' &&
            (codec->level_min == codec->level_max ||
             fsw_parse_i64(text + length + 1, codec->level_min, codec->level_max, &level) < 0))
            return unknown(text, err);
        *ret_id = (uint8_t)id;
        *ret_level = (int)level;
        return 0;
    }
    return unknown(text, err);
}
