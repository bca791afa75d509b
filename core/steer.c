/*
 * steer.c: words in the image that ask the keeper for something (core/keeper.c answers them).
 */
#include "core/steer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/parse.h"
#include "core/budget.h"
#include "core/codec/codec.h"
#include "core/engine.h"

static void pause_a_little(void)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    nanosleep(&pause, NULL);
}

/* What is in use can only shrink by leaving for a store. */
static int check_memory(const struct fsw_image *image, struct fsw_params *params,
                        struct fsw_error *err)
{
    uint64_t stats[FSW_STAT_COUNT];
    char used[FSW_SIZE_TEXT], wanted[FSW_SIZE_TEXT];

    fsw_image_stats(image, stats);
    if (params->memory < stats[FSW_STAT_MEM_USED_TOTAL] && image->super->overflow[0] == '\0')
        return fsw_error(
            err, -ENOSPC,
            "memory=%s is less than the %s that are in use, and %s has no store to overflow to",
            fsw_format_size(params->memory, wanted),
            fsw_format_size(stats[FSW_STAT_MEM_USED_TOTAL], used), image->super->name);
    /* What the image has already is not asked of the host again. */
    uint64_t has = stats[FSW_STAT_MEM_LIMIT];
    uint64_t memory = params->memory;
    int r = fsw_params_check_least(params, err);
    if (memory <= has)
        return r;
    params->memory = memory - has;
    if (r == 0)
        r = fsw_params_check_available(params, err);
    params->memory = memory;
    return r;
}

/* 1 or 2: which store, in the order of overflow=. */
static int ask_lost(const struct fsw_image *image, const char *value, struct fsw_error *err)
{
    const char *overflow = image->super->overflow;
    uint64_t stores = overflow[0] == '\0' ? 0 : strchr(overflow, ' ') == NULL ? 1 : 2, which;

    if (stores == 0)
        return fsw_error(err, -EINVAL, "overflow-lost=%s: %s has no store", value,
                         image->super->name);
    if (fsw_parse_u64(value, 1, stores, &which) < 0)
        return fsw_error(err, -EINVAL, "overflow-lost=%s: %s has %llu store%s, %s: which?", value,
                         image->super->name, (unsigned long long)stores, stores > 1 ? "s" : "",
                         overflow);
    atomic_fetch_or(&image->super->lost_asked, 1u << (which - 1));
    return 0;
}

int fsw_image_await_lost(const struct fsw_image *image, uint64_t wait_ns)
{
    uint64_t deadline = fsw_now_ns() + wait_ns;

    while (atomic_load(&image->super->lost_asked) != 0) {
        if (fsw_now_ns() > deadline)
            return -ETIMEDOUT;
        pause_a_little();
    }
    return atomic_load(&image->super->lost_refused) != 0 ? -EEXIST : 0;
}

static int can_change(const char *key)
{
    static const char *const keys[] = {"memory",        "codec",      "prefetch",
                                       "fetch_timeout", "watermarks", "write_wait",
                                       "read_age",      "huge",       "overflow_limit"};

    for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i]) == 0)
            return 1;
    return 0;
}

static void change(struct fsw_superblock *super, const char *key, const struct fsw_params *params)
{
    if (strcmp(key, "memory") == 0)
        atomic_store(&super->memory_limit, params->memory);
    else if (strcmp(key, "codec") == 0)
        atomic_store(&super->codec, fsw_codec_word(params->codec, params->codec_level));
    else if (strcmp(key, "prefetch") == 0)
        atomic_store(&super->prefetch, params->prefetch);
    else if (strcmp(key, "fetch_timeout") == 0)
        atomic_store(&super->fetch_timeout, params->fetch_timeout);
    else if (strcmp(key, "watermarks") == 0)
        atomic_store(&super->watermarks, params->watermarks);
    else if (strcmp(key, "write_wait") == 0)
        atomic_store(&super->write_wait, params->write_wait);
    else if (strcmp(key, "read_age") == 0)
        atomic_store(&super->read_age, params->read_age);
    else if (strcmp(key, "huge") == 0)
        atomic_store(&super->huge, params->huge);
    else
        fsw_budget_set_day(super, params->overflow_limit);
}

int fsw_image_set(const struct fsw_image *image, const char *key, const char *value,
                  struct fsw_error *err)
{
    int memory = strcmp(key, "memory") == 0;
    struct fsw_params params;

    if (strcmp(key, "overflow-lost") == 0)
        return ask_lost(image, value, err);
    if (!can_change(key))
        return fsw_error(
            err, -EINVAL,
            "%s= can't be changed while the device lives: memory=, codec=, prefetch=, "
            "fetch_timeout=, watermarks=, write_wait=, read_age=, huge= and overflow_limit= can",
            key);
    fsw_params_init(&params);
    params.size = image->super->size;
    memcpy(params.name, image->super->name, sizeof params.name);
    int r = fsw_params_set(&params, key, value, err);
    if (r == 0 && memory)
        r = check_memory(image, &params, err);
    if (r < 0)
        return r;
    change(image->super, key, &params);
    return 0;
}

uint64_t fsw_image_ask_compact(const struct fsw_image *image)
{
    return atomic_fetch_add(&image->super->compact_asked, 1) + 1;
}

int fsw_image_await_compact(const struct fsw_image *image, uint64_t asked, uint64_t wait_ns)
{
    uint64_t deadline = fsw_now_ns() + wait_ns;

    while (atomic_load(&image->super->compact_answered) < asked) {
        if (fsw_now_ns() > deadline)
            return -ETIMEDOUT;
        pause_a_little();
    }
    return 0;
}

/* All that one of them asks for: huge pages only if both want no others. */
static uint32_t wider(uint32_t a, uint32_t b)
{
    uint32_t huge = a & b & FSW_OVERFLOW_HUGE;

    a &= ~FSW_OVERFLOW_HUGE;
    b &= ~FSW_OVERFLOW_HUGE;
    if ((a == FSW_OVERFLOW_MARKED) != (b == FSW_OVERFLOW_MARKED))
        return huge; /* which of them is older nobody knows */
    return (a < b ? a : b) | huge;
}

uint64_t fsw_image_ask_overflow(const struct fsw_image *image, uint32_t seconds)
{
    struct fsw_superblock *super = image->super;
    uint64_t seen = atomic_load(&super->idle_asked), number, wanted;

    if (super->overflow[0] == '\0')
        return 0;
    do {
        int waiting = seen >> 32 > atomic_load(&super->idle_answered);
        number = (seen >> 32) + 1;
        wanted = waiting ? wider((uint32_t)seen, seconds) : seconds;
    } while (!atomic_compare_exchange_weak(&super->idle_asked, &seen, number << 32 | wanted));
    return number;
}

int fsw_image_await_overflow(const struct fsw_image *image, uint64_t asked, uint64_t wait_ns,
                             struct fsw_overflowed *ret)
{
    const struct fsw_superblock *super = image->super;
    uint64_t deadline = fsw_now_ns() + wait_ns;

    while (atomic_load(&super->idle_answered) < asked) {
        if (fsw_now_ns() > deadline)
            return -ETIMEDOUT;
        pause_a_little();
    }
    ret->pages = atomic_load(&super->idle_pages);
    ret->bytes = atomic_load(&super->idle_bytes);
    return (int)atomic_load(&super->idle_result);
}

/* ---- on a device ---- */

int fsw_device_set(struct fsw_device *device, const char *key, const char *value,
                   struct fsw_error *err)
{
    return fsw_image_set(&device->image, key, value, err);
}

int fsw_device_compact(struct fsw_device *device, uint64_t wait_ns)
{
    return fsw_image_await_compact(&device->image, fsw_image_ask_compact(&device->image), wait_ns);
}

int fsw_device_overflow_idle(struct fsw_device *device, uint32_t seconds, uint64_t wait_ns,
                             struct fsw_overflowed *ret)
{
    uint64_t asked = fsw_image_ask_overflow(&device->image, seconds);

    *ret = (struct fsw_overflowed){0};
    return asked == 0 ? -ENOTSUP : fsw_image_await_overflow(&device->image, asked, wait_ns, ret);
}

void fsw_device_forget_mem_used_max(struct fsw_device *device)
{
    fsw_stat_set(&device->image, FSW_STAT_MEM_USED_MAX, 0);
}

const char *fsw_device_overflow(const struct fsw_device *device)
{
    return device->image.super->overflow;
}

/* Of the limit, when so many frames are still free. */
static unsigned percent_in_use(uint32_t limit, uint32_t free)
{
    return limit > free ? (unsigned)((uint64_t)(limit - free) * 100 / limit) : 0;
}

void fsw_device_watermarks(const struct fsw_device *device, unsigned *ret_start, unsigned *ret_stop)
{
    uint32_t word = atomic_load(&device->image.super->watermarks);
    uint32_t limit = atomic_load(&device->pool.frames.limit);

    *ret_start = word >> 8 & 0xff;
    *ret_stop = word & 0xff;
    if (word != 0)
        return;
    *ret_start = percent_in_use(limit, atomic_load(&device->reclaim.low));
    *ret_stop = percent_in_use(limit, atomic_load(&device->reclaim.high));
}

static size_t add_codec(char *at, size_t room, unsigned id, uint32_t word)
{
    const struct fsw_codec *codec = fsw_codec_by_id(id);
    int level = fsw_codec_word_level(word), n;

    if (codec == NULL || id == FSW_CODEC_SAME)
        return 0;
    if (id != (word & 0xff))
        n = snprintf(at, room, "%s ", codec->name);
    else if (codec->level_min == codec->level_max || level == codec->level_default)
        n = snprintf(at, room, "[%s] ", codec->name);
    else
        n = snprintf(at, room, "[%s:%d] ", codec->name, level);
    return (size_t)n < room ? (size_t)n : room - 1;
}

char *fsw_device_codecs(const struct fsw_device *device, char *text, size_t room)
{
    uint32_t word = atomic_load(&device->image.super->codec);
    size_t used = 0;

    for (unsigned id = 0; id < FSW_CODEC_MAX; id++)
        used += add_codec(text + used, room - used, id, word);
    text[used > 0 ? used - 1 : 0] = '\0';
    return text;
}
