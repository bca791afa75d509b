/*
 * image.h: the shared memory that holds one device, and its layout.
 *
 *      superblock      4 KiB
 *      counters        by stripe
 *      latencies       histograms
 *      class stats     16 bytes each
 *      directory       8 bytes a leaf
 *      rows            32 bytes each
 *      zspage classes  2 bytes each
 *      zspage frames   256 bytes each
 *      frames          4 KiB each
 *
 * SysV shared memory: it outlives every process. Sparse: sizes below are address space; a page of
 * it costs memory from its first touch on, and *reading an untouched page touches it*. Therefore:
 *
 *   I1  Of the arrays, only what lies below its `top` (rows_top, zspages_top, frames_top; the whole
 *       directory) may be read or written. Tops only grow; those of rows and zspages after the
 *       memory behind them was touched. A frame is named only when it was.
 *   I2  A frame is named by at most one of: a directory word (a leaf), a zspage's frame slot.
 *       Nothing reads a frame that nobody names. Frame and zspage 0 are never used: 0 is "none".
 *   I3  Truth is the directory with its leaves, the rows' ids and states, zspage classes and
 *       frames, and the superblock. Everything else is derived, kept outside, and rebuilt.
 */
#ifndef FSW_IMAGE_H
#define FSW_IMAGE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"
#include "farswap/error.h"
#include "farswap/params.h"
#include "farswap/latency.h"
#include "farswap/stats.h"
#include "farswap/store.h"

#define FSW_IMAGE_MAGIC "farswap"
#ifndef FSW_IMAGE_LAYOUT /* but in a program that tests make, which knows another */
#define FSW_IMAGE_LAYOUT 2u
#endif
#define FSW_FRAME_SIZE 4096u
#define FSW_LEAF_ENTRIES 512u
#define FSW_ZSPAGE_FRAMES 64u /* the most frames a zspage can have */
#define FSW_STAT_STRIPES 32u
/* Counters that a stripe has room for: new ones are added at the end, and what is there stays. */
#define FSW_STAT_ROOM 128u

struct fsw_superblock {
    char magic[8]; /* written last: an image without it was never finished */
    uint32_t layout;
    uint32_t checksum; /* of what follows, up to the first atomic */
    struct fsw_device_id device;
    char name[FSW_NAME_MAX + 1];
    uint64_t size;  /* of the device, bytes */
    uint64_t bytes; /* of the image */
    uint64_t counters_at, class_stats_at, directory_at, rows_at, classes_at, zspages_at, frames_at;
    uint64_t leaves, rows, zspages, frames;
    int64_t created; /* seconds since 1970 */
    char overflow[512];
    uint8_t store_key[FSW_STORE_KEY_BYTES]; /* what a store that encrypts does it with */
    uint64_t sentinel;      /* that tells the store of this device from an emptied one, */
    uint32_t counters;      /* in a stripe, when the image was made */
    uint32_t counter_names; /* checksum of their names */
    uint64_t latencies_at;

    _Atomic uint64_t next_segment; /* ids are taken by advancing it, and never derived */
    _Atomic uint32_t rows_top, zspages_top, frames_top;
    _Atomic int32_t holder; /* pid of the last server; the lock, not this, says if it lives */

    /* What people ask of the server, and its answers (core/keeper.c). They are here so that whoever
     * may map the image may ask, and nobody else. */
    _Atomic uint64_t memory_limit;  /* memory=: the server follows it */
    _Atomic uint32_t codec;         /* fsw_codec_word: the server follows it */
    _Atomic uint32_t planted;       /* copies that acknowledged a put, so they have the sentinel */
    _Atomic uint32_t seal;          /* bytes before each object at the store: 0 or 16 */
    _Atomic uint64_t compact_asked; /* requests so far */
    _Atomic uint64_t compact_answered; /* the last request that was carried out */

    /* What the server sees of its store, once a second (core/keeper.c); kept for `farswap status`,
     * which must not need the server. */
    struct fsw_store_state {
        _Atomic uint32_t sequence;  /* odd: being written */
        _Atomic uint32_t connected; /* 1: answers now */
        _Atomic int64_t since;      /* of that, seconds since 1970 */
        char last_error[160];       /* "" if none ever */
    } store_state;

    /* Idle pages are asked to leave (core/steer.c), and what went. */
    _Atomic uint64_t idle_asked; /* number of the request in bits 32 to 63; seconds in the rest */
    _Atomic uint64_t idle_answered;          /* the last request that was carried out */
    _Atomic uint64_t idle_pages, idle_bytes; /* that left for it */
    _Atomic int64_t idle_result;             /* 0, or what stopped it: a negative errno */

    /* Copies that somebody declares lost, and of the last that were, those that are not (core/lost.c). */
    _Atomic uint32_t lost_asked, lost_refused;

    /* More of what people ask of the server; reads look at them. */
    _Atomic uint32_t prefetch;      /* prefetch=: 0 auto, 1 off, else bytes */
    _Atomic uint32_t fetch_timeout; /* fetch_timeout= in ms; 0: for ever */
    _Atomic uint32_t watermarks;    /* watermarks= as in struct fsw_params: the server follows it */
    _Atomic uint32_t write_wait;    /* write_wait= in ms, and 1 more; 0: FSW_WRITE_WAIT_NS */
    _Atomic uint32_t read_age;      /* read_age=: enum fsw_read_age; reads look at it */
    _Atomic uint32_t huge;          /* huge=: enum fsw_huge */

    /* How much may leave (core/budget.h). */
    _Atomic uint64_t overflow_limit;   /* bytes */
    _Atomic uint64_t overflow_spent;   /* of them */
    _Atomic uint64_t overflow_refill;  /* when nothing is spent again, CLOCK_BOOTTIME s; UINT64_MAX:
                                          when somebody says so */
    _Atomic uint32_t overflow_limited; /* 0: that has no meaning */

    /* Of each copy, what the server sees of its store; written with store_state, under its sequence. */
    struct fsw_copy_state {
        _Atomic uint32_t state;          /* enum fsw_copy_is */
        _Atomic uint32_t lies;           /* answers that were not what was put there */
        _Atomic int64_t since;           /* of `state`, seconds since 1970 */
        _Atomic uint64_t sent, received; /* bytes on the wire */
        char last_error[160];            /* "" if none ever */
    } copy_state[FSW_COPIES_MAX];

    /* what tells a copy's store since it was last taken as new (core/lost.c); 0: `sentinel` does */
    _Atomic uint64_t sentinels[FSW_COPIES_MAX];
};

static inline uint64_t fsw_sentinel(const struct fsw_superblock *super, unsigned copy)
{
    uint64_t later = atomic_load(&super->sentinels[copy]);

    return later != 0 ? later : super->sentinel;
}

enum fsw_copy_is { FSW_COPY_UNKNOWN, FSW_COPY_AWAY, FSW_COPY_EMPTIED, FSW_COPY_GOOD };

/* How long a page's write waits for room. */
static inline uint64_t fsw_write_wait_ns(const struct fsw_superblock *super)
{
    uint32_t word = atomic_load_explicit(&super->write_wait, memory_order_relaxed);

    return word == 0 ? FSW_WRITE_WAIT_NS : (word - 1) * FSW_NS_PER_MS;
}

#define FSW_CLASS_MAX 256u

/* A size class's numbers, as zsmalloc's `classes` file has them: kept by the server, read by
 * anybody. */
struct fsw_class_stats {
    _Atomic uint32_t objects; /* allocated slots */
    _Atomic uint32_t zspages;
    _Atomic uint32_t frames; /* attached */
    uint32_t spare;
};

/* In `copies`: no copy has it any more, as somebody said. */
#define FSW_ROW_LOST (1u << 31)

/* A segment's place in the directory. `word`: state, pins and live count in one, so that "nothing
 * lives in it and nobody reads it" is one compare-and-swap (core/rows.c). */
struct fsw_row {
    _Atomic uint64_t id;
    _Atomic uint64_t word;
    _Atomic uint32_t bytes;
    _Atomic uint32_t copies;
    uint32_t next;  /* of free rows, and of those that wait for their drop */
    uint32_t check; /* of row number and id: a wrong id would drop another's segment */
};

/* The frames of one zspage, 0 where none is attached. */
struct fsw_zspage_frames {
    _Atomic uint32_t frame[FSW_ZSPAGE_FRAMES];
};

struct fsw_image {
    struct fsw_superblock *super;
    _Atomic uint64_t (*counters)[FSW_STAT_ROOM]; /* [FSW_STAT_STRIPES] */
    struct fsw_latencies *latencies;             /* [FSW_LATENCY_STRIPES] */
    struct fsw_class_stats *class_stats;         /* [FSW_CLASS_MAX] */
    _Atomic uint64_t *directory;                 /* fsw_leaf_word, 0: no leaf */
    struct fsw_row *rows;
    _Atomic uint16_t *classes;
    struct fsw_zspage_frames *zspages;
    char *frames;
    uint64_t bytes;
    int shmid;
    int lock_fd; /* -1 for a reader */
};

/* Makes the shared memory of a new device, all but its magic. Warns through *ret_unlocked when
 * SHM_LOCK was not allowed. Its maker writes down where it is (registry.h), and then finishes it:
 * touches superblock, counters and directory, and makes it an image. Blocks for milliseconds. */
int fsw_image_create(struct fsw_image *image, const struct fsw_params *params, int *ret_unlocked,
                     struct fsw_error *err);
int fsw_image_finish(struct fsw_image *image, struct fsw_error *err);

/* Attaches an image and checks its superblock: -EINVAL (no such memory, or not an image), -EUCLEAN
 * (an image, and damaged), -ENOTSUP (another layout). writable 0 maps it for reading only. */
int fsw_image_attach(struct fsw_image *image, int shmid, int writable, struct fsw_error *err);

/* Of memory that is no image by its magic: that device's, its first bytes damaged; or not finished, and
 * mapped by its maker, or for a moment by somebody who looks what it is; or not finished, and nobody is
 * at it. */
enum fsw_image_remains {
    FSW_IMAGE_NONE,
    FSW_IMAGE_LOST_ITS_MAGIC,
    FSW_IMAGE_BEING_MADE,
    FSW_IMAGE_UNFINISHED
};
enum fsw_image_remains fsw_image_remains(int shmid, const struct fsw_device_id *device);
#define FSW_IMAGE_DAMAGED                                                                          \
    "the image's superblock is damaged: nothing in it can be trusted; `farswap destroy` removes "  \
    "it"

void fsw_image_detach(struct fsw_image *image);

/* Overwrites all that the image names or touched with zeroes, and removes it. */
int fsw_image_wipe(struct fsw_image *image, struct fsw_error *err);

/* The same for one that attach called damaged: all that is resident of it. */
int fsw_image_wipe_damaged(int shmid, struct fsw_error *err);

/* What an image of that device costs before it holds a page, and its table when full. */
uint64_t fsw_image_base_bytes(uint64_t size);
uint64_t fsw_image_table_bytes(uint64_t size);

/* Touches bytes at `at` (page-aligned by itself). -ENOMEM instead of a SIGBUS. */
int fsw_image_touch(const void *at, size_t bytes);

/* How many frames of memory from `at` on (at a frame's begin) are resident up to the first that is
 * not, `most` at most. Touches none. */
uint64_t fsw_image_resident(const void *at, uint64_t most);

static inline void *fsw_image_frame(const struct fsw_image *image, uint32_t frame)
{
    return image->frames + (uint64_t)frame * FSW_FRAME_SIZE;
}

/* The calling thread's stripe: 1 + its number, 0 until the thread first counts. */
extern _Thread_local unsigned fsw_stat_stripe_mine;
unsigned fsw_stat_stripe_choose(void);

static inline unsigned fsw_stat_stripe(void)
{
    unsigned mine = fsw_stat_stripe_mine;
    return mine != 0 ? mine - 1 : fsw_stat_stripe_choose();
}

/* 0 in the build that bench/latency compares with: gauges, by which the engine works, are kept, and
 * nothing else. */
#ifndef FSW_COUNTED
#define FSW_COUNTED 1
#endif

static inline int fsw_stat_is_kept(enum fsw_stat stat)
{
    switch (stat) {
#define X(NAME, name, kind, unit, meaning)                                                         \
    case FSW_STAT_##NAME:                                                                          \
        return FSW_COUNTED || FSW_STAT_##kind == FSW_STAT_GAUGE;
        FSW_STATS(X)
#undef X
    default:
        return 0;
    }
}

static inline void fsw_stat_add(const struct fsw_image *image, enum fsw_stat stat, uint64_t n)
{
    if (!FSW_COUNTED && !fsw_stat_is_kept(stat))
        return;
    atomic_fetch_add_explicit(&image->counters[fsw_stat_stripe()][stat], n, memory_order_relaxed);
}

static inline void fsw_stat_sub(const struct fsw_image *image, enum fsw_stat stat, uint64_t n)
{
    fsw_stat_add(image, stat, 0 - n);
}

/* Counts one that began at `started` (CLOCK_MONOTONIC ns) and ends now. */
static inline void fsw_latency_add(const struct fsw_image *image, enum fsw_latency kind,
                                   uint64_t started)
{
    if (!FSW_COUNTED)
        return;
    unsigned bucket = fsw_latency_bucket(fsw_now_ns() - started);

    atomic_fetch_add_explicit(
        &image->latencies[fsw_stat_stripe() % FSW_LATENCY_STRIPES].bucket[kind][bucket], 1,
        memory_order_relaxed);
}

/* The sum of all stripes. */
void fsw_latency_read(const struct fsw_image *image, enum fsw_latency kind,
                      uint64_t buckets[FSW_LATENCY_BUCKETS]);

/* For gauges that one thread sets as a whole. */
static inline void fsw_stat_set(const struct fsw_image *image, enum fsw_stat stat, uint64_t n)
{
    atomic_store_explicit(&image->counters[0][stat], n, memory_order_relaxed);
}

uint64_t fsw_stat_get(const struct fsw_image *image, enum fsw_stat stat);

/* Bytes at the store that no entry names, as far as the sums tell while requests run. */
uint64_t fsw_image_dead_bytes(const struct fsw_image *image);

/* Of the first `count` names of fsw_stat_table (at most FSW_STAT_COUNT), in order. */
uint32_t fsw_stat_names_checksum(uint32_t count);

/* Makes n the sum, whatever was counted before. For recovery, while nobody counts. */
void fsw_stat_restart(const struct fsw_image *image, enum fsw_stat stat, uint64_t n);

/* All of fsw_stat_table, with those that follow from others worked out. For any process that maps
 * it. */
void fsw_image_stats(const struct fsw_image *image, uint64_t values[FSW_STAT_COUNT]);

#endif
