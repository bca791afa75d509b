/*
 * work.h: what the engine is doing when it dies.
 *
 * Workers with pages of their own (so that the model needs no locks) write, discard, zero and read at any
 * offset and length, with contents of every kind, ask for compaction, push everything out to the store,
 * and change memory=, who leaves, and how much may. Everything follows from the seed but for the moment
 * at which the engine's own threads do their part.
 */
#ifndef WORK_H
#define WORK_H

#include "model.h"
#include "shelf.h"

#define WORKERS_MAX 3u

struct work {
    struct fsw_device *device;
    struct model *model;
    struct shelf *shelf;
    uint64_t seed;
    unsigned workers, steps; /* steps of each worker */
};

/* 0, or what went wrong was printed. */
int work_run(const struct work *work);

/* memory= far below what anybody may ask for, so that a few dozen pages fill it; and something was spent in
 * a day that is over. Of a new device that is not started. */
void work_shrink(struct fsw_device *device);

/* A day's limit that has room for all that is done here: who died may have left none. */
void work_set_limit(struct fsw_device *device);

/* Waits until no put or drop is under way or due. 0, or a line. */
int work_rest(struct fsw_device *device);

/* Everything out to the store. 0, or a line. */
int work_evict_all(struct fsw_device *device);

#endif
