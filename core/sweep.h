/*
 * sweep.h: what a store has and should not: the segments of nobody.
 */
#ifndef FSW_SWEEP_H
#define FSW_SWEEP_H

#include <pthread.h>
#include <stdint.h>

#include "farswap/store.h"

struct fsw_device;

#define FSW_SWEEP_BATCH 64u

struct fsw_sweep_id {
    uint64_t id;
    uint32_t row; /* 0: the store does not know it */
    uint32_t known;
};

struct fsw_sweep {
    pthread_t thread;
    pthread_mutex_t lock; /* wanted, and for the wake */
    pthread_cond_t wake;
    _Atomic int running;
    int wanted;
    int looked; /* at least once: a new device leaves nothing before it has begun */
    _Atomic int stop;
    uint64_t reconnects, look_after, pause; /* after a failed look, doubled */
    struct fsw_sweep_id *ids;               /* listed, and not yet compared */
    uint32_t count, room;
    struct fsw_store_request requests[FSW_SWEEP_BATCH];
};

/* Stop before the store is closed: it waits for a listing, which a store that says nothing holds up for
 * some seconds. */
int fsw_sweep_start(struct fsw_device *device);
void fsw_sweep_stop(struct fsw_device *device);

/* Looks soon, whatever the store says of its connections. */
void fsw_sweep_want(struct fsw_device *device);

#endif
