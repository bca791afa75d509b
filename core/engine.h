/*
 * engine.h: the device as its own files see it. What each does:
 *
 *      life.c      opening, starting, closing
 *      recover.c   an image that was there before: what derives from it, made again
 *      device.c    the verbs: counted, alone or many, on this thread or on the crew's
 *      range.c     what a verb does to each page of its range
 *      page.c      one page: read, write, empty; retiring what an entry named
 *      reclaim.c   who leaves: the second-chance hand, the age clock, watermarks     (policy)
 *      overflow.c  how, with put.c, drop.c, clean.c, repair.c: overflow.h            (mechanism)
 *      budget.c    how much may leave in a day
 *      fetch.c     pages read from the store
 *      sweep.c     segments of nobody, dropped at the store
 *      lost.c      copies of which somebody says that they have lost everything
 *      windows.c   pieces of segments that gets bring: joined, and kept beside for a while
 *      prefetch.c  how much a get should bring                                       (policy)
 *      compact.c   objects moved together, so that frames come free
 *      crew.c      threads that help with large requests
 *      keeper.c    the thread that compacts, and follows what people ask for
 *
 * Lock order, outermost first (debug builds of the tests run it under TSan):
 *      entry lock bit  >  context (a semaphore)  >  table.lock  >  class lock  >  lru_lock  >
 *      rows.lock  >  frames.lock  >  overflow.lock  >  clean.lock
 *                                 >  space_lock, windows.lock, repair.lock (leaves; nothing is taken inside)
 */
#ifndef FSW_ENGINE_H
#define FSW_ENGINE_H

#include <pthread.h>
#include <semaphore.h>

#include "core/context.h"
#include "core/crew.h"
#include "core/overflow.h"
#include "core/pool/pool.h"
#include "core/rows.h"
#include "core/sweep.h"
#include "core/table.h"
#include "core/windows.h"
#include "farswap/device.h"

/* A request is cut into parts of 32 KiB for the crew: compressing one takes some 50 µs, waking a
 * member about 5. */
#define FSW_PART_BYTES (8 * FSW_PAGE_SIZE)
/* Of the age clock (reclaim.c): so many a lap of the hand, and the oldest that an entry may be. */
#define FSW_TICKS_A_LAP 16u
#define FSW_AGE_MAX 127u

/* Where tests can hold the overflow of a segment (design: rules a to c of the data path). */
enum fsw_hook {
    FSW_HOOK_PACKED,       /* overflow bits set, objects copied, not yet put */
    FSW_HOOK_ANSWERED,     /* the put ended, the row is not LIVE yet */
    FSW_HOOK_LIVE,         /* the row is LIVE, no entry flipped */
    FSW_HOOK_FLIPPED,      /* one entry flipped or found changed, its object not freed */
    FSW_HOOK_FETCH_PINNED, /* a reader has its row pinned and has not asked the store */
    FSW_HOOK_FETCHED,      /* a write of part of a page has its row pinned, not its entry locked */
    FSW_HOOK_PUBLISH,      /* a mutation whose peer is known is ready to publish, nothing locked */
    FSW_HOOK_LOCKED,       /* the same, entry locked; the look at the peer comes next */
    FSW_HOOK_CLEANED,      /* live objects of pinned rows are packed, and not yet put */
};

/* Who is to leave. */
enum fsw_leaving {
    FSW_LEAVE_OLDEST,    /* what the second-chance hand finds */
    FSW_LEAVE_HUGE,      /* what another one finds of those that did not compress, then the same */
    FSW_LEAVE_HUGE_ONLY, /* those, of any age, and nobody else */
    FSW_LEAVE_IDLE,      /* what is old enough, all over the table, as somebody asked */
};

struct fsw_reclaim {
    enum fsw_leaving leaving;
    struct fsw_pool_object objects[FSW_SLOTS_MAX]; /* of the zspage under the hand */
    unsigned count, next;
    uint8_t stamp;
    uint32_t huge_hand;  /* the last zspage of huge objects that its hand passed */
    unsigned huge_laps;  /* that it took since the other moved */
    unsigned huge_vain;  /* zspages that it has passed since a page left */
    unsigned others;     /* zspages that the other is to pass before there may be huge ones again */
    uint32_t store_hand; /* the same, of the hand that goes round for huge=store */
    uint64_t idle_page;  /* the walk of FSW_LEAVE_IDLE; the device's end: it is over */
    uint8_t idle_ticks;  /* how old is old enough; 0: everything is */
    uint8_t idle_clock;  /* when that was worked out */
    int idle_huge;       /* only pages that did not compress */
    _Atomic uint64_t mark;      /* ticks when everything was marked idle; 0: it was not */
    uint64_t uses, used_at;     /* requests, and when there was one more: the keeper's */
    _Atomic uint32_t low, high; /* watermarks, in free frames */
    uint32_t watermarks;        /* the word that they were made of: the keeper's */
    uint64_t clamp_leaf;        /* where the clamping sweep is */
    uint8_t clamped_to;
    _Atomic uint64_t
        ticked_at[256]; /* when the clock came to each of its values, or was seen there */
    uint8_t timed;      /* up to this one */
};

struct fsw_keeper {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int running;
    _Atomic int stop;
    _Atomic uint32_t codec;                        /* the word that the contexts have */
    struct fsw_pool_object objects[FSW_SLOTS_MAX]; /* of the zspage that is being packed */
    unsigned next_class, looks;
    _Atomic uint32_t futile;         /* freeable frames when nothing moved any more */
    unsigned again;                  /* the look at which it tries again all the same */
    struct fsw_store_health counted; /* of the store's health, what the counters have */
};

struct fsw_device {
    struct fsw_image image;
    char name[FSW_NAME_MAX + 1];
    uint64_t seed, size, pages;
    struct fsw_pool pool;
    struct fsw_table table;
    struct fsw_rows rows;
    struct fsw_contexts contexts;
    struct fsw_windows windows;
    struct fsw_store *store;       /* NULL: none */
    unsigned seal;                 /* units that the store wants before each object: 0 or 1 */
    int unlocked;                  /* SHM_LOCK was refused */
    int recovered;                 /* the image was there before */
    _Atomic uint32_t losses;       /* how often a copy was declared lost (lost.c) */
    _Atomic uint32_t sending_back; /* threads that count one and tell the store */
    uint64_t lost;                 /* damaged words that recovery found in it */

    _Atomic uint8_t clock;       /* ages are compared with it */
    _Atomic uint32_t tick_pages; /* pages written, to make it tick */
    _Atomic uint32_t tick_every;

    pthread_mutex_t space_lock; /* writers that wait for a frame */
    pthread_cond_t space;
    _Atomic unsigned space_waiters;

    struct fsw_reclaim reclaim;
    struct fsw_overflow overflow;
    struct fsw_clean clean;
    struct fsw_repair repair;
    struct fsw_sweep sweep;
    struct fsw_keeper keeper;
    struct fsw_crew crew;

    void (*hook)(enum fsw_hook at, void *opaque); /* tests only */
    void *hook_opaque;
};

static inline void fsw_hook(struct fsw_device *device, enum fsw_hook at)
{
    if (__builtin_expect(device->hook != NULL, 0))
        device->hook(at, device->hook_opaque);
}

/* ---- recover.c ---- */

/* For an image that was there before: pool, rows and table are initialised, no thread runs. Sets
 * `lost`. Milliseconds for each GiB of pages stored. -ENOMEM. */
int fsw_recover(struct fsw_device *device);

/* ---- page.c ---- */

/* Of a verb, what its pages must know: may it wait, until when, and who asks. */
struct fsw_how {
    unsigned flags;    /* of struct fsw_io */
    uint64_t deadline; /* write_wait= ends earlier, from when it begins to wait, each page anew; 0:
                              nothing else does */
    struct fsw_peer *peer; /* NULL: nobody who could be gone */
};

/* The part of a request that lies in one page. */
struct fsw_part {
    uint64_t number;
    unsigned offset, length;
};

/* Whole page into `page`, or -EIO. Fetches if it must. */
int fsw_page_read(struct fsw_device *device, uint64_t number, void *page);

/* Local pages only: 0, -EIO, or 1 with *ret_entry and *ret_value if the page is in the store. */
int fsw_page_read_local(struct fsw_device *device, uint64_t number, void *page,
                        fsw_entry **ret_entry, uint64_t *ret_value);

/* A hint: the page will be read or written soon. If it is in the pool, what that takes comes into the
 * cache: its object, or what knows its slot. Nothing is locked: by then it may be elsewhere. */
void fsw_page_expect(struct fsw_device *device, enum fsw_verb verb, uint64_t number);

/* Mutations: -EAGAIN (it would have to wait, and may not), -ECANCELED (who asked is gone; the page
 * stays as it was). */
int fsw_page_write(struct fsw_device *device, const struct fsw_how *how, uint64_t number,
                   const void *page);
int fsw_page_write_part(struct fsw_device *device, const struct fsw_how *how,
                        const struct fsw_part *part, const void *bytes); /* NULL bytes: zeroes */
int fsw_page_empty(struct fsw_device *device, const struct fsw_how *how, uint64_t number);

/* Counts an entry's value in (or out of) the gauges. */
void fsw_page_count(struct fsw_device *device, uint64_t value, int64_t sign);

/* ---- range.c ---- */

/* Does a verb to each page of a range that lies in the device; uses all of `io` but its result,
 * which it returns, and sets no more of it than FSW_IO_WAITED. Counts no request. */
int fsw_range_do(struct fsw_device *device, struct fsw_io *io);

/* ---- reclaim.c ---- */

struct fsw_victim {
    fsw_entry *entry;
    uint64_t value;
    uint32_t page;
};

/* Watermarks and clock follow memory= and watermarks=: at init, and when one changed. */
void fsw_reclaim_set_limit(struct fsw_device *device);
/* Begins a walk over all that was not used for so long; with FSW_OVERFLOW_HUGE (farswap/steer.h)
 * over huge pages only. */
void fsw_reclaim_begin_idle(struct fsw_device *device, uint32_t seconds);
int fsw_reclaim_idle_is_over(const struct fsw_device *device);
/* The next page that should leave, as `leaving` says; 0: there is none. */
int fsw_reclaim_next(struct fsw_device *device, struct fsw_victim *ret_victim);
/* The last victim does not fit now: it comes next. */
void fsw_reclaim_unget(struct fsw_device *device);
/* A page was written: the age clock may tick. */
void fsw_reclaim_tick(struct fsw_device *device);
/* Ticks while nobody writes, and keeps the times of ticks. The keeper's, ten times a second. */
void fsw_reclaim_follow_clock(struct fsw_device *device);
/* Clamps ages before the clock can lap them. From the overflow thread. */
void fsw_reclaim_clamp(struct fsw_device *device);

/* ---- lost.c ---- */

/* Follows what was asked for by `farswap set NAME overflow-lost=`. From the keeper. */
void fsw_lost_follow(struct fsw_device *device);

/* The only store was emptied, and had nothing: it is as new. (Of two, repair.c sees to that.) From the
 * keeper, with what the store says of itself. */
void fsw_lost_follow_emptied(struct fsw_device *device, const struct fsw_store_health *health);

/* Of these copies, those that alone have something that lives. Looks at every row. */
uint32_t fsw_lost_waited_for(const struct fsw_device *device, uint32_t copies);

/* These copies were emptied, and nothing is expected of them: they are as new ones from now on. */
void fsw_lost_adopt(struct fsw_device *device, uint32_t copies);

/* What a get that begins now notes: it differs from `losses` when that get is sent back. */
uint32_t fsw_losses_noted(const struct fsw_device *device);
/* For a reader that has submitted its gets: `losses` as it was before their rows were looked at. */
void fsw_lost_since(struct fsw_device *device, uint32_t losses);

static inline uint32_t fsw_all_copies(const struct fsw_device *device)
{
    return (1u << device->store->copies) - 1;
}

/* The copies that were acknowledged when a segment was put, and not lost since; all, if none is
 * known. */
static inline uint32_t fsw_copies_of(const struct fsw_device *device, uint32_t row)
{
    uint32_t all = fsw_all_copies(device);
    uint32_t has = atomic_load(&device->image.rows[row].copies) & all;

    return has != 0 ? has : all;
}

static inline int fsw_row_is_lost(const struct fsw_device *device, uint32_t row)
{
    uint32_t copies = atomic_load(&device->image.rows[row].copies);

    return (copies & FSW_ROW_LOST) != 0 && (copies & fsw_all_copies(device)) == 0;
}

/* ---- compact.c ---- */

/* Frames that compaction could give back, all classes together. */
uint32_t fsw_compact_freeable(const struct fsw_device *device);

/* What could not be moved so far may be tried again. */
void fsw_compact_begin(struct fsw_device *device);

/* Packs one zspage as far as its entries allow: at most FSW_SLOTS_MAX moves, some hundred
 * microseconds. Returns how many objects it moved; 0: nothing that is worth it can be moved now. One
 * caller at a time. */
unsigned fsw_compact_step(struct fsw_device *device);

/* ---- keeper.c ---- */

int fsw_keeper_start(struct fsw_device *device);
void fsw_keeper_stop(struct fsw_device *device);

/* ---- fetch.c ---- */

struct fsw_fetch {
    uint64_t number; /* of the page */
    fsw_entry *entry;
    uint64_t value;    /* as seen: state STORE */
    void *page;        /* 4096 bytes */
    int keep_pin;      /* 1: on success the row stays pinned, for the caller to unpin */
    int fresh;         /* 1: the page must still be the one that the entry names when it is there */
    uint64_t deadline; /* CLOCK_MONOTONIC ns: then -EIO; 0: as long as the store takes */
    uint64_t patience; /* the same: then -EAGAIN, and the get goes on; 0: none */
    int result;        /* 0, -EIO, or -EAGAIN: the entry has changed, read it again */
};

/* Fetches up to FSW_FETCH_BATCH pages in one batch, all with the same deadline. Waits for the store. */
void fsw_fetch(struct fsw_device *device, struct fsw_fetch *fetches, unsigned count);

/* 1: the page was prefetched, and is in fetch->page. 0: who may wait has to fetch it. Uses number,
 * entry, value and page of fetch, and does not wait. */
int fsw_fetch_here(struct fsw_device *device, struct fsw_fetch *fetch);

/* Ends a keep_pin. */
void fsw_fetch_unpin(struct fsw_device *device, uint64_t value);

#endif
