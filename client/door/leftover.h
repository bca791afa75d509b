/*
 * leftover.h: what devices before this one have left at stores that this one does not use.
 *
 * At the stores that it does use, the engine makes them forget (core/sweep.c). A predecessor that had
 * others, or one more, is cared for here: each of its stores is opened as its record says, and told,
 * until all have forgotten it. One that is away is tried again, after five seconds and then at ever
 * longer pauses, for as long as the server lives; a line says so once.
 *
 * Locks: `lock`, for `stop` alone.
 */
#ifndef FSW_LEFTOVER_H
#define FSW_LEFTOVER_H

#include <pthread.h>

#include "farswap/record.h"

struct fsw_leftover {
    char name[FSW_NAME_MAX + 1];
    char overflow[512]; /* of the device that is served */
    void (*warn)(const char *line);
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int stop;

    /* of a round */
    unsigned round, left;
};

void fsw_leftover_init(struct fsw_leftover *leftover, const char *name, const char *overflow,
                       void (*warn)(const char *line));

/* 1: there is something. Reads files. */
int fsw_leftover_is_there(const struct fsw_leftover *leftover);

/* Returns when nothing is left, or soon after it is told to stop: within the seconds that a store takes
 * that does not answer, or is just forgetting. Allocates. */
void fsw_leftover_run(struct fsw_leftover *leftover);
void fsw_leftover_stop(struct fsw_leftover *leftover); /* from another thread */

#endif
