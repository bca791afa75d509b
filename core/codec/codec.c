/*
 * codec.c: which codecs there are, and their names.
 */
#include "core/codec/codec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/parse.h"

static const struct fsw_codec *const codecs[FSW_CODEC_MAX] = {
    [FSW_CODEC_RAW] = &fsw_codec_raw,
    [FSW_CODEC_SAME] = &fsw_codec_same,
    [FSW_CODEC_LZ4] = &fsw_codec_lz4,
};

const struct fsw_codec *fsw_codec_by_id(unsigned id)
{
    return id < FSW_CODEC_MAX ? codecs[id] : NULL;
}

static int unknown(const char *text, struct fsw_error *err)
{
    return fsw_error(err, -EINVAL,
                     "codec=%s is unknown: allowed are lz4, lz4:ACCELERATION (%d to %d) and raw",
                     text, fsw_codec_lz4.level_min, fsw_codec_lz4.level_max);
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
