/*
 * settings.c: words of the superblock, said as people say them. memory= is not among them: it stands
 * with what is in use of it.
 */
#include "client/cli/settings.h"

#include <stdio.h>

#include "common/parse.h"
#include "core/budget.h"
#include "core/codec/codec.h"
#include "core/prefetch.h"

static void codec(const struct fsw_superblock *super, char *text)
{
    uint32_t word = atomic_load(&super->codec);
    const struct fsw_codec *found = fsw_codec_by_id(word & 0xff);
    int level = fsw_codec_word_level(word);

    if (found == NULL)
        snprintf(text, SETTING_TEXT, "?");
    else if (found->level_min == found->level_max || level == found->level_default)
        snprintf(text, SETTING_TEXT, "%s", found->name);
    else
        snprintf(text, SETTING_TEXT, "%s:%d", found->name, level);
}

static void prefetch(const struct fsw_superblock *super, char *text)
{
    uint32_t word = atomic_load(&super->prefetch);

    if (word == FSW_PREFETCH_AUTO || word == FSW_PREFETCH_OFF)
        snprintf(text, SETTING_TEXT, "%s", word == FSW_PREFETCH_AUTO ? "auto" : "off");
    else
        snprintf(text, SETTING_TEXT, "%u", word);
}

static void fetch_timeout(const struct fsw_superblock *super, char *text)
{
    snprintf(text, SETTING_TEXT, "%u", atomic_load(&super->fetch_timeout) / 1000);
}

static void watermarks(const struct fsw_superblock *super, char *text)
{
    uint32_t word = atomic_load(&super->watermarks);

    if (word == 0)
        snprintf(text, SETTING_TEXT, "auto");
    else
        snprintf(text, SETTING_TEXT, "%u:%u", word >> 8 & 0xff, word & 0xff);
}

static void write_wait(const struct fsw_superblock *super, char *text)
{
    snprintf(text, SETTING_TEXT, "%llu",
             (unsigned long long)(fsw_write_wait_ns(super) / FSW_NS_PER_S));
}

static void read_age(const struct fsw_superblock *super, char *text)
{
    static const char *const words[] = {"young", "half", "keep"};
    uint32_t word = atomic_load(&super->read_age);

    snprintf(text, SETTING_TEXT, "%s", word <= FSW_READ_AGE_KEEP ? words[word] : "?");
}

static void huge(const struct fsw_superblock *super, char *text)
{
    static const char *const words[] = {"age", "first", "store"};
    uint32_t word = atomic_load(&super->huge);

    snprintf(text, SETTING_TEXT, "%s", word <= FSW_HUGE_STORE ? words[word] : "?");
}

static void overflow_limit(const struct fsw_superblock *super, char *text)
{
    /* A limit that is not one a day is no value of this parameter's. */
    if (!fsw_budget_is_on(super) || fsw_budget_until_refill(super) == UINT64_MAX)
        snprintf(text, SETTING_TEXT, "off");
    else
        snprintf(text, SETTING_TEXT, "%llu",
                 (unsigned long long)atomic_load(&super->overflow_limit));
}

const struct setting settings[] = {{"codec", codec},
                                   {"watermarks", watermarks},
                                   {"prefetch", prefetch},
                                   {"fetch_timeout", fetch_timeout},
                                   {"write_wait", write_wait},
                                   {"read_age", read_age},
                                   {"huge", huge},
                                   {"overflow_limit", overflow_limit}};
const unsigned settings_count = sizeof settings / sizeof settings[0];
