/*
 * windows.h: pieces of segments that are on their way from the store, or have come from there.
 *
 *                         ┌──────── users ────────┐
 *      idle ──begin──> FLYING ──answered──> HERE ──┴─> idle, and findable if it was kept ──> begin
 *
 * Whoever wants an object of a segment looks for a window that has it, and else begins one with a get.
 * So a second read of an object joins the get of the first, and a get that asked for more than one
 * object (prefetch.h says how much) is a side cache for those who come next: bounded, in memory that is
 * touched at the start, locked with the server's, and in no core dump.
 *
 *   W1  A window is known by segment id, which is never used again, and the range that it has of it;
 *       so it can't be of another segment, however often its row was. What is in it proves itself:
 *       every object is opened with all its checks by each who takes it.
 *   W2  Nobody takes the window's word for where a page is: an entry names row and offset, and is
 *       looked at with the row pinned, as for a get.
 *   W3  FLYING holds a pin on the row, whoever still waits. HERE and idle hold none.
 *   W4  The bytes are the store's while it is FLYING; after that they stay while somebody uses it.
 *
 * One lock, held for a few instructions; it is a leaf.
 */
#ifndef FSW_WINDOWS_H
#define FSW_WINDOWS_H

#include <pthread.h>

#include "core/object.h"
#include "core/prefetch.h"

struct fsw_device;

/* Four pages that did not compress, or some dozen others: a quarter of a segment. */
#define FSW_WINDOW_BYTES (4 * (FSW_SEAL_BYTES + FSW_OBJECT_MAX))
/* All windows together: that part of memory=, but so many at least, and at most. Pages of programs lie
 * in some hundred size classes, each with segments of its own, and reading them in order reads from all of
 * these: with 64 windows of twice the size, half of what was prefetched made room before it was read, with
 * 128 a seventh. */
#define FSW_WINDOWS_PART 64u
#define FSW_WINDOWS_MIN 128u
#define FSW_WINDOWS_MAX 256u
#define FSW_WINDOW_BUCKETS 256u

/* An object in a segment, as an entry names it. */
struct fsw_place {
    uint64_t id;
    uint32_t row;
    uint32_t offset, units; /* in units; offset without its seal */
};

enum fsw_window_state { FSW_WINDOW_HERE, FSW_WINDOW_FLYING };

struct fsw_window {
    struct fsw_store_request request;
    struct fsw_device *device;
    enum fsw_window_state state;
    int findable;    /* it is in its bucket */
    int pinned;      /* W3 */
    uint32_t losses; /* as its get noted them (lost.c) */
    uint64_t id;
    uint32_t row;
    uint32_t from, to; /* in units of the segment, first seal included */
    uint32_t least;    /* the same: where the object ends that it was begun for */
    unsigned users;
    unsigned objects, taken; /* that came behind that one; of these, read */
    uint64_t marks[(FSW_WINDOW_BYTES / FSW_UNIT / 2 + 63) / 64]; /* which were read */
    pthread_cond_t landed;
    struct fsw_window *same;          /* in its bucket */
    struct fsw_window *older, *newer; /* while idle */
    char *bytes;
};

struct fsw_windows {
    pthread_mutex_t lock;
    pthread_cond_t idle; /* one has become that */
    unsigned waiters;    /* for it */
    unsigned count;
    struct fsw_window *all;
    struct fsw_window *oldest, *newest; /* idle ones: the oldest is used next */
    struct fsw_window *buckets[FSW_WINDOW_BUCKETS];
    struct fsw_prefetch prefetch;
};

/* Makes them, touched. -ENOMEM. */
int fsw_windows_init(struct fsw_device *device, uint64_t memory);
/* When the store is closed. */
void fsw_windows_deinit(struct fsw_device *device);

/* How a window was found. */
enum fsw_found {
    FSW_FOUND_NONE,   /* none is idle now */
    FSW_FOUND_HERE,   /* it can be opened at once */
    FSW_FOUND_FLYING, /* its get is another's */
    FSW_FOUND_BEGUN,  /* the caller has to submit ->request, soon */
};

/* The window that has or will have the object, used by the caller until fsw_window_leave. Its row must
 * be pinned by the caller. deadline: of the get, 0: none. seek_here: only one that is here. */
struct fsw_window *fsw_windows_seek(struct fsw_device *device, const struct fsw_place *place,
                                    uint64_t deadline, enum fsw_found *ret_found);
struct fsw_window *fsw_windows_seek_here(struct fsw_device *device, const struct fsw_place *place);

/* Waits until one may be idle, or until deadline (0: none). */
void fsw_windows_wait_idle(struct fsw_device *device, uint64_t deadline);

/* Waits until it is here: 0 with a copy of the request as it ended, or -EINPROGRESS at the deadline (0:
 * none). */
int fsw_window_wait(struct fsw_window *window, uint64_t deadline,
                    struct fsw_store_request *ret_request);

/* Where the object is, of a window that is here, whose get went well. NULL: it did not come whole. */
const char *fsw_window_object(const struct fsw_window *window, const struct fsw_place *place);

/* Nobody finds it any more: what is in it was not right. */
void fsw_window_distrust(struct fsw_window *window);

/* The caller's use ends, whether the window is here or not. */
void fsw_window_leave(struct fsw_window *window);

#endif
