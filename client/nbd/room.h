/*
 * room.h: the waiting room, where requests wait for the store or for space, so that nothing else
 * waits with them.
 *
 * Reads wait in entries, one for each range of pages: a second read of the same range joins the
 * first, also one of another connection, so that a client that sends its reads again (its timeout
 * was shorter than the store is away) does not make more fetches, and gets the answer of the first.
 * A few threads fetch them, FSW_FETCH_BATCH pages at a time, into buffers of their own, and copy to
 * those who still want them: a connection that ends takes its requests out and is free to go.
 *
 *   R1  A read gets content from after it came: one that joined while its fetch ran gets that
 *       fetch's only if all of it is FSW_IO_FRESH, else it is fetched again.
 *   R2  An entry that nobody wants and that does not run is gone.
 *
 * Mutations wait in a queue of their own, with threads of their own, until their deadline at most;
 * they can't be taken out, since their bytes are being read.
 */
#ifndef FSW_NBD_ROOM_H
#define FSW_NBD_ROOM_H

#include <pthread.h>

#include "farswap/device.h"

#define FSW_ROOM_WAITS 1024u
#define FSW_ROOM_READERS 8u
#define FSW_ROOM_WRITERS 4u
#define FSW_ROOM_BUCKETS 256u

struct fsw_request;

struct fsw_wait {
    uint64_t offset, length; /* whole pages */
    uint64_t at;             /* bytes that were answered */
    int running;
    struct fsw_request *wanted; /* by wait_next */
    struct fsw_wait *next;      /* free, or in the queue */
    struct fsw_wait *same;      /* of its bucket */
};

struct fsw_room {
    struct fsw_device *device;
    pthread_mutex_t lock;
    pthread_cond_t reads, mutations;
    struct fsw_wait *free, *queue, **queue_last;
    struct fsw_wait *buckets[FSW_ROOM_BUCKETS];
    struct fsw_request *mutation, **mutation_last;
    struct fsw_wait waits[FSW_ROOM_WAITS];
};

/* Starts the threads. device: may be NULL and be set later, before the first request. */
int fsw_room_start(struct fsw_room *room, struct fsw_device *device);

/* Takes requests linked by `next`, until there is no room for one. Returns the rest. Reads must be
 * in range; when they end, they have not been counted. */
struct fsw_request *fsw_room_enter(struct fsw_room *room, struct fsw_request *requests);

/* Takes a read out. 1: it is the caller's; 0: it has ended. */
int fsw_room_leave(struct fsw_room *room, struct fsw_request *request);

#endif
