/*
 * overflow.h: what leaves for the store, and what is rewritten there.
 *
 *      put.c        one segment on its way out: packed, put, its entries flipped, or not
 *      drop.c       rows that nothing lives in: their segments dropped
 *      segment.c    a whole segment, got and looked through
 *      overflow.c   the thread that puts what reclaim names, and drops
 *      clean.c      the thread that rewrites segments in which much is dead
 *      repair.c     the thread that puts again what lacks a copy
 *
 * Who leaves is reclaim's (reclaim.c).
 */
#ifndef FSW_OVERFLOW_H
#define FSW_OVERFLOW_H

#include <pthread.h>
#include <semaphore.h>

#include "core/entry.h"
#include "core/object.h"
#include "farswap/store.h"

struct fsw_device;

#define FSW_PUTS_IN_FLIGHT 8u
#define FSW_DROPS_IN_FLIGHT 32u
#define FSW_SEGMENT_UNITS (FSW_SEGMENT_BYTES / FSW_UNIT)
#define FSW_SEGMENT_OBJECTS (FSW_SEGMENT_UNITS / FSW_OBJECT_UNITS_MIN)

/* ---- put.c ---- */

/* One segment on its way out. It belongs to one thread at a time, or to the store.
 *
 * Each of its objects has an entry that names it where it is now, in the pool or in another segment.
 * That place is pinned until the put was finished, so the entry may be compared by value
 * (docs/locking.md, a and c): by the overflow bit in the entry, or by a pin on the row. */
enum fsw_put_kind { FSW_PUT_OVERFLOW, FSW_PUT_CLEAN };

struct fsw_put {
    struct fsw_store_request request;
    enum fsw_put_kind kind; /* how it is counted */
    int asked;              /* it is of pages that were asked to leave */
    uint32_t row, count, units;
    uint32_t huge; /* objects of pages that did not compress */
    fsw_entry *entries[FSW_SEGMENT_OBJECTS];
    uint64_t
        values[FSW_SEGMENT_OBJECTS]; /* the entries as they were, overflow bit set if in pool */
    struct fsw_put *next;
    struct fsw_device *device;
    uint64_t started;                   /* CLOCK_MONOTONIC ns */
    uint32_t losses;                    /* the device's, then */
    uint32_t emptyings[FSW_COPIES_MAX]; /* then, see fsw_repair_note() */
    uint32_t flipped, flipped_huge;     /* objects, once it was finished */
    char bytes[FSW_SEGMENT_BYTES];
};

/* An empty segment with a row and an id. 0: there is no row. */
int fsw_put_begin(struct fsw_device *device, struct fsw_put *put);
/* Nothing was put: the row is free again. */
void fsw_put_cancel(struct fsw_device *device, struct fsw_put *put);

/* 1 if an object of so many units still fits. */
int fsw_put_fits(const struct fsw_device *device, const struct fsw_put *put, unsigned units);
/* Where the next object belongs; and that it is there now, named by that entry with that value. */
void *fsw_put_place(const struct fsw_device *device, struct fsw_put *put);
void fsw_put_add(struct fsw_device *device, struct fsw_put *put, fsw_entry *entry, uint64_t value);

void fsw_put_submit(struct fsw_device *device, struct fsw_put *put,
                    void (*done)(struct fsw_store_request *request));

/* The put has ended. Acknowledged: the row is LIVE, and every entry that still names its object names
 * the row; what it named before is let go. Failed: the entries stay, and the id is burnt, for the put
 * may have landed. Returns the result. */
enum fsw_store_result fsw_put_finish(struct fsw_device *device, struct fsw_put *put);

/* Replaces the entry by `value` if it still names what it named. The lock bit is waited for. */
int fsw_put_flip(fsw_entry *entry, uint64_t named, uint64_t value);

/* ---- segment.c ---- */

/* Hands requests over and returns when all are answered. Sets their done and owner. */
void fsw_segment_ask(struct fsw_device *device, struct fsw_store_request *const *requests,
                     unsigned count);

/* An object in the bytes of a whole segment. */
struct fsw_segment_object {
    const char *bytes;
    uint32_t page;          /* as its header says */
    unsigned offset, units; /* as an entry has them */
};

/* The object at *at (units from the begin, its seal included), which moves on behind it. 0: there is
 * none, or none can be found from here on, for its header is damaged. */
int fsw_segment_next(const struct fsw_device *device, const char *bytes, uint32_t length,
                     unsigned *at, struct fsw_segment_object *ret_object);

/* 1 if the object is whole: it is that page's, and opens. */
int fsw_segment_object_is_whole(const struct fsw_device *device,
                                const struct fsw_segment_object *object);

/* ---- drop.c ---- */

struct fsw_drop {
    struct fsw_store_request request;
    uint32_t row;
    struct fsw_drop *next;
    struct fsw_device *device;
};

struct fsw_drops {
    struct fsw_drop *idle, *finished;
    uint32_t waiting; /* rows in state DROPPING, linked through `next` */
    unsigned out;
    _Atomic uint64_t bytes; /* of segments to be dropped */
    uint64_t not_before;    /* after one that failed */
    struct fsw_drop *all;
};

/* A row has become DROPPING. From any thread. */
void fsw_overflow_drop(struct fsw_device *device, uint32_t row);

/* The overflow thread's. `ask` with overflow.lock held, which it lets go while it asks; `finish`
 * without it. */
int fsw_drops_init(struct fsw_device *device);
void fsw_drops_ask(struct fsw_device *device);
void fsw_drops_finish(struct fsw_device *device, struct fsw_drop *drops);

/* ---- overflow.c ---- */

/* Idle pages that are on their way out because somebody asked. */
struct fsw_overflow_idle {
    uint32_t number; /* of the request; 0: none */
    unsigned puts_out;
    uint64_t pages, bytes;
    int result; /* what ended it: a negative errno */
};

struct fsw_overflow {
    pthread_t thread;
    pthread_mutex_t lock; /* the lists below, those of `drops`, `idle_sweep`, and wanted */
    pthread_cond_t wake;
    struct fsw_put *idle, *finished;
    struct fsw_drops drops;
    unsigned puts_out;
    uint32_t units_out;  /* of the puts in flight */
    uint32_t huge_out;   /* the same: objects of pages that did not compress */
    uint64_t huge_after; /* huge=store: not before, for the last look found none that could leave */
    _Atomic int wanted;  /* free frames fell below the low watermark */
    _Atomic int running;
    int stop;
    uint64_t pause_until, pause; /* after a failed put */
    uint64_t failed_at;          /* that put; those asked for before are no further attempts */
    int found_full;              /* the store had no room for it */
    uint64_t last_put;           /* when */
    int limited;                 /* no more may leave (core/budget.h), and pages are to */
    struct fsw_overflow_idle idle_sweep;
    struct fsw_put *puts;
};

int fsw_overflow_init(struct fsw_device *device);
int fsw_overflow_start(struct fsw_device *device);
void fsw_overflow_stop(struct fsw_device *device);
void fsw_overflow_deinit(struct fsw_device *device);
/* Reclaim may have reason to work. From any thread, under any lock. */
void fsw_overflow_kick(struct fsw_device *device);
/* Waits until frames may be free, or until deadline (CLOCK_MONOTONIC ns). -ENOSPC: deadline passed,
 * or there is no store. */
int fsw_overflow_wait(struct fsw_device *device, uint64_t deadline);
/* Everything that was not used for so many seconds leaves; then the request is answered. From the
 * keeper; nothing if that request is under way. */
void fsw_overflow_idle(struct fsw_device *device, uint32_t number, uint32_t seconds);
/* huge=store: what was written since the last look may be enough to leave. From the keeper. */
void fsw_overflow_follow_huge(struct fsw_device *device);
/* The last put was found to be done: who waits for frames may look. From any thread. */
void fsw_overflow_wake_writers(struct fsw_device *device);

/* ---- clean.c ---- */

#define FSW_CLEAN_SOURCES 8u
#define FSW_CLEAN_PUTS 4u
#define FSW_CLEAN_SHARES 64u
/* Percent of the bytes at the store that are dead: cleaning begins, goes on all the time, overflow waits
 * for it, and cleaning begins when the store is full. */
#define FSW_CLEAN_BEGIN 16u
#define FSW_CLEAN_LIMIT 20u
#define FSW_CLEAN_STOP 23u
#define FSW_CLEAN_FULL 2u
#define FSW_CLEAN_WORTH (1u << 20) /* dead bytes that nobody minds */
#define FSW_CLEAN_KEPT 32u /* frames of the reserve; what lives in two half-empty segments */

struct fsw_clean_source {
    uint32_t row; /* pinned */
    struct fsw_store_request request;
    char *bytes;
};

struct fsw_clean_put {
    struct fsw_put put;
    const char *objects[FSW_SEGMENT_OBJECTS]; /* what each was copied from */
};

/* What ends a rest of the cleaning thread, if it is more than what the rest is about. */
enum fsw_clean_news {
    FSW_CLEAN_NO_NEWS, /* between two looks, or so that others come to their turn */
    FSW_CLEAN_WANTED,  /* overflow waits for it. A rest: neither pool nor store had room */
    FSW_CLEAN_ROOM,    /* there may be some now. A rest: it failed otherwise */
};

struct fsw_clean {
    pthread_t thread;
    pthread_mutex_t lock; /* stop, busy, news; the rest is the thread's */
    pthread_cond_t wake;
    sem_t answered;
    _Atomic int running;
    int stop, busy;
    enum fsw_clean_news news; /* since its last step began */
    _Atomic int full;         /* the store's last answer to a put */
    _Atomic int helpless;     /* laps have moved nothing */
    uint64_t worth;
    uint32_t hand;                         /* the next row */
    uint32_t shares[FSW_CLEAN_SHARES + 1]; /* rows of this lap, by how much of them lives */
    int threshold;                         /* share up to which this lap takes them; -1: none */
    uint32_t moved_in_lap;
    unsigned futile_laps; /* in a row, that moved nothing */
    unsigned count;
    struct fsw_clean_source sources[FSW_CLEAN_SOURCES];
    char *bytes;
    unsigned filled;            /* puts that have a row */
    struct fsw_clean_put *puts; /* FSW_CLEAN_PUTS of them */
};

int fsw_clean_init(struct fsw_device *device);
int fsw_clean_start(struct fsw_device *device);
/* Before the store is closed: it waits for the requests that are under way, 5 seconds at most. */
void fsw_clean_stop(struct fsw_device *device);
void fsw_clean_deinit(struct fsw_device *device);
/* How many segments overflow may have on their way, or the dead get more and more. */
unsigned fsw_clean_puts_allowed(struct fsw_device *device);
/* The store said that it is full, or that it is not. From the threads that put. */
void fsw_clean_store_is_full(struct fsw_device *device, int full);
/* It looks now, unless it rests from more than that. From any thread. */
void fsw_clean_wake(struct fsw_device *device, enum fsw_clean_news news);

/* ---- repair.c ---- */

struct fsw_repair {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic int running;
    _Atomic int stop, wanted;        /* there may be a row that lacks a copy; set under the lock */
    uint32_t emptied;                /* copies that were, as far as rows have forgotten them */
    uint32_t adopted;                /* of these, those that were taken as they are, */
    uint64_t adopted_at;             /* then */
    _Atomic uint32_t put_to_emptied; /* copies that acknowledged a put so, since the last look */
    _Atomic uint32_t emptyings[FSW_COPIES_MAX]; /* of each copy; changed under the lock */
    uint64_t lacking;                           /* rows, in this lap */
    char *bytes;                                /* a segment */
};

void fsw_repair_init(struct fsw_device *device);
/* Of a store with one copy: nothing. Stop before the store is closed; it waits for the request that
 * is under way, 5 seconds at most. */
int fsw_repair_start(struct fsw_device *device);
void fsw_repair_stop(struct fsw_device *device);
/* How often each copy was emptied: before a segment is put. From any thread. */
void fsw_repair_note(const struct fsw_device *device, uint32_t emptyings[FSW_COPIES_MAX]);
/* A segment was put to these copies: fsw_row_live(), but for those that were emptied since that was noted. If
 * one lacks it, segments_lacking tells so before the row is LIVE. */
void fsw_repair_row_live(struct fsw_device *device, uint32_t row, uint32_t bytes, uint32_t live,
                         uint32_t copies, const uint32_t emptyings[FSW_COPIES_MAX]);
/* Rows will lose a copy: segments_lacking tells so from now on. And again, when they have. */
void fsw_repair_want(struct fsw_device *device);

#endif
