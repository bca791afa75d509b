/*
 * knobs.c: the table of knobs, and what each shows and does.
 *
 * What zram has and this device can't do is there and refuses with an error that says so:
 * a script that finds a file goes on to use it, and must not believe that it worked.
 */
#include "client/fuse/knobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/parse.h"
#include "farswap/steer.h"

#define COMPACT_WAIT_NS (60 * FSW_NS_PER_S)
#define OVERFLOW_WAIT_NS                                                                           \
    (3600 * FSW_NS_PER_S) /* of 100 GB over a network; a store that does not answer ends it */

typedef unsigned long long ull;

/* ---- statistics ---- */

static int show_mm_stat(struct fsw_device *device, char *text, size_t room)
{
    uint64_t v[FSW_STAT_COUNT];

    fsw_device_stats(device, v);
    return snprintf(text, room, "%8llu %8llu %8llu %8llu %8llu %8llu %8llu %8llu %8llu\n",
                    (ull)v[FSW_STAT_ORIG_DATA_SIZE], (ull)v[FSW_STAT_COMPR_DATA_SIZE],
                    (ull)v[FSW_STAT_MEM_USED_TOTAL], (ull)v[FSW_STAT_MEM_LIMIT],
                    (ull)v[FSW_STAT_MEM_USED_MAX], (ull)v[FSW_STAT_PAGES_SAME],
                    (ull)v[FSW_STAT_PAGES_COMPACTED], (ull)v[FSW_STAT_HUGE_PAGES],
                    (ull)v[FSW_STAT_HUGE_PAGES_SINCE]);
}

static int show_io_stat(struct fsw_device *device, char *text, size_t room)
{
    uint64_t v[FSW_STAT_COUNT];

    fsw_device_stats(device, v);
    return snprintf(text, room, "%8llu %8llu %8llu %8llu\n", (ull)v[FSW_STAT_FAILED_READS],
                    (ull)v[FSW_STAT_FAILED_WRITES], (ull)v[FSW_STAT_INVALID_IO],
                    (ull)v[FSW_STAT_DISCARD_BYTES] / FSW_PAGE_SIZE);
}

static int show_bd_stat(struct fsw_device *device, char *text, size_t room)
{
    uint64_t v[FSW_STAT_COUNT];

    fsw_device_stats(device, v);
    return snprintf(text, room, "%8llu %8llu %8llu\n", (ull)v[FSW_STAT_PAGES_STORE],
                    (ull)v[FSW_STAT_FETCH_PAGES], (ull)v[FSW_STAT_OVERFLOW_PAGES]);
}

static int show_stats(struct fsw_device *device, char *text, size_t room)
{
    uint64_t v[FSW_STAT_COUNT];
    size_t used = 0;

    fsw_device_stats(device, v);
    for (unsigned i = 0; i < FSW_STAT_COUNT && used < room; i++)
        used += (size_t)snprintf(text + used, room - used, "%s %llu\n", fsw_stat_table[i].name,
                                 (ull)v[i]);
    return used < room ? (int)used : -EFBIG;
}

/* ---- what the device is ---- */

static int show_number(char *text, size_t room, uint64_t number)
{
    return snprintf(text, room, "%llu\n", (ull)number);
}

static int show_disksize(struct fsw_device *device, char *text, size_t room)
{
    return show_number(text, room, fsw_device_size(device));
}

static int show_initstate(struct fsw_device *device, char *text, size_t room)
{
    return show_number(text, room, 1);
}

static int show_streams(struct fsw_device *device, char *text, size_t room)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    return show_number(text, room, cpus > 0 ? (uint64_t)cpus : 1);
}

static int show_backing_dev(struct fsw_device *device, char *text, size_t room)
{
    const char *uri = fsw_device_overflow(device);
    return snprintf(text, room, "%s\n", uri[0] != '\0' ? uri : "none");
}

/* As zram: set once, before the device is used. */
static int store_fixed(struct fsw_device *device, const char *text)
{
    return -EBUSY;
}

/* ---- what can be set ---- */

static int show_comp_algorithm(struct fsw_device *device, char *text, size_t room)
{
    char codecs[128];
    return snprintf(text, room, "%s \n", fsw_device_codecs(device, codecs, sizeof codecs));
}

static int store_comp_algorithm(struct fsw_device *device, const char *text)
{
    return fsw_device_set(device, "codec", text, NULL);
}

static int show_mem_limit(struct fsw_device *device, char *text, size_t room)
{
    uint64_t v[FSW_STAT_COUNT];

    fsw_device_stats(device, v);
    return show_number(text, room, v[FSW_STAT_MEM_LIMIT]);
}

/* 0, zram's "no limit", is refused as less than is in use: this device always has one. */
static int store_mem_limit(struct fsw_device *device, const char *text)
{
    return fsw_device_set(device, "memory", text, NULL);
}

/* ---- as zswap's parameters ---- */

static int show_compressor(struct fsw_device *device, char *text, size_t room)
{
    char codecs[128], *name = strchr(fsw_device_codecs(device, codecs, sizeof codecs), '[');

    return name == NULL ? -EIO
                        : snprintf(text, room, "%.*s\n", (int)strcspn(name + 1, "]"), name + 1);
}

/* memory= in percent of all RAM, rounded as it was when it was set so. */
static int show_max_pool_percent(struct fsw_device *device, char *text, size_t room)
{
    uint64_t v[FSW_STAT_COUNT], all = (uint64_t)sysconf(_SC_PHYS_PAGES) * FSW_PAGE_SIZE;

    fsw_device_stats(device, v);
    return show_number(text, room, (v[FSW_STAT_MEM_LIMIT] * 100 + all - 1) / all);
}

static int store_max_pool_percent(struct fsw_device *device, const char *text)
{
    char percent[16];
    uint64_t number;

    if (fsw_parse_u64(text, 1, 100, &number) < 0)
        return -EINVAL;
    snprintf(percent, sizeof percent, "%llu%%", (ull)number);
    return fsw_device_set(device, "memory", percent, NULL);
}

static int show_accept_threshold(struct fsw_device *device, char *text, size_t room)
{
    unsigned start, stop;

    fsw_device_watermarks(device, &start, &stop);
    return show_number(text, room, stop);
}

/* Overflow goes on starting where it does, unless that is no higher. */
static int store_accept_threshold(struct fsw_device *device, const char *text)
{
    unsigned start, stop;
    char watermarks[32];
    uint64_t number;

    if (fsw_parse_u64(text, 1, 98, &number) < 0)
        return -EINVAL;
    fsw_device_watermarks(device, &start, &stop);
    snprintf(watermarks, sizeof watermarks, "%u:%u", start > number ? start : (unsigned)number + 1,
             (unsigned)number);
    return fsw_device_set(device, "watermarks", watermarks, NULL);
}

/* ---- what is done ---- */

static int store_mem_used_max(struct fsw_device *device, const char *text)
{
    uint64_t zero;

    if (fsw_parse_u64(text, 0, 0, &zero) < 0)
        return -EINVAL;
    fsw_device_forget_mem_used_max(device);
    return 0;
}

/* As zram, whatever is written. */
static int store_compact(struct fsw_device *device, const char *text)
{
    return fsw_device_compact(device, COMPACT_WAIT_NS);
}

static int store_streams(struct fsw_device *device, const char *text)
{
    uint64_t any;
    return fsw_parse_u64(text, 1, UINT32_MAX, &any) < 0 ? -EINVAL : 0; /* zram ignores it, too */
}

/* ---- pages out on demand ---- */

/* What `idle` was told last: CLOCK_MONOTONIC ns since which pages must have been unused (perhaps
 * before the host's start), or that all are marked. */
#define ALL_MARKED INT64_MAX
static _Atomic int64_t idle_since = ALL_MARKED;

/* "all": every page, until it is used; a number: those that were not used for so many seconds. */
static int store_idle(struct fsw_device *device, const char *text)
{
    uint64_t seconds;

    if (strcmp(text, "all") == 0) {
        fsw_device_mark(device);
        atomic_store(&idle_since, ALL_MARKED);
        return 0;
    }
    if (fsw_parse_u64(text, 0, FSW_OVERFLOW_MARKED - 1, &seconds) < 0)
        return -EINVAL;
    atomic_store(&idle_since, (int64_t)fsw_now_ns() - (int64_t)(seconds * FSW_NS_PER_S));
    return 0;
}

static uint32_t idle_seconds(void)
{
    int64_t since = atomic_load(&idle_since);

    if (since == ALL_MARKED)
        return FSW_OVERFLOW_MARKED;
    uint64_t seconds = (uint64_t)((int64_t)fsw_now_ns() - since) / FSW_NS_PER_S;
    return seconds < FSW_OVERFLOW_MARKED ? (uint32_t)seconds : FSW_OVERFLOW_MARKED - 1;
}

static int store_writeback(struct fsw_device *device, const char *text)
{
    const char *word = strncmp(text, "type=", 5) == 0 ? text + 5 : text;
    struct fsw_overflowed went;
    uint32_t request;

    if (fsw_device_overflow(device)[0] == '\0')
        return -ENODEV;
    if (strcmp(word, "huge") == 0 || strcmp(word, "incompressible") == 0)
        request = FSW_OVERFLOW_HUGE;
    else if (strcmp(word, "idle") == 0)
        request = idle_seconds();
    else if (strcmp(word, "huge_idle") == 0)
        request = idle_seconds() | FSW_OVERFLOW_HUGE;
    else
        return -EINVAL;
    return fsw_device_overflow_idle(device, request, OVERFLOW_WAIT_NS, &went);
}

/* ---- how much may leave ---- */

/* What is left, in 4 KiB of what leaves, as zram has it; but that is compressed here. */
static int show_writeback_limit(struct fsw_device *device, char *text, size_t room)
{
    return show_number(text, room, fsw_device_overflow_budget(device) / FSW_PAGE_SIZE);
}

static int store_writeback_limit(struct fsw_device *device, const char *text)
{
    uint64_t pages;

    if (fsw_parse_u64(text, 0, UINT64_MAX / FSW_PAGE_SIZE, &pages) < 0)
        return -EINVAL;
    fsw_device_set_overflow_budget(device, pages * FSW_PAGE_SIZE);
    return 0;
}

static int show_writeback_limit_enable(struct fsw_device *device, char *text, size_t room)
{
    return show_number(text, room, (uint64_t)fsw_device_overflow_is_limited(device));
}

static int store_writeback_limit_enable(struct fsw_device *device, const char *text)
{
    uint64_t on;

    if (fsw_parse_u64(text, 0, 1, &on) < 0)
        return -EINVAL;
    fsw_device_limit_overflow(device, (int)on);
    return 0;
}

const struct fsw_knob fsw_knobs[] = {
    {"accept_threshold_percent", 0644, "of memory= in use, where overflow stops",
     show_accept_threshold, store_accept_threshold},
    {"backing_dev", 0444, "the store that pages overflow to", show_backing_dev, NULL},
    {"bd_stat", 0444, "pages in the store, read from it, written to it", show_bd_stat, NULL},
    {"comp_algorithm", 0644, "the codec, for pages written from now on", show_comp_algorithm,
     store_comp_algorithm},
    {"compact", 0200, "packs the pool, and returns when that is done", NULL, store_compact},
    {"compressor", 0644, "the codec alone, as zswap names it", show_compressor,
     store_comp_algorithm},
    {"disksize", 0644, "bytes of the device", show_disksize, store_fixed},
    {"idle", 0200, "marks pages as idle", NULL, store_idle},
    {"initstate", 0444, "1", show_initstate, NULL},
    {"io_stat", 0444, "failed reads, failed writes, refused requests, pages discarded",
     show_io_stat, NULL},
    {"max_comp_streams", 0644, "CPUs; can't be changed", show_streams, store_streams},
    {"max_pool_percent", 0644, "memory= in percent of all RAM", show_max_pool_percent,
     store_max_pool_percent},
    {"mem_limit", 0644, "the most bytes that the image may take", show_mem_limit, store_mem_limit},
    {"mem_used_max", 0200, "0 starts that number of mm_stat anew", NULL, store_mem_used_max},
    {"mm_stat", 0444, "stored, compressed, used, limit, most used, same-filled, compacted, huge",
     show_mm_stat, NULL},
    {"stats", 0444, "every counter, as `farswap stats`", show_stats, NULL},
    {"writeback", 0200, "moves pages to the store now", NULL, store_writeback},
    {"writeback_limit", 0644, "how much may leave for the store, in 4 KiB", show_writeback_limit,
     store_writeback_limit},
    {"writeback_limit_enable", 0644, "1: that counts", show_writeback_limit_enable,
     store_writeback_limit_enable},
};
const unsigned fsw_knob_count = sizeof fsw_knobs / sizeof fsw_knobs[0];

/* ---- requests ---- */

int fsw_knob_open(unsigned number, uint32_t flags)
{
    const struct fsw_knob *knob = &fsw_knobs[number];
    uint32_t how = flags & O_ACCMODE;

    if ((how != O_WRONLY && knob->show == NULL) || (how != O_RDONLY && knob->store == NULL))
        return -EACCES;
    return 0;
}

/* Made anew for each read: who reads in small pieces may get pieces of different moments. */
void fsw_knob_read(struct fsw_exchange *exchange, unsigned number)
{
    struct fuse_read_in in;

    FSW_ARGUMENT(exchange, in);
    int length = fsw_knobs[number].show == NULL
                     ? -EACCES
                     : fsw_knobs[number].show(exchange->device, exchange->data, FSW_KNOB_BYTES);
    if (length < 0) {
        fsw_answer(exchange, length);
        return;
    }
    uint64_t from = in.offset < (uint64_t)length ? in.offset : (uint64_t)length;
    size_t rest = (size_t)length - (size_t)from;
    fsw_answer_with(exchange, exchange->data + from, rest < in.size ? rest : in.size);
}

/* The whole value in one write, as in sysfs. */
void fsw_knob_write(struct fsw_exchange *exchange, unsigned number)
{
    struct fuse_write_out out = {0};
    char text[FSW_KNOB_BYTES];
    struct fuse_write_in in;

    FSW_ARGUMENT(exchange, in);
    if (in.size >= sizeof text || in.size > exchange->argument_bytes - sizeof in ||
        in.offset != 0 || fsw_knobs[number].store == NULL) {
        fsw_answer(exchange, -EINVAL);
        return;
    }
    memcpy(text, exchange->data, in.size);
    text[in.size] = '\0';
    text[strcspn(text, "\n")] = '\0';
    fsw_exchange_may_wait(exchange);
    int r = fsw_knobs[number].store(exchange->device, text);
    out.size = in.size;
    if (r < 0)
        fsw_answer(exchange, r);
    else
        fsw_answer_with(exchange, &out, sizeof out);
}
